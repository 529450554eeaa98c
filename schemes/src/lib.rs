//! How webhook providers sign: rows of data, and pure verify, sign and explain over bytes.
//!
//! A provider is a row of `providers.toml`; one engine reads every row both ways. The clock is an
//! argument. What this crate does not do: no sockets, no clocks, no randomness, no knowledge of
//! endpoints. A body is parsed only where the row says that something stands in it.
//!
//! The way through it: [`provider`] (or [`load`] for rows of one's own) gives a [`Provider`];
//! [`Provider::keys`] turns [`Material`] into [`Keys`] once; for each request
//! [`Provider::handshake`] says whether it is a challenge and what to answer, [`Scheme::verify`]
//! whether it is proven, [`Provider::event`] what it is about.
//!
//! What a program links: without features, what a listener needs to verify, sign and explain, with the table of rows.
//! `samples` adds what the providers' requests look like, for a program that sends as they do; `vectors` adds the judge
//! of test vectors, for a command that runs them. What only tests need stands in `tests/`.
//!
//! Invariants: signatures are compared in constant time, in one place; at most
//! [`MAX_CANDIDATES`] of them are looked at; a doubled signature, timestamp or id is refused;
//! age is judged only once the signature is known to be right; no secret and no computed signature
//! is ever printed.
//!
//! ```
//! use relay_schemes::{Refusal, Request, Secret, provider};
//!
//! let github = provider("github").and_then(|github| github.scheme.as_ref()).expect("a row");
//! let keys = github.keys(&[Secret::new("It's a Secret to Everybody")]).expect("a secret");
//! let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
//! let headers = [("X-Hub-Signature-256", signature)];
//!
//! let url = "https://hooks.example.com/github";
//! let request = Request { method: "POST", url, headers: &headers, body: b"Hello, World!" };
//! assert!(github.verify(&keys, &request, 0).is_ok());
//! let changed = Request { body: b"Hello, World?", ..request };
//! assert_eq!(github.verify(&keys, &changed, 0), Err(Refusal::SignatureMismatch));
//! ```

#![allow(missing_docs, reason = "a name that says it all has no comment")]

mod credential;
pub mod explain;
mod form;
mod handshake;
mod idn;
mod invisible;
mod json;
mod jwt;
mod key;
mod layout;
mod locate;
mod multipart;
mod pinned;
mod proof;
mod public;
mod request;
mod row;
#[cfg(feature = "samples")]
mod sample;
mod scheme;
mod secret;
mod shape;
mod sign;
mod template;
mod timestamp;
mod url;
#[cfg(feature = "vectors")]
pub mod vectors;
mod verify;
mod words;

pub use handshake::{Answering, Challenge, Handshake, Reply};
pub use idn::ascii_host;
pub use invisible::Invisible;
pub use key::{KeyTag, Keys, Material, SecretError, SecretWarning};
pub use layout::MAX_CANDIDATES;
pub use locate::Locator;
pub use proof::is_proof_header;
pub use request::{Fingerprint, Headers, LongBody, Refusal, Request, Verified};
pub use row::{Ack, EventMeta, Provider, RowError, TABLE, load, provider, providers};
#[cfg(feature = "samples")]
pub use sample::Sample;
pub use scheme::{NamedKey, Scheme, SignatureScope};
pub use secret::Secret;
pub use sign::{SignError, Signed};
