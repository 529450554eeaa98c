//! Agents: their sessions, and what a session may carry.

use relay_proto::{Limits as SessionLimits, limits as wire};
use relay_tunnel::{CONTROL_BUDGET, FRAGMENT_BUDGET_BYTES};

use super::{
    LimitAmount::{Bytes, Count, Rate, Time},
    LimitGroup, SetLimits, bytes, count, group,
};
use crate::agents::{auth_throttle, token::MAX_SESSIONS_OF_TOKEN};

pub(super) fn limits(set: &SetLimits) -> LimitGroup {
    let session = SessionLimits::relay();
    group(
        "Agents",
        [
            (
                "sessions",
                count(set.process.max_sessions, "sessions"),
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
                &["a_head_at_its_limit_is_carried_and_a_longer_one_cannot_be_sent"],
            ),
            (
                "endpoints in a hello",
                count(wire::MAX_OFFERS, "endpoints"),
                None,
                "the session ends",
                &["a_hello_has_so_many_offers_and_no_more"],
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
    )
}
