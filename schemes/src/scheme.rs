//! How a provider signs, as data: what a checked row says. The engine reads it both ways.

use crate::{
    form::Form,
    json::Pointer,
    key::{Algorithm, Keys, Material, SecretError, SecretForm},
    layout::{Encoding, Layout},
    locate::Spot,
    pinned::{self, PinnedUrl},
    request::Request,
    secret::Secret,
    shape::Shape,
    template::Piece,
    timestamp::Timestamp,
    url::UrlVariant,
};

#[derive(Clone, Debug)]
pub struct Scheme {
    pub(crate) algorithm: Algorithm,
    /// The algorithm by a value of the request, only among those that the row lists.
    pub(crate) algorithms: Option<(Spot, Vec<(String, Algorithm)>)>,
    pub(crate) secret: SecretForm,
    pub(crate) secret_suffix: String,
    pub(crate) template: Vec<Piece>,
    pub(crate) place: SignaturePlace,
    pub(crate) layout: Layout,
    /// The setting that names the list's signatures, in place of the layout's own names.
    pub(crate) field_setting: Option<String>,
    pub(crate) encoding: Encoding,
    /// Algorithms by the prefix of the signature; none where the row has one algorithm.
    pub(crate) prefixes: Vec<(String, Algorithm)>,
    pub(crate) envelope: Option<Envelope>,
    pub(crate) key_at: Option<KeyAt>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) id: Option<Spot>,
    /// A part of what is signed that is another one in each request.
    pub(crate) nonce: Option<Spot>,
    pub(crate) require: Vec<Requirement>,
    /// Every item that the pointer finds is signed for itself.
    pub(crate) each: Option<Pointer>,
    pub(crate) url_variants: Vec<UrlVariant>,
    /// A hash of a body that is not a form stands here.
    pub(crate) body_hash: Option<Spot>,
    pub(crate) claims: Claims,
    /// What challenges look like whose text strangers choose: whoever asks has the signature of any such text.
    pub(crate) challenges: Vec<Shape>,
    /// Where the body is a multipart form, its JSON stands in this part.
    pub(crate) json_part: Option<String>,
    /// The same scheme under other header names, used where this one's signature header is not there.
    pub(crate) alias: Option<Box<Scheme>>,
}

#[derive(Clone, Debug)]
pub(crate) enum SignaturePlace {
    At(Spot),
    AnyHeader(Vec<String>),
    /// This name followed by 1, 2, 3 …
    Numbered(String),
    /// The n-th header belongs to the n-th key.
    PerKey(Vec<String>),
}

impl SignaturePlace {
    pub(crate) fn headers(&self) -> Vec<&str> {
        match self {
            Self::At(Spot::Header(name)) => vec![name],
            Self::AnyHeader(names) | Self::PerKey(names) => names.iter().map(String::as_str).collect(),
            Self::At(_) | Self::Numbered(_) => Vec::new(),
        }
    }
}

/// The value is base64 of JSON in which the signature and the key's id stand.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) signature: Pointer,
    pub(crate) key: Pointer,
    pub(crate) equal: Vec<(Pointer, String)>,
}

/// Where the request names its key or certificate, and from where that may come.
#[derive(Clone, Debug)]
pub(crate) struct KeyAt {
    pub(crate) spot: Spot,
    pub(crate) url: Option<PinnedUrl>,
}

/// Something that must be there, once, with one of certain values if there are any.
#[derive(Clone, Debug)]
pub(crate) struct Requirement {
    pub(crate) spot: Spot,
    pub(crate) value: Option<Expected>,
}

#[derive(Clone, Debug)]
pub(crate) enum Expected {
    OneOf(Vec<String>),
    Setting(String),
    Url,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    pub(crate) equal: Vec<(String, Expected)>,
    pub(crate) verified: Vec<String>,
    /// A claim that is the hex SHA-256 of a text.
    pub(crate) hash: Option<(String, Vec<Piece>)>,
    pub(crate) expires: bool,
    pub(crate) max_age_s: Option<i64>,
    pub(crate) leeway_s: i64,
}

/// What a right signature says about a request that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureScope {
    /// It covers time and body: whatever carries it is this request.
    Request,
    /// It is made for one request, and leaves something of its body open: who has seen it can give it another body.
    Occasion,
    /// Another request may rightly carry the same one.
    Open,
}

/// Which key a request names that whoever holds the keys may have to fetch first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedKey {
    Id(String),
    /// An https URL that the row allows.
    Url(String),
}

