//! The store's smaller rows: configuration, refused requests, bulk actions, housekeeping.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::{Action, Cursor, Filter, MAX_BULKS, MAX_BULKS_OF_ONE, Signature, StoreError, outcome::codes};
use crate::{endpoint::EndpointName, webhook::EventId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigKind {
    Endpoint,
    Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A config file; applying one changes and removes only these.
    File,
    /// The API or a command.
    Api,
}

/// An endpoint or a token as configured. The store does not look inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRow {
    pub name: String,
    pub source: Source,
    /// What it says, in the caller's form.
    pub value: String,
    /// Rises with every change of any row.
    pub revision: u64,
    pub updated_at: Timestamp,
    /// When its name came in: a row that was removed since and put in again is another one.
    pub made_at: Timestamp,
    /// When it was last used, as far as that was told.
    pub used_at: Option<Timestamp>,
}

/// What a [`super::Store::configure`] changed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigChange {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

/// What has to be in the place of a secret that is put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    Anything,
    Nothing,
}

/// What the events of an endpoint take, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSize {
    pub endpoint: EndpointName,
    pub waiting: u64,
    pub ended: u64,
}

/// How many webhooks the endpoints of a token had on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUse {
    /// Which token it is.
    pub token: String,
    /// Days since 1970, in UTC.
    pub day: u32,
    pub events: u64,
}

/// A signature that the relay made itself, by a digest of what was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSignature {
    pub digest: [u8; 32],
    /// From when on nobody takes it any more, to the second.
    pub expires_at: Timestamp,
}

/// A request that was refused. Never deliverable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    pub endpoint: EndpointName,
    /// The id that its sender was told.
    pub id: EventId,
    pub at: Timestamp,
    pub status: u16,
    /// Why, as a stable code.
    pub code: String,
    /// In the caller's form.
    pub head: String,
    /// The beginning of its body.
    pub body: Bytes,
}

impl RefusedRow {
    pub(super) fn bytes(&self) -> u64 {
        (self.head.len() + self.body.len()) as u64
    }
}

codes! {
    /// What a bulk action does to each event: the [`Action`] of the same name.
    BulkAction {
        Revive = "revive",
        Drop = "drop",
        Cancel = "cancel",
        Skip = "skip",
        Replay = "replay",
    }
}

/// A bulk action as it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkPlan {
    pub id: EventId,
    pub action: BulkAction,
    pub filter: Filter,
    /// How many events it was found to concern, where somebody counted.
    pub of: Option<u64>,
    /// It ends once it looked at so many.
    pub at_most: Option<u64>,
    /// Which token asked for it: it has [`MAX_BULKS_OF_ONE`] of them at a time.
    pub by: Option<String>,
}

