//! From a neutral description of a scheme, as vector files carry it, to a row.

use serde_json::Value;

use crate::{
    Locator, Scheme,
    key::{Algorithm, SecretForm},
    layout::Encoding,
    row::{
        self, checked,
        raw::{RawAlias, RawClaims, RawHash, RawRequirement, RawScheme, RawSignature, RawTimestamp},
    },
    timestamp::Format,
    url::UrlVariant,
};

/// The row that a description stands for.
pub(super) fn scheme(it: &Value) -> Result<Scheme, String> {
    if it["kind"] == "special" {
        let name = it["name"].as_str().unwrap_or_default();
        let special = row::providers().iter().find(|row| row.special.as_deref() == Some(name));
        let row = special.or_else(|| row::provider(name));
        return row.and_then(|row| row.scheme.clone()).ok_or(format!("the special scheme {name:?} is not known"));
    }
    let raw = match it["kind"].as_str().unwrap_or_default() {
        "token" | "basic" => token(it)?,
        "jwt" => jwt(it)?,
        _ => signed(it)?,
    };
    checked(&raw)
}

/// Where an id or a type stands, if the description begins with a plain place.
pub(super) fn locator(it: &Value) -> Option<Locator> {
    let text = it.as_str()?;
    let mut words = text.split([' ', ';', ',']).filter(|word| !word.is_empty() && *word != "each");
    let kind = words.next()?;
    let name = words.next()?;
    // Several places together are a description for people.
    let plain = matches!(kind, "header" | "json") && !text.contains(" + ");
    plain.then(|| Locator::parse(&format!("{kind}:{name}"))).flatten()
}

fn text<'a>(it: &'a Value, name: &str) -> Option<&'a str> {
    it[name].as_str().filter(|text| !text.is_empty())
}

