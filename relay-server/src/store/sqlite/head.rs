//! A head and headers as JSON, so that stock tools can read them.
//!
//! Header values are bytes; each byte stands as the character with its number (Latin-1), which loses nothing.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::store::{Head, Signature, StoreError};

#[derive(Serialize, Deserialize)]
struct Written {
    method: String,
    target: String,
    url: String,
    peer: IpAddr,
    verified: String,
    /// Left out where it says nothing, as in heads from before there was a choice.
    #[serde(default, skip_serializing_if = "is_auto")]
    signature: Signature,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    headers: Vec<(String, String)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_auto(signature: &Signature) -> bool {
    *signature == Signature::Auto
}

pub(super) fn write(head: &Head) -> String {
    let written = Written {
        method: head.method.clone(),
        target: head.target.clone(),
        url: head.url.clone(),
        peer: head.peer,
        verified: head.verified.clone(),
        signature: head.signature,
        signer: head.signer.clone(),
        headers: latin1(&head.headers),
    };
    serde_json::to_string(&written).expect("texts and numbers always make JSON")
}

pub(super) fn read(text: &str) -> Result<Head, StoreError> {
    let written: Written = serde_json::from_str(text).map_err(|error| unreadable(&error))?;
    Ok(Head {
        method: written.method,
        target: written.target,
        url: written.url,
        headers: bytes(written.headers)?,
        peer: written.peer,
        verified: written.verified,
        signature: written.signature,
        signer: written.signer,
    })
}

pub(super) fn write_headers(headers: &[(String, Vec<u8>)]) -> String {
    serde_json::to_string(&latin1(headers)).expect("texts always make JSON")
}

pub(super) fn read_headers(text: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    bytes(serde_json::from_str(text).map_err(|error| unreadable(&error))?)
}

fn latin1(headers: &[(String, Vec<u8>)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.clone(), value.iter().map(|&byte| char::from(byte)).collect())).collect()
}

fn bytes(headers: Vec<(String, String)>) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let one = |(name, value): (String, String)| {
        let value: Result<_, _> = value.chars().map(u8::try_from).collect();
        value.map(|value| (name, value)).map_err(|_| StoreError::Internal("a stored header is not Latin-1".into()))
    };
    headers.into_iter().map(one).collect()
}

fn unreadable(error: &serde_json::Error) -> StoreError {
    StoreError::Internal(format!("a stored head cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_from_before_the_choice_of_a_signature_reads_and_writes_as_it_was() {
        let old = r#"{"method":"POST","target":"/","url":"https://h","peer":"127.0.0.1","verified":"none","headers":[["x-raw","é"]]}"#;
        let head = read(old).expect("a head");
        assert_eq!((head.signature, head.headers[0].1.as_slice()), (Signature::Auto, &[0xe9][..]));
        assert_eq!(write(&head), old);
        let fresh = Head { signature: Signature::Fresh, ..head };
        assert_eq!(read(&write(&fresh)).expect("a head"), fresh);
    }

    #[test]
    fn a_head_from_before_there_were_signers_is_read_and_written_as_it_was() {
        let text =
            r#"{"method":"POST","target":"/","url":"https://a.test","peer":"::1","verified":"none","headers":[]}"#;
        let head = read(text).expect("a head");
        assert_eq!((head.signer.as_deref(), write(&head).as_str()), (None, text));
        let signed = Head { signer: Some("0123456789abcdef".to_owned()), ..head };
        assert_eq!(read(&write(&signed)), Ok(signed));
    }
}
