//! Checks a request against a row.
//!
//! Invariants: every key is tried against every candidate, whatever matched before; age is judged
//! only once the signature is known to be right; work is bounded by the body's length times the
//! number of keys and URL variants.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};
use subtle::Choice;

use crate::{
    form::Form,
    json::{self, Pointer},
    jwt,
    key::{Algorithm, Digest, Keys},
    layout::{Candidate, Claimed, Encoding, Layout, MAX_CANDIDATES},
    locate::{Scene, Spot, Unreadable},
    public::{Message, PublicKey},
    request::{Fingerprint, LongBody, Refusal, Request, Verified},
    scheme::{Envelope, Expected, KeyAt, NamedKey, Requirement, Scheme, SignaturePlace},
    shape::{self, Shape},
    template::{self, Found, SignedPart},
    timestamp::TimestampPlace,
    url,
};

impl Scheme {
    /// Checks a request that arrived at `now_unix_s`.
    pub fn verify(&self, keys: &Keys, request: &Request<'_>, now_unix_s: i64) -> Result<Verified, Refusal> {
        self.verify_with(keys, request, None, now_unix_s, None)
    }

    /// As [`Scheme::verify`], for a request whose body, if it is a `long` one, comes beside it, and that may be `past_s`
    /// seconds old. The latter is only for who knows that it did not come before.
    pub fn verify_with(
        &self,
        keys: &Keys,
        request: &Request<'_>,
        long: Option<&dyn LongBody>,
        now_unix_s: i64,
        past_s: Option<i64>,
    ) -> Result<Verified, Refusal> {
        let past_s = past_s.or(keys.tolerance_s);
        let scheme = self.family(request);
        if long.is_some() && self.needs_whole_body(Some(request)) {
            return Err(Refusal::BodyMalformed); // Nothing is found in a body that is not there.
        }
        self.check_families(request)?;
        let scene = Scene { long, ..Scene::new(request, Some(keys)).json_in(scheme.json_part.as_deref()) };
        for rule in &scheme.require {
            rule.check(&scene)?;
        }
        let Some(each) = &scheme.each else { return scheme.verify_one(keys, &scene, now_unix_s, past_s) };
        let items = json::find_in_each(scene.json, each).map_err(|_| Refusal::BodyMalformed)?;
        // Whoever works off the list works off the element that is not signed as well.
        let items = items.ok_or(Refusal::SignatureMissing)?;
        let mut verified = None;
        for item in items {
            let scene = Scene { json: item.get().as_bytes(), ..scene };
            let one = scheme.verify_one(keys, &scene, now_unix_s, past_s)?;
            verified.get_or_insert(one);
        }
        verified.ok_or(Refusal::SignatureMissing)
    }

    /// The key or certificate that a request names, if the row lets it name one. An `Url` is https
    /// and one that the row allows: whoever fetches it must still follow no redirects.
    pub fn named_key(&self, request: &Request<'_>) -> Option<NamedKey> {
        let scheme = self.family(request);
        let scene = Scene::new(request, None).json_in(scheme.json_part.as_deref());
        if let Some(at) = &scheme.key_at {
            let name = at.name(&scene).ok()?;
            return Some(if at.url.is_some() { NamedKey::Url(name) } else { NamedKey::Id(name) });
        }
        let value = match &scheme.place {
            SignaturePlace::At(spot) => spot.read(&scene).ok()??,
            _ => return None,
        };
        if scheme.algorithm.is_jwt() {
            return jwt::key_id(scheme, &value).map(NamedKey::Id);
        }
        let envelope = scheme.envelope.as_ref()?;
        let opened = Encoding::Base64.decode(&value)?;
        envelope_text(&opened, &envelope.key).ok().map(NamedKey::Id)
    }

