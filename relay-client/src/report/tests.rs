//! Exact lines, and what happens when nobody reads them.

use std::sync::{Mutex, mpsc};

use super::*;

impl Reporter {
    /// Writes elsewhere, without colour and in UTC, for harnesses.
    pub(crate) fn to_writers(
        output: Output,
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
    ) -> Self {
        let plain = |stream| Writer { stream, plain: true };
        let writers = Writers { out: plain(Box::new(out)), err: plain(Box::new(err)), one_output: false };
        Self::start(Style { output, zone: TimeZone::UTC, colours: false }, writers, None)
    }
}

fn line() -> Line {
    Line {
        time: "2026-03-01T14:03:22Z".parse().unwrap(),
        method: "POST".into(),
        path: "/webhooks/github?x=1".into(),
        outcome: Outcome::Status(200),
        duration: Duration::from_micros(12_345),
        bytes_in: 2_100,
        bytes_out: 15,
        endpoint: "github".into(),
        event_id: Some("hook_1".into()),
        replay_of: None,
        note: None,
    }
}

fn broken() -> Line {
    let outcome = Outcome::Failed("unreachable".into());
    Line { outcome, note: Some("connection refused".into()), bytes_out: 0, ..line() }
}

fn unmade() -> Line {
    Line { outcome: Outcome::Unmade("uncarriable_path".into()), bytes_out: 0, ..line() }
}

fn notice() -> Notice {
    Notice {
        time: line().time,
        status: 401,
        provider: "github".into(),
        code: "signature_mismatch".into(),
        event_id: Some("hook_1".into()),
        endpoint: "github".into(),
    }
}

fn ready() -> AgentState {
    AgentState::Ready {
        endpoints: vec![ReadyEndpoint {
            name: "github".into(),
            public_url: "https://hooks.example.com/github".into(),
            target: "http://127.0.0.1:3000".into(),
            role: AgentRole::Active,
        }],
    }
}

/// The text without colours; empty if nothing is shown.
fn shown(output: Output, event: &Event) -> String {
    let style = Style { output, zone: TimeZone::UTC, colours: true };
    let text = style.render(event).map(|(_, text)| text).unwrap_or_default();
    anstream::adapter::strip_str(&text).to_string()
}

fn state(output: Output, state: AgentState) -> String {
    shown(output, &Event::State { time: line().time, state })
}

#[test]
fn exchanges_are_one_aligned_line() {
    assert_eq!(
        shown(Output::Compact, &Event::Exchange(line())),
        "14:03:22  POST   /webhooks/github?x=1              200            12 ms   2.1 kB in     15 B out\n"
    );
    assert_eq!(
        shown(Output::Compact, &Event::Exchange(broken())),
        "14:03:22  POST   /webhooks/github?x=1              unreachable    12 ms   2.1 kB in      0 B out  \
         connection refused\n"
    );
    assert_eq!(
        shown(Output::Interactive, &Event::Exchange(line())),
        "14:03:22  POST   /webhooks/github?x=1              200            12 ms   2.1 kB in     15 B out  \
         github  hook_1\n"
    );
}

#[test]
fn times_are_local() {
    let style = Style { output: Output::Compact, zone: TimeZone::fixed(jiff::tz::offset(2)), colours: true };
    let (sink, text) = style.render(&Event::Exchange(line())).unwrap();
    assert_eq!(sink, Sink::Out);
    assert!(anstream::adapter::strip_str(&text).to_string().starts_with("16:03:22  "));
}

#[test]
fn refusals_name_their_reason() {
    let refused = Event::Refused(notice());
    let expected = "14:03:22  REFUSED 401 github signature_mismatch hook_1\n";
    assert_eq!(shown(Output::Compact, &refused), expected);
    let other = Event::Refused(Notice { endpoint: "ci".into(), ..notice() });
    assert_eq!(shown(Output::Compact, &other), format!("{}  ci\n", expected.trim_end()));
}

#[test]
fn states_are_told_on_standard_error() {
    let output = Output::Interactive;
    assert_eq!(state(output, AgentState::Connecting { relay: "https://h".into() }), "connecting to https://h\n");
    assert_eq!(state(output, ready()), "ready\n  https://hooks.example.com/github -> http://127.0.0.1:3000\n");
    let lost = AgentState::Reconnecting { after: Duration::from_millis(1_240), why: "connection reset".into() };
    assert_eq!(state(output, lost), "reconnecting in 1.2 s: connection reset\n");
    let refused = AgentState::Refused { why: "HTTP 401".into(), code: Some("token_unknown".into()) };
    assert_eq!(state(output, refused), "refused: HTTP 401 (token_unknown)\n");
    assert_eq!(state(output, AgentState::Draining), "stopping: finishing what runs, taking nothing new\n");
    let standby = AgentState::Standby { endpoint: "github".into() };
    assert_eq!(state(output, standby), "standing by for github: another agent is active\n");
}

