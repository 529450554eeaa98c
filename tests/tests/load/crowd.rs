//! Two hundred agents whose relay dies: they come back by themselves, and not all at once.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use relay_tests::{
    link::Link,
    process::{Agent, Server, allow_open_files},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

const OPEN: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";
const AGENTS: usize = 200;

/// They are all back this long after their relay is.
const BACK: Duration = Duration::from_secs(45);

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_demo"))
}

/// Agents that reach their relay over the link, all ready.
async fn agents(relay: &Server, link: &Link) -> Vec<Agent> {
    let (mut starting, mut agents) = (JoinSet::new(), Vec::new());
    for number in 0..AGENTS {
        if starting.len() == 16 {
            agents.push(starting.join_next().await.expect("one").expect("runs"));
        }
        let (address, token) = (link.address.to_string(), relay.token.clone());
        starting.spawn(async move {
            let name = format!("agent-{number}");
            let more = ["--name", name.as_str()];
            Agent::start(program(), &address, &token, "open", "9", &more).await.expect("an agent")
        });
    }
    agents.extend(starting.join_all().await);
    agents
}

/// How many of `attempts` fell into each second from `begin` on.
fn by_second(attempts: &[Instant], begin: Instant) -> Vec<usize> {
    let mut seconds = Vec::new();
    for attempt in attempts.iter().filter(|attempt| **attempt >= begin) {
        let second = usize::try_from((*attempt - begin).as_secs()).expect("few");
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += 1;
    }
    seconds
}

async fn all_ready(agents: &mut [Agent]) {
    for agent in agents {
        agent.line("\"ready\"").await.expect("it comes back");
    }
}

#[tokio::test]
async fn two_hundred_agents_come_back_to_a_relay_that_died_and_spread_their_attempts() {
    if !allow_open_files(4096).await {
        return println!("skipped: this machine allows too few open files");
    }
    let mut relay = Server::start(program(), "127.0.0.1:0", OPEN, &[]).await.expect("a relay");
    let link = Link::start(&relay.public).await.expect("a link");
    let mut agents = agents(&relay, &link).await;

    // Killed and started again at once.
    let listen = relay.public.clone();
    let killed = Instant::now();
    relay.signal("-KILL").await.expect("is killed");
    relay.ended().await.expect("ends");
    relay.start_again(&listen).await.expect("starts again");
    timeout(BACK, all_ready(&mut agents)).await.expect("all are back in time");
    let seconds = by_second(&link.arrivals(), killed);
    let mean = seconds.iter().sum::<usize>() as f64 / seconds.len() as f64;
    assert!(seconds.iter().all(|many| *many as f64 <= 3.0 * mean), "attempts each second: {seconds:?}");

    // Killed and away for 20 s.
    let killed = Instant::now();
    relay.signal("-KILL").await.expect("is killed");
    relay.ended().await.expect("ends");
    sleep(Duration::from_secs(20)).await;
    relay.start_again(&listen).await.expect("starts again");
    let started = Instant::now();
    timeout(BACK, all_ready(&mut agents)).await.expect("all are back in time");
    let (seconds, away) = (by_second(&link.arrivals(), killed), (started - killed).as_secs());
    let attempts = seconds.iter().sum::<usize>();
    assert!(attempts <= 8 * AGENTS, "{attempts} attempts of {AGENTS} agents within a minute: {seconds:?}");
    println!("attempts each second, the relay away for the first {away}: {seconds:?}");
}
