//! Exchanges with agents: of an endpoint, of an agent, and those that wait for one.

use super::{
    LimitAmount::{Count, OfEndpoint, Share},
    LimitGroup, SetLimits, count, group,
};
use crate::agents::registry::{self, MAX_WAITERS};

pub(super) fn limits(set: &SetLimits) -> LimitGroup {
    group(
        "Exchanges",
        [
            (
                "exchanges of an endpoint",
                OfEndpoint("none"),
                Some("endpoint.concurrency"),
                "429 `rate_limited`; what is kept waits in the store",
                &[
                    "a_live_endpoint_refuses_what_is_beyond_its_concurrency_and_copies_do_not_count",
                    "what_is_beyond_the_concurrency_waits_in_the_store",
                ],
            ),
            (
                "exchanges of an endpoint that begin in a time",
                OfEndpoint("none"),
                Some("endpoint.rate"),
                "429 `rate_limited`; what is kept waits in the store",
                &[
                    "a_live_endpoint_refuses_what_is_beyond_its_rate_and_says_when_to_come_again",
                    "what_is_beyond_the_rate_of_an_assured_endpoint_waits_without_its_sender",
                ],
            ),
            (
                "exchanges with one agent",
                Count(set.process.max_in_flight_per_agent.into(), "exchanges"),
                Some("limits.max_in_flight_per_agent"),
                "503 `too_many_in_flight`; what is kept waits in the store",
                &["beyond_a_sessions_limit_the_answer_is_503_and_other_agents_are_not_concerned"],
            ),
            (
                "of those, one endpoint, where the agent serves more than one",
                Share(registry::ENDPOINT_PART),
                None,
                "503 `too_many_in_flight`; what is kept waits in the store",
                &["one_endpoint_takes_its_share_of_a_session_that_serves_another_one_too"],
            ),
            (
                "requests that wait for an agent which left a moment ago",
                count(MAX_WAITERS, "requests"),
                None,
                "503 `agent_unavailable`; an endpoint has a half",
                &["requests_that_wait_for_one_endpoints_agent_leave_room_for_those_of_another"],
            ),
        ],
    )
}
