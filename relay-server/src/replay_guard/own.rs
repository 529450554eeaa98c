//! Signatures that the relay made itself: they prove nothing at its own door.
//!
//! The relay signs late deliveries and replays afresh for handlers, and a handler could bring the old event in once
//! more as a new one. So the relay remembers each of these signatures, by what was signed, for as long as it would
//! accept it. There is one set for all endpoints, since two of them may have the same secret.
//!
//! Invariant: there are at most [`MAX_OWN`]; beyond that the relay makes none. Signatures that somebody asked for take
//! half of them, so that a token that may only read cannot leave late deliveries without.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
/// Signatures that are remembered at a time, about 30 MiB.
const MAX_OWN: usize = 262_144;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Late,
    Asked,
}

/// A signature that the relay made, by what was signed, whatever body comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnMark {
    pub digest: [u8; 32],
    /// From this second on nobody takes it.
    pub expires_unix_s: i64,
}

#[derive(Debug, Default)]
pub(crate) struct OwnSignatures(Mutex<Own>);

#[derive(Debug, Default)]
struct Own {
    expires_unix_s: HashMap<[u8; 32], i64>,
    order: VecDeque<[u8; 32]>,
}

impl OwnSignatures {
    pub(crate) fn put(&self, mark: OwnMark, cause: Cause, now_unix_s: i64) -> bool {
        let mut own = self.0.lock();
        let Own { expires_unix_s, order } = &mut *own;
        while order
            .front()
            .is_some_and(|oldest| expires_unix_s.get(oldest).is_none_or(|expires| *expires <= now_unix_s))
        {
            let oldest = order.pop_front();
            oldest.and_then(|oldest| expires_unix_s.remove(&oldest));
        }
        if let Some(expires) = expires_unix_s.get_mut(&mark.digest) {
            *expires = mark.expires_unix_s.max(*expires);
            return true;
        }
        let most = if cause == Cause::Asked { MAX_OWN / 2 } else { MAX_OWN };
        if order.len() >= most {
            return false;
        }
        expires_unix_s.insert(mark.digest, mark.expires_unix_s);
        order.push_back(mark.digest);
        true
    }

    pub(crate) fn holds(&self, digest: &[u8; 32]) -> bool {
        self.0.lock().expires_unix_s.contains_key(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u32, expires_unix_s: i64) -> OwnMark {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        OwnMark { digest, expires_unix_s }
    }

    #[test]
    fn a_signature_is_known_until_it_expires_and_there_are_never_too_many() {
        let own = OwnSignatures::default();
        assert!(own.put(mark(1, 100), Cause::Late, 0) && own.put(mark(1, 90), Cause::Asked, 0));
        assert!(own.holds(&mark(1, 0).digest) && !own.holds(&mark(2, 0).digest));
        let most = u32::try_from(MAX_OWN).expect("fits");
        assert!((2..=most / 2).all(|number| own.put(mark(number, 200), Cause::Asked, 99)));
        assert!(!own.put(mark(most, 200), Cause::Asked, 99), "the other half is not for those that are asked for");
        assert!((most / 2 + 1..=most).all(|number| own.put(mark(number, 200), Cause::Late, 99)));
        assert!(!own.put(mark(most + 1, 200), Cause::Late, 99), "there is no room");
        assert!(own.put(mark(1, 100), Cause::Late, 99), "it is there");
        assert!(own.put(mark(most + 1, 200), Cause::Late, 100), "the first one has expired");
        assert!(!own.holds(&mark(1, 0).digest) && own.0.lock().expires_unix_s.len() == MAX_OWN);
    }
}
