//! `serve`: a relay in a process of its own, until a signal ends it.
//!
//! SIGHUP reads the config again. SIGTERM and SIGINT stop the relay in order; a second one does not wait.

use anyhow::bail;
use relay_program::{
    Failure,
    process::{Asked, Signals},
};

use crate::{
    app::{self, App, Relay, Sockets, Started},
    config::{Config, ConfigSource, Listen},
    descriptors,
    listen::{self, Inherited},
    sandbox::{self, Sandbox},
};

/// Confines this process to what its config names. A later reload takes nothing else.
pub(super) fn confine(source: &mut ConfigSource, config: &Config) -> Result<Sandbox, Failure> {
    // What is written to has to be there to be let through.
    app::make_folders(config).map_err(super::failure)?;
    let sandbox = sandbox::enter(&source.places(config)?)?;
    source.confined.clone_from(&sandbox.confinement);
    Ok(sandbox)
}

/// Runs a relay until it is told to stop.
///
/// # Errors
/// What could not be started; nothing listens then. Or its store has failed.
pub(super) fn run(source: &ConfigSource, config: &Config, started: impl FnOnce(&Started)) -> anyhow::Result<()> {
    let max_connections = descriptors::make_room(config.server.max_connections, config.limits.max_sessions);
    let runtime = app::runtime()?;
    let mut inherited = Inherited::from_env();
    let http = config.server.http_listen.as_ref();
    let sockets = Sockets {
        public: listen::open_all(&config.server.listen, &mut inherited)?,
        http: http.map(|at| listen::open(at, false, &mut inherited)).transpose()?,
        admin: listen::open(&Listen::Address(config.server.admin), false, &mut inherited)?,
        max_connections,
    };
    let ran = runtime.block_on(async {
        let app = App::build(source, config, sockets).await?;
        let mut signals = Signals::new()?;
        let relay = app.serve()?;
        started(relay.started());
        until_told(&relay, &mut signals).await?;
        tokio::select! {
            () = relay.drain() => {}
            () = async { while signals.next().await == Asked::Reload {} } => tracing::warn!("stopping at once"),
        }
        relay.stop().await;
        anyhow::Ok(())
    });
    runtime.shutdown_background();
    ran
}

async fn until_told(relay: &Relay, signals: &mut Signals) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => return Ok(()),
                Asked::Reload => relay.reload(),
            },
            why = relay.failed() => bail!("the store has failed: {why}; start the relay again once its disk is well"),
        }
    }
}
