//! What was acknowledged survives a relay that is killed under load. `cargo kills` does it as often as you like.

use std::path::Path;

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_twenty_kills() {
    let program = Path::new(env!("CARGO_BIN_EXE_demo"));
    let tally = relay_tests::cuts::kills(program, 20, 1).await.expect("the store opens without help, each time");
    assert_eq!(tally.lost(), 0, "{tally:?}");
}
