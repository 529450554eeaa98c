//! How webhook providers sign: rows of data, and pure verify and sign over bytes.
//!
//! A provider is a row of `providers.toml`; one engine reads every row both ways. The clock is an
//! argument. What this crate does not do: no sockets, no clocks, no randomness, no parsing of bodies,
//! no knowledge of endpoints.
//!
//! Invariants: signatures are compared in constant time, in one place; at most
//! [`MAX_CANDIDATES`] of them are looked at; a doubled signature, timestamp or id header is refused;
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
//! let request = Request { headers: &headers, body: b"Hello, World!" };
//! assert!(github.verify(&keys, &request, 0).is_ok());
//! let changed = Request { headers: &headers, body: b"Hello, World?" };
//! assert_eq!(github.verify(&keys, &changed, 0), Err(Refusal::SignatureMismatch));
//! ```

mod engine;
mod key;
mod row;
mod secret;

pub use engine::{Headers, MAX_CANDIDATES, Refusal, Request, SignError, Verified};
pub use key::{Keys, SecretError};
pub use row::{Locator, Provider, RowError, Scheme, load, provider, providers};
pub use secret::Secret;
