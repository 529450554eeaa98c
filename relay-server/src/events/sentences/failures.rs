//! What is said of requests that the relay answered itself: refused ones, and live ones without a handler's answer.

use super::{NOTHING_TO_DO, Words, words};

const EXPLAIN: &str = "`relay-server explain ID` looks for the usual mistake behind it.";
const CLOCK: &str = "Compare the clocks of sender and relay; a late repeat can be sent again by its sender.";
const SENDER: &str = "Its sender has to send it in the provider's form.";

/// Why the relay answered a request itself.
pub(crate) fn of_failure(code: &str) -> Option<Words> {
    of_door(code).or_else(|| of_proof(code)).or_else(|| of_delivery(code))
}

/// What is wrong with a request, whoever sent it.
fn of_door(code: &str) -> Option<Words> {
    match code {
        "bad_request" => words(
            "The request cannot be carried as it is: two readers could understand its head in two ways.",
            "Its sender has to send it by the rules of HTTP.",
        ),
        "bad_host" => words("The request names no host, or several.", "Its sender has to name one host."),
        "body_broken" => words("The body broke off before its end.", "Nothing to do: its sender can send it again."),
        "body_timeout" => words(
            "The body did not come in time.",
            "Look at the sender's network, or raise `limits.body_timeout` and `limits.body_idle_timeout`.",
        ),
        "body_too_large" => words("The body is larger than `max_body`.", "Raise `max_body` of the endpoint."),
        "head_too_large" => words(
            "Request line and headers are larger than `limits.max_head`, or more than 100 lines.",
            "Have the sender send fewer headers, or raise `limits.max_head`.",
        ),
        "method_not_allowed" => {
            words("The method is not among the endpoint's `methods`.", "Add it to `methods` if it is wanted.")
        }
        "endpoint_not_found" => {
            words("No endpoint has this address.", "Compare the URL at the provider with `relay-server endpoint list`.")
        }
        "address_not_allowed" => words(
            "The sender's address is not in the endpoint's `allow`.",
            "Add it to `allow`; behind a proxy, name the proxy in `trusted_proxies`.",
        ),
        "misdirected" => words(
            "The connection was made for another host, and this one is for those who show a certificate to it.",
            "Have the sender connect to this very host; a proxy in front must not join connections of several hosts.",
        ),
        "certificate_not_allowed" => words(
            "The sender showed no certificate, or not one of the endpoint's `client_certificate`.",
            "Send it to a host or a listener of those `clients`, or add one of its certificate's names.",
        ),
        "replayed" => words("What is signed in this request came before.", NOTHING_TO_DO),
        "signature_of_the_relay" => words(
            "The relay made this signature itself, for a handler: it proves nothing at the door.",
            "Find out who has it: only a handler behind an agent has seen it.",
        ),
        _ => None,
    }
}

/// What a request did not prove.
fn of_proof(code: &str) -> Option<Words> {
    match code {
        "signature_missing" => words("There is no signature.", "Set the endpoint's secret at the provider as well."),
        "signature_malformed" => words("The signature does not have its provider's form.", EXPLAIN),
        "signature_duplicated" => words("The signature is there more than once.", EXPLAIN),
        "signature_mismatch" => words(
            "No secret of the endpoint makes this signature: another secret, a changed body, or another URL.",
            EXPLAIN,
        ),
        "timestamp_missing" => words("There is no timestamp.", SENDER),
        "timestamp_malformed" => words("The timestamp is not in its form.", SENDER),
        "timestamp_too_old" => words("The signature is right, but older than its scheme allows.", CLOCK),
        "timestamp_too_new" => words("The signature is right, but it comes from the future.", CLOCK),
        "id_missing" => words("There is no message id.", SENDER),
        "id_duplicated" => words("The message id is there more than once.", SENDER),
        "part_missing" => words("Something that is signed is not there, or is there twice.", EXPLAIN),
        "value_wrong" => words("Something that must have a certain value has another.", EXPLAIN),
        "body_malformed" => words("The body cannot be read, or has a signed member twice.", SENDER),
        "body_mismatch" => words(
            "The body is not the one whose hash is signed.",
            "Look for something on the way that changes bodies, such as a proxy.",
        ),
        "key_unknown" => words("The key that the request names is not known.", EXPLAIN),
        "certificate_refused" => words(
            "The certificate that the request names is not the provider's, or not valid now.",
            "Compare the relay's clock, and see whether it reaches the provider's host.",
        ),
        "claim_wrong" => words("A claim of the token is missing or wrong.", EXPLAIN),
        "secret_missing" => words(
            "The endpoint has not learnt its secret yet.",
            "Have the provider send its handshake: save the webhook there once more.",
        ),
        "challenge_text" => words(
            "What is signed looks like a challenge, which anyone can have signed.",
            "Nothing to do: it may be an attempt to have something signed.",
        ),
        "challenge_not_allowed" => words(
            "The challenge proves nothing.",
            "Set `verify_token`, or `allow_unsigned_challenge` while the webhook is set up.",
        ),
        "challenge_token_wrong" => words(
            "The challenge carries another token than `verify_token`.",
            "Type the endpoint's `verify_token` into the provider's page.",
        ),
        "challenge_malformed" => words("The challenge does not have its provider's form.", SENDER),
        "secret_known" => words(
            "The challenge tells a secret, and the endpoint has one.",
            "`relay-server endpoint forget NAME` makes room for a new one.",
        ),
        _ => None,
    }
}

