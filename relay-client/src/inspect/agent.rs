//! What the local page is told of this agent: its link, its targets, and what its tap holds.
//!
//! Answered here, so that it is there while the relay is not. Values of headers that may be credentials are masked, as
//! are those that the agent's own settings put there.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::Response;
use relay_program::api::{AgentBody, AgentExchange, AgentExchanges, TapFigures, ThisAgent, ThisAgentTarget};
use relay_proto::OfferState;
use tokio::sync::watch;

use super::{
    answer::{self, PageBody, Problem},
    shown::ShadowResults,
};
use crate::{
    agent::{LinkState, Status},
    config::Config,
    report::Outcome,
    tap::{Tap, TapBody, TapExchange, micros},
};

/// Exchanges of one answer.
const PAGE: usize = 200;
/// What stands in place of a value that is not shown.
const MASK: &str = "masked";
/// Headers whose values may be credentials.
const GUARDED: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"];

pub(super) struct View {
    pub(super) settings: watch::Receiver<Arc<Config>>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) tap: Arc<Tap>,
    pub(super) shown: ShadowResults,
}

impl View {
    /// What stands below `agent/`.
    pub(super) fn answer(&self, below: &str, query: &str) -> Result<Response<PageBody>, Problem> {
        match below.split('/').collect::<Vec<_>>()[..] {
            [""] => Ok(answer::json(&self.this_agent())),
            ["exchanges"] => Ok(answer::json(&self.page(number(query, "before").unwrap_or(u64::MAX)))),
            ["exchanges", id] => {
                let exchanges: Vec<_> = self.tap.of(id).iter().map(|one| shown(one)).collect();
                if exchanges.is_empty() {
                    return Err(Problem::new(404, "not_found", "this agent's tap has nothing of that event"));
                }
                Ok(answer::json(&AgentExchanges { exchanges, next: None }))
            }
            ["exchanges", id, seq, which @ ("request" | "answer")] => {
                let of = self.tap.of(id);
                let found = of.iter().find(|one| one.seq.to_string() == seq);
                let found =
                    found.ok_or_else(|| Problem::new(404, "not_found", "this agent's tap has no such exchange"))?;
                let body = if which == "request" { &found.request } else { &found.answer };
                let offset = usize::try_from(number(query, "offset").unwrap_or(0)).unwrap_or(usize::MAX);
                Ok(answer::octets(body.kept.slice(offset.min(body.kept.len())..), &format!("{id}-{which}.bin")))
            }
            ["diffs"] => Ok(answer::json(&self.shown.all())),
            ["diffs", number] => {
                let found = self.shown.one(number);
                found.map(|diff| answer::json(&diff)).ok_or_else(Problem::nothing_here)
            }
            _ => Err(Problem::nothing_here()),
        }
    }

    /// Results that `diff` brings.
    pub(super) fn take_diffs(&self, body: &[u8]) -> Result<Response<PageBody>, Problem> {
        self.shown.take(body).map_err(|why| Problem::new(400, "bad_request", why))?;
        Ok(answer::json(&serde_json::json!({})))
    }

    pub(super) fn this_agent(&self) -> ThisAgent {
        let (config, status) = (Arc::clone(&self.settings.borrow()), self.status.borrow().clone());
        let (link, since) = status.link();
        let (state, why, again_at) = match link {
            _ if status.is_stopping() => ("stopping", None, None),
            LinkState::Connecting => ("connecting", None, None),
            LinkState::Open => ("ready", None, None),
            LinkState::Lost { why, again_at } => ("reconnecting", Some(why.clone()), Some(again_at.to_string())),
            LinkState::Refused { why } => ("refused", Some(why.clone()), None),
        };
        let targets = status.endpoints().map(|(wanted, state, public)| ThisAgentTarget {
            endpoint: public.map_or_else(|| wanted.name.clone(), |public| public.name.clone()),
            standing: match state {
                Some(OfferState::Accepted) => "active".to_owned(),
                Some(OfferState::Standby) => "standby".to_owned(),
                Some(OfferState::Copy) => "copy".to_owned(),
                Some(OfferState::Refused { code }) => code.clone(),
                None => "away".to_owned(),
            },
            target: wanted.targets.clone(),
            public_url: public.map(|public| public.url.clone()).filter(|url| !url.is_empty()),
        });
        let counts = self.tap.counts();
        ThisAgent {
            name: config.name.clone(),
            instance: config.instance.as_simple().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            relay: config.way.relay.to_string(),
            state: state.to_owned(),
            since: since.to_string(),
            why,
            again_at,
            link_us: None,
            targets: targets.collect(),
            tap: TapFigures { exchanges: counts.exchanges as u64, bytes: counts.bytes as u64, dropped: counts.dropped },
        }
    }