    fn verify_one(&self, keys: &Keys, scene: &Scene<'_>, now: i64, past_s: Option<i64>) -> Result<Verified, Refusal> {
        if self.algorithm.is_jwt() {
            return jwt::verify(self, keys, scene, &self.value(scene)?, now);
        }
        if self.algorithm.is_token() {
            return self.verify_token(keys, &self.value(scene)?);
        }
        let mut key_name = None;
        let mut claimed = self.claimed(scene, keys, &mut key_name)?;
        let stamp = self.timestamp_text(scene, claimed.timestamp.take())?;
        let at = match (&self.timestamp, &stamp) {
            (Some(rule), Some(text)) => Some(rule.format.parse(text).ok_or(Refusal::TimestampMalformed)?),
            _ => None,
        };
        let id = self.id_text(scene)?;
        let found = Found {
            timestamp: stamp.as_deref().unwrap_or_default(),
            id: id.as_deref().unwrap_or_default(),
            ..Found::default()
        };
        let parts = template::render(&self.template, scene, found)?;
        let (matched, other_url) = if self.algorithm.is_symmetric() {
            self.match_digest(keys, scene, &parts, &claimed).unzip()
        } else {
            (self.match_public(keys, scene, &parts, &claimed.candidates, key_name, now)?, None)
        };
        let (key_index, mut fingerprint) = matched.ok_or(Refusal::SignatureMismatch)?;
        let other_url = other_url.flatten();
        let signed_url = other_url.as_deref().unwrap_or(scene.url);
        self.check_no_challenge(&parts, signed_url)?;
        if self.may_have_several() && self.timestamp.is_some() {
            // What was signed, whichever key did it.
            let mut hash = Sha256::new();
            parts.iter().for_each(|part| part.hash(&mut hash, signed_url, &[]));
            fingerprint = Fingerprint::of(&hash.finalize());
        }
        self.check_body_hash(scene, signed_url)?;
        if let (Some(rule), Some(at)) = (&self.timestamp, at) {
            rule.judge(at, now, past_s, keys.tolerance_s)?;
        }
        Ok(Verified { key_index, timestamp: at, fingerprint })
    }

