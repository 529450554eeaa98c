//! What all exchanges of one tunnel share with its driver: who wants attention, how many there are,
//! and what is wanted of the tunnel as a whole.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use relay_proto::{CloseCode, HeaderBlock, Notice, OpenError, Outcome, RequestHead, limits::MAX_OUTCOMES};

use crate::{
    exchange::{Exchange, Request, ResponseFuture},
    stream::{Stream, Ticket, wake_later},
};

/// Notices that wait for a reader or for the driver; beyond this the oldest is dropped.
const MAX_NOTICES: usize = 64;

#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<SharedState>,
}

#[derive(Default)]
pub(crate) struct SharedState {
    /// Streams that want the driver's attention, each at most once.
    pub(crate) listed: Vec<Arc<Stream>>,
    pub(crate) driver: Option<Waker>,
    pub(crate) in_flight: u32,
    pub(crate) capacity: u32,
    pub(crate) open: bool,
    pub(crate) peer_draining: bool,
    pub(crate) round_trip: Option<Duration>,

    // What the handles want of the tunnel.
    pub(crate) notices: VecDeque<Notice>,
    pub(crate) outcomes: VecDeque<Outcome>,
    pub(crate) probe: bool,
    pub(crate) drain: bool,
    pub(crate) close: Option<CloseRequest>,

    // What the driver has for the reader of arrivals.
    arrivals: VecDeque<Arrival>,
    reader: Option<Waker>,
}

pub(crate) struct CloseRequest {
    pub(crate) code: CloseCode,
    pub(crate) reason: String,
    pub(crate) when_idle: bool,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock()
    }

    pub(crate) fn list(&self, stream: Arc<Stream>) {
        self.command(|state| state.listed.push(stream));
    }

    pub(crate) fn leave(&self) {
        let mut state = self.lock();
        state.in_flight -= 1;
        let driver = if state.close.is_some() { state.driver.take() } else { None };
        drop(state);
        wake(driver);
    }

    /// Changes what is wanted of the tunnel, and wakes the driver without the lock: it would wait for that at once.
    fn command(&self, change: impl FnOnce(&mut SharedState)) {
        let mut state = self.lock();
        change(&mut state);
        let driver = state.driver.take();
        drop(state);
        wake(driver);
    }

    /// Hands an arrival to its reader; false when nobody reads them fast enough.
    pub(crate) fn arrive(&self, arrival: Arrival) -> bool {
        let mut state = self.lock();
        let waiting = state.arrivals.len();
        let full = match &arrival {
            Arrival::Request(_) => waiting >= state.capacity as usize + MAX_NOTICES,
            // The session ends a peer that sends more of them.
            Arrival::Outcome(_) => waiting >= MAX_OUTCOMES + MAX_NOTICES,
            Arrival::Notice(_) | Arrival::Draining | Arrival::Answered => waiting >= MAX_NOTICES,
        };
        if !full {
            state.arrivals.push_back(arrival);
            wake(state.reader.take());
        }
        !full
    }

    /// The tunnel is over: nothing opens, nothing arrives any more.
    pub(crate) fn shut(&self) {
        let mut state = self.lock();
        state.open = false;
        wake(state.reader.take());
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A handle to a whole tunnel. Cheap to clone; it does not keep the tunnel alive.
#[derive(Clone, Debug)]
pub struct Handle(pub(crate) Arc<Shared>);

impl Handle {
    /// Relay: opens an exchange. Its request goes out with the driver's next message.
    ///
    /// # Errors
    /// As [`Handle::reserve`].
    pub fn open(&self, head: RequestHead) -> Result<Exchange, OpenError> {
        Ok(self.reserve()?.open(head, Box::new(())))
    }

    /// Relay: the right to open one more exchange.
    ///
    /// # Errors
    /// [`OpenError`] when the tunnel is closed or draining, or as many exchanges as the agent takes
    /// are in flight.
    pub fn reserve(&self) -> Result<Slot, OpenError> {
        let mut state = self.0.lock();
        if !state.open {
            return Err(OpenError::Closed);
        }
        if state.peer_draining {
            return Err(OpenError::Draining);
        }
        if state.in_flight >= state.capacity {
            return Err(OpenError::Busy);
        }
        state.in_flight += 1;
        drop(state);
        Ok(Slot { shared: Some(Arc::clone(&self.0)) })
    }

    /// Tells the agent's user something; may be lost.
    pub fn notify(&self, notice: Notice) {
        self.0.command(|state| {
            if state.notices.len() >= MAX_NOTICES {
                state.notices.pop_front();
            }
            state.notices.push_back(notice);
        });
    }

    /// Agent: reports an attempt that an earlier session carried. `false`: this tunnel takes no more.
    pub fn report(&self, outcome: Outcome) -> bool {
        let mut state = self.0.lock();
        if !state.open || state.outcomes.len() >= MAX_OUTCOMES {
            return false;
        }
        state.outcomes.push_back(outcome);
        let driver = state.driver.take();
        drop(state);
        wake(driver);
        true
    }

    /// Asks the other side for a sign of life; [`Arrival::Answered`] comes with it.
    pub fn probe(&self) {
        self.0.command(|state| state.probe = true);
    }

    /// Announces a planned stop.
    pub fn drain(&self) {
        self.0.command(|state| state.drain = true);
    }

    /// Ends the tunnel now; exchanges in flight break.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.ask_to_close(CloseRequest { code, reason: reason.to_owned(), when_idle: false });
    }

    /// Ends the tunnel as soon as no exchange is in flight.
    pub fn close_when_idle(&self, code: CloseCode, reason: &str) {
        self.ask_to_close(CloseRequest { code, reason: reason.to_owned(), when_idle: true });
    }

    fn ask_to_close(&self, request: CloseRequest) {
        self.0.command(|state| state.close = Some(request));
    }

    /// Exchanges in flight, as the handles hold them.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.lock().in_flight
    }

    /// How long the last heartbeat took to the other side and back; `None` before the first one.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.0.lock().round_trip
    }

    /// Whether exchanges can be opened: the tunnel is up and the agent is not draining.
    #[must_use]
    pub fn takes_exchanges(&self) -> bool {
        let state = self.0.lock();
        state.open && !state.peer_draining
    }
}

