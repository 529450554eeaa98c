//! A power cut at each write while sparse segments of the log are rewritten.
//!
//! A moment is what the disk holds once a write was synced and answered. A cut leaves the log of a moment, or a log in
//! which the next write is torn; and the index as it was synced last, or as it was committed. Another program that reads
//! the index keeps it from being synced in between. Whole relays, and disks that lie, have `cargo powercuts`.

use std::collections::BTreeMap;

use super::*;

/// Ten segments, of which the last has room for a half.
const EVENTS: u64 = 172;
const LENGTH: usize = 60_000;

/// Of these every eighth waits until the end; the others have ended and are removed.
const STAYS: u64 = 8;

/// Segments that are rewritten before the index is synced, so that their files are used again for what comes.
const BEFORE_SYNC: usize = 5;

/// What a disk writes whole, or not at all.
const SECTOR: usize = 512;

type Files = BTreeMap<String, Arc<Vec<u8>>>;

struct Moment {
    log: Files,
    synced: Files,
    committed: Files,
    acknowledged: Vec<u64>,
}

fn body(n: u64) -> Vec<u8> {
    vec![n.to_le_bytes()[0] + 1; LENGTH]
}

fn number(id: EventId) -> u64 {
    u64::from_be_bytes(*id.as_bytes().last_chunk().expect("sixteen bytes"))
}

/// A store in the middle of a rewrite.
struct Rewrite {
    folder: Folder,
    store: SqliteStore,
    synced: Files,
    acknowledged: Vec<u64>,
    moments: Vec<Moment>,
}

impl Rewrite {
    /// A store with sparse segments, the index of which was synced when it was empty.
    async fn begin() -> (Self, rusqlite::Connection) {
        let folder = Folder::new();
        let store = open_small(&folder);
        let acknowledged = (0..EVENTS).step_by(STAYS as usize).collect();
        let mut rewrite = Self { folder, store, synced: Files::new(), acknowledged, moments: Vec::new() };
        let reader = rewrite.folder.stranger();
        rewrite.sync(&reader).await;
        let store = &rewrite.store;
        for n in (0..EVENTS).step_by(2) {
            store.append(vec![event(n, body(n)), event(n + 1, body(n + 1))], at(1)).await.expect("kept");
        }
        for _ in 0..=EVENTS / 100 {
            let held = claim(store, 1000, 5).await.deliveries;
            let ended = held.iter().filter(|one| !number(one.summary.id).is_multiple_of(STAYS));
            store.settle(ended.map(|one| end(one, Then::Done)).collect(), at(6)).await.expect("settled");
        }
        let removed = store.write(Kind::Upkeep, 0, |tx| {
            let key = tx.endpoint(&name("a"))?.expect("it has events");
            (0..EVENTS).try_fold(0, |sum, n| Ok(sum + u64::from(purge::delete(tx, key, id(n))?.is_some())))
        });
        assert_eq!(removed.await, Ok(EVENTS - EVENTS.div_ceil(STAYS)));
        rewrite.note().await;
        (rewrite, reader)
    }

    /// All that was acknowledged is committed, and the index synced: the last time that the reader lets it be.
    async fn sync(&mut self, reader: &rusqlite::Connection) {
        self.store.configure(Source::Api, Vec::new(), false, at(7)).await.expect("committed and synced");
        let (go, held) = hold_up(&self.store, |_| {});
        if !reader.is_autocommit() {
            reader.execute_batch("COMMIT").expect("read");
        }
        reader.execute_batch("BEGIN; SELECT count(*) FROM meta").expect("read");
        self.synced = index_of(&self.folder);
        drop(go);
        answered(held).await.expect("let go");
    }

    async fn note(&mut self) {
        let (go, held) = hold_up(&self.store, |_| {});
        let before = self.moments.last().map(|moment| moment.log.clone()).unwrap_or_default();
        let (log, committed) = (log_of(&self.folder, &before), index_of(&self.folder));
        drop(go);
        answered(held).await.expect("let go");
        let (synced, acknowledged) = (self.synced.clone(), self.acknowledged.clone());
        self.moments.push(Moment { log, synced, committed, acknowledged });
    }

    /// Rewrites sparse segments and takes events in meanwhile; the moments of that.
    async fn run(fault: log::LogFault) -> Vec<Moment> {
        let (mut rewrite, reader) = Self::begin().await;
        let switched = rewrite.store.write(Kind::Upkeep, 0, move |tx| {
            tx.set_fault(fault);
            Ok(())
        });
        switched.await.expect("switched");
        let sparse = rewrite.store.write(Kind::Upkeep, 0, |tx| compaction::sparse(tx)).await.expect("looked");
        assert!(sparse.len() > BEFORE_SYNC, "{sparse:?}");
        for (nth, segment) in sparse.into_iter().enumerate() {
            let shelves = rewrite.store.shared.shelves.clone();
            let needed = rewrite.store.look(move |index| compaction::needed(index, &shelves, segment));
            let needed = needed.await.expect("looked");
            assert!(!needed.is_empty());
            for step in needed.chunks(1 + nth % 2).map(<[_]>::to_vec) {
                let moved = rewrite.store.write(Kind::Upkeep, 0, move |tx| compaction::move_contents(tx, &step));
                moved.await.expect("moved");
                rewrite.note().await;
            }
            let new = [0, 1].map(|n| EVENTS + nth as u64 * 2 + n);
            rewrite.store.append(new.map(|n| event(n, body(n))).into(), at(8)).await.expect("kept");
            rewrite.acknowledged.extend(new);
            rewrite.note().await;
            if nth + 1 == BEFORE_SYNC {
                rewrite.sync(&reader).await;
                rewrite.note().await;
            }
        }
        drop(reader);
        rewrite.moments
    }
}

