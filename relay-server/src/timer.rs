//! A timer for all that one connection waits for, which moves as rarely as it can.
//!
//! An HTTP/1.1 connection waits at nearly every moment: for the next head, then for an answer. What it waits for mostly
//! comes long before its time is over, and a timer of the runtime for each wait costs a place in its wheel each time. So
//! one stands for them all. It stays where it is as long as it strikes before the moment that is waited for, and moves
//! there when it has struck too early: once in so many seconds as the shortest wait has, in the place of twice for each
//! webhook.
//!
//! Invariant: all who wait with one timer are polled by one task, which is woken at the first of their moments or before.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::rt;
use parking_lot::Mutex;
use tokio::{
    task::coop::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

#[derive(Clone, Debug, Default)]
pub(crate) struct SharedTimer(Arc<Mutex<Option<Armed>>>);

#[derive(Debug)]
struct Armed {
    sleep: Pin<Box<Sleep>>,
    /// The task that it wakes.
    task: Waker,
}

impl SharedTimer {
    /// Whether this moment has come. If not, the task is polled again by then.
    fn poll_until(&self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut armed = self.0.lock();
        if let Some(Armed { sleep, task }) = &*armed
            && !sleep.is_elapsed()
            && sleep.deadline() <= until
            && task.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        if until <= Instant::now() {
            return Poll::Ready(());
        }
        let new = || Armed { sleep: Box::pin(sleep_until(until)), task: cx.waker().clone() };
        let Armed { sleep, task } = armed.get_or_insert_with(new);
        task.clone_from(cx.waker());
        if sleep.is_elapsed() || sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        // A task that has used its turn up must be registered, too: it is not asked again.
        pin!(unconstrained(sleep.as_mut())).poll(cx)
    }

    /// What a future gives before this moment.
    pub(crate) async fn timeout_at<F: Future>(&self, until: Instant, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll_until(until, cx).map(|()| None),
        })
        .await
    }
}

/// hyper's waits for heads.
impl rt::Timer for SharedTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, until: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Wait { timer: self.clone(), until: until.into() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

struct Wait {
    timer: SharedTimer,
    until: Instant,
}

impl rt::Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.poll_until(self.until, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use hyper::rt::Timer as _;
    use tokio::time::{sleep, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_its_own_moment_whatever_was_waited_for_before() {
        let timer = SharedTimer::default();
        for seconds in [30, 5, 30, 1, 7, 7] {
            let began = Instant::now();
            let waited = timer.timeout_at(began + seconds * SECOND, pending::<()>()).await;
            assert_eq!((waited, began.elapsed()), (None, seconds * SECOND));
            let head = timer.sleep(seconds * SECOND);
            assert!(timeout(seconds * SECOND - SECOND / 2, head).await.is_err());
            let head = timer.sleep(seconds * SECOND);
            head.await;
            assert_eq!(began.elapsed(), 3 * seconds * SECOND - SECOND / 2);
            assert_eq!(timer.timeout_at(began, pending::<()>()).await, None, "it is over already");
            assert_eq!(timer.timeout_at(began, async { 7 }).await, Some(7), "what is there is given");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_stays_where_it_is_while_it_strikes_early_enough() {
        let timer = SharedTimer::default();
        let began = Instant::now();
        let strikes = || timer.0.lock().as_ref().map(|armed| armed.sleep.deadline() - began);
        for _ in 0..100 {
            assert_eq!(timer.timeout_at(Instant::now() + 30 * SECOND, sleep(SECOND / 10)).await, Some(()));
            assert_eq!(strikes(), Some(30 * SECOND));
        }
        assert!(timer.timeout_at(began + 11 * SECOND, pending::<()>()).await.is_none());
        assert_eq!(strikes(), Some(11 * SECOND), "an earlier moment moves it");
        assert_eq!(timer.timeout_at(began + 60 * SECOND, sleep(SECOND)).await, Some(()));
        assert_eq!(strikes(), Some(60 * SECOND), "and its strike");
    }

    #[tokio::test(start_paused = true)]
    async fn two_who_wait_at_once_are_each_woken() {
        let timer = SharedTimer::default();
        let began = Instant::now();
        let one = async {
            timer.timeout_at(began + 9 * SECOND, pending::<()>()).await;
            began.elapsed()
        };
        let other = async {
            timer.timeout_at(began + 4 * SECOND, pending::<()>()).await;
            began.elapsed()
        };
        assert_eq!(tokio::join!(one, other), (9 * SECOND, 4 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn another_task_may_take_it_over() {
        let timer = SharedTimer::default();
        let began = Instant::now();
        assert!(timer.timeout_at(began + 30 * SECOND, sleep(SECOND)).await.is_some());
        let other = timer.clone();
        let waited = tokio::spawn(async move { other.timeout_at(began + 60 * SECOND, pending::<()>()).await });
        assert_eq!((waited.await.expect("it ends"), began.elapsed()), (None, 60 * SECOND));
    }
}
