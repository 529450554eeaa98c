//! Those who watch a relay under load: readers of its news that do not read, and one that does.

use anyhow::{Context, ensure};
use relay_server::agents::token::AgentToken;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// Streams of one token, as many as the relay allows it.
const OF_TOKEN: u32 = 4;

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watchers {
    None,
    /// So many that never read.
    Stalled(u32),
    /// One that reads all.
    Reading,
}

/// Tokens of watchers, and their tables in the config.
pub(crate) struct Tokens {
    clear: Vec<AgentToken>,
    pub(crate) settings: String,
}

impl Watchers {
    pub(crate) const fn count(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Stalled(count) => count,
            Self::Reading => 1,
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Stalled(count) => format!(" {count} stalled"),
            Self::Reading => " watched".to_owned(),
        }
    }
}

impl Tokens {
    pub(crate) fn for_watchers(count: u32) -> anyhow::Result<Self> {
        let clear: Vec<_> = (0..count.div_ceil(OF_TOKEN))
            .map(|_| AgentToken::generate())
            .collect::<Result<_, _>>()
            .context("a token")?;
        let table = |(number, token): (usize, &AgentToken)| {
            let hash = token.hash().to_hex();
            format!(
                "[[token]]\nname = \"watcher-{number}\"\nsha256 = [\"{hash}\"]\nendpoints = [\"*\"]\nrights = [\"read\"]\n"
            )
        };
        let settings = clear.iter().enumerate().map(table).collect();
        Ok(Self { clear, settings })
    }

    /// Opens streams. Those that are read are read by the tasks; the others are given back.
    pub(crate) async fn open(
        &self,
        address: &str,
        watchers: Watchers,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Vec<TcpStream>> {
        let mut stalled = Vec::new();
        for number in 0..watchers.count() {
            let token = &self.clear[(number / OF_TOKEN) as usize];
            let mut stream = TcpStream::connect(address).await?;
            let question = format!(
                "GET /_relay/v1/stream?types=rows HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\r\n",
                token.expose()
            );
            stream.write_all(question.as_bytes()).await?;
            let mut begin = vec![0; 1024];
            let read = stream.read(&mut begin).await?;
            ensure!(begin.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&begin[..read]));
            if watchers == Watchers::Reading {
                tasks.spawn(async move {
                    let mut news = vec![0; 64 * 1024];
                    while let Ok(1..) = stream.read(&mut news).await {}
                });
            } else {
                stalled.push(stream);
            }
        }
        Ok(stalled)
    }
}
