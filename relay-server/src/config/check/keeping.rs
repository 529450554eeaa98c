//! What an endpoint says about keeping events: its mode, and the keys that only stored modes have.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use relay_schemes::Provider;
use toml::Spanned;

use super::{HOUR, duration, number, read, size, texts};
use crate::config::effective::VerifySpec;
use crate::config::error::{Place, Report};
use crate::config::raw::{RawEndpoint, RawOrder, RawStatus, Text};
use crate::config::values;
use crate::endpoint::{Ack, Identity, Keeping, Order, Resign};
use crate::retry::{MAX_WAIT, Schedule, StatusRule, Statuses};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The least that an endpoint may have of the store, in bytes.
const LEAST_SHARE: u64 = 64 << 10;

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
    verify: &VerifySpec,
    key: &str,
    store_bytes: u64,
    report: &mut Report<'_>,
) -> Option<Keeping> {
    let provider = verify.provider();
    let interactive = provider.is_some_and(|provider| provider.interactive);
    let assured = match mode(&raw.mode, interactive, key, report) {
        Mode::Live => {
            only_for_stored(raw, key, report);
            return None;
        }
        Mode::Durable => false,
        Mode::Assured => true,
    };
    if let Some(replay) = &raw.replay {
        let place = report.place(format!("{key}.replay"), Some(replay.span()));
        report.error(&place, "an endpoint that keeps events knows repeats by `dedup`", "set dedup, or leave it out");
    }
    let of = |member: &str| format!("{key}.{member}");
    let minute = Duration::from_secs(60);
    let second = Duration::from_secs(1);
    let dedup = word(&raw.dedup, &of("dedup"), &["on", "off", "body"], report);
    let methods = texts(&raw.methods, &of("methods"), method, report);
    let dedup_window =
        (dedup != 1).then(|| duration(&raw.dedup_window, &of("dedup_window"), DAY, second..=30 * DAY, report));
    Some(Keeping {
        assured,
        ack: ack(raw, provider, key, report),
        // Half of the store, so that no endpoint alone can fill it.
        max_bytes: size(&raw.max_size, &of("max_size"), store_bytes / 2, LEAST_SHARE..=store_bytes, report),
        methods: if raw.methods.is_some() { methods } else { default_methods() },
        attempt_timeout: duration(&raw.attempt_timeout, &of("attempt_timeout"), minute, second..=HOUR, report),
        agent_grace: duration(&raw.agent_grace, &of("agent_grace"), 15 * second, Duration::ZERO..=HOUR, report),
        pass_failures: word(&raw.on_failure, &of("on_failure"), &["retry", "pass"], report) == 1,
        identity: identity(raw, dedup, key, report),
        dedup_window,
        late: verify.last_retry().filter(|last| dedup_window.is_some_and(|window| window >= *last)),
        sender_retries: provider.is_none_or(|provider| provider.retries),
        schedule: schedule(raw, key, report),
        statuses: statuses(raw, key, report),
        circuit: crate::retry::CircuitRule::default(),
        order: order(raw, key, report),
        resign: match word(&raw.resign, &of("resign"), &["late", "never", "always"], report) {
            1 => Resign::Never,
            2 => Resign::Always,
            _ => Resign::Late,
        },
    })
}

enum Mode {
    Live,
    Durable,
    Assured,
}