    /// Where a request has headers of both families they must say the same: the handler may read the other one.
    fn check_families(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let Some(alias) = &self.alias else { return Ok(()) };
        let spots = |scheme: &'_ Self| {
            let stamp = scheme.timestamp.as_ref().map(|rule| match &rule.place {
                TimestampPlace::At(spot) => Some(spot.clone()),
                TimestampPlace::Field(_) | TimestampPlace::Number(_) => None,
            });
            let signature = if let SignaturePlace::At(spot) = &scheme.place { Some(spot.clone()) } else { None };
            [signature, stamp.flatten(), scheme.id.clone()]
        };
        const REFUSALS: [Refusal; 3] =
            [Refusal::SignatureDuplicated, Refusal::TimestampMalformed, Refusal::IdDuplicated];
        for ((one, other), refusal) in spots(self).into_iter().zip(spots(alias)).zip(REFUSALS) {
            let (Some(Spot::Header(one)), Some(Spot::Header(other))) = (one, other) else { continue };
            match (request.header(&one), request.header(&other)) {
                (Ok(Some(value)), Ok(Some(same))) if value == same => {}
                (Ok(None), _) | (_, Ok(None)) => {}
                _ => return Err(refusal),
            }
        }
        Ok(())
    }

    /// A signature of what a challenge may be proves nothing: whoever asks gets it.
    pub(crate) fn check_no_challenge(&self, parts: &[SignedPart<'_>], url: &str) -> Result<(), Refusal> {
        let fits = |shape: &Shape| match parts.iter().map(|part| part.text(url, &[])).collect::<Option<Vec<_>>>() {
            Some(texts) => shape.fits_joined(texts),
            // No challenge is as long, whatever stands beside it.
            None => {
                parts.iter().all(|part| !matches!(part, SignedPart::Long(body) if body.len() > shape::MAX_LEN as u64))
            }
        };
        if self.challenges.iter().any(fits) { Err(Refusal::ChallengeText) } else { Ok(()) }
    }

    /// The key that made one of the signatures, and the URL for which it did, if another than the one that counts.
    fn match_digest(
        &self,
        keys: &Keys,
        scene: &Scene<'_>,
        parts: &[SignedPart<'_>],
        claimed: &Claimed,
    ) -> Option<((usize, Fingerprint), Option<String>)> {
        let variants =
            if parts.iter().any(|part| matches!(part, SignedPart::Url)) { self.urls(scene) } else { Vec::new() };
        let urls = std::iter::once(scene.url).chain(variants.iter().map(String::as_str));
        let mut matched = None;
        for url in urls {
            for (index, key) in keys.keys.iter().enumerate() {
                let digest = key.sign_by(claimed.algorithm, parts, url);
                let mut equal = Choice::from(0);
                for candidate in claimed.candidates.iter().filter(|it| it.key.is_none_or(|key| key == index)) {
                    equal |= digest.equals(&candidate.bytes);
                }
                if bool::from(equal) && matched.is_none() {
                    matched = Some(((index, Fingerprint::of(digest.bytes())), url));
                }
            }
        }
        matched.map(|(key, url)| (key, (url != scene.url).then(|| url.to_owned())))
    }

    fn match_public(
        &self,
        keys: &Keys,
        scene: &Scene<'_>,
        parts: &[SignedPart<'_>],
        candidates: &[Candidate],
        key_name: Option<String>,
        now: i64,
    ) -> Result<Option<(usize, Fingerprint)>, Refusal> {
        let algorithm = self.algorithm_for(scene)?;
        let key_name = match &self.key_at {
            Some(at) => Some(at.name(scene)?),
            None => key_name,
        };
        let named = |key: &PublicKey| key_name.is_none() || key.name == key_name;
        let usable: Vec<_> = keys.public.iter().enumerate().filter(|(_, key)| named(key)).collect();
        if usable.is_empty() {
            return Err(Refusal::KeyUnknown);
        }
        if !usable.iter().any(|(_, key)| key.is_valid_at(now)) {
            return Err(Refusal::CertificateRefused);
        }
        let message = Message::of(algorithm, parts, scene.url);
        let right = |key: &PublicKey| candidates.iter().any(|it| key.verifies(algorithm, &message, &it.bytes));
        let mut usable = usable.into_iter().filter(|(_, key)| key.is_valid_at(now));
        let Some((index, _)) = usable.find(|(_, key)| right(key)) else { return Ok(None) };
        let mut hash = Sha256::new();
        parts.iter().for_each(|part| part.hash(&mut hash, scene.url, &[]));
        Ok(Some((index, Fingerprint::of(&hash.finalize()))))
    }

    fn algorithm_for(&self, scene: &Scene<'_>) -> Result<Algorithm, Refusal> {
        let Some((spot, known)) = &self.algorithms else { return Ok(self.algorithm) };
        let value = part(spot, scene)?;
        let found = known.iter().find(|(name, _)| name.as_bytes() == &*value);
        found.map(|(_, algorithm)| *algorithm).ok_or(Refusal::ValueWrong)
    }

    /// Whether a request may carry signatures under several keys, any of which can be left out unnoticed.
    fn may_have_several(&self) -> bool {
        !matches!((&self.place, &self.layout), (SignaturePlace::At(_), Layout::Single { .. }))
    }

    /// The URLs, other than the one that counts, that the provider may have signed.
    fn urls(&self, scene: &Scene<'_>) -> Vec<String> {
        let queried = scene.url_with_query();
        let both = [Some(scene.url), (*queried != *scene.url).then_some(&*queried)];
        let other = both[1].map(str::to_owned);
        let variants = both
            .into_iter()
            .flatten()
            .flat_map(|url| self.url_variants.iter().filter_map(move |variant| url::variant(url, *variant)));
        other.into_iter().chain(variants).collect()
    }

    fn value(&self, scene: &Scene<'_>) -> Result<Vec<u8>, Refusal> {
        let SignaturePlace::At(spot) = &self.place else { return Err(Refusal::SignatureMissing) };
        let value = signature_at(spot, scene)?.filter(|value| !value.is_empty());
        value.map(Cow::into_owned).ok_or(Refusal::SignatureMissing)
    }

    fn claimed(&self, scene: &Scene<'_>, keys: &Keys, key_name: &mut Option<String>) -> Result<Claimed, Refusal> {
        let stamp = match self.timestamp.as_ref().map(|rule| &rule.place) {
            Some(TimestampPlace::Field(field)) => Some(field.as_str()),
            _ => None,
        };
        let configured = self.field_setting.as_ref().map(|name| match &self.layout {
            Layout::List { items, pair, .. } => {
                Layout::List { items: items.clone(), pair: pair.clone(), fields: keys.settings(name).to_vec() }
            }
            single @ Layout::Single { .. } => single.clone(),
        });
        let layout = configured.as_ref().unwrap_or(&self.layout);
        let mut claimed = Claimed::default();
        let mut there = false;
        let mut take = |value: &[u8], key: Option<usize>| -> Result<(), Refusal> {
            if value.is_empty() {
                return Ok(());
            }
            there = true;
            if let Some(envelope) = &self.envelope {
                let opened = envelope.open(value)?;
                *key_name = Some(opened.key);
                return claimed.read(opened.signature.as_bytes(), layout, self.encoding, stamp, key);
            }
            if self.prefixes.is_empty() {
                return claimed.read(value, layout, self.encoding, stamp, key);
            }
            let named = self.prefixes.iter().find(|(prefix, _)| value.starts_with(prefix.as_bytes()));
            let Some((prefix, algorithm)) = named else { return Ok(()) };
            claimed.algorithm = Some(*algorithm);
            claimed.read(&value[prefix.len()..], layout, self.encoding, stamp, key)
        };
        match &self.place {
            SignaturePlace::At(spot) => take(&signature_at(spot, scene)?.unwrap_or_default(), None)?,
            SignaturePlace::AnyHeader(names) => {
                for name in names {
                    take(signature_header(scene, name)?, None)?;
                }
            }
            SignaturePlace::PerKey(names) => {
                for (index, name) in names.iter().enumerate() {
                    take(signature_header(scene, name)?, Some(index))?;
                }
            }
            SignaturePlace::Numbered(name) => {
                for number in 1..=MAX_CANDIDATES + 1 {
                    let value = signature_header(scene, &format!("{name}{number}"))?;
                    if value.is_empty() {
                        break;
                    }
                    take(value, None)?;
                }
            }
        }
        match (there, claimed.candidates.is_empty()) {
            (false, _) => Err(Refusal::SignatureMissing),
            (true, true) => Err(Refusal::SignatureMalformed),
            (true, false) => Ok(claimed),
        }
    }

    fn verify_token(&self, keys: &Keys, value: &[u8]) -> Result<Verified, Refusal> {
        let prefix = match &self.layout {
            Layout::Single { prefix } => prefix.as_bytes(),
            Layout::List { .. } => &[],
        };
        // The name of an HTTP authentication scheme has no case (RFC 9110).
        let (head, token) = value.split_at_checked(prefix.len()).ok_or(Refusal::SignatureMalformed)?;
        if !head.eq_ignore_ascii_case(prefix) {
            return Err(Refusal::SignatureMalformed);
        }
        let token = match self.algorithm {
            Algorithm::Basic => {
                Cow::Owned(data_encoding::BASE64.decode(token).map_err(|_| Refusal::SignatureMalformed)?)
            }
            _ => Cow::Borrowed(token),
        };
        let claimed = Digest::of(&token);
        let mut matched = None;
        for (index, key) in keys.keys.iter().enumerate() {
            if bool::from(Digest::of(key.text()).equals(claimed.bytes())) && matched.is_none() {
                matched = Some(index);
            }
        }
        let key_index = matched.ok_or(Refusal::SignatureMismatch)?;
        Ok(Verified { key_index, timestamp: None, fingerprint: Fingerprint::default() })
    }

    pub(crate) fn timestamp_text<'a>(
        &'a self,
        scene: &Scene<'a>,
        field: Option<Vec<u8>>,
    ) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        let Some(rule) = &self.timestamp else { return Ok(None) };
        let text = match &rule.place {
            TimestampPlace::Field(_) => field.map(Cow::Owned),
            TimestampPlace::Number(pointer) => {
                let found = json::find(scene.json, pointer).map_err(|_| Refusal::BodyMalformed)?;
                if found.is_empty() {
                    return Err(Refusal::TimestampMissing);
                }
                let number = json::number(scene.json, pointer).map_err(|_| Refusal::BodyMalformed)?;
                Some(Cow::Borrowed(number.ok_or(Refusal::TimestampMalformed)?.as_bytes()))
            }
            TimestampPlace::At(spot) => match spot.read(scene) {
                Ok(text) => text,
                Err(Unreadable::Doubled) => return Err(Refusal::TimestampMalformed),
                Err(Unreadable::Malformed) => return Err(Refusal::BodyMalformed),
            },
        };
        text.filter(|text| !text.is_empty()).map(Some).ok_or(Refusal::TimestampMissing)
    }

    fn id_text<'a>(&'a self, scene: &Scene<'a>) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        let Some(spot) = &self.id else { return Ok(None) };
        let id = spot.read(scene).map_err(|_| Refusal::IdDuplicated)?;
        id.filter(|id| !id.is_empty()).map(Some).ok_or(Refusal::IdMissing)
    }

    /// A body that no form covers is bound by its hash, where the row says so.
    fn check_body_hash(&self, scene: &Scene<'_>, signed_url: &str) -> Result<(), Refusal> {
        let Some(spot) = &self.body_hash else { return Ok(()) };
        // Only the query of the URL that was signed proves anything.
        let signed = Request { url: signed_url, ..*scene.request };
        let scene = Scene { request: &signed, ..*scene };
        match spot.read(&scene).map_err(|_| Refusal::PartMissing)? {
            Some(hash) if *hash == *template::body_hash(&scene.body()).as_bytes() => Ok(()),
            Some(_) => Err(Refusal::BodyMismatch),
            None if (scene.request.body.is_empty() && scene.long.is_none())
                || matches!(Form::of(scene.request), Ok(Some(_))) =>
            {
                Ok(())
            }
            None => Err(Refusal::PartMissing),
        }
    }
}

