//! Where something stands in a request: a header, a JSON member, a form field, the query.
//!
//! Invariant: a place that is there twice is never guessed at.

use std::borrow::Cow;

use crate::{
    form::{self, Form},
    json::{self, Pointer},
    key::Keys,
    multipart,
    request::{Doubled, LongBody, Request},
    template::SignedPart,
    url,
};

/// Longest value that is read from a header, form field or query for an id or a type.
const MAX_META: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// A header of this lower-case name.
    Header(String),
    Json(Pointer),
    /// A field of a form, urlencoded or multipart.
    Form(String),
    Query(String),
    /// A value from the endpoint's configuration.
    Setting(String),
    /// The name of the first member of the JSON object that is not this (`!name`) or ends so (`*end`).
    Member(String),
}

/// Why a place could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It, or a member on the way to it, is there more than once, or too many values were found.
    Doubled,
    /// The body is not JSON.
    Malformed,
}

impl From<Doubled> for Unreadable {
    fn from(Doubled: Doubled) -> Self {
        Self::Doubled
    }
}

/// A request with what the endpoint knows about it.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) request: &'a Request<'a>,
    /// The URL that counts: the configured one, else the one that was seen.
    pub(crate) url: &'a str,
    /// The JSON that pointers start from: the body, or an item of it.
    pub(crate) json: &'a [u8],
    /// The body, where the request goes without it.
    pub(crate) long: Option<&'a dyn LongBody>,
    pub(crate) keys: Option<&'a Keys>,
}

impl<'a> Scene<'a> {
    pub(crate) fn new(request: &'a Request<'a>, keys: Option<&'a Keys>) -> Self {
        let url = keys.and_then(|keys| keys.public_url()).unwrap_or(request.url);
        Self { request, url, json: request.body, long: None, keys }
    }

    pub(crate) fn body(&self) -> SignedPart<'a> {
        self.long.map_or(SignedPart::Bytes(Cow::Borrowed(self.request.body)), SignedPart::Long)
    }

    /// Of a multipart form, the JSON stands in this part. Where that cannot be read, there is none.
    pub(crate) fn json_in(self, part: Option<&str>) -> Self {
        let Some(name) = part else { return self };
        let json = match Form::of(self.request) {
            Ok(Some(form @ Form::Multipart(..))) => form.single(name).ok().flatten(),
            Ok(_) => return self,
            Err(multipart::Malformed) => None,
        };
        let json: &[u8] = if let Some(Cow::Borrowed(json)) = json { json } else { &[] };
        Self { json, ..self }
    }

    /// The URL that counts, with the request's query if it has none of its own: what a provider
    /// signs that adds a query to the URL that was registered.
    pub(crate) fn url_with_query(&self) -> Cow<'a, str> {
        let seen = url::split(self.request.url);
        match seen.has_query && !self.url.contains('?') {
            true => Cow::Owned(format!("{}?{}", self.url, seen.query)),
            false => Cow::Borrowed(self.url),
        }
    }
}

