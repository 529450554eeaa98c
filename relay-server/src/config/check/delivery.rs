//! What an endpoint says about keeping events: its mode, and the keys that only stored modes have.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use relay_program::config::{Section, Typed, Wrong, duration, show_duration};
use relay_schemes::{Locator, Provider};
use toml::de::DeValue;
use toml_edit::{Array, Value};

use super::verify::Verify;
use super::{DAY, HOUR, MINUTE, SECOND};
use crate::config::{FROM_ROW, keys};
use crate::endpoint::{Ack, DeliveryPolicy, Identity, Order, Resign};
use crate::retry::{CircuitRule, MAX_WAIT, Schedule, StatusRule, Statuses};

/// The least that an endpoint may have of the store, in bytes.
const LEAST_SHARE: u64 = 64 << 10;

const MAX_WAITS: usize = 100;

const MAX_ACK_BYTES: usize = 16 * 1024;

/// Methods that are kept unless the endpoint names others: those that bring something.
const DEFAULT_METHODS: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// What no other word is.
const KNOWN: &str = "known here";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Live,
    Durable,
    Assured,
}

impl Mode {
    /// Assured, unless the answer is what the provider asks for: then it is live.
    pub(super) fn of(row: &Section<'_>, provider: Option<&Provider>) -> Self {
        let mut words = [("assured", Self::Assured), ("durable", Self::Durable), ("live", Self::Live)];
        if provider.is_some_and(|provider| provider.interactive) {
            words.rotate_right(1);
            row.give("mode", FROM_ROW);
        }
        row.word("mode", KNOWN, &words)
    }
}

/// `None` for a live endpoint.
pub(super) fn delivery_policy(
    row: &Section<'_>,
    mode: Mode,
    verify: &Verify,
    store_bytes: u64,
) -> Option<DeliveryPolicy> {
    if mode == Mode::Live {
        for key in keys::STORED.split(' ').filter(|key| row.has(key)) {
            let message = "a live endpoint keeps nothing, so this would not be heeded";
            row.error(key, message, "set mode = \"assured\" or mode = \"durable\", or leave it out");
        }
        return None;
    }
    if row.has("replay") {
        let message = "an endpoint that keeps events knows repeats by `dedup`";
        row.error("replay", message, "set dedup, or leave it out");
    }
    // Half of the store, so that no endpoint alone can fill it.
    let max_bytes = row.size("max_size", store_bytes / 2, LEAST_SHARE..=store_bytes);
    let attempt_timeout = row.duration("attempt_timeout", MINUTE, SECOND..=HOUR);
    let agent_grace = row.duration("agent_grace", 15 * SECOND, Duration::ZERO..=HOUR);
    let pass_failures = row.word("on_failure", KNOWN, &[("retry", false), ("pass", true)]);
    let methods = methods(row);
    let dedup = row.word("dedup", KNOWN, &[("on", "on"), ("off", "off"), ("body", "body")]);
    let dedup_window = (dedup != "off").then(|| row.duration("dedup_window", DAY, SECOND..=30 * DAY));
    Some(DeliveryPolicy {
        assured: mode == Mode::Assured,
        max_bytes,
        methods,
        attempt_timeout,
        agent_grace,
        pass_failures,
        identity: if dedup == "body" { Identity::Body } else { identity(row) },
        dedup_window,
        late: verify.last_retry().filter(|last| dedup_window.is_some_and(|window| window >= *last)),
        sender_retries: verify.provider.as_ref().is_none_or(|provider| provider.retries),
        order: order(row),
        resign: row.word(
            "resign",
            KNOWN,
            &[("late", Resign::Late), ("never", Resign::Never), ("always", Resign::Always)],
        ),
        ack: ack(row, verify.provider.as_deref()),
        schedule: schedule(&row.section("retry", keys::RETRY)),
        statuses: statuses(&row.section("retry", "")),
        circuit: CircuitRule::default(),
    })
}

fn methods(row: &Section<'_>) -> Vec<Method> {
    let typed = row.read_all("methods", |text| match Method::from_bytes(text.as_bytes()) {
        Ok(method)
            if !matches!(method, Method::CONNECT | Method::TRACE) && !text.bytes().any(|b| b.is_ascii_lowercase()) =>
        {
            Ok(method)
        }
        _ => Err(Wrong::new(
            format!("\"{text}\" is not a method that can be kept"),
            "write it in capitals, such as \"POST\"",
        )),
    });
    let methods = if row.has("methods") { typed } else { DEFAULT_METHODS.to_vec() };
    row.show_all("methods", methods.iter().map(ToString::to_string));
    methods
}

