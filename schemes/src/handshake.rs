//! Challenges that a provider sends before it sends events, or between them, and their answers.
//!
//! Pure: a secret that was learnt and a URL that has to be called are handed to the caller, which
//! stores the one and decides about the other. Invariants: what is not signed is answered only with
//! the configured token or the switch; nothing of a challenge comes back as HTML; a request that
//! merely looks like a challenge and proves nothing gets a refusal, never an event; the endpoint's key signs a text that
//! a stranger chooses only in the shape that the row gives, and no text of that shape passes as an event.

use std::borrow::Cow;

use crate::{
    key::Keys,
    layout::Encoding,
    locate::{Scene, Spot, is_header_name},
    pinned::PinnedUrl,
    request::{Refusal, Request},
    row::{
        Provider,
        raw::{RawHandshake, RawProof},
    },
    scheme::Scheme,
    secret::Secret,
    shape::Shape,
    template::{self, Found, Piece},
};

/// Bodies above this are no challenges, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Longest value of an answer's header, and longest text of its body, in bytes.
const MAX_ANSWER: usize = 8 * 1024;

/// Longest text that a person is shown, in bytes.
const MAX_SHOWN: usize = 256;

/// Lengths that a learnt secret may have, in bytes.
const LEARNT_BYTES: std::ops::RangeInclusive<usize> = 8..=512;

#[derive(Clone, Debug)]
pub struct Handshake {
    pub name: String,
    method: String,
    when: Vec<(Spot, Wanted)>,
    proof: RawProof,
    token: Option<Spot>,
    status: u16,
    refused_status: u16,
    body: Body,
    content_type: Option<String>,
    headers: Vec<(String, Vec<Piece>)>,
    mac: Option<Mac>,
    learns: Option<Spot>,
    shows: Option<Spot>,
    confirm: Option<(Spot, PinnedUrl)>,
}

#[derive(Clone, Debug)]
enum Wanted {
    Anything,
    Nothing,
    Value(String),
}

#[derive(Clone, Debug)]
enum Body {
    Empty,
    Text(Vec<Piece>),
    Json(Vec<(String, Vec<Piece>)>),
}

#[derive(Clone, Debug)]
struct Mac {
    plain: bool,
    encoding: Encoding,
    template: Vec<Piece>,
    /// Nothing else is signed.
    shape: Option<Shape>,
}

/// What an endpoint knows when it answers a challenge.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answering<'a> {
    /// Its keys; `None` while it has no secret.
    pub keys: Option<&'a Keys>,
    /// The token that challenges must carry, where the provider has one.
    pub verify_token: Option<&'a Secret>,
    /// Whether challenges may be answered that prove nothing.
    pub allow_unsigned: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Respond(Reply),
    /// A refusal; the code goes into records, not to the sender.
    Refused {
        status: u16,
        /// Why, as a stable code.
        code: &'static str,
        /// What its signature lacks, where it has to be signed.
        refusal: Option<Refusal>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub handshake: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// A secret that the endpoint has to keep from now on.
    pub learns_secret: Option<Secret>,
    /// What a person has to take back to the provider: printable, one line.
    pub shown: Option<String>,
    /// A URL of the provider's own that confirms when it is called.
    pub confirm_url: Option<String>,
}

impl Handshake {
    pub(crate) fn new(raw: &RawHandshake) -> Result<Self, String> {
        let spot = |text: &str| Spot::parse(text).ok_or_else(|| format!("{text:?} is no place"));
        let optional = |text: &Option<String>| text.as_deref().map(spot).transpose();
        let when = raw.when.iter().map(|(place, value)| {
            let wanted = match value.as_str() {
                "" => Wanted::Anything,
                "!" => Wanted::Nothing,
                value => Wanted::Value(value.to_owned()),
            };
            Ok((spot(place)?, wanted))
        });
        let body = match (&raw.text, raw.json.is_empty()) {
            (None, true) => Body::Empty,
            (Some(text), true) => Body::Text(template::parse(text)?),
            (None, false) => {
                let members = raw.json.iter().map(|(name, text)| Ok((name.clone(), template::parse(text)?)));
                Body::Json(members.collect::<Result<_, String>>()?)
            }
            (Some(_), false) => return Err("give text or json".to_owned()),
        };
        let headers = raw.headers.iter().map(|(name, text)| match is_header_name(name) {
            true => Ok((name.to_ascii_lowercase(), template::parse(text)?)),
            false => Err(format!("{name:?} is no header name")),
        });
        let confirm = match (&raw.confirm, &raw.confirm_url) {
            (None, None) => None,
            (Some(at), Some(url)) => Some((spot(at)?, PinnedUrl::parse(url)?)),
            _ => return Err("confirm and confirm_url go together".to_owned()),
        };
        if (raw.proof == RawProof::Token) != raw.token.is_some() {
            return Err("proof = \"token\" and the key token go together".to_owned());
        }
        let mac = raw.mac.as_ref().map(|mac| {
            let template = template::parse(&mac.template)?;
            if template.iter().any(|piece| matches!(piece, Piece::Secret | Piece::Mac)) {
                return Err("{secret} and {mac} are no parts of what an answer signs".to_owned());
            }
            let shape = mac.shape.as_deref().map(Shape::parse).transpose()?;
            Ok::<_, String>(Mac { plain: mac.plain, encoding: mac.encoding, template, shape })
        });
        let refused = if raw.proof == RawProof::Signature { 401 } else { 403 };
        Ok(Self {
            name: raw.name.clone(),
            method: raw.method.clone(),
            when: when.collect::<Result<_, String>>()?,
            proof: raw.proof,
            token: optional(&raw.token)?,
            status: raw.status,
            refused_status: raw.refused_status.unwrap_or(refused),
            body,
            content_type: raw.content_type.clone(),
            headers: headers.collect::<Result<_, String>>()?,
            mac: mac.transpose()?,
            learns: optional(&raw.learns)?,
            shows: optional(&raw.shows)?,
            confirm,
        })
    }

