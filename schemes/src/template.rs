//! The signed text as a template, and its pieces filled in from a request.
//!
//! The body is never copied here: pieces are borrowed where they stand in the request.

use std::borrow::Cow;

use hmac::digest::Update;
use sha2::{Digest as _, Sha256};

use crate::{
    form::{self, Form},
    json::{self, Pointer},
    key::Digest,
    locate::{Scene, Spot, Unreadable},
    request::{LongBody, Refusal, Request},
    url,
};

/// Most header names that a request may list as signed.
const MAX_SIGNED_HEADERS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Body,
    /// The body; of a form, one decoded field.
    BodyOrForm(String),
    BodyHash,
    /// The body's CRC-32 in decimal.
    BodyCrc,
    Timestamp,
    Id,
    Url,
    UrlWithoutQuery,
    Method,
    Path,
    Query,
    Secret,
    /// The MAC of a handshake's answer.
    Mac,
    /// The configured token of a handshake.
    VerifyToken,
    /// A place; one that is not there is empty if `optional`.
    At {
        spot: Spot,
        optional: bool,
    },
    /// The form's parameters, sorted, without anything between them.
    FormSorted,
    /// `Name\nvalue\n` of JSON members, those with `?` only if they are there.
    JsonLines(Vec<(String, Pointer, bool)>),
    /// `name:value;…` of the headers that a header lists.
    SignedHeaders(String),
    /// The path and query, escaped once more.
    CanonicalPath,
    /// The query sorted, without one parameter.
    CanonicalQuery(String),
    /// The URL with its query sorted, and the sorted form after a dot.
    UrlAndForm,
}

#[derive(Clone)]
pub(crate) enum SignedPart<'a> {
    Bytes(Cow<'a, [u8]>),
    Long(&'a dyn LongBody),
    Url,
    Secret,
}

impl SignedPart<'_> {
    /// Its bytes in one piece, where `url` was signed under a key whose text is `secret`; `None` of a long body.
    pub(crate) fn text<'t>(&'t self, url: &'t str, secret: &'t [u8]) -> Option<&'t [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Long(_) => None,
            Self::Url => Some(url.as_bytes()),
            Self::Secret => Some(secret),
        }
    }

    pub(crate) fn for_each(&self, url: &str, secret: &[u8], each: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Long(body) => body.for_each(each),
            part => part.text(url, secret).into_iter().for_each(each),
        }
    }

    pub(crate) fn hash(&self, hash: &mut impl Update, url: &str, secret: &[u8]) {
        self.for_each(url, secret, &mut |piece| hash.update(piece));
    }
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Found<'a> {
    pub(crate) timestamp: &'a [u8],
    pub(crate) id: &'a [u8],
    pub(crate) mac: &'a [u8],
    pub(crate) verify_token: Option<&'a [u8]>,
}

