//! What the relay and the agent cost, measured here and now.
//!
//! `idle [AGENTS] [--tls]`: memory for each idle agent, in the server, and of one agent's process.
//! `webhooks [COUNT] [--assured]`: CPU time of server and agent for each webhook, beside the same requests sent to the
//! handler directly.
//! `compare --old DIR [--new DIR] [--rounds N] [--count N] [--body BYTES] [--only PART]`: CPU time and memory of the
//! programs in one folder beside those in another, or beside this build.

mod compare;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use http::StatusCode;
use relay_tests::{
    agents::Crowd,
    handler::Handler,
    process::{Server, allow_open_files},
    program::as_role,
    sender::{Keeper, request},
};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
const HELP: &str = "usage: cargo measure idle [AGENTS] [--tls] | cargo measure webhooks [COUNT] [--assured]
       cargo measure compare --old DIR [--new DIR] [--rounds N] [--count N]
       [--body BYTES] [--only live|assured|durable|memory]";

fn main() -> ExitCode {
    if let Some(ended) = as_role() {
        return ended;
    }
    let rest: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure(&rest))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &[String]) -> anyhow::Result<()> {
    let number = arguments.get(1).filter(|text| !text.starts_with('-')).map(|text| text.parse()).transpose()?;
    match arguments.first().map(String::as_str) {
        Some("idle") => idle(number.unwrap_or(10_000), arguments.iter().any(|flag| flag == "--tls")).await,
        Some("webhooks") => webhooks(number.unwrap_or(20_000), arguments.iter().any(|flag| flag == "--assured")).await,
        Some("compare") => compare::run(arguments).await,
        _ => bail!(HELP),
    }
}

async fn idle(agents: u32, tls: bool) -> anyhow::Result<()> {
    if !allow_open_files(u64::from(agents) + 1000).await {
        bail!("too few open files are allowed for {agents} agents; raise the limit or name fewer");
    }
    let program = std::env::current_exe()?;
    let directory = tempfile::tempdir()?;
    let mut extra = format!("max_connections = {}\n", agents + 100);
    let mut client = None;
    if tls {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        extra += &format!("[tls]\ncert = {cert:?}\nkey = {key:?}\n");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        client = Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    }
    extra += &format!("[limits]\nmax_sessions = {}\n", agents + 100);
    let relay = Server::start(program.as_path(), "127.0.0.1:0", &format!("{extra}{OPEN}"), &[]).await?;
    let warm = Crowd::connect(&relay.public, &relay.token, "open", 50, client.clone()).await?;
    let before = relay.memory()?;
    let started = Instant::now();
    let crowd = Crowd::connect(&relay.public, &relay.token, "open", agents, client).await?;
    let took = started.elapsed();
    tokio::time::sleep(Duration::from_secs(12)).await; // Two heartbeats: every buffer was in use.
    let after = relay.memory()?;
    if crowd.alive() != agents as usize {
        bail!("only {} of {agents} sessions are alive", crowd.alive());
    }
    drop(warm);
    let each = (after - before) as f64 / f64::from(agents) / 1024.0;
    println!("server: {agents} idle agents{}, {each:.1} KiB each", if tls { " over TLS" } else { "" });
    println!("        {:.1} MiB in all, attached in {:.1} s", after as f64 / 1048576.0, took.as_secs_f64());
    drop(crowd);
    if !tls {
        let agent = relay.agent("open", "9", &[]).await?;
        println!("agent:  {:.1} MiB for one idle process", agent.memory()? as f64 / 1048576.0);
    }
    Ok(())
}

/// One sender on one kept connection, so that the numbers are the relay's own and not those of connecting.
async fn webhooks(count: u32, assured: bool) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let mode = if assured { "assured" } else { "live" };
    let relay = Server::start(program.as_path(), "127.0.0.1:0", &OPEN.replace("live", mode), &[]).await?;
    let handler = Handler::echo().await?;
    let agent = relay.agent("open", &handler.port(), &[]).await?;
    let direct = rate(&handler.address.to_string(), count).await?;
    rate(&relay.public, count / 10).await?;
    let before = relay.cpu()? + agent.cpu()?;
    let through = rate(&relay.public, count).await?;
    let cpu = (relay.cpu()? + agent.cpu()? - before).as_secs_f64() * 1e6 / f64::from(count);
    println!("{mode}: one sender, 1 KiB bodies, {count} webhooks, one after the other");
    println!("direct:    {direct:.0} a second");
    println!("relayed:   {through:.0} a second ({:.2} of direct)", through / direct);
    println!("cpu:       {cpu:.1} µs a webhook, server and agent together");
    Ok(())
}

async fn rate(address: &str, count: u32) -> anyhow::Result<f64> {
    let mut sender = Keeper::connect(address).await?;
    let body = bytes::Bytes::from(vec![b'x'; 1024]);
    let started = Instant::now();
    for _ in 0..count {
        let answer = sender.send(request("POST", "/open", &[], body.clone())).await.context("an answer")?;
        if answer.status() != StatusCode::OK || answer.body().len() != body.len() {
            bail!("a wrong answer: {}", answer.status());
        }
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}
