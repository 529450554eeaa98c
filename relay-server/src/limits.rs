//! The limits of every layer in one table: what is bounded, by how much, by which key it is set, and what happens there.
//!
//! Values stand with the code that holds to them; here they are put side by side, for `config show` and for the guide
//! (`docs/limits.md`). Each row names the tests that go up to it and one past it; a test here looks whether they are
//! there. Nothing reads a limit from this table.

#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use relay_proto::{Limits as SessionLimits, limits as wire};
use relay_tunnel::{CONTROL_BUDGET, FRAGMENT_BUDGET_BYTES};
use serde_json::json;

use crate::{
    admin::limits as admin,
    agents::{
        auth_throttle,
        registry::{self, MAX_WAITERS},
        token::MAX_SESSIONS_OF_TOKEN,
    },
    api::limits as api,
    config::{Config, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, MAX_STORE_BYTES, ProcessLimits},
    ingress::limits as ingress,
    memory, replay_guard, spool,
    store::queue,
    stream::MAX_STREAMS,
};

/// How much, with its unit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LimitAmount {
    Bytes(u64),
    Count(u64, &'static str),
    Time(Duration),
    /// So many in a time.
    Rate(u64, Duration),
    /// One part in so many of what stands before it.
    Share(usize),
    /// What the endpoint says, which has no number before it is configured.
    OfEndpoint(&'static str),
}

pub(crate) struct Limit {
    pub what: &'static str,
    pub amount: LimitAmount,
    /// The key that sets it; without one it is fixed.
    pub key: Option<&'static str>,
    /// What whoever reaches it is answered.
    pub answer: &'static str,
    /// Tests that go up to it and beyond.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the test that looks for them"))]
    pub tests: &'static [&'static str],
}

/// The limits of one part of the relay.
pub(crate) struct LimitGroup {
    pub title: &'static str,
    pub limits: Vec<Limit>,
}