fn ack(row: &Section<'_>, provider: Option<&Provider>) -> Ack {
    let ack = row.section("ack", keys::ACK);
    let theirs = provider.and_then(|provider| provider.ack.as_ref()).filter(|_| ack.names().is_empty());
    if theirs.is_some() {
        keys::ACK.split(' ').for_each(|key| ack.give(key, FROM_ROW));
    }
    let status = ack.number("status", theirs.map_or(200_u16, |theirs| theirs.status), 200..=299);
    let theirs_body = theirs.map_or("", |theirs| &*theirs.body);
    let body = ack.text("body").map_or(theirs_body, |body| body.value).to_owned();
    if body.len() > MAX_ACK_BYTES {
        ack.error("body", format!("it is longer than {MAX_ACK_BYTES} bytes"), "make it shorter");
    }
    ack.show("body", &*body);
    let header = |text: &str| HeaderValue::from_str(text).map_err(|_| "it cannot stand in a header".to_owned());
    let content_type = ack.read("content_type", header);
    let content_type = content_type.or_else(|| header(theirs?.content_type.as_deref()?).ok());
    ack.show_if("content_type", content_type.as_ref().and_then(|line| line.to_str().ok()));
    Ack { status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK), content_type, body: body.into() }
}

/// Something that finds a text in a request, in the grammar of the providers' rows.
fn locator(text: &str) -> Result<Locator, Wrong> {
    Locator::parse(text).ok_or_else(|| {
        let message = format!("\"{text}\" finds nothing in a request");
        Wrong::new(message, "write it like \"header:x-id\" or \"json:/data/id\"")
    })
}

fn identity(row: &Section<'_>) -> Identity {
    let located = row.read("dedup_key", locator);
    row.show_if("dedup_key", located.as_ref().and_then(|_| Some(row.text("dedup_key")?.value)));
    located.map_or(Identity::Provider, Identity::Located)
}

fn order(row: &Section<'_>) -> Order {
    if row.typed("order").is_some_and(|order| order.get_ref().is_table()) {
        let order = row.section("order", "key");
        let Some(key) = order.read("key", locator) else { return Order::None };
        order.show_if("key", order.text("key").map(|key| key.value));
        return Order::ByKey(key);
    }
    let order = row.read("order", |word| match word {
        "none" => Ok(Order::None),
        "fifo" => Ok(Order::Fifo),
        _ => {
            let message = format!("\"{word}\" is not an order");
            Err(Wrong::new(message, "write \"none\", \"fifo\" or { key = \"json:/data/customer\" }"))
        }
    });
    let order = order.unwrap_or(Order::None);
    row.show("order", if matches!(order, Order::Fifo) { "fifo" } else { "none" });
    order
}

fn schedule(retry: &Section<'_>) -> Schedule {
    if ["first", "factor", "longest", "attempts"].iter().any(|key| retry.has(key)) {
        if retry.has("schedule") {
            let message = "a list of waits and waits that grow cannot both hold";
            retry.error("schedule", message, "leave one of them out");
        }
        return Schedule::Exponential {
            first: retry.duration("first", 5 * SECOND, Duration::from_millis(10)..=MAX_WAIT),
            factor: retry.number("factor", 2, 1..=100),
            longest: retry.duration("longest", HOUR, Duration::from_millis(10)..=MAX_WAIT),
            attempts: retry.number("attempts", 16, 1..=1000),
        };
    }
    let mut schedule = Schedule::default();
    if retry.has("schedule") {
        let waits = retry.read_all("schedule", duration);
        if waits.len() > MAX_WAITS || waits.iter().any(|wait| *wait > MAX_WAIT) {
            let message = "it has too many waits, or one of more than a day";
            retry.error("schedule", message, "at most 100 waits, each up to 24h");
        }
        schedule = Schedule::List(waits);
    }
    match &schedule {
        Schedule::List(waits) => retry.show_all("schedule", waits.iter().copied().map(show_duration)),
        Schedule::Exponential { first, factor, longest, attempts } => {
            retry.show("first", show_duration(*first));
            retry.show("factor", i64::from(*factor));
            retry.show("longest", show_duration(*longest));
            retry.show("attempts", i64::from(*attempts));
        }
    }
    schedule
}

/// The statuses of failures that are meant: `503`, or `"5xx"` for a class of them.
fn failures(status: &DeValue<'_>) -> Option<RangeInclusive<u16>> {
    match status {
        DeValue::Integer(status) => {
            let status = status.as_str().parse().ok().filter(|status| (300..=599).contains(status))?;
            Some(status..=status)
        }
        DeValue::String(class) => {
            let hundreds = ["3xx", "4xx", "5xx"].iter().position(|known| known == class)?;
            let first = 300 + 100 * u16::try_from(hundreds).ok()?;
            Some(first..=first + 99)
        }
        _ => None,
    }
}

fn statuses(retry: &Section<'_>) -> StatusRule {
    let mut rule = StatusRule::default();
    for (name, statuses) in [("retry_on", &mut rule.retry_on), ("give_up_on", &mut rule.give_up_on)] {
        if retry.has(name) {
            let of = |status: Typed<&DeValue<'_>>| {
                let known = failures(status.value);
                if known.is_none() {
                    let message = "this is not a status of a failure";
                    retry.report().error(&status.place, message, "write 300 to 599, \"4xx\" or \"5xx\"");
                }
                known
            };
            *statuses = Statuses(retry.items(name).into_iter().filter_map(of).collect());
        }
        let shown = |range: &RangeInclusive<u16>| match (*range.start(), *range.end()) {
            (first, last) if first == last => Value::from(i64::from(first)),
            (first, _) => Value::from(format!("{}xx", first / 100)),
        };
        retry.show(name, Array::from_iter(statuses.0.iter().map(shown)));
    }
    rule
}
