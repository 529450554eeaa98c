//! The agent's own page on the command line: whether there is one, where, and who is told its key.
//!
//! The key goes to a terminal, and to a file of the user's own that is there while the agent runs. No log and no output for
//! machines has it.

use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, sync::Arc};

use relay_program::{Failure, file::write_private, reason};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::args::ConnectionArgs;
use crate::{
    agent::StatusSender,
    config::{Config, find::Places},
    inspect::{self, DEFAULT_PORT, Inspect, InspectAddr, PageKey},
    report::{AgentState, Output, Reporter},
    tap::Tap,
};

/// What the user asked for.
pub(super) struct Page {
    address: Option<SocketAddr>,
    /// Without it the agent does not start.
    required: bool,
    /// Whether the notes are read at a terminal.
    at_terminal: bool,
    places: Places,
}

/// A page that is served until this is dropped.
pub(super) struct OpenPage {
    pub(super) tap: Arc<Tap>,
    _serving: AbortOnDropHandle<()>,
    _key_file: Option<KeyFile>,
}

/// Removed when it is dropped.
struct KeyFile(PathBuf);

impl Drop for KeyFile {
    fn drop(&mut self) {
        // One that stays holds a key that is good for nothing.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Page {
    pub(super) fn of_listen(args: &ConnectionArgs, places: &Places) -> Self {
        let by_default = Self::at_terminal(args).then(|| SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)));
        Self::of(args, places, by_default)
    }

    pub(super) fn of_start(args: &ConnectionArgs, places: &Places) -> Self {
        Self::of(args, places, None)
    }

    fn of(args: &ConnectionArgs, places: &Places, by_default: Option<SocketAddr>) -> Self {
        let address = match args.inspect_addr {
            Some(InspectAddr::Off) => None,
            Some(InspectAddr::At(address)) => Some(address),
            None => by_default,
        };
        let required = args.inspect_addr.is_some();
        Self { address, required, at_terminal: Self::at_terminal(args), places: places.clone() }
    }

    fn at_terminal(args: &ConnectionArgs) -> bool {
        args.output != Some(Output::Json) && std::io::stderr().is_terminal()
    }

    /// Opens the page, if there is to be one, and says where it is.
    pub(super) async fn open(
        self,
        settings: &watch::Receiver<Arc<Config>>,
        status: &StatusSender,
        reporter: &Reporter,
    ) -> Result<Option<OpenPage>, Failure> {
        let Some(address) = self.address else { return Ok(None) };
        let bound = inspect::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                let why = format!("--inspect-addr {address}: {}", reason::of_io(&error));
                if self.required {
                    return Err(Failure::Failed(why));
                }
                reporter.warn(format!("there is no page for this agent: {why}"));
                return Ok(None);
            }
        };
        let undrawn = |error| Failure::Failed(format!("no key can be drawn for the page: {error}"));
        let (key, tap) = (PageKey::draw().map_err(undrawn)?, Arc::<Tap>::default());
        let key_file = self.places.page_key(address.port()).and_then(|path| {
            let written = write_private(&path, key.reveal().as_bytes());
            let failed = |error| reporter.warn(format!("{}: {}", path.display(), reason::of_io(&error)));
            written.map_err(failed).ok().map(|()| KeyFile(path))
        });
        reporter.state(AgentState::Inspect {
            address: format!("http://{address}/"),
            key_file: key_file.as_ref().map(|file| file.0.clone()),
            key: self.at_terminal.then(|| key.clone()),
        });
        let page = Inspect::build(address, &key, settings.clone(), status.subscribe(), Arc::clone(&tap));
        let serving = AbortOnDropHandle::new(tokio::spawn(page.serve(listener)));
        Ok(Some(OpenPage { tap, _serving: serving, _key_file: key_file }))
    }
}
