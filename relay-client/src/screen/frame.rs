//! The whole view: which parts stand where at this size. Pure.
//!
//! From [`SPLIT`] columns on list and detail stand side by side; below, a third is a peek at the selected event, as long
//! as there is room for it; below [`TINY`] there is one line for each event and nothing else.

use jiff::Timestamp;
use ratatui::{Frame, layout::Rect};

use super::{
    head::{HeadFigures, LinkNow},
    keys,
    look::{Canvas, Tone, columns},
    state::ScreenView,
    units::{clock_of, count, took},
};

/// Columns from which on list and detail stand side by side.
const SPLIT: u16 = 130;
/// Columns and lines below which there is one line for each event.
const TINY: (u16, u16) = (40, 8);
/// Lines from which on there is a peek.
const WITH_PEEK: u16 = 12;
const MAX_PEEK: u16 = 20;
/// Columns of a list beside a detail, at least.
const LEAST_LIST: u16 = 68;
const MINUTE_SECONDS: i64 = 60;

impl ScreenView {
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, now: Timestamp) {
        let Rect { width, height, .. } = frame.area();
        let (area, look) = (frame.area(), self.look);
        let mut canvas = Canvas::new(frame.buffer_mut(), area, look);
        if let Some(sheet) = &self.sheet {
            return sheet.draw(&mut canvas);
        }
        if width < TINY.0 || height < TINY.1 {
            return self.draw_tiny(&mut canvas);
        }
        let is_wide = width >= SPLIT;
        self.draw_first_line(&mut canvas, now, is_wide);
        self.draw_keys(&mut canvas.part(0, height - 1, width, 1), is_wide);
        match (self.whole, is_wide) {
            (true, _) => self.draw_detail(&mut canvas.part(1, 2, width - 2, height - 3)),
            (false, true) => self.draw_split(&mut canvas),
            (false, false) => {
                self.draw_views(&mut canvas.part(0, 1, width, 1), 1);
                let peek = if height < WITH_PEEK { 0 } else { (height / 3 + 2).min(MAX_PEEK) };
                self.draw_list(&mut canvas.part(0, 2, width, height - 3 - peek), false);
                self.draw_peek(&mut canvas.part(0, height - 1 - peek, width, peek));
            }
        }
    }

    fn draw_split(&mut self, canvas: &mut Canvas<'_>) {
        let (width, height) = (canvas.width(), canvas.height());
        let list = (width / 2).max(LEAST_LIST);
        canvas.part(0, 1, width, 1).rule(0, "─");
        canvas.part(0, height - 2, width, 1).rule(0, "─");
        canvas.text(list, 1, "┬", Tone::Dim);
        canvas.text(list, height - 2, "┴", Tone::Dim);
        self.draw_views(&mut canvas.part(0, 2, width, 1), 2);
        for y in 3..height - 2 {
            canvas.text(list, y, "│", Tone::Dim);
        }
        self.draw_list(&mut canvas.part(0, 3, list, height - 5), true);
        self.draw_detail(&mut canvas.part(list + 2, 3, width - list - 2, height - 5));
    }

    /// The relay, its link, and how much comes.
    fn draw_first_line(&self, canvas: &mut Canvas<'_>, now: Timestamp, is_wide: bool) {
        let head = &self.head;
        let mut x = canvas.text(1, 0, "relay", Tone::Strong) + 2;
        let (gap, wide_gap) = if is_wide { (3, 5) } else { (2, 3) };
        let names = head.endpoints.join(", ");
        let number = head.endpoints.len();
        let plural = if number == 1 { "" } else { "s" };
        let counted = format!("{number} endpoint{plural}");
        let room = usize::from(canvas.width() / 2).saturating_sub(20);
        x = canvas.text(x, 0, if is_wide && columns(&names) <= room { &names } else { &counted }, Tone::Plain) + gap;
        let (shape, tone) = match &head.link {
            LinkNow::Ready { .. } => ("●", Tone::Good),
            LinkNow::Connecting | LinkNow::Draining => ("◐", Tone::Odd),
            LinkNow::Lost { .. } => ("○", Tone::Bad),
        };
        x = canvas.text(x, 0, shape, tone) + 1;
        x = canvas.text(x, 0, &head.host, Tone::Plain);
        if let Some(us) = head.link_us {
            let text = if is_wide { format!("  link {}", took(us)) } else { format!(" {}", took(us)) };
            x = canvas.text(x, 0, &text, Tone::Plain);
        }
        let link = match &head.link {
            LinkNow::Ready { since } if is_wide => format!("  since {}", clock_of(*since, &self.zone)),
            LinkNow::Ready { .. } => String::new(),
            LinkNow::Connecting => "  connecting".to_owned(),
            LinkNow::Draining => "  finishing what runs; q ends at once".to_owned(),
            LinkNow::Lost { why } => format!("  {why}"),
        };
        x = canvas.text(x, 0, &link, if matches!(head.link, LinkNow::Lost { .. }) { Tone::Bad } else { Tone::Plain });
        let at_hand = self.figures_at_hand(now);
        let mut figures = head.figures.unwrap_or(at_hand);
        // The relay counts in steps of ten seconds.
        figures.per_minute = figures.per_minute.max(at_hand.per_minute);
        x = canvas.text(x + wide_gap, 0, &format!("{}/min", count(figures.per_minute)), Tone::Plain);
        if let Some(us) = figures.p50_us {
            x = canvas.text(x + gap, 0, &format!("p50 {}", took(us)), Tone::Plain);
        }
        if let Some(us) = figures.p99_us.filter(|_| is_wide) {
            x = canvas.text(x + gap, 0, &format!("p99 {}", took(us)), Tone::Plain);
        }
        if figures.waiting > 0 {
            let word = if is_wide { "waiting" } else { "waits" };
            canvas.text(x + gap, 0, &format!("{} {word}", count(figures.waiting)), Tone::Odd);
        }
    }

    /// What the rows at hand say, as long as the relay does not.
    pub(super) fn figures_at_hand(&self, now: Timestamp) -> HeadFigures {
        let since = now - jiff::SignedDuration::from_secs(MINUTE_SECONDS);
        let received = |text: &str| text.parse::<Timestamp>().unwrap_or(Timestamp::MIN);
        let of_minute = self.rows.newest_first().map(|(_, event)| event);
        let of_minute: Vec<_> = of_minute.take_while(|event| received(&event.received_at) >= since).collect();
        let mut times: Vec<u64> = of_minute.iter().filter_map(|event| event.took_us).collect();
        times.sort_unstable();
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied();
        let waits = |event: &str| matches!(event, "pending" | "waiting");
        let waiting = self.rows.newest_first().filter(|(_, event)| waits(&event.state)).count() as u64;
        HeadFigures { per_minute: of_minute.len() as u64, p50_us: at(50), p99_us: at(99), waiting }
    }

    fn draw_views(&self, canvas: &mut Canvas<'_>, margin: u16) {
        let unseen = self.unseen();
        let follow = match (self.paused, unseen) {
            (true, 0) => "paused".to_owned(),
            (true, unseen) => format!("paused ▲ {} new", count(unseen as u64)),
            (false, 0) if self.top.is_none() => "follow".to_owned(),
            (false, 0) => String::new(),
            (false, unseen) => format!("▲ {} new", count(unseen as u64)),
        };
        let (live, tone) = match &self.head.live {
            Some(Ok(_)) => ("▲ live".to_owned(), Tone::Good),
            Some(Err(since)) => (format!("no news since {}", clock_of(*since, &self.zone)), Tone::Bad),
            None => ("▲ own only".to_owned(), Tone::Dim),
        };
        let end = canvas.width().saturating_sub(margin);
        canvas.right(end, 0, &live, tone);
        let end = end.saturating_sub(u16::try_from(columns(&live)).unwrap_or(end) + 1);
        canvas.right(end, 0, &follow, Tone::Plain);
        let end = end.saturating_sub(u16::try_from(columns(&follow)).unwrap_or(end) + 1);
        // What is typed has the whole line.
        let end = if self.find.is_typing() { canvas.width() } else { end };
        self.find.draw(&mut canvas.part(0, 0, end, 1));
    }

    fn draw_keys(&self, canvas: &mut Canvas<'_>, is_wide: bool) {
        if let Some(note) = self.find.mistake().or(Some(&*self.note)).filter(|note| !note.is_empty()) {
            canvas.text(1, 0, note, Tone::Odd);
            return;
        }
        let (keys, gap): (&[&str], u16) = if is_wide { (&keys::LONG, 3) } else { (&keys::SHORT, 2) };
        let width = usize::from(canvas.width());
        let needed = |keys: &[&str]| keys.iter().map(|key| key.len() + usize::from(gap)).sum::<usize>();
        let mut keys = keys.to_vec();
        // The last ones say how to find the others, and how to leave.
        while needed(&keys) > width + usize::from(gap) && keys.len() > 2 {
            keys.remove(keys.len() - 3);
        }
        let mut x = 1;
        for key in keys {
            x = canvas.text(x, 0, key, Tone::Dim) + gap;
        }
    }
}