struct Opened {
    signature: String,
    key: String,
}

impl Envelope {
    fn open(&self, value: &[u8]) -> Result<Opened, Refusal> {
        let text = Encoding::Base64.decode(value).ok_or(Refusal::SignatureMalformed)?;
        for (pointer, value) in &self.equal {
            if envelope_text(&text, pointer)? != *value {
                return Err(Refusal::ValueWrong);
            }
        }
        Ok(Opened { key: envelope_text(&text, &self.key)?, signature: envelope_text(&text, &self.signature)? })
    }
}

impl Requirement {
    fn check(&self, scene: &Scene<'_>) -> Result<(), Refusal> {
        let value = part(&self.spot, scene)?;
        match &self.value {
            None if value.is_empty() => Err(Refusal::PartMissing),
            None => Ok(()),
            Some(expected) if expected.allows(&value, scene) => Ok(()),
            Some(_) => Err(Refusal::ValueWrong),
        }
    }
}

impl Expected {
    pub(crate) fn allows(&self, value: &[u8], scene: &Scene<'_>) -> bool {
        match self {
            Self::OneOf(values) => values.iter().any(|known| known.as_bytes() == value),
            Self::Setting(name) => {
                let values = scene.keys.map_or(&[][..], |keys| keys.settings(name));
                values.iter().any(|known| !known.is_empty() && known.as_bytes() == value)
            }
            Self::Url => scene.url.as_bytes() == value,
        }
    }
}

