//! From a neutral description of a scheme, as published files carry it, to a row as a user would write one.

use relay_schemes::{Locator, providers};
use serde_json::{Value, json};

type Row = serde_json::Map<String, Value>;

/// The row that a file's description stands for.
pub(super) fn row(file: &Value) -> Result<Value, String> {
    let it = &file["scheme"];
    let mut row = Row::new();
    if it["kind"] == "special" {
        let name = it["name"].as_str().unwrap_or_default();
        let special = providers().iter().find(|row| row.special.as_deref() == Some(name) || row.name == name);
        let special = special.ok_or(format!("the special scheme {name:?} is not known"))?;
        row.insert("like".to_owned(), json!(special.name));
    } else {
        let scheme = match it["kind"].as_str().unwrap_or_default() {
            "token" | "basic" => token(it)?,
            "jwt" => jwt(it)?,
            _ => signed(it)?,
        };
        row.insert("scheme".to_owned(), scheme);
    }
    for (key, it) in [("event_id", &file["dedup_id"]), ("event_type", &file["event_type"])] {
        row.extend(locator(it).map(|at| (key.to_owned(), json!(at))));
    }
    Ok(row.into())
}

/// Where an id or a type stands, if the description begins with a plain place.
fn locator(it: &Value) -> Option<String> {
    let text = it.as_str()?;
    let mut words = text.split([' ', ';', ',']).filter(|word| !word.is_empty() && *word != "each");
    let (kind, name) = (words.next()?, words.next()?);
    // Several places together are a description for people.
    let plain = matches!(kind, "header" | "json") && !text.contains(" + ");
    Some(format!("{kind}:{name}")).filter(|at| plain && Locator::parse(at).is_some())
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

fn token(it: &Value) -> Result<Value, String> {
    let basic = it["kind"] == "basic";
    let bearer = it["in"] == "bearer";
    let prefix = text(it, "prefix").or(basic.then_some("Basic ")).or(bearer.then_some("Bearer "));
    Ok(json!({
        "algorithm": if basic { "basic" } else { "token" },
        "signature": { "at": place(it)?, "prefix": prefix },
        "require": requirements(it),
    }))
}

fn jwt(it: &Value) -> Result<Value, String> {
    let (algorithm, secret) = match text(it, "alg").unwrap_or("HS256") {
        "HS256" => ("jwt-hs256", secret_form(it)?),
        "RS256" => ("jwt-rs256", "jwks"),
        "ES256" => ("jwt-es256", "jwks"),
        other => return Err(format!("the JWT algorithm {other:?} is not known")),
    };
    let bearer = (it["in"] == "bearer").then_some("Bearer ");
    let mut claims = json!({ "equal": {} });
    let issuers: Vec<_> = [&it["issuer"], &it["issuers"]].into_iter().flat_map(texts).collect();
    if !issuers.is_empty() {
        claims["equal"]["iss"] = json!(issuers);
    }
    if let Some(audience) = text(it, "audience") {
        claims["equal"]["aud"] = json!([audience]);
    }
    for claim in texts(&it["check"]) {
        let setting = match claim.as_str() {
            "exp" => {
                claims["expires"] = json!(true);
                continue;
            }
            "iat" | "nbf" => continue,
            "email_verified" => {
                claims["verified"] = json!([claim]);
                continue;
            }
            "iss" => "issuers",
            other => other,
        };
        let equal = &mut claims["equal"][&claim];
        if equal.is_null() || !["iss", "aud"].contains(&claim.as_str()) {
            *equal = json!([format!("setting:{}", if claim == "aud" { "audience" } else { setting })]);
        }
    }
    if let Some(claim) = text(it, "body_hash_claim") {
        claims["hash"] = json!({ "claim": claim, "template": "{body}" });
    }
    claims["max_age_s"] =
        [&it["max_age_from_iat_s"], &it["max_age_s"]].into_iter().find(|age| age.is_u64()).cloned().into();
    if let Some(leeway) = [&it["leeway_s"], &it["clock_skew_s"]].into_iter().find(|leeway| leeway.is_u64()) {
        claims["leeway_s"] = leeway.clone();
    }
    Ok(json!({
        "algorithm": algorithm,
        "secret": secret,
        "signature": { "at": place(it)?, "prefix": text(it, "prefix").or(bearer) },
        "claims": claims,
        "require": requirements(it),
    }))
}

fn secret_form(it: &Value) -> Result<&'static str, String> {
    Ok(match text(it, "key").unwrap_or("utf8") {
        "utf8" | "text" => "text",
        "utf8-nfkd" => "nfkd",
        "hex" => "hex",
        "base64" => "base64",
        "whsec" => "whsec",
        "sha1" => "sha1",
        other => return Err(format!("the key form {other:?} is not known")),
    })
}

fn public_form(it: &Value) -> Result<&'static str, String> {
    let name = text(it, "public_key").or(text(it, "key")).unwrap_or("hex");
    Ok(match name {
        "hex" => "public-hex",
        "base64" => "public-base64",
        name if name.starts_with("whpk") => "whpk",
        name if name.starts_with("spki") || name.starts_with("pem") || name.contains("der") => "spki",
        name if name.starts_with("jwk") => "jwks",
        other => return Err(format!("the public key form {other:?} is not known")),
    })
}

