//! URLs on a provider's own host that a request may name: what a row lets the relay fetch or call.
//!
//! A row writes the URL out, with at most one part of it left open, behind the host:
//! `https://api.example.com/certs/[A-Za-z0-9-]{1,64}`. `{aws:PLACE}` stands for the region and domain of the ARN that
//! stands there. Invariant: scheme, host and path are compared byte for byte, so no port, user name, other spelling or
//! dot segment gets through.

use crate::{
    locate::{Scene, Spot},
    shape::Shape,
};

/// Longest part of an ARN that names a region, in bytes.
const MAX_REGION: usize = 32;

/// A URL of which all but one part is known.
#[derive(Clone, Debug)]
pub(crate) struct PinnedUrl(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Open(Shape),
    Aws(Spot),
}

impl PinnedUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| format!("{text:?} {what}; expected one like https://api.example.com/certs/[a-z0-9]{{1,64}}");
        let after_scheme = text.strip_prefix("https://").ok_or_else(|| wrong("is no https URL"))?;
        let mut pieces = vec![Piece::Text("https://".to_owned())];
        // Whether the host is over, and with it all that may not be left open.
        let mut in_path = false;
        let mut rest = after_scheme;
        while !rest.is_empty() {
            let at = rest.find(['{', '[']).unwrap_or(rest.len());
            let (plain, after) = rest.split_at(at);
            let authority = if in_path { "" } else { plain.split('/').next().unwrap_or_default() };
            if !authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')) {
                return Err(wrong("has more than a host before its path"));
            }
            in_path |= plain.contains('/');
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain.to_owned()));
            }
            let end = after.find('}').map_or(after.len(), |end| end + 1);
            let (open, after) = after.split_at(end);
            if open.starts_with('[') {
                if !in_path {
                    return Err(wrong("leaves its host open"));
                }
                pieces.push(Piece::Open(Shape::parse(open)?));
            } else if !open.is_empty() {
                let spot = open.strip_prefix("{aws:").and_then(|open| Spot::parse(open.strip_suffix('}')?));
                pieces.push(Piece::Aws(spot.ok_or_else(|| wrong("has a {} that is not {aws:PLACE}"))?));
            }
            rest = after;
        }
        let open = pieces.iter().filter(|piece| matches!(piece, Piece::Open(_))).count();
        if !in_path || open > 1 || after_scheme.starts_with('/') {
            return Err(wrong("needs a host, a path, and at most one part that is open"));
        }
        Ok(Self(pieces))
    }

    /// Where the ARN stands that says the host, if one does.
    pub(crate) fn arn(&self) -> Option<&Spot> {
        self.0.iter().find_map(|piece| if let Piece::Aws(spot) = piece { Some(spot) } else { None })
    }

    /// Whether a request may name this URL.
    pub(crate) fn allows(&self, url: &str, scene: &Scene<'_>) -> bool {
        let (mut before, mut behind, mut open) = (String::new(), String::new(), None);
        for piece in &self.0 {
            let side = if open.is_none() { &mut before } else { &mut behind };
            match piece {
                Piece::Text(text) => side.push_str(text),
                Piece::Open(shape) => open = Some(shape),
                Piece::Aws(spot) => {
                    let arn = spot.read(scene).ok().flatten();
                    let arn = arn.as_deref().and_then(|arn| str::from_utf8(arn).ok());
                    let Some(host) = arn.and_then(aws_host) else { return false };
                    side.push_str(&host);
                }
            }
        }
        let inner = url.strip_prefix(&*before).and_then(|rest| rest.strip_suffix(&*behind));
        inner.is_some_and(|inner| open.map_or(inner.is_empty(), |shape| shape.fits(inner.as_bytes())))
    }
}

