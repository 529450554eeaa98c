//! One exchange's mailbox: what its handles want from the driver, and what the driver has for them.
//!
//! State, not a queue of commands: a head, some body bytes, an end, a reset, a sum of bytes read.
//! Bodies are bounded by [`OUT_BYTES`] on the way out and by the session's credit on the way in.

use std::{
    any::Any,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use relay_proto::{HeaderBlock, Pieces, RequestHead, ResetCode, ResponseHead, StreamId};
use thiserror::Error;

use crate::mailroom::Mailroom;

/// Body bytes that wait for the driver; a writer waits above it. One chunk may overshoot it.
pub(crate) const OUT_BYTES: usize = 64 * 1024;

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

pub(crate) struct Mailbox {
    room: Arc<Mailroom>,
    _ticket: Ticket,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) id: Option<StreamId>,
    /// Whether the mailbox stands in the mailroom's list.
    pub(crate) listed: bool,

    // From the handles to the driver.
    pub(crate) open: Option<RequestHead>,
    pub(crate) respond: Option<ResponseHead>,
    pub(crate) out: Pieces,
    pub(crate) finish: Option<HeaderBlock>,
    pub(crate) reset: Option<ResetCode>,
    /// Bytes read since the driver last looked.
    pub(crate) read_bytes: usize,
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

impl State {
    pub(crate) fn over(&self) -> bool {
        self.broken.is_some() || self.reset.is_some()
    }

    pub(crate) fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Mailbox {
    pub(crate) fn new(room: Arc<Mailroom>, ticket: Ticket, state: State) -> Arc<Self> {
        Arc::new(Self { room, _ticket: ticket, state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and has the driver look at it.
    pub(crate) fn put<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = change(&mut state);
        let list = !std::mem::replace(&mut state.listed, true);
        drop(state);
        if list {
            self.room.list(Arc::clone(self));
        }
        result
    }

    /// Breaks the exchange off, once.
    pub(crate) fn reset(self: &Arc<Self>, code: ResetCode) {
        if self.lock().over() {
            return;
        }
        self.put(|state| {
            state.reset = Some(code);
            state.broken = Some(Broken::Reset(code)); // For the handles on this side.
            state.out.clear();
            state.wake();
        });
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.room.leave();
    }
}
