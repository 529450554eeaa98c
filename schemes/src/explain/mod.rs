//! Says which usual mistake it was when a signature does not match, by trying them.
//!
//! Pure and bounded: a budget of bytes and of tries, whatever the request. It never says a secret or
//! a computed signature, only their names and forms, and it is for the owner's eyes: the sender gets
//! a code and no more.

mod body;
mod finding;
mod header;
mod secret;
mod url;

pub use finding::{BodyChange, Finding};

use crate::{
    Keys, Material, Provider, Refusal, Request, Scheme, Secret, locate::Spot, row::providers, scheme::SignaturePlace,
    words::place_of,
};

/// Most verifications of one explanation.
const MAX_TRIES: u32 = 256;

/// Most bytes that one explanation hashes.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What might have been meant, beside what is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidates<'a> {
    /// Other secrets that the owner has, each under a name that may be shown.
    pub secrets: &'a [(&'a str, &'a Secret)],
    /// URLs under which the endpoint may be registered.
    pub urls: &'a [&'a str],
}

/// Explains why a request was refused: what was found, the likeliest first, at least one finding.
pub fn explain(
    provider: &Provider,
    material: &Material,
    request: &Request<'_>,
    now_unix_s: i64,
    also: &Candidates<'_>,
) -> Vec<Finding> {
    let Some(scheme) = &provider.scheme else { return vec![Finding::Verifies] };
    let keys = match scheme.keys_from(material) {
        Ok(keys) => keys,
        Err(error) => return vec![Finding::SecretUnusable(error)],
    };
    let refusal = match scheme.verify(&keys, request, now_unix_s) {
        Ok(_) => return vec![Finding::Verifies],
        Err(refusal) => refusal,
    };
    let mut it = Trial { scheme, keys: ageless(keys), material, request, tries: MAX_TRIES, bytes: MAX_BYTES };
    let mut found = Vec::new();
    match refusal {
        Refusal::TimestampTooOld | Refusal::TimestampTooNew => found.extend(it.skew(now_unix_s)),
        Refusal::SignatureDuplicated | Refusal::TimestampMalformed | Refusal::IdDuplicated => {
            found.extend(header::doubled(&mut it));
        }
        _ => {}
    }
    if found.is_empty() {
        found.extend(header::written_otherwise(&mut it));
    }
    if found.is_empty() && refusal == Refusal::SignatureMismatch {
        let one = secret::another(&mut it, also.secrets)
            .or_else(|| secret::other_form(&mut it, also.secrets))
            .or_else(|| url::other(&mut it, also.urls))
            .or_else(|| body::changed(&mut it));
        found.extend(one);
    }
    if found.is_empty() {
        found.extend(it.other_provider(provider));
    }
    if found.is_empty() {
        found.push(match refusal {
            Refusal::SignatureMissing => Finding::SignatureAbsent { place: place_of(scheme) },
            Refusal::SignatureMismatch => Finding::NothingUsual { exhausted: it.tries == 0 },
            refusal => Finding::Refused(refusal),
        });
    }
    found
}

/// The same keys under which age does not matter: a saved request is always old.
fn ageless(mut keys: Keys) -> Keys {
    keys.tolerance_s = Some(i64::MAX);
    keys
}

/// One refused request, and what is left of the budget for it.
struct Trial<'a> {
    scheme: &'a Scheme,
    keys: Keys,
    material: &'a Material,
    request: &'a Request<'a>,
    tries: u32,
    bytes: usize,
}

impl Trial<'_> {
    /// Whether a variant would have passed; `false` once the budget is used up.
    fn passes(&mut self, scheme: &Scheme, keys: &Keys, request: &Request<'_>) -> bool {
        let cost = request.body.len() + 256;
        if self.tries == 0 || self.bytes < cost {
            self.tries = 0;
            return false;
        }
        self.tries -= 1;
        self.bytes -= cost;
        scheme.verify(keys, request, 0).is_ok()
    }

    /// Whether the request passes with another body or other headers.
    fn passes_as(&mut self, request: &Request<'_>) -> bool {
        let (scheme, keys) = (self.scheme, self.keys.clone());
        self.passes(scheme, &keys, request)
    }

    fn skew(&mut self, now: i64) -> Option<Finding> {
        let at = self.scheme.verify(&self.keys, self.request, now).ok()?.timestamp?;
        let (past_s, future_s) = self.scheme.tolerance_s().unwrap_or_default();
        let tolerance_s = if at > now { future_s } else { past_s };
        let tolerance_s = self.material.tolerance_s.map_or(tolerance_s, i64::from);
        Some(Finding::ClockSkew { seconds: now.saturating_sub(at), tolerance_s })
    }

    /// Whether it is another provider's request: by its signature, or at least by its header.
    fn other_provider(&mut self, own: &Provider) -> Vec<Finding> {
        let mut by_header = Vec::new();
        for other in providers() {
            let Some(scheme) = other.scheme.as_ref().filter(|_| other.name != own.name) else { continue };
            let there = match &scheme.place {
                SignaturePlace::Numbered(name) => self.request.has_header(&format!("{name}1")),
                place => place.headers().iter().any(|name| *name != "authorization" && self.request.has_header(name)),
            };
            if !there {
                continue;
            }
            let keys = scheme.keys_from(self.material).map(ageless);
            if keys.is_ok_and(|keys| self.passes(scheme, &keys, self.request)) {
                return vec![Finding::OtherProvider { name: other.name.clone(), proven: true }];
            }
            if by_header.is_empty() {
                by_header.push(Finding::OtherProvider { name: other.name.clone(), proven: false });
            }
        }
        // A header that the own scheme has too says nothing.
        let own_place = match &self.scheme.place {
            SignaturePlace::At(Spot::Header(name)) => self.request.has_header(name),
            _ => false,
        };
        if own_place { Vec::new() } else { by_header }
    }
}
