//! `mcp`: what an assistant may ask of the relay, over standard input and output.

use clap::{Args, ValueEnum};
use relay_program::Failure;

use super::{args::ReachArgs, run, settings};
use crate::{config::find::Places, mcp::Assistant};

#[derive(Debug, Args)]
pub(crate) struct McpArgs {
    /// What it may do beside reading; may be repeated
    #[arg(long, value_enum, value_name = "WHAT")]
    allow: Vec<Allowed>,
    /// The agent of yours that replays go to, as `listen` has it [default: the host's name]
    #[arg(long, env = "RELAY_NAME", value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    pub(super) reach: ReachArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Allowed {
    /// Have your own agent call its handler with a webhook once more
    Replay,
}

pub(super) fn run(args: &McpArgs, places: &Places) -> Result<(), Failure> {
    if args.reach.token_file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
        let text = "--token-file: standard input is the assistant's; name a file";
        return Err(Failure::Usage(text.to_owned()));
    }
    let file = settings::read_file(&args.reach, places)?;
    let reach = settings::reach(&args.reach, file.as_ref(), places, std::io::empty())?;
    let token = reach.token?.read().map_err(|error| Failure::Usage(error.to_string()))?;
    let name = settings::name(args.name.as_ref(), file.as_ref())?;
    let assistant = Assistant::new(reach.way, token, name, args.allow.contains(&Allowed::Replay));
    let runtime = run::runtime()?;
    let served = runtime.block_on(assistant.serve(tokio::io::stdin(), tokio::io::stdout()));
    // Its standard input is read by a thread that cannot be stopped.
    runtime.shutdown_background();
    served
}
