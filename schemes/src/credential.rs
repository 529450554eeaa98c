//! Where a row's proof is a credential itself: a token that lets in whoever has seen it once.
//!
//! A signature is worth nothing without its body; a token in a query, a body or a header is the secret. The row says
//! where it stands, so that exactly that can be hidden from who may look and not act. What is hidden keeps its length,
//! so that parts of a body fit together. Pure, and never changes what it is given.
//!
//! Invariant: if a body in which a credential has to stand cannot be read, all of it is hidden.

use std::{borrow::Cow, ops::Range};

use crate::{
    form, json,
    locate::Spot,
    row::Provider,
    scheme::{Scheme, SignaturePlace},
};

/// What stands in place of what is hidden in a URL.
const HIDDEN: &str = "[masked]";

impl Provider {
    /// Whether its proof is a token that stands in the query or the body, where it goes wherever they go.
    pub fn shows_credential(&self) -> bool {
        self.own().any(|spot| spot.in_body() || matches!(spot, Spot::Query(_)))
    }

    /// Whether its proof is a token, wherever it stands.
    pub fn bears_credential(&self) -> bool {
        self.schemes().any(|scheme| scheme.algorithm.is_token())
    }

    /// Whether its proof is a token in the body.
    pub fn hides_in_body(&self) -> bool {
        self.own().any(Spot::in_body)
    }

    /// The headers in which its proof stands, where that is a token; lower case.
    pub fn credential_headers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .schemes()
            .filter(|scheme| scheme.algorithm.is_token())
            .flat_map(|scheme| scheme.place.headers())
            .collect();
        let learnt = self.handshakes.iter().flat_map(|handshake| handshake.credentials());
        names.extend(learnt.filter_map(|spot| if let Spot::Header(name) = spot { Some(name.as_str()) } else { None }));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// A URL, or a part of one, with the values of such query parameters hidden.
    pub fn hide_in_url<'a>(&self, url: &'a str) -> Cow<'a, str> {
        let spots = || self.own().chain(self.handshakes.iter().flat_map(|handshake| handshake.credentials()));
        let names: Vec<&str> =
            spots().filter_map(|spot| if let Spot::Query(name) = spot { Some(name.as_str()) } else { None }).collect();
        let Some((before, query)) = url.split_once('?').filter(|_| !names.is_empty()) else {
            return Cow::Borrowed(url);
        };
        let (query, fragment) = query.split_once('#').map_or((query, None), |(query, after)| (query, Some(after)));
        let mut hidden = format!("{before}?");
        for (number, pair) in query.split('&').enumerate() {
            if number > 0 {
                hidden.push('&');
            }
            match form::pairs(pair.as_bytes()).next() {
                Some((name, _)) if names.iter().any(|wanted| *wanted.as_bytes() == *name) => {
                    hidden.push_str(pair.split('=').next().unwrap_or_default());
                    hidden.push('=');
                    hidden.push_str(HIDDEN);
                }
                _ => hidden.push_str(pair),
            }
        }
        if let Some(fragment) = fragment {
            hidden.push('#');
            hidden.push_str(fragment);
        }
        Cow::Owned(hidden)
    }

    /// The parts of a body that are to be hidden, in order.
    pub fn credentials_in(&self, body: &[u8]) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        for spot in self.own().filter(|spot| spot.in_body()) {
            match find(spot, body) {
                Some(found) => ranges.extend(found),
                None => return hide_all(body),
            }
        }
        // A challenge is recognised by its shape: another body has nothing there.
        for spot in self.handshakes.iter().flat_map(|handshake| handshake.credentials()).filter(|spot| spot.in_body()) {
            ranges.extend(find(spot, body).unwrap_or_default());
        }
        ranges.sort_by_key(|range| range.start);
        ranges
    }

    /// Its scheme, and the same under other names of headers.
    pub(crate) fn schemes(&self) -> impl Iterator<Item = &Scheme> {
        std::iter::successors(self.scheme.as_ref(), |scheme| scheme.alias.as_deref())
    }

    /// Where its own proof stands, if that is a token.
    fn own(&self) -> impl Iterator<Item = &Spot> {
        self.schemes().filter(|scheme| scheme.algorithm.is_token()).filter_map(|scheme| match &scheme.place {
            SignaturePlace::At(spot) => Some(spot),
            SignaturePlace::AnyHeader(_) | SignaturePlace::Numbered(_) | SignaturePlace::PerKey(_) => None,
        })
    }
}

fn hide_all(body: &[u8]) -> Vec<Range<usize>> {
    Some(0..body.len()).filter(|all| !all.is_empty()).into_iter().collect()
}

