//! A head and headers as JSON, so that stock tools can read them.
//!
//! Header values are bytes; each byte stands as the character with its number (Latin-1), which loses nothing.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::store::{Head, StoreError};

#[derive(Serialize, Deserialize)]
struct Written {
    method: String,
    target: String,
    url: String,
    peer: IpAddr,
    verified: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    headers: Vec<(String, String)>,
}

pub(super) fn write(head: &Head) -> String {
    let written = Written {
        method: head.method.clone(),
        target: head.target.clone(),
        url: head.url.clone(),
        peer: head.peer,
        verified: head.verified.clone(),
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
    fn a_head_from_before_there_were_signers_is_read_and_written_as_it_was() {
        let text =
            r#"{"method":"POST","target":"/","url":"https://a.test","peer":"::1","verified":"none","headers":[]}"#;
        let head = read(text).expect("a head");
        assert_eq!((head.signer.as_deref(), write(&head).as_str()), (None, text));
        let signed = Head { signer: Some("0123456789abcdef".to_owned()), ..head };
        assert_eq!(read(&write(&signed)), Ok(signed));
    }
}
