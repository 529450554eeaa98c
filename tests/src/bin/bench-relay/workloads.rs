//! The workloads by name, with who takes part and which figure should be reached.

use crate::{
    contestants::{Kind, Setup},
    load::Load,
    watchers::Watchers,
};

/// A figure of the relay beside that of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) of: Figure,
    /// Beside whom, by name.
    pub(crate) beside: &'static str,
    /// At most this ratio is the goal, and this counts.
    pub(crate) goal: f64,
    pub(crate) least: f64,
}

/// What is measured in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    FrontCpu,
    BackCpu,
    Cpu,
    Rate,
    P50,
    P99,
    P999,
    FrontMemory,
    BackMemory,
}

impl Figure {
    pub(crate) const ALL: [Self; 9] = [
        Self::FrontCpu,
        Self::BackCpu,
        Self::Cpu,
        Self::Rate,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::FrontMemory,
        Self::BackMemory,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FrontCpu => "relay µs",
            Self::BackCpu => "agent µs",
            Self::Cpu => "CPU µs",
            Self::Rate => "rate /s",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
            Self::FrontMemory => "relay MiB",
            Self::BackMemory => "agent MiB",
        }
    }
}

/// Who is measured beside the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// The handler alone, nginx as one and two hops, and the peers.
    Plain,
    /// nginx as two hops with TLS on both.
    Secure,
    /// The same relay with a live endpoint and one agent.
    Live,
    /// The same relay whose journal is off.
    Off,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) setup: Setup,
    others: Others,
    pub(crate) load: Load,
    /// The load comes at 30 % of what the relay can do.
    pub(crate) is_open: bool,
    pub(crate) goals: &'static [Goal],
    pub(crate) is_quick: bool,
}

impl Workload {
    /// Who takes part; the relay is the first.
    pub(crate) fn kinds(&self, peers: usize, has_beside: bool) -> Vec<Kind> {
        let mut kinds = vec![Kind::Relay(self.setup)];
        kinds.extend(has_beside.then_some(Kind::Beside(self.setup)));
        match self.others {
            Others::Plain => {
                kinds.extend([1, 2].map(|hops| Kind::Nginx { hops, is_secure: false }));
                kinds.extend((0..peers).map(Kind::Peer));
                kinds.push(Kind::Handler);
            }
            Others::Secure => kinds.push(Kind::Nginx { hops: 2, is_secure: true }),
            Others::Live if self.setup != Setup::LIVE => kinds.push(Kind::Relay(Setup::LIVE)),
            Others::Live => {}
            Others::Off => kinds.push(Kind::Relay(Setup { journal: "off", ..self.setup })),
        }
        kinds
    }
}

const SMALL: Load = Load { connections: 64, is_new: false, body_bytes: 2048, path: "/hooks" };
const SECURE: Setup = Setup { is_secure: true, ..Setup::LIVE };

const fn cpu(beside: &'static str, goal: f64, least: f64) -> Goal {
    Goal { of: Figure::Cpu, beside, goal, least }
}

const KEEP: Workload = Workload {
    name: "keep-64",
    title: "keep-alive, 64 in flight",
    setup: Setup::LIVE,
    others: Others::Plain,
    load: SMALL,
    is_open: false,
    goals: &[cpu("nginx-2", 0.6, 0.8), cpu("rathole", 0.8, 1.05)],
    is_quick: true,
};

const TLS: Workload = Workload { setup: SECURE, others: Others::Secure, ..KEEP };
const MODE: Workload = Workload { others: Others::Live, ..KEEP };

