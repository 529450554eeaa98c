//! Secrets that the command line reads or makes for an endpoint.

use std::io::Read as _;

use anyhow::Context;
use relay_program::Failure;
use relay_schemes::Invisible;
use zeroize::Zeroizing;

use crate::{
    api::own_secret,
    cli::no_randomness,
    config::{MAX_SECRET_BYTES, read_secret},
};

/// A new secret in the provider's form; `None` where it is not known to be one's own to choose.
pub(in crate::cli) fn new(provider: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    own_secret::new(provider).map_err(no_randomness)
}

/// The secret in a file, or on standard input for `-`.
pub(super) fn read(file: &str) -> Result<Zeroizing<String>, Failure> {
    let bytes = if file == "-" {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        std::io::stdin().take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).context("standard input")?;
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        bytes
    } else {
        read_secret(&format!("file:{file}")).map_err(|why| Failure::Usage(format!("--secret-file: {why}")))?
    };
    if bytes.is_empty() || bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(Failure::Usage("--secret-file: it is empty, or larger than 64 KiB".to_owned()));
    }
    if let Some(what) = Invisible::of(&bytes) {
        return Err(Failure::Usage(format!("--secret-file: {what}")));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::Usage(
            "--secret-file: this secret is no text; leave it in a file that the relay can read and write \
             --set 'verify.secrets = [\"file:/PATH\"]'"
                .to_owned(),
        )),
    }
}
