//! Judges files of published test vectors through the same functions as the ingress.
//!
//! A file whose provider has a row is judged by that row; any other by the member `row` of the file itself, which says
//! what a user would write in `[[provider]]`. Nothing here reads files: text in, one outcome per case out.

use serde_json::{Value, json};

use crate::{Answering, Challenge, Keys, Material, Provider, Request, Secret, provider, row};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub name: String,
    /// What was seen and not expected, if anything.
    pub outcome: Result<(), String>,
}

#[derive(Clone, Debug)]
pub struct VectorRequest {
    pub name: String,
    pub accept: bool,
    /// The receiver's clock.
    pub now: i64,
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub material: Material,
}

impl VectorRequest {
    pub fn request(&self) -> Request<'_> {
        Request { method: &self.method, url: &self.url, headers: &self.headers, body: &self.body }
    }
}

pub fn judge(text: &str) -> Result<Vec<Case>, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let vectors = file["vectors"].as_array().ok_or("there is no list \"vectors\"")?;
    let own = file.get("row").map(own_row).transpose()?;
    let named = |it: &Value| provider(it["provider"].as_str()?);
    let cases = vectors.iter().map(|vector| {
        let outcome = match (named(&file).or_else(|| named(vector)), &own) {
            _ if vector["kind"] == "handshake" => handshake(vector),
            (Some(row), _) => verify(vector, row, true),
            (None, Some(row)) => verify(vector, row, false),
            (None, None) => Err("there is no row for this provider, and none in the file".to_owned()),
        };
        Case { name: vector["name"].as_str().unwrap_or("(no name)").to_owned(), outcome }
    });
    Ok(cases.collect())
}

fn own_row(row: &Value) -> Result<Provider, String> {
    let mut row = row.clone();
    (row["name"], row["title"]) = ("own".into(), "Own".into());
    row::one(json!({ "provider": [row] }))
}

pub fn requests(text: &str) -> Result<Vec<VectorRequest>, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let vectors = file["vectors"].as_array().ok_or("there is no list \"vectors\"")?;
    vectors.iter().filter(|vector| vector["kind"] != "handshake").map(read_request).collect()
}

/// By a row of the table, or one that may leave out where id and type stand.
fn verify(vector: &Value, row: &Provider, is_known: bool) -> Result<(), String> {
    let read = read_request(vector)?;
    let request = read.request();
    let scheme = row.scheme.as_ref().ok_or("the provider does not sign")?;
    let keys = scheme.keys_from(&read.material).map_err(|error| format!("expected keys, saw: {error}"))?;
    match (read.accept, scheme.verify(&keys, &request, read.now)) {
        (false, Err(_)) => Ok(()),
        (false, Ok(_)) => Err("expected a refusal, saw it accepted".to_owned()),
        (true, Err(refusal)) => Err(format!("expected it accepted, saw {} ({refusal})", refusal.code())),
        (true, Ok(_)) => {
            let meta = row.event(&request);
            let same = |name: &str, seen: &Option<String>, known: bool| match vector["event"][name].as_str() {
                Some(wanted) if known && seen.as_deref() != Some(wanted) => {
                    Err(format!("expected the event's {name} {wanted:?}, saw {seen:?}"))
                }
                _ => Ok(()),
            };
            same("id", &meta.id, is_known || row.event_id.is_some())?;
            same("type", &meta.kind, is_known || row.event_type.is_some())
        }
    }
}

fn read_request(vector: &Value) -> Result<VectorRequest, String> {
    let request = &vector["request"];
    let text = |value: &Value, what: &str| value.as_str().map(str::to_owned).ok_or(format!("{what} is no text"));
    let headers = request["headers"].as_array().ok_or("there is no list of headers")?.iter().map(|line| {
        // JSON text stands for bytes here: a header's bytes are Latin-1, as Node shows them.
        let value = text(&line[1], "a header")?;
        let bytes = value.chars().map(|letter| u8::try_from(letter as u32));
        let bytes = bytes.collect::<Result<_, _>>().map_err(|_| "a header has characters that are no bytes")?;
        Ok::<_, String>((text(&line[0], "a header's name")?, bytes))
    });
    let body = body(request)?;
    if request["body_len"].as_u64().is_some_and(|len| len != body.len() as u64) {
        return Err("the body is not as long as it says".to_owned());
    }
    Ok(VectorRequest {
        name: text(&vector["name"], "name")?,
        accept: vector["expect"] == "accept",
        now: vector["now"].as_i64().ok_or("there is no clock")?,
        method: text(&request["method"], "method")?,
        url: text(&request["url"], "url")?,
        headers: headers.collect::<Result<_, String>>()?,
        body,
        material: material(&vector["config"]),
    })
}