/// All that load is given to.
pub(crate) const WORKLOADS: [Workload; 19] = [
    Workload {
        name: "keep-1",
        title: "keep-alive, 1 in flight",
        load: Load { connections: 1, ..SMALL },
        goals: &[cpu("nginx-2", 0.95, 1.15)],
        ..KEEP
    },
    Workload {
        name: "keep-16",
        title: "keep-alive, 16 in flight",
        load: Load { connections: 16, ..SMALL },
        goals: &[],
        is_quick: false,
        ..KEEP
    },
    KEEP,
    Workload {
        name: "keep-256",
        title: "keep-alive, 256 in flight",
        load: Load { connections: 256, ..SMALL },
        goals: &[cpu("nginx-2", 0.55, 0.75), cpu("rathole", 0.8, 1.05)],
        ..KEEP
    },
    Workload {
        name: "new-64",
        title: "a new connection for each, 64 in flight",
        load: Load { is_new: true, ..SMALL },
        goals: &[cpu("nginx-2", 0.55, 0.8), cpu("rathole", 0.21, 0.3)],
        ..KEEP
    },
    Workload {
        name: "open-30",
        title: "open loop at 30 % of the relay's rate, 64 connections",
        is_open: true,
        goals: &[Goal { of: Figure::P99, beside: "nginx-2", goal: 0.75, least: 1.0 }],
        ..KEEP
    },
    Workload {
        name: "tls-keep-64",
        title: "TLS everywhere, keep-alive, 64 in flight",
        goals: &[cpu("nginx-2 tls", 0.5, 0.7)],
        ..TLS
    },
    Workload {
        name: "tls-new-64",
        title: "TLS everywhere, a new connection for each, 64 in flight",
        load: Load { is_new: true, ..SMALL },
        goals: &[cpu("nginx-2 tls", 0.6, 0.68)],
        ..TLS
    },
    Workload {
        name: "tls-up",
        title: "TLS everywhere, 256 KB up, 8 in flight",
        load: Load { connections: 8, body_bytes: 256 * 1024, path: "/up", ..SMALL },
        goals: &[cpu("nginx-2 tls", 0.6, 0.75)],
        ..TLS
    },
    Workload {
        name: "tls-down",
        title: "TLS everywhere, 1 MB down, 8 in flight",
        load: Load { connections: 8, path: "/big", ..SMALL },
        goals: &[cpu("nginx-2 tls", 0.4, 0.5)],
        ..TLS
    },
    Workload { name: "live", title: "live endpoint, 64 in flight", goals: &[], is_quick: false, ..MODE },
    Workload {
        name: "assured",
        title: "assured endpoint, 64 in flight",
        setup: Setup { mode: "assured", ..Setup::LIVE },
        goals: &[cpu("relay", 1.8, 2.2)],
        ..MODE
    },
    Workload {
        name: "durable",
        title: "durable endpoint, 64 in flight",
        setup: Setup { mode: "durable", ..Setup::LIVE },
        goals: &[cpu("relay", 1.5, 1.8)],
        ..MODE
    },
    Workload {
        name: "agents-10",
        title: "10 agents for one endpoint, 64 in flight",
        setup: Setup { agents: 10, ..Setup::LIVE },
        goals: &[],
        is_quick: false,
        ..MODE
    },
    Workload {
        name: "agents-100",
        title: "100 agents for one endpoint, 64 in flight",
        setup: Setup { agents: 100, ..Setup::LIVE },
        goals: &[],
        is_quick: false,
        ..MODE
    },
    Workload {
        name: "journal",
        title: "live endpoint and nobody who watches, 64 in flight",
        others: Others::Off,
        goals: &[cpu("relay journal off", 1.02, 1.02)],
        is_quick: false,
        ..MODE
    },
    Workload {
        name: "watched",
        title: "live endpoint and one watcher that reads all, 64 in flight",
        setup: Setup { watchers: Watchers::Reading, ..Setup::LIVE },
        goals: &[cpu("relay", 1.15, 1.15)],
        is_quick: false,
        ..MODE
    },
    Workload {
        name: "stalled",
        title: "50 watchers that do not read, open loop at 30 % of the relay's rate",
        setup: Setup { watchers: Watchers::Stalled(50), ..Setup::LIVE },
        is_open: true,
        goals: &[Goal { of: Figure::P99, beside: "relay", goal: 1.1, least: 1.1 }],
        is_quick: false,
        ..MODE
    },
    NETWORK,
];

/// Between two hosts that are 50 ms apart and lose one packet in a hundred.
pub(crate) const NETWORK: Workload = Workload {
    name: "network",
    title: "50 ms and 1 % loss between relay and agent, TLS everywhere, 64 in flight",
    goals: &[],
    is_quick: false,
    ..TLS
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once_and_every_goal_is_measured() {
        let names: std::collections::BTreeSet<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        assert_eq!(names.len(), WORKLOADS.len());
        for workload in WORKLOADS {
            for goal in workload.goals {
                assert!(goal.goal <= goal.least, "{}", workload.name);
            }
            assert_eq!(workload.kinds(2, true)[..2], [Kind::Relay(workload.setup), Kind::Beside(workload.setup)]);
        }
    }
}