/// Every value at a place; `None` if nobody can say where it stands.
fn find(spot: &Spot, body: &[u8]) -> Option<Vec<Range<usize>>> {
    match spot {
        _ if body.is_empty() => Some(Vec::new()),
        Spot::Json(pointer) => {
            let found = json::find(body, pointer).ok()?;
            Some(found.into_iter().map(|value| inside(body, value.get())).collect())
        }
        Spot::Form(name) => {
            if body.starts_with(b"--") {
                return None; // Parts, not pairs.
            }
            let of_name = |(key, _): &(&[u8], &[u8])| form::pairs(key).any(|(key, _)| *key == *name.as_bytes());
            Some(form::raw_pairs(body).filter(of_name).map(|(_, value)| range_of(body, value)).collect())
        }
        Spot::Member(_) => None,
        Spot::Header(_) | Spot::Query(_) | Spot::Setting(_) => Some(Vec::new()),
    }
}

/// A JSON value in its body: of a string what is between its marks.
fn inside(body: &[u8], value: &str) -> Range<usize> {
    let range = range_of(body, value.as_bytes());
    if value.len() >= 2 && value.starts_with('"') { range.start + 1..range.end - 1 } else { range }
}

/// Where a part stands that was taken out of a whole.
fn range_of(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len());
    start..(start + part.len()).min(whole.len())
}

#[cfg(test)]
mod tests {
    use crate::{provider, providers};

    fn hidden(name: &str, body: &str) -> String {
        let mut bytes = body.as_bytes().to_vec();
        for range in provider(name).expect("a row").credentials_in(body.as_bytes()) {
            bytes[range].fill(b'*');
        }
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn exactly_the_credential_of_the_row_is_hidden() {
        assert_eq!(hidden("figma", r#"{"passcode":"s\"3","x":"s\"3"}"#), r#"{"passcode":"****","x":"s\"3"}"#);
        assert_eq!(
            hidden("mattermost", r#"{ "token" : "abc" , "text":"token"}"#),
            r#"{ "token" : "***" , "text":"token"}"#
        );
        assert_eq!(hidden("mattermost-form", "a=1&token=ab%20c&text=token"), "a=1&token=******&text=token");
        assert_eq!(hidden("mattermost-form", "t%6fken=abc&token=d"), "t%6fken=***&token=*");
        let graph = r#"{"value":[{"clientState":"one","id":1},{"clientState":"two"}]}"#;
        assert_eq!(hidden("microsoft-graph", graph), graph.replace("one", "***").replace("two", "***"));
        assert_eq!(hidden("notion", r#"{"verification_token":"secret_x"}"#), r#"{"verification_token":"********"}"#);
        assert_eq!(hidden("notion", "no JSON"), "no JSON");
        assert_eq!(hidden("github", r#"{"token":"abc"}"#), r#"{"token":"abc"}"#);
    }

    #[test]
    fn what_cannot_be_read_is_hidden_as_a_whole() {
        for body in [r#"{"passcode":"abc"#, r#"{"passcode":"a","passcode":"b"}"#, "passcode=abc"] {
            assert_eq!(hidden("figma", body), "*".repeat(body.len()), "{body}");
        }
        let parts = "--x\r\ncontent-disposition: form-data; name=token\r\n\r\nabc\r\n--x--";
        assert_eq!(hidden("mattermost-form", parts), "*".repeat(parts.len()));
        assert_eq!(hidden("figma", ""), "");
    }

    #[test]
    fn a_query_loses_the_value_and_keeps_everything_else() {
        let hide = |name: &str, url: &str| provider(name).expect("a row").hide_in_url(url).into_owned();
        assert_eq!(hide("docker-hub", "https://a/b?x=token&token=t%3D&y"), "https://a/b?x=token&token=[masked]&y");
        assert_eq!(hide("azure-event-grid", "/b?c%6fde=t#x"), "/b?c%6fde=[masked]#x");
        assert_eq!(hide("fitbit", "/b?verify=t"), "/b?verify=[masked]");
        assert_eq!(hide("salesforce-outbound", "/b"), "/b");
        assert_eq!(hide("github", "/b?token=t"), "/b?token=t");
    }

    #[test]
    fn rows_whose_proof_is_a_token_in_query_or_body_are_known() {
        let shown: Vec<&str> =
            providers().iter().filter(|row| row.shows_credential()).map(|row| row.name.as_str()).collect();
        let wanted = [
            "figma",
            "mattermost",
            "mattermost-form",
            "microsoft-graph",
            "azure-event-grid",
            "docker-hub",
            "salesforce-outbound",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(provider("gitlab-token").expect("a row").credential_headers(), ["x-gitlab-token"]);
        assert_eq!(provider("basic").expect("a row").credential_headers(), ["authorization"]);
        assert!(provider("stripe").expect("a row").credential_headers().is_empty());
    }
}
