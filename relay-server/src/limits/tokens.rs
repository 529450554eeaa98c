//! What one token's own endpoints may take together.

use super::{LimitAmount::OfEndpoint, LimitGroup, SetLimits, count, group};
use crate::quota::MAX_ENDPOINTS;

pub(super) fn limits(_set: &SetLimits) -> LimitGroup {
    group(
        "Quotas of a token",
        [
            (
                "endpoints of its own",
                count(MAX_ENDPOINTS, "endpoints"),
                Some("token.max_endpoints"),
                "409 `too_many_endpoints`",
                &["a_token_makes_endpoints_of_its_own_and_no_more_than_it_may"],
            ),
            (
                "webhooks that they have in a day of UTC",
                OfEndpoint("none"),
                Some("token.max_events_per_day"),
                "429 `quota_events`, until the next day",
                &[
                    "a_day_has_so_many_and_the_next_one_begins_anew",
                    "webhooks_of_a_day_are_counted_over_a_restart_and_refused_beyond_the_quota",
                ],
            ),
            (
                "what they have in the store",
                OfEndpoint("none"),
                Some("token.max_stored"),
                "503 `quota_stored`",
                &["what_waits_at_a_tokens_endpoints_fills_their_part_of_the_store_and_no_other"],
            ),
        ],
    )
}
