//! The session loop: placeholder that keeps the command line compiling.

use tokio_util::sync::CancellationToken;

use crate::{config::Config, report::Reporter};

/// Why the agent ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The relay turned the agent away, which has been reported already.
    #[error("refused by the relay: {0}")]
    Refused(String),
    /// The configuration cannot be used here.
    #[error("{0}")]
    Unusable(String),
}

/// Serves until `stop` is cancelled, then drains.
pub async fn run(config: Config, reporter: Reporter, stop: CancellationToken) -> Result<(), RunError> {
    let _ = (config, reporter);
    stop.cancelled().await;
    Ok(())
}
