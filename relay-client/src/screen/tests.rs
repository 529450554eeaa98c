//! The view as a whole, drawn on a terminal in memory: what it looks like at each size, and what keys do.

use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use relay_program::event::{EventDetail, EventSummary};

use super::{
    head::{HeadFigures, LinkNow},
    known::Part,
    look::Look,
    news::News,
    state::ScreenView,
    wish::{Question, Wish},
};

const SELECTED: &str = "hook_01a20e58387038b51dfc84fc91783c1";
const SHORT_SENTENCE: &str =
    "Attempt 1 got 500, so the sender was given the ack (200); attempt 2, 5.0 s later, got 201.";

struct Bench {
    view: ScreenView,
    terminal: Terminal<TestBackend>,
}

impl Bench {
    /// A view of the fixed journal, with its second event selected.
    fn new(endpoints: &[&str]) -> Self {
        let mut view =
            ScreenView::new("laptop".to_owned(), "hooks.example.com".to_owned(), Look::default(), TimeZone::UTC);
        view.head.endpoints = endpoints.iter().map(|&name| name.to_owned()).collect();
        view.head.link = LinkNow::Ready { since: time("2026-11-28T14:02:11Z") };
        view.head.link_us = Some(11_000);
        let figures = HeadFigures { per_minute: 42, p50_us: Some(18_000), p99_us: Some(640_000), waiting: 1 };
        let rows: Vec<EventSummary> = serde_json::from_str(include_str!("tests/rows.json")).unwrap();
        let body = include_str!("tests/body.json").as_bytes().into();
        for news in [
            News::Live(true),
            News::Figures(figures),
            News::Page { q: String::new(), rows, next: Some("older".to_owned()) },
            News::Detail(Box::new(detail())),
            News::Body { id: SELECTED.to_owned(), part: Part::Request, bytes: body },
        ] {
            view.handle_news(news, now());
        }
        // The list says less of its body than it has.
        let mut listed: Vec<EventSummary> = serde_json::from_str(include_str!("tests/rows.json")).unwrap();
        view.rows.told(listed.remove(1));
        let mut bench = Self { view, terminal: Terminal::new(TestBackend::new(80, 24)).unwrap() };
        bench.screen(80, 24);
        bench.view.select(1);
        while bench.view.poll_wish().is_some() {}
        bench
    }

    fn screen(&mut self, width: u16, height: u16) -> String {
        self.terminal.backend_mut().resize(width, height);
        self.terminal.resize(ratatui::layout::Rect::new(0, 0, width, height)).unwrap();
        self.view.settle();
        let view = &mut self.view;
        self.terminal.draw(|frame| view.draw(frame, now())).unwrap();
        let buffer = self.terminal.backend().buffer();
        let lines = buffer.content().chunks(width.into()).map(|cells| {
            let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
            line.trim_end().to_owned() + "\n"
        });
        lines.collect()
    }

    fn keys(&mut self, keys: &str) {
        for char in keys.chars() {
            let code = match char {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\t' => KeyCode::Tab,
                char => KeyCode::Char(char),
            };
            self.view.handle_key(&KeyEvent::new(code, KeyModifiers::NONE));
            self.view.settle();
        }
    }

    fn wishes(&mut self) -> Vec<Wish> {
        std::iter::from_fn(|| self.view.poll_wish()).collect()
    }

    fn new_row(&mut self, number: u32) {
        let row = EventSummary {
            id: format!("hook_01a20f{number:02}"),
            endpoint: "github".to_owned(),
            state: "delivered".to_owned(),
            received_at: "2026-11-28T15:06:30Z".to_owned(),
            event_type: Some(format!("new.{number}")),
            rev: 1,
            ..EventSummary::default()
        };
        self.view.handle_news(News::Rows(vec![row]), now());
    }
}

fn detail() -> EventDetail {
    serde_json::from_str(include_str!("tests/detail.json")).unwrap()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    time("2026-11-28T15:06:30Z")
}

#[track_caller]
fn assert_screen(shown: &str, wanted: &str) {
    for (number, (shown, wanted)) in shown.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(shown, wanted.trim_end(), "line {number}");
    }
    assert_eq!(shown.lines().count(), wanted.lines().count());
}

