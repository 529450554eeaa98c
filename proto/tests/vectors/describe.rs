//! What a frame or an event says, as JSON. Bytes are hex; ids of streams are numbers.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::hex;
use crate::{
    control::{Attach, Close, Hello, Notice, OfferState, PeerLimits, Welcome},
    error::ProtocolError,
    event::Event,
    fields::{HeaderBlock, take_varint},
    frame::{Decoder, FLAG_END, Frame, FrameType},
    message::{Framing, RequestHead, ResetCode, ResponseHead},
    outcome::{Outcome, OutcomeState},
};

/// What the first frame in `bytes` says; nothing else stands there.
pub(super) fn of_bytes(bytes: &[u8]) -> Value {
    let mut decoder = Decoder::new();
    decoder.push(Bytes::copy_from_slice(bytes));
    let frame = decoder.next().expect("a good frame");
    assert_eq!(decoder.bytes().len(), 0, "nothing is left over");
    match frame {
        None => json!({ "type": "skipped" }),
        Some(frame) => of_frame(frame).expect("a good frame"),
    }
}

fn of_frame(frame: Frame) -> Result<Value, ProtocolError> {
    let Frame { kind, flags, stream, mut payload, .. } = frame;
    let name = format!("{kind:?}").to_uppercase();
    let mut said = match kind {
        FrameType::Hello => {
            let (hello, limits) = Hello::decode(payload)?;
            merge(of_hello(&hello), of_limits(limits))
        }
        FrameType::Welcome => {
            let (welcome, limits) = Welcome::decode(payload)?;
            merge(of_welcome(&welcome), of_limits(limits))
        }
        FrameType::Request => merge(of_request(&RequestHead::decode(&mut payload)?), json!({ "body": hex(&payload) })),
        FrameType::Response => {
            merge(of_response(&ResponseHead::decode(&mut payload)?), json!({ "body": hex(&payload) }))
        }
        FrameType::Data => json!({ "body": hex(&payload) }),
        FrameType::End => json!({ "trailers": of_headers(&HeaderBlock::decode(payload)?) }),
        FrameType::Reset => json!({ "code": of_reset(ResetCode::read(take_varint(&mut payload, "reset")?)) }),
        FrameType::Credit => json!({ "bytes": take_varint(&mut payload, "credit")? }),
        FrameType::Ping | FrameType::Pong => json!({ "echo": hex(&payload) }),
        FrameType::Outcome => of_outcome(&Outcome::decode(payload)?),
        FrameType::Notice => {
            Notice::decode(payload)?.map_or(json!({ "kind": "unknown, ignored" }), |notice| of_notice(&notice))
        }
        FrameType::Drain => json!({}),
        FrameType::Close => of_close(&Close::decode(payload)?),
    };
    said["type"] = json!(name);
    if !matches!(stream, 0) {
        said["stream"] = json!(stream);
    }
    if matches!(kind, FrameType::Request | FrameType::Response | FrameType::Data) {
        said["end"] = json!(flags & FLAG_END != 0);
    }
    Ok(said)
}

/// What an event of a session says.
pub(super) fn of_event(event: &Event) -> Value {
    match event {
        Event::Hello(hello) => merge(json!({ "event": "hello" }), of_hello(hello)),
        Event::Welcome(welcome) => merge(json!({ "event": "welcome" }), of_welcome(welcome)),
        Event::Request { id, head } => merge(json!({ "event": "request", "stream": id.get() }), of_request(head)),
        Event::Response { id, head } => merge(json!({ "event": "response", "stream": id.get() }), of_response(head)),
        Event::Data { id, bytes } => json!({ "event": "data", "stream": id.get(), "body": hex(bytes) }),
        Event::End { id, trailers } => json!({ "event": "end", "stream": id.get(), "trailers": of_headers(trailers) }),
        Event::Reset { id, code } => json!({ "event": "reset", "stream": id.get(), "code": of_reset(*code) }),
        Event::Writable { id } => json!({ "event": "writable", "stream": id.get() }),
        Event::Outcome(outcome) => merge(json!({ "event": "outcome" }), of_outcome(outcome)),
        Event::Answered => json!({ "event": "answered" }),
        Event::Notice(notice) => merge(json!({ "event": "notice" }), of_notice(notice)),
        Event::Draining => json!({ "event": "draining" }),
        Event::Closed { by_peer, close } => merge(json!({ "event": "closed", "by_peer": by_peer }), of_close(close)),
    }
}

fn merge(mut into: Value, from: Value) -> Value {
    let (Value::Object(all), Value::Object(more)) = (&mut into, from) else { panic!("objects") };
    let more: Map<String, Value> = more;
    all.extend(more);
    into
}

