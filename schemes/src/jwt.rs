//! JSON Web Tokens in compact form, as far as webhooks use them: HS256, RS256, ES256.
//!
//! The algorithm is the row's, never the token's. Claims are read only once the signature is right. Invariants: a time
//! claim that is there counts, whatever the row says, and one that cannot be read or is there twice is wrong, never absent.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest as _, Sha256};

use crate::{
    json::{self, Pointer},
    key::{Algorithm, Keys},
    layout::Layout,
    locate::{Scene, Unreadable},
    public::Message,
    request::{Fingerprint, Refusal, Verified},
    scheme::Scheme,
    template::{self, SignedPart},
};

const MAX_TOKEN: usize = 16 * 1024;

struct Token<'a> {
    signed: &'a [u8],
    header: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

pub(crate) fn verify(
    scheme: &Scheme,
    keys: &Keys,
    scene: &Scene<'_>,
    value: &[u8],
    now: i64,
) -> Result<Verified, Refusal> {
    let token = read(scheme, value).ok_or(Refusal::SignatureMalformed)?;
    let critical = values(&token.header, "crit").map_err(|_| Refusal::SignatureMalformed)?;
    if text(&token.header, "alg").as_deref() != Some(name(scheme.algorithm)) || !critical.is_empty() {
        return Err(Refusal::SignatureMalformed);
    }
    let key_index = match scheme.algorithm {
        Algorithm::JwtHs256 => {
            let parts = [SignedPart::Bytes(token.signed.into())];
            let mut matched = None;
            for (index, key) in keys.keys.iter().enumerate() {
                if bool::from(key.sign(&parts, "").equals(&token.signature)) && matched.is_none() {
                    matched = Some(index);
                }
            }
            matched
        }
        algorithm => {
            let kid = text(&token.header, "kid");
            let all = keys.public.iter().enumerate();
            let usable: Vec<_> = match &kid {
                Some(_) => all.filter(|(_, key)| key.name == kid).collect(),
                // Without a name only a single key is meant for sure.
                None => all.filter(|_| keys.public.len() == 1).collect(),
            };
            if usable.is_empty() {
                return Err(Refusal::KeyUnknown);
            }
            let message = Message::Whole(token.signed.to_vec());
            let mut usable = usable.into_iter();
            usable.find(|(_, key)| key.verifies(algorithm, &message, &token.signature)).map(|(index, _)| index)
        }
    };
    let key_index = key_index.ok_or(Refusal::SignatureMismatch)?;
    scheme.check_no_challenge(&[SignedPart::Bytes(token.signed.into())], "")?;
    let timestamp = check_claims(scheme, keys, scene, &token.payload, now)?;
    let fingerprint = Fingerprint::of(&Sha256::digest(token.signed));
    Ok(Verified { key_index, timestamp, fingerprint })
}

pub(crate) fn key_id(scheme: &Scheme, value: &[u8]) -> Option<String> {
    text(&read(scheme, value)?.header, "kid")
}

fn read<'a>(scheme: &Scheme, value: &'a [u8]) -> Option<Token<'a>> {
    let prefix = match &scheme.layout {
        Layout::Single { prefix } => prefix.as_bytes(),
        Layout::List { .. } => &[],
    };
    let (head, token) = value.split_at_checked(prefix.len())?;
    if !head.eq_ignore_ascii_case(prefix) || token.len() > MAX_TOKEN {
        return None;
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let decode = |text: &[u8]| BASE64URL_NOPAD.decode(text).ok();
    let signed = &token[..header.len() + 1 + payload.len()];
    Some(Token { signed, header: decode(header)?, payload: decode(payload)?, signature: decode(signature)? })
}

const fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::JwtRs256 => "RS256",
        Algorithm::JwtEs256 => "ES256",
        _ => "HS256",
    }
}

fn pointer(claim: &str, below: &str) -> Pointer {
    let escaped = claim.replace('~', "~0").replace('/', "~1");
    Pointer::parse(&format!("/{escaped}{below}")).expect("it begins with a slash")
}

fn values(payload: &[u8], claim: &str) -> Result<Vec<String>, Unreadable> {
    let find = |pointer: &Pointer| -> Result<Vec<_>, Unreadable> {
        let found = json::find(payload, pointer)?;
        let texts = found.iter().filter_map(|value| json::text_of(value));
        Ok(texts.filter_map(|text| String::from_utf8(text.into_owned()).ok()).collect())
    };
    let listed = find(&pointer(claim, "/*"))?;
    if listed.is_empty() { find(&pointer(claim, "")) } else { Ok(listed) }
}

