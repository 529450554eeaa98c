//! From what was written to what can be used; every problem names its key and the way out.

use std::time::Duration;

use super::{
    Ack, Provider, RowError,
    raw::{RawAlias, RawEnvelope, RawProvider, RawRequirement, RawScheme, RawSignature, RawTable, RawTimestamp},
};
use crate::{
    handshake::Handshake,
    json::Pointer,
    key::Algorithm,
    layout::{Encoding, Layout},
    locate::{Locator, Spot, is_header_name},
    pinned::PinnedUrl,
    scheme::{Claims, Envelope, Expected, KeyAt, Requirement, Scheme, SignaturePlace, SignatureScope},
    template::{self, Piece},
    timestamp::{Timestamp, TimestampPlace},
};

/// Most rows of a table, most `like`s one after the other.
const MAX_LIKE: usize = 4;

type Problem = (&'static str, String);

pub(super) fn table(raw: RawTable) -> Result<Vec<Provider>, RowError> {
    let rows = raw.provider;
    let wrong = |row: &RawProvider, key, problem| RowError::Value { provider: row.name.clone(), key, problem };
    rows.iter().map(|row| provider(row, &rows).map_err(|(key, problem)| wrong(row, key, problem))).collect()
}

fn provider(row: &RawProvider, rows: &[RawProvider]) -> Result<Provider, Problem> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if row.name.is_empty() || row.name.len() > 64 || !row.name.bytes().all(good) {
        return Err(("name", "a name has lower-case letters, digits and dashes, at most 64".to_owned()));
    }
    if rows.iter().filter(|other| other.name == row.name).count() > 1 {
        return Err(("name", "another row has the same name".to_owned()));
    }
    let raw = inherit(row.clone(), rows)?;
    let locator = |key: &'static str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => Locator::parse(text).map(Some).ok_or((
            key,
            "expected header:NAME or json:/POINTER (or form:, query:, member:), joined by ' + ' or ' | '".to_owned(),
        )),
    };
    let handshakes = raw.handshake.iter().map(Handshake::new).collect::<Result<Vec<_>, _>>();
    let handshakes = handshakes.map_err(|problem| ("handshake", problem))?;
    let mut scheme = raw.scheme.as_ref().map(scheme).transpose()?;
    let signed = handshakes.iter().map(|one| one.signed_for_strangers(scheme.as_ref()));
    let signed: Vec<_> = signed
        .filter_map(Result::transpose)
        .map(|shape| shape.cloned())
        .collect::<Result<_, _>>()
        .map_err(|problem| ("handshake", problem))?;
    check_urls(scheme.as_ref(), &handshakes)?;
    if let Some(scheme) = &mut scheme {
        scheme.refuse_challenges(&signed);
    }
    check_last_retry(&raw, scheme.as_ref())?;
    Ok(Provider {
        scheme,
        event_id: locator("event_id", &raw.event_id)?,
        event_type: locator("event_type", &raw.event_type)?,
        timeout: raw.timeout_s.map(|seconds| Duration::from_secs(seconds.into())),
        retries: raw.retries.unwrap_or(false),
        last_retry: raw.last_retry_s.map(|seconds| Duration::from_secs(seconds.into())),
        interactive: raw.interactive.unwrap_or(false),
        max_body: raw.max_body,
        ack: raw.ack.map(|ack| Ack { status: ack.status, content_type: ack.content_type, body: ack.body }),
        handshakes,
        special: raw.special,
        name: raw.name,
        aliases: raw.aliases,
        title: raw.title,
        docs: raw.docs,
        setup: raw.setup,
    })
}

/// Whatever a request may have called takes its host from an ARN only if the endpoint's owner has set that one.
fn check_urls(scheme: Option<&Scheme>, handshakes: &[Handshake]) -> Result<(), Problem> {
    let key_url = scheme.and_then(|scheme| scheme.key_at.as_ref()?.url.as_ref()).map(|url| ("key_url", url));
    let confirm_urls = handshakes.iter().filter_map(|one| Some(("confirm_url", one.confirm_url()?)));
    for (key, url) in key_url.into_iter().chain(confirm_urls) {
        if url.arn().is_some() && !scheme.is_some_and(|scheme| scheme.pins(url)) {
            let problem =
                "the ARN of {aws:PLACE} has to be one that is set: require = [{ at = PLACE, setting = NAME }]";
            return Err((key, problem.to_owned()));
        }
    }
    Ok(())
}

