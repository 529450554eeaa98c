//! Fidelity, mounted: each property of `relay_tests::fidelity` in each mode where it is lawful.

use std::path::Path;

/// One test for each property, over a bench of its own.
macro_rules! mount {
    ($mode:ident, $start:ident, $module:ident: $($property:ident),+ $(,)?) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test]
                async fn $property() -> anyhow::Result<()> {
                    use relay_tests::fidelity::{Bench, Mode};
                    let mut bench = Bench::$start(Path::new(env!("CARGO_BIN_EXE_demo")), Mode::$mode).await?;
                    relay_tests::fidelity::$module::$property(&mut bench).await
                }
            )+
        }
    };
}

/// What holds in every mode.
macro_rules! mount_every_mode {
    ($mode:ident) => {
        mount!($mode, start, request:
            every_method_arrives,
            no_body_an_empty_one_and_a_chunked_one_are_told_apart,
            bodies_arrive_byte_for_byte,
            a_thousand_header_lists_arrive_as_they_are,
            a_head_at_the_limit_arrives,
            a_target_arrives_exactly_or_is_refused,
            an_endpoints_path_is_cut_and_the_rest_arrives_raw,
            a_sender_that_expects_100_gets_it_before_it_sends,
            hop_by_hop_headers_of_a_request_stay_behind,
            a_senders_relay_headers_are_dropped,
            the_handler_gets_its_own_host,
            forwarding_headers_are_continued_for_trusted_proxies_alone,
        );
        mount!($mode, start, refusal: doubtful_framing, doubtful_heads, methods_of_proxies);
    };
}

/// What holds where the sender gets the handler's answer.
macro_rules! mount_answering_mode {
    ($mode:ident $(, $more:ident)*) => {
        mount!($mode, start, answer:
            every_status_arrives,
            answers_arrive_byte_for_byte,
            an_answer_that_ends_with_its_connection_is_whole,
            head_keeps_the_length_and_has_no_body,
            no_content_and_not_modified_have_no_body,
            equal_lengths_of_an_answer_become_one,
            interim_answers_of_a_handler_stay_behind,
            hop_by_hop_headers_of_an_answer_stay_behind,
            a_second_answer_is_never_given_to_the_next_sender,
            trailers_of_an_answer_arrive,
            $($more,)*
        );
    };
}

/// What holds where nothing is kept.
macro_rules! mount_streaming_mode {
    ($mode:ident) => {
        mount!($mode, start, streaming:
            server_sent_events_arrive_as_they_are_written,
            a_request_arrives_as_it_is_sent,
            an_answer_may_come_before_the_requests_end,
            a_whole_answer_before_the_requests_end_arrives,
            a_sender_that_leaves_mid_body_is_seen_by_the_handler,
            a_sender_that_leaves_before_the_answer_is_seen_by_the_handler,
            a_sender_that_leaves_mid_answer_is_seen_by_the_handler,
            a_handler_that_breaks_off_mid_body_is_seen_by_the_sender,
            trailers_of_a_request_arrive,
            an_upgrade_passes_and_each_half_closes_by_itself,
            a_refused_upgrade_is_an_answer,
            a_named_upgrade_passes,
            other_upgrades_stay_behind,
            an_upgraded_connection_that_breaks_is_closed,
        );
        mount!($mode, start_tls, h2:
            many_requests_share_a_connection,
            header_lists_arrive_as_they_are,
            a_hundred_header_lines_arrive_and_no_more,
            lengths_are_one_and_agree,
            cookie_crumbs_become_one_line,
            the_authority_and_the_path_are_those_of_the_sender,
            bodies_arrive_byte_for_byte,
            trailers_arrive_both_ways,
            answers_without_a_body_end_their_stream,
            a_reset_stream_ends_one_call_alone,
            a_broken_answer_resets_its_stream,
        );
    };
}

mod live {
    use super::*;

    mount_every_mode!(Live);
    mount_answering_mode!(Live, a_bad_head_gives_502, a_length_that_is_none_gives_502);
    mount_streaming_mode!(Live);
}

/// Kept before it is delivered, answered by the handler. Left out:
///
/// - of `answer`, `a_bad_head_gives_502`: a failure gets the ack and a retry, as `keeping` says; `passing` has it;
/// - `streaming`: a request is whole and kept before the handler is called, so that nothing of it can be streamed, no
///   answer come before its end, and no sender that leaves be seen by the handler. An answer is whole before it is
///   passed on, so that a broken one can be tried again; only what is too long for that streams. An upgrade has
///   nothing that could be kept, and is a plain request here, where `methods` names `GET`; it does not by default, and
///   then all this passes live. Trailers of a request are not kept;
/// - of `h2` what is about those: `trailers_arrive_both_ways`, `a_reset_stream_ends_one_call_alone` and
///   `a_broken_answer_resets_its_stream`.
mod assured {
    use super::*;

    mount_every_mode!(Assured);
    mount_answering_mode!(Assured);
    mount!(Assured, start, keeping:
        a_request_comes_again_as_it_was,
        a_broken_answer_gets_the_ack_and_a_retry,
        a_long_answer_that_breaks_off_is_seen_by_the_sender,
    );
    mount!(Assured, start_tls, h2:
        many_requests_share_a_connection,
        header_lists_arrive_as_they_are,
        lengths_are_one_and_agree,
        cookie_crumbs_become_one_line,
        the_authority_and_the_path_are_those_of_the_sender,
        bodies_arrive_byte_for_byte,
        answers_without_a_body_end_their_stream,
    );
}

/// Assured, with `on_failure = "pass"`: failures go to the sender as in live mode. What a request is does not depend
/// on it, so that only answers are mounted.
mod passing {
    use super::*;

    mount_answering_mode!(Passing, a_bad_head_gives_502, a_length_that_is_none_gives_502);
}

/// Kept, acknowledged, and delivered afterwards. Left out beside what assured mode leaves out: all that is about the
/// handler's answer, which nobody waits for.
mod durable {
    use super::*;

    mount_every_mode!(Durable);
    mount!(Durable, start, keeping: a_request_comes_again_as_it_was, the_ack_does_not_wait_for_the_handler);
    mount!(Durable, start_tls, h2:
        header_lists_arrive_as_they_are,
        lengths_are_one_and_agree,
        cookie_crumbs_become_one_line,
        the_authority_and_the_path_are_those_of_the_sender,
        bodies_arrive_byte_for_byte,
    );
}