/// Reads a template; `{{` and `}}` stand for braces.
pub(crate) fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
            plain.push(next);
            rest = after;
        } else if next == '{' {
            let (name, after) = rest[1..].split_once('}').ok_or("a { without its }")?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece(name).ok_or_else(|| format!("{{{name}}} is not known; {KNOWN}"))?);
            rest = after;
        } else {
            plain.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

const KNOWN: &str = "there are {body}, {timestamp}, {id}, {url}, {url_without_query}, {method}, {path}, {query}, {secret}, {header:NAME}, \
                     {json:/POINTER}, {form:NAME}, {query:NAME}, {setting:NAME}, {form_sorted}, {body_or_form:NAME}, \
                     {body_sha256}, {body_crc32}, {json_lines:A,B?}, {signed_headers:NAME}, {canonical_path}, \
                     {canonical_query:EXCEPT}, {url_and_form}";

fn piece(name: &str) -> Option<Piece> {
    Some(match name {
        "body" => Piece::Body,
        "timestamp" => Piece::Timestamp,
        "id" => Piece::Id,
        "url" => Piece::Url,
        "url_without_query" => Piece::UrlWithoutQuery,
        "method" => Piece::Method,
        "path" => Piece::Path,
        "query" => Piece::Query,
        "secret" => Piece::Secret,
        "mac" => Piece::Mac,
        "verify_token" => Piece::VerifyToken,
        "form_sorted" => Piece::FormSorted,
        "body_sha256" => Piece::BodyHash,
        "body_crc32" => Piece::BodyCrc,
        "canonical_path" => Piece::CanonicalPath,
        "url_and_form" => Piece::UrlAndForm,
        _ => match name.split_once(':')? {
            ("body_or_form", field) if !field.is_empty() => Piece::BodyOrForm(field.to_owned()),
            ("signed_headers", header) => match Spot::parse(&format!("header:{header}"))? {
                Spot::Header(name) => Piece::SignedHeaders(name),
                _ => return None,
            },
            ("canonical_query", except) => Piece::CanonicalQuery(except.to_owned()),
            ("json_lines", names) => Piece::JsonLines(
                names
                    .split(',')
                    .map(|name| {
                        let (name, optional) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
                        Some((name.to_owned(), Pointer::parse(&format!("/{name}"))?, optional))
                    })
                    .collect::<Option<_>>()?,
            ),
            (kind, place) => {
                let (kind, optional) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
                Piece::At { spot: Spot::parse(&format!("{kind}:{place}"))?, optional }
            }
        },
    })
}

impl Piece {
    pub(crate) fn needs_body(&self) -> bool {
        match self {
            Self::Body | Self::BodyOrForm(_) | Self::BodyHash | Self::BodyCrc => true,
            Self::FormSorted | Self::JsonLines(_) | Self::UrlAndForm => true,
            Self::At { spot, .. } => spot.in_body(),
            _ => false,
        }
    }
}

pub(crate) fn render<'a>(
    pieces: &'a [Piece],
    scene: &Scene<'a>,
    found: Found<'a>,
) -> Result<Vec<SignedPart<'a>>, Refusal> {
    let mut parts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        parts.push(match piece {
            Piece::Url => SignedPart::Url,
            Piece::Secret => SignedPart::Secret,
            Piece::Body => scene.body(),
            Piece::BodyOrForm(_) if form_of(scene.request)?.is_none() => scene.body(),
            piece => SignedPart::Bytes(fill(piece, scene, found)?),
        });
    }
    Ok(parts)
}

/// Fills a template in whose URL and secret are of no concern, as one text.
pub(crate) fn render_text(pieces: &[Piece], scene: &Scene<'_>, found: Found<'_>) -> Result<Vec<u8>, Refusal> {
    let mut text = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Url => text.extend_from_slice(scene.url.as_bytes()),
            piece => text.extend_from_slice(&fill(piece, scene, found)?),
        }
    }
    Ok(text)
}

/// The SHA-256 of a template that is filled in, whose secret is of no concern.
pub(crate) fn render_digest(pieces: &[Piece], scene: &Scene<'_>) -> Result<Digest, Refusal> {
    let mut hash = Sha256::new();
    render(pieces, scene, Found::default())?.iter().for_each(|part| part.hash(&mut hash, scene.url, &[]));
    Ok(Digest::new(&hash.finalize()))
}

