//! The state that an exchange's handles share with the driver: what they want of it, and what it has for them.
//!
//! It is state, not a queue of commands: a head, some body bytes, an end, a reset, a sum of bytes read.
//! Bodies are bounded by [`OUT_BYTES`] on the way out and by the session's credit on the way in.

use std::{
    any::Any,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::{Mutex, MutexGuard};
use relay_proto::{HeaderBlock, Pieces, RequestHead, ResetCode, ResponseHead, StreamId};
use thiserror::Error;

use crate::shared::Shared;

/// Body bytes that wait for the driver; a writer waits above it. One chunk may overshoot it.
pub(crate) const OUT_BYTES: usize = 64 * 1024;

/// A body that is whole and at most this long needs no more credit: its reader does not wake the driver for it.
pub(crate) const SHORT_BYTES: usize = 16 * 1024;

/// Why an exchange has no whole answer, or why its peer takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// The other side reset the stream.
    #[error("the exchange was reset: {0:?}")]
    Reset(ResetCode),
    /// The session ended underneath.
    #[error("the tunnel was lost")]
    SessionLost,
}

/// Something that lasts as long as an exchange.
pub type Ticket = Box<dyn Any + Send + Sync>;

pub(crate) struct Stream {
    shared: Arc<Shared>,
    _ticket: Ticket,
    state: Mutex<StreamState>,
}

#[derive(Default)]
pub(crate) struct StreamState {
    pub(crate) id: Option<StreamId>,
    /// Whether the stream stands in the driver's list.
    pub(crate) listed: bool,

    // From the handles to the driver.
    pub(crate) open: Option<RequestHead>,
    pub(crate) respond: Option<ResponseHead>,
    pub(crate) out: Pieces,
    pub(crate) finish: Option<HeaderBlock>,
    pub(crate) reset: Option<ResetCode>,
    /// Bytes read since the driver last looked.
    pub(crate) read_bytes: usize,
    /// The body is whole and short: the session took it for read when it had come.
    pub(crate) is_read: bool,
    /// The reader is gone; what still comes is read by nobody.
    pub(crate) discard: bool,

    // From the driver to the handles.
    pub(crate) response: Option<ResponseHead>,
    pub(crate) body: Pieces,
    pub(crate) end: Option<HeaderBlock>,
    pub(crate) broken: Option<Broken>,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,

    /// This side's direction was handed to the session whole.
    pub(crate) sent: bool,
    /// The other side's direction has arrived whole.
    pub(crate) received: bool,
}

impl StreamState {
    pub(crate) fn over(&self) -> bool {
        self.broken.is_some() || self.reset.is_some()
    }

    pub(crate) fn reader(&mut self) -> &mut Option<Waker> {
        &mut self.reader
    }

    pub(crate) fn writer(&mut self) -> &mut Option<Waker> {
        &mut self.writer
    }

    pub(crate) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Leaves word of who waits, which mostly is who did before.
pub(crate) fn wake_later(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        empty => *empty = Some(cx.waker().clone()),
    }
}

impl Stream {
    /// A stream whose state is filled in where it stays: it is long to copy.
    pub(crate) fn new(shared: Arc<Shared>, ticket: Ticket, fill: impl FnOnce(&mut StreamState)) -> Arc<Self> {
        let stream = Arc::new(Self { shared, _ticket: ticket, state: Mutex::default() });
        fill(&mut stream.lock());
        stream
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock()
    }

    /// Waits for what `look` finds. `waker` is where the driver finds who waits.
    pub(crate) async fn wait<T>(
        &self,
        waker: fn(&mut StreamState) -> &mut Option<Waker>,
        look: impl Fn(&mut StreamState) -> Option<T>,
    ) -> T {
        poll_fn(|cx| {
            let mut state = self.lock();
            let Some(found) = look(&mut state) else {
                wake_later(waker(&mut state), cx);
                return Poll::Pending;
            };
            Poll::Ready(found)
        })
        .await
    }

    /// Changes the state and wakes the driver for it.
    pub(crate) fn update<T>(self: &Arc<Self>, change: impl FnOnce(&mut StreamState) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let list = !std::mem::replace(&mut state.listed, true);
        drop(state);
        if list {
            self.shared.list(Arc::clone(self));
        }
        result
    }

    /// Breaks the exchange off, once.
    pub(crate) fn reset(self: &Arc<Self>, code: ResetCode) {
        if self.lock().over() {
            return;
        }
        self.update(|state| {
            state.reset = Some(code);
            state.broken = Some(Broken::Reset(code)); // For the handles on this side.
            state.out.clear();
            state.wake();
        });
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.leave();
    }
}