    /// The newest exchanges before that one, the newest first.
    fn page(&self, before: u64) -> AgentExchanges {
        let end = before.min(self.tap.next_seq());
        let from = end.saturating_sub(PAGE as u64);
        let (found, _) = self.tap.since(from, PAGE);
        let exchanges: Vec<_> = found.iter().filter(|one| one.seq < end).rev().map(|one| shown(one)).collect();
        let oldest = exchanges.last().map(|one| one.number).filter(|_| exchanges.len() == PAGE);
        AgentExchanges { exchanges, next: oldest }
    }
}

/// A number of a query.
fn number(query: &str, name: &str) -> Option<u64> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// An exchange as the page gets it.
pub(crate) fn shown(exchange: &TapExchange) -> AgentExchange {
    let line = &exchange.line;
    let (status, error) = match &line.outcome {
        Outcome::Status(status) => (Some(*status), None),
        Outcome::Failed(code) | Outcome::Unmade(code) => (None, Some(code.clone())),
    };
    let mut masked = Vec::new();
    let mut lines = |lines: Vec<(&[u8], &[u8])>| {
        let shown = lines.into_iter().map(|(name, value)| {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if !GUARDED.contains(&name.as_str()) && !exchange.own.iter().any(|own| own.as_str() == name) {
                return (name, String::from_utf8_lossy(value).into_owned());
            }
            masked.push(name.clone());
            (name, MASK.to_owned())
        });
        shown.collect::<Vec<_>>()
    };
    let headers = lines(head_lines(&exchange.head));
    let answer_headers = lines(exchange.answer_headers.iter().collect());
    masked.sort_unstable();
    masked.dedup();
    AgentExchange {
        number: exchange.seq,
        event_id: line.event_id.clone(),
        replay_of: line.replay_of.clone(),
        endpoint: line.endpoint.clone(),
        attempt: exchange.attempt,
        came_at: line.time.to_string(),
        method: line.method.clone(),
        target: line.path.clone(),
        status,
        error,
        note: line.note.clone(),
        duration_us: micros(line.duration),
        called_us: exchange.called_us,
        sent_us: exchange.sent_us,
        head_us: exchange.head_us,
        ended_us: exchange.ended_us,
        headers,
        request: body(&exchange.request),
        answer_headers,
        answer: body(&exchange.answer),
        masked,
    }
}

fn body(body: &TapBody) -> AgentBody {
    let sha256 = body.sha256.map(|sum| HEXLOWER.encode(&sum));
    AgentBody { size: body.size, kept: body.kept.len() as u64, sha256 }
}

/// The lines of a head that this agent wrote, behind its request line; one that was cut off is left out.
fn head_lines(head: &Bytes) -> Vec<(&[u8], &[u8])> {
    let mut lines = Vec::new();
    let mut rest = head.as_ref();
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if let Some(colon) = line.iter().position(|byte| *byte == b':')
            && !line[..colon].contains(&b' ')
        {
            lines.push((&line[..colon], line[colon + 1..].trim_ascii()));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = Bytes::from_static(b"POST /a:b HTTP/1.1\r\nhost: x:1\r\nX-Empty:\r\nx: a: b \r\n\r\n");
        let lines: Vec<_> =
            head_lines(&head).into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let expected = [("host", "x:1"), ("X-Empty", ""), ("x", "a: b")];
        assert_eq!(lines, expected.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(head_lines(&Bytes::from_static(b"GET / HTTP/1.1\r\na: b\r\ncut off: yes")).len(), 1);
    }
}