fn signed(it: &Value) -> Result<Value, String> {
    let hash = text(it, "alg").or(text(it, "hash")).unwrap_or("sha256");
    let (algorithm, secret) = match (it["kind"].as_str().unwrap_or_default(), hash) {
        ("hmac", "sha1" | "sha256" | "sha384" | "sha512") => (format!("hmac-{hash}"), secret_form(it)?),
        ("hash", "sha1" | "sha256" | "sha512") => (hash.to_owned(), secret_form(it)?),
        ("ed25519", _) => ("ed25519".to_owned(), public_form(it)?),
        ("ecdsa", "sha256") if text(it, "sig_format").is_some_and(|format| format != "der") => {
            ("ecdsa-p256-sha256-raw".to_owned(), public_form(it)?)
        }
        ("ecdsa", "sha1" | "sha256") => (format!("ecdsa-p256-{hash}"), public_form(it)?),
        ("rsa", "sha1" | "sha256") => (format!("rsa-{hash}"), public_form(it)?),
        (kind, hash) => return Err(format!("{kind:?} with {hash:?} is not known")),
    };
    let mut variants = Vec::new();
    for variant in texts(&it["url_variants"]) {
        variants.extend(match variant.as_str() {
            "as is" => None,
            "without default port" | "without port" => Some("without-port"),
            "with default port" | "with port" => Some("with-port"),
            "hubspot-decoded" => Some("unescaped"),
            other => return Err(format!("the URL variant {other:?} is not known")),
        });
    }
    let alias = &it["alias_prefix"];
    let alias = text(alias, "prefer").zip(text(alias, "also"));
    let alias =
        alias.map(|(prefer, also)| json!({ "prefer": prefer.to_ascii_lowercase(), "also": also.to_ascii_lowercase() }));
    Ok(json!({
        "algorithm": algorithm,
        "secret": secret,
        "template": template(text(it, "template").unwrap_or("{body}")),
        "signature": signature(&it["signature"])?,
        "timestamp": timestamp(&it["timestamp"])?,
        "require": requirements(it),
        "body_hash": text(it, "body_hash_query").map(|name| format!("query:{name}")),
        "url_variants": variants,
        "alias": alias,
    }))
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

fn signature(it: &Value) -> Result<Value, String> {
    let list = text(it, "item_sep");
    let (any_header, per_key) = (texts(&it["any_of_headers"]), texts(&it["per_key_headers"]));
    let numbered = text(it, "numbered_headers").map(|name| name.trim_end_matches("{n}").to_owned());
    let mut at = None;
    if any_header.is_empty() && per_key.is_empty() && numbered.is_none() {
        // `field` names list items here, so it is no name of a place unless there is no list.
        let mut it = it.clone();
        if list.is_some() && it["in"] != "form" {
            it["field"] = Value::Null;
        }
        at = Some(place(&it)?);
    }
    let fields: Vec<_> = [&it["field"], &it["fields"]].into_iter().flat_map(texts).filter(|_| list.is_some()).collect();
    Ok(json!({
        "encoding": text(it, "encoding").unwrap_or("hex"),
        "any_header": any_header,
        "per_key": per_key,
        "numbered": numbered,
        "at": at,
        "prefix": text(it, "prefix").filter(|_| list.is_none()),
        "item_separator": list,
        "field_separator": text(it, "kv_sep").filter(|_| list.is_none() || !fields.is_empty()),
        "fields": fields,
    }))
}

fn timestamp(it: &Value) -> Result<Option<Value>, String> {
    if it.is_null() {
        return Ok(None);
    }
    let format = match text(it, "format").unwrap_or("unix_s") {
        "unix_s" | "unix_s_number" => "unix-s",
        "unix_ms" | "unix_ms_number" => "unix-ms",
        "rfc3339" | "iso8601" => "rfc3339",
        "http_date" | "http-date" | "rfc1123" | "rfc7231" => "http-date",
        other => return Err(format!("the timestamp format {other:?} is not known")),
    };
    // A scheme without an age has no limit.
    let past_s = it["past_s"].as_u64().unwrap_or(u32::MAX.into());
    let field = (it["in"] == "field").then(|| text(it, "field").unwrap_or("t"));
    Ok(Some(json!({
        "at": if field.is_some() { None } else { Some(place(it)?) },
        "field": field,
        "number": text(it, "format").is_some_and(|format| format.ends_with("_number")),
        "format": format,
        "past_s": past_s,
        "future_s": it["future_s"].as_u64().unwrap_or(past_s),
    })))
}

fn requirements(it: &Value) -> Vec<Value> {
    let at = |name: &str| format!("header:{}", name.to_ascii_lowercase());
    let there = texts(&it["required_headers"]).into_iter().map(|name| json!({ "at": at(&name) }));
    let values = it["required_header_values"].as_object().into_iter().flatten().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // `{app_key}` and `config.app_key` stand for what the endpoint is configured with.
        let setting = value.strip_prefix('{').and_then(|value| value.strip_suffix('}'));
        let setting = setting.or_else(|| value.strip_prefix("config.")).or_else(|| value.strip_prefix('$'));
        match setting.map(|name| name.trim_start_matches("config:").trim_start_matches("config.")) {
            Some(setting) => json!({ "at": at(name), "setting": setting }),
            None => json!({ "at": at(name), "value": value }),
        }
    });
    there.chain(values).collect()
}