/// `REGION.DOMAIN` for an ARN (`arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`), where its partition is known.
pub(crate) fn aws_host(arn: &str) -> Option<String> {
    let mut parts = arn.splitn(6, ':');
    if parts.next()? != "arn" {
        return None;
    }
    let (partition, _service, region, _account, resource) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let domain = match partition {
        "aws" | "aws-us-gov" => "amazonaws.com",
        "aws-cn" => "amazonaws.com.cn",
        "aws-eusc" => "amazonaws.eu",
        _ => return None,
    };
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=MAX_REGION).contains(&region.len()) && region.bytes().all(label) && !resource.is_empty();
    good.then(|| format!("{region}.{domain}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    fn allows(pattern: &str, url: &str, arn: &str) -> bool {
        let headers = [("x-arn", arn)];
        let request = Request { method: "POST", url: "https://h/", headers: &headers, body: b"" };
        PinnedUrl::parse(pattern).expect("a pattern").allows(url, &Scene::new(&request, None))
    }

    #[test]
    fn the_host_is_that_of_the_arn_and_the_path_is_the_providers() {
        const PATTERN: &str = "https://sns.{aws:header:x-arn}/Simple-[a-f0-9]{1,64}.pem";
        let sns = |url: &str, partition: &str, region: &str| {
            allows(PATTERN, url, &format!("arn:{partition}:sns:{region}:123456789012:alarms"))
        };
        for (partition, region, host) in [
            ("aws", "eu-central-1", "sns.eu-central-1.amazonaws.com"),
            ("aws-us-gov", "us-gov-west-1", "sns.us-gov-west-1.amazonaws.com"),
            ("aws-cn", "cn-north-1", "sns.cn-north-1.amazonaws.com.cn"),
            ("aws-eusc", "eusc-de-east-1", "sns.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert!(sns(&format!("https://{host}/Simple-0af3.pem"), partition, region), "{host}");
        }
        for url in [
            "https://sns.evil.amazonaws.com/Simple-0af3.pem",
            "https://sns.s3.amazonaws.com/Simple-0af3.pem",
            "https://sns.us-east-1.amazonaws.com/Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com.cn/Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com.evil.example/Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com@evil.example/Simple-0af3.pem",
            "https://u@sns.eu-central-1.amazonaws.com/Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com:443/Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com./Simple-0af3.pem",
            "https://SNS.eu-central-1.amazonaws.com/Simple-0af3.pem",
            "HTTPS://sns.eu-central-1.amazonaws.com/Simple-0af3.pem",
            "http://sns.eu-central-1.amazonaws.com/Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com/x/../Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com/Simple-../0af3.pem",
            "https://sns.eu-central-1.amazonaws.com/Simple-%30af3.pem",
            "https://sns.eu-central-1.amazonaws.com/Simple-0af3.pem?x=.pem",
            "https://sns.eu-central-1.amazonaws.com/Simple-0af3.pem#.pem",
            "https://sns.eu-central-1.amazonaws.com//Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com/Simple-.pem",
            "https://sns.eu-central-1.amazonaws.com/Simple-0af3.pem ",
            "https://sns.eu-central-1.amazonaws.com\\Simple-0af3.pem",
            "https://sns.eu-central-1.amazonaws.com/",
            "",
        ] {
            assert!(!sns(url, "aws", "eu-central-1"), "{url}");
        }
        for arn in [
            "",
            "alarms",
            "arn:aws:sns:eu-central-1",
            "arn:evil:sns:r-1:1:n",
            "arn:aws:sns:a.b:1:n",
            "arn:aws:sns::1:n",
        ] {
            assert_eq!(aws_host(arn), None, "{arn}");
        }
    }

    #[test]
    fn a_pattern_leaves_no_host_open() {
        for good in ["https://a.example/", "https://a.example/c/[a-z]{1,9}", "https://a.{aws:json:/A}/?x=[a-z&=]{1,9}"]
        {
            assert!(PinnedUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.example/",
            "https://a.example",
            "https:///x",
            "https://[a-z]{1,9}.example/",
            "https://a.example:443/",
            "https://u@a.example/",
            "https://a.example?/",
            "https://a.example/[a-z]{1,9}/[a-z]{1,9}",
            "https://a.example/{json:/x}",
            "https://a.example/{aws:json:/x",
            "https://a.example/[a-z]",
        ] {
            assert!(PinnedUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(
            allows("https://a.example/c", "https://a.example/c", "")
                && !allows("https://a.example/c", "https://a.example/cc", "")
        );
    }
}