fn index_of(folder: &Folder) -> Files {
    let path = folder.path();
    let read = |ending: &str| Arc::new(std::fs::read(format!("{}{ending}", path.display())).expect("read"));
    ["", "-wal"].map(|ending| (ending.to_owned(), read(ending))).into()
}

/// The log's segments; those that did not change are the same in memory.
fn log_of(folder: &Folder, before: &Files) -> Files {
    let mut files = Files::new();
    for file in std::fs::read_dir(schema::log_folder(&folder.path())).expect("a folder") {
        let file = file.expect("a file");
        let name = file.file_name().into_string().expect("text");
        if name.ends_with(".seg") {
            let content = std::fs::read(file.path()).expect("read");
            let same = before.get(&name).filter(|before| ***before == content).cloned();
            files.insert(name, same.unwrap_or_else(|| Arc::new(content)));
        }
    }
    files
}

/// The log while it becomes another one: of what is written each sector is there or not, and a file that is used again
/// has its new name or not.
fn torn(before: &Files, after: &Files, random: &mut fastrand::Rng) -> Files {
    let mut left = before.clone();
    for (name, new) in after {
        if before.get(name).is_some_and(|old| Arc::ptr_eq(old, new)) {
            continue;
        }
        let old_name =
            if before.contains_key(name) { Some(name) } else { before.keys().find(|old| !after.contains_key(*old)) };
        let mut content = old_name.and_then(|old| left.remove(old)).map(|old| old.to_vec()).unwrap_or_default();
        for start in (0..new.len()).step_by(SECTOR) {
            let end = new.len().min(start + SECTOR);
            if content.get(start..end) != Some(&new[start..end]) && random.bool() {
                content.resize(content.len().max(end), 0);
                content[start..end].copy_from_slice(&new[start..end]);
            }
        }
        if random.bool() {
            left.insert(name.clone(), Arc::new(content));
        } else if let Some(old_name) = old_name {
            left.insert(old_name.clone(), Arc::new(content));
        }
    }
    left
}

/// What a start makes of what a cut has left: what it refuses or has lost of what was acknowledged.
async fn loss(log: &Files, index: &Files, acknowledged: &[u64]) -> Option<String> {
    let folder = Folder::new();
    let segments = schema::log_folder(&folder.path());
    std::fs::create_dir_all(&segments).expect("made");
    for (name, content) in log {
        std::fs::write(segments.join(name), &**content).expect("written");
    }
    for (ending, content) in index {
        std::fs::write(format!("{}{ending}", folder.path().display()), &**content).expect("written");
    }
    let store = match SqliteStore::open(SqliteOptions { path: folder.path(), max_bytes: 64 << 20 }) {
        Ok(store) => store,
        Err(refused) => return Some(refused.to_string()),
    };
    let there = claim(&store, 3000, 2000).await.deliveries;
    let there: BTreeMap<_, _> = there.into_iter().map(|one| (number(one.summary.id), one.body)).collect();
    let is_lost = |n: &&u64| there.get(n).is_none_or(|there| there.as_deref() != Some(&body(**n)[..]));
    acknowledged.iter().find(is_lost).map(|n| format!("event {n} is lost"))
}

/// The first loss by a cut while something is written.
async fn loss_by_tearing(moments: &[Moment]) -> Option<String> {
    for (nth, both) in moments.windows(2).enumerate() {
        let [before, after] = both else { unreachable!("two at a time") };
        let left = torn(&before.log, &after.log, &mut fastrand::Rng::with_seed(nth as u64));
        for index in [&before.synced, &before.committed] {
            if let Some(loss) = loss(&left, index, &before.acknowledged).await {
                return Some(format!("write {nth}, torn: {loss}"));
            }
        }
    }
    None
}

/// The first loss by a cut behind a write.
async fn loss_between_writes(moments: &[Moment]) -> Option<String> {
    for (nth, moment) in moments.iter().enumerate() {
        for index in [&moment.synced, &moment.committed] {
            if let Some(loss) = loss(&moment.log, index, &moment.acknowledged).await {
                return Some(format!("after write {nth}: {loss}"));
            }
        }
    }
    None
}

#[tokio::test]
async fn a_power_cut_at_any_write_of_a_rewrite_loses_nothing() {
    let moments = Rewrite::run(log::LogFault::None).await;
    let names = |moment: &Moment| moment.log.keys().cloned().collect::<Vec<_>>();
    let [first, last] = [moments.first(), moments.last()].map(|moment| names(moment.expect("many")));
    assert!(first.iter().any(|name| !last.contains(name)), "no file was used again: {first:?}, {last:?}");
    assert_eq!(loss_between_writes(&moments).await, None);
    assert_eq!(loss_by_tearing(&moments).await, None);

    // The same cuts, and a start that takes a torn record for a whole one.
    log::TAKES_TORN_RECORDS.set(true);
    let found = loss_by_tearing(&moments).await;
    log::TAKES_TORN_RECORDS.set(false);
    assert!(found.is_some(), "it goes unnoticed");
}

#[tokio::test]
async fn a_segment_that_a_rewrite_gives_up_too_early_is_found_out() {
    let moments = Rewrite::run(log::LogFault::EarlyGiveUp).await;
    let found = loss_between_writes(&moments).await;
    assert!(found.as_ref().is_some_and(|found| found.contains("the store's log")), "it goes unnoticed: {found:?}");
}