#[test]
fn it_looks_as_designed_in_80_columns() {
    let mut bench = Bench::new(&["github", "pay"]);
    let short = EventDetail { sentence: SHORT_SENTENCE.to_owned(), ..detail() };
    bench.view.known.take_detail(short);
    assert_screen(&bench.screen(80, 24), include_str!("tests/80x24.txt"));
}

#[test]
fn it_looks_as_designed_in_160_columns() {
    let mut bench = Bench::new(&["github", "pay", "shop", "slack", "ci", "sms", "pages", "upload"]);
    assert_screen(&bench.screen(160, 48), include_str!("tests/160x48.txt"));
}

#[test]
fn the_selection_stays_in_sight_at_every_size() {
    let mut bench = Bench::new(&["pay"]);
    bench.keys("jjjjjjjj");
    let selected = bench.view.selected_id().cloned().unwrap();
    for (width, height) in [(160, 48), (80, 24), (30, 6), (80, 24), (160, 48), (1, 1), (129, 12), (59, 11), (45, 9)] {
        let screen = bench.screen(width, height);
        assert_eq!(bench.view.selected_id(), Some(&selected));
        assert!(width < 10 || screen.lines().any(|line| line.starts_with('▌')), "{width}x{height}:\n{screen}");
    }
    let narrow = bench.screen(59, 24);
    let heading = narrow.lines().nth(2).unwrap();
    assert!(!heading.contains("endpoint") && heading.contains("size"), "{narrow}");
    assert!(!bench.screen(49, 24).contains("size"));
    assert!(!bench.screen(80, 11).contains("──"), "no room for a peek");
}

#[test]
fn what_is_on_screen_stays_unless_the_newest_is() {
    let mut bench = Bench::new(&["pay"]);
    bench.new_row(1);
    let screen = bench.screen(80, 24);
    assert!(screen.lines().nth(3).unwrap().contains("new.1"), "it follows:\n{screen}");
    bench.keys(&"j".repeat(20));
    let before = bench.screen(80, 24);
    (2..30).for_each(|number| bench.new_row(number));
    let after = bench.screen(80, 24);
    assert!(after.contains("▲ 28 new"), "{after}");
    let rows = |screen: &str| screen.lines().skip(3).take(10).collect::<Vec<_>>().join("\n");
    assert_eq!(rows(&before), rows(&after));
    bench.keys("gg");
    assert!(bench.screen(80, 24).lines().nth(3).unwrap().contains("new.29"));
    bench.keys("p");
    bench.new_row(30);
    let paused = bench.screen(80, 24);
    assert!(paused.contains("paused ▲ 1 new") && !paused.contains("new.30"), "{paused}");
    bench.keys("f");
    assert!(bench.screen(80, 24).contains("new.30"));
}

#[test]
fn a_search_filters_at_once_and_asks_the_relay_when_it_is_typed() {
    let mut bench = Bench::new(&["pay"]);
    bench.keys("/endpoint:slack");
    let screen = bench.screen(80, 24);
    assert!(screen.contains("/endpoint:slack_") && !screen.contains(" github "), "{screen}");
    assert_eq!(bench.wishes().iter().filter(|wish| matches!(wish, Wish::Ask(Question::Page { .. }))).count(), 0);
    bench.keys("\n");
    let q = "endpoint:slack".to_owned();
    assert!(bench.wishes().contains(&Wish::Ask(Question::Page { q: q.clone(), after: None })));
    // Words within bodies are for the relay to find.
    bench.keys("/ needle\n");
    assert!(bench.view.shown.is_empty());
    let found = EventSummary { id: "hook_02".to_owned(), endpoint: "slack".to_owned(), ..EventSummary::default() };
    let page = News::Page { q: "endpoint:slack needle".to_owned(), rows: vec![found], next: None };
    bench.view.handle_news(page, now());
    bench.screen(80, 24);
    assert_eq!(bench.view.shown.len(), 1);
    let late = EventSummary { id: "hook_03".to_owned(), ..EventSummary::default() };
    bench.view.handle_news(News::Page { q, rows: vec![late], next: None }, now());
    assert!(bench.view.rows.get("hook_03").is_none(), "the answer to another question");
    bench.keys("\u{1b}2");
    let failing = bench.screen(80, 24);
    assert!(failing.contains("charge.refunded") && !failing.contains("pull_request"), "{failing}");
}

