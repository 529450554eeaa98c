//! Answers on their way from the writer's thread back to the runtimes that asked.
//!
//! To wake a task of another thread's runtime costs a system call. The answers of one commit are left here for each
//! runtime, which is woken once and hands them to its own tasks.

use std::{
    cell::OnceCell,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::runtime::Handle;

use super::calls::WriterCall;

thread_local! {
    /// Where the answers to this thread's calls are left.
    static HERE: OnceCell<Arc<Post>> = const { OnceCell::new() };
}

/// Calls of one thread that are done, until a task of its runtime has answered them.
pub(super) struct Post {
    done: Mutex<Vec<WriterCall>>,
    runtime: Handle,
}

impl Post {
    /// That of this thread; none if it belongs to no runtime.
    pub(super) fn here() -> Option<Arc<Self>> {
        let runtime = Handle::try_current().ok()?;
        let made = || Arc::new(Self { done: Mutex::default(), runtime });
        Some(HERE.with(|here| Arc::clone(here.get_or_init(made))))
    }

    /// Answers calls whose transaction is committed.
    pub(super) fn answer(mut calls: Vec<WriterCall>) {
        while let Some(first) = calls.first() {
            let post = first.post.clone();
            let of = post.as_ref().map(Arc::as_ptr);
            let others = calls.extract_if(.., |call| call.post.as_ref().map(Arc::as_ptr) != of).collect();
            match post {
                Some(post) => post.leave(calls),
                None => answer_all(calls),
            }
            calls = others;
        }
    }

    /// All of a commit at once: a runtime that is woken for the first would come back for each of the others.
    fn leave(self: &Arc<Self>, mut calls: Vec<WriterCall>) {
        let mut done = self.done();
        let is_first = done.is_empty();
        if is_first {
            *done = calls;
        } else {
            done.append(&mut calls);
        }
        drop(done);
        if is_first {
            let round = Round(Arc::clone(self));
            drop(self.runtime.spawn(async move { drop(round) }));
        }
    }

    fn done(&self) -> MutexGuard<'_, Vec<WriterCall>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What answers the calls that are left. A runtime that has ended drops it at once, and nothing stays unanswered.
struct Round(Arc<Post>);

impl Drop for Round {
    fn drop(&mut self) {
        let calls = mem::take(&mut *self.0.done());
        answer_all(calls);
    }
}

fn answer_all(calls: Vec<WriterCall>) {
    calls.into_iter().for_each(|call| call.work.answer(Ok(())));
}
