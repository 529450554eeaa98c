//! Which parts of a request let their bearer in, and what stands in their place where requests are shown or written.
//!
//! There are two rules: names that say so by themselves, in headers and queries; and the places in which the endpoint's
//! row says that a credential stands, in bodies as well. A masked part of a body keeps its length.

mod capture;

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use relay_schemes::Provider;

pub(crate) use self::capture::{Blinds, Masks};
use crate::verify::Rule;

pub(crate) const MASKED: &str = "[masked]";

/// Whether what goes by this name lets its bearer in. A signature does not: it is worth nothing without its body.
pub(crate) fn authenticates(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "api_key"]
        .iter()
        .any(|word| name.contains(word))
        || name == "key"
}

/// What of a request is not shown, nor written to disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hidden {
    pub url: String,
    /// Headers of the row.
    headers: Vec<String>,
    /// Parts of the body, in order.
    body: Vec<Range<usize>>,
}

impl Hidden {
    /// Of a request at an endpoint with this rule. The body is the whole one.
    pub(crate) fn of(rule: &Rule, url: &str, body: &[u8]) -> Self {
        let provider = rule.provider();
        let headers = provider.map(Provider::credential_headers).unwrap_or_default();
        Self {
            url: shown_url(Some(rule), url),
            headers: headers.into_iter().map(str::to_owned).collect(),
            body: provider.map(|provider| provider.credentials_in(body)).unwrap_or_default(),
        }
    }

    /// Of what was written without it: the URL is as it is shown.
    pub(crate) fn nothing_but(url: String) -> Self {
        Self { url, ..Self::default() }
    }

    pub(crate) fn hides(&self, header: &str) -> bool {
        authenticates(header) || self.headers.iter().any(|name| name.eq_ignore_ascii_case(header))
    }

    /// The beginning of a body as it is shown.
    pub(crate) fn body(&self, kept: &Bytes) -> Bytes {
        if self.body.is_empty() {
            return kept.clone();
        }
        let mut shown = kept.to_vec();
        for part in &self.body {
            let end = part.end.min(shown.len());
            shown[part.start.min(end)..end].fill(b'*');
        }
        shown.into()
    }

    /// What it takes of the log's memory.
    pub(crate) fn bytes(&self) -> usize {
        self.url.len() + self.headers.iter().map(String::len).sum::<usize>() + 16 * self.body.len()
    }
}

/// A URL, or what of one follows the endpoint, as it is shown.
pub(crate) fn shown_url(rule: Option<&Rule>, url: &str) -> String {
    let masked = masked_url(url);
    match rule.and_then(Rule::provider).map(|provider| provider.hide_in_url(&masked)) {
        Some(Cow::Owned(hidden)) => hidden,
        _ => masked,
    }
}

/// The URL with the values of such query parameters masked.
pub(crate) fn masked_url(url: &str) -> String {
    let Some((before, query)) = url.split_once('?') else { return url.to_owned() };
    let mask = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if authenticates(name) => format!("{name}={MASKED}"),
        _ => pair.to_owned(),
    };
    format!("{before}?{}", query.split('&').map(mask).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use relay_schemes::{Material, Secret};

    use super::*;
    use crate::verify::Policy;

    #[test]
    fn a_credential_of_the_row_is_hidden_wherever_it_stands() {
        let rule = |name: &str| {
            let provider = Arc::new(relay_schemes::provider(name).expect("a row").clone());
            Rule::new(provider, Material::secrets(&[Secret::new("right")]), Policy::default()).expect("a rule").0
        };
        let (url, body) = ("https://a/b?code=hunter2", br#"{"passcode":"hunter2","more":1}"#);
        let hidden = Hidden::of(&rule("figma"), url, body);
        assert_eq!(hidden.body(&Bytes::from_static(body)), br#"{"passcode":"*******","more":1}"#[..]);
        let beginning = Bytes::from_static(&body[..16]);
        assert_eq!(hidden.body(&beginning), br#"{"passcode":"***"#[..], "also where the rest is not kept");
        assert_eq!(hidden.url, url);
        assert_eq!(Hidden::of(&rule("azure-event-grid"), url, b"").url, "https://a/b?code=[masked]");
        assert!(Hidden::of(&rule("supabase"), url, b"").hides("Authorization"));
    }

    #[test]
    fn what_lets_its_bearer_in_is_masked() {
        for name in ["Authorization", "Cookie", "X-Gitlab-Token", "X-Telegram-Bot-Api-Secret-Token", "api-key"] {
            assert!(authenticates(name), "{name}");
        }
        for name in ["x-hub-signature-256", "stripe-signature", "webhook-id", "content-type"] {
            assert!(!authenticates(name), "{name}");
        }
        assert_eq!(
            masked_url("https://a/b?x=1&token=t&hub.verify_token=v"),
            "https://a/b?x=1&token=[masked]&hub.verify_token=[masked]"
        );
        assert_eq!(masked_url("https://a/b"), "https://a/b");
    }
}