fn check_last_retry(raw: &RawProvider, scheme: Option<&Scheme>) -> Result<(), Problem> {
    let past_s = |scheme: &Scheme| scheme.tolerance_s().filter(|_| scheme.scope() != SignatureScope::Open);
    let allowed = scheme.and_then(past_s).map_or(i64::MAX, |(past_s, _)| past_s);
    if raw.last_retry_s.is_some_and(|last| i64::from(last) <= allowed || raw.retries != Some(true)) {
        let problem = "it is for senders that retry, whose timestamp is signed and whose signature stands for one request, \
                       and longer than past_s";
        return Err(("last_retry_s", problem.to_owned()));
    }
    Ok(())
}

fn inherit(mut row: RawProvider, rows: &[RawProvider]) -> Result<RawProvider, Problem> {
    for _ in 0..MAX_LIKE {
        let Some(name) = row.like.take() else { return Ok(row) };
        let embedded = || toml::from_str::<RawTable>(super::TABLE).map(|table| table.provider).unwrap_or_default();
        let base = rows.iter().find(|other| other.name == name && other.name != row.name).cloned();
        let base = base.or_else(|| embedded().into_iter().find(|other| other.name == name));
        let base = base.ok_or_else(|| ("like", format!("there is no provider {name}")))?;
        row.scheme = row.scheme.or(base.scheme);
        row.event_id = row.event_id.or(base.event_id);
        row.event_type = row.event_type.or(base.event_type);
        row.timeout_s = row.timeout_s.or(base.timeout_s);
        row.retries = row.retries.or(base.retries);
        row.last_retry_s = row.last_retry_s.or(base.last_retry_s);
        row.interactive = row.interactive.or(base.interactive);
        row.max_body = row.max_body.or(base.max_body);
        row.ack = row.ack.or(base.ack);
        if row.handshake.is_empty() {
            row.handshake = base.handshake;
        }
        if row.docs.is_empty() {
            row.docs = base.docs;
        }
        if row.setup.is_empty() {
            row.setup = base.setup;
        }
        row.like = base.like;
    }
    Err(("like", "the rows that it is like have no end".to_owned()))
}

pub(crate) fn spot(key: &'static str, text: &str) -> Result<Spot, Problem> {
    Spot::parse(text).ok_or_else(|| {
        (key, format!("{text:?} is no place; expected header:NAME, json:/POINTER, form:NAME or query:NAME"))
    })
}

fn pointer(key: &'static str, text: &str) -> Result<Pointer, Problem> {
    Pointer::parse(text).ok_or_else(|| (key, format!("{text:?} is no JSON pointer; it begins with /")))
}

pub(crate) fn scheme(raw: &RawScheme) -> Result<Scheme, Problem> {
    let signature = &raw.signature;
    let layout = layout(signature)?;
    let timestamp = raw.timestamp.as_ref().map(|stamp| timestamp(stamp, &layout)).transpose()?;
    let nonce = raw.nonce.as_ref().map(|nonce| spot("nonce", nonce)).transpose()?;
    let template = template(raw, nonce.as_ref())?;
    if raw.secret.is_public() == raw.algorithm.is_symmetric() {
        return Err(("secret", "public keys and algorithms with public keys go together".to_owned()));
    }
    check_lists(raw)?;
    if raw.key_url.is_some() && raw.key_at.is_none() {
        return Err(("key_url", "key_at says where the URL stands".to_owned()));
    }
    let algorithms = raw.algorithms.as_ref().map(|choice| {
        let by = choice.by.iter().map(|(value, algorithm)| (value.clone(), *algorithm)).collect();
        Ok((spot("algorithms", &choice.at)?, by))
    });
    Ok(Scheme {
        algorithm: raw.algorithm,
        algorithms: algorithms.transpose()?,
        secret: raw.secret,
        secret_suffix: raw.secret_suffix.clone(),
        template,
        place: place(signature)?,
        layout,
        field_setting: signature.field_setting.clone(),
        encoding: signature.encoding.unwrap_or(Encoding::Hex),
        prefixes: prefixes(raw)?,
        envelope: signature.envelope.as_ref().map(envelope).transpose()?,
        key_at: raw.key_at.as_ref().map(|at| key_at(at, raw.key_url.as_deref())).transpose()?,
        timestamp,
        id: raw.id.as_ref().map(|id| spot("id", id)).transpose()?,
        nonce,
        require: raw.require.iter().map(requirement).collect::<Result<_, _>>()?,
        each: raw.each.as_ref().map(|each| pointer("each", each)).transpose()?,
        url_variants: raw.url_variants.clone(),
        body_hash: raw.body_hash.as_ref().map(|at| spot("body_hash", at)).transpose()?,
        claims: claims(raw)?,
        challenges: Vec::new(),
        json_part: raw.json_part.clone(),
        alias: raw.alias.as_ref().map(|alias| renamed(raw, alias).map(Box::new)).transpose()?,
    })
}