fn of_limits(limits: PeerLimits) -> Value {
    let mut said = json!({ "version": limits.version, "initial_window": limits.initial_window_bytes });
    match limits.heartbeat {
        Some((ping_after, dead_after)) => {
            said["ping_after_ms"] = json!(ping_after.as_millis() as u64);
            said["dead_after_ms"] = json!(dead_after.as_millis() as u64);
        }
        None => said["most_streams"] = json!(limits.max_streams),
    }
    said
}

fn of_hello(hello: &Hello) -> Value {
    let attach = |attach| match attach {
        Attach::Shared => "shared",
        Attach::Exclusive => "exclusive",
        Attach::Copy => "copy",
        Attach::Auto => "auto",
    };
    let offers = hello.offers.iter().map(|offer| {
        json!({ "endpoint": offer.endpoint, "attach": attach(offer.attach), "capacity": offer.capacity, "takeover": offer.takeover, "events": offer.events, "skip_backlog": offer.skip_backlog, "rate": offer.rate.map(|rate| rate.to_string()) })
    });
    json!({
        "name": hello.name, "instance": hex(&hello.instance), "software": hello.software,
        "offers": offers.collect::<Vec<_>>(), "canaries": hello.canaries,
    })
}

fn of_state(state: &OfferState) -> Value {
    match state {
        OfferState::Accepted => json!({ "state": "accepted" }),
        OfferState::Standby => json!({ "state": "standing by" }),
        OfferState::Copy => json!({ "state": "copies" }),
        OfferState::Refused { code } => json!({ "state": "refused", "code": code }),
    }
}

fn of_welcome(welcome: &Welcome) -> Value {
    let endpoints = welcome.endpoints.iter().map(|answer| {
        let answered = json!({ "endpoint": answer.endpoint, "url": answer.url, "provider": answer.provider });
        merge(answered, of_state(&answer.state))
    });
    json!({
        "epoch": welcome.epoch, "software": welcome.software,
        "endpoints": endpoints.collect::<Vec<_>>(), "available": welcome.available,
    })
}

fn of_headers(headers: &HeaderBlock) -> Value {
    headers.iter().map(|(name, value)| json!([text(name), hex(value)])).collect()
}

fn of_request(head: &RequestHead) -> Value {
    json!({
        "endpoint": text(&head.endpoint), "event_id": hex(&head.event_id), "attempt": head.attempt,
        "method": text(&head.method), "target": text(&head.target), "chunked": head.framing == Framing::Chunked,
        "fence": head.fence, "upgrade": text(&head.upgrade), "asks_sha256": head.asks_sha256,
        "headers": of_headers(&head.headers),
    })
}

fn of_response(head: &ResponseHead) -> Value {
    json!({
        "status": head.status, "headers": of_headers(&head.headers), "handler_us": head.handler_us,
        "sha256_in": head.sha256_in.map(|sum| hex(&sum)),
    })
}

fn of_reset(code: ResetCode) -> &'static str {
    match code {
        ResetCode::NoError => "no_error",
        ResetCode::Cancelled => "cancelled",
        ResetCode::NotCalled => "not_called",
        ResetCode::NotCarriable => "not_carriable",
        ResetCode::Unreachable => "unreachable",
        ResetCode::Broken => "broken",
        ResetCode::Timeout => "timeout",
    }
}

fn of_outcome(outcome: &Outcome) -> Value {
    let said = json!({ "event_id": hex(&outcome.event_id), "attempt": outcome.attempt, "fence": outcome.fence });
    merge(
        said,
        match &outcome.state {
            OutcomeState::Running => json!({ "state": "running" }),
            OutcomeState::Failed(code) => json!({ "state": "failed", "code": of_reset(*code) }),
            OutcomeState::Finished { head, body, truncated } => {
                merge(of_response(head), json!({ "state": "finished", "body": hex(body), "truncated": truncated }))
            }
        },
    )
}

fn of_notice(notice: &Notice) -> Value {
    match notice {
        Notice::Text(line) => json!({ "kind": "line", "text": line }),
        Notice::Backlog { endpoint, waiting, oldest_ms, line } => json!({
            "kind": "backlog", "endpoint": endpoint, "waiting": waiting, "oldest_ms": oldest_ms, "text": line,
        }),
        Notice::Changed { endpoint, state } => {
            merge(json!({ "kind": "changed", "endpoint": endpoint }), of_state(state))
        }
        Notice::Refused { endpoint, event_id, status, code, provider } => json!({
            "kind": "refused", "endpoint": endpoint, "event_id": hex(event_id), "status": status, "code": code,
            "provider": provider,
        }),
    }
}

pub(super) fn of_close(close: &Close) -> Value {
    json!({ "code": close.code as u64, "reason": close.reason })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
