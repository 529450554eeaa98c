//! In which headers a proof stands, so that nobody on the way may take one out as a line of its own hop.

use std::{collections::HashSet, sync::LazyLock};

use crate::{
    locate::Spot,
    row::{Provider, providers},
    scheme::SignaturePlace,
    template::Piece,
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

/// Lines of one hop by themselves (RFC 9110, section 7.6.1), which no sender signs.
const OF_ONE_HOP: [&str; 7] =
    ["http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

impl Provider {
    /// Whether the row looks at this header, in lower case: it has the signature, or is signed or required, as far as the
    /// row alone can tell. Where a request lists itself what is signed, any header may be.
    pub fn is_proven_by(&self, name: &str) -> bool {
        self.fixed().any(|fixed| fixed == name)
            || self.numbered().any(|before| name.starts_with(before))
            || (self.pieces().any(|piece| matches!(piece, Piece::SignedHeaders(_))) && !OF_ONE_HOP.contains(&name))
    }

    /// What is signed, or hashed in a claim.
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.schemes().flat_map(|scheme| {
            scheme.template.iter().chain(scheme.claims.hash.iter().flat_map(|(_, template)| template))
        })
    }

    /// Such headers by their whole names.
    fn fixed(&self) -> impl Iterator<Item = &str> {
        self.schemes()
            .flat_map(|scheme| {
                let time = scheme.timestamp.as_ref().and_then(|timestamp| match &timestamp.place {
                    TimestampPlace::At(spot) => Some(spot),
                    TimestampPlace::Number(_) | TimestampPlace::Field(_) => None,
                });
                let spots = [time, scheme.id.as_ref(), scheme.nonce.as_ref(), scheme.body_hash.as_ref()];
                let key = scheme.key_at.as_ref().map(|key| &key.spot);
                let spots = spots.into_iter().flatten().chain(key).chain(scheme.require.iter().map(|rule| &rule.spot));
                let named = spots.filter_map(|spot| match spot {
                    Spot::Header(name) => Some(name.as_str()),
                    _ => None,
                });
                scheme.place.headers().into_iter().chain(named)
            })
            .chain(self.pieces().filter_map(|piece| match piece {
                Piece::At { spot: Spot::Header(name), .. } | Piece::SignedHeaders(name) => Some(name.as_str()),
                _ => None,
            }))
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
            "x-fal-webhook-user-id",
            "x-plivo-signature-v3-nonce",
            "x-pusher-key",
            "paypal-cert-url",
            "paypal-auth-algo",
            "box-signature-version",
            "x-contentful-signed-headers",
        ] {
            assert!(is_proof_header(name), "{name}");
        }
        for name in ["x-hop", "connection", "keep-alive", "te", "upgrade", "traceparent", "x-github-event", ""] {
            assert!(!is_proof_header(name), "{name}");
        }
        let github = provider("github").expect("a row");
        assert!(github.is_proven_by("x-hub-signature-256") && !github.is_proven_by("stripe-signature"));
        let lists = provider("contentful").expect("a row");
        assert!(lists.is_proven_by("x-important") && !lists.is_proven_by("te"), "the request says what is signed");
    }
}
