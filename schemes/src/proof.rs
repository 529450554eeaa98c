//! In which headers a proof stands, so that nobody on the way may take one out as a line of its own hop.

use std::{collections::HashSet, sync::LazyLock};

use crate::{
    locate::Spot,
    row::{Provider, providers},
    scheme::SignaturePlace,
    timestamp::TimestampPlace,
};

/// What the rows of the embedded table prove their requests by: whole names, and those that a number follows.
static HEADERS: LazyLock<(HashSet<&str>, Vec<&str>)> = LazyLock::new(|| {
    let rows = providers().iter();
    (rows.clone().flat_map(Provider::fixed).collect(), rows.flat_map(Provider::numbered).collect())
});

/// Whether a row of the embedded table proves its requests by this header, in lower case.
pub fn is_proof_header(name: &str) -> bool {
    let (fixed, numbered) = &*HEADERS;
    fixed.contains(name) || numbered.iter().any(|before| name.starts_with(before))
}

impl Provider {
    /// Whether this header, in lower case, has the row's signature, or the time or the id that is signed.
    pub fn is_proven_by(&self, name: &str) -> bool {
        self.fixed().any(|fixed| fixed == name) || self.numbered().any(|before| name.starts_with(before))
    }

    /// Such headers by their whole names.
    fn fixed(&self) -> impl Iterator<Item = &str> {
        self.schemes().flat_map(|scheme| {
            let time = scheme.timestamp.as_ref().and_then(|timestamp| match &timestamp.place {
                TimestampPlace::At(spot) => Some(spot),
                TimestampPlace::Number(_) | TimestampPlace::Field(_) => None,
            });
            let spots = [time, scheme.id.as_ref(), scheme.nonce.as_ref(), scheme.body_hash.as_ref()];
            let named = spots.into_iter().flatten().filter_map(|spot| match spot {
                Spot::Header(name) => Some(name.as_str()),
                _ => None,
            });
            scheme.place.headers().into_iter().chain(named)
        })
    }

    /// What stands before the number of such headers.
    fn numbered(&self) -> impl Iterator<Item = &str> {
        self.schemes().filter_map(|scheme| match &scheme.place {
            SignaturePlace::Numbered(before) => Some(before.as_str()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider;

    #[test]
    fn headers_of_proofs_are_known_and_others_are_not() {
        for name in [
            "x-hub-signature-256",
            "stripe-signature",
            "webhook-id",
            "webhook-timestamp",
            "x-slack-request-timestamp",
            "x-docusign-signature-2",
            "authorization",
        ] {
            assert!(is_proof_header(name), "{name}");
        }
        for name in ["x-hop", "connection", "keep-alive", "te", "upgrade", "traceparent", "x-github-event", ""] {
            assert!(!is_proof_header(name), "{name}");
        }
        let github = provider("github").expect("a row");
        assert!(github.is_proven_by("x-hub-signature-256") && !github.is_proven_by("stripe-signature"));
    }
}