impl Spot {
    /// Reads `header:NAME`, `json:/POINTER`, `form:NAME`, `query:NAME`, `setting:NAME`, `member:NAME`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        if kind == "json" {
            return Pointer::parse(name).map(Self::Json);
        }
        if name.is_empty() {
            return None;
        }
        match kind {
            "header" if is_header_name(name) => Some(Self::Header(name.to_ascii_lowercase())),
            "form" => Some(Self::Form(name.to_owned())),
            "query" => Some(Self::Query(name.to_owned())),
            "setting" => Some(Self::Setting(name.to_owned())),
            "member" => Some(Self::Member(name.to_owned())),
            _ => None,
        }
    }

    /// Whether the body has to be there to read it.
    pub(crate) fn in_body(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Form(_) | Self::Member(_))
    }

    /// The value, `None` if it is not there.
    pub(crate) fn read<'a>(&self, scene: &Scene<'a>) -> Result<Option<Cow<'a, [u8]>>, Unreadable> {
        Ok(match self {
            Self::Header(name) => scene.request.header(name)?.map(Cow::Borrowed),
            Self::Form(name) => match Form::of(scene.request)? {
                Some(form) => form.single(name)?,
                // A body that does not say what it is may be one.
                None if !scene.request.has_header("content-type") => Form::Encoded(scene.request.body).single(name)?,
                None => None,
            },
            Self::Query(name) => form::single(url::split(scene.request.url).query.as_bytes(), name)?.map(Cow::Owned),
            Self::Setting(name) => {
                let value = scene.keys.and_then(|keys| keys.settings(name).first());
                value.map(|value| Cow::Owned(value.clone().into_bytes()))
            }
            Self::Json(pointer) => {
                let found = json::find(scene.json, pointer)?;
                match found.as_slice() {
                    [] => None,
                    [value] => json::text_of(value),
                    // A wildcard may find many; they are one value only if they are all the same.
                    [first, rest @ ..] => {
                        let value = json::text_of(first);
                        if rest.iter().any(|other| json::text_of(other) != value) {
                            return Err(Unreadable::Doubled);
                        }
                        value
                    }
                }
            }
            Self::Member(pattern) => {
                let names = json::member_names(scene.json, 64).ok_or(Unreadable::Malformed)?;
                let fits = |name: &String| match (pattern.strip_prefix('!'), pattern.strip_prefix('*')) {
                    (Some(other), _) => name != other,
                    (_, Some(end)) => name.ends_with(end),
                    _ => name == pattern,
                };
                names.into_iter().find(fits).map(|name| Cow::Owned(name.into_bytes()))
            }
        })
    }
}

pub(crate) fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

/// Whether there is a control character in a text.
fn has_control(text: &str) -> bool {
    // Those beyond ASCII, U+0080 to U+009F, all begin with this byte.
    let may_be = |byte: u8| byte.is_ascii_control() || byte == 0xc2;
    // To the end, whatever is found: so the compiler makes steps of many bytes of it.
    text.bytes().fold(false, |found, byte| found | may_be(byte)) && text.chars().any(char::is_control)
}

/// Where an event's id or type stands: alternatives (` | `) of parts joined by colons (` + `).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    alternatives: Vec<Vec<Spot>>,
}

impl Locator {
    /// Reads one, such as `header:x-id` or `json:/data/id`; `None` where the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let part = |text: &str| Spot::parse(text.trim());
        let whole = |text: &str| text.split(" + ").map(part).collect::<Option<Vec<_>>>();
        Some(Self { alternatives: text.split(" | ").map(whole).collect::<Option<_>>()? })
    }

    /// The place that is looked at first, if it alone decides.
    #[cfg(feature = "samples")]
    pub(crate) fn only_spot(&self) -> Option<&Spot> {
        match self.alternatives.first()?.as_slice() {
            [spot] => Some(spot),
            _ => None,
        }
    }

    /// Whether the body has to be there to read it.
    pub fn in_body(&self) -> bool {
        self.alternatives.iter().flatten().any(Spot::in_body)
    }

    /// What stands there in a request, at most 256 bytes of printable text.
    pub fn find(&self, request: &Request<'_>) -> Option<String> {
        self.read(&Scene::new(request, None), false)
    }

    /// The value, at most 256 bytes of printable text. `first` takes the first of several events.
    pub(crate) fn read(&self, scene: &Scene<'_>, first: bool) -> Option<String> {
        let part = |spot: &Spot| match spot {
            Spot::Json(pointer) if pointer.has_wildcard() => {
                let found = json::find(scene.json, pointer).ok()?;
                let value = if first || found.len() == 1 { found.first()? } else { return None };
                json::text_of(value)
            }
            spot => spot.read(scene).ok()?,
        };
        self.alternatives.iter().find_map(|parts| {
            let text = match parts.as_slice() {
                [only] => part(only)?.into_owned(),
                parts => parts.iter().map(part).collect::<Option<Vec<_>>>()?.join(&b':'),
            };
            let text = String::from_utf8(text).ok()?;
            let good = !text.is_empty() && text.len() <= MAX_META && !has_control(&text);
            good.then_some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_character_is_found_and_nothing_else() {
        for letter in (0..0x3000).filter_map(char::from_u32) {
            assert_eq!(has_control(&format!("a{letter}é")), letter.is_control(), "{:?}", letter);
        }
    }
}
