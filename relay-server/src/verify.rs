//! From received to proven: the only door to the type [`Webhook`].
//!
//! A webhook can be made here alone, and only by a rule that held, or by one whose owner wrote `enforce = false`; it
//! then says so in its mark. What comes after this module can rely on it; nothing here answers, stores or forwards.

mod keyring;
mod sign;

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use hyper::upgrade::OnUpgrade;
use relay_schemes::{
    Answering, Challenge, EventMeta, Headers, KeyTag, Keys, Locator, LongBody, Material, Provider, Refusal, Request,
    Secret, SecretError, SecretWarning, SignatureScope,
    explain::{Candidates, Finding, explain},
};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use self::keyring::Keyring;
pub(crate) use self::{
    keyring::{Fetch, FetchEnd, Fetched, Need},
    sign::{Afresh, CannotSign, Signer},
};
use crate::{
    hops::Hop,
    replay_guard::RequestMark,
    spool::BodyFile,
    webhook::{EventId, Received, input::RequestBody},
};

/// For how many seconds a signature without a limit of age is remembered.
const UNLIMITED_S: i64 = 30 * 24 * 60 * 60;

#[derive(Debug)]
pub(crate) enum Rule {
    /// Nothing: `verify = "none"`.
    Open,
    Row(Box<RowRule>),
    /// What this provider's row says, and nothing can prove it: a secret could not be read.
    Closed(Arc<Provider>),
}

/// A provider's row, with what one endpoint knows.
pub(crate) struct RowRule {
    provider: Arc<Provider>,
    keyring: Keyring,
    policy: Policy,
    /// Whether it needs the whole body of any request. Every request asks.
    needs_whole_bodies: bool,
    names: AskedNames,
}

/// What an endpoint decides beside the row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// Whether what is not proven passes, marked as such.
    pub lenient: bool,
    /// The token that challenges must carry.
    pub verify_token: Option<Secret>,
    /// Whether challenges are answered that prove nothing.
    pub allow_unsigned_challenge: bool,
    pub confirm: bool,
    /// Where the provider publishes its keys.
    pub jwks_url: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Payload {
    Whole(Bytes),
    /// In a file; and in memory as well, where the endpoint looks into it.
    Long(BodyFile, Option<Bytes>),
    Streaming(RequestBody),
    /// No body, and the wish to upgrade the connection.
    Upgrade(OnUpgrade),
}

impl Payload {
    /// What of it is in memory.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(body) | Self::Long(_, Some(body)) => body,
            Self::Long(_, None) | Self::Streaming(_) | Self::Upgrade(_) => &[],
        }
    }

    /// It, where it is in a file alone.
    fn long(&self) -> Option<&BodyFile> {
        if let Self::Long(body, None) = self { Some(body) } else { None }
    }

    /// What of it may stand on record, once it was collected.
    pub(crate) fn seen(&self) -> Option<SeenBody> {
        let (bytes, len) = match self {
            Self::Whole(body) => (body, body.len() as u64),
            Self::Long(body, whole) => (whole.as_ref().unwrap_or(body.beginning()), body.size()),
            Self::Streaming(_) | Self::Upgrade(_) => return None,
        };
        Some(SeenBody { bytes: bytes.clone(), len })
    }

    fn sha256(&self) -> Option<[u8; 32]> {
        match self {
            Self::Whole(body) => Some(Sha256::digest(body).into()),
            Self::Long(body, _) => Some(*body.sha256()),
            Self::Streaming(_) | Self::Upgrade(_) => None,
        }
    }
}

/// A body that was collected, or the beginning of a long one.
#[derive(Clone, Debug)]
pub(crate) struct SeenBody {
    pub bytes: Bytes,
    /// How long the whole is.
    pub len: u64,
}

impl SeenBody {
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.len
    }
}

/// A request that has not proven it, given back whole for the record.
#[derive(Debug)]
pub(crate) struct Unproven {
    pub received: Box<Received>,
    pub payload: Payload,
    pub refusal: Refusal,
}

