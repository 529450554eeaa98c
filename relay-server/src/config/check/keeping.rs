//! What an endpoint says about keeping events: its mode, and the keys that only stored modes have.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use relay_schemes::Provider;
use toml::Spanned;

use super::{HOUR, duration, number, read, texts};
use crate::config::error::{Place, Report};
use crate::config::raw::{RawEndpoint, Text};
use crate::config::values;
use crate::endpoint::{Ack, Keeping};
use crate::retry::{MAX_WAIT, Schedule, StatusRule, Statuses};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Waits that a schedule may have.
const MAX_WAITS: usize = 100;

/// Largest body of an ack, in bytes.
const MAX_ACK_BYTES: usize = 16 * 1024;

/// Methods that are kept unless the endpoint names others: those that bring something.
fn default_methods() -> Vec<Method> {
    vec![Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
}

/// `None` for a live endpoint.
pub(super) fn keeping(
    raw: &RawEndpoint,
    provider: Option<&Provider>,
    key: &str,
    report: &mut Report<'_>,
) -> Option<Keeping> {
    let assured = match mode(&raw.mode, key, report) {
        Mode::Live => {
            only_for_stored(raw, key, report);
            return None;
        }
        Mode::Durable => false,
        Mode::Assured => true,
    };
    let of = |member: &str| format!("{key}.{member}");
    let minute = Duration::from_secs(60);
    let second = Duration::from_secs(1);
    let methods = texts(&raw.methods, &of("methods"), method, report);
    Some(Keeping {
        assured,
        ack: ack(raw, key, report),
        methods: if raw.methods.is_some() { methods } else { default_methods() },
        attempt_timeout: duration(&raw.attempt_timeout, &of("attempt_timeout"), minute, second..=HOUR, report),
        agent_grace: duration(&raw.agent_grace, &of("agent_grace"), 15 * second, Duration::ZERO..=HOUR, report),
        pass_failures: word(&raw.on_failure, &of("on_failure"), &["retry", "pass"], report) == 1,
        dedup_window: (word(&raw.dedup, &of("dedup"), &["on", "off"], report) == 0)
            .then(|| duration(&raw.dedup_window, &of("dedup_window"), DAY, second..=30 * DAY, report)),
        sender_retries: provider.is_none_or(|provider| provider.retries),
        schedule: schedule(raw, key, report),
        statuses: statuses(raw, key, report),
        circuit: crate::retry::CircuitRule::default(),
        fifo: word(&raw.order, &of("order"), &["none", "fifo"], report) == 1,
    })
}

enum Mode {
    Live,
    Durable,
    Assured,
}

fn mode(mode: &Text, key: &str, report: &mut Report<'_>) -> Mode {
    match word(mode, &format!("{key}.mode"), &["live", "durable", "assured"], report) {
        1 => Mode::Durable,
        2 => Mode::Assured,
        _ => Mode::Live,
    }
}

/// Keys that a live endpoint would not heed.
fn only_for_stored(raw: &RawEndpoint, key: &str, report: &mut Report<'_>) {
    let texts = [
        ("attempt_timeout", &raw.attempt_timeout),
        ("agent_grace", &raw.agent_grace),
        ("on_failure", &raw.on_failure),
        ("dedup", &raw.dedup),
        ("dedup_window", &raw.dedup_window),
        ("order", &raw.order),
    ];
    for (name, text) in texts {
        let Some(text) = text else { continue };
        let place = report.place(format!("{key}.{name}"), Some(text.span()));
        unheeded(&place, report);
    }
    let groups = [
        ("retry", raw.retry.schedule.is_some() || raw.retry.retry_on.is_some() || raw.retry.give_up_on.is_some()),
        ("ack", raw.ack.status.is_some() || raw.ack.body.is_some() || raw.ack.content_type.is_some()),
        ("methods", raw.methods.is_some()),
    ];
    for (name, _) in groups.iter().filter(|(_, there)| *there) {
        let place = report.place(format!("{key}.{name}"), None);
        unheeded(&place, report);
    }
}

fn unheeded(place: &Place, report: &mut Report<'_>) {
    report.error(
        place,
        "a live endpoint keeps nothing, so this would not be heeded",
        "set mode = \"assured\" or mode = \"durable\", or leave it out",
    );
}

/// Which of the words it is; the first if there is none.
fn word(text: &Text, key: &str, words: &[&str], report: &mut Report<'_>) -> usize {
    let parse = |text: &str| {
        words.iter().position(|word| *word == text).ok_or_else(|| {
            let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            (format!("\"{text}\" is not known here"), format!("write {}", quoted.join(" or ")))
        })
    };
    let setting = text.as_ref().map(|text| (text.get_ref().as_str(), report.place(key, Some(text.span()))));
    read(setting, parse, report).unwrap_or(0)
}

fn method(text: &str) -> Result<Method, values::Problem> {
    let help = "write it in capitals, such as \"POST\"".to_owned();
    match Method::from_bytes(text.as_bytes()) {
        Ok(method)
            if !matches!(method, Method::CONNECT | Method::TRACE) && !text.bytes().any(|b| b.is_ascii_lowercase()) =>
        {
            Ok(method)
        }
        _ => Err((format!("\"{text}\" is not a method that can be kept"), help)),
    }
}

fn ack(raw: &RawEndpoint, key: &str, report: &mut Report<'_>) -> Ack {
    let status = number(&raw.ack.status, &format!("{key}.ack.status"), 200_u16, 200..=299, report);
    let body = raw.ack.body.as_ref().map(|body| body.get_ref().clone()).unwrap_or_default();
    if body.len() > MAX_ACK_BYTES {
        let place = report.place(format!("{key}.ack.body"), raw.ack.body.as_ref().map(Spanned::span));
        report.error(&place, format!("it is longer than {MAX_ACK_BYTES} bytes"), "make it shorter");
    }
    let content_type = raw.ack.content_type.as_ref().and_then(|text| {
        let place = report.place(format!("{key}.ack.content_type"), Some(text.span()));
        let parse = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| ("it cannot stand in a header".to_owned(), String::new()))
        };
        read(Some((text.get_ref().as_str(), place)), parse, report)
    });
    Ack { status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK), content_type, body: body.into() }
}

