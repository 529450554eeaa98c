//! One stream: what it says next.
//!
//! Everything that it is about to say is kept as numbers, and written out row by row when its reader takes more, so that
//! one that does not read holds a few kilobytes. Records that are gone by then count as left out.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use relay_program::{api::StreamBye, query::Query};
use relay_proto::printable;
use tokio::time::{Instant, sleep_until};

use super::{
    NewsStreams, NewsWanted, Place, WholeState,
    batch::{RowBatch, choose},
    rows::{fits, is_in_store, row},
};
use crate::{journal::NewsRecord, store::Sight};

/// Rows of one message.
pub(super) const MAX_ROWS: usize = 200;

/// How long between two messages.
const TICK: Duration = Duration::from_millis(100);

/// Records that are looked at in one tick. What came before them is left out.
const MAX_RECORDS: usize = 8192;

/// Records that are looked at closely for a query in one tick; of them so many in the store.
const MAX_JUDGED: usize = 2000;
const MAX_READ: usize = 20;

/// How long between two looks at what is told whole, and at what may be seen.
const LOOK: Duration = Duration::from_secs(1);

/// How long a stream may be silent before it says that it is there. Only a write finds out that its reader has left.
const SILENCE: Duration = Duration::from_secs(2);

/// A stream that had nothing to tell for so long ends.
const MAX_IDLE: Duration = Duration::from_secs(12 * 60 * 60);

/// What is written at a time, about. A connection takes sixteen of them before it waits for its reader, so this is what one
/// that does not read costs.
const CHUNK_BYTES: usize = 512;

/// When to come again after a farewell, in milliseconds.
const AGAIN_MS: u64 = 1500;

pub(super) struct Feed {
    streams: Arc<NewsStreams>,
    _place: Place,
    wanted: NewsWanted,
    sight: Sight,
    /// The next record to look at.
    next: u64,
    /// As long as the journal has the same, its records tell of every change.
    glow: u64,
    phase: Phase,
    /// The message with rows that is being written.
    batch: RowBatch,
    tick: Instant,
    look: Instant,
    /// The last hash of each state that is told whole.
    told: Vec<Option<u64>>,
    /// When something was said, and when there was something to say.
    said: Instant,
    busy: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Hello,
    Waiting,
    /// So many records of the batch are looked at, and one is written or none.
    Rows {
        at: usize,
        is_first: bool,
    },
    /// Which of the states is looked at next.
    States(usize),
    Over,
}

const ROWS: Phase = Phase::Rows { at: 0, is_first: true };

