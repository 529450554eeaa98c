//! The lower third of a narrow view: why the selected event stands where it does, its way, the first line of its body.
//! Pure.

use super::{
    known::Part,
    look::{Canvas, Tone, title},
    state::ScreenView,
    units::fine,
    way::{Scale, SpanKind, WaySpan, spans, verified},
    wrap::{shortened, wrapped},
};

/// The part of the scale that a long wait takes.
const WAIT_SHARE: f64 = 0.25;
/// Columns beside the bars.
const BESIDE_BARS: u16 = 60;
const BARS: u16 = 51;
/// Lines of the sentence.
const MAX_WHY: usize = 2;

impl ScreenView {
    pub(super) fn draw_peek(&self, canvas: &mut Canvas<'_>) {
        canvas.rule(0, "─");
        let Some(event) = self.selected_row() else { return };
        canvas.text(2, 0, &format!(" {} ── {} ", title(event), event.id), Tone::Plain);
        let detail = self.detail();
        // The body's line and one that is empty stand below.
        let foot = canvas.height().saturating_sub(2);
        let mut y = 1;
        let why = match detail {
            Some(detail) if !detail.sentence.is_empty() => detail.sentence.as_str(),
            _ => event.why.as_str(),
        };
        let width = usize::from(canvas.width().saturating_sub(6));
        for (line, text) in wrapped(why, width).iter().take(MAX_WHY).enumerate() {
            if y >= foot {
                break;
            }
            if line == 0 {
                canvas.text(1, y, "why", Tone::Dim);
            }
            canvas.text(6, y, text, Tone::Plain);
            y += 1;
        }
        if let Some(detail) = detail {
            let mut way = spans(detail);
            way.retain(|span| !matches!(span.kind, SpanKind::Received | SpanKind::Body | SpanKind::Answered));
            let scale = Scale::new(&way, canvas.width().saturating_sub(BESIDE_BARS).into(), WAIT_SHARE);
            for (at, span) in way.iter().enumerate() {
                if y >= foot {
                    break;
                }
                let proof = verified(detail);
                draw_span(canvas, y, span, &scale, (at == 0).then_some(proof.as_str()));
                y += 1;
            }
        }
        if let Some(body) = self.known.body(&event.id, Part::Request) {
            let text = String::from_utf8_lossy(body);
            let first = text.lines().next().unwrap_or_default();
            let width = canvas.width().saturating_sub(1);
            canvas.text(1, y, &shortened(&relay_proto::printable::escaped(first), width.into()), Tone::Dim);
        }
    }
}

/// `first` is the proof, where the line stands for all before it, from the first byte on.
fn draw_span(canvas: &mut Canvas<'_>, y: u16, span: &WaySpan, scale: &Scale, first: Option<&str>) {
    let (start, unit) = fine(if first.is_some() { 0 } else { span.start });
    let whole = start.find('.').unwrap_or(start.len());
    canvas.text(3_u16.saturating_sub(u16::try_from(whole).unwrap_or(3)), y, &format!("{start} {unit}"), Tone::Dim);
    let name = match (&span.kind, first) {
        (SpanKind::Attempt { number, agent, result }, _) => format!("attempt {number}  {agent}  {result}"),
        (SpanKind::Verified, Some(proof)) => format!("verified {proof}"),
        _ => span.name(),
    };
    canvas.within(10, y, 31, &name, Tone::Plain);
    let (took, unit) = fine(span.took);
    let end = canvas.text(46_u16.saturating_sub(u16::try_from(took.len()).unwrap_or(4)), y, &took, Tone::Plain);
    canvas.text(end + 1, y, unit, Tone::Plain);
    let bar = scale.whole_bar(span);
    let (cell, tone) = match &span.kind {
        SpanKind::Waits => ("·", Tone::Dim),
        SpanKind::Attempt { result, .. } if result.starts_with(['1', '2', '3']) => ("▇", Tone::Plain),
        SpanKind::Attempt { .. } => ("▇", Tone::Bad),
        _ => return,
    };
    let start = BARS + u16::try_from(bar.start).unwrap_or(u16::MAX - BARS);
    canvas.text(start, y, &cell.repeat(bar.cells), tone);
}
