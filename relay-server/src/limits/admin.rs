//! The admin listener, and with it the API, the page, health and metrics.

use super::{
    LimitAmount::{Rate, Time},
    LimitGroup, SetLimits, bytes, count, group,
};
use crate::{admin::limits as admin, api::limits as api, stream};

pub(super) fn limits(_set: &SetLimits) -> LimitGroup {
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
                &["who_never_reads_from_the_admin_listener_is_let_go"],
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
                "logins of an address",
                Rate(api::MAX_LOGINS.into(), api::LOGINS_WINDOW),
                None,
                "429 `too_many_logins`",
                &["a_tokens_session_has_its_rights_and_ends_with_it"],
            ),
            (
                "streams of news",
                count(stream::MAX_STREAMS, "streams"),
                None,
                "429 `too_many_streams`",
                &["a_stream_ends_with_the_relay_or_with_the_right_to_see_and_there_are_so_many"],
            ),
            (
                "of those, by the admin token",
                count(stream::MAX_OF_ADMIN, "streams"),
                None,
                "429 `too_many_streams`",
                &["a_stream_ends_with_the_relay_or_with_the_right_to_see_and_there_are_so_many"],
            ),
            (
                "of those, by one token",
                count(stream::MAX_OF_TOKEN, "streams"),
                None,
                "429 `too_many_streams`",
                &["a_stream_ends_with_the_relay_or_with_the_right_to_see_and_there_are_so_many"],
            ),
            (
                "sessions of the page",
                count(api::MAX_SESSIONS, "sessions"),
                None,
                "the one that was used longest ago ends",
                &["the_idlest_of_a_hundred_sessions_makes_room"],
            ),
        ],
    )
}