#[test]
fn quiet_shows_problems_only() {
    let quiet = |event| shown(Output::Quiet, &event);
    assert_eq!(quiet(Event::Exchange(line())), "");
    assert_eq!(state(Output::Quiet, ready()), "");
    assert_ne!(quiet(Event::Exchange(broken())), "");
    assert_ne!(quiet(Event::Exchange(Line { outcome: Outcome::Status(500), ..line() })), "");
    assert_eq!(quiet(Event::Refused(notice())), "", "strangers decide how many there are");
    assert_eq!(quiet(Event::MoreRefused { count: 5 }), "");
    assert_eq!(quiet(Event::Exchange(unmade())), "", "these, too");
    assert_eq!(quiet(Event::MoreUnmade { count: 5 }), "");
    assert_ne!(state(Output::Quiet, AgentState::Refused { why: "no".into(), code: None }), "");
}

#[test]
fn json_is_one_object_per_line() {
    assert_eq!(
        shown(Output::Json, &Event::Exchange(line())),
        concat!(
            r#"{"type":"exchange","time":"2026-03-01T14:03:22Z","endpoint":"github","event_id":"hook_1","#,
            r#""method":"POST","path":"/webhooks/github?x=1","status":200,"error":null,"duration_ms":12.345,"#,
            r#""bytes_in":2100,"bytes_out":15,"note":null}"#,
            "\n"
        )
    );
    assert_eq!(
        state(Output::Json, ready()),
        concat!(
            r#"{"type":"state","time":"2026-03-01T14:03:22Z","state":"ready","endpoints":[{"name":"github","#,
            r#""public_url":"https://hooks.example.com/github","target":"http://127.0.0.1:3000","standing":"active"}]}"#,
            "\n"
        )
    );
    assert_eq!(
        shown(Output::Json, &Event::Refused(notice())),
        concat!(
            r#"{"type":"refused","time":"2026-03-01T14:03:22Z","endpoint":"github","event_id":"hook_1","#,
            r#""status":401,"provider":"github","code":"signature_mismatch"}"#,
            "\n"
        )
    );
    assert_eq!(shown(Output::Json, &Event::MoreRefused { count: 7 }), "{\"type\":\"more_refused\",\"count\":7}\n");
    assert_eq!(shown(Output::Compact, &Event::MoreRefused { count: 7 }), "REFUSED 7 more requests\n");
    assert_eq!(shown(Output::Json, &Event::Dropped { count: 3 }), "{\"type\":\"dropped\",\"count\":3}\n");
}

#[test]
fn foreign_text_cannot_command_the_terminal() {
    let path = "/\u{1b}[2J\r\n\u{202e}ok\u{9b}31m".to_owned();
    let style = Style { output: Output::Compact, zone: TimeZone::UTC, colours: true };
    let (_, text) = style.render(&Event::Exchange(Line { path, ..line() })).unwrap();
    assert!(text.contains(r"/\u001b[2J\r\n\u202eok\u009b31m"), "{text:?}");
    assert_eq!(text.matches('\n').count(), 1);
}

