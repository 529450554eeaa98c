//! Rows run backwards: signs a request as the provider would, with the newest key unless another one is chosen.
//!
//! Only schemes whose key is shared can be run backwards. What does not stand in a header changes
//! the body or the URL, so both come back.

use std::borrow::Cow;

use serde_json::Value;
use thiserror::Error;

use crate::{
    form::{self, Form},
    json::Pointer,
    jwt,
    key::{Algorithm, Keys},
    layout::Layout,
    locate::{Scene, Spot},
    multipart,
    request::{Headers, LongBody, Refusal, Request},
    scheme::{Expected, Scheme, SignaturePlace},
    template::{self, Found, SignedPart},
    timestamp::TimestampPlace,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Headers to set, each in place of any of the same name; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The URL; another one if the signature or a hash stands in its query.
    pub url: String,
    /// The body; another one if the signature or the timestamp stands in it.
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    #[error("the scheme signs a message id; give one")]
    IdMissing,
    #[error("only the provider has the key that signs; this scheme cannot be signed here")]
    Asymmetric,
    #[error("the request lacks something that the scheme signs: {0}")]
    Incomplete(#[from] Refusal),
    #[error("the body is not the JSON or form in which the signature stands")]
    Body,
}

struct Draft<'a> {
    given: &'a dyn Headers,
    set: Vec<(String, String)>,
    url: String,
    body: Vec<u8>,
    /// The body, where the request goes without it.
    long: Option<&'a dyn LongBody>,
    json_part: Option<&'a str>,
}

impl Headers for Draft<'_> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        match self.set.iter().find(|(key, _)| key == name) {
            Some((_, value)) => each(value.as_bytes()),
            None => self.given.for_each(name, each),
        }
    }
}

impl Draft<'_> {
    fn set_header(&mut self, name: &str, value: String) {
        self.set.retain(|(key, _)| key != name);
        self.set.push((name.to_owned(), value));
    }

    fn put(&mut self, spot: &Spot, value: &str) -> Result<(), SignError> {
        match spot {
            Spot::Header(name) => self.set_header(name, value.to_owned()),
            Spot::Query(name) => {
                let mark = if self.url.contains('?') { '&' } else { '?' };
                self.url = format!("{}{mark}{name}={}", self.url, escape(value));
            }
            Spot::Form(name) if self.boundary()?.is_some() => self.put_part(name, value.as_bytes())?,
            Spot::Form(name) => {
                let kept = form::raw_pairs(&self.body).filter(|(key, _)| *key != name.as_bytes());
                let kept = kept.map(|(key, value)| [key, b"=", value].concat());
                let pair = format!("{name}={}", escape(value)).into_bytes();
                self.body = kept.chain([pair]).collect::<Vec<_>>().join(&b'&');
            }
            Spot::Json(pointer) => match self.json_part {
                Some(part) if self.boundary()?.is_some() => {
                    let json = put_json(self.json()?, pointer, value)?;
                    self.put_part(part, &json)?;
                }
                _ => self.body = put_json(&self.body, pointer, value)?,
            },
            Spot::Setting(_) | Spot::Member(_) => {}
        }
        Ok(())
    }

    fn form(&self) -> Result<Option<Form<'_>>, SignError> {
        Form::of(&Request { method: "", url: "", headers: self, body: &self.body }).map_err(|_| SignError::Body)
    }

    /// That of a multipart form.
    fn boundary(&self) -> Result<Option<Vec<u8>>, SignError> {
        Ok(match self.form()? {
            Some(Form::Multipart(_, boundary)) => Some(boundary.to_vec()),
            Some(Form::Encoded(_)) | None => None,
        })
    }

    fn put_part(&mut self, name: &str, value: &[u8]) -> Result<(), SignError> {
        let boundary = self.boundary()?.ok_or(SignError::Body)?;
        self.body = multipart::with(&self.body, &boundary, name, value).map_err(|_| SignError::Body)?;
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.body.is_empty() && self.long.is_none()
    }

    fn body_hash(&self) -> String {
        template::body_hash(&self.long.map_or(SignedPart::Bytes(Cow::Borrowed(&self.body)), SignedPart::Long))
    }

    /// Where JSON pointers start from.
    fn json(&self) -> Result<&[u8], SignError> {
        match (self.json_part, self.form()?) {
            (Some(part), Some(Form::Multipart(body, boundary))) => {
                let found = multipart::single(body, boundary, part.as_bytes()).ok().flatten();
                found.ok_or(SignError::Body)
            }
            _ => Ok(&self.body),
        }
    }
}

