//! Whether an agent shows a view of the whole terminal, and that view.
//!
//! `listen` shows one where both ends are a terminal and no output was asked for; everything else prints lines. What it
//! has in common with no view at all is here, so that nobody else asks whether it was compiled in.

use std::sync::Arc;

use relay_program::{Failure, process::Asked};
use tokio::sync::{mpsc, watch};

use super::args::ConnectionArgs;
use crate::{
    config::Config,
    report::{Color, Output, Watcher},
    tap::Tap,
};

/// What a command shows where nothing was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unasked {
    /// A view, where there is a terminal for it.
    View,
    Lines,
}

/// There is none where the feature is left out.
pub(super) struct AgentView(
    #[cfg(feature = "screen")] crate::screen::Screen,
    #[cfg(not(feature = "screen"))] std::convert::Infallible,
);

/// What is printed, and the view in its place.
pub(super) fn start(
    args: &ConnectionArgs,
    color: Color,
    config: &Config,
    unasked: Unasked,
) -> Result<(Output, Option<AgentView>), Failure> {
    #[cfg(feature = "screen")]
    {
        use crate::screen::{self, Screen, ScreenSettings};
        let wanted = match args.output {
            Some(Output::Screen) if !screen::is_possible() => {
                let text = "--output screen: standard input and output have to be a terminal, and TERM not \"dumb\"";
                return Err(Failure::Usage(text.to_owned()));
            }
            Some(output) => output == Output::Screen,
            None => unasked == Unasked::View && screen::is_possible(),
        };
        if wanted {
            let settings = ScreenSettings {
                agent: config.name.clone(),
                host: config.way.relay.host.clone(),
                ascii: args.ascii || !screen::is_unicode(),
                colours: color.is_on(),
            };
            let failed = |error| {
                Failure::Failed(format!("the view cannot be shown: {error}; --output interactive prints lines"))
            };
            return Ok((Output::Interactive, Some(AgentView(Screen::start(settings).map_err(failed)?))));
        }
    }
    let _ = (color, config, unasked);
    Ok((args.output.unwrap_or_default(), None))
}

#[cfg(feature = "screen")]
impl AgentView {
    /// Where reports go.
    pub(super) fn watcher(&self) -> Watcher {
        self.0.watcher()
    }

    /// What a person asks for at the keyboard.
    pub(super) fn asked(&mut self) -> Option<mpsc::Receiver<Asked>> {
        self.0.asked()
    }

    /// Has the view ask the relay.
    pub(super) fn ask_relay(&mut self, config: watch::Receiver<Arc<Config>>, tap: Arc<Tap>) {
        if let Some(end) = self.0.relay_end() {
            tokio::spawn(end.serve(config, tap));
        }
    }

    /// Gives the terminal back. Blocks the thread.
    pub(super) fn finish(&self) {
        self.0.finish();
    }
}

#[cfg(not(feature = "screen"))]
impl AgentView {
    pub(super) fn watcher(&self) -> Watcher {
        match self.0 {}
    }

    pub(super) fn asked(&mut self) -> Option<mpsc::Receiver<Asked>> {
        match self.0 {}
    }

    pub(super) fn ask_relay(&mut self, _: watch::Receiver<Arc<Config>>, _: Arc<Tap>) {
        match self.0 {}
    }

    pub(super) fn finish(&self) {
        match self.0 {}
    }
}