fn fill<'a>(piece: &'a Piece, scene: &Scene<'a>, found: Found<'a>) -> Result<Cow<'a, [u8]>, Refusal> {
    let request = scene.request;
    Ok(match piece {
        Piece::Text(text) => Cow::Borrowed(text.as_bytes()),
        Piece::Body => Cow::Borrowed(request.body),
        Piece::BodyOrForm(field) => match form_of(request)? {
            Some(form) => form.single(field).ok().flatten().ok_or(Refusal::BodyMalformed)?,
            None => Cow::Borrowed(request.body),
        },
        Piece::BodyHash => Cow::Owned(body_hash(&scene.body()).into_bytes()),
        Piece::BodyCrc => Cow::Owned(body_crc(&scene.body()).to_string().into_bytes()),
        Piece::Timestamp => Cow::Borrowed(found.timestamp),
        Piece::Id => Cow::Borrowed(found.id),
        Piece::Mac => Cow::Borrowed(found.mac),
        Piece::VerifyToken => Cow::Borrowed(found.verify_token.ok_or(Refusal::PartMissing)?),
        Piece::Url | Piece::Secret => Cow::Borrowed(&[]),
        Piece::UrlWithoutQuery => Cow::Borrowed(scene.url.split_once('?').map_or(scene.url, |(url, _)| url).as_bytes()),
        Piece::Method => Cow::Borrowed(request.method.as_bytes()),
        Piece::Path => Cow::Borrowed(url::split(scene.url).path.as_bytes()),
        Piece::Query => Cow::Owned(url::split(&scene.url_with_query()).query.as_bytes().to_vec()),
        Piece::CanonicalPath => Cow::Owned(url::canonical_path(&scene.url_with_query()).into_bytes()),
        Piece::CanonicalQuery(except) => Cow::Owned(url::canonical_query(&scene.url_with_query(), except).into_bytes()),
        Piece::At { spot, optional } => match spot.read(scene) {
            Ok(Some(value)) => value,
            Ok(None) if *optional => Cow::Borrowed(&[]),
            Ok(None) => return Err(Refusal::PartMissing),
            Err(Unreadable::Malformed) => return Err(Refusal::BodyMalformed),
            Err(Unreadable::Doubled) if spot.in_body() => return Err(Refusal::BodyMalformed),
            Err(Unreadable::Doubled) => return Err(Refusal::PartMissing),
        },
        Piece::FormSorted => match form_of(request)? {
            Some(form) => Cow::Owned(form::sorted(form.fields().map_err(|_| Refusal::BodyMalformed)?)),
            None => Cow::Borrowed(&[]),
        },
        Piece::JsonLines(names) => Cow::Owned(json_lines(names, scene.json)?),
        Piece::SignedHeaders(header) => Cow::Owned(signed_headers(scene, header)?),
        Piece::UrlAndForm => Cow::Owned(url_and_form(scene).ok_or(Refusal::BodyMalformed)?),
    })
}

fn form_of<'a>(request: &Request<'a>) -> Result<Option<Form<'a>>, Refusal> {
    Form::of(request).map_err(|_| Refusal::BodyMalformed)
}

pub(crate) fn body_hash(body: &SignedPart<'_>) -> String {
    let mut hash = Sha256::new();
    body.hash(&mut hash, "", &[]);
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

fn body_crc(body: &SignedPart<'_>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    body.for_each("", &[], &mut |piece| crc.update(piece));
    crc.finalize()
}

fn json_lines(names: &[(String, Pointer, bool)], text: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut lines = Vec::new();
    for (name, pointer, optional) in names {
        let found = json::find(text, pointer).map_err(|_| Refusal::BodyMalformed)?;
        match found.first().and_then(|value| json::text_of(value)) {
            Some(value) => {
                lines.extend_from_slice(name.as_bytes());
                lines.push(b'\n');
                lines.extend_from_slice(&value);
                lines.push(b'\n');
            }
            None if *optional => {}
            None => return Err(Refusal::PartMissing),
        }
    }
    Ok(lines)
}

fn signed_headers(scene: &Scene<'_>, header: &str) -> Result<Vec<u8>, Refusal> {
    let list = scene.request.header(header).ok().flatten().ok_or(Refusal::PartMissing)?;
    let list = str::from_utf8(list).map_err(|_| Refusal::PartMissing)?;
    let mut lines = Vec::new();
    for name in list.split(',').map(|name| name.trim().to_ascii_lowercase()) {
        if lines.len() == MAX_SIGNED_HEADERS {
            return Err(Refusal::PartMissing);
        }
        let value = scene.request.header(&name).ok().flatten().ok_or(Refusal::PartMissing)?;
        lines.push([name.as_bytes(), b":", value].concat());
    }
    lines.sort();
    Ok(lines.join(&b';'))
}

fn url_and_form(scene: &Scene<'_>) -> Option<Vec<u8>> {
    let url = scene.url_with_query();
    let parts = url::split(&url);
    let query = form::sorted_pairs(form::bounded(form::pairs(parts.query.as_bytes()))?, "=", "&");
    let fields = match Form::of(scene.request).ok()? {
        Some(form) => form::sorted_pairs(form.fields().ok()?, "", ""),
        None => Vec::new(),
    };
    let mut out = format!("{}://{}{}", parts.scheme, parts.authority, parts.path).into_bytes();
    if !query.is_empty() || !fields.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&query);
    }
    if !query.is_empty() && !fields.is_empty() {
        out.push(b'.');
    }
    out.extend_from_slice(&fields);
    Some(out)
}
