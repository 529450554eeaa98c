//! Recordings of webhooks: a file of JSON lines that a relay writes and anyone can play, byte for byte.
//!
//! ```text
//! {"relay_cassette":1,"made_at":"…","made_by":"relay-server 0.3.0","redacted":false}
//! {"offset_us":0,"id":"hook_…","method":"POST","target":"/x?y=1","headers":[["a","b"],["c",{"base64":"/w=="}]],
//!  "body":"<base64>","expect":{"status":200,"headers":[],"body":"<base64>","truncated":false}, …}
//! ```
//!
//! The first line is the head; each further one is an event, in order of time. Keys are only ever added, and readers skip
//! those that they do not know. Nothing here sends, judges or masks anything.
//!
//! Invariants: what was written is read back the same, whatever bytes it has; a reader holds one line at a time, of at
//! most [`MAX_LINE_BYTES`].

use std::io::{self, BufRead, Read as _};

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The newest form, and the only one.
pub const VERSION: u32 = 1;

/// A longer line is refused. It is about what the largest body that is exported takes.
pub const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CassetteHead {
    #[serde(rename = "relay_cassette")]
    pub version: u32,
    #[serde(default)]
    pub made_at: String,
    #[serde(default)]
    pub made_by: String,
    /// Credentials were taken out of it: what it has been signed with or shown by stands as `[masked]`.
    #[serde(default)]
    pub redacted: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CassetteEvent {
    /// From the first event of the recording.
    pub offset_us: u64,
    pub id: String,
    pub endpoint: String,
    pub provider: Option<String>,
    pub event_type: Option<String>,
    pub sender_id: Option<String>,
    pub received_at: String,
    pub method: String,
    /// What follows the endpoint: the path and the query.
    pub target: String,
    pub headers: Vec<(String, CassetteBytes)>,
    pub body: Base64Bytes,
    /// The answer that its handler gave then.
    pub expect: Option<CassetteAnswer>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CassetteAnswer {
    pub status: u16,
    pub headers: Vec<(String, CassetteBytes)>,
    pub body: Base64Bytes,
    /// Its body was longer than what was kept.
    pub truncated: bool,
}

/// A header's value: a text where it is UTF-8, else `{"base64":"…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CassetteBytes(pub Vec<u8>);

/// A body: always base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64Bytes(pub Vec<u8>);

#[derive(Debug, thiserror::Error)]
pub enum CassetteError {
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("this is no recording: its first line has no \"relay_cassette\"")]
    NotOne,
    #[error("the recording is of form {0}, and this program knows form {VERSION}; use a newer one")]
    TooNew(u32),
    #[error("line {line} is longer than {MAX_LINE_BYTES} bytes")]
    TooLong { line: u64 },
    #[error("line {line} cannot be read: {why}")]
    Line { line: u64, why: serde_json::Error },
}

impl CassetteHead {
    pub fn new(made_at: String, made_by: String, redacted: bool) -> Self {
        Self { version: VERSION, made_at, made_by, redacted }
    }

    /// Its line, with the end of the line.
    pub fn line(&self) -> String {
        line(self)
    }
}

impl CassetteEvent {
    /// Its line, with the end of the line.
    pub fn line(&self) -> String {
        line(self)
    }
}

fn line(of: &impl Serialize) -> String {
    let mut line = serde_json::to_string(of).expect("texts and numbers always have a form");
    line.push('\n');
    line
}

/// Reads a recording, one event after the other. It ends at the first line that cannot be read.
#[derive(Debug)]
pub struct CassetteReader<R> {
    from: R,
    line: u64,
    failed: bool,
    pub head: CassetteHead,
}

impl<R: BufRead> CassetteReader<R> {
    pub fn open(from: R) -> Result<Self, CassetteError> {
        let head = CassetteHead { version: 0, made_at: String::new(), made_by: String::new(), redacted: false };
        let mut reader = Self { from, line: 0, failed: false, head };
        let first = reader.next_line()?.ok_or(CassetteError::NotOne)?;
        let version = serde_json::from_slice::<serde_json::Value>(&first).ok();
        let version = version.and_then(|head| head.get("relay_cassette")?.as_u64()).ok_or(CassetteError::NotOne)?;
        if version != u64::from(VERSION) {
            return Err(CassetteError::TooNew(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        reader.head = serde_json::from_slice(&first).map_err(|why| CassetteError::Line { line: 1, why })?;
        Ok(reader)
    }

    /// The next line that has something in it.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, CassetteError> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            (&mut self.from).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes)?;
            if bytes.len() as u64 > MAX_LINE_BYTES {
                return Err(CassetteError::TooLong { line: self.line });
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            if !bytes.trim_ascii().is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    fn event(&mut self) -> Result<Option<CassetteEvent>, CassetteError> {
        let Some(bytes) = self.next_line()? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|why| CassetteError::Line { line: self.line, why })
    }
}

impl<R: BufRead> Iterator for CassetteReader<R> {
    type Item = Result<CassetteEvent, CassetteError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let event = self.event().transpose();
        self.failed = matches!(event, Some(Err(_)));
        event
    }
}

impl From<&[u8]> for CassetteBytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Text(std::borrow::Cow<'a, str>),
    Base64 { base64: String },
}

impl Serialize for CassetteBytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Written::Text(text.into()),
            Err(_) => Written::Base64 { base64: BASE64.encode(&self.0) },
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for CassetteBytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Written::deserialize(from)? {
            Written::Text(text) => Ok(Self(text.into_owned().into_bytes())),
            Written::Base64 { base64 } => BASE64.decode(base64.as_bytes()).map(Self).map_err(D::Error::custom),
        }
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> CassetteEvent {
        CassetteEvent {
            offset_us: 1_500,
            id: "hook_1".into(),
            endpoint: "pay".into(),
            event_type: Some("invoice.paid".into()),
            method: "POST".into(),
            target: "/a?b".into(),
            headers: vec![("a".into(), b"\xff\n"[..].into()), ("a".into(), b"two"[..].into())],
            body: Base64Bytes(vec![0, 159, 10]),
            expect: Some(CassetteAnswer { status: 201, body: Base64Bytes(b"ok".into()), ..CassetteAnswer::default() }),
            ..CassetteEvent::default()
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let head = CassetteHead::new("2026-01-31T08:00:00Z".into(), "relay-server".into(), true);
        let file = format!("{}{}\n{}", head.line(), event().line(), CassetteEvent::default().line());
        assert_eq!(file.lines().count(), 4, "one line each, whatever is in it");
        let reader = CassetteReader::open(file.as_bytes()).unwrap();
        assert_eq!(reader.head, head);
        let events: Vec<_> = reader.collect::<Result<_, _>>().unwrap();
        assert_eq!(events, [event(), CassetteEvent::default()]);
        assert!(file.contains(r#"[["a",{"base64":"/wo="}],["a","two"]]"#), "{file}");
    }

    #[test]
    fn what_is_no_recording_is_told_apart_from_one_that_is_too_new_or_broken() {
        let open = |text: &str| CassetteReader::open(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert!(open("").contains("no recording") && open("{\"log\":{}}").contains("no recording"));
        assert!(open("{\"relay_cassette\":2}").contains("a newer one"));
        let broken = format!("{}\n{{\"body\":\"%\"}}\n{}", "{\"relay_cassette\":1}", event().line());
        let mut reader = CassetteReader::open(broken.as_bytes()).unwrap();
        assert!(reader.next().unwrap().unwrap_err().to_string().starts_with("line 2"));
        assert!(reader.next().is_none(), "it ends there");
    }
}