type Row = (&'static str, LimitAmount, Option<&'static str>, &'static str, &'static [&'static str]);

fn group<const N: usize>(title: &'static str, rows: [Row; N]) -> LimitGroup {
    let limits = rows.map(|(what, amount, key, answer, tests)| Limit { what, amount, key, answer, tests });
    LimitGroup { title, limits: limits.into() }
}

const fn bytes(count: usize) -> LimitAmount {
    LimitAmount::Bytes(count as u64)
}

const fn count(count: usize, unit: &'static str) -> LimitAmount {
    LimitAmount::Count(count as u64, unit)
}

/// What is set, as it runs.
#[derive(Debug)]
pub(crate) struct SetLimits {
    pub process: ProcessLimits,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub max_store_bytes: u64,
}

impl Default for SetLimits {
    fn default() -> Self {
        Self {
            process: ProcessLimits::default(),
            max_connections: MAX_CONNECTIONS,
            max_connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
            max_store_bytes: MAX_STORE_BYTES,
        }
    }
}

impl From<&Config> for SetLimits {
    fn from(config: &Config) -> Self {
        Self {
            process: config.limits.clone(),
            max_connections: config.server.max_connections,
            max_connections_per_address: config.server.max_connections_per_address,
            max_store_bytes: config.store.max_bytes,
        }
    }
}

/// Every limit that somebody outside can reach.
pub(crate) fn table(set: &SetLimits) -> [LimitGroup; 7] {
    use LimitAmount::{Bytes, Count, OfEndpoint, Rate, Share, Time};
    let limits = &set.process;
    let waits = limits.timeouts;
    let session = SessionLimits::relay();
    [
        group(
            "Connections of senders",
            [
                (
                    "connections",
                    count(set.max_connections, "connections"),
                    Some("server.max_connections"),
                    "the one that has waited longest for a request gives way, after a second; else more wait",
                    &[
                        "when_all_places_are_taken_who_has_waited_longest_for_a_request_gives_its_own",
                        "connections_that_ask_for_nothing_give_way_and_those_at_work_are_waited_for",
                        "connections_take_what_the_limit_leaves",
                    ],
                ),
                (
                    "connections of one IPv4 address or IPv6 /64; not of this machine, private networks and trusted proxies",
                    count(set.max_connections_per_address, "connections"),
                    Some("server.max_connections_per_address"),
                    "closed",
                    &[
                        "one_address_takes_no_more_than_its_share_and_gives_it_back",
                        "one_address_takes_no_more_connections_than_its_share_unless_it_is_a_trusted_proxys",
                    ],
                ),
                (
                    "TLS handshake, in all",
                    Time(ingress::HANDSHAKE),
                    None,
                    "closed",
                    &["a_handshake_has_an_end_in_time_and_bytes"],
                ),
                (
                    "TLS handshake, what a peer sends",
                    bytes(ingress::HANDSHAKE_BYTES),
                    None,
                    "closed",
                    &["a_handshake_has_an_end_in_time_and_bytes"],
                ),
                (
                    "header of a proxy (`proxy_protocol`), in all",
                    Time(ingress::PROXY_HEADER),
                    None,
                    "closed",
                    &["a_trusted_proxy_says_whose_a_connection_is_and_nobody_else_may"],
                ),
                (
                    "header of a proxy, of version 2",
                    bytes(ingress::V2_BYTES),
                    None,
                    "closed",
                    &["what_is_no_header_is_refused"],
                ),
                (
                    "wait for a whole request head, from its first byte, and for the first one of a connection",
                    Time(waits.header),
                    Some("limits.header_timeout"),
                    "closed",
                    &["a_head_that_goes_on_slowly_ends_at_its_deadline"],
                ),
                (
                    "wait for the next request of an HTTP/1.1 connection",
                    Time(waits.header),
                    Some("limits.header_timeout"),
                    "closed",
                    &["a_connection_without_a_next_request_is_closed"],
                ),
                (
                    "wait for a sender to take more of its answer; an HTTP/2 connection without requests",
                    Time(waits.idle),
                    Some("limits.idle_timeout"),
                    "closed; over HTTP/2 the stream is reset",
                    &[
                        "who_never_reads_what_it_asked_for_is_let_go",
                        "a_stream_whose_peer_gives_no_window_is_reset_and_frees_its_handler",
                        "an_http_2_connection_that_only_answers_pings_is_told_to_go",
                    ],
                ),
                (
                    "silence of an upgraded connection, both ways",
                    Time(waits.upgrade_idle),
                    Some("limits.upgrade_idle_timeout"),
                    "closed",
                    &["an_upgraded_connection_keeps_its_place_and_ends_when_it_is_silent"],
                ),
            ],
        ),
        group(
            "Requests",
            [
                (
                    "head: request line and header lines, and so the target",
                    bytes(limits.max_head),
                    Some("limits.max_head"),
                    "431 `head_too_large`",
                    &["a_head_at_its_limit_passes_and_a_longer_one_is_refused", "a_head_at_the_limit_arrives"],
                ),
                (
                    "header lines",
                    count(ingress::MAX_HEADERS, "lines"),
                    None,
                    "431 `head_too_large`",
                    &["a_hundred_header_lines_pass_and_no_more", "a_hundred_header_lines_arrive_and_no_more"],
                ),
                (
                    "body",
                    Bytes(limits.max_body),
                    Some("endpoint.max_body"),
                    "413 `body_too_large`, before it is read where its length is said",
                    &["a_body_at_its_limit_passes_and_a_longer_one_is_refused"],
                ),
                (
                    "silence while a body comes",
                    Time(waits.body_idle),
                    Some("limits.body_idle_timeout"),
                    "408 `body_timeout`",
                    &["a_body_may_come_slowly_and_may_not_stop"],
                ),
                (
                    "a body that is collected, in all",
                    Time(waits.body),
                    Some("limits.body_timeout"),
                    "408 `body_timeout`",
                    &["a_body_that_never_ends_is_read_for_so_long_in_all"],
                ),
                (
                    "wait for the head of the answer",
                    OfEndpoint("30 s live, 5 s assured"),
                    Some("endpoint.deadline"),
                    "504 `deadline_exceeded`; the ack where the event is kept",
                    &[
                        "a_handler_that_is_late_gives_504_at_the_deadline",
                        "a_late_answer_is_recorded_and_the_handler_is_not_called_twice",
                    ],
                ),
                (
                    "silence of an exchange",
                    Time(waits.idle),
                    Some("endpoint.idle_timeout"),
                    "the answer breaks off",
                    &["an_answer_that_stops_breaks_off"],
                ),
            ],
        ),
        group(
            "HTTP/2",
            [
                (
                    "connections that speak it",
                    count(ingress::MAX_H2_CONNECTIONS, "connections"),
                    None,
                    "more are offered HTTP/1.1",
                    &["everything_that_strangers_fill_at_once_stays_below_the_number_in_the_guide"],
                ),
                (
                    "streams of a connection",
                    Count(ingress::MAX_H2_STREAMS.into(), "streams"),
                    None,
                    "reset, `REFUSED_STREAM`",
                    &["http_2_streams_beyond_their_limit_are_refused_and_the_others_go_on"],
                ),
                (
                    "streams that are reset before they were looked at",
                    count(ingress::MAX_H2_EARLY_RESETS, "streams"),
                    None,
                    "`GOAWAY`, `ENHANCE_YOUR_CALM`",
                    &["http_2_resets_beyond_their_limit_end_the_connection"],
                ),
                (
                    "streams that the relay resets for what their peer sent",
                    count(ingress::MAX_H2_CAUSED_RESETS, "streams"),
                    None,
                    "`GOAWAY`, `ENHANCE_YOUR_CALM`",
                    &["http_2_resets_beyond_their_limit_end_the_connection"],
                ),
                (
                    "header list",
                    bytes(limits.max_head),
                    Some("limits.max_head"),
                    "431",
                    &["an_http_2_header_list_over_its_limit_is_refused_and_the_connection_goes_on"],
                ),
                (
                    "window of a stream, and of all of a connection's",
                    Bytes(ingress::H2_WINDOW_BYTES.into()),
                    None,
                    "`FLOW_CONTROL_ERROR`",
                    &["http_2_bytes_beyond_the_window_end_the_connection"],
                ),
                (
                    "answer that waits for a stream's window",
                    bytes(ingress::MAX_H2_UNSENT_BYTES),
                    None,
                    "the handler's pace",
                    &["everything_that_strangers_fill_at_once_stays_below_the_number_in_the_guide"],
                ),
            ],
        ),
        group(
            "Memory and store, shared by all senders",
            [
                (
                    "heads and collected bodies",
                    Bytes(limits.body_budget),
                    Some("limits.body_budget"),
                    "503 `overloaded`",
                    &["everything_that_strangers_fill_at_once_stays_below_the_number_in_the_guide"],
                ),
                (
                    "of those, one endpoint",
                    Share(memory::ENDPOINT_PART),
                    None,
                    "503 `overloaded`",
                    &["memory_is_taken_as_bytes_come_with_a_share_for_each_endpoint_and_each_address"],
                ),
                (
                    "of those, one public address",
                    Share(memory::ADDRESS_PART),
                    None,
                    "503 `overloaded`",
                    &["memory_is_taken_as_bytes_come_with_a_share_for_each_endpoint_and_each_address"],
                ),
                (
                    "files of long bodies that come",
                    Count(spool::MAX_FILES, "files"),
                    None,
                    "503 `store_full`; an endpoint has a half, a public address a quarter",
                    &["bodies_that_come_take_a_part_of_the_store_and_leave_the_rest_to_others"],
                ),
                (
                    "calls that wait for the store; a quarter is for those that take nothing in",
                    count(queue::QUEUE, "calls"),
                    None,
                    "503 `overloaded`",
                    &["a_queue_that_is_full_says_so_at_once"],
                ),
                (
                    "bytes of events that wait for the store",
                    bytes(queue::QUEUE_BYTES),
                    None,
                    "503 `overloaded`",
                    &["bytes_have_the_same_shares_and_a_heavy_call_may_wait_alone"],
                ),
                (
                    "of those two, one endpoint",
                    Share(queue::ENDPOINT_PART),
                    None,
                    "503 `overloaded`",
                    &["an_endpoint_has_half_of_the_queue_and_what_settles_has_room_beside_all_of_them"],
                ),
                (
                    "the store",
                    Bytes(set.max_store_bytes),
                    Some("store.max_size"),
                    "503 `store_full`; an endpoint has a half unless its `max_size` says otherwise",
                    &["a_store_at_its_limit_takes_on_and_no_endpoint_takes_all_of_it"],
                ),
                (
                    "marks against repeats, of each endpoint",
                    count(replay_guard::MAX_ENTRIES, "marks"),
                    None,
                    "the oldest gives way",
                    &["memory_ends_with_the_tolerance_and_is_bounded"],
                ),
            ],
        ),
        group(
            "Exchanges",
            [
                (
                    "exchanges of an endpoint",
                    OfEndpoint("none"),
                    Some("endpoint.concurrency"),
                    "429 `rate_limited`; what is kept waits in the store",
                    &[
                        "a_live_endpoint_refuses_what_is_beyond_its_concurrency_and_copies_do_not_count",
                        "what_is_beyond_the_concurrency_waits_in_the_store",
                    ],
                ),
                (
                    "exchanges of an endpoint that begin in a time",
                    OfEndpoint("none"),
                    Some("endpoint.rate"),
                    "429 `rate_limited`; what is kept waits in the store",
                    &[
                        "a_live_endpoint_refuses_what_is_beyond_its_rate_and_says_when_to_come_again",
                        "what_is_beyond_the_rate_of_an_assured_endpoint_waits_without_its_sender",
                    ],
                ),
                (
                    "exchanges with one agent",
                    Count(limits.max_in_flight_per_agent.into(), "exchanges"),
                    Some("limits.max_in_flight_per_agent"),
                    "503 `too_many_in_flight`; what is kept waits in the store",
                    &["beyond_a_sessions_limit_the_answer_is_503_and_other_agents_are_not_concerned"],
                ),
                (
                    "of those, one endpoint, where the agent serves more than one",
                    Share(registry::ENDPOINT_PART),
                    None,
                    "503 `too_many_in_flight`; what is kept waits in the store",
                    &["one_endpoint_takes_its_share_of_a_session_that_serves_another_one_too"],
                ),
                (
                    "requests that wait for an agent which left a moment ago",
                    count(MAX_WAITERS, "requests"),
                    None,
                    "503 `agent_unavailable`; an endpoint has a half",
                    &["requests_that_wait_for_one_endpoints_agent_leave_room_for_those_of_another"],
                ),
            ],
        ),
        group(
            "Agents",
            [
                (
                    "sessions",
                    count(limits.max_sessions, "sessions"),
                    Some("limits.max_sessions"),
                    "503 `too_many_sessions`, before the upgrade",
                    &["beyond_the_sessions_that_may_be_an_agent_is_turned_away_before_its_upgrade"],
                ),
                (
                    "sessions of a token",
                    count(MAX_SESSIONS_OF_TOKEN, "sessions"),
                    Some("token.max_sessions"),
                    "503 `too_many_sessions`, before the upgrade",
                    &["seats_are_counted_for_all_and_for_each_token_and_are_given_back"],
                ),
                (
                    "wrong tokens of an address",
                    Rate(auth_throttle::MAX_WRONG.into(), auth_throttle::WINDOW),
                    None,
                    "429 `too_many_guesses`; right ones pass",
                    &[
                        "twenty_wrong_tokens_close_the_door_to_one_address_for_ten_seconds",
                        "wrong_tokens_are_slowed_by_their_address_and_a_right_one_passes_among_them",
                    ],
                ),
                (
                    "silence of a session before its hello, and of any session",
                    Time(session.dead_after),
                    None,
                    "the session ends",
                    &[
                        "a_peer_that_never_introduces_itself_is_closed_though_it_pings",
                        "a_silent_peer_is_dead_after_ten_seconds",
                    ],
                ),
                (
                    "WebSocket message, and frame",
                    bytes(wire::MAX_MESSAGE_BYTES),
                    None,
                    "close 1009",
                    &["a_message_at_its_limit_is_read_and_a_longer_one_ends_the_session"],
                ),
                (
                    "bytes of WebSocket frames that complete no message",
                    Bytes(FRAGMENT_BUDGET_BYTES),
                    None,
                    "close 1008",
                    &["fragments_beyond_their_budget_end_the_session"],
                ),
                (
                    "WebSocket control frames between two messages",
                    Count(CONTROL_BUDGET.into(), "frames"),
                    None,
                    "close 1008",
                    &["control_frames_beyond_their_budget_end_the_session"],
                ),
                (
                    "head of an answer",
                    bytes(wire::MAX_HEAD_BYTES),
                    None,
                    "502 `handler_broken`",
                    &["what_the_agent_would_end_the_session_for_cannot_be_sent"],
                ),
                (
                    "endpoints in a hello",
                    count(wire::MAX_OFFERS, "endpoints"),
                    None,
                    "the session ends",
                    &["what_a_peer_may_not_do_ends_its_session_with_the_reason"],
                ),
                (
                    "bytes on a stream before further credit",
                    Bytes(session.initial_window_bytes.into()),
                    None,
                    "the session ends",
                    &["bytes_without_credit_end_the_session"],
                ),
                (
                    "outcomes in a session",
                    count(wire::MAX_OUTCOMES, "outcomes"),
                    None,
                    "the session ends",
                    &["too_many_outcomes_are_not_sent_and_end_the_session_of_a_peer_that_sends_them"],
                ),
            ],
        ),
        group(
            "Admin listener, with API, page, health and metrics",
            [
                (
                    "connections",
                    count(admin::MAX_CONNECTIONS, "connections"),
                    None,
                    "the one that has waited longest for a request, or for the rest of one, gives way",
                    &["whoever_only_connects_to_the_admin_listener_keeps_nobody_out"],
                ),
                ("head", bytes(admin::MAX_HEAD_BYTES), None, "431", &["the_admin_listener_bounds_heads_and_bodies"]),
                (
                    "wait for a whole head, and between requests",
                    Time(admin::HEAD),
                    None,
                    "closed",
                    &["the_admin_listener_ends_a_slow_head_at_its_deadline"],
                ),
                (
                    "wait for an answer, and for it to be taken",
                    Time(admin::ANSWER),
                    None,
                    "504 `timeout`; closed",
                    &["who_never_reads_what_it_asked_for_is_let_go"],
                ),
                (
                    "body of a request to the API, on the public listener, too",
                    bytes(api::MAX_BODY_BYTES),
                    None,
                    "413 `body_too_large`",
                    &["the_admin_listener_bounds_heads_and_bodies"],
                ),
                (
                    "wait for such a body",
                    Time(api::BODY_PATIENCE),
                    None,
                    "504 `timeout`",
                    &["the_admin_listener_bounds_heads_and_bodies"],
                ),
                (
                    "logins of an address that fail",
                    Rate(api::MAX_LOGINS.into(), api::LOGINS_WINDOW),
                    None,
                    "429 `too_many_logins`",
                    &["a_tokens_session_has_its_rights_and_ends_with_it"],
                ),
                (
                    "streams of news",
                    count(MAX_STREAMS, "streams"),
                    None,
                    "429 `too_many_streams`",
                    &["a_stream_ends_with_the_relay_or_with_the_right_to_see_and_there_are_so_many"],
                ),
            ],
        ),
    ]
}

impl fmt::Display for LimitAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bytes(bytes) => {
                let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
                match units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
                    Some((name, unit)) => write!(f, "{} {name}", bytes / unit),
                    None => write!(f, "{bytes} bytes"),
                }
            }
            Self::Count(count, unit) => write!(f, "{count} {unit}"),
            Self::Time(time) => Span(time).fmt(f),
            Self::Rate(count, time) => write!(f, "{count} in {}", Span(time)),
            Self::Share(2) => f.write_str("half of it"),
            Self::Share(4) => f.write_str("a quarter of it"),
            Self::Share(part) => write!(f, "one part in {part}"),
            Self::OfEndpoint(words) => f.write_str(words),
        }
    }
}