/// A request that has proven what its endpoint asks for.
#[derive(Debug)]
pub(crate) struct Webhook {
    received: Box<Received>,
    payload: Payload,
    scheme: Cow<'static, str>,
    mark: Option<RequestMark>,
    signed: Option<[u8; 32]>,
    signer: Option<KeyTag>,
    event: EventMeta,
}

/// What a proof says beside that it holds.
#[derive(Default)]
struct Proof {
    mark: Option<RequestMark>,
    signed: Option<[u8; 32]>,
    signer: Option<KeyTag>,
}

impl Rule {
    /// The rule of a provider's row, and what was done to secrets that were not quite in its form.
    ///
    /// # Errors
    /// [`SecretError`] for the first thing that the row needs and that cannot be used.
    pub(crate) fn new(
        provider: Arc<Provider>,
        material: Material,
        policy: Policy,
    ) -> Result<(Self, Vec<SecretWarning>), SecretError> {
        let (keyring, warnings) = Keyring::new(&provider, material, policy.jwks_url.is_some())?;
        let needs_whole_bodies = provider.needs_whole_body(None);
        let names = AskedNames::default();
        Ok((Self::Row(Box::new(RowRule { provider, keyring, policy, needs_whole_bodies, names })), warnings))
    }

    fn row(&self) -> Option<&RowRule> {
        if let Self::Row(row) = self { Some(row) } else { None }
    }

    /// Whether nothing can be proven, since a secret could not be read.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Whether it asks for no proof at all: anyone who knows the endpoint's address may post there.
    pub(crate) fn asks_nothing(&self) -> bool {
        match self {
            Self::Open => true,
            Self::Row(row) => row.provider.scheme.is_none(),
            Self::Closed(_) => false,
        }
    }

    /// Whether everything that passes has shown who sent it: nothing passes unproven, not even marked as such.
    pub(crate) fn proves(&self) -> bool {
        !self.asks_nothing() && self.row().is_none_or(|row| !row.policy.lenient)
    }

    /// Whether a request may be a challenge, or its key may have to be fetched first.
    pub(crate) fn may_ask(&self) -> bool {
        self.row().is_some_and(|row| !row.provider.handshakes.is_empty() || row.keyring.fetches())
    }

    /// Whether the whole body must be there before the rule can be applied.
    pub(crate) fn covers_body(&self) -> bool {
        self.row().is_some_and(|RowRule { provider, .. }| {
            let signed = provider.scheme.as_ref().is_some_and(relay_schemes::Scheme::covers_body);
            signed || (!provider.handshakes.is_empty() && provider.reads_body())
        })
    }

    /// Whether it looks into the body of a request, or takes no less than all of it at once; without a request: of any.
    pub(crate) fn needs_whole_body(&self, received: Option<&Received>) -> bool {
        let Some(row) = self.row() else { return false };
        match received {
            None => row.needs_whole_bodies,
            Some(received) => {
                let headers = row.lines(received);
                row.provider.needs_whole_body(Some(&request(received, &headers, &[])))
            }
        }
    }

    pub(crate) fn provider_name(&self) -> &str {
        self.provider().map_or("none", |provider| &provider.name)
    }

    pub(crate) fn may_confirm(&self) -> bool {
        self.row().is_some_and(|row| row.policy.confirm)
    }

    /// Takes the secret that was learnt in a handshake; it goes before those of the config.
    pub(crate) fn set_learnt(&self, secret: Option<Secret>) {
        if let Some(row) = self.row().filter(|row| row.provider.learns_secret()) {
            row.keyring.set_learnt(&row.provider, secret);
        }
    }

    /// Whether there are secrets, configured or learnt, and this one is not among them.
    pub(crate) fn has_other_secret(&self, secret: &Secret) -> bool {
        let known = self.secrets();
        !known.is_empty() && !known.contains(secret)
    }