fn schedule(raw: &RawEndpoint, key: &str, report: &mut Report<'_>) -> Schedule {
    if raw.retry.schedule.is_none() {
        return Schedule::default();
    }
    let key = format!("{key}.retry.schedule");
    let waits = texts(&raw.retry.schedule, &key, values::duration, report);
    if waits.len() > MAX_WAITS || waits.iter().any(|wait| *wait > MAX_WAIT) {
        let place = report.place(key, None);
        report.error(&place, "it has too many waits, or one of more than a day", "at most 100 waits, each up to 24h");
    }
    Schedule::List(waits)
}

fn statuses(raw: &RawEndpoint, key: &str, report: &mut Report<'_>) -> StatusRule {
    let mut rule = StatusRule::default();
    let mut list = |list: &Option<Vec<Spanned<i64>>>, name: &str| {
        let list = list.as_ref()?;
        let of = |status: &Spanned<i64>| {
            let known = u16::try_from(*status.get_ref()).ok().filter(|status| (300..=599).contains(status));
            if known.is_none() {
                let place = report.place(format!("{key}.retry.{name}"), Some(status.span()));
                report.error(&place, format!("{} is not a status of a failure", status.get_ref()), "300 to 599");
            }
            known.map(|status| status..=status)
        };
        Some(Statuses::new(list.iter().filter_map(of).collect()))
    };
    if let Some(statuses) = list(&raw.retry.retry_on, "retry_on") {
        rule.retry_on = statuses;
    }
    if let Some(statuses) = list(&raw.retry.give_up_on, "give_up_on") {
        rule.give_up_on = statuses;
    }
    rule
}
