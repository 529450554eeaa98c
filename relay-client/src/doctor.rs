//! The steps of the way from this machine to the relay and to the handlers, each tried and judged.
//!
//! DNS, proxy, connection, TLS, clock, upgrade, token, targets, in that order; what depends on a step that failed
//! is skipped. It attaches to nothing and calls no handler. Of a certificate that is not believed it tells the
//! issuer, which names the box that intercepts TLS in many networks; no token goes over such a connection.

use jiff::{SignedDuration, Timestamp};
use relay_proto::printable::escaped;
use serde::Serialize;
use tokio::time::timeout;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    config::{Token, Way},
    handler::{Handler, TargetConfig},
    link::{self, Stream, UPGRADE_TIMEOUT, Via},
    report::units,
};

/// Clocks further apart than this fail: half of the strictest provider's tolerance would be gone.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

const ORDER: [&str; 7] = ["dns", "proxy", "connect", "tls", "clock", "upgrade", "token"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Ok,
    Failed,
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// `dns`, `proxy`, `connect`, `tls`, `clock`, `upgrade`, `token` or `target`.
    pub check: &'static str,
    pub state: Verdict,
    pub detail: String,
    /// What to do about it, if it failed.
    pub todo: Option<&'static str>,
    /// Whether the relay itself said no.
    #[serde(skip)]
    refused: bool,
}

impl Finding {
    fn new(check: &'static str, state: Verdict, detail: impl Into<String>) -> Self {
        Self { check, state, detail: detail.into(), todo: None, refused: false }
    }

    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, detail)
    }

    fn skipped(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Skipped, detail)
    }

    fn failed(check: &'static str, detail: impl Into<String>, todo: &'static str) -> Self {
        Self { todo: Some(todo), ..Self::new(check, Verdict::Failed, detail) }
    }

    /// The finding as people read it, with a line end.
    pub(crate) fn to_line(&self) -> String {
        let state = match self.state {
            Verdict::Ok => "ok",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
        };
        let todo = self.todo.map(|todo| format!("{:18}{todo}\n", "")).unwrap_or_default();
        format!("{state:<9}{:<9}{}\n{todo}", self.check, escaped(&self.detail))
    }
}

/// 0, 3 if the relay refused, 5 if it was not reached, 1 if anything else failed.
pub(crate) fn exit_code(findings: &[Finding]) -> u8 {
    let code = |finding: &Finding| match finding.check {
        _ if finding.state != Verdict::Failed => 0,
        _ if finding.refused => 3,
        "dns" | "proxy" | "connect" | "tls" | "upgrade" => 5,
        _ => 1,
    };
    findings.iter().map(code).max().unwrap_or_default()
}

/// Tries every step. Without a token the steps up to the upgrade are tried, and the reason why there is none is said.
pub(crate) async fn diagnose(way: &Way, token: Result<&Token, &str>, targets: &[TargetConfig]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(stopped) = relay(way, token, &mut findings).await {
        findings.push(stopped);
    }
    for check in ORDER {
        if !findings.iter().any(|finding| finding.check == check) {
            findings.push(Finding::skipped(check, "needs what failed above"));
        }
    }
    findings.sort_by_key(|finding| ORDER.iter().position(|check| *check == finding.check));
    for target in targets {
        findings.push(target_finding(target).await);
    }
    if targets.is_empty() {
        findings.push(Finding::skipped("target", "none is named; try relay-client doctor 3000"));
    }
    findings
}

/// The steps to the relay, up to the first that fails, which is the error.
async fn relay(way: &Way, token: Result<&Token, &str>, findings: &mut Vec<Finding>) -> Result<(), Finding> {
    let via = Via::of(way);
    let host = &way.relay.host;
    if via.as_ref().is_some_and(Via::resolves_names) {
        findings.push(Finding::skipped("dns", format!("the proxy resolves {host}")));
    } else {
        let resolved = timeout(link::REACH_TIMEOUT, link::resolve(host, way.relay.port)).await.map_err(|_| {
            Finding::failed("dns", format!("{host}: no answer in time"), "look at this machine's name servers")
        })?;
        let todo = "look at the name, the network, and whether a proxy is needed (--proxy)";
        let addresses = resolved.map_err(|error| Finding::failed("dns", error.to_string(), todo))?;
        let addresses: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
        findings.push(Finding::ok("dns", format!("{host} is {}", addresses.join(", "))));
    }
    let reached = link::reach(way).await;
    let stream = match via {
        None => {
            findings.push(Finding::skipped("proxy", "none is on the way"));
            let todo = "look whether the relay runs, and whether a firewall or a proxy stands before it";
            reached.map_err(|error| Finding::failed("connect", error.to_string(), todo))?
        }
        Some(via) => {
            let todo = "look at --proxy or HTTPS_PROXY; NO_PROXY and --proxy direct go round it";
            let stream = reached.map_err(|error| Finding::failed("proxy", error.to_string(), todo))?;
            findings.push(Finding::ok("proxy", via.to_string()));
            stream
        }
    };
    findings.push(Finding::ok("connect", &way.relay.authority));
    let stream = tls(way, stream, findings).await?;
    upgrade(way, token, stream, findings).await
}