    /// What a request has to do for a key before the rule can be applied, or applied again after this refusal.
    pub(crate) fn key_need(&self, received: &Received, body: &[u8], refusal: Option<Refusal>) -> Need {
        let Some(row) = self.row() else { return Need::Nothing };
        let headers = row.lines(received);
        let request = request(received, &headers, body);
        row.keyring.need(&row.provider, &row.policy, &request, (received.started, received.client), refusal)
    }

    pub(crate) fn take_key(&self, fetch: Fetch, fetched: Fetched) -> FetchEnd {
        self.row().map_or(FetchEnd::Failed, |row| row.keyring.take(&row.provider, fetch, fetched))
    }

    /// Which of its secrets verified a request, from 1, and how many there are, where that is known and still so.
    pub(crate) fn secret_number(&self, signer: Signer<'_>) -> Option<(usize, usize)> {
        self.row()?.keyring.keys().as_ref()?.number_of(signer.tag?, signer.event_id.as_bytes())
    }

    /// Its shared secrets, from 1, and when each last verified a request, in seconds since 1970.
    pub(crate) fn secrets_used(&self) -> impl Iterator<Item = (usize, Option<i64>)> {
        self.row().into_iter().flat_map(|row| row.keyring.uses())
    }

    /// Whether there are keys to verify with, be they old.
    pub(crate) fn has_keys(&self) -> bool {
        self.row().is_some_and(|row| row.keyring.keys().is_some())
    }

    pub(crate) fn fetched_keys(&self) -> Vec<(String, String)> {
        self.row().map(|row| row.keyring.fetched(&row.policy)).unwrap_or_default()
    }

    /// Takes keys that were fetched before a restart or a reload, where it has none of that address.
    pub(crate) fn restore_keys(&self, keys: &[(String, String)]) {
        if let Some(row) = self.row().filter(|_| !keys.is_empty()) {
            row.keyring.restore(&row.provider, &row.policy, keys);
        }
    }

    /// What to do with a challenge of the provider; `None` if the request is none. A long body is no challenge.
    pub(crate) fn challenge(&self, received: &Received, body: &[u8]) -> Option<Challenge> {
        let row = self.row().filter(|row| !row.provider.handshakes.is_empty())?;
        let keys = row.keyring.keys();
        let answering = Answering {
            keys: keys.as_deref(),
            verify_token: row.policy.verify_token.as_ref(),
            allow_unsigned: row.policy.allow_unsigned_challenge,
        };
        let headers = row.lines(received);
        row.provider.handshake(&request(received, &headers, body), &answering, received.at.as_second())
    }

    /// Applies the rule. `late` is how old a request may be whose taker knows that it did not come before.
    pub(crate) fn verify(
        &self,
        received: Box<Received>,
        payload: Payload,
        late: Option<Duration>,
    ) -> Result<Box<Webhook>, Box<Unproven>> {
        let (scheme, event, proof) = match self {
            Self::Open => (Cow::Borrowed("none"), EventMeta::default(), Ok(Proof::default())),
            Self::Closed(_) => (Cow::Borrowed(""), EventMeta::default(), Err(Refusal::SecretMissing)),
            Self::Row(row) => {
                let headers = row.lines(&received);
                let request = request(&received, &headers, payload.bytes());
                let event = row.provider.event(&request);
                match row.prove(&request, &payload, received.event_id, received.at.as_second(), late) {
                    Err(refusal) if row.policy.lenient => {
                        (Cow::Owned(format!("failed:{}", refusal.code())), event, Ok(Proof::default()))
                    }
                    proof if row.provider.scheme.is_none() => (Cow::Borrowed("none"), event, proof),
                    proof => (Cow::Owned(row.provider.name.clone()), event, proof),
                }
            }
        };
        match proof {
            Ok(Proof { mark, signed, signer }) => {
                Ok(Box::new(Webhook { received, payload, scheme, mark, signed, signer, event }))
            }
            Err(refusal) => Err(Box::new(Unproven { received, payload, refusal })),
        }
    }

