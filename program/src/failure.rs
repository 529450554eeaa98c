//! Why a command failed, by what its caller can do about it, and the exit code that says so.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or config, 3 refused, 4 not found, 5 unreachable. Only the programs' `cli`
//! prints a failure and ends the process.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something failed that is nobody's mistake.
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Refused(String),
    /// The relay does not answer, or something else does.
    #[error("{0}")]
    Unreachable(String),
    /// What there is to say has been printed; the exit code says the rest.
    #[error("it has been reported already")]
    Reported(u8),
}

impl Failure {
    /// Whoever read the output has seen enough, as in `| head -1`.
    pub const READER_GONE: Self = Self::Reported(0);

    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Refused(_) => 3,
            Self::NotFound(_) => 4,
            Self::Unreachable(_) => 5,
            Self::Reported(code) => *code,
        }
    }
}

impl From<crate::config::Problems> for Failure {
    fn from(problems: crate::config::Problems) -> Self {
        Self::Config(problems.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// An output that failed. One whose reader has gone away ends a command without a word.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::READER_GONE,
            _ => Self::Failed(crate::reason::of_io(&error)),
        }
    }
}
