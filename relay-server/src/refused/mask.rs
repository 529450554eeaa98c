//! What lets its bearer in, and what is shown and written in its place.

/// What stands in place of what is masked.
pub const MASKED: &str = "[masked]";

/// Whether what goes by this name lets its bearer in. A signature does not: it is worth nothing without its body.
#[must_use]
pub fn authenticates(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "api_key"]
        .iter()
        .any(|word| name.contains(word))
        || name == "key"
}

/// The URL with the values of such query parameters masked.
#[must_use]
pub fn masked_url(url: &str) -> String {
    let Some((before, query)) = url.split_once('?') else { return url.to_owned() };
    let mask = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if authenticates(name) => format!("{name}={MASKED}"),
        _ => pair.to_owned(),
    };
    format!("{before}?{}", query.split('&').map(mask).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

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
