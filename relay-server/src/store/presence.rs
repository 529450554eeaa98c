//! Who is there, for a store of one process: sessions end with it, so nothing is written down.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::rows::Presence;
use crate::endpoint::EndpointName;

/// Sessions by endpoint and epoch. Bounded by the sessions that the relay takes.
#[derive(Debug, Default)]
pub(super) struct Presences(Mutex<BTreeMap<(EndpointName, u64), Presence>>);

impl Presences {
    pub(super) fn put(&self, presences: Vec<Presence>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(presences.into_iter().map(|one| ((one.endpoint.clone(), one.session), one)));
    }

    pub(super) fn remove(&self, session: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, key), _| *key != session);
    }

    pub(super) fn of(&self, endpoint: &EndpointName, since: Timestamp) -> Vec<Presence> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let range = all.range((endpoint.clone(), 0)..=(endpoint.clone(), u64::MAX));
        range.map(|(_, one)| one).filter(|one| one.seen_at >= since).cloned().collect()
    }
}
