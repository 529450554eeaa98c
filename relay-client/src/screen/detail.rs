//! All of an event: what it is, did it work, why, where did the time go, what was in it. Pure.

use relay_program::event::{EventDetail, EventSummary, got};

use super::{
    body::{Form, lines},
    look::{Canvas, Tone, shape, title},
    state::{Pane, ScreenView, Side},
    units::took,
    way::{Scale, SpanKind, WaySpan, spans},
    wrap::{shortened, wrapped},
};
use crate::report::units::bytes;

/// The part of the scale that a long wait takes.
const WAIT_SHARE: f64 = 0.3;
/// Where the columns of the way stand.
const WHAT: u16 = 20;
const TOOK_END: u16 = 53;
const BARS: u16 = 55;
/// Columns right of the bars, for the end of the scale.
const SCALE_END: u16 = 3;
/// Lines that the sentence and the advice may take.
const MAX_SENTENCE: usize = 6;

impl ScreenView {
    pub(super) fn draw_detail(&self, canvas: &mut Canvas<'_>) {
        let Some(event) = self.selected_row() else {
            canvas.text(0, 0, "nothing is selected", Tone::Dim);
            return;
        };
        let detail = self.detail();
        let row = detail.map_or(event, |detail| &detail.summary);
        let mut y = draw_head(canvas, row);
        match detail {
            Some(detail) => y = self.draw_known(canvas, y, detail),
            None => {
                canvas.text(0, y, &event.why, Tone::Plain);
                y += 2;
            }
        }
        self.draw_sides(canvas, y, row, detail);
        let height = canvas.height().saturating_sub(y + 1);
        let width = canvas.width();
        self.draw_side(&mut canvas.part(0, y + 1, width, height), row, detail);
    }

    fn draw_known(&self, canvas: &mut Canvas<'_>, mut y: u16, detail: &EventDetail) -> u16 {
        let width = usize::from(canvas.width().saturating_sub(6));
        let why = if detail.sentence.is_empty() { detail.summary.why.as_str() } else { &detail.sentence };
        for (name, text) in [("why", why), ("do", detail.advice.as_deref().unwrap_or_default())] {
            for (at, line) in wrapped(text, width).iter().take(MAX_SENTENCE).enumerate() {
                if at == 0 {
                    canvas.text(0, y, name, Tone::Dim);
                }
                canvas.text(6, y, line, Tone::Plain);
                y += 1;
            }
        }
        y = draw_way(canvas, y + 1, &spans(detail));
        draw_facts(canvas, y, detail)
    }

    fn draw_sides(&self, canvas: &mut Canvas<'_>, y: u16, row: &EventSummary, detail: Option<&EventDetail>) {
        let mut names = vec![(Side::Request, format!("Request {}", bytes(row.size)))];
        if let Some(detail) = detail {
            let attempt = detail.attempts.iter().find(|attempt| attempt.number == self.attempt_number());
            let answer = attempt.and_then(|attempt| attempt.answer.as_ref());
            let size = answer.map(|answer| format!(" {}", bytes(answer.size))).unwrap_or_default();
            let headers = detail.headers.len() + answer.map_or(0, |answer| answer.headers.len());
            names.push((Side::Answer, format!("Answer{size}")));
            names.push((Side::Headers, format!("Headers {headers}")));
            names.push((Side::Attempts, format!("Attempts {}", detail.attempts.len())));
        }
        let mut x = 0;
        for (side, name) in names {
            let is_open = side == self.side;
            let focused = is_open && (self.pane == Pane::Detail || self.whole);
            let name = if is_open { format!("[{name}]") } else { name };
            x = canvas.text(x, y, &name, if focused { Tone::Strong } else { Tone::Plain }) + 2;
        }
        let mut end = canvas.width().saturating_sub(1);
        for (form, name) in Form::ALL.into_iter().rev() {
            canvas.right(end, y, name, if form == self.form { Tone::Strong } else { Tone::Dim });
            end = end.saturating_sub(name.len() as u16 + 2);
        }
    }

    fn draw_side(&self, canvas: &mut Canvas<'_>, row: &EventSummary, detail: Option<&EventDetail>) {
        let lines = match (self.side, detail) {
            (Side::Headers, Some(detail)) => self.header_lines(detail),
            (Side::Attempts, Some(detail)) => attempt_lines(detail),
            _ => match self.known.body(&row.id, self.part()) {
                Some(body) => return self.draw_body(canvas, &lines(body, self.form)),
                None => vec!["its body is not there".to_owned()],
            },
        };
        let scroll = self.scroll.min(lines.len().saturating_sub(1));
        for (y, line) in (0..canvas.height()).zip(lines.iter().skip(scroll)) {
            canvas.text(1, y, line, Tone::Plain);
        }
    }

    fn draw_body(&self, canvas: &mut Canvas<'_>, lines: &[String]) {
        let scroll = self.scroll.min(lines.len().saturating_sub(1));
        for (y, (number, line)) in (0..canvas.height()).zip(lines.iter().enumerate().skip(scroll)) {
            let x = canvas.text(0, y, &format!("{:>3}", number + 1), Tone::Dim) + 2;
            canvas.text(x, y, line, Tone::Plain);
        }
    }