pub(crate) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Sets a member, keeping a number a number.
pub(crate) fn put_json(body: &[u8], pointer: &Pointer, text: &str) -> Result<Vec<u8>, SignError> {
    let number = || text.parse::<i64>().map_or_else(|_| text.into(), Value::from);
    set_json(body, pointer, &|old| if let Some(Value::Number(_)) = old { number() } else { Value::from(text) })
}

fn set_json(body: &[u8], pointer: &Pointer, value: &dyn Fn(Option<&Value>) -> Value) -> Result<Vec<u8>, SignError> {
    let mut root: Value = serde_json::from_slice(body).map_err(|_| SignError::Body)?;
    fn put(at: &mut Value, path: &[String], value: &dyn Fn(Option<&Value>) -> Value) {
        let Some((name, rest)) = path.split_first() else {
            *at = value(Some(&*at));
            return;
        };
        match at {
            Value::Array(list) if name == "*" => list.iter_mut().for_each(|item| put(item, rest, value)),
            Value::Array(list) => {
                if let Some(item) = name.parse().ok().and_then(|index: usize| list.get_mut(index)) {
                    put(item, rest, value);
                }
            }
            Value::Object(members) => {
                put(members.entry(name.clone()).or_insert_with(|| Value::Object(Default::default())), rest, value);
            }
            other => {
                *other = Value::Object(Default::default());
                put(other, std::slice::from_ref(name), value);
            }
        }
    }
    put(&mut root, &pointer.segments, value);
    Ok(root.to_string().into_bytes())
}

impl Scheme {
    /// Signs a request with the newest key, or the one of [`Keys::signing_as`]. `id` is the message id, where the scheme signs one.
    pub fn sign(
        &self,
        keys: &Keys,
        request: &Request<'_>,
        id: Option<&str>,
        now_unix_s: i64,
    ) -> Result<Signed, SignError> {
        self.sign_with(keys, request, None, id, now_unix_s)
    }

    /// As [`Scheme::sign`], for a request whose body, if it is a `long` one, comes beside it.
    pub fn sign_with(
        &self,
        keys: &Keys,
        request: &Request<'_>,
        long: Option<&dyn LongBody>,
        id: Option<&str>,
        now_unix_s: i64,
    ) -> Result<Signed, SignError> {
        if long.is_some() && self.needs_whole_body(Some(request)) {
            return Err(SignError::Body);
        }
        let there =
            |scheme: &Self| matches!(&scheme.place, SignaturePlace::At(Spot::Header(name)) if request.has_header(name));
        let mut signed = match &self.alias {
            Some(alias) if there(alias) && !there(self) => {
                return alias.sign_alone(keys, request, long, id, now_unix_s);
            }
            _ => self.sign_alone(keys, request, long, id, now_unix_s)?,
        };
        // Two families that differ are refused.
        if let Some(alias) = self.alias.as_ref().filter(|alias| there(alias)) {
            signed.headers.extend(alias.sign_alone(keys, request, long, id, now_unix_s)?.headers);
        }
        Ok(signed)
    }

