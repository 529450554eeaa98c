//! What the relay has to do with providers themselves: it answers their challenges, keeps the secrets that these bring,
//! and fetches the keys that their signatures are checked with.

pub(crate) mod handshakes;
pub(crate) mod keys;
pub(crate) mod learnt;
