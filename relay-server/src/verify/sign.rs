//! How the relay itself signs: an event afresh, or a request of its own making.
//!
//! Only what is asked for is made here; whether it may be, and when, is for the callers to say. Invariant: a dated signature
//! comes with the mark by which the door recognises it.

use relay_schemes::{Headers, LongBody, Request};
use thiserror::Error;

use super::{Rule, UNLIMITED_S};
use crate::{replay_guard::OwnMark, webhook::EventId};

/// How long a signature of the relay is remembered at least, in seconds: a reload may make its endpoint more patient,
/// and another endpoint of the same secret may be.
const MIN_OWN_S: i64 = 10 * 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum CannotSign {
    #[error("nothing is signed at this endpoint")]
    NoScheme,
    #[error("only the provider has the key that signs; replay it with its own signature (--keep-signature)")]
    Asymmetric,
    #[error("this endpoint's secret cannot be read at the moment")]
    NoSecret,
    #[error(
        "its signature was never found right, so nothing is signed in its name; replay it as it came (--keep-signature)"
    )]
    NotProven,
    #[error(
        "this provider's signatures bear no date, so that a fresh one would be good for ever; whoever asks for it needs \
         the right `replay`"
    )]
    Undated,
    #[error("the relay has made so many signatures that it cannot remember more at the moment; try again later")]
    TooMany,
    #[error(
        "its signature does not stand in its headers alone, or it lacks something that is signed; replay it as it came \
         (--keep-signature)"
    )]
    Elsewhere,
    #[error("what is signed cannot be read from the store")]
    Unreadable,
}

/// Whose secret proved an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signer<'a> {
    /// The tag of the secret, where one was noted down.
    pub tag: Option<&'a [u8]>,
    /// The event under whose id it was.
    pub event_id: EventId,
}

/// A signature that the relay made. Never printed.
pub(crate) struct Afresh {
    /// Headers to set, names and values.
    pub headers: Vec<(String, String)>,
    /// By what it is recognised, where it has a date.
    pub mark: Option<OwnMark>,
}

/// A signature over what the relay itself made up. Never printed.
pub(crate) struct SignedOwn {
    pub headers: Vec<(String, String)>,
    pub expires_unix_s: Option<i64>,
}

impl Rule {
    pub(crate) fn may_sign(&self) -> Result<(), CannotSign> {
        let scheme = self.row().and_then(|row| row.provider.scheme.as_ref().map(|scheme| (row, scheme)));
        match (self, scheme) {
            (Self::Closed(_), _) => Err(CannotSign::NoSecret),
            (_, None) => Err(CannotSign::NoScheme),
            (_, Some((_, scheme))) if !scheme.is_symmetric() => Err(CannotSign::Asymmetric),
            (_, Some((row, _))) if row.keyring.keys().is_none() => Err(CannotSign::NoSecret),
            _ => Ok(()),
        }
    }

    /// Whether its signatures are made of a whole body at once.
    pub(crate) fn signs_whole_body(&self) -> bool {
        let scheme = self.row().and_then(|row| row.provider.scheme.as_ref());
        scheme.is_none_or(|scheme| scheme.needs_whole_body(None))
    }

    /// Whether its signatures bear a date, so that one is not good for ever.
    pub(crate) fn dates_signatures(&self) -> bool {
        let scheme = self.row().and_then(|row| row.provider.scheme.as_ref());
        scheme.is_some_and(|scheme| scheme.tolerance_s().is_some())
    }

    /// Whether what was signed at `then_unix_s` can be signed afresh, and is too old by its scheme or is to be in any
    /// case.
    pub(crate) fn signs_afresh(&self, then_unix_s: i64, now_unix_s: i64, always: bool) -> bool {
        let Some(row) = self.row() else { return false };
        let scheme = row.provider.scheme.as_ref().filter(|scheme| scheme.is_symmetric());
        let Some((past_s, _)) = scheme.and_then(relay_schemes::Scheme::tolerance_s) else { return false };
        always || now_unix_s.saturating_sub(then_unix_s) > row.keyring.tolerance_s.unwrap_or(past_s)
    }

