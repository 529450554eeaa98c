//! How the public listener keeps to HTTP/2 (RFC 9113) and HPACK (RFC 7541).
//!
//! The cases are those of h2spec 2.6, written anew as a table and named as h2spec names them, with some of our own. They go
//! over TLS to a relay whose agent answers, each on a connection of its own. h2spec is content with the end of a
//! connection wherever an error is due; here the code has to be right, too, and what is not stands in a list with its
//! reason.

mod cases;

use std::{collections::BTreeMap, env, path::Path};

use anyhow::{Context as _, bail, ensure};
use http::Response;
use relay_tests::{
    h2::{self, ACK, Frame, Peer},
    handler::{Handler, full},
    process::{Agent, PATIENCE, Server},
    tls::{certificate, connect, settings},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

const ENDPOINT: &str = "[[endpoint]]\nname = \"open\"\nmode = \"live\"\nverify = \"none\"\n";

/// Long enough for windows to matter.
const ANSWER: &str = "an answer";

/// What HTTP/2 calls what went wrong (RFC 9113, section 7).
mod code {
    pub(super) const PROTOCOL: u32 = 1;
    pub(super) const FLOW_CONTROL: u32 = 3;
    pub(super) const STREAM_CLOSED: u32 = 5;
    pub(super) const FRAME_SIZE: u32 = 6;
    pub(super) const REFUSED_STREAM: u32 = 7;
    pub(super) const CANCEL: u32 = 8;
    pub(super) const COMPRESSION: u32 = 9;
}

struct Case {
    name: &'static str,
    acts: Vec<Act>,
    want: Want,
}

/// What the peer does.
enum Act {
    /// Writes bytes, all at once.
    Write(Vec<u8>),
    /// Reads until its settings are acknowledged.
    SettingsAreTaken,
    /// Reads until there is DATA.
    DataCame,
    /// Reads until stream 1 has ended.
    Answered,
}

/// What has to come.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// An answer with status 200 on stream 1.
    Answer,
    /// The answer to this PING, and no other.
    Pong(&'static [u8; 8]),
    /// The same, or the end of the connection.
    PongOrEnd(&'static [u8; 8]),
    SettingsAck,
    /// DATA of exactly this length on stream 1.
    Data(usize),
    /// A GOAWAY with one of these codes, and the end of the connection.
    ConnectionError(&'static [u32]),
    /// A RST_STREAM, or a GOAWAY, with one of these codes.
    StreamError(&'static [u32]),
    /// A RST_STREAM with one of these codes, whatever comes of other streams.
    Refusal(&'static [u32]),
}

/// How a case went.
type Came = Result<(), String>;

/// What h2 does in another way than the RFC says, and why that does no harm.
struct Deviation {
    comes: &'static str,
    why: &'static str,
    cases: &'static [&'static str],
}

const DEVIATIONS: [Deviation; 5] = [
    Deviation {
        comes: "the connection ends with code 1",
        why: "PROTOCOL_ERROR in place of COMPRESSION_ERROR: nothing of the block is used, and nothing behind it",
        cases: &[
            "http2/4.3/1",
            "hpack/2.3.3/1",
            "hpack/2.3.3/2",
            "hpack/4.2/1",
            "hpack/5.2/1",
            "hpack/5.2/2",
            "hpack/5.2/3",
            "hpack/6.1/1",
            "hpack/6.3/1",
        ],
    },
    Deviation {
        comes: "the connection ends with code 1",
        why: "PROTOCOL_ERROR in place of FRAME_SIZE_ERROR: the frame is not used, and nothing behind it",
        cases: &["http2/6.3/2", "http2/6.4/3", "http2/6.5/1", "http2/6.5/3", "http2/6.7/4", "http2/6.9/3"],
    },
    Deviation {
        comes: "the connection ends with code 1",
        why: "PROTOCOL_ERROR in place of FLOW_CONTROL_ERROR: the window does not hold",
        cases: &["http2/6.5.2/2", "http2/6.9.2/3"],
    },
    Deviation {
        comes: "the connection ends with code 1",
        why: "PROTOCOL_ERROR, and for the whole connection, in place of STREAM_CLOSED: the frame is not used, and those \
              whose other streams end are the peer's own",
        cases: &["http2/5.1/5", "http2/5.1/6", "http2/5.1/9", "http2/5.1/12", "http2/6.1/2"],
    },
    Deviation {
        comes: "it is answered",
        why: "h2 drops pseudo-fields in trailers before anybody sees them; nothing of them reaches the handler",
        cases: &["own/trailers with a pseudo-field"],
    },
];

struct Listener {
    relay: Server,
    trusted: CertificateDer<'static>,
    _held: (tempfile::TempDir, Handler, Agent),
}

impl Listener {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let trusted = certificate(folder.path())?;
        let config = format!("{}{ENDPOINT}", settings(folder.path()));
        let relay = Server::start(Path::new(env!("CARGO_BIN_EXE_demo")), "127.0.0.1:0", &config, &[]).await?;
        let handler = Handler::start(|_| async { Response::new(full(ANSWER)) }).await?;
        let port = relay.public.rsplit(':').next().context("a port")?;
        let (there, root) = (format!("wss://localhost:{port}"), folder.path().join("cert.pem").display().to_string());
        let agent = relay.agent("open", &handler.port(), &["--relay", &there, "--relay-ca", &root]).await?;
        Ok(Self { relay, trusted, _held: (folder, handler, agent) })
    }

    /// A connection on which both sides have taken the other's settings.
    async fn peer(&self) -> anyhow::Result<Peer> {
        let mut peer = Peer::connect(&self.relay.public, &self.trusted).await?;
        peer.until(|frame| frame.kind == h2::SETTINGS && frame.flags == ACK).await?;
        Ok(peer)
    }

    /// What came of a case; an error where it could not be played.
    async fn play(&self, acts: &[Act], want: Want) -> anyhow::Result<Came> {
        let mut peer = self.peer().await?;
        for act in acts {
            match act {
                // The relay may have ended the connection by then; what it said is still to be read.
                Act::Write(bytes) => _ = peer.write(bytes).await,
                Act::SettingsAreTaken => {
                    peer.until(|frame| frame.kind == h2::SETTINGS && frame.flags == ACK).await?;
                }
                Act::DataCame => _ = peer.until(|frame| frame.kind == h2::DATA).await?,
                Act::Answered => {
                    let ends = |frame: &Frame| matches!(frame.kind, h2::DATA | h2::HEADERS) && frame.flags & 1 == 1;
                    peer.until(ends).await?;
                }
            }
        }
        timeout(PATIENCE, came(&mut peer, want)).await.context("nothing came that was looked for")
    }
}

/// Reads until it is clear whether what is wanted has come.
async fn came(peer: &mut Peer, want: Want) -> Came {
    loop {
        let Ok(frame) = peer.next().await else {
            return match want {
                Want::PongOrEnd(_) => Ok(()),
                _ => Err("the connection ended without a word".to_owned()),
            };
        };
        let is = |wanted: bool, what: String| if wanted { Ok(()) } else { Err(what) };
        let error_code = frame.error_code();
        match (frame.kind, want) {
            (h2::GOAWAY, Want::ConnectionError(codes)) => {
                let code = error_code.unwrap_or_default();
                while peer.next().await.is_ok() {}
                return is(codes.contains(&code), format!("the connection ends with code {code}"));
            }
            (h2::GOAWAY | h2::RESET, Want::StreamError(codes) | Want::Refusal(codes)) => {
                let code = error_code.unwrap_or_default();
                let whole = if frame.kind == h2::GOAWAY { "connection" } else { "stream" };
                return is(codes.contains(&code), format!("the {whole} ends with code {code}"));
            }
            (h2::RESET, Want::ConnectionError(_)) => {
                return Err(format!("the stream alone ends, with code {}", error_code.unwrap_or_default()));
            }
            (h2::GOAWAY | h2::RESET, Want::Answer | Want::Pong(_) | Want::SettingsAck | Want::Data(_)) => {
                return Err(format!("an error in place of it: {frame:?}"));
            }
            (h2::HEADERS, Want::ConnectionError(_) | Want::StreamError(_)) => {
                let is_ok = frame.payload.first() == Some(&0x88);
                return Err(if is_ok { "it is answered".to_owned() } else { format!("another answer: {frame:?}") });
            }
            // `:status: 200` by its index (RFC 7541, appendix A).
            (h2::HEADERS, Want::Answer) => {
                let is_ok = frame.stream == 1 && frame.payload.first() == Some(&0x88);
                return is(is_ok, format!("another answer: {frame:?}"));
            }
            (h2::DATA, Want::Data(length)) => {
                return is(frame.payload.len() == length && frame.stream == 1, format!("{frame:?}"));
            }
            (h2::PING, Want::Pong(data) | Want::PongOrEnd(data)) => {
                return is(frame.flags == ACK && frame.payload == data, format!("another ping: {frame:?}"));
            }
            (h2::SETTINGS, Want::SettingsAck) => return is(frame.flags == ACK, format!("{frame:?}")),
            _ => {}
        }
    }
}

#[tokio::test]
async fn every_case_of_h2spec_holds_but_the_known_ones() -> anyhow::Result<()> {
    let listener = Listener::start().await?;
    let mut known: BTreeMap<_, _> =
        DEVIATIONS.iter().flat_map(|deviation| deviation.cases.iter().map(move |case| (*case, deviation))).collect();
    let (mut failed, mut played) = (Vec::new(), 0);
    for Case { name, acts, want } in cases::all() {
        let came = listener.play(&acts, want).await.with_context(|| format!("{name}, which wants {want:?}"))?;
        played += 1;
        match (came, known.remove(name)) {
            (Ok(()), None) => {}
            (Err(what), Some(deviation)) if what == deviation.comes => {}
            (came, None) => failed.push(format!("{name}: {came:?} for {want:?}")),
            (came, Some(deviation)) => failed.push(format!("{name}: {came:?} for {want:?}; known: {}", deviation.why)),
        }
    }
    ensure!(failed.is_empty(), "{} of {played} cases: {failed:#?}", failed.len());
    ensure!(known.is_empty(), "these are gone; take them off the list: {:?}", known.keys());
    ensure!(played == cases::COUNT, "{played} cases ran");
    Ok(())
}

/// h2spec's own program, where `RELAY_H2SPEC` names it.
#[tokio::test]
async fn h2spec_itself_finds_no_failure() -> anyhow::Result<()> {
    let Some(program) = env::var_os("RELAY_H2SPEC") else {
        println!("skipped h2spec's own program: it needs Go (RELAY_H2SPEC=path/of/h2spec)");
        return Ok(());
    };
    let listener = Listener::start().await?;
    let port = listener.relay.public.rsplit(':').next().context("a port")?;
    let mut command = Command::new(program);
    command.args(["--tls", "--insecure", "--strict", "--host", "localhost", "--path", "/open", "--port", port]);
    let output = timeout(10 * PATIENCE, command.kill_on_drop(true).output()).await.context("it does not end")??;
    let said = String::from_utf8_lossy(&output.stdout);
    let count = said.lines().rev().find(|line| line.contains(" tests, ")).unwrap_or_default();
    println!("h2spec: {count}");
    ensure!(output.status.success() && count.contains(" 0 failed"), "{said}");
    Ok(())
}

/// Before there are frames: h2spec's `generic/1/1`, `http2/3.5/1` and `http2/3.5/2`.
#[tokio::test]
async fn a_connection_begins_with_settings_and_ends_where_the_preface_is_none() -> anyhow::Result<()> {
    let listener = Listener::start().await?;
    let mut stream = connect(&listener.relay.public, &listener.trusted, b"h2").await?;
    let settings = h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]);
    stream.write_all(&[h2::PREFACE, &settings].concat()).await?;
    let first = timeout(PATIENCE, Peer { stream }.next()).await??;
    ensure!(first.kind == h2::SETTINGS && first.flags == 0 && first.stream == 0, "{first:?}");

    let mut stream = connect(&listener.relay.public, &listener.trusted, b"h2").await?;
    stream.write_all(b"INVALID CONNECTION PREFACE\r\n\r\n").await?;
    let mut rest = Vec::new();
    // An end without a word is one, too.
    if timeout(PATIENCE, stream.read_to_end(&mut rest)).await?.is_ok() && !rest.is_empty() {
        let Some(at) = rest.windows(2).position(|pair| pair == [h2::GOAWAY, 0]) else {
            bail!("no GOAWAY: {rest:?}");
        };
        ensure!(rest.get(at + 10..at + 14) == Some(&code::PROTOCOL.to_be_bytes()), "{rest:?}");
    }
    Ok(())
}