#[test]
fn keys_ask_for_what_they_say() {
    let mut bench = Bench::new(&["pay"]);
    let id = || SELECTED.to_owned();
    bench.keys("r");
    assert_eq!(bench.wishes(), [Wish::Ask(Question::Replay { id: id(), edited: None })]);
    bench.keys("e");
    assert_eq!(bench.wishes(), [Wish::Ask(Question::Whole(id()))]);
    bench.keys("c");
    assert_eq!(bench.wishes(), [Wish::Ask(Question::Curl(id()))]);
    bench.keys("y");
    assert!(matches!(&bench.wishes()[..], [Wish::Copy { bytes, .. }] if bytes.starts_with(b"{\"id\"")));
    bench.keys("s");
    assert!(matches!(&bench.wishes()[..], [Wish::Save { name, .. }] if *name == format!("{SELECTED}.body")));
    bench.keys("S");
    assert_eq!(bench.wishes(), [], "it asks first");
    bench.keys("Y");
    assert_eq!(bench.wishes(), [Wish::Ask(Question::Skip("pay".to_owned()))]);
    bench.keys("n");
    bench.wishes();
    assert_eq!(bench.view.selected_row().unwrap().state, "dead");
    bench.keys("qq");
    let quits = bench.wishes().into_iter().filter(|wish| *wish == Wish::Quit).count();
    assert_eq!(quits, 2);
    bench.keys("?");
    assert!(bench.screen(80, 24).contains("finish what runs and end"));
    bench.keys("\u{1b}");
    assert!(bench.screen(80, 24).contains("? keys"));
}

#[test]
fn a_whole_event_has_its_sides_and_forms() {
    let mut bench = Bench::new(&["pay"]);
    bench.keys("\n");
    let screen = bench.screen(80, 40);
    assert!(screen.contains("[Request 598 B]") && screen.contains("  3    \"object\": \"event\","), "{screen}");
    bench.keys("vv");
    assert!(bench.screen(80, 40).contains("00000000  7b 22 69 64"));
    bench.keys("tt");
    assert!(bench.screen(80, 40).contains("h5: x"));
    bench.keys("t");
    assert!(bench.screen(80, 40).contains("1  500  edge-1  31 ms"));
    bench.keys("\u{1b}");
    assert!(bench.screen(80, 24).contains("follow"));
}

#[test]
fn what_others_wrote_steers_nothing() {
    let evil = "\u{1b}[2J\u{9b}31m\u{202e}\u{7}x\nforged".to_owned();
    let row = EventSummary {
        id: format!("hook_0zz{evil}"),
        endpoint: evil.clone(),
        state: evil.clone(),
        why: evil.clone(),
        method: evil.clone(),
        target: evil.clone(),
        received_at: evil.clone(),
        agent: Some(evil.clone()),
        ..EventSummary::default()
    };
    let detail = EventDetail {
        summary: row.clone(),
        sentence: evil.clone(),
        advice: Some(evil.clone()),
        headers: vec![(evil.clone(), evil.clone())],
        client: evil.clone(),
        verified: evil.clone(),
        mode: evil.clone(),
        ..EventDetail::default()
    };
    let mut bench = Bench::new(&[&evil]);
    bench.view.find.clear();
    let body = News::Body { id: row.id.clone(), part: Part::Request, bytes: evil.clone().into() };
    for news in [News::Rows(vec![row]), News::Detail(Box::new(detail)), body, News::Said(evil.clone())] {
        bench.view.handle_news(news, now());
    }
    bench.keys("gg");
    for keys in ["", "\n", "t", "t", "v", "v", "\u{1b}", "l", "\u{1b}"] {
        bench.keys(keys);
        for (width, height) in [(160, 48), (80, 24), (30, 6)] {
            let screen = bench.screen(width, height);
            let steers = |char: char| char != '\n' && relay_proto::printable::is_steering(char);
            assert!(!screen.contains(steers), "{screen:?}");
            assert_eq!(screen.lines().count(), usize::from(height));
        }
    }
}

#[test]
fn every_shape_has_a_twin_in_ascii() {
    let mut bench = Bench::new(&["pay"]);
    bench.view.look.ascii = true;
    for (width, height) in [(160, 48), (80, 24), (30, 6)] {
        let screen = bench.screen(width, height);
        assert!(screen.is_ascii(), "{screen}");
        assert!(!screen.contains('?') || screen.contains("? keys"), "{screen}");
    }
}
