//! The workload `overload`: one, two and five times what the handler takes, at a constant rate whatever the answers do.
//!
//! Printed are the webhooks a second that were served, how long it took to shed the others, how long health and metrics
//! took meanwhile, what became of the webhooks of an endpoint beside it, and how soon all is as before. The goal: five
//! times the capacity leaves nine tenths of the best rate, the rest is shed within 50 ms, health and metrics answer
//! within 100 ms, and within five seconds after it nothing is shed any more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::Response;
use relay_tests::{
    handler::{Handler, full},
    overload::{Flood, Flooded, Make, Probed, flood, probe},
    process::Server,
    program::Program,
    sender::{request, signed},
};
use tokio::time::sleep;

use crate::{
    contestants::Arena,
    load::SECRET,
    report::{Row, Verdict},
    stats::{Spread, percentile},
};

pub(crate) const NAME: &str = "overload";
pub(crate) const TITLE: &str = "one, two and five times what the handler takes";

/// What the handler takes at a time, and how long each call takes: 1,600 webhooks a second.
const CALLS: u32 = 16;
const CALL: Duration = Duration::from_millis(10);
const CONNECTIONS: u32 = 256;
const BESIDE: Flood = Flood { rate: 50.0, lasts: Duration::from_secs(1), connections: 8 };

/// How often it is looked whether all is as before.
const LOOK: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(30);

fn webhooks(endpoint: &'static str) -> anyhow::Result<Make> {
    let body = format!("{{\"padding\":\"{}\"}}", "x".repeat(2000));
    let proof = signed("github", SECRET, body.as_bytes())?;
    let name = "x-hub-signature-256";
    let (_, proof) = proof.into_iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).context("a proof")?;
    let run = fastrand::u64(..);
    Ok(Arc::new(move |number| {
        let id = format!("{run:016x}{number:016x}");
        let lines = [("x-github-event", "push"), ("x-github-delivery", id.as_str()), (name, &proof)];
        request("POST", &format!("/{endpoint}"), &lines, body.clone())
    }))
}

pub(crate) async fn row(arena: &Arena, seconds: u32) -> anyhow::Result<Row> {
    let endpoints = [("flooded", "live"), ("beside", "live"), ("kept", "durable")].map(|(name, mode)| {
        format!(
            "[[endpoint]]\nname = \"{name}\"\nmode = \"{mode}\"\nverify = {{ provider = \"github\", secrets = [\"env:BENCH\"] }}\n"
        )
    });
    let program = Program::behind(arena.ours.clone(), &arena.machine.measured);
    let relay = Server::start(program, "127.0.0.1:0", &endpoints.concat(), &[("BENCH", SECRET)]).await?;
    let handler = Handler::start(|_| async {
        sleep(CALL).await; // It is at work.
        Response::new(full("through"))
    })
    .await?;
    let calls = CALLS.to_string();
    let mut agents = Vec::new();
    for name in ["flooded", "beside", "kept"] {
        agents.push(relay.agent(name, &handler.port(), &["--name", name, "--max-connections", &calls]).await?);
    }
    let (many, few, kept) = (webhooks("flooded")?, webhooks("beside")?, webhooks("kept")?);
    let capacity = f64::from(CALLS) / CALL.as_secs_f64();
    let lasts = Duration::from_secs(seconds.max(3).into());
    let mut row = Row { name: NAME.to_owned(), title: TITLE.to_owned(), ..Row::default() };
    let (mut best, mut last) = (0_f64, (Flooded::default(), Probed::default()));
    for times in [1.0, 2.0, 5.0] {
        let load = Flood { rate: times * capacity, lasts, connections: CONNECTIONS };
        let both = async {
            tokio::join!(flood(&relay.public, load, &many), flood(&relay.public, Flood { lasts, ..BESIDE }, &few))
        };
        let ((flooded, beside), probed) = probe(&relay, both).await;
        best = best.max(flooded.goodput());
        note(&mut row, &format!("{times:.0}x"), &flooded, &probed);
        value(&mut row, format!("{times:.0}x: beside it, p99 ms"), ms(&beside.served, 0.99));
        value(
            &mut row,
            format!("{times:.0}x: beside it, not served"),
            (beside.shed.len() + beside.others.len()) as f64,
        );
        last = (flooded, probed);
    }
    let (flooded, probed) = last;
    let began = Instant::now();
    let normal = loop {
        let gently = Flood { rate: 0.5 * capacity, lasts: LOOK, connections: CALLS };
        let now = flood(&relay.public, gently, &many).await;
        if now.shed.is_empty() && now.others.is_empty() {
            break began.elapsed().saturating_sub(now.took).as_secs_f64();
        }
        if began.elapsed() > MOST {
            break f64::INFINITY;
        }
    };
    value(&mut row, "after it: s until nothing is shed".to_owned(), normal);
    let load = Flood { rate: 5.0 * capacity, lasts, connections: CONNECTIONS };
    let (taken, probed_kept) = probe(&relay, flood(&relay.public, load, &kept)).await;
    note(&mut row, "5x durable", &taken, &probed_kept);
    let verdict = |what: &str, goal: f64, is: f64| Verdict {
        row: NAME.to_owned(),
        what: what.to_owned(),
        goal,
        least: goal,
        reached: Spread::of([is]),
        is_steady: true,
    };
    row.verdicts = vec![
        verdict("best rate beside that at 5x", 1.0 / 0.9, best / flooded.goodput()),
        verdict("ms to shed, p99", 50.0, ms(&flooded.shed, 0.99)),
        verdict("ms of health and metrics, p99", 100.0, ms(&probed.times, 0.99)),
        verdict("s until nothing is shed", 5.0, normal),
    ];
    Ok(row)
}

fn note(row: &mut Row, what: &str, flooded: &Flooded, probed: &Probed) {
    value(row, format!("{what}: served /s"), flooded.goodput());
    value(row, format!("{what}: served, p99 ms"), ms(&flooded.served, 0.99));
    value(row, format!("{what}: shed /s"), flooded.shed.len() as f64 / flooded.took.as_secs_f64());
    value(row, format!("{what}: to shed, p50 ms"), ms(&flooded.shed, 0.5));
    value(row, format!("{what}: to shed, p99 ms"), ms(&flooded.shed, 0.99));
    value(row, format!("{what}: to shed, most ms"), ms(&flooded.shed, 1.0));
    value(row, format!("{what}: health and metrics, p99 ms"), ms(&probed.times, 0.99));
    let failed = flooded.others.len() + probed.failed.len();
    value(row, format!("{what}: other answers"), failed as f64);
    row.notes.extend(flooded.others.iter().chain(&probed.failed).take(1).map(|it| format!("{what}: such as {it}")));
}

fn value(row: &mut Row, what: String, value: f64) {
    row.values.push((what, value));
}

fn ms(sorted: &[Duration], share: f64) -> f64 {
    if sorted.is_empty() { 0.0 } else { percentile(sorted, share).as_secs_f64() * 1e3 }
}
