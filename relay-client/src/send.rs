//! Requests as a provider would send them: its headers and a payload, signed by its own row run backwards, with the
//! faults that a user asks for.
//!
//! Pure but for randomness in ids: this module makes what to send, the command sends it. Only schemes whose key is
//! shared can be signed; for the others the error says so.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use relay_schemes::{Keys, Material, Provider, Refusal, Request, Scheme};
use tokio::time::{Instant, Sleep, sleep};
use uuid::Uuid;

/// Pieces of a body that is sent slowly or in chunks.
const PIECES: usize = 10;

const PAUSE: Duration = Duration::from_millis(300);

/// How old a stale request is where the scheme does not say how old is too old.
const STALE: i64 = 3600;

/// What is wrong with a request on purpose.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Faults {
    /// Signed longer ago than the scheme allows
    #[arg(long)]
    pub stale: bool,
    /// With a signature that does not match
    #[arg(long)]
    pub bad_signature: bool,
}

/// A request that can be sent, any number of times.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    /// The provider's id for the event.
    pub id: String,
    pub method: &'static str,
    /// The URL; another one than was given if the signature stands in it.
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// Makes requests of one provider to one URL.
#[derive(Debug)]
pub(crate) struct Maker {
    provider: &'static Provider,
    keys: Option<(&'static Scheme, Keys)>,
    url: String,
    body: Option<Bytes>,
    headers: Vec<(String, String)>,
}

impl Maker {
    /// Requests to `url`, with this body in place of a sample and these headers in place of the sample's own. The error
    /// says why they cannot be signed with this material.
    pub(crate) fn new(
        provider: &'static Provider,
        material: &Material,
        url: String,
        body: Option<Bytes>,
        headers: Vec<(String, String)>,
    ) -> Result<Self, String> {
        let keys = match &provider.scheme {
            None => None,
            Some(scheme) if !scheme.is_symmetric() => {
                return Err(format!(
                    "only {} has the key that signs its requests ({}); there is nothing to send",
                    provider.title,
                    scheme.in_words()
                ));
            }
            Some(scheme) => Some((scheme, scheme.keys_from(material).map_err(|error| error.to_string())?)),
        };
        Ok(Self { provider, keys, url, body, headers })
    }