impl Scheme {
    /// Keys from what the endpoint knows, built once.
    pub fn keys_from(&self, material: &Material) -> Result<Keys, SecretError> {
        for name in self.settings() {
            if material.settings.get(name).is_none_or(|values| values.iter().all(String::is_empty)) {
                return Err(SecretError::Setting(name.to_owned()));
            }
        }
        for (name, values) in self.arn_settings().filter_map(|name| material.settings.get_key_value(name)) {
            if let Some(wrong) = values.iter().find(|value| pinned::aws_host(value).is_none()) {
                return Err(SecretError::Arn { name: name.clone(), value: wrong.clone() });
            }
        }
        let several = !self.prefixes.is_empty();
        Keys::new(self.algorithm, self.secret, &self.secret_suffix, several, material)
    }

    pub fn keys(&self, secrets: &[Secret]) -> Result<Keys, SecretError> {
        self.keys_from(&Material::secrets(secrets))
    }

    /// Whether what is signed, or hashed in a claim, has such a piece.
    fn signs(&self, wanted: impl Fn(&Piece) -> bool) -> bool {
        self.template.iter().chain(self.claims.hash.iter().flat_map(|(_, template)| template)).any(wanted)
    }

    /// Whether the whole body must be there before the request can be checked.
    pub fn covers_body(&self) -> bool {
        self.signs(Piece::needs_body)
            || self.each.is_some()
            || self.body_hash.is_some()
            || self.scope() == SignatureScope::Occasion
            || matches!(&self.place, SignaturePlace::At(spot) if spot.in_body())
            || self.require.iter().any(|rule| rule.spot.in_body())
            || self.key_at.as_ref().is_some_and(|key| key.spot.in_body())
            || self.timestamp.as_ref().is_some_and(|stamp| stamp.place.in_body())
    }

    /// Whether something has to be found inside of the body of a request, or its signature takes no less than all of it
    /// at once; else the body may come as a [`LongBody`](crate::LongBody). Without a request: of any.
    pub fn needs_whole_body(&self, request: Option<&Request<'_>>) -> bool {
        let Some(request) = request else {
            return self.looks_into_body(None) || self.alias.as_ref().is_some_and(|alias| alias.needs_whole_body(None));
        };
        self.family(request).looks_into_body(Some(request))
    }

    fn looks_into_body(&self, request: Option<&Request<'_>>) -> bool {
        let looks = |piece: &Piece| match piece {
            Piece::BodyOrForm(_) => !request.is_some_and(|request| matches!(Form::of(request), Ok(None))),
            Piece::FormSorted | Piece::JsonLines(_) | Piece::UrlAndForm => true,
            Piece::At { spot, .. } => spot.in_body(),
            _ => false,
        };
        let spots = [&self.id, &self.nonce, &self.body_hash].into_iter().flatten();
        let mut algorithms = self.algorithms.iter().flat_map(|(_, known)| known).map(|(_, algorithm)| *algorithm);
        // These take a text, and no hash of one.
        let by_text = self.algorithm == Algorithm::Ed25519
            || algorithms.any(|algorithm| algorithm == Algorithm::Ed25519)
            || (self.secret == SecretForm::Jwks && !self.algorithm.is_jwt());
        self.signs(looks)
            || self.each.is_some()
            || matches!(&self.place, SignaturePlace::At(spot) if spot.in_body())
            || spots.chain(self.require.iter().map(|rule| &rule.spot)).any(Spot::in_body)
            || self.key_at.as_ref().is_some_and(|key| key.spot.in_body())
            || self.timestamp.as_ref().is_some_and(|stamp| stamp.place.in_body())
            || (by_text && self.template.iter().any(|piece| matches!(piece, Piece::Body | Piece::BodyOrForm(_))))
    }

    /// Whether the signature covers every byte of the body; if not, a body can be changed unseen.
    pub fn protects_body(&self) -> bool {
        let whole = |piece: &Piece| {
            matches!(piece, Piece::Body | Piece::BodyHash | Piece::BodyCrc | Piece::BodyOrForm(_))
                || matches!(piece, Piece::FormSorted | Piece::UrlAndForm)
        };
        !self.algorithm.is_token() && self.signs(whole)
    }

    /// Whether the signature covers every body, whatever its type says.
    pub(crate) fn signs_whole_body(&self) -> bool {
        self.signs(|piece| matches!(piece, Piece::Body | Piece::BodyHash))
    }