fn texts(it: &Value) -> Vec<String> {
    match it {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// `in` with its name, as a place.
fn place(it: &Value) -> Result<String, String> {
    let name = ["header", "pointer", "name", "field", "parameter", "param", "query"];
    let name = name.into_iter().find_map(|key| text(it, key));
    let kind = text(it, "in").unwrap_or("header");
    match (kind, name) {
        ("header", Some(name)) => Ok(format!("header:{}", name.to_ascii_lowercase())),
        ("header", None) => Ok("header:authorization".to_owned()),
        ("bearer" | "authorization", _) => Ok("header:authorization".to_owned()),
        ("json" | "body", Some(name)) if name.starts_with('/') => Ok(format!("json:{name}")),
        ("json" | "body", Some(name)) => Ok(format!("json:/{name}")),
        (kind @ ("form" | "query"), Some(name)) => Ok(format!("{kind}:{name}")),
        (kind, name) => Err(format!("{kind:?} {name:?} is no place that is known")),
    }
}

/// What a row is that says nothing else.
fn blank(algorithm: Algorithm, secret: SecretForm) -> RawScheme {
    let raw: RawScheme = toml::from_str("algorithm = \"token\"\nsignature = {}").expect("all else has a default");
    RawScheme { algorithm, secret, ..raw }
}

fn token(it: &Value) -> Result<RawScheme, String> {
    let basic = it["kind"] == "basic";
    let mut raw = blank(if basic { Algorithm::Basic } else { Algorithm::Token }, SecretForm::Text);
    let bearer = it["in"] == "bearer";
    let prefix = text(it, "prefix").or(basic.then_some("Basic ")).or(bearer.then_some("Bearer "));
    raw.signature.at = Some(place(it)?);
    raw.signature.prefix = prefix.map(str::to_owned);
    raw.require = requirements(it);
    Ok(raw)
}

fn jwt(it: &Value) -> Result<RawScheme, String> {
    let (algorithm, secret) = match text(it, "alg").unwrap_or("HS256") {
        "HS256" => (Algorithm::JwtHs256, secret_form(it)?),
        "RS256" => (Algorithm::JwtRs256, SecretForm::Jwks),
        "ES256" => (Algorithm::JwtEs256, SecretForm::Jwks),
        other => return Err(format!("the JWT algorithm {other:?} is not known")),
    };
    let mut raw = blank(algorithm, secret);
    raw.signature.at = Some(place(it)?);
    let bearer = (it["in"] == "bearer").then_some("Bearer ");
    raw.signature.prefix = text(it, "prefix").or(bearer).map(str::to_owned);
    let mut claims = RawClaims::default();
    let issuers: Vec<_> = [&it["issuer"], &it["issuers"]].into_iter().flat_map(texts).collect();
    if !issuers.is_empty() {
        claims.equal.insert("iss".to_owned(), issuers);
    }
    if let Some(audience) = text(it, "audience") {
        claims.equal.insert("aud".to_owned(), vec![audience.to_owned()]);
    }
    for claim in texts(&it["check"]) {
        match claim.as_str() {
            "exp" => claims.expires = true,
            "iat" | "nbf" => {}
            "email_verified" => claims.verified.push(claim),
            "iss" => {
                claims.equal.entry(claim).or_insert_with(|| vec!["setting:issuers".to_owned()]);
            }
            "aud" => {
                claims.equal.entry(claim).or_insert_with(|| vec!["setting:audience".to_owned()]);
            }
            other => {
                claims.equal.insert(other.to_owned(), vec![format!("setting:{other}")]);
            }
        }
    }
    if let Some(claim) = text(it, "body_hash_claim") {
        claims.hash = Some(RawHash { claim: claim.to_owned(), template: "{body}".to_owned() });
    }
    let max_age = it["max_age_from_iat_s"].as_u64().or(it["max_age_s"].as_u64());
    claims.max_age_s = max_age.and_then(|seconds| u32::try_from(seconds).ok());
    if let Some(leeway) = it["leeway_s"].as_u64().or(it["clock_skew_s"].as_u64()) {
        claims.leeway_s = u32::try_from(leeway).unwrap_or(u32::MAX);
    }
    raw.claims = claims;
    raw.require = requirements(it);
    Ok(raw)
}

fn secret_form(it: &Value) -> Result<SecretForm, String> {
    Ok(match text(it, "key").unwrap_or("utf8") {
        "utf8" | "text" => SecretForm::Text,
        "utf8-nfkd" => SecretForm::Nfkd,
        "hex" => SecretForm::Hex,
        "base64" => SecretForm::Base64,
        "whsec" => SecretForm::Whsec,
        "sha1" => SecretForm::Sha1,
        other => return Err(format!("the key form {other:?} is not known")),
    })
}

fn public_form(it: &Value) -> Result<SecretForm, String> {
    let name = text(it, "public_key").or(text(it, "key")).unwrap_or("hex");
    Ok(match name {
        "hex" => SecretForm::PublicHex,
        "base64" => SecretForm::PublicBase64,
        name if name.starts_with("whpk") => SecretForm::Whpk,
        name if name.starts_with("spki") || name.starts_with("pem") || name.contains("der") => SecretForm::Spki,
        name if name.starts_with("jwk") => SecretForm::Jwks,
        other => return Err(format!("the public key form {other:?} is not known")),
    })
}

fn signed(it: &Value) -> Result<RawScheme, String> {
    let hash = text(it, "alg").or(text(it, "hash")).unwrap_or("sha256");
    let (algorithm, secret) = match (it["kind"].as_str().unwrap_or_default(), hash) {
        ("hmac", "sha1") => (Algorithm::HmacSha1, secret_form(it)?),
        ("hmac", "sha256") => (Algorithm::HmacSha256, secret_form(it)?),
        ("hmac", "sha384") => (Algorithm::HmacSha384, secret_form(it)?),
        ("hmac", "sha512") => (Algorithm::HmacSha512, secret_form(it)?),
        ("hash", "sha1") => (Algorithm::Sha1, secret_form(it)?),
        ("hash", "sha256") => (Algorithm::Sha256, secret_form(it)?),
        ("hash", "sha512") => (Algorithm::Sha512, secret_form(it)?),
        ("ed25519", _) => (Algorithm::Ed25519, public_form(it)?),
        ("ecdsa", "sha1") => (Algorithm::EcdsaP256Sha1, public_form(it)?),
        ("ecdsa", "sha256") if text(it, "sig_format").is_none_or(|format| format == "der") => {
            (Algorithm::EcdsaP256Sha256, public_form(it)?)
        }
        ("ecdsa", "sha256") => (Algorithm::EcdsaP256Sha256Raw, public_form(it)?),
        ("rsa", "sha1") => (Algorithm::RsaSha1, public_form(it)?),
        ("rsa", "sha256") => (Algorithm::RsaSha256, public_form(it)?),
        (kind, hash) => return Err(format!("{kind:?} with {hash:?} is not known")),
    };
    let mut raw = blank(algorithm, secret);
    raw.template = template(text(it, "template").unwrap_or("{body}"));
    raw.signature = signature(&it["signature"])?;
    raw.timestamp = timestamp(&it["timestamp"])?;
    raw.require = requirements(it);
    raw.body_hash = text(it, "body_hash_query").map(|name| format!("query:{name}"));
    for variant in texts(&it["url_variants"]) {
        raw.url_variants.extend(match variant.as_str() {
            "as is" => None,
            "without default port" | "without port" => Some(UrlVariant::WithoutPort),
            "with default port" | "with port" => Some(UrlVariant::WithPort),
            "hubspot-decoded" => Some(UrlVariant::Unescaped),
            other => return Err(format!("the URL variant {other:?} is not known")),
        });
    }
    let alias = &it["alias_prefix"];
    if let (Some(prefer), Some(also)) = (text(alias, "prefer"), text(alias, "also")) {
        raw.alias = Some(RawAlias { prefer: prefer.to_ascii_lowercase(), also: also.to_ascii_lowercase() });
    }
    Ok(raw)
}

/// The template under our names, with header names in lower case.
fn template(text: &str) -> String {
    let text = text.replace("{ts}", "{timestamp}");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("{header:") {
        let end = rest[at..].find('}').map_or(rest.len(), |end| at + end);
        out.push_str(&rest[..at]);
        out.push_str(&rest[at..end].to_ascii_lowercase());
        rest = &rest[end..];
    }
    out + rest
}

fn signature(it: &Value) -> Result<RawSignature, String> {
    let encoding = match text(it, "encoding").unwrap_or("hex") {
        "hex" => Encoding::Hex,
        "base64" => Encoding::Base64,
        "base64url" => Encoding::Base64Url,
        other => return Err(format!("the encoding {other:?} is not known")),
    };
    let mut raw = RawSignature { encoding: Some(encoding), ..RawSignature::default() };
    raw.any_header = texts(&it["any_of_headers"]);
    raw.per_key = texts(&it["per_key_headers"]);
    raw.numbered = text(it, "numbered_headers").map(|name| name.trim_end_matches("{n}").to_owned());
    if raw.any_header.is_empty() && raw.per_key.is_empty() && raw.numbered.is_none() {
        // `field` names list items here, so it is no name of a place unless there is no list.
        let mut it = it.clone();
        if it["item_sep"].is_string() && it["in"] != "form" {
            it["field"] = Value::Null;
        }
        raw.at = Some(place(&it)?);
    }
    raw.prefix = text(it, "prefix").map(str::to_owned);
    raw.item_separator = text(it, "item_sep").map(str::to_owned);
    raw.field_separator = text(it, "kv_sep").map(str::to_owned);
    if raw.item_separator.is_some() {
        raw.fields = texts(&it["field"]);
        raw.fields.extend(texts(&it["fields"]));
        raw.prefix = None;
        if raw.fields.is_empty() {
            raw.field_separator = None;
        }
    }
    Ok(raw)
}

fn timestamp(it: &Value) -> Result<Option<RawTimestamp>, String> {
    if it.is_null() {
        return Ok(None);
    }
    let format = match text(it, "format").unwrap_or("unix_s") {
        "unix_s" | "unix_s_number" => Format::UnixS,
        "unix_ms" | "unix_ms_number" => Format::UnixMs,
        "rfc3339" | "iso8601" => Format::Rfc3339,
        "http_date" | "http-date" | "rfc1123" | "rfc7231" => Format::HttpDate,
        other => return Err(format!("the timestamp format {other:?} is not known")),
    };
    // A scheme without an age has no limit.
    let seconds = |name: &str| it[name].as_u64().and_then(|seconds| u32::try_from(seconds).ok());
    let past_s = seconds("past_s").unwrap_or(u32::MAX);
    let future_s = seconds("future_s").unwrap_or(past_s);
    let field = (it["in"] == "field").then(|| text(it, "field").unwrap_or("t").to_owned());
    let at = if field.is_some() { None } else { Some(place(it)?) };
    let number = text(it, "format").is_some_and(|format| format.ends_with("_number"));
    Ok(Some(RawTimestamp { at, field, number, format, past_s, future_s }))
}

fn requirements(it: &Value) -> Vec<RawRequirement> {
    let at = |name: &str| format!("header:{}", name.to_ascii_lowercase());
    let there = texts(&it["required_headers"]).into_iter();
    let there = there.map(|name| RawRequirement { at: at(&name), value: None, setting: None });
    let values = it["required_header_values"].as_object().into_iter().flatten().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // `{app_key}` and `config.app_key` stand for what the endpoint is configured with.
        let setting = value.strip_prefix('{').and_then(|value| value.strip_suffix('}'));
        let setting = setting.or_else(|| value.strip_prefix("config.")).or_else(|| value.strip_prefix('$'));
        let setting = setting.map(|name| name.trim_start_matches("config:").trim_start_matches("config."));
        match setting {
            Some(setting) => RawRequirement { at: at(name), value: None, setting: Some(setting.to_owned()) },
            None => RawRequirement { at: at(name), value: Some(value), setting: None },
        }
    });
    there.chain(values).collect()
}
