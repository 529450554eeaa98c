//! News for those who watch, as server-sent events: rows as they change, and whole states of what is small.
//!
//! ```text
//! id: START-NUMBER
//! event: hello | rows | agents | endpoints | figures | resync | bye
//! data: one line of JSON
//! ```
//!
//! Knows no tokens and no listeners: whoever opens a stream says what may be seen, and is asked again while it lasts.
//! Invariants: a stream is a number into the journal and at most 200 more of them; it works only while its
//! reader takes what is there; there are so many at a time, and each ends with the relay.

mod batch;
mod feed;
mod rows;

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use axum::body::{Body, Bytes};
use futures_util::future::BoxFuture;
use relay_program::query::Query;
use tokio_util::sync::CancellationToken;

use self::feed::Feed;
use crate::{
    delivery::Delivery,
    failure::{ApiError, ApiErrorKind},
    journal::{Journal, Watching},
    store::Sight,
    tally::{Tallied, Tally},
};

/// NewsStreams at a time.
pub(crate) const MAX_STREAMS: usize = 64;

/// Of them, those of the admin listener.
pub(crate) const MAX_OF_ADMIN: usize = 16;

/// Of them, those of one token.
pub(crate) const MAX_OF_TOKEN: usize = 4;

/// Who opens a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StreamHolder {
    Admin,
    Token(Arc<str>),
}

/// What a stream tells.
pub(crate) struct NewsWanted {
    /// What may be seen now; `None` once nothing may be.
    pub sight: Box<dyn Fn() -> Option<Sight> + Send + Sync>,
    /// Rows that fit; without it none.
    pub rows: Option<Query>,
    /// Whole states, each told again when it has changed.
    pub states: Vec<WholeState>,
    /// The last id that the reader has.
    pub last_event_id: Option<String>,
}

/// Reads a state as far as it is in sight.
pub(crate) type ReadState = Box<dyn Fn(&Sight) -> BoxFuture<'static, String> + Send + Sync>;

/// A state that is told whole, such as the list of agents.
pub(crate) struct WholeState {
    pub event: &'static str,
    /// As one line of JSON.
    pub read: ReadState,
}

/// All streams of this relay.
pub(crate) struct NewsStreams {
    journal: Arc<Journal>,
    delivery: Arc<Delivery>,
    open: Arc<AtomicUsize>,
    of_holder: Tally<StreamHolder>,
    left_out: AtomicU64,
    closing: CancellationToken,
}

/// A place among the streams, until this is dropped.
struct Place {
    open: Arc<AtomicUsize>,
    _of_holder: Tallied<StreamHolder>,
    _watching: Watching,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NewsStreams {
    pub(crate) fn build(journal: &Arc<Journal>, delivery: &Arc<Delivery>) -> Arc<Self> {
        Arc::new(Self {
            journal: Arc::clone(journal),
            delivery: Arc::clone(delivery),
            open: Arc::default(),
            of_holder: Tally::default(),
            left_out: AtomicU64::new(0),
            closing: CancellationToken::new(),
        })
    }

    /// Ends all streams, each with a farewell, and opens no more that last.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Rows that were left out of streams, since there were too many.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// A stream, as the body of an answer of the type `text/event-stream`.
    pub(crate) fn open(self: &Arc<Self>, holder: StreamHolder, wanted: NewsWanted) -> Result<Body, ApiError> {
        let feed = Feed::new(Arc::clone(self), self.place(holder)?, wanted);
        Ok(Body::from_stream(futures_util::stream::unfold(feed, |mut feed| async {
            let chunk = Box::pin(feed.next()).await?;
            // It may wait for its reader, so it takes no more than it says.
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk.into_boxed_slice())), feed))
        })))
    }

    fn place(&self, holder: StreamHolder) -> Result<Place, ApiError> {
        let full = || {
            let why =
                "so many streams are open already; close one of them, such as another tab or another `event tail`";
            ApiError::new(ApiErrorKind::TooManyStreams, why)
        };
        let most = if holder == StreamHolder::Admin { MAX_OF_ADMIN } else { MAX_OF_TOKEN };
        let of_holder = self.of_holder.take(holder, most).ok_or_else(full)?;
        let more = |open: usize| (open < MAX_STREAMS).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| full())?;
        Ok(Place { open: Arc::clone(&self.open), _of_holder: of_holder, _watching: self.journal.watch() })
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
