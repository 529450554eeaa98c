//! Memory and store, which all senders share.

use super::{
    LimitAmount::{Bytes, Count, Share},
    LimitGroup, SetLimits, bytes, count, group,
};
use crate::{memory, replay_guard, spool, store::queue};

pub(super) fn limits(set: &SetLimits) -> LimitGroup {
    group(
        "Memory and store, shared by all senders",
        [
            (
                "heads and collected bodies",
                Bytes(set.process.body_budget),
                Some("limits.body_budget"),
                "503 `overloaded`",
                &[
                    "memory_is_taken_up_to_its_last_byte_and_not_beyond",
                    "everything_that_strangers_fill_at_once_stays_below_the_number_in_the_guide",
                ],
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
                &["there_are_so_many_files_and_no_endpoint_or_address_has_all_of_them"],
            ),
            (
                "calls that wait for the store; a quarter is for those that take nothing in",
                count(queue::QUEUE, "calls"),
                None,
                "503 `overloaded`",
                &[
                    "an_endpoint_has_half_of_the_queue_and_what_settles_has_room_beside_all_of_them",
                    "a_queue_that_is_full_says_so_at_once",
                ],
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
                &["as_many_marks_are_remembered_as_there_is_room_for_and_the_next_one_takes_the_oldests_place"],
            ),
        ],
    )
}