/// Why a request that was in order had no handler's answer.
fn of_delivery(code: &str) -> Option<Words> {
    match code {
        "secret_unavailable" => words(
            "The endpoint's secret could not be read.",
            "The relay's log names it; SIGHUP has the relay read it again.",
        ),
        "key_unavailable" => words(
            "The provider's public key cannot be fetched at the moment.",
            "See whether the relay reaches the provider's host.",
        ),
        "overloaded" => words(
            "The memory for requests was taken, or as much waited for the store as may.",
            "Raise `limits.body_budget`, or look at the store's disk.",
        ),
        "too_many_in_flight" => words(
            "Every agent had as many exchanges as it takes, or too many requests waited.",
            "Attach more agents, raise their `--max-connections`, or make the handler faster.",
        ),
        "store_full" => words(
            "What waits fills the store, or the endpoint's share of it.",
            "Attach agents that take what waits, or raise `max_size`.",
        ),
        "store_failed" => words("The store could not take it.", "Look into the relay's log and at its disk."),
        "internal" => words("The relay failed.", "Look into the relay's log."),
        "rate_limited" => words(
            "The endpoint's `rate` or `concurrency` was reached.",
            "Raise them, or give the endpoint a mode that keeps events.",
        ),
        "quota_stored" => words(
            "What waits at the endpoints of a token fills what these may take of the store.",
            "Attach agents that take what waits, or give the token a larger `max_stored`.",
        ),
        "quota_events" => words(
            "The endpoints of a token had as many webhooks today as they may.",
            "Wait for the next day (UTC), or give the token more `max_events_per_day`.",
        ),
        "agent_unavailable" => words("No agent was attached.", "Attach an agent to the endpoint."),
        "event_type_unwanted" => words(
            "No attached agent takes events of this type.",
            "Attach one that does, or leave `--events` of the agents out.",
        ),
        "agent_lost" => words(
            "The agent was lost while the handler was at work.",
            "Look at the agent's log and its network; `relay-client doctor` tries every step.",
        ),
        "not_called" => words("The handler was not called.", "Nothing to do: its sender can send it again."),
        "handler_unreachable" => {
            words("The agent could not reach the handler.", "Start the handler, and look at the agent's target.")
        }
        "handler_broken" => words("The handler's answer broke off or was not HTTP.", "Look into the handler's log."),
        "handler_timeout" => words(
            "The handler did not begin its answer within the agent's `--timeout`.",
            "Have it answer first and work later, or raise `--timeout`.",
        ),
        "deadline_exceeded" => words(
            "The handler did not answer before the endpoint's `deadline`.",
            "Have it answer first and work later, or give the endpoint a mode that keeps events.",
        ),
        "not_carriable" => words(
            "No agent can make this request at its handler: HTTP/1.1 has no form for it.",
            "Nothing helps but another request from its sender.",
        ),
        _ => None,
    }
}
