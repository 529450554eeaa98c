//! Events as lines for people.
//!
//! Pure. Columns come first and text of any length last, so that lines stay aligned. Foreign text is escaped before it
//! is coloured. Most lines are one for each exchange: these are written without detours, and carry colours where they
//! are wanted alone; of the others the writer strips them.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write as _},
};

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};
use relay_proto::printable::escaped;

use super::{
    AgentRole, AgentState, Line, Notice, Outcome, Output, Sink,
    event::Event,
    units::{duration, push_bytes, push_duration, push_number},
};

/// The widest column's.
const SPACES: &str = "                                ";
const PATH_WIDTH: usize = SPACES.len();
/// Room for most lines.
pub(super) const LINE_BYTES: usize = 192;
/// Characters of a path that are shown.
const MAX_PATH: usize = 200;

const GOOD: Style = AnsiColor::Green.on_default();
const ODD: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const DIM: Style = Style::new().dimmed();
const STRONG: Style = Style::new().bold();

/// The text of an event and where it goes; none if this output does not show it.
pub(super) fn render(event: &Event, style: &super::Style) -> Option<(Sink, String)> {
    let (output, zone) = (style.output, &style.zone);
    let quiet = output == Output::Quiet;
    match event {
        Event::State { state, .. } => state_text(state, output, zone).map(|text| (Sink::Err, text)),
        Event::Exchange(line) if quiet && (!is_problem(line) || matches!(line.outcome, Outcome::Unmade(_))) => None,
        Event::Exchange(line) => Some((Sink::Out, exchange_text(line, style))),
        // Whoever finds the relay's address can have it, or the agent, refuse something.
        Event::Refused(_) | Event::MoreRefused { .. } | Event::MoreUnmade { .. } if quiet => None,
        Event::Refused(notice) => Some((Sink::Out, refused_text(notice, zone))),
        Event::MoreRefused { count } => {
            let plural = if *count == 1 { "" } else { "s" };
            Some((Sink::Out, format!("{} {count} more request{plural}\n", paint("REFUSED", BAD))))
        }
        Event::Warning { message, .. } => {
            Some((Sink::Err, format!("{}: {}\n", paint("warning", ODD), escaped(message))))
        }
        Event::Dropped { count } | Event::MoreUnmade { count } => {
            Some((Sink::Err, format!("{}\n", paint(format_args!("{count} lines not shown"), ODD))))
        }
    }
}

fn state_text(state: &AgentState, output: Output, zone: &TimeZone) -> Option<String> {
    let quiet = output == Output::Quiet;
    let text = match state {
        AgentState::Reconnecting { after, why } => {
            let head = paint("reconnecting", ODD);
            format!("{head} in {}: {}\n", duration(*after), escaped(why))
        }
        AgentState::Refused { why, code } => {
            let code = code.as_ref().map(|code| format!(" ({})", escaped(code))).unwrap_or_default();
            format!("{}: {}{code}\n", paint("refused", BAD), escaped(why))
        }
        _ if quiet => return None,
        AgentState::Connecting { relay } => format!("connecting to {}\n", escaped(relay)),
        AgentState::Ready { endpoints } => {
            let mut text = format!("{}\n", paint("ready", GOOD));
            for endpoint in endpoints {
                let url = paint(escaped(&endpoint.public_url), STRONG);
                let note = match endpoint.role {
                    AgentRole::Active => "",
                    AgentRole::Standby => ", standing by",
                    AgentRole::Copy => ", copies only",
                };
                text.push_str(&format!("  {url} -> {}{note}\n", escaped(&endpoint.target)));
            }
            text
        }
        AgentState::Health { address } => format!("health checks: http://{address}/readyz and /livez\n"),
        AgentState::Inspect { address, key: Some(key), .. } => {
            format!("{}  {address}#key={}\n", paint("inspect", STRONG), key.reveal())
        }
        AgentState::Inspect { address, key_file, .. } => {
            let file = key_file.as_ref().map(|file| file.display().to_string());
            let file = file.map(|file| format!("; its key is in {}", escaped(&file))).unwrap_or_default();
            format!("{}  {address}{file}\n", paint("inspect", STRONG))
        }
        AgentState::Reloaded => "changed settings were taken over\n".to_owned(),
        AgentState::Draining => "stopping: finishing what runs, taking nothing new\n".to_owned(),
        AgentState::Standby { endpoint } => {
            format!("{} for {}: another agent is active\n", paint("standing by", ODD), escaped(endpoint))
        }
        AgentState::Active { endpoint } => {
            format!("{} for {}: webhooks come to this agent now\n", paint("active", GOOD), escaped(endpoint))
        }
        AgentState::Copy { endpoint } => {
            let head = paint("copies only", ODD);
            format!("{head} for {}: another agent answers; --attach shared takes part\n", escaped(endpoint))
        }
        AgentState::Backlog { line, .. } => format!("{}: {}\n", paint("backlog", ODD), escaped(line)),
        AgentState::Replaying { count: 0, since, .. } => format!("nothing to replay since {}\n", moment(*since, zone)),
        AgentState::Replaying { count, since, more, .. } => {
            let more = if *more { ", and more after these" } else { "" };
            format!("replaying {}{more}\n", webhooks(*count, *since, zone))
        }
        AgentState::Replayed { count, failed, since, .. } => {
            let failed = if *failed > 0 { format!(", {failed} of them without success") } else { String::new() };
            format!("replayed {}{failed}\n", webhooks(*count, *since, zone))
        }
    };
    Some(text)
}