impl BulkPlan {
    pub fn new(id: EventId, action: BulkAction, filter: Filter) -> Self {
        Self { id, action, filter, of: None, at_most: None, by: None }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Bulk {
    pub id: EventId,
    pub action: BulkAction,
    pub filter: Filter,
    pub of: Option<u64>,
    pub at_most: Option<u64>,
    pub by: Option<String>,
    /// When it was asked for; later events are left alone.
    pub created_at: Timestamp,
    pub cursor: Option<Cursor>,
    pub done: u64,
    /// Events that were in a state in which it could not be done.
    pub skipped: u64,
    pub finished: bool,
}

impl Bulk {
    /// How many events its next step may look at.
    pub(super) fn step(&self, most: usize) -> usize {
        let left = self.at_most.map_or(u64::MAX, |at_most| at_most.saturating_sub(self.done + self.skipped));
        usize::try_from(left).unwrap_or(usize::MAX).min(most)
    }

    /// A step is over, and the list goes on from there.
    pub(super) fn stepped(&mut self, next: Option<Cursor>) {
        self.finished = next.is_none() || self.step(1) == 0;
        self.cursor = next;
    }

    /// Whether what waits at an endpoint is to be skipped by this: until it is done, nothing of it is delivered.
    pub(super) fn holds_back(&self, endpoint: &EndpointName) -> bool {
        let endpoints = &self.filter.endpoints;
        self.action == BulkAction::Skip && !self.finished && (endpoints.is_empty() || endpoints.contains(endpoint))
    }
}

#[derive(Clone, Debug, Default)]
pub struct Purge {
    /// Events that ended at least this long ago are removed.
    pub retention: Duration,
    /// Open events that came at least this long ago become dead letters.
    pub pending_retention: Duration,
    /// While more space than this is used, events that ended are removed, the oldest first.
    pub max_bytes: u64,
    pub cursor: Option<PurgeCursor>,
}

/// Where a purge goes on. Only the store that gave it can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeCursor(pub(super) u128);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    pub removed: u64,
    pub expired: u64,
    pub evicted: u64,
    /// There is more to do; `None` ends the round.
    pub next: Option<PurgeCursor>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub bytes: u64,
    pub max_bytes: u64,
    /// What waits takes so much of it, and gives way to nothing.
    pub waiting_bytes: u64,
    /// Events found damaged by this process. Anything but 0 is an alarm.
    pub damaged: u64,
    pub commits: u64,
    pub calls: u64,
    /// Time that commits took, in microseconds, all together.
    pub commit_micros: u64,
}

/// The single action that a bulk one stands for; `fresh` is the id of a replay.
pub(super) fn single(action: BulkAction, fresh: EventId) -> Action {
    match action {
        BulkAction::Revive => Action::Revive,
        BulkAction::Drop => Action::Drop,
        BulkAction::Cancel => Action::Cancel,
        BulkAction::Skip => Action::Skip,
        BulkAction::Replay => Action::Replay(fresh, Signature::Auto),
    }
}

/// Whether one more bulk action may begin beside these open ones, given by who asked for each.
pub(super) fn admit_bulk<'a>(plan: &BulkPlan, open: impl Iterator<Item = Option<&'a str>>) -> Result<(), StoreError> {
    let (mut all, mut own) = (0, 0);
    for by in open {
        all += 1;
        own += usize::from(by.is_some() && by == plan.by.as_deref());
    }
    if own >= MAX_BULKS_OF_ONE {
        return Err(StoreError::TooManyBulks(own));
    }
    if all >= MAX_BULKS {
        let why = format!("{MAX_BULKS} bulk actions are still under way; wait until one of them is finished");
        return Err(StoreError::Invalid(why));
    }
    Ok(())
}

pub(super) fn new_bulk(plan: BulkPlan, now: Timestamp) -> Bulk {
    let BulkPlan { id, action, filter, of, at_most, by } = plan;
    Bulk { id, action, filter, of, at_most, by, created_at: now, cursor: None, done: 0, skipped: 0, finished: false }
}

/// The filter of a bulk action: what came after it was asked for is left alone, its own replays too.
pub(super) fn until_created(bulk: &Bulk) -> Filter {
    let until = bulk.filter.until.map_or(bulk.created_at, |until| until.min(bulk.created_at));
    Filter { until: Some(until), ..bulk.filter.clone() }
}

impl ConfigChange {
    pub(super) fn touches(&self, name: &str) -> bool {
        self.added.iter().chain(&self.changed).any(|one| one == name)
    }
}

/// What putting these rows in would change.
pub(super) fn plan(
    there: &[ConfigRow],
    source: Source,
    rows: &[(String, String)],
    all: bool,
) -> Result<ConfigChange, StoreError> {
    let mut change = ConfigChange::default();
    for (name, value) in rows {
        match there.iter().find(|row| row.name == *name) {
            None => change.added.push(name.clone()),
            Some(row) if row.source != source => return Err(StoreError::Clash(name.clone())),
            Some(row) if row.value != *value => change.changed.push(name.clone()),
            Some(_) => {}
        }
    }
    if all {
        let gone = |row: &&ConfigRow| row.source == source && !rows.iter().any(|(name, _)| *name == row.name);
        change.removed = there.iter().filter(gone).map(|row| row.name.clone()).collect();
    }
    Ok(change)
}