    /// Its provider's row, whether or not anything can be proven.
    pub(crate) fn provider(&self) -> Option<&Provider> {
        match self {
            Self::Open => None,
            Self::Row(row) => Some(&row.provider),
            Self::Closed(provider) => Some(provider),
        }
    }

    /// What a request says about itself, whoever made it.
    pub(crate) fn event_of(&self, request: &Request<'_>) -> EventMeta {
        self.provider().map(|provider| provider.event(request)).unwrap_or_default()
    }

    /// Says which usual mistake a refused request may be. Bounded, and far more work than a verification.
    pub(crate) fn explain(&self, request: &Request<'_>, now_unix_s: i64, also: &Candidates<'_>) -> Vec<Finding> {
        match self {
            Self::Open => vec![Finding::Verifies],
            Self::Closed(_) => vec![Finding::Refused(Refusal::SecretMissing)],
            Self::Row(row) => explain(&row.provider, &row.keyring.material(), request, now_unix_s, also),
        }
    }

    /// The endpoint's own secrets, for trying whether another endpoint's request is signed with one of them.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.row().map(|row| row.keyring.material().secrets).unwrap_or_default()
    }
}

impl RowRule {
    fn lines<'a>(&'a self, received: &'a Received) -> Lines<'a> {
        Lines { map: &received.head.headers, names: &self.names }
    }

    fn prove(
        &self,
        request: &Request<'_>,
        payload: &Payload,
        event_id: EventId,
        now_unix_s: i64,
        late: Option<Duration>,
    ) -> Result<Proof, Refusal> {
        let Some(scheme) = &self.provider.scheme else { return Ok(Proof::default()) };
        let keys = self.keyring.keys();
        let keys: &Keys = keys.as_deref().ok_or(Refusal::SecretMissing)?;
        let late_s = late.and_then(|late| i64::try_from(late.as_secs()).ok());
        let long = payload.long().map(|body| body as &dyn LongBody);
        let verify = |past_s| scheme.verify_with(keys, request, long, now_unix_s, past_s);
        let (verified, is_late) = match (verify(None), late_s) {
            (Err(Refusal::TimestampTooOld), Some(late_s)) => (verify(Some(late_s))?, true),
            (outcome, _) => (outcome?, false),
        };
        self.keyring.note_use(verified.key_index, now_unix_s);
        let past_s = self.keyring.tolerance_s.or_else(|| scheme.tolerance_s().map(|(past_s, _)| past_s));
        let past_s = late_s.max(past_s).unwrap_or(UNLIMITED_S).min(UNLIMITED_S);
        // Only what can be signed afresh has to remember whose secret it was.
        let signer = scheme.tolerance_s().and_then(|_| keys.tag(verified.key_index, event_id.as_bytes()));
        let signed = verified.timestamp.map(|_| *verified.fingerprint.bytes());
        // A signature that other requests may rightly carry marks none.
        let body = match scheme.scope() {
            SignatureScope::Request => Some(None),
            SignatureScope::Occasion => Some(payload.sha256()),
            SignatureScope::Open => None,
        };
        let mark = body.zip(verified.timestamp).map(|(body, signed_unix_s)| RequestMark {
            digest: *verified.fingerprint.bytes(),
            body,
            signed_unix_s,
            expires_unix_s: signed_unix_s.saturating_add(past_s).saturating_add(1),
            is_late,
        });
        Ok(Proof { mark, signed, signer })
    }
}

impl fmt::Debug for RowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowRule({})", self.provider.name)
    }
}

fn request<'a>(received: &'a Received, headers: &'a Lines<'a>, body: &'a [u8]) -> Request<'a> {
    Request { method: received.head.method.as_str(), url: &received.url, headers, body }
}

impl Webhook {
    /// By what an unchanged repeat is recognised, where the scheme dates its signatures.
    pub(crate) fn mark(&self) -> Option<RequestMark> {
        self.mark
    }

