//! The demo: a relay, an agent and a handler on free loopback ports, and a few signed webhooks: some that the handler
//! answers at once, and some that come while its agent is away and are kept.
//!
//! The same program is the relay and the agent when its first argument says so: real processes from
//! one build. It leaves nothing behind, also if whoever reads what it prints has seen enough (`| head -1`).

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Write as _},
    path::Path,
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use http_body_util::BodyExt as _;
use relay_tests::{
    handler::{Handler, full},
    process::{PATIENCE, Server},
    program::as_role,
    sender::{self, request, send},
};

const WEBHOOKS: [(&str, &str, &str, &str); 3] = [
    ("github", "HOOK_GITHUB", "a long random text", include_str!("../../demo/github-push.json")),
    ("stripe", "HOOK_STRIPE", "whsec_demo_secret_of_an_endpoint", include_str!("../../demo/stripe-event.json")),
    (
        "standard-webhooks",
        "HOOK_STANDARD",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        include_str!("../../demo/standard.json"),
    ),
];

/// The endpoint that keeps what it takes, and how many webhooks come while nobody is attached to it.
const KEPT: &str = "[[endpoint]]\nname = \"kept\"\nmode = \"assured\"\nwait_for_agent = \"0s\"\n\
    verify = { provider = \"stripe\", secrets = [\"env:HOOK_STRIPE\"] }\n";
const WAITING: usize = 3;

fn main() -> ExitCode {
    if let Some(ended) = as_role() {
        return ended;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(demo())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the demo failed: {error:#}"); // Nobody else is left to be told.
            ExitCode::FAILURE
        }
    }
}

/// Nobody reads what is printed any more.
#[derive(Debug)]
struct ReaderGone;

impl std::error::Error for ReaderGone {}

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

/// Prints a line.
fn say(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => Ok(written?),
    }
}

async fn demo() -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let endpoints: String = WEBHOOKS
        .iter()
        .map(|(name, variable, ..)| {
            format!("[[endpoint]]\nname = \"{name}\"\nverify = {{ provider = \"{name}\", secrets = [\"env:{variable}\"] }}\n")
        })
        .collect();
    let secrets: Vec<_> = WEBHOOKS.iter().map(|(_, variable, secret, _)| (*variable, *secret)).collect();
    let relay = Server::start(Path::new(&program), "127.0.0.1:0", &(endpoints + KEPT), &secrets).await?;
    let handler = Handler::echo().await?;
    say(&format!("relay    http://{}\nhandler  http://{}\n", relay.public, handler.address))?;
    for (name, _, secret, body) in WEBHOOKS {
        let _agent = relay.agent(name, &handler.port(), &[]).await?;
        post(&relay, name, secret, body, body).await?;
        if name == "github" {
            post(&relay, name, secret, body, &body.replace("refs/heads/main", "refs/heads/evil")).await?;
        }
    }
    kept(&relay).await
}

/// Posts to an endpoint whose agent is away, and lets it come: what was acknowledged has to arrive.
async fn kept(relay: &Server) -> anyhow::Result<()> {
    let (tell, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let handler = Handler::start(move |request| {
        let tell = tell.clone();
        async move {
            let (head, body) = request.into_parts();
            let id = head.headers.get("relay-event-id").cloned();
            if let Ok(body) = body.collect().await {
                let _ = tell.send((id, body.to_bytes())); // The demo's end is the only way out of listening.
            }
            http::Response::new(full(""))
        }
    });
    let handler = handler.await?;
    let [_, (provider, _, secret, body), _] = WEBHOOKS;
    let (mut sent, started) = (BTreeMap::new(), Instant::now());
    for number in 1..=WAITING {
        let body = body.replacen("evt_", &format!("evt_{number}"), 1);
        let headers = sender::signed(provider, secret, body.as_bytes())?;
        let lines: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let response = send(&relay.public, request("POST", "/kept", &lines, body.clone())).await?;
        ensure!(response.status() == 200 && response.body().is_empty(), "no ack, but {}", response.status());
        let id = response.headers().get("relay-event-id").context("an acknowledged event has an id")?;
        sent.insert(id.as_bytes().to_vec(), body);
    }
    ensure!(sent.len() == WAITING, "{WAITING} webhooks became {} events", sent.len());
    ensure!(calls.try_recv().is_err(), "the handler was called without an agent");
    say(&format!("kept: {WAITING} webhooks of {provider}, signed, while the agent is away"))?;
    say(&format!("  sender got    200 OK for each, in {:.1} ms together", started.elapsed().as_secs_f64() * 1000.0))?;
    let started = Instant::now();
    let _agent = relay.agent("kept", &handler.port(), &[]).await?;
    for _ in 0..WAITING {
        let call = tokio::time::timeout(PATIENCE, calls.recv()).await.context("not all that was kept came")?;
        let (id, body) = call.context("the handler ended")?;
        let id = id.context("an event has an id")?;
        let expected = sent.remove(id.as_bytes()).context("an event came twice, or was never acknowledged")?;
        ensure!(body == expected, "the handler saw other bytes than were sent");
    }
    say(&format!(
        "  handler saw   all {WAITING}, every byte of them, {:.1} ms after its agent was started",
        started.elapsed().as_secs_f64() * 1000.0
    ))
}

/// Posts `sent` with the signature of `signed`, and says what each hop saw.
async fn post(relay: &Server, name: &str, secret: &str, signed: &str, sent: &str) -> anyhow::Result<()> {
    let headers = sender::signed(name, secret, signed.as_bytes())?;
    let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    lines.push(("content-type", "application/json"));
    let started = Instant::now();
    let response = send(&relay.public, request("POST", &format!("/{name}"), &lines, sent.to_owned())).await?;
    let took = started.elapsed();
    let seen = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("-");
    let signed_or_not = if signed == sent { "signed" } else { "changed after signing" };
    say(&format!("{name}: {} bytes, {signed_or_not}", sent.len()))?;
    say(&format!(
        "  sender got    {} in {:.1} ms, {}",
        response.status(),
        took.as_secs_f64() * 1000.0,
        seen("relay-event-id")
    ))?;
    if let Ok(handler_us) = seen("x-handler-us").parse::<u64>() {
        let relay_ms = took.as_secs_f64() * 1000.0 - handler_us as f64 / 1000.0;
        say(&format!("  relay took    {relay_ms:.1} ms of it, connecting and tunnel included"))?;
    }
    let same = response.body().as_ref() == sent.as_bytes();
    match (signed == sent, same) {
        (true, true) => say(&format!(
            "  handler saw   {} {}, verified by {}, every byte of it\n",
            seen("x-seen-method"),
            seen("x-seen-target"),
            seen("x-seen-relay-verified")
        )),
        (false, false) => say(&format!("  handler saw   nothing: {}\n", seen("relay-error"))),
        _ => anyhow::bail!("{name}: the handler and the sender do not agree"),
    }
}
