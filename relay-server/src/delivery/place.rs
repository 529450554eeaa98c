//! Places of an endpoint's calls whose senders do not wait.
//!
//! A place is given back when the handler is done, or when it is dropped. Whoever gives one back wakes the pump if events
//! wait. Decides nothing: [`Window`] does.

use std::sync::{Arc, atomic::Ordering};

use super::{Delivery, window::Window};
use crate::{
    endpoint::{Endpoint, EndpointName},
    store::INLINE_BYTES,
};

/// The place of one call.
pub(super) struct CallPlace {
    delivery: Arc<Delivery>,
    endpoint: EndpointName,
    is_claimed: bool,
    /// Its event is not kept yet.
    is_coming: bool,
    delivered: bool,
}

impl CallPlace {
    /// That of an event which the pump has claimed.
    pub(super) fn claimed(delivery: &Arc<Delivery>, endpoint: &EndpointName) -> Self {
        delivery.window(endpoint, Window::begun);
        Self::new(delivery, endpoint, true)
    }

    /// That of an event which is to begin as soon as it is kept: if none waits before it, an agent has room for it, and
    /// it takes no more memory than what the pump claims.
    pub(super) fn at_once(delivery: &Arc<Delivery>, endpoint: &Endpoint, body_bytes: u64) -> Option<Self> {
        if body_bytes > INLINE_BYTES {
            return None;
        }
        let name = &endpoint.name;
        let coming = delivery.window(name, Window::come)?;
        let mut place = Self::new(delivery, name, false);
        place.is_coming = true;
        let free = delivery.registry.free(name.as_str(), coming).ok()?;
        let free = delivery.admission.room(endpoint, free).ok()?;
        (free >= coming).then_some(place)
    }

    fn new(delivery: &Arc<Delivery>, endpoint: &EndpointName, is_claimed: bool) -> Self {
        let (delivery, endpoint) = (Arc::clone(delivery), endpoint.clone());
        Self { delivery, endpoint, is_claimed, is_coming: false, delivered: false }
    }

    /// Its event is kept, and has what it needs.
    pub(super) fn came(&mut self) {
        if std::mem::take(&mut self.is_coming) {
            self.delivery.window(&self.endpoint, Window::came);
        }
    }

    /// The handler is done.
    pub(super) fn ended(mut self, delivered: bool) {
        self.delivered = delivered;
    }
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        self.came();
        let is_behind = self.delivery.window(&self.endpoint, |window| {
            if self.is_claimed {
                window.ended(self.delivered);
            } else {
                window.ended_at_once();
            }
            window.is_behind()
        });
        if is_behind || self.delivery.cramped.load(Ordering::Relaxed) {
            self.delivery.wake.notify_one();
        }
    }
}
