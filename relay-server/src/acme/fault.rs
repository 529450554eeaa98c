//! Why there is no certificate, in words: the domain, the step, what the CA said, and the way out.

use instant_acme::{Error, Problem};

use crate::config::AcmeChallenge;

/// Longest text of a CA's that is passed on, in bytes.
const MAX_DETAIL_BYTES: usize = 600;

/// What the relay was about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderStep {
    /// To reach the CA.
    Directory,
    /// To get an account, or the right to use it.
    Account,
    Order,
    /// To put up the proof that the CA looks for.
    Offer,
    /// To have the CA look for it.
    Validation,
    Finalize,
    Download,
    Keep,
}

impl OrderStep {
    const fn words(self) -> &'static str {
        match self {
            Self::Directory => "asking the CA",
            Self::Account => "the account",
            Self::Order => "the order",
            Self::Offer => "preparing the proof",
            Self::Validation => "the CA's look at the domain",
            Self::Finalize => "signing",
            Self::Download => "fetching the certificate",
            Self::Keep => "keeping the certificate",
        }
    }
}

/// Why an order failed.
#[derive(Debug)]
pub(super) struct OrderFault {
    /// Step, reason and way out.
    pub text: String,
    /// The CA does not know the account, or does not let it order.
    pub account_is_gone: bool,
    /// The CA does not take this order for a renewal.
    pub is_no_renewal: bool,
}

impl OrderFault {
    pub(super) fn new(step: OrderStep, why: impl std::fmt::Display) -> Self {
        Self { text: format!("{}: {why}", step.words()), account_is_gone: false, is_no_renewal: false }
    }

    /// What the library says of a step.
    pub(super) fn of(step: OrderStep, challenge: AcmeChallenge, error: &Error) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(step, challenge, problem),
            Error::Timeout(_) => Self::new(step, "the CA had no result in time; it is asked again later"),
            Error::Json(_) => Self::new(step, "the answer is not what an ACME server says; look at tls.acme.directory"),
            other => Self::new(step, bounded(&other.to_string())),
        }
    }

    /// What the CA says of a step.
    pub(super) fn of_problem(step: OrderStep, challenge: AcmeChallenge, problem: &Problem) -> Self {
        let kind = problem.r#type.as_deref().unwrap_or_default();
        let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or("unknown");
        let at_account = matches!(step, OrderStep::Account | OrderStep::Order);
        let mut said = problem.detail.clone().unwrap_or_default();
        for part in &problem.subproblems {
            said.push_str("; ");
            said.push_str(part.detail.as_deref().unwrap_or_default());
        }
        let said = bounded(said.trim_matches(['.', ' ', ';']));
        let way_out = way_out(kind, step, challenge);
        Self {
            text: format!("{}: {kind} ({said}); {way_out}", step.words()),
            account_is_gone: kind == "accountDoesNotExist" || (kind == "unauthorized" && at_account),
            is_no_renewal: step == OrderStep::Order && matches!(kind, "alreadyReplaced" | "malformed" | "notFound"),
        }
    }
}

fn way_out(kind: &str, step: OrderStep, challenge: AcmeChallenge) -> &'static str {
    use AcmeChallenge::{Dns01, Http01, TlsAlpn01};
    match (kind, challenge) {
        ("connection" | "tls" | "unauthorized" | "incorrectResponse", _) if step != OrderStep::Validation => {
            "look at the account and at tls.acme"
        }
        ("connection", TlsAlpn01) => "let the world reach port 443 of this name, and lead it to server.listen",
        ("connection", Http01) => "let the world reach port 80 of this name, and lead it to server.http_listen",
        ("connection" | "dns", Dns01) => "let the name servers of this zone answer, and the hook wait until they do",
        ("dns", _) => "let an A or AAAA record of this name lead to this machine",
        ("tls", _) => {
            "something else answers at port 443 of this name; lead it to server.listen, with no proxy in front"
        }
        ("unauthorized" | "incorrectResponse", TlsAlpn01) => {
            "something else answers at port 443 of this name; lead its A and AAAA records here, with no proxy that \
             ends TLS in front"
        }
        ("unauthorized" | "incorrectResponse", Http01) => {
            "something else answers at port 80 of this name; lead its A and AAAA records here, and \
             /.well-known/acme-challenge/ to server.http_listen"
        }
        ("unauthorized" | "incorrectResponse", Dns01) => {
            "the TXT record is not there; look at what the hook does, and let it wait until the record can be seen"
        }
        ("caa", _) => "a CAA record of this name, or of its parents, names other CAs; add this one",
        ("rateLimited", _) => "too much was asked of this CA; the relay waits as long as it says",
        ("rejectedIdentifier" | "unsupportedIdentifier", _) => "this CA gives no certificate for this name",
        ("externalAccountRequired", _) => "this CA wants tls.acme.eab: the key that its web page gives you",
        ("invalidContact" | "unsupportedContact", _) => "look at tls.acme.email",
        ("userActionRequired", _) => "the CA wants something done by hand, behind the address that it names",
        ("accountDoesNotExist", _) => "the account is made anew at the next try",
        _ => "it is tried again later",
    }
}

fn bounded(text: &str) -> String {
    if text.len() <= MAX_DETAIL_BYTES {
        return text.to_owned();
    }
    let end = (0..=MAX_DETAIL_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(step: OrderStep, challenge: AcmeChallenge, kind: &str, detail: &str) -> OrderFault {
        let text = serde_json::json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail });
        let problem = serde_json::from_value(text).expect("a problem");
        OrderFault::of(step, challenge, &Error::Api(problem))
    }

    #[test]
    fn each_says_the_step_what_the_ca_said_and_what_to_do() {
        use AcmeChallenge::{Dns01, Http01, TlsAlpn01};
        for (challenge, kind, way_out) in [
            (TlsAlpn01, "connection", "port 443"),
            (Http01, "connection", "server.http_listen"),
            (TlsAlpn01, "dns", "A or AAAA record"),
            (Dns01, "unauthorized", "TXT record"),
            (Http01, "unauthorized", "port 80"),
            (TlsAlpn01, "unauthorized", "no proxy"),
            (Http01, "caa", "CAA record"),
            (Http01, "somethingNew", "tried again"),
        ] {
            let text = fault(OrderStep::Validation, challenge, kind, "Connection refused.").text;
            assert!(text.starts_with("the CA's look at the domain: "), "{text}");
            assert!(text.contains(&format!("{kind} (Connection refused)")), "{text}");
            assert!(text.contains(way_out), "{text}");
        }
        let text = fault(OrderStep::Account, Http01, "externalAccountRequired", "no").text;
        assert!(text.contains("tls.acme.eab"), "{text}");
    }

    #[test]
    fn an_account_that_the_ca_does_not_know_is_told_apart_from_a_proof_that_it_does_not_take() {
        let gone = |step, kind| fault(step, AcmeChallenge::TlsAlpn01, kind, "").account_is_gone;
        assert!(gone(OrderStep::Order, "accountDoesNotExist"));
        assert!(gone(OrderStep::Order, "unauthorized"), "deactivated, or revoked");
        assert!(!gone(OrderStep::Validation, "unauthorized"));
        assert!(!gone(OrderStep::Order, "rateLimited"));
        assert!(fault(OrderStep::Order, AcmeChallenge::Http01, "alreadyReplaced", "").is_no_renewal);
    }

    #[test]
    fn a_long_text_of_a_ca_is_cut() {
        let text = fault(OrderStep::Order, AcmeChallenge::Http01, "malformed", &"é".repeat(5000)).text;
        assert!(text.len() < 1000 && text.contains('…'), "{}", text.len());
    }
}
