//! The way of an event as spans of time, and their bars on one scale. Pure.
//!
//! A wait that is more than half of the whole is drawn shortened, so that what else happened can be seen.

use relay_program::event::{EventDetail, EventHop};

use super::units::about;

/// A part of the way.
#[derive(Debug, PartialEq)]
pub(super) struct WaySpan {
    pub kind: SpanKind,
    pub what: String,
    /// From the first byte, in microseconds.
    pub start: u64,
    pub took: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum SpanKind {
    Received,
    Body,
    Verified,
    Stored,
    Attempt { number: u32, agent: String, result: String },
    Answered,
    Waits,
}

impl WaySpan {
    pub(super) fn name(&self) -> String {
        match &self.kind {
            SpanKind::Received => "received".to_owned(),
            SpanKind::Body => "head and body".to_owned(),
            SpanKind::Verified => "verified".to_owned(),
            SpanKind::Stored => "stored".to_owned(),
            SpanKind::Attempt { number, .. } => format!("attempt {number}"),
            SpanKind::Answered => "answered sender".to_owned(),
            SpanKind::Waits => "waits for retry".to_owned(),
        }
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.took)
    }
}

/// The spans of an event, in the order of time.
pub(super) fn spans(event: &EventDetail) -> Vec<WaySpan> {
    let mut spans: Vec<WaySpan> = Vec::new();
    // Where the span before ended.
    let mut last = 0;
    for (at, hop) in event.hops.iter().enumerate() {
        let since = |last: u64| (last.min(hop.at_us), hop.at_us.saturating_sub(last));
        let (kind, what, (start, took)) = match hop.what.as_str() {
            "received" => (SpanKind::Received, "first byte of the head".to_owned(), (hop.at_us, 0)),
            "body" => {
                let bytes = hop.bytes.unwrap_or(event.summary.size);
                let headers = event.headers.len();
                let what = format!("{headers} headers, {}", crate::report::units::bytes(bytes));
                (SpanKind::Body, what, since(last))
            }
            "verified" => (SpanKind::Verified, verified(event), since(last)),
            "stored" => (SpanKind::Stored, "on disk, synced".to_owned(), since(last)),
            "attempt" => attempt(event, hop, &event.hops[at + 1..]),
            "answered" => (SpanKind::Answered, answered(event), since(last)),
            "waits" => {
                let next = event.hops[at + 1..].iter().find(|next| next.what == "attempt");
                let took = next.map_or(0, |next| next.at_us.saturating_sub(hop.at_us));
                let what = if took > 0 { format!("schedule, {}", about(took)) } else { "schedule".to_owned() };
                (SpanKind::Waits, what, (hop.at_us, took))
            }
            _ => continue,
        };
        last = last.max(start.saturating_add(took));
        spans.push(WaySpan { kind, what, start, took });
    }
    spans
}

fn attempt(event: &EventDetail, hop: &EventHop, after: &[EventHop]) -> (SpanKind, String, (u64, u64)) {
    let number = hop.number.unwrap_or_default();
    let noted = event.attempts.iter().find(|attempt| attempt.number == number);
    let of_it = after.iter().filter(|other| other.number == Some(number) && other.what != "waits");
    let end = of_it.map(|other| other.at_us).max().unwrap_or(hop.at_us);
    let took = match noted {
        Some(noted) if noted.duration_us > 0 => noted.duration_us,
        Some(noted) if noted.duration_ms > 0 => noted.duration_ms.saturating_mul(1000),
        _ => end.saturating_sub(hop.at_us),
    };
    let agent = hop.agent.clone().or_else(|| noted?.agent.clone()).unwrap_or_else(|| "nobody".to_owned());
    let status = noted
        .and_then(|noted| noted.status)
        .or_else(|| after.iter().find_map(|other| (other.number == Some(number)).then_some(other.status).flatten()));
    let result = match (status, noted) {
        (Some(status), _) => status.to_string(),
        (None, Some(noted)) if !noted.outcome.is_empty() => noted.outcome.clone(),
        _ => "under way".to_owned(),
    };
    let what = format!("{result} from {agent}");
    (SpanKind::Attempt { number, agent, result }, what, (hop.at_us, took))
}

/// By what it was proven, and which secret.
pub(super) fn verified(event: &EventDetail) -> String {
    let by = event.summary.provider.as_deref().filter(|name| !name.is_empty()).unwrap_or(&event.verified);
    match &event.secret {
        Some(secret) => format!("{by}, secret {} of {}", secret.number, secret.of),
        None => by.to_owned(),
    }
}

fn answered(event: &EventDetail) -> String {
    let Some(answered) = &event.answered else { return String::new() };
    let whose = match answered.whose.as_str() {
        "ack" => "the ack",
        "handler" => "the handler's",
        "relay" => "the relay's",
        "recorded" => "as recorded",
        _ => "nobody was there",
    };
    match answered.status {
        Some(status) => format!("{status}, {whose}"),
        None => whose.to_owned(),
    }
}

/// A scale of so many cells.
pub(super) struct Scale {
    cells: f64,
    /// Cells of a wait that is drawn shortened.
    shortened: f64,
    total: u64,
    /// The long wait, if there is one: where it starts and how long it is.
    wait: Option<(u64, u64)>,
}

/// Where a bar begins, and how many cells it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bar {
    pub start: usize,
    pub cells: usize,
}

impl Scale {
    /// `share` of the cells is what a long wait takes.
    pub(super) fn new(spans: &[WaySpan], cells: usize, share: f64) -> Self {
        let total = spans.iter().map(WaySpan::end).max().unwrap_or_default();
        let waits = spans.iter().filter(|span| span.kind == SpanKind::Waits);
        let wait = waits.max_by_key(|span| span.took).filter(|span| span.took > total / 2);
        let cells = cells as f64;
        Self { cells, shortened: cells * share, total, wait: wait.map(|span| (span.start, span.took)) }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The cell of a moment.
    fn place(&self, at: u64) -> f64 {
        let Some((start, took)) = self.wait else {
            return at as f64 * self.cells / self.total.max(1) as f64;
        };
        let cell = (self.cells - self.shortened) / self.total.saturating_sub(took).max(1) as f64;
        let within = at.saturating_sub(start).min(took);
        let outside = at - within;
        outside as f64 * cell + within as f64 * self.shortened / took as f64
    }

    /// The bar of a span, to the nearest cell.
    pub(super) fn bar(&self, span: &WaySpan) -> Bar {
        let (start, end) = (self.place(span.start).round() as usize, self.place(span.end()).round() as usize);
        Bar { start, cells: end.saturating_sub(start) }
    }

    /// The bar of a span, from the cell in which it begins; it has one at least.
    pub(super) fn whole_bar(&self, span: &WaySpan) -> Bar {
        // A bar that ends where the scale does reaches its last cell.
        let cell = |at| (self.place(at) + 1e-6).floor() as usize;
        let (start, end) = (cell(span.start), cell(span.end()));
        Bar { start, cells: end.saturating_sub(start).max(1) }
    }
}