    /// Headers that sign a request afresh at `now_unix_s`, with the secret that proved this event if it is still
    /// there, else with the first. A `long` body comes beside the request. `None` if the signature stands elsewhere than in headers, or the request lacks
    /// something.
    pub(crate) fn sign_afresh(
        &self,
        request: &Request<'_>,
        long: Option<&dyn LongBody>,
        id: Option<&str>,
        signer: Signer<'_>,
        now_unix_s: i64,
    ) -> Option<Afresh> {
        let row = self.row()?;
        let (scheme, keys) = (row.provider.scheme.as_ref()?, row.keyring.keys());
        let own = signer.tag.and_then(|tag| keys.as_ref()?.signing_as(tag, signer.event_id.as_bytes()));
        let keys = own.as_ref().or(keys.as_deref())?;
        let signed = scheme.sign_with(keys, request, long, id, now_unix_s).ok()?;
        let url = keys.public_url().unwrap_or(request.url);
        if signed.body != request.body || signed.url != url {
            return None;
        }
        let Some((past_s, _)) = scheme.tolerance_s() else {
            return Some(Afresh { headers: signed.headers, mark: None });
        };
        // As the door will see it: what it could not recognise there is not made.
        let headers = Over { below: request.headers, set: &signed.headers };
        let verify = |request: &Request<'_>| scheme.verify_with(keys, request, long, now_unix_s, None);
        let verified = verify(&Request { headers: &headers, ..*request }).ok()?;
        // The door may take what is as old as its sender's last retry.
        let late_s = row.provider.last_retry.and_then(|late| i64::try_from(late.as_secs()).ok()).unwrap_or_default();
        let past_s = row.keyring.tolerance_s.unwrap_or(past_s).max(late_s);
        let lasts_s = past_s.clamp(MIN_OWN_S, UNLIMITED_S);
        let expires_unix_s = verified.timestamp?.saturating_add(lasts_s).saturating_add(1);
        // Made within the second of the sender's own, it is the sender's own, and that may come again.
        let own = verify(request).is_ok_and(|own| own.fingerprint == verified.fingerprint);
        let mark = (!own).then(|| OwnMark { digest: *verified.fingerprint.bytes(), expires_unix_s });
        Some(Afresh { headers: signed.headers, mark })
    }

    /// Signs a request that the relay made up, with the first secret: headers to set, and until when the door takes them
    /// where the scheme dates it. `None` if the signature stands elsewhere than in headers, or only the provider can sign.
    pub(crate) fn sign_own(&self, request: &Request<'_>, id: &str, now_unix_s: i64) -> Option<SignedOwn> {
        let row = self.row()?;
        let (scheme, keys) = (row.provider.scheme.as_ref()?, row.keyring.keys());
        let signed = scheme.sign(keys.as_deref()?, request, Some(id), now_unix_s).ok()?;
        if signed.body != request.body || signed.url != request.url {
            return None;
        }
        let past_s = scheme.tolerance_s().map(|(past_s, _)| row.keyring.tolerance_s.unwrap_or(past_s));
        Some(SignedOwn {
            headers: signed.headers,
            expires_unix_s: past_s.map(|past_s| now_unix_s.saturating_add(past_s)),
        })
    }
}

/// Headers, some of them set anew.
struct Over<'a> {
    below: &'a dyn Headers,
    set: &'a [(String, String)],
}

impl Headers for Over<'_> {
    fn for_each<'h>(&'h self, name: &str, each: &mut dyn FnMut(&'h [u8])) {
        let mut own = self.set.iter().filter(|(set, _)| set.eq_ignore_ascii_case(name)).peekable();
        if own.peek().is_none() {
            return self.below.for_each(name, each);
        }
        own.for_each(|(_, value)| each(value.as_bytes()));
    }
}