    /// A digest of what was signed, where the scheme dates its signatures.
    pub(crate) fn signed(&self) -> Option<&[u8; 32]> {
        self.signed.as_ref()
    }

    /// What was received, where it may turn out only later that it must not pass.
    pub(crate) fn contested(&self) -> Option<(Box<Received>, SeenBody)> {
        let contested = self.mark.is_some_and(|mark| mark.is_late || mark.body.is_some());
        self.payload.seen().filter(|_| contested).map(|body| (self.received.clone(), body))
    }

    /// Which of the endpoint's secrets proved it, where it can be signed afresh.
    pub(crate) fn signer(&self) -> Option<KeyTag> {
        self.signer
    }

    pub(crate) fn locate(&self, locator: &Locator) -> Option<String> {
        let headers = Lines { map: &self.received.head.headers, names: &AskedNames::default() };
        locator.find(&request(&self.received, &headers, self.payload.bytes()))
    }

    /// What it says about itself: the sender's id of it, and its type.
    pub(crate) fn event(&self) -> &EventMeta {
        &self.event
    }

    /// What it says about itself, which it then has no more.
    pub(crate) fn take_event(&mut self) -> EventMeta {
        std::mem::take(&mut self.event)
    }

    pub(crate) fn received(&self) -> &Received {
        &self.received
    }

    pub(crate) fn pass(&mut self, hop: Hop, now: Instant) {
        self.received.way.pass(hop, now);
        self.received.read_at = now;
    }

    /// Until now, on its way from one place to the next.
    pub(crate) fn has_waited(&mut self, now: Instant) {
        self.received.read_at = now;
    }

    pub(crate) fn started(&self) -> Instant {
        self.received.started
    }

    pub(crate) fn body_digest(&self) -> Option<[u8; 32]> {
        self.payload.sha256()
    }

    pub(crate) fn method(&self) -> &http::Method {
        &self.received.head.method
    }

    pub(crate) fn event_id(&self) -> EventId {
        self.received.event_id
    }

    pub(crate) fn into_parts(self) -> (Box<Received>, Payload, Cow<'static, str>) {
        (self.received, self.payload, self.scheme)
    }
}

struct Lines<'a> {
    map: &'a HeaderMap,
    names: &'a AskedNames,
}

impl Headers for Lines<'_> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        let values = self.names.find(name).map_or_else(|| self.map.get_all(name), |name| self.map.get_all(name));
        values.iter().for_each(|value| each(value.as_bytes()));
    }
}

/// The first names that a rule asked for, as a header map knows them: to make one costs more than to look it up.
#[derive(Default)]
struct AskedNames([OnceLock<HeaderName>; 8]);

impl AskedNames {
    /// The name that reads so, if there is still room for it.
    fn find(&self, name: &str) -> Option<&HeaderName> {
        for place in &self.0 {
            let known = match place.get() {
                Some(known) => known,
                None => {
                    let new = HeaderName::from_bytes(name.as_bytes()).ok()?;
                    place.get_or_init(|| new)
                }
            };
            if known.as_str() == name {
                return Some(known);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_their_names_however_many_were_asked_for() {
        let names: Vec<_> = (0..12).map(|number| format!("x-number-{number}")).collect();
        let (asked, mut map) = (AskedNames::default(), HeaderMap::new());
        for name in names.iter().step_by(2) {
            for end in ["one", "two"] {
                let value = format!("{name} {end}").parse().expect("a value");
                map.append(name.parse::<HeaderName>().expect("a name"), value);
            }
        }
        for name in names.iter().chain(&names) {
            let (lines, mut found) = (Lines { map: &map, names: &asked }, Vec::new());
            lines.for_each(name, &mut |value| found.push(value));
            let there: Vec<_> = map.get_all(name.as_str()).iter().map(|value| value.as_bytes()).collect();
            assert_eq!(found, there, "{name}");
        }
        assert!(asked.find(&names[7]).is_some() && asked.find(&names[8]).is_none() && asked.find("no name").is_none());
    }
}
