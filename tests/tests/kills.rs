//! What was acknowledged survives a relay that is killed under load, a power cut, and a disk that fails. `cargo kills`
//! and `cargo powercuts` do it as often as you like.

use std::path::Path;

use relay_tests::cuts::{Power, failing_syncs, kills};

const PROGRAM: &str = env!("CARGO_BIN_EXE_demo");

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_twenty_kills() {
    let tally = kills(Path::new(PROGRAM), 20, 1, None).await.expect("the store opens without help, each time");
    assert_eq!(tally.lost(), 0, "{tally:?}");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_six_power_cuts() {
    let Some(power) = Power::new().await.expect("a library") else {
        return println!("skipped: there is no ../shared/tools, or no C compiler");
    };
    let tally = kills(Path::new(PROGRAM), 6, 2, Some(&power)).await.expect("the store opens without help, each time");
    assert_eq!(tally.lost(), 0, "{tally:?}");
    wait_for_end(&power).await;
}

/// The relay was ended a moment ago: its lock goes with it.
async fn wait_for_end(power: &Power) {
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match relay_server::store::check(&power.store()) {
            Ok(()) => return,
            Err(error) if tokio::time::Instant::now() > end => panic!("the file is not sound: {error}"),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test]
async fn a_relay_whose_disk_fails_acknowledges_nothing_more_and_ends() {
    let Some(power) = Power::new().await.expect("a library") else {
        return println!("skipped: there is no ../shared/tools, or no C compiler");
    };
    failing_syncs(Path::new(PROGRAM), &power).await.expect("as it must be");
}
