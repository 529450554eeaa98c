//! The access log: one line of JSON for each request of the public listener, once its answer has ended.
//!
//! A line goes into a bounded queue, and a thread of its own writes it out. Whoever reads the log holds up no webhook:
//! lines that find no room are counted and gone. Nothing is sampled.
//!
//! Invariants: no body, no header but `User-Agent`, and nothing that lets its bearer in stands in a line: values of a
//! query that do are masked, as is the name of an endpoint that is its only secret; a line is one line, whatever a sender
//! wrote.

/// What its lines are held to, for the table of all limits.
pub(crate) mod limits {
    pub(crate) use super::{MAX_TEXT, MAX_WAITING};
}

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use relay_proto::printable;
use serde::Serialize;

use crate::throttle::Throttle;

/// Lines that wait to be written. One takes 2 KiB at most.
pub(crate) const MAX_WAITING: usize = 8192;

/// Longest text of a sender in a line, in characters.
pub(crate) const MAX_TEXT: usize = 256;

static NOT_WRITTEN: Throttle = Throttle::new();

/// Where the lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum AccessSink {
    #[default]
    Off,
    Stdout,
    File(PathBuf),
}

/// A request whose answer has ended. Times count from the first byte of its head, in microseconds.
#[derive(Serialize)]
pub(crate) struct AccessRecord<'a> {
    /// When its first byte came.
    pub time: String,
    pub event_id: Option<&'a str>,
    /// As metrics name it.
    pub endpoint: Option<&'a str>,
    pub method: &'a str,
    /// With its query, as far as that is shown; `None` where it may be an endpoint's only secret.
    pub path: Option<&'a str>,
    pub protocol: &'static str,
    pub tls: bool,
    /// The sender's address, as trusted proxies tell it.
    pub client: IpAddr,
    /// Who connected.
    pub peer: IpAddr,
    pub status: u16,
    /// What became of it, as metrics count it.
    pub outcome: Option<&'static str>,
    /// The code of the relay's own answer for an error.
    pub error: Option<&'a str>,
    /// What its head says of its body's length.
    pub request_bytes: Option<u64>,
    pub answer_bytes: u64,
    pub answered_us: u64,
    pub ended_us: u64,
    /// Whether the sender got all of the answer.
    pub complete: bool,
    pub user_agent: Option<&'a str>,
}

/// A sender's text as far as it stands in a line.
pub(crate) fn shortened(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT).map_or(text, |(end, _)| &text[..end])
}

pub(crate) struct AccessLog {
    lines: Mutex<Option<SyncSender<Vec<u8>>>>,
    shared: Arc<SharedState>,
}

#[derive(Default)]
struct SharedState {
    dropped: AtomicU64,
    reopen: AtomicBool,
    has_ended: AtomicBool,
}

impl AccessLog {
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(sink: &AccessSink) -> io::Result<Option<Arc<Self>>> {
        let target: Target = match sink {
            AccessSink::Off => return Ok(None),
            AccessSink::Stdout => Target::Stdout,
            AccessSink::File(path) => Target::File(path.clone()),
        };
        let output = target.open()?;
        Self::over(target, output).map(Some)
    }

    fn over(target: Target, output: Box<dyn Write + Send>) -> io::Result<Arc<Self>> {
        let (lines, waiting) = sync_channel(MAX_WAITING);
        let shared = Arc::<SharedState>::default();
        let own = Arc::clone(&shared);
        let writer = Writer { target, output: BufWriter::new(output), waiting, shared: own };
        thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
        Ok(Arc::new(Self { lines: Mutex::new(Some(lines)), shared }))
    }

    pub(crate) fn write(&self, record: &AccessRecord<'_>) {
        let Ok(text) = serde_json::to_string(record) else { return };
        let mut line = printable::lines(&text).into_owned().into_bytes();
        line.push(b'\n');
        let lines = self.lines.lock().clone();
        if lines.is_none_or(|lines| lines.try_send(line).is_err()) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next line goes into a file that is opened anew, for whoever moves the old one away.
    pub(crate) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Lines that are gone.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Takes no more lines, and waits until those that wait are written, for so long at most.
    pub(crate) async fn close(&self, patience: Duration) {
        drop(self.lines.lock().take());
        let ended = async {
            while !self.shared.has_ended.load(Ordering::Acquire) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(patience, ended).await;
    }
}

enum Target {
    Stdout,
    File(PathBuf),
}

impl Target {
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        match self {
            Self::Stdout => Ok(Box::new(io::stdout())),
            Self::File(path) => open(path).map(|file| Box::new(file) as Box<dyn Write + Send>),
        }
    }
}

/// For its owner alone: who sends what from where is nobody else's.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

struct Writer {
    target: Target,
    output: BufWriter<Box<dyn Write + Send>>,
    waiting: Receiver<Vec<u8>>,
    shared: Arc<SharedState>,
}

impl Writer {
    fn run(mut self) {
        while let Ok(line) = self.waiting.recv() {
            let mut next = Some(line);
            while let Some(line) = next {
                self.write(&line);
                next = self.waiting.try_recv().ok();
            }
            if let Err(error) = self.output.flush() {
                self.failed(&error);
            }
        }
        self.shared.has_ended.store(true, Ordering::Release);
    }

