//! How a tunnel's WebSocket keeps to RFC 6455, as an echo server and as an echo client.
//!
//! The cases are those of Autobahn's test suite, groups 1 to 7 and 10, written anew as a table (`cases`) and judged by its
//! rules (`judge`), against an in-memory pipe under paused time: a peer of our own writes frames as bytes, and silence is
//! what stays when every task waits. Groups 9, 12 and 13 are not here: they measure, or need compression, which a tunnel
//! does not offer. Where `RELAY_AUTOBAHN` names a `wstest`, the suite itself runs as well (`suite`).

mod cases;
mod echo;
mod judge;
mod peer;
mod suite;

use std::collections::BTreeSet;

use tokio_tungstenite::tungstenite::protocol::Role;

use self::judge::Verdict;

/// Cases in which a peer may look away for a while, and this one does: it looks at the text of a frame when the frame is
/// whole. Nothing is lost by that, since frames and messages have a limit, and a text never reaches anybody before.
const NON_STRICT: [&str; 2] = ["6.4.3", "6.4.4"];

/// So many cases the groups have; fewer would mean that one was left out.
const CASES: usize = 247;

#[tokio::test(start_paused = true)]
async fn an_echo_server_passes_every_case() {
    pass(Role::Server).await;
}

#[tokio::test(start_paused = true)]
async fn an_echo_client_passes_every_case() {
    pass(Role::Client).await;
}

async fn pass(role: Role) {
    let cases = cases::all();
    let names: BTreeSet<_> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!((cases.len(), names.len()), (CASES, CASES), "each case once");
    let (mut failed, mut non_strict) = (Vec::new(), Vec::new());
    for case in &cases {
        match judge::run(case, role).await {
            Ok(Verdict::Strict) => {}
            Ok(Verdict::NonStrict) => non_strict.push(case.name.as_str()),
            Err(why) => failed.push(format!("{}: {why}", case.name)),
        }
    }
    assert!(failed.is_empty(), "{} cases fail: {failed:#?}", failed.len());
    assert_eq!(non_strict, NON_STRICT, "a case became strict, or ceased to be");
}
