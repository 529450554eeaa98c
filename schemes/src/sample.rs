//! What each provider's requests look like: headers and a payload of our own making, so that a
//! request can be sent as the provider would.
//!
//! `samples.toml` holds what is peculiar; the event's id and type go where the row looks for them.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

use crate::{
    Provider,
    locate::Spot,
    sign::{escape, put_json},
    timestamp::Format,
};

/// A provider's request, not signed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub method: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// Another entry to begin with.
    like: Option<String>,
    agent: Option<String>,
    content_type: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
}

const FALLBACK: &str = r#"{"id":"$ID","type":"$KIND","created":$NOW,"data":{"object":"sample","amount":4200}}"#;

fn entries() -> &'static BTreeMap<String, Raw> {
    static ENTRIES: LazyLock<BTreeMap<String, Raw>> =
        LazyLock::new(|| toml::from_str(include_str!("samples.toml")).expect("a test reads every sample"));
    &ENTRIES
}

fn entry(name: &str) -> Raw {
    let mut raw = entries().get(name).cloned().unwrap_or_default();
    if let Some(base) = raw.like.as_ref().and_then(|base| entries().get(base)).cloned() {
        raw.agent = raw.agent.or(base.agent);
        raw.content_type = raw.content_type.or(base.content_type);
        raw.kind = raw.kind.or(base.kind);
        raw.body = raw.body.or(base.body);
        raw.headers = base.headers.into_iter().chain(raw.headers).collect();
    }
    raw
}

impl Provider {
    /// A request as the provider sends it, with an event id of the caller's. Sign it with
    /// [`Scheme::sign`](crate::Scheme::sign).
    pub fn sample(&self, id: &str, now_unix_s: i64) -> Sample {
        let raw = entry(&self.name);
        let kind = raw.kind.unwrap_or_else(|| "sample.created".to_owned());
        // Where an id is a number: another one for another id.
        let number = crc32fast::hash(id.as_bytes()).max(1).to_string();
        let fill = |text: &str| {
            text.replace("$ID", id)
                .replace("$NUMBER", &number)
                .replace("$KIND", &kind)
                .replace("$NOW_MS", &Format::UnixMs.write(now_unix_s))
                .replace("$NOW", &Format::UnixS.write(now_unix_s))
                .replace("$TIME", &Format::Rfc3339.write(now_unix_s))
                .replace("$DATE", &Format::HttpDate.write(now_unix_s))
        };
        let content_type = raw.content_type.unwrap_or_else(|| "application/json".to_owned());
        let form = content_type.starts_with("application/x-www-form-urlencoded");
        let mut headers = vec![("content-type".to_owned(), content_type)];
        headers.push(("user-agent".to_owned(), raw.agent.unwrap_or_else(|| format!("{}-webhooks/1.0", self.name))));
        headers.extend(raw.headers.iter().map(|(name, text)| (name.clone(), fill(text))));
        let mut body =
            fill(raw.body.as_deref().unwrap_or(if form { "id=$ID&event=$KIND" } else { FALLBACK })).into_bytes();
        for (locator, value) in [(&self.event_id, id), (&self.event_type, &kind)] {
            for spot in locator.iter().filter_map(|locator| locator.only_spot()) {
                match spot {
                    Spot::Header(name) if headers.iter().all(|(key, _)| key != name) => {
                        headers.push((name.clone(), value.to_owned()));
                    }
                    Spot::Json(pointer) if !form && raw.body.is_none() && !pointer.has_wildcard() => {
                        body = put_json(&body, pointer, value).unwrap_or(body);
                    }
                    Spot::Form(name) if form && raw.body.is_none() => {
                        body.extend_from_slice(format!("&{name}={}", escape(value)).as_bytes());
                    }
                    _ => {}
                }
            }
        }
        Sample { method: "POST", headers, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{provider, providers};

    #[test]
    fn every_sample_belongs_to_a_row_and_tells_its_own_event() {
        for (name, raw) in entries() {
            assert!(provider(name).is_some_and(|row| row.name == *name), "no row {name}");
            assert!(raw.like.as_ref().is_none_or(|base| entries().contains_key(base)), "{name} is like nothing");
        }
        for row in providers() {
            let event = |id: &str| {
                let sample = row.sample(id, 1_770_000_000);
                let url = "https://hooks.example.com/in";
                row.event(&crate::Request { method: "POST", url, headers: &sample.headers, body: &sample.body })
            };
            let (first, second) = (event("evt-1"), event("evt-2"));
            assert_eq!(first.kind.is_some(), row.event_type.is_some(), "{}'s type", row.name);
            if row.event_id.is_some() {
                assert!(first.id.is_some() && first.id != second.id, "{}'s ids: {:?}", row.name, first.id);
            }
        }
    }
}
