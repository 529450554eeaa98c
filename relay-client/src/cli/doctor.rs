//! `doctor`: tries the way from here to the relay and to the handlers, step by step.
//!
//! Each step is ok, failed with what to do, or skipped since an earlier one failed. Nothing is attached and
//! nothing is sent to a handler; the token goes to the relay only over a way that is believed.

use std::io::Read;

use relay_program::{Failure, terminal};
use serde_json::json;

use super::{args::DoctorArgs, run, settings};
use crate::{
    config::{EndpointConfig, find::Places},
    doctor,
};

/// Prints the findings; fails with the exit code of the worst.
pub(super) fn run(args: &DoctorArgs, places: &Places, stdin: impl Read) -> Result<(), Failure> {
    let file = settings::read_file(&args.reach, places)?;
    let reach = settings::reach(&args.reach, file.as_ref(), places, stdin)?;
    let mut targets = Vec::new();
    for typed in &args.targets {
        let target = typed.parse().map_err(|error| settings::usage("target", &error))?;
        targets.push(crate::handler::TargetConfig::new(target));
    }
    let endpoints = file.iter().flat_map(|file| &file.endpoints);
    targets.extend(endpoints.flat_map(EndpointConfig::handlers).map(|handler| handler.target.clone()));
    let token = reach.token.map_err(|failure| failure.to_string());
    let token = token.and_then(|token| token.read().map_err(|error| error.to_string()));
    let runtime = run::runtime()?;
    let findings = runtime.block_on(doctor::diagnose(&reach.way, token.as_ref().map_err(String::as_str), &targets));
    runtime.shutdown_background();
    let code = doctor::exit_code(&findings);
    if args.json {
        terminal::print(&format!(
            "{}\n",
            json!({ "ok": code == 0, "relay": reach.way.relay.to_string(), "checks": findings })
        ))?;
    } else {
        terminal::print(&findings.iter().map(doctor::Finding::to_line).collect::<String>())?;
    }
    if code == 0 { Ok(()) } else { Err(Failure::Reported(code)) }
}