/// The right to open one exchange; counted among those in flight until it is used or dropped.
#[derive(Debug)]
pub struct Slot {
    shared: Option<Arc<Shared>>,
}

impl Slot {
    /// Opens the exchange. `ticket` is dropped when the exchange is over for the tunnel and for every handle.
    #[must_use]
    pub fn open(mut self, head: RequestHead, ticket: Ticket) -> Exchange {
        let shared = self.shared.take().expect("taken only here");
        let stream = Stream::new(shared, ticket, |state| state.open = Some(head));
        stream.update(|_| ());
        Exchange::new(&stream)
    }

    /// Opens the exchange with a request whose body is there: of `MAX_CHUNK_BYTES` at most, as any that waits here.
    #[must_use]
    pub fn open_whole(mut self, head: RequestHead, body: Bytes, ticket: Ticket) -> ResponseFuture {
        let shared = self.shared.take().expect("taken only here");
        let stream = Stream::new(shared, ticket, |state| {
            state.open = Some(head);
            state.out.push(body);
            state.finish = Some(HeaderBlock::new());
        });
        stream.update(|_| ());
        ResponseFuture::new(&stream)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.leave();
        }
    }
}

/// Something that came over the tunnel.
#[derive(Debug)]
pub enum Arrival {
    /// Agent: a request to answer.
    Request(Request),
    /// Agent: a line for the user.
    Notice(Notice),
    /// Relay: what became of an attempt that an earlier session of this agent carried.
    Outcome(Outcome),
    /// The other side has answered [`Handle::probe`].
    Answered,
    /// The other side plans to stop.
    Draining,
}

/// The reader of what comes over a tunnel.
#[derive(Debug)]
pub struct Arrivals(pub(crate) Arc<Shared>);

impl Arrivals {
    /// The next arrival; `None` once the tunnel is over.
    pub async fn next(&mut self) -> Option<Arrival> {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if let Some(arrival) = state.arrivals.pop_front() {
                return Poll::Ready(Some(arrival));
            }
            if !state.open {
                return Poll::Ready(None);
            }
            wake_later(&mut state.reader, cx);
            Poll::Pending
        })
        .await
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        // Outside the lock: a request that nobody took resets its stream as it goes.
        let unread = std::mem::take(&mut self.0.lock().arrivals);
        drop(unread);
    }
}
