//! The listener in the clear, where authorities look for proofs and senders are sent to https.

use super::{LimitAmount::Time, LimitGroup, SetLimits, bytes, count, group};
use crate::ingress::http_listen::{MAX_BODY_BYTES, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_PER_ADDRESS, PATIENCE};

pub(super) fn limits(_set: &SetLimits) -> LimitGroup {
    group(
        "Listener in the clear (`http_listen`)",
        [
            (
                "connections",
                count(MAX_CONNECTIONS, "connections"),
                None,
                "more wait",
                &["the_listener_in_the_clear_has_so_many_places_and_each_for_so_long"],
            ),
            (
                "connections of one IPv4 address or IPv6 /64; not of this machine, private networks and trusted proxies",
                count(MAX_PER_ADDRESS, "connections"),
                None,
                "closed",
                &[
                    "one_address_takes_no_more_than_its_share_and_gives_it_back",
                    "one_address_takes_no_more_of_the_listener_in_the_clear_than_its_share",
                ],
            ),
            (
                "a connection, from its first moment to its last",
                Time(PATIENCE),
                None,
                "closed",
                &["the_listener_in_the_clear_has_so_many_places_and_each_for_so_long"],
            ),
            ("head", bytes(MAX_HEAD_BYTES), None, "431", &["the_listener_in_the_clear_bounds_heads_and_bodies"]),
            (
                "bytes of a body, which nobody reads",
                bytes(MAX_BODY_BYTES),
                None,
                "closed with the answer, which may be lost",
                &["the_listener_in_the_clear_bounds_heads_and_bodies"],
            ),
        ],
    )
}
