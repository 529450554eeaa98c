//! Lines as `tracing_subscriber` writes them, in words and in JSON, with what they are about in the place of its spans.
//! The spans of libraries stand behind it.
//!
//! Escapes nothing: [`relay_proto::printable::LogLines`] does, for whole lines.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{self, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use super::{FieldValue, LogScope, Subject};

pub(crate) struct TextLines;

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let colours = Colours(writer.has_ansi_escapes());
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let level = *event.metadata().level();
        let colour = match level {
            Level::ERROR => Colours::RED,
            Level::WARN => Colours::YELLOW,
            Level::INFO => Colours::GREEN,
            Level::DEBUG => Colours::BLUE,
            Level::TRACE => Colours::PURPLE,
        };
        write!(writer, "{} {} ", colours.paint(Colours::DIMMED, &time), colours.paint(colour, &format!("{level:>5}")))?;
        let mut is_about = false;
        for subject in LogScope::current().subjects() {
            is_about = true;
            writer.write_str(&text(&subject, colours))?;
        }
        if is_about && context.event_scope().is_none() {
            writer.write_char(' ')?;
        }
        format::format().without_time().with_level(false).format_event(context, writer, event)
    }
}

pub(super) fn text(subject: &Subject, colours: Colours) -> String {
    let mut text = colours.paint(Colours::BOLD, subject.name);
    if !subject.fields.is_empty() {
        let fields = subject.fields.iter().map(|(name, value)| {
            let value = match value {
                FieldValue::Plain(value) => value.clone(),
                FieldValue::Quoted(value) => format!("{value:?}"),
                FieldValue::Number(number) => number.to_string(),
            };
            format!("{}{}{value}", colours.paint(Colours::ITALIC, name), colours.paint(Colours::DIMMED, "="))
        });
        text.push_str(&colours.paint(Colours::BOLD, "{"));
        text.push_str(&fields.collect::<Vec<_>>().join(" "));
        text.push_str(&colours.paint(Colours::BOLD, "}"));
    }
    text.push_str(&colours.paint(Colours::DIMMED, ":"));
    text
}

/// Whether the log has colours.
#[derive(Clone, Copy)]
pub(super) struct Colours(pub(super) bool);

/// Parameters of SGR (ECMA-48, section 8.3.117).
impl Colours {
    const BOLD: u8 = 1;
    const DIMMED: u8 = 2;
    const ITALIC: u8 = 3;
    const RED: u8 = 31;
    const GREEN: u8 = 32;
    const YELLOW: u8 = 33;
    const BLUE: u8 = 34;
    const PURPLE: u8 = 35;

    fn paint(self, parameter: u8, text: &str) -> String {
        if self.0 { format!("\u{1b}[{parameter}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

pub(crate) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        let without_spans = format::format().json().with_current_span(false).with_span_list(false);
        without_spans.format_event(context, Writer::new(&mut line), event)?;
        let mut spans: Vec<String> = LogScope::current().subjects().map(|subject| object(&subject)).collect();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map_or("{}", |fields| &*fields.fields);
            spans.push(named(fields, span.metadata().name()));
        }
        match (spans.last(), line.strip_suffix("}\n")) {
            (Some(span), Some(line)) => writeln!(writer, r#"{line},"span":{span},"spans":[{}]}}"#, spans.join(",")),
            _ => writer.write_str(&line),
        }
    }
}

fn object(subject: &Subject) -> String {
    let value = |value: &FieldValue| match value {
        FieldValue::Plain(text) | FieldValue::Quoted(text) => json!(text),
        FieldValue::Number(number) => json!(number),
    };
    let fields: BTreeMap<_, Value> = subject.fields.iter().map(|(name, field)| (name, value(field))).collect();
    named(&json!(fields).to_string(), subject.name)
}

/// An object of JSON with its name behind its `fields`.
fn named(fields: &str, name: &str) -> String {
    let fields = fields.strip_suffix('}').unwrap_or("{");
    let comma = if fields == "{" { "" } else { "," };
    format!(r#"{fields}{comma}"name":"{name}"}}"#)
}
