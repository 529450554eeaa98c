//! What a history is going to try: drawn whole from the seed before anything runs, so that a part of it
//! can be left out without changing the rest. [`Knobs`] say what is left out.

use core::time::Duration;

use relay_proto::{Limits, ResetCode};

use crate::rng::Rng;

/// Which end of a tunnel; as an index, too, and for the direction that this end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Relay = 0,
    Agent = 1,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Relay, Self::Agent];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Relay => Self::Agent,
            Self::Agent => Self::Relay,
        }
    }
}

/// What of a seed's history is kept. Everything, unless a failure is being shrunk or replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Knobs {
    /// Bit n: exchange n.
    pub(crate) exchanges: u64,
    /// Bit n: happening n.
    pub(crate) happenings: u64,
    /// Bit n: the kind of trouble with that place in [`TROUBLES`].
    pub(crate) troubles: u32,
}

/// Kinds of trouble that can be left out, by name.
pub(crate) const TROUBLES: [&str; 10] =
    ["pieces", "latency", "bodies", "trailers", "resets", "slow", "windows", "pipe", "fences", "hostile"];

impl Knobs {
    pub(crate) const ALL: Self = Self { exchanges: u64::MAX, happenings: u64::MAX, troubles: u32::MAX };

    fn has(&self, trouble: &str) -> bool {
        let place = TROUBLES.iter().position(|name| *name == trouble).expect("one of them");
        self.troubles & (1 << place) != 0
    }
}

/// When the agent begins its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With the request's head.
    AtHead,
    /// Once so many bytes of the body came, or its end.
    After(u32),
    /// At the request's end.
    AtEnd,
    Never,
}

/// One direction of an exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) len: u32,
    /// Bytes given to the session at a time, and the time between.
    pub(crate) chunk: u32,
    pub(crate) pace: u64,
    pub(crate) trailers: bool,
    /// Bytes that the reader takes at a time, and the time between; 0 bytes: it never reads.
    pub(crate) read: u32,
    pub(crate) read_pace: u64,
}

/// One webhook from its sender to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) start: u64,
    /// It belongs to a stored event: attempts carry fences and outlive their session.
    pub(crate) stored: bool,
    pub(crate) upgrade: bool,
    pub(crate) heads: u64,
    pub(crate) status: u16,
    pub(crate) flows: [Flow; 2],
    pub(crate) answer: Answer,
    /// How long the handler thinks.
    pub(crate) think: u64,
    /// After how long each side gives the exchange up, and how.
    pub(crate) resets: [Option<(u64, ResetCode)>; 2],
}

/// Something that happens to the tunnel as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happening {
    /// The direction of this side carries nothing for a while.
    Stall(Side, u64),
    /// This side's process stands still for a while.
    Freeze(Side, u64),
    /// The link breaks after so many further bytes of this side; both are told.
    Cut(Side, u64),
    /// From so many further bytes of this side on, this direction (or both) carries nothing; nobody is told.
    Silence(Side, u64, bool),
    /// The agent leaves its socket and connects anew at once.
    Abandon,
    Drain(Side),
    Close(Side),
    Probe(Side),
    Notice(u8),
}

/// How a peer's bytes are spoilt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hostile {
    pub(crate) from: Side,
    pub(crate) percent: u64,
}

/// A whole history.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) limits: [Limits; 2],
    pub(crate) scripts: Vec<Option<Script>>,
    pub(crate) happenings: Vec<(u64, Happening)>,
    pub(crate) latency: [u64; 2],
    /// The largest piece that a session is handed; messages are cut at random below it.
    pub(crate) piece: u64,
    pub(crate) piece_gap: u64,
    /// Bytes that the link takes before its sender has to wait.
    pub(crate) pipe_bytes: usize,
    /// How late timers and writes may come.
    pub(crate) late: u64,
    pub(crate) flush: u64,
    pub(crate) hostile: Option<Hostile>,
}

const MS: u64 = 1000;