    /// Whether a signature that comes again is a request that comes again. What is doubtful is [`SignatureScope::Open`].
    pub fn scope(&self) -> SignatureScope {
        if self.algorithm.is_jwt() {
            // Many messages travel under one token, unless it names the body.
            return if self.signs_whole_body() { SignatureScope::Request } else { SignatureScope::Open };
        }
        let dated = self.timestamp.as_ref().is_some_and(|stamp| {
            self.template.contains(&Piece::Timestamp) || (stamp.place.in_body() && self.signs_whole_body())
        });
        if !dated || self.algorithm.is_token() || self.each.is_some() {
            return SignatureScope::Open;
        }
        let once = |piece: &Piece| match piece {
            Piece::Id | Piece::BodyOrForm(_) => true,
            Piece::At { spot, .. } => Some(spot) == self.nonce.as_ref(),
            _ => false,
        };
        match (self.signs_whole_body(), self.template.iter().any(once)) {
            (true, _) => SignatureScope::Request,
            (false, true) => SignatureScope::Occasion,
            (false, false) => SignatureScope::Open,
        }
    }

    /// Whether the signature covers the URL, so that it has to be known as the provider writes it.
    pub fn covers_url(&self) -> bool {
        self.signs(|piece| {
            matches!(piece, Piece::Url | Piece::Path | Piece::Query | Piece::CanonicalPath)
                || matches!(piece, Piece::CanonicalQuery(_) | Piece::UrlAndForm)
        }) || self.claims.equal.iter().any(|(_, value)| matches!(value, Expected::Url))
    }

    /// Whether a late delivery can be signed afresh and `send` can play the provider.
    pub fn is_symmetric(&self) -> bool {
        self.algorithm.is_symmetric() && self.algorithms.is_none()
    }

    /// How far a timestamp may be from now, into the past and the future, in seconds.
    pub fn tolerance_s(&self) -> Option<(i64, i64)> {
        self.timestamp.as_ref().map(|stamp| (stamp.past_s, stamp.future_s))
    }

    /// The names of the settings that an endpoint must give.
    pub fn settings(&self) -> Vec<&str> {
        let expected = self.require.iter().filter_map(|rule| rule.value.as_ref());
        let mut names: Vec<&str> = expected
            .chain(self.claims.equal.iter().map(|(_, value)| value))
            .filter_map(|value| if let Expected::Setting(name) = value { Some(name.as_str()) } else { None })
            .chain(self.field_setting.as_deref())
            .chain(self.template.iter().filter_map(|piece| match piece {
                Piece::At { spot: Spot::Setting(name), optional: false } => Some(name.as_str()),
                _ => None,
            }))
            .collect();
        names.dedup();
        names
    }

    /// The settings whose ARNs say from which host keys come.
    fn arn_settings(&self) -> impl Iterator<Item = &String> {
        let at = self.key_at.as_ref().and_then(|at| at.url.as_ref()).and_then(PinnedUrl::arn);
        self.require.iter().filter(move |rule| Some(&rule.spot) == at).filter_map(|rule| match &rule.value {
            Some(Expected::Setting(name)) => Some(name),
            _ => None,
        })
    }

    /// Whether a URL whose host is that of an ARN takes one that the endpoint's owner has set.
    pub(crate) fn pins(&self, url: &PinnedUrl) -> bool {
        let set = |spot: &Spot| {
            let rules = self.require.iter().filter(|rule| rule.spot == *spot);
            rules.filter_map(|rule| rule.value.as_ref()).any(|value| matches!(value, Expected::Setting(_)))
        };
        url.arn().is_none_or(set)
    }

    /// Whether requests name their keys by [`NamedKey::Url`], so that a key may have to be fetched for one.
    pub fn names_keys_by_url(&self) -> bool {
        self.key_at.as_ref().is_some_and(|at| at.url.is_some())
            || self.alias.as_ref().is_some_and(|alias| alias.names_keys_by_url())
    }

    /// Refuses what could have been signed as a challenge, in this scheme and under its other header names.
    pub(crate) fn refuse_challenges(&mut self, shapes: &[Shape]) {
        self.challenges = shapes.to_vec();
        if let Some(alias) = &mut self.alias {
            alias.refuse_challenges(shapes);
        }
    }

    /// The scheme under the header names that the request has.
    pub(crate) fn family(&self, request: &Request<'_>) -> &Self {
        let here = match &self.place {
            SignaturePlace::At(Spot::Header(name)) => request.has_header(name),
            _ => true,
        };
        match &self.alias {
            Some(alias) if !here => alias,
            _ => self,
        }
    }
}
