//! What may be written in a row. Nothing is checked here but names and kinds.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    key::{Algorithm, SecretForm},
    layout::Encoding,
    timestamp::Format,
    url::UrlVariant,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTable {
    pub(crate) provider: Vec<RawProvider>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawProvider {
    pub(crate) name: String,
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    #[serde(default)]
    pub(crate) docs: String,
    #[serde(default)]
    pub(crate) setup: String,
    /// Another row, from which everything is taken that this one does not say.
    pub(crate) like: Option<String>,
    pub(crate) scheme: Option<RawScheme>,
    pub(crate) event_id: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) timeout_s: Option<u32>,
    pub(crate) retries: Option<bool>,
    /// How old the same bytes may be when the provider sends them for the last time, in seconds.
    pub(crate) last_retry_s: Option<u32>,
    pub(crate) interactive: Option<bool>,
    pub(crate) max_body: Option<u64>,
    pub(crate) ack: Option<RawAck>,
    #[serde(default)]
    pub(crate) handshake: Vec<RawHandshake>,
    pub(crate) special: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAck {
    #[serde(default = "ok")]
    pub(crate) status: u16,
    pub(crate) content_type: Option<String>,
    #[serde(default)]
    pub(crate) body: String,
}

pub(crate) const fn ok() -> u16 {
    200
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawScheme {
    pub(crate) algorithm: Algorithm,
    pub(crate) algorithms: Option<RawChoice>,
    #[serde(default = "text")]
    pub(crate) secret: SecretForm,
    #[serde(default)]
    pub(crate) secret_suffix: String,
    #[serde(default)]
    pub(crate) template: String,
    pub(crate) signature: RawSignature,
    pub(crate) timestamp: Option<RawTimestamp>,
    pub(crate) id: Option<String>,
    pub(crate) nonce: Option<String>,
    #[serde(default)]
    pub(crate) require: Vec<RawRequirement>,
    pub(crate) each: Option<String>,
    #[serde(default)]
    pub(crate) url_variants: Vec<UrlVariant>,
    pub(crate) body_hash: Option<String>,
    pub(crate) json_part: Option<String>,
    pub(crate) key_at: Option<String>,
    /// Which URLs it may name there: all written out but one part. Without it, a key's id stands there.
    pub(crate) key_url: Option<String>,
    #[serde(default)]
    pub(crate) claims: RawClaims,
    pub(crate) alias: Option<RawAlias>,
}

const fn text() -> SecretForm {
    SecretForm::Text
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawChoice {
    pub(crate) at: String,
    pub(crate) by: BTreeMap<String, Algorithm>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSignature {
    pub(crate) at: Option<String>,
    #[serde(default)]
    pub(crate) any_header: Vec<String>,
    pub(crate) numbered: Option<String>,
    #[serde(default)]
    pub(crate) per_key: Vec<String>,
    pub(crate) encoding: Option<Encoding>,
    pub(crate) prefix: Option<String>,
    /// Prefixes that say which of several algorithms it is; nothing else of the request does.
    #[serde(default)]
    pub(crate) prefixes: BTreeMap<String, Algorithm>,
    pub(crate) item_separator: Option<String>,
    pub(crate) field_separator: Option<String>,
    pub(crate) field: Option<String>,
    #[serde(default)]
    pub(crate) fields: Vec<String>,
    pub(crate) field_setting: Option<String>,
    pub(crate) envelope: Option<RawEnvelope>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawEnvelope {
    pub(crate) signature: String,
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) equal: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTimestamp {
    pub(crate) at: Option<String>,
    pub(crate) field: Option<String>,
    /// The JSON member has to be a number, not a text of digits.
    #[serde(default)]
    pub(crate) number: bool,
    #[serde(default = "unix_s")]
    pub(crate) format: Format,
    pub(crate) past_s: u32,
    pub(crate) future_s: u32,
}

const fn unix_s() -> Format {
    Format::UnixS
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRequirement {
    pub(crate) at: String,
    pub(crate) value: Option<String>,
    pub(crate) setting: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawClaims {
    /// Claims and what they must be: values, `["setting:NAME"]`, `["{url}"]`.
    pub(crate) equal: BTreeMap<String, Vec<String>>,
    pub(crate) verified: Vec<String>,
    pub(crate) hash: Option<RawHash>,
    pub(crate) expires: bool,
    pub(crate) max_age_s: Option<u32>,
    pub(crate) leeway_s: u32,
}

impl Default for RawClaims {
    fn default() -> Self {
        // Clocks of token issuers and relays differ by seconds, not minutes.
        let leeway_s = 60;
        Self { equal: BTreeMap::new(), verified: Vec::new(), hash: None, expires: false, max_age_s: None, leeway_s }
    }
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHash {
    pub(crate) claim: String,
    pub(crate) template: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawAlias {
    pub(crate) prefer: String,
    pub(crate) also: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawHandshake {
    pub(crate) name: String,
    #[serde(default = "post")]
    pub(crate) method: String,
    /// What must stand where for the request to be this handshake; an empty text: anything.
    #[serde(default)]
    pub(crate) when: BTreeMap<String, String>,
    pub(crate) proof: RawProof,
    /// Where the configured token stands, with `proof = "token"`.
    pub(crate) token: Option<String>,
    #[serde(default = "ok")]
    pub(crate) status: u16,
    pub(crate) refused_status: Option<u16>,
    pub(crate) text: Option<String>,
    /// The answer's body as a JSON object of texts.
    #[serde(default)]
    pub(crate) json: BTreeMap<String, String>,
    pub(crate) content_type: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) mac: Option<RawMac>,
    pub(crate) learns: Option<String>,
    /// What a person has to read in it and take back to the provider.
    pub(crate) shows: Option<String>,
    pub(crate) confirm: Option<String>,
    /// Which URLs may stand there, as `key_url`.
    pub(crate) confirm_url: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawProof {
    /// The request is signed as events are.
    Signature,
    /// It carries the configured token, or a switch allows it.
    Token,
    Switch,
    /// Nothing is proven, and the answer is made of the configured token; without one a switch allows it.
    Answer,
    /// Nothing: the answer says nothing that could be used.
    None,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMac {
    /// `key`: HMAC under the endpoint's key; or a plain hash.
    #[serde(default)]
    pub(crate) plain: bool,
    pub(crate) encoding: Encoding,
    pub(crate) template: String,
    /// What the text must look like that is signed, `[SET]{LEAST,MOST}`: needed where a stranger chooses it.
    pub(crate) shape: Option<String>,
}