fn body(request: &Value) -> Result<Vec<u8>, String> {
    let decode = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        data_encoding::BASE64.decode(text.as_bytes()).map_err(|error| format!("the body is not base64: {error}"))
    };
    let Some(segments) = request["body_segments"].as_array() else { return decode(&request["body_base64"]) };
    let mut body = Vec::new();
    for segment in segments {
        let times = usize::try_from(segment["times"].as_u64().unwrap_or(1)).unwrap_or(usize::MAX);
        let bytes = decode(&segment["base64"])?;
        if body.len().saturating_add(bytes.len().saturating_mul(times)) > 64 * 1024 * 1024 {
            return Err("the body is longer than 64 MiB".to_owned());
        }
        body.extend_from_slice(&bytes.repeat(times));
    }
    Ok(body)
}

/// What a vector says about the endpoint, under the names that rows use.
fn material(config: &Value) -> Material {
    let texts = |value: &Value| -> Option<Vec<String>> {
        match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        }
    };
    let mut material = Material::default();
    for (name, value) in config.as_object().into_iter().flatten() {
        match name.as_str() {
            "secrets" => {
                material.secrets = texts(value).unwrap_or_default().into_iter().map(Secret::new).collect();
            }
            "private_key" | "api_key" | "secret" => {
                material.secrets.extend(value.as_str().map(Secret::new));
            }
            "public_url" => material.public_url = value.as_str().map(str::to_owned),
            "jwks" => material.jwks = Some(value.to_string()),
            "certs" | "public_keys" => {
                for (name, key) in value.as_object().into_iter().flatten() {
                    let text = key.as_str().or(key["key"].as_str()).unwrap_or_default();
                    material.named_keys.insert(name.clone(), text.to_owned());
                }
            }
            "max_age_s" | "tolerance_s" => {
                material.tolerance_s = value.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
            }
            _ => {
                if let Some(values) = texts(value) {
                    material.settings.insert(name.clone(), values);
                }
            }
        }
    }
    material
}

fn handshake(vector: &Value) -> Result<(), String> {
    let name = vector["provider"].as_str().unwrap_or_default();
    let row = provider(name).ok_or_else(|| format!("there is no row {name:?}"))?;
    let read = read_request(vector)?;
    let token = vector["config"]["verify_token"].as_str().map(Secret::new);
    let keys: Option<Keys> = row.keys(&read.material).unwrap_or_default();
    let answering = Answering { keys: keys.as_ref(), verify_token: token.as_ref(), allow_unsigned: true };
    let request = read.request();
    let challenge = row.handshake(&request, &answering, read.now);
    let (status, headers, body, learnt) = match challenge {
        Some(Challenge::Respond(reply)) => (reply.status, reply.headers, reply.body, reply.learns_secret),
        Some(Challenge::Refused { status, .. }) => (status, Vec::new(), Vec::new(), None),
        None => match (&row.scheme, &keys) {
            (Some(scheme), Some(keys)) => {
                let verified = scheme.verify(keys, &request, read.now);
                (verified.map_or(401, |_| 200), Vec::new(), Vec::new(), None)
            }
            _ => return Err("expected a challenge, saw none".to_owned()),
        },
    };
    let wanted = &vector["response"];
    let any = wanted["status_any"].as_array().cloned().unwrap_or_default();
    if wanted["status"] != status && !any.iter().any(|other| *other == status) {
        return Err(format!("expected status {}, saw {status}", wanted["status"]));
    }
    let find = |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    for line in wanted["headers"].as_array().into_iter().flatten() {
        let (name, value) = (line[0].as_str().unwrap_or_default(), line[1].as_str().unwrap_or_default());
        let seen = match name.eq_ignore_ascii_case("content-length") {
            true => Some(body.len().to_string()),
            false => find(name).cloned(),
        };
        if seen.as_deref().is_none_or(|seen| seen.split(';').next() != value.split(';').next()) {
            return Err(format!("expected the header {name}: {value}, saw {seen:?}"));
        }
    }
    for name in vector["response"]["forbidden_response_headers"].as_array().into_iter().flatten() {
        if find(name.as_str().unwrap_or_default()).is_some() {
            return Err(format!("expected no header {name}, saw it"));
        }
    }
    let bytes = data_encoding::BASE64.decode(wanted["body_base64"].as_str().unwrap_or_default().as_bytes());
    let bytes = bytes.map_err(|error| format!("the expected body is not base64: {error}"))?;
    let same = match wanted["match"].as_str() {
        Some("exact") => bytes == body,
        Some("json") => {
            let value = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
            value(&bytes).is_some() && value(&bytes) == value(&body)
        }
        _ => true,
    };
    if !same {
        return Err(format!("expected another body, saw {:?}", String::from_utf8_lossy(&body)));
    }
    let stored = vector["stores_secret"].as_str().map(Secret::new);
    if stored != learnt {
        return Err("expected another secret to be learnt".to_owned());
    }
    Ok(())
}
