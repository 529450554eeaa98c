//! Connections of senders at the public listeners, before and between their requests.

use super::{LimitAmount::Time, LimitGroup, SetLimits, bytes, count, group};
use crate::ingress::limits as ingress;

pub(super) fn limits(set: &SetLimits) -> LimitGroup {
    let waits = set.process.timeouts;
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
                &["a_proxys_header_may_come_in_pieces_and_ends_at_its_deadline"],
            ),
            (
                "header of a proxy, of version 1",
                bytes(ingress::V1_BYTES),
                None,
                "closed",
                &["a_header_at_its_limit_is_read_and_a_longer_one_is_not"],
            ),
            (
                "header of a proxy, of version 2",
                bytes(ingress::V2_BYTES),
                None,
                "closed",
                &["a_header_at_its_limit_is_read_and_a_longer_one_is_not"],
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
    )
}