/// A time in the largest unit that holds it whole.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match [("h", 3600), ("min", 60)].into_iter().find(|(_, unit)| seconds >= *unit && seconds.is_multiple_of(*unit))
        {
            Some((name, unit)) => write!(f, "{} {name}", seconds / unit),
            None => write!(f, "{seconds} s"),
        }
    }
}

/// What cannot be set, as comments behind what can.
pub(crate) fn fixed_as_comments(set: &SetLimits) -> String {
    let mut text = String::from("\n# What else is bounded, and cannot be set (docs/limits.md):\n");
    for part in table(set) {
        for Limit { what, amount, answer, .. } in part.limits.iter().filter(|limit| limit.key.is_none()) {
            let _ = writeln!(text, "# {}: {what}: {amount} (beyond: {answer})", part.title);
        }
    }
    text
}

/// All of them, with the values that run.
pub(crate) fn as_json(set: &SetLimits) -> serde_json::Value {
    let row = |part: &LimitGroup, limit: &Limit| {
        let (what, answer) = (limit.what, limit.answer);
        json!({ "part": part.title, "what": what, "limit": limit.amount.to_string(), "key": limit.key, "beyond": answer })
    };
    table(set).iter().flat_map(|part| part.limits.iter().map(move |limit| row(part, limit))).collect()
}
