//! The stream as `event tail` prints it, in both programs: opened anew whenever it ends, from where it was.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};

use super::{NewsMessage, NewsParser, next};
use crate::{
    Failure,
    api::{StreamBye, StreamResync, StreamRows},
    event::EventSummary,
    http1::Connection,
    list::List,
    terminal,
};

/// The relay says something every few seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// How long until the stream is opened anew: the first wait, which doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// Why no stream was opened.
#[derive(Debug)]
pub enum NotOpened {
    /// It may be otherwise in a moment.
    Now(Failure),
    /// Asking again does not help.
    Ever(Failure),
}

/// Prints what comes over streams that `open` opens, each behind the id that it is given. Ends only where the first one
/// cannot be opened, or none ever.
pub async fn tail<S: AsyncRead + AsyncWrite + Unpin>(
    json: bool,
    mut open: impl AsyncFnMut(Option<&str>) -> Result<Connection<S>, NotOpened>,
) -> Result<(), Failure> {
    let (mut tail, mut pause) = (Tail { list: List::fitting(), json, last_id: None }, PAUSES.0);
    let mut stream = open(None).await.map_err(|(NotOpened::Now(why) | NotOpened::Ever(why))| why)?;
    loop {
        let mut again = tail.follow(stream).await?.map_or(PAUSES.0, |bye| bye.min(PAUSES.1));
        stream = loop {
            sleep(again).await;
            match open(tail.last_id.as_deref()).await {
                Ok(stream) => break stream,
                Err(NotOpened::Ever(why)) => return Err(why),
                Err(NotOpened::Now(why)) => terminal::note(&format!("no news at the moment: {why}")),
            }
            pause = (2 * pause).min(PAUSES.1);
            again = pause;
        };
        pause = PAUSES.0;
    }
}

struct Tail {
    list: List,
    json: bool,
    /// The id of the last message: from there a new stream goes on.
    last_id: Option<String>,
}

impl Tail {
    /// Prints what comes until the stream ends or breaks; how long to stay away, where the relay says so.
    async fn follow<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        mut relay: Connection<S>,
    ) -> Result<Option<Duration>, Failure> {
        let mut parser = NewsParser::default();
        while let Ok(Ok(Some(message))) = timeout(SILENCE, next(&mut relay, &mut parser)).await {
            if let Some(bye) = self.tell(&message)? {
                return Ok(Some(bye));
            }
        }
        Ok(None)
    }

    /// Prints what a message says. Gaps are told on standard error.
    fn tell(&mut self, message: &NewsMessage) -> Result<Option<Duration>, Failure> {
        if !message.id.is_empty() {
            self.last_id = Some(message.id.clone());
        }
        let text = message.data.as_str();
        match message.event.as_str() {
            "rows" => {
                let rows: Value = serde_json::from_str(text)?;
                let shown = rows["rows"].as_array().into_iter().flatten();
                self.list.print(shown, self.json, EventSummary::cells)?;
                let StreamRows { left_out, .. } = serde_json::from_str(text).unwrap_or_default();
                if left_out > 0 {
                    terminal::note(&format!(
                        "{left_out} more came at the same time; `event list` has what is kept of them"
                    ));
                }
            }
            "resync" => {
                let StreamResync { why, .. } = serde_json::from_str(text).unwrap_or_default();
                terminal::note(&format!("some are missing here ({why}); `event list` has what is kept of them"));
            }
            "bye" => {
                let StreamBye { again_ms, .. } = serde_json::from_str(text).unwrap_or_default();
                return Ok(Some(Duration::from_millis(again_ms)));
            }
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

    /// A stream that says this and ends.
    async fn stream(says: &str) -> Connection<DuplexStream> {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let says = format!("{HEAD}{says}");
        tokio::spawn(async move {
            let mut byte = [0];
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") && far.read(&mut byte).await.unwrap() > 0 {
                asked.push(byte[0]);
            }
            far.write_all(says.as_bytes()).await.unwrap();
        });
        let mut connection = Connection::new(near, 4096);
        let asks = Request::get("/stream").header("host", "a").body(bytes::Bytes::new()).unwrap();
        connection.ask(asks).await.unwrap();
        connection
    }

    fn no(why: &str) -> Failure {
        Failure::Failed(why.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_opened_anew_from_where_it_was_until_the_relay_says_no() {
        let (begun, mut asked) = (tokio::time::Instant::now(), Vec::new());
        let ended = tail(true, async |last: Option<&str>| {
            asked.push((last.map(str::to_owned), begun.elapsed().as_millis()));
            match asked.len() {
                1 => Ok(stream("id: a-1\nevent: hello\ndata: {}\n\n").await),
                2 | 3 => Err(NotOpened::Now(no("busy"))),
                4 => Ok(stream("id: a-7\nevent: bye\ndata: {\"why\":\"draining\",\"again_ms\":1500}\n\n").await),
                5 => Ok(stream("").await),
                _ => Err(NotOpened::Ever(no("gone"))),
            }
        })
        .await;
        assert!(matches!(&ended, Err(Failure::Failed(why)) if why == "gone"), "{ended:?}");
        let expected = [
            (None, 0),
            (Some("a-1"), 1000),
            (Some("a-1"), 3000),
            (Some("a-1"), 7000),
            (Some("a-7"), 8500),
            (Some("a-7"), 9500),
        ];
        let asked: Vec<_> = asked.iter().map(|(last, at)| (last.as_deref(), *at)).collect();
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn a_first_stream_that_cannot_be_opened_ends_it() {
        let ended =
            tail(true, async |_: Option<&str>| Err::<Connection<DuplexStream>, _>(NotOpened::Now(no("away")))).await;
        assert!(matches!(&ended, Err(Failure::Failed(why)) if why == "away"), "{ended:?}");
    }
}
