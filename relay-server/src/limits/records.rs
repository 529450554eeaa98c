//! What the relay remembers and tells of what goes on: logs, the journal, alerts, traces and canaries.

use super::{
    LimitAmount::{Bytes, Time},
    LimitGroup, SetLimits, bytes, count, group,
};
use crate::{
    access_log::limits as access_log, alert::limits as alert, audit::limits as audit, canary::limits as canary,
    refused, spans,
};

pub(super) fn limits(set: &SetLimits) -> LimitGroup {
    group(
        "Logs, alerts and canaries",
        [
            (
                "memory of the journal, which watchers read",
                Bytes(set.process.journal_budget),
                Some("limits.journal_budget"),
                "the oldest gives way",
                &["the_oldest_gives_way_for_age_and_for_room_and_numbers_go_on"],
            ),
            (
                "memory of the log of refused requests",
                Bytes(set.process.refused_budget),
                Some("limits.refused_budget"),
                "the oldest of the endpoint that has most gives way",
                &["memory_is_bounded_and_a_flood_at_one_endpoint_leaves_the_others_alone"],
            ),
            (
                "refused requests of an endpoint that are kept",
                count(refused::MAX_ENTRIES, "requests"),
                None,
                "the oldest gives way",
                &["the_newest_come_first_and_each_endpoint_keeps_its_thousand"],
            ),
            (
                "size of the audit log",
                Bytes(set.audit.max_bytes),
                Some("audit.max_size"),
                "the oldest rows of whoever has most give way",
                &["a_crowd_outside_pushes_out_its_own_rows"],
            ),
            (
                "age of the audit log's rows",
                Time(set.audit.retention),
                Some("audit.retention"),
                "removed",
                &["pages_of_the_audit_log_follow_each_other"],
            ),
            (
                "object or details in a row of the audit log",
                bytes(audit::MAX_TEXT_BYTES),
                None,
                "cut off",
                &["a_text_in_a_row_ends_at_its_bound"],
            ),
            (
                "kinds of deeds that the audit log tells apart in a minute",
                count(audit::MAX_WINDOWS, "kinds"),
                None,
                "counted as lost, in a row of their own",
                &["each_bound_of_what_is_told_apart_is_reached_and_not_passed"],
            ),
            (
                "of those, of strangers",
                count(audit::MAX_OUTSIDERS, "kinds"),
                None,
                "strangers share a row",
                &["each_bound_of_what_is_told_apart_is_reached_and_not_passed"],
            ),
            (
                "of those, of one token",
                count(audit::MAX_OF_ACTOR, "kinds"),
                None,
                "its deeds share a row for each action",
                &["each_bound_of_what_is_told_apart_is_reached_and_not_passed"],
            ),
            (
                "rows of the audit log that wait to be written",
                count(audit::MAX_ROWS, "rows"),
                None,
                "counted as lost, in a row of their own",
                &["what_finds_no_place_is_counted"],
            ),
            (
                "lines of the access log that wait to be written",
                count(access_log::MAX_WAITING, "lines"),
                None,
                "dropped and counted",
                &["as_many_lines_wait_as_there_is_room_for_and_the_next_one_is_counted"],
            ),
            (
                "a sender's text in a line of the access log",
                count(access_log::MAX_TEXT, "characters"),
                None,
                "cut off",
                &["a_text_of_a_sender_is_cut_between_letters"],
            ),
            (
                "spans that wait for the collector",
                count(spans::MAX_WAITING, "spans"),
                None,
                "dropped and counted",
                &["what_is_not_sampled_makes_no_span_and_what_has_no_room_is_counted"],
            ),
            (
                "alerts that wait to be posted",
                count(alert::MAX_WAITING, "alerts"),
                None,
                "dropped and counted; they stand in the log",
                &["what_has_no_room_is_counted"],
            ),
            (
                "a canary, from its connection to its answer",
                Time(canary::PATIENCE),
                None,
                "counted as one that did not come back",
                &["a_canary_that_stops_is_told_of_and_so_is_its_return"],
            ),
            (
                "body of what is posted as a canary",
                Bytes(canary::MAX_BODY_BYTES),
                None,
                "413 `body_too_large`",
                &["what_a_stranger_posts_as_a_canary_is_small_and_refused"],
            ),
        ],
    )
}