    fn sign_alone(
        &self,
        keys: &Keys,
        request: &Request<'_>,
        long: Option<&dyn LongBody>,
        id: Option<&str>,
        now_unix_s: i64,
    ) -> Result<Signed, SignError> {
        if !self.is_symmetric() {
            return Err(SignError::Asymmetric);
        }
        let url = keys.public_url().unwrap_or(request.url).to_owned();
        let mut draft = Draft {
            given: request.headers,
            set: Vec::new(),
            url,
            body: request.body.to_vec(),
            long,
            json_part: self.json_part.as_deref(),
        };
        for rule in &self.require {
            let value = match &rule.value {
                Some(Expected::OneOf(values)) => values.first(),
                Some(Expected::Setting(name)) => keys.settings(name).first(),
                Some(Expected::Url) | None => None,
            };
            if let Some(value) = value {
                draft.put(&rule.spot, value)?;
            }
        }
        if let Some(spot) = &self.id {
            draft.put(spot, id.ok_or(SignError::IdMissing)?)?;
        }
        let stamp = self.timestamp.as_ref().map(|rule| (&rule.place, rule.format.write(now_unix_s)));
        match &stamp {
            Some((TimestampPlace::At(spot), text)) => draft.put(spot, text)?,
            Some((TimestampPlace::Number(pointer), text)) => {
                let number = text.parse::<i64>().map_or(Value::Null, Value::from);
                draft.body = set_json(&draft.body, pointer, &|_| number.clone())?;
            }
            Some((TimestampPlace::Field(_), _)) | None => {}
        }
        let form = draft.form()?.is_some();
        if let (Some(spot), false, false) = (&self.body_hash, draft.is_empty(), form) {
            let hash = draft.body_hash();
            draft.put(spot, &hash)?;
        }
        let stamp = stamp.as_ref().map_or("", |(_, text)| text.as_str());
        match &self.each {
            None => {
                let value = self.signature(keys, request.method, &draft, None, stamp, id, now_unix_s)?;
                self.place_signature(&mut draft, &value, keys.lead)?;
            }
            Some(each) => self.sign_items(keys, request.method, &mut draft, each)?,
        }
        Ok(Signed { headers: draft.set, url: draft.url, body: draft.body })
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one draft")]
    fn signature(
        &self,
        keys: &Keys,
        method: &str,
        draft: &Draft<'_>,
        json: Option<&[u8]>,
        stamp: &str,
        id: Option<&str>,
        now: i64,
    ) -> Result<String, SignError> {
        let request = Request { method, url: &draft.url, headers: draft, body: &draft.body };
        let scene = Scene {
            request: &request,
            url: &draft.url,
            json: json.map_or_else(|| draft.json(), Ok)?,
            long: draft.long,
            keys: Some(keys),
        };
        let key = keys.lead().ok_or(Refusal::SecretMissing)?;
        let own = self.prefixes.iter().find(|(_, algorithm)| *algorithm == self.algorithm);
        let prefix = match (&self.layout, own) {
            (_, Some((prefix, _))) | (Layout::Single { prefix }, None) => prefix.as_str(),
            (Layout::List { .. }, None) => "",
        };
        if self.algorithm.is_jwt() {
            return Ok(format!("{prefix}{}", jwt::sign(self, keys, &scene, now)?));
        }
        if self.algorithm.is_token() {
            let token = match self.algorithm {
                Algorithm::Basic => Cow::Owned(data_encoding::BASE64.encode(key.text())),
                _ => String::from_utf8_lossy(key.text()),
            };
            return Ok(format!("{prefix}{token}"));
        }
        let found = Found { timestamp: stamp.as_bytes(), id: id.unwrap_or_default().as_bytes(), ..Found::default() };
        let parts = template::render(&self.template, &scene, found)?;
        let text = self.encoding.encode(key.sign(&parts, &draft.url).bytes());
        Ok(match &self.layout {
            Layout::Single { .. } => format!("{prefix}{text}"),
            Layout::List { pair: None, .. } => text,
            Layout::List { items, pair: Some(pair), fields } => {
                let setting = self.field_setting.as_ref().and_then(|name| keys.settings(name).first());
                let field = setting.or(fields.first()).map_or("", String::as_str);
                let signed = format!("{field}{pair}{text}");
                match self.timestamp.as_ref().map(|rule| &rule.place) {
                    Some(TimestampPlace::Field(name)) => format!("{name}{pair}{stamp}{items}{signed}"),
                    _ => signed,
                }
            }
        })
    }

    fn place_signature(&self, draft: &mut Draft<'_>, value: &str, key: usize) -> Result<(), SignError> {
        let spot = match &self.place {
            SignaturePlace::At(spot) => spot.clone(),
            SignaturePlace::Numbered(name) => Spot::Header(format!("{name}1")),
            SignaturePlace::AnyHeader(names) => Spot::Header(names.first().cloned().unwrap_or_default()),
            SignaturePlace::PerKey(names) => {
                Spot::Header(names.get(key).or(names.first()).cloned().unwrap_or_default())
            }
        };
        draft.put(&spot, value)
    }

    fn sign_items(&self, keys: &Keys, method: &str, draft: &mut Draft<'_>, each: &Pointer) -> Result<(), SignError> {
        let SignaturePlace::At(Spot::Json(inside)) = &self.place else { return Err(SignError::Body) };
        let items = crate::json::find(&draft.body, each).map_err(|_| SignError::Body)?;
        let items: Vec<Vec<u8>> = items.into_iter().map(|item| item.get().as_bytes().to_vec()).collect();
        for (index, item) in items.iter().enumerate() {
            let value = self.signature(keys, method, draft, Some(item), "", None, 0)?;
            let whole = format!("{}{}", each.text.replacen('*', &index.to_string(), 1), inside.text);
            let pointer = Pointer::parse(&whole).ok_or(SignError::Body)?;
            draft.body = put_json(&draft.body, &pointer, &value)?;
        }
        Ok(())
    }
}
