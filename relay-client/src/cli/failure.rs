//! Why a command failed, and the exit code that says so.

use crate::{agent::RunError, config::Invalid};

/// A failure of a command, by what its caller can do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something failed that is nobody's mistake.
    #[error("{0}")]
    Failed(String),
    /// The arguments cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The config file cannot be used.
    #[error("{0}")]
    Config(#[from] Invalid),
    /// A file or a name does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The relay says no.
    #[error("{0}")]
    Refused(String),
    /// The relay does not answer, or something else does.
    #[error("{0}")]
    Unreachable(String),
    /// A check failed, and its result has been printed; the exit code says what kind.
    #[error("a check failed")]
    Checks(u8),
    /// The agent ended by itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The user did not wait for the drain.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read the output has seen enough, as in `| head -1`.
    #[error("nobody reads the output any more")]
    ReaderGone,
    /// The same for an agent, which a supervisor should start again.
    #[error("nobody reads the output any more")]
    UnreadStream,
}

impl Failure {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) | Self::Config(_) | Self::Run(RunError::Unusable(_)) => 2,
            Self::Run(RunError::Refused(_)) | Self::Refused(_) => 3,
            Self::NotFound(_) => 4,
            Self::Unreachable(_) => 5,
            Self::Checks(code) => *code,
            Self::Interrupted => 130,
            // As a shell says it of a program that SIGPIPE ended.
            Self::UnreadStream => 141,
        }
    }

    /// Whether the user has been told already.
    pub(crate) fn is_reported(&self) -> bool {
        matches!(
            self,
            Self::Run(RunError::Refused(_))
                | Self::Interrupted
                | Self::Checks(_)
                | Self::ReaderGone
                | Self::UnreadStream
        )
    }
}
