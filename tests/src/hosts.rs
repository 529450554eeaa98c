//! Two hosts joined by a cable: network namespaces and a veth pair, made for one test and removed after it.
//!
//! Needs root, network namespaces and `ip` (iproute2); where one is missing, the test that asks says so and
//! is skipped. The addresses are of 198.18.0.0/15, which is for tests between hosts (RFC 2544).

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::{Context, ensure};

use crate::program::Program;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Where the relay runs.
    Relay,
    /// Where the agent runs.
    Agent,
}

/// The two hosts. Dropping it removes them.
#[derive(Debug)]
pub struct Hosts {
    name: String,
    net: u8,
}

impl Hosts {
    /// Two joined hosts, or why there can be none.
    ///
    /// # Errors
    /// What this machine lacks.
    pub fn join() -> anyhow::Result<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let net = NEXT.fetch_add(1, Ordering::Relaxed);
        let hosts = Self { name: format!("relay-{}-{net}", std::process::id()), net };
        let (relay, agent) = (hosts.space(Host::Relay), hosts.space(Host::Agent));
        ip(&["netns", "add", &relay])?;
        ip(&["netns", "add", &agent])?;
        ip(&["-n", &relay, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &agent])?;
        for host in [Host::Relay, Host::Agent] {
            let (space, address) = (hosts.space(host), format!("{}/24", hosts.address(host)));
            ip(&["-n", &space, "address", "add", &address, "dev", "cable"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            hosts.set_cable(host, true)?;
        }
        Ok(hosts)
    }

    /// The address of a host on the cable.
    #[must_use]
    pub fn address(&self, host: Host) -> String {
        format!("198.18.{}.{}", self.net, if host == Host::Relay { 1 } else { 2 })
    }

    /// A program that runs on a host.
    #[must_use]
    pub fn on(&self, host: Host, program: &Path) -> Program {
        Program::behind(program, self.words(host))
    }

    /// What stands before a command line that is to run on a host.
    #[must_use]
    pub fn words(&self, host: Host) -> [String; 4] {
        ["ip".to_owned(), "netns".to_owned(), "exec".to_owned(), self.space(host)]
    }

    /// Makes the cable long and bad: so many milliseconds and so many packets in a hundred lost, each way.
    ///
    /// # Errors
    /// If the system refuses, or does not know `netem`.
    pub fn impair(&self, delay_ms: u32, loss_percent: u32) -> anyhow::Result<()> {
        for host in [Host::Relay, Host::Agent] {
            let (space, delay, loss) = (self.space(host), format!("{delay_ms}ms"), format!("{loss_percent}%"));
            let tc = ["tc", "qdisc", "add", "dev", "cable", "root", "netem", "delay", &delay, "loss", &loss];
            ip(&[&["netns", "exec", &space], tc.as_slice()].concat())?;
        }
        Ok(())
    }

    /// Plugs one end of the cable in or out. Nobody is told: no connection closes.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_cable(&self, host: Host, plugged: bool) -> anyhow::Result<()> {
        ip(&["-n", &self.space(host), "link", "set", "cable", if plugged { "up" } else { "down" }])
    }

    fn space(&self, host: Host) -> String {
        format!("{}-{}", self.name, if host == Host::Relay { "r" } else { "a" })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in [Host::Relay, Host::Agent] {
            let _ = ip(&["netns", "delete", &self.space(host)]);
        }
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let ended = Command::new("ip").args(words).output().context("the command ip (iproute2) is not there")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "ip {}: {}", words.join(" "), said.trim());
    Ok(())
}
