//! What was acknowledged survives a relay that is killed under load, a power cut, and a disk that fails. `cargo kills`
//! and `cargo powercuts` do it as often as you like.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use relay_tests::power_loss::{Cut, Kills, Power, failing_syncs, kills, unseen};

const PROGRAM: &str = env!("CARGO_BIN_EXE_demo");
const KILLS: Kills<'_> =
    Kills { cycles: 20, seed: 1, power: None, cuts: Cut::ALL, patience: Duration::from_secs(60), under_load: "" };
const SKIPPED: &str = "skipped: there is no C compiler";

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_twenty_kills() {
    let tally = kills(Path::new(PROGRAM), KILLS).await.expect("the store opens without help, each time");
    assert_eq!(tally.lost(), 0, "{tally:?}");
    assert!(tally.waiting > 0, "nothing could have been lost: {tally:?}");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_six_power_cuts() {
    let Some(power) = Power::new().await.expect("a library") else { return println!("{SKIPPED}") };
    let tally = kills(Path::new(PROGRAM), Kills { cycles: 6, seed: 2, power: Some(&power), ..KILLS })
        .await
        .expect("sound, and opens without help");
    assert_eq!(tally.lost(), 0, "{tally:?}");
    assert!(tally.waiting > 0, "nothing could have been lost: {tally:?}");
}

/// What a process does below the folder, and what is left of it: syncs of files hold their content, and syncs of folders
/// their names.
const DOINGS: &str = "mkdir d && sync . && cd d &&
    printf 1 > whole && printf 2 > bare && printf 3 > removed && printf 4 > old && sync whole removed old && sync . &&
    printf 5 > nameless && sync nameless && rm removed && mv old new && ln whole link && printf more >> whole &&
    truncate -s 9 bare";

#[tokio::test]
async fn a_cut_leaves_synced_contents_under_synced_names() {
    let Some(lost) = left(Cut::Lose, 0).await else { return println!("{SKIPPED}") };
    assert_eq!(lost, "bare= old=4 removed=3 whole=1 ");
    let kept = left(Cut::Keep, 0).await;
    assert_eq!(kept.as_deref(), Some("bare=2\0\0\0\0\0\0\0\0 link=1more nameless=5 new=4 whole=1more "));
    let mut random = Vec::new();
    for seed in 0..10 {
        random.extend(left(Cut::Random, seed).await);
    }
    for unsure in ["nameless=5", "removed=3", "link=", "new=4", "old=4", "whole=1more", "bare=2"] {
        let there = random.iter().filter(|left| left.contains(unsure)).count();
        assert!((1..10).contains(&there), "{unsure}: {random:?}");
    }
    assert!(random.iter().all(|left| left.contains("new=4") != left.contains("old=4")), "{random:?}");
}

/// The files that are left after a cut, with their content.
async fn left(cut: Cut, seed: u64) -> Option<String> {
    let power = Power::new().await.expect("a library")?;
    let mut shell = Command::new("sh");
    shell.args(["-c", DOINGS]).current_dir(power.store()).envs(power.vars().expect("variables"));
    assert!(shell.status().expect("a shell").success());
    assert_eq!(power.unseen().expect("played"), <[&Path; 0]>::default(), "the shim sees all of it");
    power.cut(cut, seed).expect("played");
    let folder = std::fs::read_dir(power.store().join("d")).expect("a folder");
    let mut paths: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let text = |path: &PathBuf| std::fs::read_to_string(path).expect("text");
    Some(paths.iter().map(|path| format!("{}={} ", path.file_name().expect("a name").display(), text(path))).collect())
}

#[tokio::test]
async fn the_shim_sees_all_that_a_relay_does_to_its_store() {
    let Some(power) = Power::new().await.expect("a library") else { return println!("{SKIPPED}") };
    assert_eq!(unseen(Path::new(PROGRAM), &power).await.expect("it stops"), <[&Path; 0]>::default());
}

/// What a disk that lies comes to: each is found out by a store that is not sound, does not open, or has lost something.
#[tokio::test]
async fn a_store_that_does_not_sync_what_it_must_is_found_out() {
    let lies = [
        ("skip_folder_syncs", ""),
        ("skip_syncs=relay.db-log", ""),
        // The index is synced and its log is not: it is ahead.
        ("", "skip_syncs=.seg die_at=never"),
        // The log's segments are given up by an index that is not synced.
        ("", "skip_syncs=relay.db skip_syncs=relay.db-wal die_at=never"),
    ];
    for (always, under_load) in lies {
        let Some(power) = Power::new().await.expect("a library") else { return println!("{SKIPPED}") };
        power.faults(always).expect("written");
        let how = Kills { cycles: 2, power: Some(&power), patience: Duration::from_secs(2), under_load, ..KILLS };
        let tally = kills(Path::new(PROGRAM), how).await;
        assert!(tally.as_ref().map_or(true, |tally| tally.lost() > 0), "{always}{under_load}: {tally:?}");
    }
}

#[tokio::test]
async fn a_relay_whose_disk_fails_acknowledges_nothing_more_and_ends() {
    let Some(power) = Power::new().await.expect("a library") else { return println!("{SKIPPED}") };
    failing_syncs(Path::new(PROGRAM), &power).await.expect("as it must be");
}
