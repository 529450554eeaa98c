//! `play`: a recording, sent to a handler that is named here, with faults to order and results for CI.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use relay_program::{Failure, cassette::CassetteReader, reason, terminal};
use relay_proto::printable::escaped;
use serde_json::json;

use super::{
    run,
    send::{self, SignArgs},
    settings::usage,
};
use crate::{
    config::check,
    handler::{Handler, TargetConfig},
    play::{
        self, Play, Played,
        deck::Disorder,
        expect::Expectation,
        junit::{Case, Report},
        signer::Signer,
    },
    target::Target,
    tls::Trust,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all answers are as expected, 1 some are not, 2 usage or recording, 5 nobody answers."
)]
pub(crate) struct PlayArgs {
    /// The recording, as `event export --as cassette` writes it, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The handler: a port on this machine, http://…, https://… or unix:PATH; what follows the endpoint is put behind it
    #[arg(long, value_name = "URL")]
    to: String,
    /// Waits for the handler to be there, so long at most
    #[arg(long, value_name = "DURATION", value_parser = check::duration)]
    wait: Option<Duration>,
    /// What is expected of each answer: status=2xx, status=recorded, body=recorded, took<500ms; may be repeated
    /// [default: status=2xx]
    #[arg(long, value_name = "WHAT")]
    expect: Vec<Expectation>,
    /// Writes the results as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// So many times as fast as it was recorded [default: each follows the answer before it]
    #[arg(long, value_name = "N", value_parser = speed)]
    speed: Option<f64>,
    /// How many are on their way at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    at_once: u16,
    /// Signs each afresh, with the secret of --secret-file
    #[arg(long, requires = "secret_file")]
    resign: bool,
    /// Whose signature, where the recording does not say it or the handler checks another
    #[arg(long, value_name = "PROVIDER", requires = "resign")]
    provider: Option<String>,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    disorder: Disorder,
    /// How long the handler may take to begin its answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = check::duration)]
    timeout: Duration,
    /// A PEM file with roots to believe for the handler, besides the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// One JSON object for each answer, and one for all
    #[arg(long)]
    json: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed: &f64| (0.001..=1_000_000.0).contains(speed));
    speed.ok_or_else(|| format!("{text:?} is no speed; write a number such as 1 or 10"))
}

pub(super) fn run(args: &PlayArgs, stdin: impl Read) -> Result<(), Failure> {
    let from_stdin = args.file.as_os_str() == "-";
    if from_stdin && args.sign.secret_file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(Failure::Usage("standard input is either the recording or the secret; name a file".to_owned()));
    }
    if args.disorder.bad_signature.is_some() && !args.resign {
        return Err(usage("--bad-signature", &"it needs --resign and the secret, to know that no signature matches"));
    }
    let target: Target = args.to.parse().map_err(|error| usage("--to", &error))?;
    let base_url = args.sign.public_url.clone().unwrap_or_else(|| target.to_string());
    let handler = handler(target, args.ca_file.clone(), args.timeout)?;
    let signer = args.resign.then(|| {
        let material = send::material(&args.sign, stdin)?;
        Ok::<_, Failure>(Signer::new(material, args.provider.clone(), base_url))
    });
    let recording: Box<dyn BufRead> = if from_stdin {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let cannot = |error| Failure::Usage(format!("{}: {}", args.file.display(), reason::of_io(&error)));
        Box::new(BufReader::new(File::open(&args.file).map_err(cannot)?))
    };
    let named = |error| Failure::Usage(format!("{}: {error}", args.file.display()));
    let recording = CassetteReader::open(recording).map_err(named)?;
    let expectations = match &args.expect[..] {
        [] => vec!["status=2xx".parse().map_err(|error: String| usage("--expect", &error))?],
        all => all.to_vec(),
    };
    let play = Play {
        handler: Arc::new(handler),
        disorder: args.disorder.clone(),
        expectations: expectations.into(),
        signer: signer.transpose()?,
        speed: args.speed,
        at_once: usize::from(args.at_once),
    };
    run::runtime()?.block_on(played(args, play, recording))
}

async fn played(args: &PlayArgs, play: Play, recording: CassetteReader<Box<dyn BufRead>>) -> Result<(), Failure> {
    let seed = args.disorder.seed.unwrap_or_else(|| fastrand::u64(..=u64::from(u32::MAX)));
    if let Some(most) = args.wait {
        let gone = |error| Failure::Unreachable(format!("{}: {error}", args.to));
        play::wait_for(&play.handler, most).await.map_err(gone)?;
    }
    let mut report = Report::default();
    let counts = play.run(recording, seed, |played| {
        let case = Case { name: name(played), took: played.shot.took, failure: played.failure.clone() };
        report.add(case);
        terminal::line(&if args.json { object(played).to_string() } else { words(played) })
    });
    let counts = counts.await;
    if let Some(path) = &args.junit {
        let cannot = |error| Failure::Failed(format!("{}: {}", path.display(), reason::of_io(&error)));
        std::fs::write(path, report.xml(&args.file.display().to_string())).map_err(cannot)?;
    }
    let counts = counts?;
    if args.json {
        let all = json!({
            "events": counts.events, "dropped": counts.dropped, "sent": counts.sent, "failed": counts.failed, "seed": seed,
        });
        terminal::line(&all.to_string())?;
    } else {
        let dropped = if counts.dropped > 0 { format!(", {} left out", counts.dropped) } else { String::new() };
        terminal::note(&format!("{} sent, {} not as expected{dropped}; --seed {seed}", counts.sent, counts.failed));
    }
    match counts.failed {
        0 => Ok(()),
        // Nobody was there.
        _ if counts.unanswered == counts.sent => Err(Failure::Reported(5)),
        _ => Err(Failure::Reported(1)),
    }
}

/// The handler of a command that calls it by itself.
pub(super) fn handler(target: Target, ca_file: Option<PathBuf>, timeout: Duration) -> Result<Handler, Failure> {
    let mut config = TargetConfig::new(target);
    config.timeouts.head = timeout;
    if let Some(file) = ca_file {
        config.trust = Trust::PlatformAnd(file);
    }
    Handler::new(&config).map_err(Failure::Usage)
}

fn name(Played { step, .. }: &Played) -> String {
    let event = &step.event;
    let kind = event.event_type.as_deref().unwrap_or_default();
    let time = if step.time > 1 { format!(" ({})", step.time) } else { String::new() };
    format!("{} {} {} {kind}{time}", event.id, event.method, event.target)
}

fn words(played: &Played) -> String {
    let status = played.shot.status.map_or_else(|| "---".to_owned(), |status| status.to_string());
    let ms = played.shot.took.as_secs_f64() * 1000.0;
    let faults = [(played.step.bad_signature, "  bad signature"), (played.step.slow, "  slow")];
    let faults: String = faults.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    let failure = played.failure.as_ref().map(|why| format!("  FAILED: {}", escaped(why))).unwrap_or_default();
    format!("{status}  {ms:.1} ms  {}{faults}{failure}", escaped(name(played).trim_end()))
}

fn object(Played { step, shot, failure }: &Played) -> serde_json::Value {
    json!({
        "id": step.event.id, "time": step.time, "method": step.event.method, "target": step.event.target,
        "event_type": step.event.event_type, "status": shot.status, "error": shot.error,
        "duration_ms": shot.took.as_secs_f64() * 1000.0, "bytes": shot.size, "bad_signature": step.bad_signature,
        "slow": step.slow, "failure": failure,
    })
}
