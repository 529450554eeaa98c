//! The streams of HTTP/2 connections: each runs as a task, and one whose peer takes nothing is ended.
//!
//! Below HTTP/2 a connection may go on while one of its streams stands still: its peer gives it no window, answers pings
//! and keeps its answer, its exchange and its handler. hyper does not tell, but while it waits for window it asks neither
//! for the answer nor for more of it. So a stream that waits, and not for this relay, is given a time, and then reset.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};

use crate::log::LogScope;

tokio::task_local! {
    static ASKED: Cell<Asked>;
}

/// What hyper asked this relay for in one turn of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// For a piece of the answer, and it got one.
    Answered,
    /// For what is not there yet.
    Waits,
}

/// hyper asks for the answer or a piece of it, and gets this.
pub(super) fn asked<T>(polled: Poll<T>) -> Poll<T> {
    let asked = if polled.is_pending() { Asked::Waits } else { Asked::Answered };
    // Over HTTP/1.1 there are no streams; a write that stands still is the socket's to end.
    let _ = ASKED.try_with(|cell| cell.set(asked));
    polled
}

/// Runs streams, each for as long as its peer takes something within `patience`.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    pub(super) patience: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let stream = ASKED.scope(Cell::new(Asked::Nothing), run(stream, self.patience));
        drop(tokio::spawn(LogScope::current().around(stream)));
    }
}

/// Dropping a stream resets it.
async fn run<F: Future>(stream: F, patience: Duration) {
    let mut stream = pin!(stream);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let stands_still = poll_fn(|cx| {
        ASKED.with(|cell| cell.set(Asked::Nothing));
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        match ASKED.with(Cell::get) {
            Asked::Waits => {
                timer = None;
                return Poll::Pending;
            }
            Asked::Answered => timer = None,
            Asked::Nothing => {}
        }
        timer.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx).map(|()| true)
    });
    if stands_still.await {
        tracing::debug!("a stream was reset whose peer takes nothing");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{
        sync::mpsc,
        time::{Instant, advance},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A stream as hyper runs it: window first, then a piece of the answer.
    fn stream(mut window: mpsc::Receiver<()>, mut pieces: mpsc::Receiver<()>, sent: Arc<AtomicUsize>) -> impl Future {
        async move {
            while window.recv().await.is_some() {
                if poll_fn(|cx| asked(pieces.poll_recv(cx))).await.is_none() {
                    return;
                }
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_wait_for_its_answer_and_not_for_its_peer() {
        let (give, window) = mpsc::channel(8);
        let (tell, pieces) = mpsc::channel(8);
        let sent = Arc::new(AtomicUsize::new(0));
        let scoped = ASKED.scope(Cell::new(Asked::Nothing), run(stream(window, pieces, Arc::clone(&sent)), PATIENCE));
        let running = tokio::spawn(scoped);
        give.send(()).await.unwrap();
        advance(10 * PATIENCE).await;
        assert!(!running.is_finished(), "the handler is slow");
        let began = Instant::now();
        for _ in 0..5 {
            tell.send(()).await.unwrap();
            advance(PATIENCE - Duration::from_secs(1)).await;
            give.send(()).await.unwrap();
            advance(Duration::ZERO).await;
        }
        assert!(!running.is_finished(), "its peer takes a little");
        tell.send(()).await.unwrap();
        running.await.unwrap();
        assert_eq!(sent.load(Ordering::SeqCst), 6);
        assert!(began.elapsed() >= 6 * PATIENCE - Duration::from_secs(5), "its peer took nothing more");
    }
}
