//! Every published vector of the providers that have a row, each reported by its name.

use std::path::Path;

use data_encoding::BASE64;
use relay_schemes::{Request, Secret, provider};
use serde_json::Value;

fn body_of(request: &Value) -> Vec<u8> {
    let decode = |text: &Value| BASE64.decode(text.as_str().expect("text").as_bytes()).expect("base64");
    match request.get("body_segments") {
        None => decode(&request["body_base64"]),
        Some(segments) => segments
            .as_array()
            .expect("a list")
            .iter()
            .flat_map(|segment| decode(&segment["base64"]).repeat(segment["times"].as_u64().unwrap_or(1) as usize))
            .collect(),
    }
}

fn verdict(name: &str, vector: &Value) -> Result<(), String> {
    let scheme = provider(name).and_then(|provider| provider.scheme.as_ref()).expect("a signed row");
    let secrets = vector["config"]["secrets"].as_array().expect("secrets");
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret.as_str().expect("text"))).collect();
    let keys = scheme.keys(&secrets).map_err(|error| format!("bad secret: {error}"))?;
    let lines = vector["request"]["headers"].as_array().expect("headers");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let headers: Vec<(String, Vec<u8>)> = lines
        .iter()
        .map(|line| (text(&line[0]), text(&line[1]).chars().map(|letter| letter as u8).collect()))
        .collect();
    let body = body_of(&vector["request"]);
    assert_eq!(body.len() as u64, vector["request"]["body_len"].as_u64().unwrap_or(body.len() as u64));
    let now = vector["now"].as_i64().expect("a clock");
    scheme.verify(&keys, &Request { headers: &headers, body: &body }, now).map(|_| ()).map_err(|why| why.code().into())
}

fn run(name: &str, at_least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../shared/vectors/{name}.json"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: the published vectors of {name} are not beside this project");
        return;
    };
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let vectors = file["vectors"].as_array().expect("vectors");
    let mut wrong = Vec::new();
    for vector in vectors {
        let (case, expected) = (&vector["name"], vector["expect"] == "accept");
        let seen = verdict(name, vector);
        if seen.is_ok() != expected {
            wrong.push(format!("{case}: expected {}, saw {seen:?}", vector["expect"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(vectors.len() >= at_least, "only {} vectors", vectors.len());
}

#[test]
fn github() {
    run("github", 41);
}

#[test]
fn stripe() {
    run("stripe", 41);
}

#[test]
fn standard_webhooks() {
    run("standard-webhooks", 47);
}
