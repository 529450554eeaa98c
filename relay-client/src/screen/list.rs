//! The list: one line for each event. Pure.
//!
//! Beside a detail the agent has a column of its own, and alone the type has more room. Where there is too little of
//! it the endpoint goes, then the size, then the notes.

use relay_program::event::EventSummary;

use super::{
    look::{Canvas, Tone, notes, shape, status, title},
    state::ScreenView,
    units,
};
use crate::report::units::bytes;

/// Columns below which the endpoint, the size and the notes go.
const WITHOUT_ENDPOINT: u16 = 60;
const WITHOUT_SIZE: u16 = 50;
const WITHOUT_NOTES: u16 = 42;
/// Columns from which on a list beside a detail has the agent.
const WITH_AGENT: u16 = 78;
const AGENT: u16 = 10;

/// Where the columns of a list stand. An end is the column behind the last one.
struct Columns {
    endpoint: Option<(u16, u16)>,
    kind: (u16, u16),
    took_end: u16,
    size_end: Option<u16>,
    notes: Option<(u16, u16)>,
    agent: Option<u16>,
}

impl Columns {
    fn alone(width: u16) -> Self {
        let has_endpoint = width >= WITHOUT_ENDPOINT;
        let notes = (width >= WITHOUT_NOTES).then(|| (width - 4, width));
        let size_end = (width >= WITHOUT_SIZE).then(|| width - 6);
        let took_end = match (size_end, notes) {
            (Some(end), _) => end - 9,
            (None, Some(_)) => width - 6,
            (None, None) => width,
        };
        let start = if has_endpoint { 29 } else { 19 };
        Self {
            endpoint: has_endpoint.then_some((19, 28)),
            kind: (start, took_end.saturating_sub(8)),
            took_end,
            size_end,
            notes,
            agent: None,
        }
    }

    fn beside(width: u16) -> Self {
        let has_agent = width >= WITH_AGENT;
        let edge = if has_agent { width - AGENT } else { width };
        Self {
            endpoint: Some((19, 27)),
            kind: (28, edge.saturating_sub(22)),
            took_end: edge.saturating_sub(14),
            size_end: Some(edge.saturating_sub(6)),
            notes: Some((edge.saturating_sub(5), edge.saturating_sub(1))),
            agent: has_agent.then_some(edge),
        }
    }
}

/// Whether an event is one of those that `n` goes to.
pub(super) fn is_failure(event: &EventSummary) -> bool {
    matches!(event.state.as_str(), "dead" | "failed" | "rejected" | "damaged")
}

impl ScreenView {
    /// Draws the heading and the rows, `beside` a detail or alone.
    pub(super) fn draw_list(&mut self, canvas: &mut Canvas<'_>, beside: bool) {
        let width = canvas.width();
        let columns = if beside { Columns::beside(width) } else { Columns::alone(width) };
        heading(canvas, &columns, beside);
        let height = usize::from(canvas.height().saturating_sub(1));
        let first = self.first_row(height);
        let selected = self.selected_id().cloned();
        for (y, id) in (1..canvas.height()).zip(self.shown.iter().skip(first)) {
            let Some(event) = self.rows.get(id) else { continue };
            if selected.as_ref() == Some(id) {
                canvas.text(0, y, "▌", Tone::Strong);
            } else if self.marks.contains(id) {
                canvas.text(0, y, "×", Tone::Strong);
            }
            self.draw_row(canvas, y, event, &columns);
        }
        if self.shown.is_empty() {
            let text = if self.find.question().is_empty() { "nothing came yet" } else { "nothing fits" };
            canvas.text(1, 2, text, Tone::Dim);
        }
    }

    fn draw_row(&self, canvas: &mut Canvas<'_>, y: u16, event: &EventSummary, columns: &Columns) {
        canvas.text(1, y, &units::clock(&event.received_at, &self.zone), Tone::Dim);
        let (shape, tone) = shape(event);
        canvas.text(11, y, shape, tone);
        canvas.within(13, y, 5, &status(event), tone);
        if let Some((start, end)) = columns.endpoint {
            canvas.within(start, y, end - start, &event.endpoint, Tone::Plain);
        }
        let (start, end) = columns.kind;
        canvas.within(start, y, end.saturating_sub(start), &title(event), Tone::Plain);
        if let Some(us) = event.took_us {
            let patience = event.patience.unwrap_or_default();
            let (mark, tone) = match patience {
                0.85.. => ("!", Tone::Bad),
                0.5..0.85 => ("", Tone::Odd),
                _ => ("", Tone::Plain),
            };
            canvas.right(columns.took_end, y, &format!("{}{mark}", units::took(us)), tone);
        }
        if let Some(end) = columns.size_end {
            canvas.right(end, y, &bytes(event.size), Tone::Dim);
        }
        if let Some((start, end)) = columns.notes {
            canvas.within(start, y, end - start, &notes(event), Tone::Dim);
        }
        if let (Some(start), Some(agent)) = (columns.agent, &event.agent) {
            canvas.within(start, y, AGENT - 1, agent, Tone::Dim);
        }
    }

    /// One line for each event, where there is room for nothing else.
    pub(super) fn draw_tiny(&mut self, canvas: &mut Canvas<'_>) {
        let first = self.first_row(canvas.height().into());
        for (y, id) in (0..canvas.height()).zip(self.shown.iter().skip(first)) {
            let Some(event) = self.rows.get(id) else { continue };
            let (shape, tone) = shape(event);
            if self.selected_id() == Some(id) {
                canvas.text(0, y, "▌", Tone::Strong);
            }
            let text = format!("{shape} {:<5} {}", status(event), title(event));
            canvas.text(1, y, &text, tone);
        }
    }
}

fn heading(canvas: &mut Canvas<'_>, columns: &Columns, beside: bool) {
    // Beside a detail the headings of numbers stand over the numbers rather than over their units.
    let shift = u16::from(beside);
    canvas.text(1, 0, "time", Tone::Dim);
    canvas.text(11, 0, "status", Tone::Dim);
    if let Some((start, _)) = columns.endpoint {
        canvas.text(start, 0, "endpoint", Tone::Dim);
    }
    canvas.text(columns.kind.0, 0, "type", Tone::Dim);
    canvas.right(columns.took_end - shift, 0, "took", Tone::Dim);
    if let Some(end) = columns.size_end {
        canvas.right(end - shift, 0, "size", Tone::Dim);
    }
    if let Some(start) = columns.agent {
        canvas.text(start - shift, 0, "agent", Tone::Dim);
    }
}