async fn tls(way: &Way, stream: link::Reached, findings: &mut Vec<Finding>) -> Result<Stream, Finding> {
    if !way.relay.tls {
        findings.push(Finding::skipped("tls", "in the clear, since the relay is on this machine"));
        return Ok(Stream::Left(stream));
    }
    let error = match timeout(UPGRADE_TIMEOUT, link::secure(way, stream)).await {
        Ok(Ok(stream)) => {
            let issuer = issuer(&stream).unwrap_or_else(|| "somebody unnamed".to_owned());
            findings.push(Finding::ok("tls", format!("its certificate is issued by {issuer}")));
            return Ok(stream);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no TLS handshake in time".to_owned(),
    };
    let issued = match timeout(UPGRADE_TIMEOUT, link::look_at_certificate(way)).await {
        Ok(Ok(stream)) => issuer(&stream).map(|issuer| format!("; it is issued by {issuer}")),
        _ => None,
    };
    let todo = "if that issuer is your network's or your own, trust it with --relay-ca; else somebody is in between";
    Err(Finding::failed("tls", format!("{error}{}", issued.unwrap_or_default()), todo))
}

/// Who issued the other side's certificate.
fn issuer(stream: &Stream) -> Option<String> {
    let certificate = link::peer_certificate(stream)?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.issuer().to_string()).filter(|issuer| !issuer.is_empty())
}

async fn upgrade(
    way: &Way,
    token: Result<&Token, &str>,
    stream: Stream,
    findings: &mut Vec<Finding>,
) -> Result<(), Finding> {
    let token = match token {
        Ok(token) => token,
        Err(why) => {
            findings.push(Finding::skipped("clock", "the relay is asked with a token only"));
            findings.push(Finding::skipped("upgrade", "the relay is asked with a token only"));
            return Err(Finding::failed("token", why, "run relay-client login, or name a file with --token-file"));
        }
    };
    let (before, mut date) = (Timestamp::now(), None);
    let asked = timeout(UPGRADE_TIMEOUT, link::upgrade(&way.relay, token, stream, &mut date)).await;
    let todo = "look at the relay, and at proxies before it that do not pass WebSockets";
    let link = asked.map_err(|_| Finding::failed("upgrade", "the relay did not answer in time", todo))?;
    findings.push(clock(date.as_deref(), before));
    match link {
        Ok(_) => {
            findings.push(Finding::ok("upgrade", "the relay speaks relay.v1"));
            findings.push(Finding::ok("token", "the relay accepts it"));
            Ok(())
        }
        Err(error) if error.is_token_refusal() => {
            findings.push(Finding::ok("upgrade", "the relay answers"));
            let todo = "ask for a new token (relay-server token create NAME), and run relay-client login";
            Err(Finding { refused: true, ..Finding::failed("token", error.to_string(), todo) })
        }
        Err(error) => {
            let todo = "a proxy before the relay must pass WebSocket upgrades for /_relay/v1/connect";
            Err(Finding::failed("upgrade", error.to_string(), todo))
        }
    }
}

fn clock(date: Option<&str>, now: Timestamp) -> Finding {
    let relay = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let Some(relay) = relay else { return Finding::skipped("clock", "the relay did not tell the time") };
    let skew = now.duration_since(relay.timestamp());
    let amount = units::duration(skew.unsigned_abs());
    if skew.abs() <= MAX_CLOCK_SKEW {
        return Finding::ok("clock", "as the relay's");
    }
    let side = if skew.is_negative() { "behind" } else { "ahead of" };
    let todo = "set this machine's clock (NTP): handlers that check a sender's timestamps go by it";
    Finding::failed("clock", format!("this machine is {amount} {side} the relay"), todo)
}

async fn target_finding(config: &TargetConfig) -> Finding {
    let name = config.target.to_string();
    let tried = match Handler::new(config) {
        Ok(handler) => handler.try_connect().await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    match tried {
        Ok(()) => Finding::ok("target", name),
        Err(why) => Finding::failed("target", format!("{name}: {why}"), "start the handler, or name another target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_a_minute_apart_are_told() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(clock(Some("Fri, 02 Jan 2026 03:04:00 GMT"), now).state, Verdict::Ok);
        let ahead = clock(Some("Fri, 02 Jan 2026 03:00:00 GMT"), now);
        assert_eq!(ahead.detail, "this machine is 4 min 5 s ahead of the relay");
        let behind = clock(Some("Fri, 02 Jan 2026 05:04:05 GMT"), now);
        assert_eq!(
            (behind.state, behind.detail.as_str()),
            (Verdict::Failed, "this machine is 2 h 0 min behind the relay")
        );
        assert_eq!(clock(None, now).state, Verdict::Skipped);
        assert_eq!(clock(Some("soon"), now).state, Verdict::Skipped);
    }

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        let failed = |check| Finding::failed(check, "", "");
        let refused = Finding { refused: true, ..failed("token") };
        assert_eq!(exit_code(&[Finding::ok("dns", ""), Finding::skipped("proxy", "")]), 0);
        assert_eq!(exit_code(&[failed("target")]), 1);
        assert_eq!(exit_code(&[failed("token")]), 1);
        assert_eq!(exit_code(&[failed("clock"), failed("tls")]), 5);
        assert_eq!(exit_code(&[refused, failed("target")]), 3);
    }

    #[test]
    fn a_line_says_what_to_do() {
        let finding = Finding::failed("target", "http://h: connection refused", "start the handler");
        assert_eq!(
            finding.to_line(),
            "failed   target   http://h: connection refused\n                  start the handler\n"
        );
    }
}
