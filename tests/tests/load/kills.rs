//! What was acknowledged survives a relay that is killed under load, a power cut, and a disk that fails. `cargo kills`
//! and `cargo powercuts` do it as often as you like.

use std::path::Path;

use relay_tests::power_loss::{Power, failing_syncs, kills};

const PROGRAM: &str = env!("CARGO_BIN_EXE_demo");
const SKIPPED: &str = "skipped: there is no ../shared/tools, no C compiler or no Python";

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_twenty_kills() {
    let tally = kills(Path::new(PROGRAM), 20, 1, None).await.expect("the store opens without help, each time");
    assert_eq!(tally.lost(), 0, "{tally:?}");
    assert!(tally.waiting > 0, "nothing could have been lost: {tally:?}");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_six_power_cuts() {
    let Some(power) = Power::new().await.expect("a library") else { return println!("{SKIPPED}") };
    let tally = kills(Path::new(PROGRAM), 6, 2, Some(&power)).await.expect("sound, and opens without help");
    assert_eq!(tally.lost(), 0, "{tally:?}");
    assert!(tally.waiting > 0, "nothing could have been lost: {tally:?}");
}

#[tokio::test]
async fn a_relay_whose_disk_fails_acknowledges_nothing_more_and_ends() {
    let Some(power) = Power::new().await.expect("a library") else { return println!("{SKIPPED}") };
    failing_syncs(Path::new(PROGRAM), &power).await.expect("as it must be");
}