fn text(payload: &[u8], claim: &str) -> Option<String> {
    values(payload, claim).ok()?.into_iter().next()
}

/// A time claim in whole Unix seconds, rounded towards the past: a number (RFC 7519, section 2), `None` if it is not there.
fn seconds(payload: &[u8], claim: &str) -> Result<Option<i64>, Refusal> {
    let place = pointer(claim, "");
    if json::find(payload, &place).map_err(|_| Refusal::ClaimWrong)?.is_empty() {
        return Ok(None);
    }
    let number = json::number(payload, &place).ok().flatten().ok_or(Refusal::ClaimWrong)?;
    let whole = number.parse().or_else(|_| number.parse().map(|at: f64| at.floor() as i64));
    whole.map(Some).map_err(|_| Refusal::ClaimWrong)
}

fn check_claims(
    scheme: &Scheme,
    keys: &Keys,
    scene: &Scene<'_>,
    payload: &[u8],
    now: i64,
) -> Result<Option<i64>, Refusal> {
    let claims = &scheme.claims;
    for (claim, expected) in &claims.equal {
        let given = values(payload, claim).map_err(|_| Refusal::ClaimWrong)?;
        if !given.iter().any(|value| expected.allows(value.as_bytes(), scene)) {
            return Err(Refusal::ClaimWrong);
        }
    }
    for claim in &claims.verified {
        if text(payload, claim).as_deref() != Some("true") {
            return Err(Refusal::ClaimWrong);
        }
    }
    if let Some((claim, template)) = &claims.hash {
        let hashed = template::render_digest(template, scene)?;
        let hash = text(payload, claim).ok_or(Refusal::ClaimWrong)?;
        let hash = HEXLOWER.decode(hash.as_bytes()).map_err(|_| Refusal::ClaimWrong)?;
        if !bool::from(hashed.equals(&hash)) {
            return Err(Refusal::BodyMismatch);
        }
    }
    let leeway = claims.leeway_s;
    let until = seconds(payload, "exp")?;
    if claims.expires && until.is_none() {
        return Err(Refusal::ClaimWrong);
    }
    // Its second is no longer good (RFC 7519, section 4.1.4).
    if until.is_some_and(|until| now.saturating_sub(leeway) >= until) {
        return Err(Refusal::TimestampTooOld);
    }
    let made = seconds(payload, "iat")?;
    for from in [seconds(payload, "nbf")?, made].into_iter().flatten() {
        if from.saturating_sub(leeway) > now {
            return Err(Refusal::TimestampTooNew);
        }
    }
    if let Some(max_age) = claims.max_age_s {
        let made = made.ok_or(Refusal::TimestampMissing)?;
        if now.saturating_sub(made) > keys.tolerance_s.unwrap_or(max_age) {
            return Err(Refusal::TimestampTooOld);
        }
    }
    Ok(made)
}

pub(crate) fn sign(scheme: &Scheme, keys: &Keys, scene: &Scene<'_>, now: i64) -> Result<String, Refusal> {
    let mut payload = serde_json::Map::new();
    for (claim, expected) in &scheme.claims.equal {
        let value = match expected {
            crate::scheme::Expected::OneOf(values) => values.first().cloned().unwrap_or_default(),
            crate::scheme::Expected::Setting(name) => keys.settings(name).first().cloned().unwrap_or_default(),
            crate::scheme::Expected::Url => scene.url.to_owned(),
        };
        payload.insert(claim.clone(), value.into());
    }
    payload.extend(scheme.claims.verified.iter().map(|claim| (claim.clone(), true.into())));
    if let Some((claim, template)) = &scheme.claims.hash {
        let hashed = template::render_digest(template, scene)?;
        payload.insert(claim.clone(), HEXLOWER.encode(hashed.bytes()).into());
    }
    payload.insert("iat".into(), now.into());
    if scheme.claims.expires {
        payload.insert("exp".into(), now.saturating_add(300).into());
    }
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, name(scheme.algorithm));
    let signed = format!("{}.{}", encode(&header), encode(&serde_json::Value::Object(payload).to_string()));
    let key = keys.lead().ok_or(Refusal::SecretMissing)?;
    let digest = key.sign(&[SignedPart::Bytes(signed.as_bytes().into())], "");
    Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(digest.bytes())))
}