/// Assured, unless the answer is what the provider asks for: then it is live.
fn mode(mode: &Text, interactive: bool, key: &str, report: &mut Report<'_>) -> Mode {
    if mode.is_none() && interactive {
        return Mode::Live;
    }
    match word(mode, &format!("{key}.mode"), &["assured", "durable", "live"], report) {
        1 => Mode::Durable,
        2 => Mode::Live,
        _ => Mode::Assured,
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
        ("dedup_key", &raw.dedup_key),
        ("resign", &raw.resign),
        ("max_size", &raw.max_size),
    ];
    for (name, text) in texts {
        let Some(text) = text else { continue };
        let place = report.place(format!("{key}.{name}"), Some(text.span()));
        unheeded(&place, report);
    }
    let groups = [
        (
            "retry",
            raw.retry.schedule.is_some()
                || raw.retry.first.is_some()
                || raw.retry.attempts.is_some()
                || raw.retry.retry_on.is_some()
                || raw.retry.give_up_on.is_some(),
        ),
        ("ack", raw.ack.status.is_some() || raw.ack.body.is_some() || raw.ack.content_type.is_some()),
        ("methods", raw.methods.is_some()),
        ("order", raw.order.is_some()),
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

fn ack(raw: &RawEndpoint, provider: Option<&Provider>, key: &str, report: &mut Report<'_>) -> Ack {
    let none = raw.ack.status.is_none() && raw.ack.body.is_none() && raw.ack.content_type.is_none();
    if let Some(theirs) = provider.and_then(|provider| provider.ack.as_ref()).filter(|_| none) {
        return Ack {
            status: StatusCode::from_u16(theirs.status).unwrap_or(StatusCode::OK),
            content_type: theirs.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok()),
            body: theirs.body.clone().into(),
        };
    }
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

/// Something that finds a text in a request, in the grammar of the providers' rows.
fn locator(text: &str) -> Result<Arc<Provider>, values::Problem> {
    let mut table = toml::Table::new();
    for (key, value) in [("name", "key"), ("title", text), ("event_id", text)] {
        table.insert(key.to_owned(), toml::Value::String(value.to_owned()));
    }
    let mut tables = toml::Table::new();
    tables.insert("provider".to_owned(), toml::Value::Array(vec![toml::Value::Table(table)]));
    let rows = toml::to_string(&tables).map_err(|error| (error.to_string(), String::new()))?;
    let help = "write it like \"header:x-id\" or \"json:/data/id\"".to_owned();
    match relay_schemes::load(&rows).map(|mut rows| rows.pop()) {
        Ok(Some(row)) => Ok(Arc::new(row)),
        Ok(None) | Err(_) => Err((format!("\"{text}\" finds nothing in a request"), help)),
    }
}

fn identity(raw: &RawEndpoint, dedup: usize, key: &str, report: &mut Report<'_>) -> Identity {
    if dedup == 2 {
        return Identity::Body;
    }
    let place = |text: &Spanned<String>| report.place(format!("{key}.dedup_key"), Some(text.span()));
    let setting = raw.dedup_key.as_ref().map(|text| (text.get_ref().as_str(), place(text)));
    read(setting, locator, report).map_or(Identity::Provider, Identity::Located)
}

fn order(raw: &RawEndpoint, key: &str, report: &mut Report<'_>) -> Order {
    let Some(order) = &raw.order else { return Order::None };
    let place = report.place(format!("{key}.order"), Some(order.span()));
    match order.get_ref() {
        RawOrder::Word(word) if word == "none" => Order::None,
        RawOrder::Word(word) if word == "fifo" => Order::Fifo,
        RawOrder::Word(word) => {
            report.error(
                &place,
                format!("\"{word}\" is not an order"),
                "write \"none\", \"fifo\" or { key = \"json:/data/customer\" }",
            );
            Order::None
        }
        RawOrder::Key { key } => read(Some((key, place)), locator, report).map_or(Order::None, Order::ByKey),
    }
}

fn schedule(raw: &RawEndpoint, key: &str, report: &mut Report<'_>) -> Schedule {
    let of = |member: &str| format!("{key}.retry.{member}");
    let retry = &raw.retry;
    let grows = retry.first.is_some() || retry.factor.is_some() || retry.longest.is_some() || retry.attempts.is_some();
    if grows {
        if retry.schedule.is_some() {
            let place = report.place(of("schedule"), None);
            report.error(&place, "a list of waits and waits that grow cannot both hold", "leave one of them out");
        }
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(60 * 60));
        return Schedule::Exponential {
            first: duration(&retry.first, &of("first"), 5 * second, Duration::from_millis(10)..=MAX_WAIT, report),
            factor: number(&retry.factor, &of("factor"), 2, 1..=100, report),
            longest: duration(&retry.longest, &of("longest"), hour, Duration::from_millis(10)..=MAX_WAIT, report),
            attempts: number(&retry.attempts, &of("attempts"), 16, 1..=1000, report),
        };
    }
    if retry.schedule.is_none() {
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

/// The statuses of failures that are meant.
fn failures(status: &RawStatus) -> Option<RangeInclusive<u16>> {
    match status {
        RawStatus::One(status) => {
            let status = u16::try_from(*status).ok().filter(|status| (300..=599).contains(status))?;
            Some(status..=status)
        }
        RawStatus::Class(class) => {
            let hundreds = ["3xx", "4xx", "5xx"].iter().position(|known| known == class)?;
            let first = 300 + 100 * u16::try_from(hundreds).ok()?;
            Some(first..=first + 99)
        }
    }
}

fn statuses(raw: &RawEndpoint, key: &str, report: &mut Report<'_>) -> StatusRule {
    let mut rule = StatusRule::default();
    let mut list = |list: &Option<Vec<Spanned<RawStatus>>>, name: &str| {
        let of = |status: &Spanned<RawStatus>| {
            let known = failures(status.get_ref());
            if known.is_none() {
                let place = report.place(format!("{key}.retry.{name}"), Some(status.span()));
                report.error(&place, "this is not a status of a failure", "write 300 to 599, \"4xx\" or \"5xx\"");
            }
            known
        };
        Some(Statuses::new(list.as_ref()?.iter().filter_map(of).collect()))
    };
    if let Some(statuses) = list(&raw.retry.retry_on, "retry_on") {
        rule.retry_on = statuses;
    }
    if let Some(statuses) = list(&raw.retry.give_up_on, "give_up_on") {
        rule.give_up_on = statuses;
    }
    rule
}