impl KeyAt {
    fn name(&self, scene: &Scene<'_>) -> Result<String, Refusal> {
        let name = part(&self.spot, scene)?;
        let name = String::from_utf8(name.into_owned()).map_err(|_| Refusal::KeyUnknown)?;
        match &self.url {
            Some(pinned) if !pinned.allows(&name, scene) => Err(Refusal::CertificateRefused),
            _ => Ok(name),
        }
    }
}

fn envelope_text(text: &[u8], pointer: &Pointer) -> Result<String, Refusal> {
    let found = json::find(text, pointer).map_err(|_| Refusal::SignatureMalformed)?;
    let value = found.first().and_then(|value| json::text_of(value)).ok_or(Refusal::SignatureMalformed)?;
    String::from_utf8(value.into_owned()).map_err(|_| Refusal::SignatureMalformed)
}

fn part<'a>(spot: &Spot, scene: &Scene<'a>) -> Result<Cow<'a, [u8]>, Refusal> {
    match spot.read(scene) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(Refusal::PartMissing),
        Err(_) if spot.in_body() => Err(Refusal::BodyMalformed),
        Err(_) => Err(Refusal::PartMissing),
    }
}

fn signature_at<'a>(spot: &Spot, scene: &Scene<'a>) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
    // Under a wildcard every element has to have it, and all the same.
    if let Spot::Json(pointer) = spot
        && pointer.has_wildcard()
    {
        let found = json::find_in_each(scene.json, pointer).map_err(|_| Refusal::BodyMalformed)?;
        found.ok_or(Refusal::SignatureMissing)?;
    }
    spot.read(scene).map_err(|unreadable| match unreadable {
        Unreadable::Doubled => Refusal::SignatureDuplicated,
        Unreadable::Malformed => Refusal::BodyMalformed,
    })
}

fn signature_header<'a>(scene: &Scene<'a>, name: &str) -> Result<&'a [u8], Refusal> {
    let value = scene.request.header(name).map_err(|_| Refusal::SignatureDuplicated)?;
    Ok(value.unwrap_or_default())
}