fn exchange_text(line: &Line, style: &super::Style) -> String {
    let colour = match &line.outcome {
        Outcome::Status(..300) => GOOD,
        Outcome::Status(300..500) => ODD,
        Outcome::Status(500..) | Outcome::Failed(_) | Outcome::Unmade(_) => BAD,
    };
    let mut text = String::with_capacity(LINE_BYTES);
    // Writing to a string does not fail.
    let coloured = |text: &mut String, colour: Style, part: &dyn Fn(&mut String)| {
        let _ = if style.colours { write!(text, "{colour}") } else { Ok(()) };
        part(text);
        let _ = if style.colours { write!(text, "{colour:#}") } else { Ok(()) };
    };
    coloured(&mut text, DIM, &|text| push_clock(text, line.time, &style.zone));
    text.push_str("  ");
    push_left(&mut text, 6, |text| text.push_str(&escaped(&line.method)));
    text.push(' ');
    push_left(&mut text, PATH_WIDTH, |text| text.push_str(&shortened(&line.path)));
    text.push_str("  ");
    let push_outcome = |text: &mut String| match &line.outcome {
        Outcome::Status(status) => push_number(text, u64::from(*status)),
        Outcome::Failed(code) | Outcome::Unmade(code) => text.push_str(&escaped(code)),
    };
    coloured(&mut text, colour, &|text| push_left(text, 11, push_outcome));
    text.push(' ');
    push_right(&mut text, 8, |text| push_duration(text, line.duration));
    for (count, way) in [(line.bytes_in, " in"), (line.bytes_out, " out")] {
        text.push(' ');
        push_right(&mut text, 8, |text| push_bytes(text, count));
        text.push_str(way);
    }
    let interactive = style.output == Output::Interactive;
    if interactive {
        text.extend(["  ", &escaped(&line.endpoint)]);
        if let Some(id) = &line.event_id {
            text.push_str("  ");
            coloured(&mut text, DIM, &|text| text.push_str(&escaped(id)));
        }
        if let Some(first) = &line.replay_of {
            text.push_str("  ");
            coloured(&mut text, DIM, &|text| text.extend(["replay of ", &escaped(first)]));
        }
    }
    if let Some(note) = line.note.as_ref().filter(|_| interactive || is_problem(line)) {
        text.extend(["  ", &escaped(note)]);
    }
    text.push('\n');
    text
}

/// Adds a value to a column of so many characters, at its left.
fn push_left(text: &mut String, width: usize, push: impl FnOnce(&mut String)) {
    let at = text.len();
    push(text);
    text.push_str(missing(&text[at..], width));
}

/// The same, at its right.
fn push_right(text: &mut String, width: usize, push: impl FnOnce(&mut String)) {
    let at = text.len();
    push(text);
    text.insert_str(at, missing(&text[at..], width));
}

/// The spaces that a value needs to fill a column.
fn missing(value: &str, width: usize) -> &'static str {
    &SPACES[..width.saturating_sub(value.chars().count())]
}

fn push_clock(text: &mut String, time: Timestamp, zone: &TimeZone) {
    let time = zone.to_datetime(time).time();
    for (at, value) in [time.hour(), time.minute(), time.second()].into_iter().enumerate() {
        if at > 0 {
            text.push(':');
        }
        let digit = |digit: i8| char::from(b'0' + digit.unsigned_abs() % 10);
        text.push(digit(value / 10));
        text.push(digit(value % 10));
    }
}

fn refused_text(notice: &Notice, zone: &TimeZone) -> String {
    let time = paint(clock(notice.time, zone), DIM);
    let (provider, code) = (escaped(&notice.provider), escaped(&notice.code));
    let mut text = format!("{time}  {} {} {provider} {code}", paint("REFUSED", BAD), notice.status);
    if let Some(id) = &notice.event_id {
        text.push_str(&format!(" {}", escaped(id)));
    }
    if notice.endpoint != notice.provider {
        text.push_str(&format!("  {}", escaped(&notice.endpoint)));
    }
    text.push('\n');
    text
}

fn is_problem(line: &Line) -> bool {
    !matches!(line.outcome, Outcome::Status(..400))
}

fn shortened(path: &str) -> Cow<'_, str> {
    let path = escaped(path);
    if path.len() <= MAX_PATH {
        return path;
    }
    match path.char_indices().nth(MAX_PATH) {
        Some((end, _)) => Cow::Owned(format!("{}…", &path[..end])),
        None => path,
    }
}

fn webhooks(count: usize, since: Timestamp, zone: &TimeZone) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} webhook{plural} since {}", moment(since, zone))
}

/// The time of day, with its day where that is another one.
fn moment(time: Timestamp, zone: &TimeZone) -> String {
    let (then, now) = (time.to_zoned(zone.clone()), Timestamp::now().to_zoned(zone.clone()));
    then.strftime(if then.date() == now.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" }).to_string()
}

fn clock(time: Timestamp, zone: &TimeZone) -> String {
    let mut text = String::new();
    push_clock(&mut text, time, zone);
    text
}

fn paint(text: impl Display, style: Style) -> impl Display {
    fmt::from_fn(move |to| write!(to, "{style}{text}{style:#}"))
}