fn timestamp(stamp: &RawTimestamp, layout: &Layout) -> Result<Timestamp, Problem> {
    let place = match (&stamp.at, &stamp.field, layout) {
        (Some(at), None, _) => match spot("timestamp", at)? {
            Spot::Json(pointer) if stamp.number => TimestampPlace::Number(pointer),
            _ if stamp.number => return Err(("timestamp", "only a json: member is a number".to_owned())),
            spot => TimestampPlace::At(spot),
        },
        (None, Some(field), Layout::List { pair: Some(_), .. }) if !stamp.number => {
            TimestampPlace::Field(field.clone())
        }
        _ => return Err(("timestamp", "give at, or a field of a signature that is a list".to_owned())),
    };
    Ok(Timestamp { place, format: stamp.format, past_s: stamp.past_s.into(), future_s: stamp.future_s.into() })
}

fn template(raw: &RawScheme, nonce: Option<&Spot>) -> Result<Vec<Piece>, Problem> {
    let template = template::parse(&raw.template).map_err(|problem| ("template", problem))?;
    let is_needed = !raw.algorithm.is_token() && !raw.algorithm.is_jwt();
    if is_needed == template.is_empty() {
        let problem = if is_needed { "a template that signs nothing" } else { "tokens sign nothing" };
        return Err(("template", problem.to_owned()));
    }
    let signs = |wanted: &Spot| template.iter().any(|piece| matches!(piece, Piece::At { spot, .. } if spot == wanted));
    if nonce.is_some_and(|nonce| !signs(nonce)) {
        return Err(("nonce", "what is signed does not hold it".to_owned()));
    }
    let has = |piece| template.contains(&piece);
    let is_plain_hash = matches!(raw.algorithm, Algorithm::Sha1 | Algorithm::Sha256 | Algorithm::Sha512);
    let wrong = [
        (has(Piece::Timestamp) && raw.timestamp.is_none(), "{timestamp} and the key timestamp go together"),
        (has(Piece::Id) != raw.id.is_some(), "{id} and the key id go together"),
        (has(Piece::Mac) || has(Piece::VerifyToken), "{mac} and {verify_token} are for the answers of handshakes"),
        (has(Piece::Secret) != is_plain_hash, "{secret} and a plain hash go together"),
    ];
    if let Some((_, problem)) = wrong.into_iter().find(|(is_wrong, _)| *is_wrong) {
        return Err(("template", problem.to_owned()));
    }
    Ok(template)
}

/// Of two lists inside each other the inner one may be missing where nobody looks.
fn check_lists(raw: &RawScheme) -> Result<(), Problem> {
    let is_nested = |text: &Option<String>| {
        let pointer = text.as_deref().map(|text| text.strip_prefix("json:").unwrap_or(text)).and_then(Pointer::parse);
        pointer.is_some_and(|pointer| pointer.wildcards() > 1)
    };
    if is_nested(&raw.each) || is_nested(&raw.signature.at) {
        return Err(("signature", "what is signed goes through one list at most".to_owned()));
    }
    Ok(())
}

fn envelope(raw: &RawEnvelope) -> Result<Envelope, Problem> {
    let equal = raw.equal.iter().map(|(at, value)| Ok((pointer("signature", at)?, value.clone())));
    Ok(Envelope {
        signature: pointer("signature", &raw.signature)?,
        key: pointer("signature", &raw.key)?,
        equal: equal.collect::<Result<_, Problem>>()?,
    })
}

fn key_at(at: &str, url: Option<&str>) -> Result<KeyAt, Problem> {
    let url = url.map(PinnedUrl::parse).transpose().map_err(|problem| ("key_url", problem))?;
    Ok(KeyAt { spot: spot("key_at", at)?, url })
}

fn layout(signature: &RawSignature) -> Result<Layout, Problem> {
    let fields: Vec<_> = signature.field.iter().chain(&signature.fields).cloned().collect();
    let named = !fields.is_empty() || signature.field_setting.is_some();
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    match (&signature.item_separator, &signature.field_separator, &signature.prefix) {
        (None, None, prefix) if !named => Ok(Layout::Single { prefix: prefix.clone().unwrap_or_default() }),
        (Some(items), pair, None) if filled(&signature.item_separator) && pair.is_some() == named => {
            if pair.is_some() && !filled(pair) {
                return Err(("signature", "a separator has at least one character".to_owned()));
            }
            Ok(Layout::List { items: items.clone(), pair: pair.clone(), fields })
        }
        _ => {
            Err(("signature", "give either a prefix, or item_separator, field_separator and field together".to_owned()))
        }
    }
}

