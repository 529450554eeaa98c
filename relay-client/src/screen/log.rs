//! Where the log goes while the view has the terminal.
//!
//! The log's writer is the process's, so this is, too. A line that finds no room is dropped: the log never waits.

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::news::News;

static VIEW: Mutex<Option<mpsc::Sender<News>>> = Mutex::new(None);

/// From now on lines go to the view.
pub(super) fn begin(news: mpsc::Sender<News>) {
    *VIEW.lock() = Some(news);
}

pub(super) fn end() {
    *VIEW.lock() = None;
}

/// Takes a line for the view; false if there is none.
pub(crate) fn line(bytes: &[u8]) -> bool {
    let view = VIEW.lock();
    let Some(news) = view.as_ref() else { return false };
    let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
    !matches!(news.try_send(News::Logged(text)), Err(mpsc::error::TrySendError::Closed(_)))
}