#[test]
fn units_read_well() {
    let durations = [(850, "850 µs"), (12_999, "12 ms"), (1_290_000, "1.2 s"), (185_000_000, "3 min 5 s")];
    for (micros, expected) in durations {
        assert_eq!(units::duration(Duration::from_micros(micros)), expected);
    }
    assert_eq!(units::duration(Duration::from_secs(4000)), "1 h 6 min");
    for (count, expected) in [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (1_949, "1.9 kB"),
        (1_950, "2.0 kB"),
        (2_100, "2.1 kB"),
        (999_949, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (25_000_000, "25.0 MB"),
    ] {
        assert_eq!(units::bytes(count), expected);
    }
}

/// A writer that tests can read.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<u8>>>);

impl Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shelf {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[test]
fn results_and_the_rest_go_apart_and_flush_waits() {
    let (out, err) = (Shelf::default(), Shelf::default());
    let reporter = Reporter::to_writers(Output::Compact, out.clone(), err.clone());
    reporter.warn("the target's certificate is not checked");
    reporter.exchange(line());
    reporter.flush(Duration::from_secs(60));
    assert!(out.text().starts_with("14:03:22  POST"));
    assert_eq!(err.text(), "warning: the target's certificate is not checked\n");
}

/// A writer that stands still until it is let go.
struct Stuck(mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_terminal_costs_lines_and_nothing_else() {
    let err = Shelf::default();
    let (release, stuck) = mpsc::channel();
    let reporter = Reporter::to_writers(Output::Compact, Stuck(stuck), err.clone());
    for _ in 0..queue::MAX_LINES + 100 {
        reporter.exchange(line());
    }
    reporter.state(AgentState::Draining);
    assert_eq!(err.text(), "");
    drop(release);
    reporter.flush(Duration::from_secs(60));
    let text = err.text();
    let dropped: u64 = text.lines().last().unwrap().split_once(' ').unwrap().0.parse().unwrap();
    assert!(text.starts_with("stopping"), "{text}");
    assert!((99..=100).contains(&dropped), "{text}");
}

/// A writer that keeps what each write brought.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Vec<String>>>);

impl Write for Writes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_first_line_is_written_at_once_and_those_that_follow_closely_leave_together() {
    let writes = Writes::default();
    let reporter = Reporter::to_writers(Output::Compact, writes.clone(), writes.clone());
    reporter.exchange(line());
    let ended = std::time::Instant::now();
    while writes.0.lock().unwrap().is_empty() {
        assert!(ended.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    (0..500).for_each(|_| reporter.exchange(line()));
    reporter.warn("between them");
    reporter.exchange(line());
    reporter.flush(Duration::from_secs(60));
    let writes = writes.0.lock().unwrap();
    assert!(writes.len() < 100, "{} writes", writes.len());
    assert_eq!(writes[0].lines().count(), 1);
    assert_eq!(writes.iter().map(|text| text.lines().count()).sum::<usize>(), 503);
    assert_eq!(&writes[writes.len() - 2..][0], "warning: between them\n", "their order stays");
}

#[test]
fn refused_requests_are_told_one_by_one_and_then_counted() {
    let out = Shelf::default();
    let reporter = Reporter::to_writers(Output::Compact, out.clone(), Shelf::default());
    for _ in 0..100_000 {
        reporter.refused(notice());
    }
    reporter.flush(Duration::from_secs(60));
    let text = out.text();
    let counts = text.lines().filter_map(|line| line.strip_prefix("REFUSED ")?.strip_suffix(" more requests"));
    let counted: usize = counts.map(|count| count.parse::<usize>().unwrap()).sum();
    let told = text.lines().filter(|line| line.ends_with("signature_mismatch hook_1")).count();
    assert_eq!(told + counted, 100_000);
    assert!(told <= 100 * queue::MAX_REFUSED as usize && counted > 0, "{told} were told one by one");
}

#[test]
fn requests_that_reach_no_handler_are_told_one_by_one_and_then_counted() {
    let (out, err) = (Shelf::default(), Shelf::default());
    let reporter = Reporter::to_writers(Output::Compact, out.clone(), err.clone());
    for _ in 0..1000 {
        (0..100).for_each(|_| reporter.exchange(unmade()));
    }
    // The other kind has a count of its own, and what a handler answered is always told.
    reporter.refused(notice());
    (0..500).for_each(|_| reporter.exchange(line()));
    reporter.flush(Duration::from_secs(60));
    let (text, notes) = (out.text(), err.text());
    let told = text.lines().filter(|line| line.contains(" uncarriable_path ")).count();
    let counts = notes.lines().filter_map(|line| line.strip_suffix(" lines not shown"));
    let counted: usize = counts.map(|count| count.parse::<usize>().unwrap()).sum();
    assert_eq!(told + counted, 100_000);
    assert!(told <= 100 * queue::MAX_REFUSED as usize && counted > 0, "{told} were told one by one");
    assert_eq!(text.lines().filter(|line| line.contains(" 200 ")).count(), 500);
    assert_eq!(text.lines().filter(|line| line.contains("REFUSED")).count(), 1);
}

#[test]
fn a_relay_that_says_on_and_on_is_written_at_a_pace_and_the_newest_is_said() {
    let err = Shelf::default();
    let reporter = Reporter::to_writers(Output::Compact, Shelf::default(), err.clone());
    for number in 0..100_000 {
        reporter.warn(format!("word {number}"));
    }
    drop(reporter);
    let ended = std::time::Instant::now();
    while !err.text().contains("lines not shown") {
        assert!(ended.elapsed() < Duration::from_secs(60), "{}", err.text());
        std::thread::yield_now();
    }
    let text = err.text();
    let said = text.lines().filter(|line| line.starts_with("warning: word ")).count();
    assert!(said < 10_000, "{said} lines");
    assert!(text.contains("warning: word 99999\n"), "{text}");
}
