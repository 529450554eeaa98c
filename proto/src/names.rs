//! Names of header lines that both programs know: those that the relay itself writes, and those of one hop.
//!
//! A sender's or a handler's own lines of the former never pass: whoever reads one may rely on it.

/// The event's id, on requests to handlers and on every answer to a sender.
pub const EVENT_ID: &str = "relay-event-id";
/// The endpoint's name.
pub const ENDPOINT: &str = "relay-endpoint";
/// The attempt's number, from 1.
pub const ATTEMPT: &str = "relay-attempt";
/// When the request came, as RFC 3339 has it.
pub const RECEIVED_AT: &str = "relay-received-at";
/// The scheme that was proven.
pub const VERIFIED: &str = "relay-verified";
/// What the certificate says that the sender showed.
pub const CLIENT_CERTIFICATE: &str = "relay-client-certificate";
/// The id of the event that this one repeats.
pub const REPLAY_OF: &str = "relay-replay-of";
/// There where a person asked the sender for the event once more.
pub const REDELIVERED: &str = "relay-redelivered";
/// There where the relay signed the request afresh.
pub const RESIGNED: &str = "relay-resigned";
/// The code of an answer that the relay itself made for an error.
pub const ERROR: &str = "relay-error";
/// How long a kept body is as a whole, in bytes, beside a part of it.
pub const BODY_SIZE: &str = "relay-body-size";
/// The addresses that a request came by, the first one first.
pub const FORWARDED_FOR: &str = "x-forwarded-for";
/// The scheme by which its sender knows the relay.
pub const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// The host by which its sender knows the relay.
pub const FORWARDED_HOST: &str = "x-forwarded-host";
/// The trace that a request belongs to (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";
/// What the parts of that trace say about it.
pub const TRACESTATE: &str = "tracestate";

/// Whether a line concerns one hop only (RFC 9110, section 7.6.1), whatever `Connection` says; its name in lower case.
#[must_use]
pub fn is_of_one_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            // It belongs to `Upgrade: h2c` (RFC 7540, section 3.2.1).
            | b"http2-settings"
            | b"proxy-authenticate"
            | b"proxy-authentication-info"
            | b"proxy-authorization"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
    )
}
