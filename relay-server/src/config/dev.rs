//! What `serve --dev` tells the person in front of it.
//!
//! A pure function, called once the listener has its port. It shows the throw-away token on purpose: this text goes
//! to the terminal of the person who started the relay, and the token dies with the process.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Dev;
use crate::endpoint::Endpoint;

/// Where to send webhooks and how to start the agent, as a block of lines for standard error.
pub(crate) fn dev_banner(listen: SocketAddr, tls: bool, dev: &Dev, endpoints: &[Arc<Endpoint>]) -> String {
    let (scheme, for_agents) = if tls { ("https", "wss") } else { ("http", "ws") };
    let mut text = String::from("This relay is for trying things out: loopback only, and its token ends with it.\n");
    for endpoint in endpoints {
        let _ = write!(
            text,
            "\nSend webhooks to:\n  {scheme}://{listen}/{name}\n\
             Start the agent, with your handler's port in place of 3000:\n  \
             RELAY_TOKEN={token} relay-client listen 3000 {name} --relay {for_agents}://{listen}\n",
            name = endpoint.name,
            token = dev.token.expose(),
        );
    }
    text
}
