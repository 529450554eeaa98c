//! What the fuzzer reaches of modules that nobody else sees: with the feature `fuzz` alone, which no program has.
//!
//! Whatever the input is, these hold; a target that panics has found a mistake.

use crate::{
    config,
    ingress::{head, proxy_protocol},
};

/// A text as a config, without the secrets that it names: what is taken can be shown, and what is shown is taken.
pub fn config(text: &str) {
    config::fuzz(text);
}

/// Requests on one connection, whole and in pieces of this size: the same heads are doubtful.
pub fn heads(bytes: &[u8], piece: usize) {
    head::fuzz(bytes, piece);
}

/// Bytes where a proxy's header is to be.
pub fn proxied(bytes: &[u8]) {
    proxy_protocol::fuzz(bytes);
}
