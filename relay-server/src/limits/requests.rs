//! Requests of senders: head, body and the wait for an answer.

use super::{
    LimitAmount::{Bytes, OfEndpoint, Time},
    LimitGroup, SetLimits, bytes, count, group,
};
use crate::{ingress::limits as ingress, webhook::input::MAX_TRAILER_BYTES};

pub(super) fn limits(set: &SetLimits) -> LimitGroup {
    let waits = set.process.timeouts;
    group(
        "Requests",
        [
            (
                "head: request line and header lines, and so the target",
                bytes(set.process.max_head),
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
                Bytes(set.process.max_body),
                Some("endpoint.max_body"),
                "413 `body_too_large`, before it is read where its length is said",
                &["a_body_at_its_limit_passes_and_a_longer_one_is_refused"],
            ),
            (
                "trailers, and no more than a head",
                bytes(MAX_TRAILER_BYTES),
                None,
                "400 `body_broken`",
                &["trailers_at_their_limit_pass_and_longer_ones_are_refused"],
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
    )
}