    /// The shape of what a stranger can have signed with the key of `scheme`, `None` where nobody can.
    pub(crate) fn signed_for_strangers(&self, scheme: Option<&Scheme>) -> Result<Option<&Shape>, String> {
        let Some(mac) = self.mac.as_ref().filter(|mac| !mac.plain) else { return Ok(None) };
        let scheme = scheme.filter(|scheme| scheme.algorithm.is_keyed_hash());
        let scheme = scheme.ok_or("an answer that is signed needs a scheme that signs by HMAC, or plain = true")?;
        // A signature that covers all of the text leaves the asker no choice.
        let covered = |piece: &Piece| match piece {
            Piece::Text(_) | Piece::Body => true,
            Piece::At { spot, .. } => spot.in_body() || matches!(spot, Spot::Setting(_)),
            _ => false,
        };
        if self.proof == RawProof::Signature && scheme.signs_whole_body() && mac.template.iter().all(covered) {
            return Ok(None);
        }
        let shape = mac.shape.as_ref().ok_or(
            "whoever asks chooses the text that this answer signs; say what a challenge looks like, such as \
             mac = { ..., shape = \"[A-Za-z0-9_-]{16,64}\" }",
        )?;
        if let Some(letter) = shape.beyond_challenges() {
            return Err(format!("the shape holds {letter:?}, which events need; letters, digits and _+/=.~- are left"));
        }
        if scheme.algorithm.is_jwt() && shape.holds(b'.') {
            return Err("the shape holds '.', and with it every token that this scheme signs".to_owned());
        }
        if shape.fits(b"") {
            return Err("the shape allows an empty text, which an empty body is".to_owned());
        }
        Ok(Some(shape))
    }

