//! Which wakes of a connection's task have something to do.
//!
//! hyper runs an HTTP/1.1 request on the task of its connection. Whenever the request takes a piece of its body, it wakes
//! that task to read the next one. After the last piece there is none, and the task would look at its socket and at all
//! that is under way once more for nothing: for each webhook. So [`ConnectionWaker`] stands between hyper and the task,
//! and [`held_back`] says who was woken in the course of a call, in the place of waking it.
//!
//! Invariants: only wakes of this thread are held back, and only as long as the call lasts; one of another task is never.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

#[derive(Default)]
enum Held {
    /// Nothing is held back.
    #[default]
    Off,
    Nobody,
    Woken(Waker),
}

thread_local! {
    static HELD: Cell<Held> = const { Cell::new(Held::Off) };
}

/// Does something, and returns whose wake it held back meanwhile.
pub(super) fn held_back<T>(call: impl FnOnce() -> T) -> (T, Option<Waker>) {
    /// A panic ends the holding back, too.
    struct Holding;

    impl Drop for Holding {
        fn drop(&mut self) {
            if let Held::Woken(waker) = HELD.take() {
                waker.wake();
            }
        }
    }

    HELD.set(Held::Nobody);
    let holding = Holding;
    let outcome = call();
    let woken = if let Held::Woken(waker) = HELD.take() { Some(waker) } else { None };
    drop(holding);
    (outcome, woken)
}

/// The waker that a connection is polled with: that of its task, unless its wakes are held back.
#[derive(Default)]
pub(crate) struct ConnectionWaker(Option<(Arc<TaskWaker>, Waker)>);

struct TaskWaker(Waker);

impl ConnectionWaker {
    pub(crate) fn poll<F: Future>(&mut self, connection: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.0.as_ref().is_none_or(|(task, _)| !task.0.will_wake(cx.waker())) {
            let task = Arc::new(TaskWaker(cx.waker().clone()));
            self.0 = Some((Arc::clone(&task), Waker::from(task)));
        }
        let waker = self.0.as_ref().map_or(cx.waker(), |(_, waker)| waker);
        connection.poll(&mut Context::from_waker(waker))
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match HELD.try_with(Cell::take).unwrap_or_default() {
            Held::Off => self.0.wake_by_ref(),
            Held::Nobody => HELD.set(Held::Woken(self.0.clone())),
            Held::Woken(earlier) => {
                if !earlier.will_wake(&self.0) {
                    self.0.wake_by_ref();
                }
                HELD.set(Held::Woken(earlier));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        panic::catch_unwind,
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A task, and the waker that its connection sees.
    fn task() -> (Arc<Count>, Waker) {
        let (count, mut seen) = (Arc::new(Count::default()), None);
        let mut connection = pin!(poll_fn(|cx| {
            seen = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        let waker = Waker::from(Arc::clone(&count));
        let polled = ConnectionWaker::default().poll(connection.as_mut(), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        (count, seen.expect("it was polled"))
    }

    #[test]
    fn a_wake_is_held_back_in_the_course_of_a_call_and_only_on_its_thread() {
        let (count, waker) = task();
        let woken = |times| assert_eq!(count.0.load(Ordering::SeqCst), times);
        waker.wake_by_ref();
        woken(1);
        let ((), held) = held_back(|| {
            waker.wake_by_ref();
            let own = waker.clone();
            own.wake();
        });
        woken(1);
        held.expect("it was woken").wake();
        woken(2);
        let ((), held) = held_back(|| thread::scope(|scope| drop(scope.spawn(|| waker.wake_by_ref()))));
        assert!(held.is_none());
        woken(3);
        let ((), held) = held_back(|| {});
        assert!(held.is_none());
        waker.wake();
        woken(4);
    }

    #[test]
    fn of_two_tasks_one_is_woken_at_once() {
        let ((one, first), (other, second)) = (task(), task());
        let ((), held) = held_back(|| {
            first.wake();
            second.wake();
        });
        held.expect("the first was woken").wake();
        assert_eq!((one.0.load(Ordering::SeqCst), other.0.load(Ordering::SeqCst)), (1, 1));
    }

    #[test]
    fn a_panic_loses_no_wake() {
        let (count, waker) = task();
        let woken = waker.clone();
        let panicked = catch_unwind(move || {
            held_back(|| {
                woken.wake();
                panic!("a test's own");
            })
        });
        assert!(panicked.is_err());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        waker.wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
    }
}
