//! What a case does and wants, and how it is judged: by Autobahn's rules, and more strictly where a library cannot do
//! otherwise than well. A connection that is failed has to say why, where Autobahn is content with its end.

use tokio::io::duplex;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{
    echo::echo,
    peer::{CLOSE, Frame, Peer, Seen, frame},
};

/// What fits into the pipe, so that nobody has to read before all is written.
const PIPE_BYTES: usize = 1024 * 1024;

/// The code of a close where nothing is wrong.
const NORMAL: u16 = 1000;

/// Something that the peer does.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Writes frames, all at once.
    Write(Vec<Frame>),
    /// Writes frames, each once the one before has been looked at.
    WriteEach(Vec<Frame>),
    /// Writes frames in pieces of so many bytes, each once the one before has been looked at.
    Chop(Vec<Frame>, usize),
    /// Writes one frame, cut at these places of its payload, and waits behind each piece but the last.
    Cut(Frame, Vec<usize>),
    /// Reads until so much was seen.
    Until(usize),
    /// Waits, and notes if nothing came.
    Wait,
}

/// Who ends, and with which codes.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// The peer says its close when it has seen all, and gets it back.
    Ours,
    /// The acts say a close; it is answered, by one of these codes.
    Answered(Vec<u16>),
    /// The other side ends the connection, and says one of these codes.
    Theirs(Vec<u16>),
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) acts: Vec<Act>,
    pub(crate) seen: Vec<Seen>,
    /// What may be seen instead.
    pub(crate) non_strict: Option<Vec<Seen>>,
    pub(crate) end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Strict,
    /// Allowed, though not as soon as it could be.
    NonStrict,
}

/// Runs a case against an echo in this role.
pub(crate) async fn run(case: &Case, role: Role) -> Result<Verdict, String> {
    let (ours, theirs) = duplex(PIPE_BYTES);
    let echo = tokio::spawn(echo(theirs, Vec::new(), role));
    let mut peer = Peer::new(ours, role == Role::Server);
    for act in &case.acts {
        perform(&mut peer, act).await?;
    }
    peer.read_until(case.seen.len()).await?;
    if matches!(case.end, End::Ours) && peer.seen == case.seen {
        peer.write(&[frame(CLOSE, NORMAL.to_be_bytes())], None).await;
    }
    peer.read_to_end().await?;
    let (seen, ending) = (std::mem::take(&mut peer.seen), peer.ending.clone());
    drop(peer);
    echo.await.map_err(|error| format!("the echo: {error}"))?;

    let verdict = if seen == case.seen {
        Verdict::Strict
    } else if case.non_strict.as_ref() == Some(&seen) {
        Verdict::NonStrict
    } else {
        return Err(format!("saw {seen:?} in place of {:?}", case.seen));
    };
    let (codes, is_first): (&[u16], _) = match &case.end {
        End::Ours => (&[NORMAL], false),
        End::Answered(codes) => (codes, false),
        End::Theirs(codes) => (codes, true),
    };
    let lawful = ending.code.is_some_and(|code| codes.contains(&code)) && ending.is_first == is_first;
    if !lawful || !ending.at_end {
        return Err(format!("{ending:?} in place of one of {codes:?}, first: {is_first}"));
    }
    Ok(verdict)
}

async fn perform(peer: &mut Peer, act: &Act) -> Result<(), String> {
    match act {
        Act::Write(frames) => peer.write(frames, None).await,
        Act::WriteEach(frames) => {
            for frame in frames {
                peer.write(std::slice::from_ref(frame), None).await;
            }
        }
        Act::Chop(frames, piece) => peer.write(frames, Some(*piece)).await,
        Act::Cut(frame, places) => {
            let pieces = peer.cut(frame, places);
            for (number, piece) in pieces.iter().enumerate() {
                peer.write_bytes(piece).await;
                if number < places.len() {
                    wait(peer).await?;
                }
            }
        }
        Act::Until(seen) => _ = peer.read_until(*seen).await?,
        Act::Wait => wait(peer).await?,
    }
    Ok(())
}

async fn wait(peer: &mut Peer) -> Result<(), String> {
    if peer.read_until(peer.seen.len() + 1).await? {
        peer.seen.push(Seen::Silence);
    }
    Ok(())
}
