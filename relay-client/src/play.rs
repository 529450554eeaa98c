//! Plays a recording to a handler, without a relay: for CI, and for finding out what a handler makes of repeats, gaps,
//! late and forged requests.
//!
//! ```text
//! recording ─▶ deck (order, faults) ─▶ signer ─▶ shot ─▶ handler
//!                                                 └─▶ expectations ─▶ result
//! ```
//!
//! Where to is named on the command line alone. Invariants: the same recording and the same seed send the same requests
//! in the same order; at most `at_once` are on their way.

pub(crate) mod deck;
pub(crate) mod expect;
pub(crate) mod junit;
pub(crate) mod shot;
pub(crate) mod signer;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use relay_program::{
    Failure,
    cassette::{CassetteError, CassetteEvent},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use self::{
    deck::{Deck, Disorder, Step},
    expect::{Expectation, judge},
    shot::{Bullet, Shot},
    signer::Signer,
};
use crate::{
    handler::{CallError, Handler},
    send::Manner,
};

/// Between two looks for a handler that is not there yet.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) struct Play {
    pub handler: Arc<Handler>,
    pub disorder: Disorder,
    pub expectations: Arc<[Expectation]>,
    pub signer: Option<Signer>,
    /// How many times faster than it was recorded; without it each follows the answer before it.
    pub speed: Option<f64>,
    pub at_once: usize,
}

/// One request that was sent.
#[derive(Debug)]
pub(crate) struct Played {
    pub step: Step,
    pub shot: Shot,
    /// Why its answer is none that was expected.
    pub failure: Option<String>,
}

/// What was sent in all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlayCounts {
    pub events: u64,
    pub dropped: u64,
    pub sent: u64,
    pub failed: u64,
    /// Those that nobody answered.
    pub unanswered: u64,
}

/// Waits until somebody is there, for so long at most.
pub(crate) async fn wait_for(handler: &Handler, most: Duration) -> Result<(), CallError> {
    let until = Instant::now() + most;
    loop {
        match handler.try_connect().await {
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => sleep(LOOK).await,
            Ok(()) => return Ok(()),
        }
    }
}

impl Play {
    /// Plays it; `each` is given what was sent, as it is answered.
    pub(crate) async fn run(
        mut self,
        events: impl Iterator<Item = Result<CassetteEvent, CassetteError>>,
        seed: u64,
        mut each: impl FnMut(&Played) -> Result<(), Failure>,
    ) -> Result<PlayCounts, Failure> {
        let began = Instant::now();
        let (disorder, mut counts, mut flying) = (self.disorder.clone(), PlayCounts::default(), JoinSet::new());
        let mut deck = Deck::new(events, &disorder, seed);
        let mut broken = None;
        for step in deck.by_ref() {
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    broken = Some(Failure::Usage(error.to_string()));
                    break;
                }
            };
            if let Some(speed) = self.speed {
                let offset = Duration::from_micros(step.event.offset_us).as_secs_f64() / speed;
                sleep_until(began + Duration::try_from_secs_f64(offset).unwrap_or(Duration::MAX / 4)).await;
            }
            sleep(step.wait).await;
            while flying.len() >= self.at_once {
                land(flying.join_next().await, &mut counts, &mut each)?;
            }
            let sent = self.send(step)?;
            flying.spawn(sent);
        }
        while !flying.is_empty() {
            land(flying.join_next().await, &mut counts, &mut each)?;
        }
        (counts.events, counts.dropped) = (deck.read, deck.dropped);
        // What came before it is judged all the same.
        broken.map_or(Ok(counts), Err)
    }

    fn send(&mut self, step: Step) -> Result<impl Future<Output = Played> + use<>, Failure> {
        let mut bullet = Bullet::of(&step.event, step.time);
        if let Some(signer) = &mut self.signer {
            let now = Timestamp::now().as_second();
            signer.sign(&step.event, &mut bullet, step.bad_signature, now).map_err(Failure::Usage)?;
        }
        let (handler, expectations) = (Arc::clone(&self.handler), Arc::clone(&self.expectations));
        let manner = Manner { chunked: false, slow: step.slow };
        Ok(async move {
            let shot = bullet.shoot(&handler, manner).await;
            let failure = judge(&expectations, &step.event, step.bad_signature, &shot);
            Played { step, shot, failure }
        })
    }
}

fn land(
    played: Option<Result<Played, tokio::task::JoinError>>,
    counts: &mut PlayCounts,
    each: &mut impl FnMut(&Played) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(played) = played else { return Ok(()) };
    let played = played.map_err(|error| Failure::Failed(error.to_string()))?;
    counts.sent += 1;
    counts.failed += u64::from(played.failure.is_some());
    counts.unanswered += u64::from(played.shot.status.is_none());
    each(&played)
}
