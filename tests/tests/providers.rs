//! Published vectors of every provider through a running relay and agent, each its own case by name.
//!
//! What a vector accepts must reach the handler with its body unchanged and the provider's name in `Relay-Verified`;
//! what it rejects must be refused with the code that the engine alone gives, and never reach the handler. Vectors
//! carry the date of their making: where the key is shared the request is signed afresh; where only the provider has
//! the key, the old request must be refused for its age and for nothing else, which says that its signature is right.
//! `verification.rs` shows those schemes with fresh signatures.
//!
//! `cargo test -p relay-tests --test providers -- github/accept` runs some of them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use http::StatusCode;
use libtest_mimic::{Arguments, Failed, Trial};
use relay_schemes::{
    Answering, Challenge, Material, Provider, Refusal, Request, Scheme, provider,
    vectors::{VectorRequest, requests},
};
use relay_tests::{
    endpoints::{Endpoints, Sent, now},
    handler::Handler,
    process::{Agent, Server},
};

/// As many as there were when this was written; fewer would mean that they are not read.
const AT_LEAST: usize = 1500;

/// What one case does.
struct Case {
    name: String,
    endpoint: String,
    sent: Sent,
    expected: Expected,
}

/// What the sender must see.
#[derive(Clone, Debug)]
enum Expected {
    /// The handler's answer, which was told that this was verified.
    Delivered(&'static str),
    /// The relay's own answer to a challenge, with this status.
    Answered(u16),
    /// A refusal with one of these statuses and codes.
    Refused(StatusCode, &'static str),
}

/// All cases, and the endpoints that they need.
#[derive(Default)]
struct Plan {
    endpoints: Endpoints,
    names: Vec<String>,
    cases: Vec<Case>,
    /// What the output has to say of cases that are not there, or not as they stand in the file.
    notes: Vec<String>,
}

impl Plan {
    fn read(folder: &Path) -> Self {
        let mut plan = Self::default();
        let mut paths: Vec<_> = std::fs::read_dir(folder).expect("a folder").flatten().map(|it| it.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
        paths.sort();
        for path in paths {
            let file = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
            if file.starts_with('_') {
                continue; // Handshakes, which have a file of tests of their own.
            }
            let text = std::fs::read_to_string(&path).expect("a readable file");
            let Some(row) = provider(&file) else {
                plan.notes.push(format!("skipped {file}: there is no row for it"));
                continue;
            };
            let Some(scheme) = &row.scheme else { continue };
            plan.add_file(&file, row, scheme, requests(&text).expect("vectors"));
        }
        plan
    }

    /// The cases of one file: one endpoint for each different thing that an endpoint knows in it.
    fn add_file(&mut self, file: &str, row: &'static Provider, scheme: &'static Scheme, samples: Vec<VectorRequest>) {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let (mut accepted, mut rejected, mut aged) = (0, 0, 0);
        for mut sample in samples {
            let settings = scheme.settings();
            sample.material.settings.retain(|name, _| settings.contains(&name.as_str()));
            sample.material.tolerance_s = None; // The rows' own is what the vectors say.
            let key = fingerprint(&sample.material);
            let (count, name) = (known.len(), sample.name.clone());
            let endpoint = known.entry(key).or_insert_with(|| {
                let endpoint = if count == 0 { file.to_owned() } else { format!("{file}-{count}") };
                self.endpoints.add(&endpoint, file, &sample.material, "");
                self.names.push(endpoint.clone());
                endpoint
            });
            match case(row, scheme, &sample) {
                Ok((sent, expected)) => {
                    *(if sample.accept { &mut accepted } else { &mut rejected }) += 1;
                    aged += u32::from(sample.accept && matches!(expected, Expected::Refused(..)));
                    self.cases.push(Case { name, endpoint: endpoint.clone(), sent, expected });
                }
                Err(why) => self.notes.push(format!("skipped {name}: {why}")),
            }
        }
        assert!(accepted > 0 && rejected > 0, "{file}: {accepted} accepted ones and {rejected} rejected ones");
        if aged > 0 {
            self.notes.push(format!("{file}: only the provider can sign {aged} of {accepted} accepted ones afresh"));
        }
    }
}

fn fingerprint(material: &Material) -> String {
    let secrets: Vec<_> = material.secrets.iter().map(relay_schemes::Secret::expose).collect();
    let Material { public_url, settings, jwks, named_keys, .. } = material;
    format!("{secrets:?} {public_url:?} {settings:?} {jwks:?} {named_keys:?}")
}

/// The request of a vector and what must come of it, or why it cannot be sent.
fn case(row: &'static Provider, scheme: &'static Scheme, sample: &VectorRequest) -> Result<(Sent, Expected), String> {
    let keys = scheme.keys_from(&sample.material).map_err(|why| format!("no endpoint can know this: {why}"))?;
    let mut sent = Sent {
        method: sample.method.clone(),
        url: sample.url.clone(),
        headers: sample.headers.clone(),
        body: sample.body.clone(),
    };
    for (_, value) in &mut sent.headers {
        *value = value.trim_ascii().to_vec(); // HTTP carries no blanks at the ends of a value.
    }
    sent.request("x").map_err(|why| format!("HTTP cannot carry it: {why}"))?;
    let request = Request { method: &sent.method, url: &sent.url, headers: &sent.headers, body: &sent.body };
    let verdict = scheme.verify(&keys, &request, sample.now);
    if sent.headers != sample.headers && verdict.is_ok() != sample.accept {
        return Err("HTTP does not carry the blanks that it is about".to_owned());
    }
    let answering = Answering { keys: Some(&keys), ..Answering::default() };
    match row.handshake(&request, &answering, now()) {
        Some(Challenge::Respond(reply)) if sample.accept => return Ok((sent, Expected::Answered(reply.status))),
        Some(Challenge::Refused { status, code, .. }) => {
            let status = StatusCode::from_u16(status).expect("a status");
            return Ok((sent, Expected::Refused(status, code)));
        }
        _ => {}
    }
    let refused = |code| Expected::Refused(StatusCode::UNAUTHORIZED, code);
    let today = scheme.verify(&keys, &request, now());
    if !sample.accept {
        return match (verdict, today) {
            (Err(Refusal::KeyUnknown), _) if scheme.named_key(&request).is_some_and(|key| is_url(&key)) => {
                Err("the relay would fetch the key from the provider".to_owned())
            }
            (Err(then), Ok(_)) => Err(format!("it is refused at its own time only: {}", then.code())),
            (Err(_), Err(why)) => Ok((sent, refused(why.code()))),
            (Ok(_), _) => Ok((sent, refused("anything"))), // The engine takes it, so this case fails.
        };
    }
    match (verdict, today) {
        (Ok(_), Err(Refusal::TimestampTooOld | Refusal::TimestampTooNew)) if scheme.is_symmetric() => {
            sent.sign(row, &keys, now()).map_err(|why| why.to_string())?;
            Ok((sent, Expected::Delivered(&row.name)))
        }
        (Ok(_), Err(why)) => Ok((sent, refused(why.code()))),
        _ => Ok((sent, Expected::Delivered(&row.name))),
    }
}

fn is_url(key: &relay_schemes::NamedKey) -> bool {
    matches!(key, relay_schemes::NamedKey::Url(_))
}

/// What runs while cases do.
type Processes = (Server, Agent, Handler);

/// The relay, its agent and the handler, started by the first case that runs.
struct World {
    runtime: tokio::runtime::Handle,
    tables: String,
    vars: Vec<(String, String)>,
    names: Vec<String>,
    running: OnceLock<(String, Mutex<Option<Processes>>)>,
}

impl World {
    /// Where the relay listens.
    fn relay(&self) -> &str {
        let (address, _) = self.running.get_or_init(|| {
            let running = self.runtime.block_on(self.start());
            (running.0.public.clone(), Mutex::new(Some(running)))
        });
        address
    }

    async fn start(&self) -> Processes {
        let program = Path::new(env!("CARGO_BIN_EXE_demo"));
        let vars: Vec<_> = self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let server = Server::start(program, "127.0.0.1:0", &self.tables, &vars).await.expect("a relay");
        let handler = Handler::echo().await.expect("a handler");
        let table = |name: &String| format!("[[endpoint]]\nname = \"{name}\"\ntarget = \"{}\"\n", handler.port());
        let tables: String = self.names.iter().map(table).collect();
        let agent = server.agent_from_file(&tables).await.expect("an agent");
        (server, agent, handler)
    }

    fn stop(&self) {
        let running = self.running.get().and_then(|it| it.1.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _inside = self.runtime.enter();
        drop(running);
    }

    fn run(&self, case: &Case) -> Result<(), Failed> {
        let relay = self.relay();
        let response = self.runtime.block_on(case.sent.send(relay, &case.endpoint))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let (status, code, verified) = (response.status(), header("relay-error"), header("x-seen-relay-verified"));
        let seen = format!("saw {status}, relay-error {code:?}, Relay-Verified {verified:?}");
        let good = match case.expected {
            Expected::Delivered(name) => {
                status == StatusCode::OK && verified == Some(name) && response.body()[..] == case.sent.body[..]
            }
            Expected::Answered(wanted) => status == wanted && verified.is_none() && code.is_none(),
            Expected::Refused(wanted, why) => status == wanted && code == Some(why) && verified.is_none(),
        };
        if good { Ok(()) } else { Err(format!("expected {:?}, {seen}", case.expected).into()) }
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    if !folder.is_dir() {
        eprintln!("skipped: the published vectors are not beside this project");
        libtest_mimic::run(&arguments, Vec::new()).exit();
    }
    let Plan { endpoints, names, cases, notes } = Plan::read(&folder);
    assert!(cases.len() >= AT_LEAST, "only {} cases", cases.len());
    if !arguments.list {
        notes.iter().for_each(|line| println!("{line}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    // One thread drives what the cases on the others wait for.
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    let Endpoints { tables, vars } = endpoints;
    let world = Arc::new(World { runtime: handle, tables, vars, names, running: OnceLock::new() });
    let trials = cases.into_iter().map(|case| {
        let world = Arc::clone(&world);
        Trial::test(case.name.clone(), move || world.run(&case))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    world.stop();
    conclusion.exit();
}
