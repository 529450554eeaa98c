//! Rows of the audit log: who did what, to what, when, from where, and how it ended.
//!
//! A row is written before its action begins and gets its result once. Nothing here holds a secret or what senders
//! wrote; who fills a row sees to that. Rows go by their age, and of whom has the most: so a crowd outside, or a token
//! that does something again and again, pushes out its own rows, and not those of others.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::MAX_PAGE;

/// What rows are of, for what gives way: beside those of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditClass {
    /// What people and programs with a token did, and the relay's own starts.
    Actions,
    /// What agents did.
    Agents,
    /// What was refused.
    Refused,
}

impl AuditClass {
    const ALL: [Self; 3] = [Self::Actions, Self::Agents, Self::Refused];

    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Actions => 0,
            Self::Agents => 1,
            Self::Refused => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|class| class.code() == code).unwrap_or(Self::Actions)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Microseconds since 1970, or as much more as it takes to be no other's.
    pub id: u64,
    pub class: AuditClass,
    /// `admin`, `session`, `token`, `agent`, `nobody` or `relay`.
    pub kind: String,
    /// The token's name, or what stands for it.
    pub name: String,
    /// Which token it was.
    pub token: Option<String>,
    pub address: Option<String>,
    pub action: String,
    /// To what it was done.
    pub object: Option<String>,
    /// `ok`, or why not; `None` until it is known.
    pub result: Option<String>,
    pub detail: Option<String>,
    /// For how many alike it stands.
    pub count: u64,
}

/// Whose rows give way together.
pub(super) type AuditHolder = (u8, String);

/// The holder that takes the most.
pub(super) fn largest(kept: &BTreeMap<AuditHolder, u64>) -> Option<&AuditHolder> {
    kept.iter().max_by_key(|(_, bytes)| **bytes).map(|(holder, _)| holder)
}

/// What a row takes beside its texts, roughly.
const BESIDE_BYTES: u64 = 48;

/// A row that waited longer than this for its place says so, in microseconds.
const LONG_US: u64 = 2_000_000;

impl AuditRow {
    pub(super) fn bytes(&self) -> u64 {
        let maybe = [&self.token, &self.address, &self.object, &self.result, &self.detail];
        let texts = [&self.kind, &self.name, &self.action].map(|text| text.len());
        let texts = texts.into_iter().chain(maybe.into_iter().flatten().map(String::len));
        BESIDE_BYTES + texts.sum::<usize>() as u64
    }

    /// The same row under the id that it has in the log. One that waited for long says since when.
    pub(crate) fn dated(mut self, id: u64) -> Self {
        if id.saturating_sub(self.id) > LONG_US {
            let since = format!("noted at {}", self.at());
            self.detail = Some(self.detail.map_or_else(|| since.clone(), |detail| format!("{since}; {detail}")));
        }
        Self { id, ..self }
    }

    pub(super) fn holder(&self) -> AuditHolder {
        (self.class.code(), self.name.clone())
    }

    /// When it was.
    pub fn at(&self) -> Timestamp {
        i64::try_from(self.id).ok().and_then(|id| Timestamp::from_microsecond(id).ok()).unwrap_or(Timestamp::MAX)
    }
}

/// The id of the first row that can be of this time.
pub fn audit_id(at: Timestamp) -> u64 {
    u64::try_from(at.as_microsecond()).unwrap_or(0)
}

/// Which rows a page has. Texts are compared whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub name: Option<String>,
    pub action: Option<String>,
    pub object: Option<String>,
    /// The last row of the page before.
    pub after: Option<u64>,
    pub oldest_first: bool,
    pub limit: usize,
}

impl AuditFilter {
    pub(super) fn limit(&self) -> usize {
        self.limit.clamp(1, MAX_PAGE)
    }

    /// The ids between which rows are: from the first to the last one.
    pub(super) fn range(&self) -> (u64, u64) {
        let mut from = self.since.map_or(0, audit_id);
        let mut to = self.until.map_or(u64::MAX >> 1, |until| audit_id(until).saturating_sub(1));
        match self.after {
            Some(after) if self.oldest_first => from = from.max(after.saturating_add(1)),
            Some(after) => to = to.min(after.saturating_sub(1)),
            None => {}
        }
        (from, to)
    }

    pub(super) fn passes(&self, row: &AuditRow) -> bool {
        let is = |wanted: &Option<String>, text: Option<&str>| wanted.as_deref().is_none_or(|it| text == Some(it));
        is(&self.name, Some(&row.name))
            && is(&self.action, Some(&row.action))
            && is(&self.object, row.object.as_deref())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    pub rows: Vec<AuditRow>,
    /// Where to go on; `None`: there is no more.
    pub next: Option<u64>,
}
