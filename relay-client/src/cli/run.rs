//! Runs an agent until it is told to stop: the runtime, the signals, the log.
//!
//! The first Ctrl-C or SIGTERM drains and ends with code 0; a second one does not wait.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::{agent, config::Config, report::Reporter, tls::Trust};

/// How long the last lines may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Sends the log to standard error; `RELAY_LOG` goes before `-v`. Does nothing if a log is set up already.
pub(super) fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("RELAY_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Runs the agent on one thread.
pub(super) fn run(config: Config, reporter: &Reporter) -> Result<(), Failure> {
    warn_of_dangers(&config, reporter);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime cannot start: {error}")))?;
    let result = runtime.block_on(until_stopped(config, reporter.clone()));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    reporter.flush(FLUSH_LIMIT);
    result
}

async fn until_stopped(config: Config, reporter: Reporter) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let mut signals = Signals::new().map_err(|error| Failure::Failed(format!("no signals can be taken: {error}")))?;
    let agent = agent::run(config, reporter, stop.clone());
    tokio::pin!(agent);
    loop {
        tokio::select! {
            result = &mut agent => return Ok(result?),
            () = signals.next() => {
                if stop.is_cancelled() {
                    return Err(Failure::Interrupted);
                }
                stop.cancel();
            }
        }
    }
}

fn warn_of_dangers(config: &Config, reporter: &Reporter) {
    for endpoint in &config.endpoints {
        if endpoint.target.target.is_tls() && endpoint.target.trust == Trust::DangerousAnything {
            let target = &endpoint.target.target;
            reporter
                .warn(format!("{target}: its certificate is not checked, since --insecure or insecure = true says so"));
        }
    }
}

/// The signals that ask for an end.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without signals the process can only be ended from outside.
            std::future::pending::<()>().await;
        }
    }
}