    /// Where a credential stands in it: the token that proves it, or the secret that it teaches.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = &Spot> {
        self.token.iter().chain(&self.learns)
    }

    pub(crate) fn reads_body(&self) -> bool {
        self.when.iter().any(|(spot, _)| spot.in_body())
    }

    pub(crate) const fn learns_secret(&self) -> bool {
        self.learns.is_some()
    }

    pub(crate) fn confirm_url(&self) -> Option<&PinnedUrl> {
        self.confirm.as_ref().map(|(_, url)| url)
    }

    /// Whether its answer needs a URL to be called.
    pub const fn confirms(&self) -> bool {
        self.confirm.is_some()
    }

    /// Whether it is signed as events are, and so needs no further configuration.
    pub fn is_signed(&self) -> bool {
        self.proof == RawProof::Signature
    }

    /// Whether it needs the switch or a configured token.
    pub fn needs_permission(&self) -> bool {
        matches!(self.proof, RawProof::Token | RawProof::Switch | RawProof::Answer)
    }

    fn matches(&self, scene: &Scene<'_>) -> bool {
        let request = scene.request;
        self.method == request.method
            && self.when.iter().all(|(spot, wanted)| {
                let value = spot.read(scene).ok().flatten();
                match wanted {
                    Wanted::Anything => value.is_some_and(|value| !value.is_empty()),
                    Wanted::Nothing => value.is_none(),
                    Wanted::Value(text) => value.is_some_and(|value| *value == *text.as_bytes()),
                }
            })
    }

    /// Which key signed it, or why it is refused.
    fn prove(
        &self,
        provider: &Provider,
        scene: &Scene<'_>,
        answering: &Answering<'_>,
        now: i64,
    ) -> Result<usize, (&'static str, Option<Refusal>)> {
        let unsigned = |code| Err((code, None));
        match self.proof {
            RawProof::None => Ok(0),
            RawProof::Answer if answering.verify_token.is_some() => Ok(0),
            RawProof::Switch | RawProof::Answer if answering.allow_unsigned => Ok(0),
            RawProof::Switch | RawProof::Answer => unsigned("challenge_not_allowed"),
            RawProof::Token => {
                let Some(wanted) = answering.verify_token else {
                    return if answering.allow_unsigned { Ok(0) } else { unsigned("challenge_not_allowed") };
                };
                let given = self.token.as_ref().and_then(|spot| spot.read(scene).ok().flatten()).unwrap_or_default();
                let equal = crate::key::Digest::of(wanted.expose()).equals(crate::key::Digest::of(&given).bytes());
                if bool::from(equal) { Ok(0) } else { unsigned("challenge_token_wrong") }
            }
            RawProof::Signature => {
                let verified = match (&provider.scheme, answering.keys) {
                    (Some(scheme), Some(keys)) => scheme.verify(keys, scene.request, now),
                    _ => Err(Refusal::SecretMissing),
                };
                verified.map(|verified| verified.key_index).map_err(|refusal| (refusal.code(), Some(refusal)))
            }
        }
    }

    fn answer(&self, scene: &Scene<'_>, answering: &Answering<'_>, key_index: usize) -> Option<Reply> {
        let mac = match &self.mac {
            None => String::new(),
            Some(mac) => mac.of(scene, answering, key_index)?,
        };
        let fill = |pieces: &[Piece]| {
            let found = Found { mac: mac.as_bytes(), ..Found::default() };
            let text = template::render_text(pieces, scene, found).ok()?;
            String::from_utf8(text).ok().filter(|text| text.len() <= MAX_ANSWER)
        };
        let (body, kind) = match &self.body {
            Body::Empty => (Vec::new(), None),
            Body::Text(pieces) => (fill(pieces)?.into_bytes(), Some("text/plain")),
            Body::Json(members) => {
                let members = members.iter().map(|(name, pieces)| Some((name.clone(), fill(pieces)?.into())));
                let object: serde_json::Map<_, _> = members.collect::<Option<_>>()?;
                (serde_json::Value::Object(object).to_string().into_bytes(), Some("application/json"))
            }
        };
        let mut headers = Vec::new();
        if let Some(kind) = self.content_type.as_deref().or(kind) {
            headers.push(("content-type".to_owned(), kind.to_owned()));
            headers.push(("x-content-type-options".to_owned(), "nosniff".to_owned()));
        }
        for (name, pieces) in &self.headers {
            let value = fill(pieces)?;
            if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                return None;
            }
            headers.push((name.clone(), value));
        }
        let learnt = match &self.learns {
            None => None,
            Some(spot) => {
                let value = spot.read(scene).ok()??;
                let good = LEARNT_BYTES.contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
                Some(good.then(|| Secret::new(value.into_owned()))?)
            }
        };
        let shown = match &self.shows {
            None => None,
            Some(spot) => {
                let text = String::from_utf8(spot.read(scene).ok()??.into_owned()).ok()?;
                let good = text.len() <= MAX_SHOWN && text.bytes().all(|byte| byte.is_ascii_graphic());
                Some(good.then_some(text)?)
            }
        };
        let confirm_url = match &self.confirm {
            None => None,
            Some((spot, pinned)) => {
                let text = String::from_utf8(spot.read(scene).ok()?.map(Cow::into_owned)?).ok()?;
                Some(pinned.allows(&text, scene).then_some(text)?)
            }
        };
        let (handshake, status) = (self.name.clone(), self.status);
        Some(Reply { handshake, status, headers, body, learns_secret: learnt, shown, confirm_url })
    }
}

impl Mac {
    fn of(&self, scene: &Scene<'_>, answering: &Answering<'_>, key_index: usize) -> Option<String> {
        // The token has a setting of its own in some configs.
        let setting = scene.keys.and_then(|keys| keys.settings("verification_token").first()).map(String::as_bytes);
        let verify_token = answering.verify_token.map(Secret::expose).or(setting);
        let found = Found { verify_token, ..Found::default() };
        let text = template::render_text(&self.template, scene, found).ok()?;
        if self.shape.as_ref().is_some_and(|shape| !shape.fits(&text)) {
            return None;
        }
        let digest = match self.plain {
            true => crate::key::Digest::of(&text),
            false => answering.keys?.keys.get(key_index)?.sign(&[template::SignedPart::Bytes(text.into())], scene.url),
        };
        Some(self.encoding.encode(digest.bytes()))
    }
}

impl Provider {
    /// Answers a request if it is one of the provider's challenges; `None` if it is not.
    pub fn handshake(&self, request: &Request<'_>, answering: &Answering<'_>, now_unix_s: i64) -> Option<Challenge> {
        if self.handshakes.is_empty() || request.body.len() > MAX_BODY {
            return None;
        }
        let scene = Scene::new(request, answering.keys).json_in(self.json_part());
        let handshake = self.handshakes.iter().find(|handshake| handshake.matches(&scene))?;
        let refused = |(code, refusal)| Challenge::Refused { status: handshake.refused_status, code, refusal };
        Some(match handshake.prove(self, &scene, answering, now_unix_s) {
            Err(why) => refused(why),
            Ok(key_index) => handshake
                .answer(&scene, answering, key_index)
                .map_or(refused(("challenge_malformed", None)), Challenge::Respond),
        })
    }
}

#[cfg(test)]
mod tests;
