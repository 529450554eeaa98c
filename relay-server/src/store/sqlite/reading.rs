//! Events with what they carry, wherever their rows and contents stand; what cannot be read is set apart.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    SqliteStore, attempts,
    calls::Kind,
    content::Shelves,
    listing,
    log::LogPlace,
    operator_actions::{self, Unread},
    row::Found,
    tx::Tx,
};
use crate::{
    hops::Hops,
    store::{Attempt, ClaimedEvent, End, INLINE_BYTES, Lease, Outcome, Sight, Store as _, StoreError, Summary, Then},
    webhook::EventId,
};

impl SqliteStore {
    /// Finds one event in sight, with its attempts, wherever its row is.
    pub(super) async fn find(&self, sight: Sight, id: EventId) -> Result<Option<(Found, Vec<Attempt>)>, StoreError> {
        let asked = sight.clone();
        let found = self.write(Kind::Upkeep, 0, move |tx| {
            let names = match &asked {
                Sight::All => tx.known.names(tx.connection)?,
                Sight::Only(names) => names.clone(),
            };
            for name in names {
                let Some(key) = tx.endpoint(&name)? else { continue };
                if let Some(found) = tx.load(&name, key, id)? {
                    return Ok(Some((found, tx.attempts(key, id)?)));
                }
            }
            Ok(None)
        });
        let found = found.await;
        // Of a failed store people can still see what is in its tables.
        if found.is_ok() || !self.has_failed() {
            return found;
        }
        let read = move |connection: &rusqlite::Connection| {
            let Some((key, found)) = listing::find(connection, &sight, id)? else { return Ok(None) };
            Ok(Some((found, attempts::read(connection, key, id)?)))
        };
        self.read(read).await
    }

    /// Reads what leased events carry; what is damaged is set apart.
    pub(super) async fn load(
        &self,
        events: Vec<(Found, Lease)>,
        now: Timestamp,
    ) -> Result<Vec<ClaimedEvent>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let (leased, shelves) = (events.clone(), self.shared.shelves.clone());
        let read = self.read(move |_| {
            let one = |(found, lease): (Found, Lease)| {
                let content = shelves.read(&found, true).ok();
                (found.row.summary, found.place, lease, content)
            };
            Ok(events.into_iter().map(one).collect::<Vec<_>>())
        });
        let loaded = match read.await {
            Ok(loaded) => loaded,
            Err(error) => {
                self.give_back(leased, now).await?;
                return Err(error);
            }
        };
        let mut deliveries = Vec::new();
        for (summary, place, lease, content) in loaded {
            match content {
                Some(content) => {
                    let body = content.body.filter(|body| body.len() as u64 <= INLINE_BYTES);
                    deliveries.push(ClaimedEvent { summary, lease, head: content.head, body });
                }
                // What was moved is delivered once its lease has ended.
                None => drop(self.set_apart(&summary, place, now).await?),
            }
        }
        Ok(deliveries)
    }

    /// Nobody will deliver these now.
    pub(super) async fn give_back(&self, leased: Vec<(Found, Lease)>, now: Timestamp) -> Result<(), StoreError> {
        let end = |(found, lease): (Found, Lease)| End {
            endpoint: found.row.summary.endpoint,
            id: found.row.summary.id,
            attempt: Attempt {
                number: lease.attempt,
                fence: lease.fence,
                started_at: now,
                duration: Duration::ZERO,
                outcome: Outcome::NotCalled,
                agent: None,
                answer: None,
                resigned: false,
                sha256_in: None,
                hops: Hops::default(),
            },
            then: Then::Release(now),
        };
        self.settle(leased.into_iter().map(end).collect(), now).await?;
        Ok(())
    }

    /// Sets an event apart whose content could not be read where it stood, if it still stands there.
    pub(super) async fn set_apart(
        &self,
        summary: &Summary,
        stood: LogPlace,
        now: Timestamp,
    ) -> Result<Unread, StoreError> {
        let (endpoint, id) = (summary.endpoint.clone(), summary.id);
        let apart = move |tx: &mut Tx<'_>| operator_actions::set_apart(tx, &endpoint, id, stood, now);
        let unread = self.write(Kind::Upkeep, 64, apart).await?;
        if unread == (Unread::Damaged { is_new: true }) {
            let endpoint = &summary.endpoint;
            tracing::error!(event = %id, %endpoint, "an event is damaged; it is set apart and not delivered");
        }
        Ok(unread)
    }

    /// Has a thread read what an event carries, and looks again if it stands elsewhere meanwhile.
    pub(super) async fn read_content<T, F>(
        &self,
        sight: Sight,
        id: EventId,
        now: Timestamp,
        read: F,
    ) -> Result<Option<(Found, Vec<Attempt>, T)>, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Shelves, &Found) -> Result<T, StoreError> + Clone + Send + 'static,
    {
        loop {
            let Some((found, attempts)) = self.find(sight.clone(), id).await? else { return Ok(None) };
            let (shelves, stood, read) = (self.shared.shelves.clone(), found.clone(), read.clone());
            match self.read(move |_| read(&shelves, &stood)).await {
                Ok(content) => return Ok(Some((found, attempts, content))),
                Err(error @ StoreError::Damaged(_)) => {
                    match self.set_apart(&found.row.summary, found.place, now).await? {
                        Unread::Gone => return Ok(None),
                        Unread::Moved => {}
                        Unread::Damaged { .. } => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}