impl Plan {
    pub(crate) fn draw(seed: u64, knobs: &Knobs) -> Self {
        let mut rng = Rng::new(seed, 0);
        let limits = Side::BOTH.map(|side| draw_limits(&mut rng, side, knobs));
        let span = rng.scale(10 * MS, 5_000 * MS);
        let many = rng.range(3, 30);
        let heavy = rng.percent(2);
        let longest = if heavy { 400_000 } else { rng.scale(16, 16_384) };
        let calm = rng.percent(25);
        let scripts = (0..many)
            .map(|number| {
                let mut own = Rng::new(seed, 1000 + number);
                let script = draw_script(&mut own, span, longest, &limits, calm, knobs);
                (knobs.exchanges & (1 << number) != 0).then_some(script)
            })
            .collect();
        let mut own = Rng::new(seed, 1);
        let happenings = if calm { own.below(3) } else { own.below(12) };
        let mut happenings: Vec<_> = (0..happenings)
            .map(|number| (number, own.below(span * 2), draw_happening(&mut own, calm)))
            .filter(|(number, ..)| knobs.happenings & (1 << number) != 0)
            .map(|(_, at, happening)| (at, happening))
            .collect();
        happenings.sort_by_key(|(at, _)| *at);
        let mut own = Rng::new(seed, 2);
        let latency = [own.scale(10, 100 * MS), own.scale(10, 100 * MS)];
        let piece = own.pick(&[1, 3, 40, 1 << 20, 1 << 20, 1 << 20]);
        let pipe_bytes = own.pick(&[1, 200, 10_000, 1 << 20, 1 << 20]);
        let hostile = own.percent(12).then(|| Hostile { from: own.pick(&Side::BOTH), percent: own.pick(&[3, 10, 40]) });
        Self {
            seed,
            limits,
            scripts,
            happenings,
            latency: if knobs.has("latency") { latency } else { [MS; 2] },
            // Single bytes of many long bodies show nothing more, and take long.
            piece: if knobs.has("pieces") && longest <= 256 {
                piece
            } else {
                piece.max(if knobs.has("pieces") { 200 } else { 1 << 20 })
            },
            piece_gap: if own.percent(50) { 0 } else { own.scale(1, MS) },
            pipe_bytes: if knobs.has("pipe") { pipe_bytes } else { 1 << 20 },
            late: own.pick(&[0, 0, MS, 40 * MS]),
            flush: own.pick(&[0, 0, 100, 2 * MS]),
            hostile: hostile.filter(|_| knobs.has("hostile")),
        }
    }
}

fn draw_limits(rng: &mut Rng, side: Side, knobs: &Knobs) -> Limits {
    let base = if side == Side::Relay { Limits::relay() } else { Limits::agent() };
    let ping_ms = rng.pick(&[500, 1_000, 2_000, 5_000]);
    let drawn = Limits {
        purse: None,
        max_streams: rng.pick(&[1, 2, 3, 8, 1024, 1024]),
        initial_window_bytes: rng.pick(&[1, 2, 7, 100, 1024, 16_384, base.initial_window_bytes]),
        window_pool_bytes: rng.pick(&[0, 1, 64, 1024, 65_536, base.window_pool_bytes]),
        max_stream_window_bytes: rng.pick(&[1, 500, 1 << 20, base.max_stream_window_bytes]),
        send_buffer_bytes: rng.pick(&[1, 16, 1000, base.send_buffer_bytes, base.send_buffer_bytes]),
        max_notices: rng.pick(&[1, 2, 64]),
        ping_after: Duration::from_millis(ping_ms),
        dead_after: Duration::from_millis(2 * ping_ms),
    };
    if knobs.has("windows") { drawn } else { base }
}

fn draw_script(rng: &mut Rng, span: u64, longest: u64, limits: &[Limits; 2], calm: bool, knobs: &Knobs) -> Script {
    let start = rng.below(span);
    let (stored, upgrade) = (rng.percent(30), rng.percent(12));
    let flows = Side::BOTH.map(|from| draw_flow(rng, longest, &limits[from.other() as usize], knobs));
    let answer = match rng.below(10) {
        0 | 1 => Answer::AtHead,
        2 | 3 => Answer::After(rng.below(u64::from(flows[0].len) + 1) as u32),
        4 if !calm => Answer::Never,
        _ => Answer::AtEnd,
    };
    let status = match rng.below(10) {
        0 => 500,
        1 => 413,
        2 => 204,
        _ => 200,
    };
    let mut script = Script {
        start,
        stored: stored && !upgrade && knobs.has("fences"),
        upgrade,
        heads: rng.next(),
        status: if upgrade && rng.percent(80) { 101 } else { status },
        flows,
        answer,
        think: if rng.percent(50) { 0 } else { rng.scale(1, 2_000 * MS) },
        resets: [None; 2],
    };
    let codes = [ResetCode::NotCalled, ResetCode::Unreachable, ResetCode::Broken, ResetCode::Timeout];
    let own = [
        (rng.percent(12), rng.scale(1, span), ResetCode::Cancelled),
        (rng.percent(12), rng.scale(1, span), rng.pick(&codes)),
    ];
    if !calm && knobs.has("resets") {
        script.resets = own.map(|(gives_up, after, code)| gives_up.then_some((after, code)));
        // Both at about the same time, so that their resets cross.
        if rng.percent(8) {
            let after = rng.scale(10 * MS, 1_000 * MS);
            script.resets[0] = Some((after, own[0].2));
            script.resets[1] = Some((after.saturating_sub(rng.below(150 * MS)), own[1].2));
        }
    }
    settle_who_ends(&mut script, rng);
    script
}

