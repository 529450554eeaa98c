//! Answers on their way from the writer's thread back to the runtimes that asked.
//!
//! To wake a task of another thread's runtime costs a system call. The answers of one commit are left here for each
//! runtime, which is woken once and hands them to its own tasks.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{runtime::Handle, sync::Notify};

use super::writer::WriterCall;

thread_local! {
    /// Where the answers to this thread's calls are left.
    static HERE: RefCell<Option<Arc<Post>>> = const { RefCell::new(None) };
}

/// Calls of one thread that are done, until a task of its runtime has answered them.
pub(super) struct Post {
    /// `None` once the runtime has ended.
    done: Mutex<Option<Vec<WriterCall>>>,
    left: Notify,
}

impl Post {
    /// That of this thread; none if it belongs to no runtime.
    pub(super) fn here() -> Option<Arc<Self>> {
        HERE.with_borrow_mut(|here| {
            if here.as_ref().is_none_or(|post| post.done().is_none()) {
                let runtime = Handle::try_current().ok()?;
                let post = Arc::new(Self { done: Mutex::new(Some(Vec::new())), left: Notify::new() });
                runtime.spawn(Round(Arc::clone(&post)).run());
                *here = Some(post);
            }
            here.clone()
        })
    }

    /// Answers calls whose transaction is committed.
    pub(super) fn answer(calls: Vec<WriterCall>) {
        for call in calls {
            match call.post.clone() {
                Some(post) => post.leave(call),
                None => call.work.answer(Ok(())),
            }
        }
    }

    fn leave(&self, call: WriterCall) {
        let mut done = self.done();
        let Some(calls) = &mut *done else { return };
        calls.push(call);
        let is_first = calls.len() == 1;
        drop(done);
        if is_first {
            self.left.notify_one();
        }
    }

    fn done(&self) -> MutexGuard<'_, Option<Vec<WriterCall>>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that answers. It ends with its runtime.
struct Round(Arc<Post>);

impl Round {
    async fn run(self) {
        loop {
            self.0.left.notified().await;
            let calls = self.0.done().as_mut().map(std::mem::take).unwrap_or_default();
            calls.into_iter().for_each(|call| call.work.answer(Ok(())));
        }
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let _unanswered = self.0.done().take();
    }
}
