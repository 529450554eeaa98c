//! Peers: tunnels of others, started by the command lines of a small file.
//!
//! In a command line and in a file, `{listen}` is the port that senders use, `{handler}` that of the handler, `{tunnel}`
//! that on which the server waits for the client, and `{folder}` where the files are.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// More would not end within the time that a run takes.
const MOST_PEERS: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersFile {
    #[serde(default)]
    peer: Vec<Peer>,
}

/// A tunnel: what runs where senders are, and what runs beside the handler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) server: Vec<String>,
    pub(crate) client: Vec<String>,
    /// Where the server waits for the client, if that cannot be chosen.
    pub(crate) tunnel: Option<u16>,
    /// Written before either starts.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
}

/// The peers of a file.
///
/// # Errors
/// Where it is wrong.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Peer>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is no file of peers", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Vec<Peer>> {
    let PeersFile { peer } = toml::from_str(text)?;
    ensure!(peer.len() <= MOST_PEERS, "{} peers; at most {MOST_PEERS} are measured at a time", peer.len());
    for one in &peer {
        ensure!(!one.server.is_empty() && !one.client.is_empty(), "{} lacks a command line", one.name);
        ensure!(one.files.keys().all(|name| !name.contains('/')), "{}: a file's name has no folder", one.name);
    }
    Ok(peer)
}

/// What the placeholders stand for.
pub(crate) struct Places<'a> {
    pub(crate) listen: u16,
    pub(crate) handler: u16,
    pub(crate) tunnel: u16,
    pub(crate) folder: &'a Path,
}

impl Places<'_> {
    pub(crate) fn fill(&self, text: &str) -> String {
        let ports = [("{listen}", self.listen), ("{handler}", self.handler), ("{tunnel}", self.tunnel)];
        let text = ports.iter().fold(text.to_owned(), |text, (name, port)| text.replace(name, &port.to_string()));
        text.replace("{folder}", &self.folder.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_file_of_peers() {
        let peers = parse(include_str!("peers.toml")).expect("is right");
        let all: Vec<_> = peers.iter().map(|peer| (&*peer.name, peer.tunnel)).collect();
        assert_eq!(all, [("rathole", None), ("bore", Some(7835))]);
        let places = Places { listen: 1, handler: 2, tunnel: 3, folder: Path::new("/tmp/x") };
        let all = peers.iter().flat_map(|peer| peer.server.iter().chain(&peer.client).chain(peer.files.values()));
        let all: String = all.map(|text| places.fill(text) + "\n").collect();
        assert!(!all.contains(['{', '}']), "{all}");
        for text in ["/tmp/x/server.toml", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"] {
            assert!(all.contains(text), "{text} is not in:\n{all}");
        }
    }

    #[test]
    fn a_wrong_file_is_refused() {
        for (text, why) in [
            ("[[peer]]\nname = \"a\"\nserver = [\"a\"]\n", "missing field `client`"),
            ("[[peer]]\nname = \"a\"\nserver = []\nclient = [\"a\"]\n", "a lacks a command line"),
            ("[[peer]]\nname = \"a\"\nserver = [\"a\"]\nclient = [\"a\"]\nport = 1\n", "unknown field `port`"),
            ("[[peer]]\nname = \"a\"\nserver = [\"a\"]\nclient = [\"a\"]\nfiles = { \"../a\" = \"\" }\n", "no folder"),
        ] {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(parse("").expect("nobody"), []);
    }
}