/// Somebody must end an exchange in which nobody reads or answers.
fn settle_who_ends(script: &mut Script, rng: &mut Rng) {
    if script.status == 101 {
        script.answer = Answer::AtHead;
        script.flows[0].read = script.flows[0].read.max(script.flows[0].len / 20 + 1);
    }
    // A handler may answer without reading, but does not wait for what it does not read.
    if script.flows[0].read == 0 && script.answer != Answer::Never {
        script.answer = Answer::AtHead;
    }
    if script.answer == Answer::Never || script.flows[1].read == 0 {
        let side = rng.pick(&Side::BOTH) as usize;
        let code = if side == 0 { ResetCode::Cancelled } else { ResetCode::Timeout };
        let unread = script.flows[1].read == 0 && script.answer != Answer::Never;
        let side = if unread { 0 } else { side };
        let code = if unread { ResetCode::Cancelled } else { code };
        script.resets[side].get_or_insert((rng.scale(MS, 3_000 * MS), code));
    }
}

fn draw_flow(rng: &mut Rng, longest: u64, receiver: &Limits, knobs: &Knobs) -> Flow {
    let len = match rng.below(8) {
        0 => 0,
        1 => rng.below(3),
        2..=6 => rng.scale(1, longest.min(1500)),
        _ => rng.scale(1, longest),
    };
    // Tiny windows need one message each way for every window.
    let window = u64::from(receiver.initial_window_bytes);
    let len = len.min(window * 24);
    let chunk = match rng.below(4) {
        0 => rng.range(1, 64).max(len / 12),
        1 => len / 3 + 1,
        _ => len + 1,
    };
    let read = match rng.below(10) {
        0 | 1 => (len / 20).max(1),
        2 => 0,
        _ => u64::from(u32::MAX),
    };
    let (pace, read_pace) = (rng.scale(1, 20 * MS), rng.scale(1, 50 * MS));
    let (slow, slow_reader) = (rng.percent(25), rng.percent(25));
    let (trailers, never) = (rng.percent(25), rng.percent(30));
    let calm_read = if read == 0 && !never { u64::from(u32::MAX) } else { read };
    Flow {
        len: if knobs.has("bodies") { len as u32 } else { len.min(4) as u32 },
        chunk: chunk as u32,
        pace: if slow && knobs.has("slow") { pace } else { 0 },
        trailers: trailers && knobs.has("trailers"),
        read: if knobs.has("slow") { calm_read as u32 } else { u32::MAX },
        read_pace: if slow_reader && knobs.has("slow") { read_pace } else { 0 },
    }
}

fn draw_happening(rng: &mut Rng, calm: bool) -> Happening {
    let side = rng.pick(&Side::BOTH);
    let bytes = if rng.percent(40) { 0 } else { rng.scale(1, 2000) };
    match rng.below(if calm { 5 } else { 14 }) {
        0 | 1 => Happening::Probe(side),
        2 => Happening::Drain(side),
        3 | 4 => Happening::Notice(rng.below(8) as u8),
        5 | 6 => Happening::Stall(side, rng.scale(MS, 30_000 * MS)),
        7 => Happening::Freeze(side, rng.scale(MS, 60_000 * MS)),
        8 | 9 => Happening::Cut(side, bytes),
        10 | 11 => Happening::Silence(side, bytes, rng.percent(50)),
        12 => Happening::Abandon,
        _ => Happening::Close(side),
    }
}
