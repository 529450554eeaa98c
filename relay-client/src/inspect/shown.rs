//! Results of a shadow run on the agent's page: `diff` brings them to the pages of the same user, and they are kept until
//! newer ones make room.
//!
//! Invariants: at most [`MAX_KEPT`] results are kept, each of bounded texts.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use parking_lot::Mutex;
use relay_program::{
    api::{ShadowDiff, ShadowDiffs},
    http1::{Connection, bearer},
};
use tokio::{net::TcpStream, time::timeout};

use crate::config::find::Places;

const MAX_KEPT: usize = 1000;
/// Texts of one result, in bytes; a page is told no more of it.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// For a page on this machine.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_KEY_BYTES: usize = 256;

/// The results that a page holds.
#[derive(Default)]
pub(super) struct ShadowResults(Mutex<Results>);

#[derive(Default)]
struct Results {
    /// Oldest first.
    diffs: VecDeque<ShadowDiff>,
    next: u64,
}

impl ShadowResults {
    /// Takes what `diff` brings. The error says what is wrong with it.
    pub(super) fn take(&self, body: &[u8]) -> Result<(), String> {
        let ShadowDiffs { diffs } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let mut results = self.0.lock();
        for mut diff in diffs {
            if serde_json::to_string(&diff).map_or(0, |text| text.len()) > MAX_TEXT_BYTES {
                diff.differences.truncate(10);
                diff.error = None;
            }
            diff.number = results.next;
            results.next += 1;
            results.diffs.push_back(diff);
            if results.diffs.len() > MAX_KEPT {
                results.diffs.pop_front();
            }
        }
        Ok(())
    }

    /// The newest first.
    pub(super) fn all(&self) -> ShadowDiffs {
        ShadowDiffs { diffs: self.0.lock().diffs.iter().rev().cloned().collect() }
    }

    pub(super) fn one(&self, number: &str) -> Option<ShadowDiff> {
        self.0.lock().diffs.iter().find(|diff| diff.number.to_string() == number).cloned()
    }
}

/// A page of this user's that may be there.
pub(crate) struct PageAt {
    port: u16,
    key_file: PathBuf,
}

/// The pages whose keys lie in the user's folder.
pub(crate) fn pages_of(places: &Places) -> Vec<PageAt> {
    places.page_keys().into_iter().map(|(port, key_file)| PageAt { port, key_file }).collect()
}

impl PageAt {
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Shows results there; false if nobody takes them.
    pub(crate) async fn show(&self, diffs: &[ShadowDiff]) -> bool {
        if diffs.is_empty() {
            return true;
        }
        let shown = ShadowDiffs { diffs: diffs.to_vec() };
        timeout(PATIENCE, self.bring(&shown)).await.ok().flatten().is_some()
    }

    async fn bring(&self, shown: &ShadowDiffs) -> Option<()> {
        let (key, _) = relay_program::secret::read_private(&self.key_file, MAX_KEY_BYTES as u64).ok()?;
        let host = format!("127.0.0.1:{}", self.port);
        let request = Request::post("/api/v1/agent/diffs")
            .header(header::HOST, &host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, bearer(std::str::from_utf8(&key).ok()?)?)
            .body(Bytes::from(serde_json::to_vec(shown).ok()?))
            .ok()?;
        let mut page = Connection::new(TcpStream::connect(&host).await.ok()?, MAX_HEAD_BYTES);
        page.ask(request).await.ok().filter(|answer| answer.status.is_success()).map(|_| ())
    }
}