    fn write(&mut self, line: &[u8]) {
        if self.shared.reopen.swap(false, Ordering::Relaxed) {
            let flushed = self.output.flush();
            match self.target.open() {
                Ok(output) => self.output = BufWriter::new(output),
                Err(error) => self.failed(&error),
            }
            if let Err(error) = flushed {
                self.failed(&error);
            }
        }
        if let Err(error) = self.output.write_all(line) {
            self.failed(&error);
        }
    }

    fn failed(&self, error: &io::Error) {
        self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(held_back) = NOT_WRITTEN.pass("") {
            tracing::warn!(%error, held_back, "the access log cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, sync::mpsc};

    use super::*;

    fn record<'a>(path: &'a str, user_agent: &'a str) -> AccessRecord<'a> {
        AccessRecord {
            time: "2026-01-02T03:04:05.000006Z".to_owned(),
            event_id: Some("hook_1"),
            endpoint: Some("github"),
            method: "POST",
            path: Some(path),
            protocol: "HTTP/1.1",
            tls: false,
            client: "192.0.2.1".parse().expect("an address"),
            peer: "127.0.0.1".parse().expect("an address"),
            status: 200,
            outcome: Some("2xx"),
            error: None,
            request_bytes: Some(2),
            answer_bytes: 3,
            answered_us: 1500,
            ended_us: 1600,
            complete: true,
            user_agent: Some(user_agent),
        }
    }

    #[tokio::test]
    async fn a_line_is_one_line_in_a_file_of_the_owner_that_can_be_moved_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let log = AccessLog::open(&AccessSink::File(path.clone())).expect("opens").expect("is on");
        log.write(&record("/a", "line\nfeed \u{202e} \u{1b}[31m"));
        // Until it is there: a thread writes it.
        while fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
            thread::yield_now();
        }
        fs::rename(&path, &moved).expect("moves");
        log.reopen();
        log.write(&record("/b", "curl"));
        log.close(Duration::from_secs(30)).await;
        let (first, second) = (fs::read_to_string(&moved).expect("text"), fs::read_to_string(&path).expect("text"));
        assert_eq!((first.lines().count(), second.lines().count()), (1, 1));
        assert!(first.is_ascii() && !first.contains('\u{1b}'), "{first}");
        let line: serde_json::Value = serde_json::from_str(&first).expect("JSON");
        assert_eq!((line["path"].as_str(), line["ended_us"].as_u64()), (Some("/a"), Some(1600)));
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(log.dropped(), 0);
    }

    /// Says that it is to write, and writes once it is let go.
    struct Stuck(mpsc::Sender<()>, Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(());
            let _ = self.1.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn as_many_lines_wait_as_there_is_room_for_and_the_next_one_is_counted() {
        let ((tell, begins), (go_on, stuck)) = (mpsc::channel(), mpsc::channel());
        let log = AccessLog::over(Target::Stdout, Box::new(Stuck(tell, stuck))).expect("a thread");
        log.write(&record("/a", "curl"));
        begins.recv().expect("its reader stands still");
        (0..MAX_WAITING).for_each(|_| log.write(&record("/a", "curl")));
        assert_eq!(log.dropped(), 0);
        (0..3).for_each(|_| log.write(&record("/a", "curl")));
        assert_eq!(log.dropped(), 3);
        drop(go_on);
        log.close(Duration::from_secs(30)).await;
    }

    #[test]
    fn a_text_of_a_sender_is_cut_between_letters() {
        for (letters, kept) in [(MAX_TEXT, MAX_TEXT), (MAX_TEXT + 1, MAX_TEXT)] {
            assert_eq!(shortened(&"ä".repeat(letters)).chars().count(), kept);
        }
        assert_eq!(shortened("short"), "short");
    }
}
