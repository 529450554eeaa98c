//! How the log writes the fields of spans and lines: as `tracing_subscriber` does, without its detours where there are no
//! colours. Each webhook has a span or two, whose fields are written whether or not a line will show them.
//!
//! Escapes nothing: [`relay_proto::printable::LogLines`] does, for whole lines.

use std::{
    error::Error,
    fmt::{self, Debug},
};

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
    },
};

#[derive(Debug, Default)]
pub(super) struct PlainFields;

impl<'w> FormatFields<'w> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        if writer.has_ansi_escapes() {
            return DefaultFields::new().format_fields(writer, fields);
        }
        let mut plain = Plain { writer, is_first: true, written: Ok(()) };
        fields.record(&mut plain);
        plain.written
    }
}

struct Plain<'w> {
    writer: Writer<'w>,
    is_first: bool,
    written: fmt::Result,
}

impl Plain<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) -> fmt::Result {
        self.written?;
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        if field.name() != "message" {
            self.writer.write_str(field.name().trim_start_matches("r#"))?;
            self.writer.write_char('=')?;
        }
        value(&mut self.writer)
    }
}

impl Visit for Plain<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        self.written = self.write(field, |writer| match is_message {
            true => writer.write_str(value),
            false => write!(writer, "{value:?}"),
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.written = self.write(field, |writer| {
            write!(writer, "{value}")?;
            let Some(mut source) = value.source() else { return Ok(()) };
            let mut sources = vec![source.to_string()];
            while let Some(next) = source.source() {
                sources.push(next.to_string());
                source = next;
            }
            write!(writer, " {}.sources=[{}]", field.name(), sources.join(", "))
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.written = self.write(field, |writer| write!(writer, "{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex, PoisonError},
    };

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn say() {
        let cause = io::Error::other(io::Error::other("a disk"));
        let span =
            tracing::info_span!("request", event_id = %"hook_1", name = "a \"name\"", agent = tracing::field::Empty);
        span.record("agent", "laptop");
        let _entered = span.enter();
        tracing::info_span!("attempt", number = 3_u32, is_late = true, share = 0.5).in_scope(|| {
            tracing::warn!(error = &cause as &(dyn Error + 'static), r#type = ?Some(1), "it {} failed", "has");
            tracing::info!("{}", "only words");
        });
    }

    #[test]
    fn lines_read_as_those_of_the_library() {
        let (ours, theirs) = (Lines::default(), Lines::default());
        let build = |lines: &Lines| {
            let lines = lines.clone();
            tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(lines)
        };
        // With one subscriber in the process, a line that a test beside this one reaches first would be switched off.
        let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
        tracing::subscriber::with_default(build(&ours).fmt_fields(PlainFields).finish(), say);
        tracing::subscriber::with_default(build(&theirs).finish(), say);
        let [ours, theirs] = [ours, theirs].map(|lines| {
            let bytes = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        assert_eq!(ours, theirs);
        assert!(
            ours.contains("request{event_id=hook_1 name=\"a \\\"name\\\"\" agent=\"laptop\"}:attempt{number=3"),
            "{ours}"
        );
    }
}
