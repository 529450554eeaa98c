//! What HTTP/2 has beside that.

use super::{
    LimitAmount::{Bytes, Count},
    LimitGroup, SetLimits, bytes, count, group,
};
use crate::ingress::limits as ingress;

pub(super) fn limits(set: &SetLimits) -> LimitGroup {
    group(
        "HTTP/2",
        [
            (
                "connections that speak it",
                count(ingress::MAX_H2_CONNECTIONS, "connections"),
                None,
                "more are offered HTTP/1.1",
                &["connections_beyond_those_of_http_2_are_offered_http_1_1"],
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
                "frames in a row that neither begin a request nor carry a body",
                Count(ingress::MAX_H2_EMPTY_FRAMES.into(), "frames"),
                None,
                "closed",
                &[
                    "so_many_frames_in_a_row_may_carry_nothing_and_no_more",
                    "http_2_frames_that_carry_nothing_end_the_connection_beyond_their_limit",
                ],
            ),
            (
                "header list",
                bytes(set.process.max_head),
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
    )
}