impl Feed {
    pub(super) fn new(streams: Arc<NewsStreams>, place: Place, wanted: NewsWanted) -> Self {
        let now = Instant::now();
        Self {
            next: streams.journal.next(),
            glow: streams.journal.glow(),
            told: wanted.states.iter().map(|_| None).collect(),
            sight: Sight::Only(Vec::new()),
            streams,
            _place: place,
            wanted,
            phase: Phase::Hello,
            batch: RowBatch::default(),
            tick: now,
            look: now,
            said: now,
            busy: now,
        }
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let piece = match self.phase {
                Phase::Hello => {
                    self.phase = Phase::Waiting;
                    Some(self.hello())
                }
                Phase::Rows { at, is_first } => Some(self.rows(at, is_first)),
                Phase::States(at) => self.state(at).await,
                Phase::Waiting => self.wait().await,
                Phase::Over => return None,
            };
            if let Some(piece) = piece {
                self.said = Instant::now();
                return Some(piece);
            }
        }
    }

    fn id(&self) -> String {
        let journal = &self.streams.journal;
        format!("{:x}g{}-{}", journal.first(), self.glow, self.next)
    }

    fn event(&self, event: &str, data: &str) -> Vec<u8> {
        format!("id: {}\nevent: {event}\ndata: {data}\n\n", self.id()).into_bytes()
    }

    /// Says where the stream begins: where the reader was, if that is still there.
    fn hello(&mut self) -> Vec<u8> {
        let resync = self.wanted.last_event_id.take().and_then(|last| self.resume(&last).err());
        let version = env!("CARGO_PKG_VERSION");
        let mut text = self.event("hello", &format!("{{\"version\":\"{version}\",\"api\":1}}"));
        if let Some(why) = resync {
            text.extend(self.resync(why));
        }
        text
    }

    fn resume(&mut self, last: &str) -> Result<(), &'static str> {
        let journal = &self.streams.journal;
        let parts =
            last.split_once('-').and_then(|(start, number)| Some((start.split_once('g')?, number.parse().ok()?)));
        let ((start, glow), number): ((&str, &str), u64) = parts.ok_or("restarted")?;
        if u64::from_str_radix(start, 16) != Ok(journal.first()) {
            return Err("restarted");
        }
        // Where nobody watched meanwhile, changes of kept events are missing.
        if glow.parse() != Ok(journal.glow()) || journal.read(number, 0).is_cut {
            return Err("too_old");
        }
        self.next = number;
        Ok(())
    }

    fn resync(&self, why: &str) -> Vec<u8> {
        self.event("resync", &format!("{{\"why\":\"{why}\",\"after\":null}}"))
    }

    fn bye(&mut self, why: &str) -> Vec<u8> {
        self.phase = Phase::Over;
        let bye = StreamBye { why: why.to_owned(), again_ms: AGAIN_MS };
        self.event("bye", &serde_json::to_string(&bye).unwrap_or_default())
    }

    /// Waits for the next tick and looks what there is to tell.
    async fn wait(&mut self) -> Option<Vec<u8>> {
        let is_closing = tokio::select! {
            biased;
            () = self.streams.closing.cancelled() => true,
            () = sleep_until(self.tick) => false,
        };
        let now = Instant::now();
        self.tick = now + TICK;
        if is_closing {
            return Some(self.bye("draining"));
        }
        if now >= self.look {
            self.look = now + LOOK;
            match (self.wanted.sight)() {
                Some(sight) => self.sight = sight,
                None => return Some(self.bye("not_allowed")),
            }
            if !self.wanted.states.is_empty() {
                self.phase = Phase::States(0);
            }
        }
        let resync = self.gather().await;
        if resync.is_some() || !self.batch.numbers.is_empty() {
            self.busy = now;
        }
        if now - self.busy > MAX_IDLE {
            return Some(self.bye("idle"));
        }
        let silence = (now - self.said > SILENCE).then(|| b": still here\n\n".to_vec());
        resync.or(silence)
    }

    /// One of the states that are told whole, if it has changed.
    async fn state(&mut self, at: usize) -> Option<Vec<u8>> {
        let Some(WholeState { event, read }) = self.wanted.states.get(at) else {
            self.phase = if self.has_rows() { ROWS } else { Phase::Waiting };
            return None;
        };
        let (event, text) = (*event, read(&self.sight).await);
        self.phase = Phase::States(at + 1);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = Some(hasher.finish());
        let is_news = std::mem::replace(self.told.get_mut(at)?, hash) != hash;
        // What cannot be read at the moment is read again.
        (is_news && !text.is_empty()).then(|| self.event(event, &text))
    }

    fn has_rows(&self) -> bool {
        !self.batch.numbers.is_empty() || self.batch.left_out > 0
    }

    /// Chooses what is told of the records that came.
    async fn gather(&mut self) -> Option<Vec<u8>> {
        let query = self.wanted.rows.clone()?;
        let journal = Arc::clone(&self.streams.journal);
        let mut from = self.next;
        let skipped = journal.next().saturating_sub(from).saturating_sub(MAX_RECORDS as u64);
        from += skipped;
        let part = journal.read(from, MAX_RECORDS);
        self.next = part.next;
        let mut records = part.records;
        records.retain(|(_, record)| self.sees(record));
        let mut batch =
            choose(&records, NewsRecord::id, if query.is_empty() { MAX_ROWS } else { MAX_JUDGED }, |_| true);
        if !query.is_empty() {
            let is_chosen = |number: &u64| batch.numbers.binary_search(number).is_ok();
            let chosen: Vec<_> = records.iter().filter(|(number, _)| is_chosen(number)).cloned().collect();
            let (mut fitting, mut reads) = (Vec::new(), 0);
            for (number, record) in chosen.into_iter().rev() {
                match self.judge(&query, number, &record, &mut reads).await {
                    Some(true) if fitting.len() < MAX_ROWS => fitting.push(number),
                    Some(true) | None => batch.left_out += 1,
                    Some(false) => {}
                }
            }
            fitting.reverse();
            batch.numbers = fitting;
        }
        self.batch = batch;
        if self.has_rows() && self.phase == Phase::Waiting {
            self.phase = ROWS;
        }
        let glow = journal.glow();
        if part.is_cut || skipped > 0 {
            self.glow = glow;
            return Some(self.resync("too_slow"));
        }
        (std::mem::replace(&mut self.glow, glow) != glow).then(|| self.resync("many_changed"))
    }

    fn sees(&self, record: &NewsRecord) -> bool {
        match &self.sight {
            Sight::All => true,
            Sight::Only(seen) => seen.iter().any(|name| name.as_str() == record.endpoint()),
        }
    }

    /// Whether a record fits the query; `None` where too much would have to be read for that.
    async fn judge(&self, query: &Query, number: u64, record: &NewsRecord, reads: &mut usize) -> Option<bool> {
        let row = row(&self.streams.delivery, record, number);
        if let Some(fits) = query.judge(&row) {
            return Some(fits);
        }
        if is_in_store(record) {
            if *reads == MAX_READ {
                return None;
            }
            *reads += 1;
        }
        fits(&self.streams.delivery, query, &row, record).await
    }

    /// Goes on with a message of rows.
    fn rows(&mut self, mut at: usize, mut is_first: bool) -> Vec<u8> {
        let mut text = Vec::new();
        if at == 0 {
            text = format!("id: {}\nevent: rows\ndata: {{\"rows\":[", self.id()).into_bytes();
        }
        while text.len() < CHUNK_BYTES
            && let Some(number) = self.batch.numbers.get(at)
        {
            at += 1;
            // What is gone by now is left out; the reader learns at the message's end how many there are.
            let Some(record) = self.streams.journal.record(*number).filter(|record| self.sees(record)) else {
                self.batch.left_out += 1;
                continue;
            };
            if !std::mem::take(&mut is_first) {
                text.push(b',');
            }
            // Whoever reads it with curl has it on a terminal.
            let row = serde_json::to_string(&row(&self.streams.delivery, &record, *number));
            text.extend(printable::lines(&row.unwrap_or_default()).as_bytes());
        }
        if at < self.batch.numbers.len() {
            self.phase = Phase::Rows { at, is_first };
            return text;
        }
        let left_out = self.batch.left_out;
        self.streams.left_out.fetch_add(left_out, Ordering::Relaxed);
        text.extend(format!("],\"left_out\":{left_out}}}\n\n").into_bytes());
        self.batch = RowBatch::default();
        self.phase = Phase::Waiting;
        text
    }
}
