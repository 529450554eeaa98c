//! What a relay and an agent do, end to end, as processes. One program, since each links everything anew:
//! `cargo test -p relay-tests --test ways -- kept::` runs one module of it.

mod agent;
mod agent_events;
mod api;
mod attach;
mod badhttp;
mod client_certificates;
mod commands;
mod diff;
mod door;
mod edge;
mod faults;
mod fidelity;
mod handshakes;
mod hosts;
mod inspect_agent;
mod inspector_host;
mod kept;
mod limits;
mod listeners;
mod live;
mod mcp;
mod news;
mod play;
mod python_client;
mod replays;
mod resigned;
mod restart;
mod screen;
mod sdks;
mod searched;
mod stored;
mod teams;
mod terminal;
mod tls;
mod verification;