    fn header_lines(&self, detail: &EventDetail) -> Vec<String> {
        let line = |(name, value): &(String, String)| format!("{name}: {value}");
        let mut lines: Vec<String> = detail.headers.iter().map(line).collect();
        let attempt = detail.attempts.iter().find(|attempt| attempt.number == self.attempt_number());
        if let Some(answer) = attempt.and_then(|attempt| attempt.answer.as_ref()) {
            lines.extend([String::new(), "answer".to_owned()]);
            lines.extend(answer.headers.iter().map(line));
        }
        lines
    }
}

fn draw_head(canvas: &mut Canvas<'_>, row: &EventSummary) -> u16 {
    let width = canvas.width();
    let mut state = row.state.clone();
    if let Some(first) = state.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if let Some(status) = row.status {
        state.push_str(&format!(" · {status}"));
    }
    let room = usize::from(width).saturating_sub(state.chars().count() + 2);
    canvas.text(0, 0, &shortened(&title(row), room), Tone::Strong);
    canvas.right(width, 0, &state, shape(row).1);
    let x = canvas.text(0, 1, &shortened(&format!("{} {}", row.method, row.target), 60), Tone::Plain);
    canvas.text((x + 2).max(30), 1, &row.id, Tone::Dim);
    3
}

/// Draws the way and its scale; the line behind it.
fn draw_way(canvas: &mut Canvas<'_>, mut y: u16, way: &[WaySpan]) -> u16 {
    if way.is_empty() {
        return y;
    }
    let width = canvas.width();
    let cells = width.saturating_sub(BARS + SCALE_END);
    let scale = Scale::new(way, cells.into(), WAIT_SHARE);
    for span in way {
        canvas.text(0, y, &span.name(), Tone::Plain);
        canvas.within(WHAT, y, TOOK_END - WHAT - 8, &span.what, Tone::Dim);
        let shown = if span.kind == SpanKind::Received { "0".to_owned() } else { took(span.took) };
        canvas.right(TOOK_END, y, &shown, Tone::Plain);
        let bar = scale.bar(span);
        let start = BARS.saturating_add(u16::try_from(bar.start).unwrap_or(cells));
        let (cell, tone) = match &span.kind {
            SpanKind::Waits => ("·", Tone::Dim),
            SpanKind::Attempt { result, .. } if !result.starts_with(['1', '2', '3']) => ("▇", Tone::Bad),
            _ => ("▇", Tone::Plain),
        };
        let bar = if bar.cells == 0 { "▏".to_owned() } else { cell.repeat(bar.cells) };
        canvas.text(start, y, &bar, tone);
        y += 1;
    }
    canvas.text(BARS, y, "0", Tone::Dim);
    canvas.right(width, y, &took(scale.total()), Tone::Dim);
    y + 1
}

fn draw_facts(canvas: &mut Canvas<'_>, mut y: u16, detail: &EventDetail) -> u16 {
    let row = &detail.summary;
    let fact = |canvas: &mut Canvas<'_>, x: u16, y: u16, name: &str, value: &str| {
        let x = canvas.text(x, y, name, Tone::Dim) + 2;
        canvas.text(x, y, value, Tone::Plain);
    };
    let mut proof: Vec<String> = row.provider.iter().chain([&detail.verified]).cloned().collect();
    proof.extend(detail.secret.as_ref().map(|secret| format!("secret {} of {}", secret.number, secret.of)));
    proof.retain(|part| !part.is_empty());
    proof.dedup();
    fact(canvas, 0, y, "verified", &proof.join(" · "));
    fact(canvas, 52, y, "sender", &detail.client);
    y += 1;
    let place: Vec<&str> = [&row.endpoint, &detail.mode].into_iter().map(String::as_str).collect();
    fact(canvas, 0, y, "endpoint", place.join(", ").trim_end_matches(", "));
    if let Some(agent) = &row.agent {
        fact(canvas, 28, y, "agent", agent);
    }
    if let Some(same) = detail.same_at_handler {
        fact(canvas, 47, y, "same bytes at the handler", if same { "yes" } else { "no" });
    }
    for (name, value) in [
        ("replay of", &row.replay_of),
        ("conflicts with", &row.conflict_with),
        ("order key", &detail.order_key),
        ("trace", &detail.trace_id),
    ] {
        if let Some(value) = value.as_deref() {
            y += 1;
            fact(canvas, 0, y, name, value);
        }
    }
    y + 2
}

fn attempt_lines(detail: &EventDetail) -> Vec<String> {
    let mut lines = Vec::new();
    for attempt in &detail.attempts {
        let status = attempt.status.map_or_else(|| attempt.outcome.clone(), |status| status.to_string());
        let agent = attempt.agent.as_deref().unwrap_or("nobody");
        let us = attempt.duration_us.max(attempt.duration_ms.saturating_mul(1000));
        lines.push(format!("{}  {status}  {agent}  {}  {}", attempt.number, took(us), attempt.started_at));
        if !attempt.sentence.is_empty() {
            lines.push(format!("   {}", attempt.sentence));
        }
        if let Some(same) = detail.same_in(attempt) {
            lines.push(format!("   {agent} says that its handler got {}", got(same)));
        }
    }
    if lines.is_empty() {
        lines.push("no attempt yet".to_owned());
    }
    lines
}
