//! Runs an agent until it is told to stop: the runtime, the signals, the log.
//!
//! The first Ctrl-C or SIGTERM drains and ends with code 0; a second one does not wait. SIGHUP has the settings
//! read again. A reader of standard output that goes away drains, too.

use std::{
    io::{IsTerminal as _, Read},
    sync::Arc,
    time::Duration,
};

use relay_program::{
    Failure, log_filter,
    process::{Asked, Signals, raise_limit_on_files},
};
use relay_proto::printable::LogLines;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::{
    INTERRUPTED, UNREAD_STREAM,
    args::ConnectionArgs,
    create::{self, NewEndpoint},
    page::Page,
    view::{self, AgentView, Unasked},
};
use crate::{
    agent::{self, StatusSender},
    config::{Config, EndpointConfig, TokenSource},
    health::{self, HealthAddr},
    reload,
    report::{AgentState, Color, Reporter},
    tls::Trust,
};

/// How long the last lines may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Sends the log to standard error, or to the file that `RELAY_LOG_FILE` names; `RELAY_LOG` goes before `-v`. Does
/// nothing if a log is set up already.
pub(super) fn start_logging(verbose: u8) -> Result<(), Failure> {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = log_filter::from_env(level)?;
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE);
    if let Some(path) = std::env::var_os("RELAY_LOG_FILE").filter(|path| !path.is_empty()) {
        let unusable = |error| {
            let path = path.display();
            Failure::Usage(format!("RELAY_LOG_FILE: {path}: {}", relay_program::reason::of_io(&error)))
        };
        let file = std::fs::OpenOptions::new().append(true).create(true).open(&path).map_err(unusable)?;
        let file = Arc::new(file);
        let log = log.with_ansi(false).with_writer(move || LogLines::new(Arc::clone(&file), false));
        let _ = log.finish().with(filter).try_init();
        return Ok(());
    }
    // What the subscriber does by itself, told to both, since the writer has to know.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let log = log.with_ansi(colours).with_writer(move || LogLines::new(LogOutput, colours));
    let _ = log.finish().with(filter).try_init();
    Ok(())
}

/// Standard error, or the view while it has the terminal.
struct LogOutput;

impl std::io::Write for LogOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        #[cfg(feature = "screen")]
        if crate::screen::log_line(bytes) {
            return Ok(bytes.len());
        }
        std::io::stderr().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Runs the agent on one thread. `read` reads its settings, now and again; a token that came from standard input is
/// given to it there again.
pub(super) fn run(
    connection: &ConnectionArgs,
    color: Color,
    page: Page,
    unasked: Unasked,
    create: Option<NewEndpoint>,
    read: impl Fn(&mut dyn Read) -> Result<Config, Failure> + Send + 'static,
) -> Result<(), Failure> {
    let config = read(&mut std::io::stdin())?;
    let runtime = runtime()?;
    if let Some(new) = create {
        // Before a view takes the terminal.
        runtime.block_on(create::make(&config, &new))?;
    }
    let (output, view) = view::start(connection, color, &config, unasked)?;
    let reporter = Reporter::new(output, color, view.as_ref().map(AgentView::watcher));
    warn_of_dangers(&config, &reporter);
    raise_limit_on_files();
    let mut shown = LastLines { reporter: &reporter, view };
    let beside = Beside { health: connection.health_addr, page, view: shown.view.as_mut() };
    let result = runtime.block_on(until_stopped(config, reporter.clone(), beside, read));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    result
}

/// Has the last lines written and gives the terminal back, also when the agent panics.
struct LastLines<'a> {
    reporter: &'a Reporter,
    view: Option<AgentView>,
}

impl Drop for LastLines<'_> {
    fn drop(&mut self) {
        self.reporter.flush(FLUSH_LIMIT);
        if let Some(view) = &self.view {
            view.finish();
        }
    }
}

pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime cannot start: {error}")))
}

/// What runs beside the agent.
struct Beside<'a> {
    health: Option<HealthAddr>,
    page: Page,
    view: Option<&'a mut AgentView>,
}

async fn until_stopped(
    config: Config,
    reporter: Reporter,
    beside: Beside<'_>,
    read: impl Fn(&mut dyn Read) -> Result<Config, Failure> + Send + 'static,
) -> Result<(), Failure> {
    let Beside { health, page, mut view } = beside;
    let mut keyboard = view.as_mut().and_then(|view| view.asked());
    let stop = CancellationToken::new();
    let mut signals = Signals::new().map_err(|error| Failure::Failed(format!("no signals can be taken: {error}")))?;
    let status = StatusSender::default();
    if let Some(HealthAddr(address)) = health {
        let unusable =
            |error| Failure::Failed(format!("--health-addr {address}: {}", relay_program::reason::of_io(&error)));
        let listener = TcpListener::bind(address).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?.to_string();
        reporter.state(AgentState::Health { address });
        tokio::spawn(health::serve(listener, status.subscribe()));
    }
    let reread = rereading(&config, read);
    let (settings, taken) = watch::channel(Arc::new(config));
    let page = page.open(&taken, &status, &reporter).await?;
    let tap = page.as_ref().map(|page| Arc::clone(&page.tap)).or_else(|| view.is_some().then(Arc::default));
    let (ask, asked) = mpsc::channel(1);
    let _reloading = AbortOnDropHandle::new(tokio::spawn(reload::keep(reread, settings, asked, reporter.clone())));
    if let (Some(view), Some(tap)) = (view, &tap) {
        view.ask_relay(taken.clone(), Arc::clone(tap));
    }
    let agent = agent::run(taken, reporter.clone(), status, tap, stop.clone());
    tokio::pin!(agent);
    let mut unread = false;
    loop {
        tokio::select! {
            result = &mut agent => {
                result?;
                return if unread { Err(UNREAD_STREAM) } else { Ok(()) };
            }
            () = reporter.reader_gone(), if !unread => {
                unread = true;
                stop.cancel();
            }
            signal = next(&mut signals, &mut keyboard) => match signal {
                Asked::Reload => {
                    // One that waits already says the same.
                    let _ = ask.try_send(());
                }
                Asked::Stop if stop.is_cancelled() => return Err(INTERRUPTED),
                Asked::Stop => stop.cancel(),
            },
        }
    }
}

/// What is asked for next, by a signal or at the keyboard.
async fn next(signals: &mut Signals, keyboard: &mut Option<mpsc::Receiver<Asked>>) -> Asked {
    let typed = async {
        match keyboard {
            Some(keyboard) => keyboard.recv().await,
            None => None,
        }
    };
    tokio::select! {
        asked = signals.next() => asked,
        Some(asked) = typed => asked,
    }
}

/// Reads the settings again, for the same process.
fn rereading(
    config: &Config,
    read: impl Fn(&mut dyn Read) -> Result<Config, Failure> + Send + 'static,
) -> reload::Read {
    let (instance, since, given) = (config.instance, config.since, config.token.clone());
    Box::new(move || {
        let again = match &given {
            TokenSource::Given(token) => read(&mut token.reveal().as_bytes()),
            _ => read(&mut std::io::empty()),
        };
        again.map(|config| Config { instance, since, ..config }).map_err(|failure| failure.to_string())
    })
}

fn warn_of_dangers(config: &Config, reporter: &Reporter) {
    for handler in config.endpoints.iter().flat_map(EndpointConfig::handlers) {
        if handler.target.target.is_tls() && handler.target.trust == Trust::DangerousAnything {
            let target = &handler.target.target;
            reporter
                .warn(format!("{target}: its certificate is not checked, since --insecure or insecure = true says so"));
        }
    }
}
