//! Why the store did not do it, by what can be done about it.

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    failure::{ApiError, ApiErrorKind, Failure, RelayFault},
    webhook::EventId,
};

/// Why a call failed. Unless it says otherwise, nothing of the call was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store's queue is full")]
    Busy,
    /// It cannot be reached for a while, or it is not known whether the call was kept. It may be made again.
    #[error("the store is away; it is asked again")]
    Unavailable,
    #[error("what waits fills the store up to its max_size; deliver or drop it, or raise max_size")]
    AtCapacity,
    #[error("what waits fills the endpoint's share of the store; deliver or drop it, or raise the endpoint's max_size")]
    AtShare,
    #[error(
        "what waits fills what the endpoints of its token may take of the store; deliver or drop it, or raise the \
         token's max_stored"
    )]
    AtQuota,
    /// What waits leaves only the part that is kept for endpoints whose senders prove who they are.
    #[error(
        "what waits leaves only the part of the store that is kept for endpoints that verify their senders; deliver or \
         drop it, or raise max_size"
    )]
    AtReserve,
    /// The disk is full, and so is the store's file. Events are refused until there is room; deliveries go on.
    #[error("the disk of the store is full; make room on it")]
    NoSpace,
    /// The disk failed. This process must not go on; what was acknowledged before is safe.
    #[error("the store has failed and takes nothing more in this process: {0}")]
    Failed(String),
    #[error("event {0} is damaged in the store; it was set apart and is not delivered")]
    Damaged(EventId),
    #[error("\"{0}\" already exists and comes from elsewhere (file or api); remove it there or choose another name")]
    Clash(String),
    #[error("there is nothing with the id {0}")]
    Unknown(EventId),
    /// Whoever asked for a bulk action has as many open ones as it may.
    #[error("{0} bulk actions of this token are still under way; wait until one of them is finished, or stop one")]
    TooManyBulks(usize),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Unusable(String),
    /// Another version of this program, or another program, wrote it. Only a person can say what is to become of it.
    #[error("{0}")]
    Incompatible(String),
    #[error("{0}")]
    InUse(String),
    /// The database gave an unexpected answer. The call may have been kept.
    #[error("the store could not do it: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the same call can succeed later, without a restart.
    pub(crate) fn is_temporary(&self) -> bool {
        self.is_full() || matches!(self, Self::Busy | Self::Unavailable)
    }

    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::AtCapacity | Self::AtShare | Self::AtQuota | Self::AtReserve | Self::NoSpace)
    }
}

impl From<&StoreError> for Failure {
    fn from(why: &StoreError) -> Self {
        match why {
            StoreError::Busy => RelayFault::Overloaded.into(),
            StoreError::AtQuota => RelayFault::QuotaStored.into(),
            full if full.is_full() => RelayFault::StoreFull.into(),
            _ => RelayFault::StoreFailed.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(why: StoreError) -> Self {
        let kind = match &why {
            why if why.is_temporary() => ApiErrorKind::Busy,
            StoreError::TooManyBulks(_) => ApiErrorKind::TooManyBulks,
            StoreError::Damaged(_) => ApiErrorKind::Damaged,
            StoreError::Unknown(_) => ApiErrorKind::NotFound,
            StoreError::Invalid(_) | StoreError::Clash(_) => ApiErrorKind::Conflict,
            _ => ApiErrorKind::StoreFailed,
        };
        Self::new(kind, why.to_string())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Ready,
    /// The disk is full: only what finds room inside of the store's file is taken in; what is there is still delivered.
    NoSpace,
    /// It cannot be reached since then: nothing is kept, and what is there waits. It comes back by itself.
    Away {
        since: Timestamp,
    },
    /// The disk failed. For ever: leave the process with a failure, a restart reads what was acknowledged.
    Failed(String),
}

/// The writing end of a store's health: failure is for ever.
#[derive(Debug)]
pub(super) struct Pulse(watch::Sender<Health>);

impl Default for Pulse {
    fn default() -> Self {
        Self(watch::Sender::new(Health::Ready))
    }
}

impl Pulse {
    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        match &*self.0.borrow() {
            Health::Failed(why) => Some(StoreError::Failed(why.clone())),
            _ => None,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        *self.0.borrow() == Health::NoSpace
    }

    pub(super) fn set(&self, health: Health) {
        self.0.send_if_modified(|now| {
            let changes = !matches!(now, Health::Failed(_)) && *now != health;
            if changes {
                *now = health;
            }
            changes
        });
    }
}
