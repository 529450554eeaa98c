//! Ways to break a session on purpose, so that the simulation can show that it would notice.
//!
//! Without the feature `mutants`, which only this crate's own tests turn on, nothing here can be reached
//! from outside and every check is a constant `false`.

#![cfg_attr(not(feature = "mutants"), allow(unreachable_pub))]

/// One way to break a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Counts a credit as granted and does not send it.
    ForgetCredit,
    /// Grants one byte more than it accounts for.
    InventCredit,
    /// Opens a stream with the last one's id once that one is gone.
    ReuseId,
    /// Keeps its streams at its close, and acts on frames that come after it.
    ActAfterClose,
    /// Does not look again at a stream that waited for credit.
    LoseWakeUp,
    /// Sends END twice.
    DoubleEnd,
    /// Ends a body whose rest has not been sent.
    EndEarly,
    /// Reports a reset as an end once the head was seen.
    ResetAsEnd,
    /// Does not give back what a stream borrowed from the pool.
    LeakPool,
    /// Hands body bytes to the oldest stream instead of their own.
    CrossBytes,
    /// Takes any pong for the answer to a probe.
    AnyPongAnswers,
    /// Keeps the older outcome of an attempt that still waits.
    KeepOldOutcome,
    /// Drops an endpoint's newest state like any other notice.
    DropState,
    /// Counts a stream that both sides reset until its own reset has been sent.
    KeepPlace,
    /// Ends only once the socket has taken its close frame.
    WaitForSocket,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::ForgetCredit,
        Self::InventCredit,
        Self::ReuseId,
        Self::ActAfterClose,
        Self::LoseWakeUp,
        Self::DoubleEnd,
        Self::EndEarly,
        Self::ResetAsEnd,
        Self::LeakPool,
        Self::CrossBytes,
        Self::AnyPongAnswers,
        Self::KeepOldOutcome,
        Self::DropState,
        Self::KeepPlace,
        Self::WaitForSocket,
    ];
}

/// How one session is broken, if it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sabotage {
    #[cfg(feature = "mutants")]
    pub(crate) mutant: Option<Mutant>,
}

impl Sabotage {
    #[inline]
    pub(crate) fn is(self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.mutant == Some(mutant);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutant;
            false
        }
    }
}