    /// The next request, as of now. The error says what the request lacks, or names a fault that this scheme cannot have.
    pub(crate) fn make(&self, faults: Faults, now_unix_s: i64) -> Result<Ready, String> {
        let id = format!("evt_{}", Uuid::now_v7().as_simple());
        let at = match (&self.keys, faults.stale) {
            (_, false) => now_unix_s,
            (Some((scheme, _)), true) => {
                let (past_s, _) = scheme
                    .tolerance_s()
                    .ok_or_else(|| format!("{} signs no time, so nothing of it can be stale", self.provider.title))?;
                now_unix_s - past_s.clamp(0, i64::MAX / 2).max(STALE) - 60
            }
            (None, true) => return Err(format!("{} signs nothing, so nothing can be stale", self.provider.title)),
        };
        let sample = self.provider.sample(&id, at);
        let mut ready = Ready {
            id,
            method: sample.method,
            url: self.url.clone(),
            headers: sample.headers,
            body: self.body.clone().unwrap_or_else(|| sample.body.into()),
        };
        for (name, value) in &self.headers {
            put(&mut ready.headers, name, value);
        }
        let Some((scheme, keys)) = &self.keys else { return Ok(ready) };
        let unsigned = Request { method: ready.method, url: &ready.url, headers: &ready.headers, body: &ready.body };
        let signed = scheme.sign(keys, &unsigned, Some(&ready.id), at).map_err(|error| error.to_string())?;
        for (name, value) in &signed.headers {
            put(&mut ready.headers, name, value);
        }
        (ready.url, ready.body) = (signed.url, signed.body.into());
        if faults.bad_signature {
            let set: Vec<&str> = signed.headers.iter().map(|(name, _)| name.as_str()).collect();
            let mismatches = |ready: &Ready| {
                let Ready { method, url, headers, body, .. } = ready;
                scheme.verify(keys, &Request { method, url, headers, body }, at) == Err(Refusal::SignatureMismatch)
            };
            return changed(&ready, &set).find(mismatches).ok_or_else(|| {
                "this request cannot be given a signature that is well formed and does not match".to_owned()
            });
        }
        Ok(ready)
    }
}

fn put(headers: &mut Vec<(String, String)>, name: &str, value: &str) {
    headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    headers.push((name.to_ascii_lowercase(), value.to_owned()));
}

/// The request with one character changed, each time another one: where the signature mostly stands first, which is in
/// the headers that signing has set, then in the query, then in the body.
fn changed<'a>(ready: &'a Ready, set: &'a [&str]) -> impl Iterator<Item = Ready> + 'a {
    let of_set = ready.headers.iter().enumerate().filter(|(_, (name, _))| set.contains(&name.as_str()));
    let headers = of_set.flat_map(move |(index, (_, value))| {
        // Near its end a signature has its last digits; the very last may be padding bits of base64.
        with_another(value.as_bytes(), value.len().saturating_sub(8)).map(move |value| {
            let mut ready = ready.clone();
            ready.headers[index].1 = String::from_utf8_lossy(&value).into_owned();
            ready
        })
    });
    let query = with_another(ready.url.as_bytes(), ready.url.find('?').unwrap_or(ready.url.len()))
        .map(|url| Ready { url: String::from_utf8_lossy(&url).into_owned(), ..ready.clone() });
    let body = with_another(&ready.body, 0).map(|body| Ready { body: body.into(), ..ready.clone() });
    headers.chain(query).chain(body)
}

/// The text with one character changed, from its last one to the one at `from`.
fn with_another(text: &[u8], from: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    (from..text.len()).rev().filter_map(|place| {
        let mut text = text.to_vec();
        text[place] = another(text[place])?;
        Some(text)
    })
}

/// Another character of the same kind.
pub(crate) const fn another(byte: u8) -> Option<u8> {
    match byte {
        b'0' => Some(b'1'),
        b'1'..=b'9' => Some(b'0'),
        b'a' => Some(b'b'),
        b'b'..=b'z' => Some(b'a'),
        b'A' => Some(b'B'),
        b'B'..=b'Z' => Some(b'A'),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Manner {
    /// The body in chunks, without a length
    #[arg(long)]
    pub chunked: bool,
    /// The body in pieces, with pauses
    #[arg(long)]
    pub slow: bool,
}

#[derive(Debug)]
pub(crate) struct Pieces {
    left: VecDeque<Bytes>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    pub(crate) fn new(body: &Bytes, manner: Manner) -> Self {
        let size = if manner.chunked || manner.slow { body.len().div_ceil(PIECES).max(1) } else { body.len().max(1) };
        let left = (0..body.len()).step_by(size).map(|from| body.slice(from..body.len().min(from + size))).collect();
        let pause = manner.slow.then(|| Box::pin(sleep(PAUSE)));
        Self { left, pause }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { left, pause } = &mut *self;
        if left.is_empty() {
            return Poll::Ready(None);
        }
        if let Some(pause) = pause {
            std::task::ready!(pause.as_mut().poll(cx));
            pause.as_mut().reset(Instant::now() + PAUSE);
        }
        Poll::Ready(left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use relay_schemes::{Secret, providers};

    use super::*;

    const NOW: i64 = 1_770_000_000;
    const SECRETS: [&str; 4] =
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a plain secret", "00112233445566778899aabbccddeeff", "user:pass"];

    /// Material with which a row can sign, found by trying.
    fn material(scheme: &Scheme) -> Option<Material> {
        SECRETS.iter().find_map(|secret| {
            let mut material = Material::secrets(&[Secret::new(*secret)]);
            for name in scheme.settings() {
                material.settings.insert(name.to_owned(), vec!["https://hooks.example.com/in".to_owned()]);
            }
            scheme.keys_from(&material).ok().map(|_| material)
        })
    }

    #[test]
    fn every_symmetric_row_is_sent_rightly_and_with_the_faults_that_were_ordered() {
        let mut sent = 0;
        for row in providers() {
            let Some(scheme) = row.scheme.as_ref().filter(|scheme| scheme.is_symmetric()) else { continue };
            let material = material(scheme).unwrap_or_else(|| panic!("no secret fits {}", row.name));
            let url = "https://hooks.example.com/in".to_owned();
            let maker = Maker::new(row, &material, url, None, Vec::new()).expect("a maker");
            let keys = scheme.keys_from(&material).expect("keys");
            let verdict = |ready: &Ready| {
                let Ready { method, url, headers, body, .. } = ready;
                scheme.verify(&keys, &Request { method, url, headers, body }, NOW).map(|_| ())
            };
            let right = maker.make(Faults::default(), NOW).unwrap_or_else(|error| panic!("{}: {error}", row.name));
            assert_eq!(verdict(&right), Ok(()), "{}", row.name);
            let bad = maker.make(Faults { bad_signature: true, ..Faults::default() }, NOW);
            match bad {
                Ok(bad) => assert_eq!(verdict(&bad), Err(Refusal::SignatureMismatch), "{}", row.name),
                Err(why) => panic!("{}: {why}", row.name),
            }
            let stale = maker.make(Faults { stale: true, ..Faults::default() }, NOW);
            assert_eq!(stale.is_ok(), scheme.tolerance_s().is_some(), "{}", row.name);
            if let Ok(stale) = stale {
                assert_eq!(verdict(&stale), Err(Refusal::TimestampTooOld), "{}", row.name);
            }
            sent += 1;
        }
        assert!(sent > 60, "only {sent} rows");
    }

    #[test]
    fn who_alone_can_sign_is_named() {
        let row = relay_schemes::provider("discord").expect("a row");
        let error = Maker::new(row, &Material::default(), String::new(), None, Vec::new()).expect_err("cannot sign");
        assert!(error.contains("only Discord has the key"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_arrives_whole_in_every_manner() {
        let body = Bytes::from_static(b"{\"some\":\"body\",\"of\":42}");
        for (chunked, slow) in [(false, false), (true, false), (false, true), (true, true)] {
            let pieces = Pieces::new(&body, Manner { chunked, slow });
            let began = Instant::now();
            assert_eq!(pieces.collect().await.expect("whole").to_bytes(), body);
            assert_eq!(began.elapsed() >= PAUSE, slow);
        }
    }
}