/// Only among algorithms of one kind, under one secret, does the request choose.
fn prefixes(raw: &RawScheme) -> Result<Vec<(String, Algorithm)>, Problem> {
    let signature = &raw.signature;
    let found: Vec<_> = signature.prefixes.iter().map(|(prefix, algorithm)| (prefix.clone(), *algorithm)).collect();
    let single = signature.prefix.is_none() && signature.item_separator.is_none() && signature.envelope.is_none();
    let hmac = |it: &Algorithm| {
        matches!(it, Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::HmacSha384 | Algorithm::HmacSha512)
    };
    let one_kind =
        hmac(&raw.algorithm) && found.iter().all(|(prefix, algorithm)| !prefix.is_empty() && hmac(algorithm));
    let own = found.iter().any(|(_, algorithm)| *algorithm == raw.algorithm);
    match found.is_empty() || (single && one_kind && own) {
        true => Ok(found),
        false => Err(("signature", "prefixes name HMACs, the row's own among them, and stand alone".to_owned())),
    }
}

fn place(signature: &RawSignature) -> Result<SignaturePlace, Problem> {
    let lower = |names: &[String]| -> Result<Vec<String>, Problem> {
        let lower = |name: &String| match is_header_name(name) {
            true => Ok(name.to_ascii_lowercase()),
            false => Err(("signature", format!("{name:?} is no header name"))),
        };
        names.iter().map(lower).collect()
    };
    match (&signature.at, &signature.numbered, &signature.any_header[..], &signature.per_key[..]) {
        (Some(at), None, [], []) => Ok(SignaturePlace::At(spot("signature", at)?)),
        (None, Some(name), [], []) => Ok(SignaturePlace::Numbered(lower(std::slice::from_ref(name))?.remove(0))),
        (None, None, names @ [_, ..], []) => Ok(SignaturePlace::AnyHeader(lower(names)?)),
        (None, None, [], names @ [_, ..]) => Ok(SignaturePlace::PerKey(lower(names)?)),
        _ => Err(("signature", "give exactly one of at, any_header, numbered, per_key".to_owned())),
    }
}

fn requirement(raw: &RawRequirement) -> Result<Requirement, Problem> {
    let value = match (&raw.value, &raw.setting) {
        (None, None) => None,
        (Some(value), None) => Some(Expected::OneOf(vec![value.clone()])),
        (None, Some(name)) => Some(Expected::Setting(name.clone())),
        (Some(_), Some(_)) => return Err(("require", "give a value or a setting".to_owned())),
    };
    Ok(Requirement { spot: spot("require", &raw.at)?, value })
}

fn claims(raw: &RawScheme) -> Result<Claims, Problem> {
    let raw = &raw.claims;
    let equal = raw.equal.iter().map(|(claim, values)| {
        let expected = match values.as_slice() {
            [one] if one == "{url}" => Expected::Url,
            [one] if one.starts_with("setting:") => Expected::Setting(one["setting:".len()..].to_owned()),
            values => Expected::OneOf(values.to_vec()),
        };
        (claim.clone(), expected)
    });
    let hash = raw.hash.as_ref().map(|hash| {
        let template = template::parse(&hash.template).map_err(|problem| ("claims", problem))?;
        Ok((hash.claim.clone(), template))
    });
    Ok(Claims {
        equal: equal.collect(),
        verified: raw.verified.clone(),
        hash: hash.transpose()?,
        expires: raw.expires,
        max_age_s: raw.max_age_s.map(i64::from),
        leeway_s: raw.leeway_s.into(),
    })
}

/// The same row with other header names.
fn renamed(raw: &RawScheme, alias: &RawAlias) -> Result<Scheme, Problem> {
    let other = |text: &String| text.replace(&format!("header:{}", alias.prefer), &format!("header:{}", alias.also));
    let mut raw = raw.clone();
    raw.alias = None;
    raw.template = other(&raw.template);
    raw.signature.at = raw.signature.at.as_ref().map(other);
    raw.id = raw.id.as_ref().map(other);
    if let Some(stamp) = &mut raw.timestamp {
        stamp.at = stamp.at.as_ref().map(other);
    }
    raw.require.iter_mut().for_each(|rule| rule.at = other(&rule.at));
    scheme(&raw)
}
