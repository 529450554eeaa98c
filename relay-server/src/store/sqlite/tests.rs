//! What only the store in SQLite has: its file, its disk, its transactions.
//!
//! What every store does stands in `conformance`.

use std::{os::unix::fs::PermissionsExt as _, sync::Mutex, time::Instant};

use super::{
    attempts::AttemptRecord,
    log::LogPlace,
    operator_actions::Unread,
    pending_rows::{Pending, PendingRows},
    room::Sum,
    row::Found,
    *,
};
use crate::{
    hops::Hops,
    spool::BodyFile,
    store::{
        Action, Answer, Attempt, Body, BulkAction, ClaimedEvent, Dedup, Head, Lease, MAX_ANSWER_BYTES, Outcome, Reason,
        Signature, State, Then, rules::Row,
    },
};

mod power_cuts;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_760_000_000_000 + ms).expect("in range")
}

fn grant(until: i64) -> Grant {
    Grant { holder: Holder(u64::MAX), until: at(until) }
}

fn name(text: &str) -> EndpointName {
    EndpointName::parse(text).expect("a name")
}

fn id(n: u64) -> EventId {
    EventId::from_bytes(u128::from(n).to_be_bytes())
}

fn event(n: u64, body: impl Into<Bytes>) -> NewEvent {
    NewEvent {
        endpoint: name("a"),
        id: id(n),
        received_at: at(1),
        head: Head::sample("/"),
        body: Body::Bytes(body.into()),
        event_type: None,
        sender_id: Some(format!("sender-{n}")),
        dedup: None,
        mark: None,
        order_key: None,
        replay_of: None,
        lease: None,
    }
}

/// A body that finds no room on a disk that is nearly full, and stands beside its head.
const LONG: &[u8] = &[7; 60_000];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("deep/er/relay.db")
    }

    fn try_open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(SqliteOptions { path: self.path(), max_bytes: 1 << 30 })
    }

    fn open(&self) -> SqliteStore {
        self.try_open().expect("a store")
    }

    /// Bytes of everything that its log has.
    fn log_bytes(&self) -> u64 {
        let folder = schema::log_folder(&self.path());
        let files = [folder.clone(), folder.join("bodies")].map(|folder| std::fs::read_dir(folder).expect("a folder"));
        let bytes = |file: std::fs::DirEntry| file.metadata().ok().filter(|file| file.is_file()).map(|file| file.len());
        files.into_iter().flatten().flatten().filter_map(bytes).sum()
    }

    /// A connection of a stranger's, as a person with a tool would have.
    fn stranger(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("a connection")
    }

    fn refusal(&self) -> String {
        match self.try_open() {
            Err(StoreError::Unusable(why) | StoreError::Incompatible(why) | StoreError::InUse(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

async fn take(store: &SqliteStore, n: u64, body: impl Into<Bytes>) -> Result<Vec<Verdict>, StoreError> {
    store.append(vec![event(n, body)], at(1)).await
}

async fn claim(store: &SqliteStore, until: i64, now: i64) -> Claimed {
    let wants = vec![Want { endpoint: name("a"), oldest: 100, newest: 0 }];
    store.claim(wants, grant(until), at(now)).await.expect("claimed")
}

fn end(delivery: &ClaimedEvent, then: Then) -> End {
    let attempt = attempt(&delivery.lease, Outcome::Unreachable, None);
    End { endpoint: name("a"), id: delivery.summary.id, attempt, then }
}

fn attempt(lease: &Lease, outcome: Outcome, answer: Option<Answer>) -> Attempt {
    Attempt {
        number: lease.attempt,
        fence: lease.fence,
        started_at: at(5),
        duration: Duration::ZERO,
        outcome,
        agent: None,
        answer,
        resigned: false,
        sha256_in: None,
        hops: Hops::default(),
    }
}

/// Holds the writer up until what is returned is dropped, so that the calls that wait go into one transaction.
fn hold_up(
    store: &SqliteStore,
    mut before: impl FnMut(&mut Tx<'_>) + Send + 'static,
) -> (std::sync::mpsc::Sender<()>, oneshot::Receiver<Result<(), StoreError>>) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel();
    let wait = Mutex::new(wait);
    let held = store.writer.call(Kind::Upkeep, 0, move |tx| {
        let _waited_for = begin.send(());
        let _released = wait.lock().expect("not poisoned").recv();
        before(tx);
        Ok(())
    });
    begun.recv().expect("it begins"); // What is called from now on goes into a transaction of its own.
    (go, held)
}

/// As on a full disk, no file of the log grows by much from here on.
fn fill_up(tx: &mut Tx<'_>) {
    tx.set_fault(log::LogFault::NearlyFullDisk);
}

/// The store's own thread does it; this waits for it, for a while.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_promised_settings_are_in_force() {
    let folder = Folder::new();
    let store = folder.open();
    let read = |connection: &rusqlite::Connection, pragma: &str| {
        connection.pragma_query_value(None, pragma, |row| {
            Ok(match row.get_ref(0)? {
                rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                text => text.as_str()?.to_owned(),
            })
        })
    };
    let pragmas = ["journal_mode", "synchronous", "page_size", "auto_vacuum", "wal_autocheckpoint", "user_version"];
    let of_writer = store.writer.call(Kind::Upkeep, 0, move |tx| {
        Ok(pragmas.map(|pragma| read(tx.connection, pragma).expect("a pragma")).to_vec())
    });
    assert_eq!(answered(of_writer).await.expect("read"), ["wal", "1", "8192", "2", "0", "9"]);
    let of_reader = store.readers.call(move |connection| {
        assert!(connection.execute("DELETE FROM event", []).is_err(), "readers cannot write");
        Ok(["synchronous", "query_only", "mmap_size"]
            .map(|pragma| read(connection, pragma).unwrap_or_default())
            .to_vec())
    });
    let found = answered(of_reader).await.expect("read");
    assert_eq!(found[..2], ["1", "1"]);
    assert!(["0", ""].contains(&found[2].as_str()));
}

#[test]
fn the_linked_sqlite_has_no_reset_bug() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

#[test]
fn one_process_holds_the_file() {
    let folder = Folder::new();
    let store = folder.open();
    let why = folder.refusal();
    assert!(why.contains("in use by another process") && why.contains("relay.db"), "{why}");
    assert!(matches!(check(&folder.path()), Err(StoreError::InUse(_))));
    drop(store);
    folder.open();
    check(&folder.path()).expect("sound");
}

#[test]
fn one_process_holds_the_file_by_whatever_name() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new();
    let store = folder.open();
    let deep = folder.path().parent().expect("a folder").to_owned();
    let at = |name: &str| folder.0.path().join(name);
    symlink(folder.path(), at("link.db")).expect("linked");
    symlink("link.db", at("again.db")).expect("linked");
    symlink(&deep, at("same")).expect("linked");
    symlink("../er/relay.db", deep.join("beside.db")).expect("linked");
    for name in ["link.db", "again.db", "same/relay.db", "same/../er/relay.db", "same/beside.db", "deep/./er/relay.db"]
    {
        let refused = SqliteStore::open(SqliteOptions { path: at(name), max_bytes: 1 << 30 });
        assert!(
            matches!(&refused, Err(StoreError::InUse(why)) if why.contains("deep/er/relay.db")),
            "{name}: {refused:?}"
        );
    }
    // A second name without a link: whoever comes by it would find no lock and no log beside it.
    std::fs::hard_link(folder.path(), at("hard.db")).expect("linked");
    let by = |path| SqliteStore::open(SqliteOptions { path, max_bytes: 1 << 30 });
    assert!(matches!(by(at("hard.db")), Err(StoreError::InUse(_))), "the file itself is held");
    drop(store);
    for path in [at("hard.db"), folder.path()] {
        let refused = by(path);
        assert!(
            matches!(&refused, Err(StoreError::Unusable(why)) if why.contains("2 names (hard links)")),
            "{refused:?}"
        );
    }
    std::fs::remove_file(at("hard.db")).expect("removed");
    drop(by(at("again.db")).expect("one name is left, and links to it"));
    assert!(schema::beside(&folder.path(), "lock").exists() && !at("again.db.lock").exists());
}

#[tokio::test]
async fn a_link_to_a_store_that_is_yet_to_be_made_leads_to_it() {
    let folder = Folder::new();
    let link = folder.0.path().join("link.db");
    std::os::unix::fs::symlink("deep/er/relay.db", &link).expect("linked");
    let store = SqliteStore::open(SqliteOptions { path: link.clone(), max_bytes: 1 << 30 }).expect("a store");
    take(&store, 1, "one").await.expect("kept");
    assert!(matches!(folder.try_open(), Err(StoreError::InUse(_))));
    drop(store);
    let mode = std::fs::metadata(folder.path()).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner alone, as without a link");
    assert!(folder.open().event(Sight::All, id(1), at(0)).await.expect("read").is_some());
    // Links that lead to each other lead nowhere.
    std::fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink("link.db", &link).expect("linked");
    let refused = SqliteStore::open(SqliteOptions { path: link, max_bytes: 1 << 30 });
    assert!(
        matches!(&refused, Err(StoreError::Unusable(why)) if why.contains("too many symbolic links")),
        "{refused:?}"
    );
}

#[test]
fn files_of_other_versions_and_other_programs_are_left_alone() {
    let folder = Folder::new();
    drop(folder.open());
    folder.stranger().pragma_update(None, "user_version", 10).expect("set");
    let why = folder.refusal();
    assert!(
        why.contains("version 10") && why.contains("newer relay-server") && why.contains("reads version 9"),
        "{why}"
    );
    folder.stranger().pragma_update(None, "user_version", 3).expect("set");
    let why = folder.refusal();
    assert!(
        why.contains("version 3") && why.contains("earlier relay-server") && why.contains("delivered or dropped"),
        "{why}"
    );

    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().parent().expect("a folder")).expect("made");
    folder.stranger().execute_batch("CREATE TABLE mine (x); PRAGMA user_version = 1").expect("made");
    assert!(folder.refusal().contains("another program's"));
    let tables: i64 =
        folder.stranger().query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("read");
    assert_eq!(tables, 1, "nothing was put into it");

    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().parent().expect("a folder")).expect("made");
    std::fs::write(folder.path(), vec![b'x'; 20_000]).expect("written");
    assert!(folder.refusal().contains("not a database"));
}

#[test]
fn an_empty_file_becomes_a_store() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().parent().expect("a folder")).expect("made");
    std::fs::write(folder.path(), b"").expect("written");
    drop(folder.open());
    let version: i64 = folder.stranger().pragma_query_value(None, "user_version", |row| row.get(0)).expect("read");
    assert_eq!(version, 9);
    // Another page size cannot be mended: the promise about what a commit costs would not hold.
    let folder = Folder::new();
    drop(folder.open());
    let script = "PRAGMA journal_mode = DELETE; PRAGMA page_size = 4096; VACUUM";
    folder.stranger().execute_batch(script).expect("done");
    assert!(folder.refusal().contains("page_size"));
}

#[tokio::test]
async fn reopening_keeps_everything() {
    let folder = Folder::new();
    let long = vec![7; 300_000];
    {
        let store = folder.open();
        let dedup = Dedup { key: "k".into(), window: Duration::from_secs(60), sender_retries: true };
        let keyed = NewEvent { dedup: Some(dedup), ..event(1, "one") };
        store.append(vec![keyed, event(2, long.clone())], at(1)).await.expect("kept");
        let held = claim(&store, 100, 5).await;
        store.settle(vec![end(&held.deliveries[0], Then::Done)], at(6)).await.expect("settled");
        store.pause(name("b"), true, at(7)).await.expect("paused");
        store.put_secret("a".into(), "s".into(), Some("sealed".into()), Was::Anything, at(7)).await.expect("kept");
        store.bulk(BulkPlan::new(id(9), BulkAction::Drop, Filter::default()), at(7)).await.expect("noted");
    }
    assert!(!schema::beside(&folder.path(), "part").exists());
    let store = folder.open();
    assert!(store.usage().bytes > 300_000, "known from the start");
    let first = store.event(Sight::All, id(1), at(0)).await.expect("read").expect("there");
    assert_eq!((first.summary.state, first.attempts.len()), (State::Delivered, 1));
    let second = store.event(Sight::All, id(2), at(0)).await.expect("read").expect("there").summary;
    assert_eq!((second.state, second.attempts, second.due_at), (State::Running, 1, Some(at(100))));
    let lost = claim(&store, 300, 200).await;
    assert_eq!(lost.deliveries[0].lease, Lease { fence: 2, attempt: 2, tries: 2 });
    let part = store.body(name("a"), id(2), 299_000..300_000, at(0)).await.expect("read").expect("there");
    assert_eq!(part, long[..1000]);
    let dedup = Dedup { key: "k".into(), window: Duration::from_secs(60), sender_retries: true };
    let again = NewEvent { dedup: Some(dedup), ..event(3, "one") };
    let verdict = store.append(vec![again], at(8)).await.expect("kept").remove(0);
    assert!(matches!(verdict, Verdict::Duplicate { state: State::Delivered, .. }), "keys are read back: {verdict:?}");
    assert!(store.backlog(Sight::All).await.expect("read").iter().any(|row| row.paused));
    assert_eq!(store.secret("a".into(), "s".into()).await.expect("read"), Some("sealed".into()));
    assert_eq!(store.bulks().await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_failed_sync_is_the_end() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, "safe").await.expect("kept");
    let held = claim(&store, 100, 5).await;
    store.backlog(Sight::All).await.expect("the index is committed");
    let (go, _held) = hold_up(&store, |_| {});
    let fail = async {
        tokio::task::yield_now().await; // The others go first, into the same transaction.
        let failed = store.writer.call(Kind::Upkeep, 0, |_| -> Result<(), StoreError> {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
            Err(rusqlite::Error::SqliteFailure(code, None).into())
        });
        drop(go);
        answered(failed).await
    };
    let (second, third, failed) = tokio::join!(take(&store, 2, "lost"), take(&store, 3, "lost"), fail);
    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    for answer in [second, third] {
        assert!(matches!(answer, Err(StoreError::Failed(_))), "{answer:?}");
    }
    assert!(matches!(&*store.health().borrow(), Health::Failed(why) if why.contains("disk I/O error")));
    // The disk works again, but what the kernel dropped is not known: nothing is tried again in this process.
    let answer = take(&store, 4, "no").await;
    assert!(matches!(&answer, Err(error @ StoreError::Failed(_)) if !error.is_temporary()), "{answer:?}");
    let settled = store.settle(vec![end(&held.deliveries[0], Then::Done)], at(6)).await;
    assert!(matches!(settled, Err(StoreError::Failed(_))));
    let commits = store.usage().commits;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(store.usage().commits, commits);
    assert!(matches!(&*store.health().borrow(), Health::Failed(_)), "for ever");
    assert!(store.event(Sight::All, id(1), at(0)).await.expect("read").is_some(), "people can still look");
    drop(store);
    let store = folder.open();
    assert_eq!(*store.health().borrow(), Health::Ready);
    assert!(store.event(Sight::All, id(1), at(0)).await.expect("read").is_some(), "what was acknowledged is there");
    assert!(store.event(Sight::All, id(2), at(0)).await.expect("read").is_none());
    take(&store, 4, "yes").await.expect("kept");
}

#[tokio::test]
async fn a_panic_in_the_writer_is_the_end_too() {
    let folder = Folder::new();
    let store = folder.open();
    let call = store.writer.call(Kind::Upkeep, 0, |_| -> Result<(), StoreError> { panic!("on purpose") });
    assert_eq!(answered(call).await, Err(StoreError::Busy));
    until("the alarm", || matches!(&*store.health().borrow(), Health::Failed(_))).await;
    let reading = store.readers.call(|_| -> Result<(), StoreError> { panic!("on purpose") });
    assert_eq!(answered(reading).await, Err(StoreError::Busy));
    for _ in 0..8 {
        assert!(
            store.event(Sight::All, id(1), at(0)).await.expect("read").is_none(),
            "a read that panics ends nobody else's"
        );
    }
}

#[tokio::test]
async fn a_full_disk_refuses_events_settles_on_and_recovers() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, "one").await.expect("kept");
    take(&store, 2, "two").await.expect("kept");
    let held = claim(&store, 1000, 5).await;
    let (go, full) = hold_up(&store, fill_up);
    drop(go);
    answered(full).await.expect("full");
    let full = take(&store, 3, LONG).await;
    assert!(matches!(&full, Err(error @ StoreError::NoSpace) if error.is_temporary()), "{full:?}");
    assert_eq!(*store.health().borrow(), Health::NoSpace);
    assert!(!schema::beside(&folder.path(), "reserve").exists(), "the room kept aside was given up");
    let settle = store.settle(vec![end(&held.deliveries[0], Then::Done)], at(6));
    let (settled, refused) = tokio::join!(settle, take(&store, 4, LONG));
    assert_eq!(settled.expect("settled"), [Ended::Settled(State::Delivered)]);
    assert_eq!(refused, Err(StoreError::NoSpace));
    let settled = store.settle(vec![end(&held.deliveries[1], Then::Retry(at(9)))], at(7)).await;
    assert_eq!(settled.expect("settled"), [Ended::Settled(State::Pending)]);
    let (go, room) = hold_up(&store, |tx| tx.set_fault(log::LogFault::None));
    drop(go);
    answered(room).await.expect("room");
    until("room", || *store.health().borrow() == Health::Ready).await;
    take(&store, 5, LONG).await.expect("kept");
    assert!(schema::beside(&folder.path(), "reserve").exists(), "room is kept aside again");
    assert!(store.event(Sight::All, id(3), at(0)).await.expect("read").is_none());
}

#[tokio::test]
async fn a_batch_of_a_full_disk_keeps_its_settles() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, "one").await.expect("kept");
    let held = claim(&store, 1000, 5).await;
    let (go, block) = hold_up(&store, fill_up);
    let append = store.append(vec![event(2, LONG)], at(2));
    let settle = store.settle(vec![end(&held.deliveries[0], Then::Done)], at(6));
    let release = async {
        tokio::task::yield_now().await;
        drop(go);
    };
    let (appended, settled, (), blocked) = tokio::join!(append, settle, release, answered(block));
    assert_eq!(appended, Err(StoreError::NoSpace));
    assert_eq!(settled.expect("settled"), [Ended::Settled(State::Delivered)]);
    blocked.expect("done");
}

#[tokio::test]
async fn a_full_disk_takes_events_where_others_ended() {
    let folder = Folder::new();
    let store = SqliteStore::open(SqliteOptions { path: folder.path(), max_bytes: 64 << 20 }).expect("a store");
    // Segments of 1 MiB: the first of them are needed for nothing that waits.
    for n in 1..=60 {
        take(&store, n, vec![7; 50_000]).await.expect("kept");
    }
    let held = claim(&store, 1000, 5).await.deliveries;
    for one in held.iter().filter(|one| one.summary.id <= id(50)) {
        store.settle(vec![end(one, Then::Done)], at(6)).await.expect("settled");
    }
    let bytes = || folder.log_bytes();
    let (go, full) = hold_up(&store, fill_up);
    drop(go);
    answered(full).await.expect("full");
    let before = bytes();
    // Which finds that the disk is full.
    let found = take(&store, 100, vec![9; 30_000]).await;
    assert_eq!(*store.health().borrow(), Health::NoSpace);
    found.expect("what has ended gives way, inside of the log");
    assert!(store.event(Sight::All, id(1), at(0)).await.expect("read").is_none());
    let mut more = 0;
    while take(&store, 101 + more, vec![9; 50_000]).await.is_ok() {
        more += 1;
    }
    assert!((16..=60).contains(&more), "{more} in place of fifty of them");
    assert!(bytes() <= before + 64 * 1024, "the log has not grown");
    for n in (51..=60).chain(100..=100 + more) {
        assert!(store.event(Sight::All, id(n), at(0)).await.expect("read").is_some(), "{n} waits");
    }
    drop(store);
    check(&folder.path()).expect("sound");
}

#[tokio::test]
async fn a_full_disk_takes_events_in_a_log_that_is_shorter_than_a_segment() {
    let folder = Folder::new();
    let store = folder.open();
    for n in 1..=20 {
        take(&store, n, vec![7; 50_000]).await.expect("kept");
    }
    for one in claim(&store, 1000, 5).await.deliveries {
        store.settle(vec![end(&one, Then::Done)], at(6)).await.expect("settled");
    }
    let (go, full) = hold_up(&store, fill_up);
    drop(go);
    answered(full).await.expect("full");
    let before = folder.log_bytes();
    for n in 100..160 {
        take(&store, n, vec![9; 30_000]).await.expect("what has ended gives way");
        for one in claim(&store, 1000, 7).await.deliveries {
            store.settle(vec![end(&one, Then::Done)], at(8)).await.expect("settled");
        }
    }
    assert_eq!(*store.health().borrow(), Health::NoSpace);
    let after = folder.log_bytes();
    assert!(after <= before + 256 * 1024, "the log has grown from {before} to {after}");
    drop(store);
    check(&folder.path()).expect("sound");
}

/// What is counted of all endpoints: what waits, and what has ended.
fn counted(folder: &Folder) -> (i64, i64) {
    let sql = "SELECT sum(open_bytes), sum(ended_bytes) FROM endpoint";
    folder.stranger().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("read")
}

#[tokio::test]
async fn what_is_counted_is_what_the_store_takes() {
    for size in [0, 100, 1000, 3000, 12_400, 66_000, 300_000, 2_000_000] {
        let folder = Folder::new();
        let store = folder.open();
        for n in 0..32 {
            take(&store, n, vec![1; size]).await.expect("kept");
        }
        store.backlog(Sight::All).await.expect("the index is committed");
        let (took, (open, ended)) = (folder.log_bytes(), counted(&folder));
        assert_eq!((ended, store.usage().bytes), (0, open.unsigned_abs()));
        // Beside what stands in the log an event has rows in the index.
        let rows = 32 * 700;
        let open = open.unsigned_abs();
        assert!(took <= open && open <= took + rows, "{size}: {open} are counted, and the log has {took}");
    }
}

#[tokio::test]
async fn what_events_take_is_known_after_a_crash() {
    let folder = Folder::new();
    let store = folder.open();
    for n in 1..=30 {
        take(&store, n, vec![1; 10_000]).await.expect("kept");
    }
    let held = claim(&store, 1000, 5).await.deliveries;
    let ends = held.iter().take(10).map(|one| end(one, Then::Done)).collect();
    store.settle(ends, at(6)).await.expect("settled");
    let crashed = killed(&folder);
    store.backlog(Sight::All).await.expect("the index is committed");
    let before = counted(&folder);
    assert!(before.1 > 100_000 && before.0 > 200_000, "{before:?}");
    let store = crashed.open();
    store.backlog(Sight::All).await.expect("the index is committed");
    assert_eq!(counted(&crashed), before);
    store.set_shares(vec![(
        name("a"),
        Share { max_bytes: before.0.unsigned_abs() + 1000, is_proven: true, pool: None },
    )]);
    assert_eq!(take(&store, 50, vec![1; 10_000]).await, Err(StoreError::AtShare));
}

#[tokio::test]
async fn commits_are_shared() {
    let folder = Folder::new();
    let store = Arc::new(folder.open());
    let before = store.usage();
    let tasks: Vec<_> = (0..64_u64)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..16 {
                    take(&store, 1 + writer * 100 + n, vec![1; 2048]).await.expect("kept");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("ran");
    }
    let usage = store.usage();
    assert_eq!(usage.calls - before.calls, 1024);
    let commits = usage.commits - before.commits;
    assert!((16..=256).contains(&commits), "{commits} commits for 1024 events");
    assert!(usage.commit_micros > before.commit_micros);
}

#[tokio::test]
async fn a_queue_that_is_full_says_so_at_once() {
    let folder = Folder::new();
    let store = folder.open();
    let (go, block) = hold_up(&store, |_| {});
    let mut waiting = Vec::new();
    let mut busy = 0;
    for n in 0..5000 {
        let mut call = store.writer.call(Kind::Intake, 8, |_| Ok(()));
        match call.try_recv() {
            Ok(Err(StoreError::Busy)) => busy += 1,
            Ok(other) => panic!("call {n}: {other:?}"),
            Err(_) => waiting.push(call),
        }
    }
    // The queue, and a batch that the writer has taken from it.
    assert!(busy > 0 && waiting.len() <= 4096 + 512, "{busy} refused");
    let heavy = store.writer.call(Kind::Intake, 100 * 1024 * 1024, |_| Ok(()));
    assert_eq!(answered(heavy).await, Err(StoreError::Busy), "bytes are bounded, too");
    drop(go);
    answered(block).await.expect("done");
    for call in waiting {
        answered(call).await.expect("done");
    }
    let heavy = store.writer.call(Kind::Intake, 100 * 1024 * 1024, |_| Ok(()));
    answered(heavy).await.expect("alone it may wait");
}

#[tokio::test]
async fn a_backup_is_a_store_with_everything() {
    let (folder, other) = (Folder::new(), Folder::new());
    let store = folder.open();
    take(&store, 1, "short").await.expect("kept");
    take(&store, 2, vec![3; 500_000]).await.expect("kept");
    store.put_secret("a".into(), "s".into(), Some("sealed".into()), Was::Anything, at(7)).await.expect("kept");
    std::fs::create_dir_all(other.path().parent().expect("a folder")).expect("made");
    let (copied, more) = tokio::join!(store.backup(other.path()), take(&store, 3, "meanwhile"));
    copied.expect("copied");
    more.expect("kept");
    let error = store.backup(other.path()).await.expect_err("it is there already").to_string();
    assert!(error.contains("the file exists"), "{error}");
    let error = store.backup("/nowhere/at/all.db".into()).await.expect_err("no folder").to_string();
    assert!(error.contains("/nowhere/at/all.db"), "{error}");
    check(&other.path()).expect("sound");
    for path in [folder.path(), other.path(), PathBuf::from(format!("{}-wal", folder.path().display()))] {
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for its owner alone", path.display());
    }
    let copy = other.open();
    let deliveries = claim(&copy, 100, 5).await.deliveries;
    assert!(deliveries.len() >= 2);
    assert_eq!(deliveries[0].body, Some("short".into()));
    let part = copy.body(name("a"), id(2), 499_000..500_000, at(0)).await.expect("read").expect("there");
    assert_eq!(part, vec![3; 1000]);
    assert_eq!(copy.secret("a".into(), "s".into()).await.expect("read"), Some("sealed".into()));
    take(&copy, 9, "new").await.expect("kept");
}

/// A store whose log has segments of a MiB.
fn open_small(folder: &Folder) -> SqliteStore {
    SqliteStore::open(SqliteOptions { path: folder.path(), max_bytes: 64 << 20 }).expect("a store")
}

#[tokio::test]
async fn a_backup_made_while_segments_begin_and_end_opens() {
    let folder = Folder::new();
    let store = open_small(&folder);
    for round in 0..4 {
        let other = Folder::new();
        std::fs::create_dir_all(other.path().parent().expect("a folder")).expect("made");
        let more = async {
            for nth in 0..20 {
                let first = (round * 20 + nth) * 10;
                let events = (first..first + 10).map(|n| event(n, vec![7; 50_000])).collect();
                store.append(events, at(1)).await.expect("kept");
            }
        };
        let (copied, ()) = tokio::join!(store.backup(other.path()), more);
        copied.expect("copied");
        let backlog = open_small(&other).backlog(Sight::All).await.expect("read");
        let open = backlog.iter().map(|one| one.open).sum::<u64>();
        assert!((round * 200..=round * 200 + 200).contains(&open), "{open} after {round} rounds");
    }
}

#[tokio::test]
async fn segments_of_which_little_is_needed_are_given_back() {
    let folder = Folder::new();
    let store = open_small(&folder);
    let body = |n: u64| vec![n.to_be_bytes()[7]; 10_000];
    for first in (0..1200).step_by(50) {
        store.append((first..first + 50).map(|n| event(n, body(n))).collect(), at(1)).await.expect("kept");
    }
    let stays = |id: EventId| id.as_bytes()[15].is_multiple_of(8);
    for _ in 0..12 {
        let held = claim(&store, 1000, 5).await.deliveries;
        let ends = held.iter().filter(|one| !stays(one.summary.id)).map(|one| end(one, Then::Done)).collect();
        store.settle(ends, at(6)).await.expect("settled");
    }
    let bytes =
        |store: &SqliteStore| store.shared.shelves.log.segments().iter().map(|one| u64::from(one.1)).sum::<u64>();
    let before = bytes(&store);
    assert!(before > 12_000_000, "{before}");
    assert_eq!(purge_all(&store, 50).await.removed, 1050);
    let (go, held) = hold_up(&store, |_| {});
    let at_once = killed(&folder);
    drop(go);
    answered(held).await.expect("let go");
    until("segments are given back", || bytes(&store) < before / 2).await;
    for store in [&store, &open_small(&at_once), &open_small(&killed(&folder))] {
        for n in (0..1200).step_by(8) {
            let there = store.body(name("a"), id(n), 0..10_000, at(9)).await.expect("read").expect("there");
            assert_eq!(there, body(n), "{n}");
        }
        assert!(store.body(name("a"), id(1), 0..1, at(9)).await.expect("read").is_none());
    }
}

#[tokio::test]
async fn what_is_read_where_it_stood_and_was_moved_is_not_damaged() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, "one").await.expect("kept");
    let (found, _) = store.find(Sight::All, id(1)).await.expect("read").expect("there");
    let elsewhere = LogPlace { offset: 1, ..found.place };
    assert_eq!(store.set_apart(&found.row.summary, elsewhere, at(2)).await, Ok(Unread::Moved));
    assert_eq!(store.set_apart(&found.row.summary, found.place, at(2)).await, Ok(Unread::Damaged { is_new: true }));
    assert_eq!(store.set_apart(&found.row.summary, found.place, at(2)).await, Ok(Unread::Damaged { is_new: false }));
}

/// Where an event's record stands.
fn place(folder: &Folder, n: u64) -> (PathBuf, u64, u64) {
    let sql = "SELECT place >> 32, place & 0xffffffff, length FROM event WHERE id = ?1";
    let found = folder
        .stranger()
        .query_row(sql, [id(n).as_bytes()], |row| Ok((row.get::<_, u64>(0)?, row.get(1)?, row.get(2)?)));
    let (segment, offset, length) = found.expect("its row");
    (schema::log_folder(&folder.path()).join(format!("{segment:08}.seg")), offset, length)
}

/// Flips a bit, as a bad disk would.
fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt as _;

    let file = std::fs::File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 4], at).expect("written");
}

/// Flips a bit of an event's body, head, or record.
fn damage(folder: &Folder, n: u64, from_its_end: u64) {
    let (path, offset, length) = place(folder, n);
    flip(&path, offset + 8 + length - from_its_end);
}

/// Has a row say another checksum of its body than the log.
fn forget_checksum(folder: &Folder, seq: i64) {
    let index = folder.stranger();
    let facts = index.query_row("SELECT facts FROM event WHERE seq = ?1", [seq], |row| row.get::<_, Vec<u8>>(0));
    let mut facts = facts.expect("its row");
    // There is one, and it has 32 bytes.
    assert_eq!(facts[..2], [1, 32]);
    facts[2..34].fill(0);
    assert_eq!(index.execute("UPDATE event SET facts = ?2 WHERE seq = ?1", (seq, facts)), Ok(1));
}

/// Flips a bit of a body that has a file of its own.
fn damage_file(folder: &Folder, at: u64) {
    let files = std::fs::read_dir(schema::log_folder(&folder.path()).join("bodies")).expect("a folder");
    files.for_each(|file| flip(&file.expect("a file").path(), at));
}

#[tokio::test]
async fn what_is_damaged_is_set_apart_and_not_delivered() {
    let folder = Folder::new();
    let store = folder.open();
    for n in 1..=6 {
        take(&store, n, format!("body {n}")).await.expect("kept");
    }
    take(&store, 7, vec![5; 1_400_000]).await.expect("kept");
    store.backlog(Sight::All).await.expect("all rows are in the table now");
    damage(&folder, 1, 1);
    damage(&folder, 2, 20);
    damage(&folder, 3, 60);
    let nowhere = "UPDATE event SET place = 77 << 32 WHERE seq = 4";
    assert_eq!(folder.stranger().execute(nowhere, []), Ok(1));
    forget_checksum(&folder, 5);
    damage_file(&folder, 300_000);
    let deliveries = claim(&store, 100, 5).await.deliveries;
    assert_eq!(deliveries.iter().map(|one| one.summary.id).collect::<Vec<_>>(), [id(6)]);
    assert_eq!(store.usage().damaged, 6);
    let filter = Filter { states: vec![State::Damaged], ..Filter::default() };
    let page = store.list(filter, PageRequest { limit: 10, after: None, oldest_first: true }).await.expect("a page");
    assert_eq!(page.events.len(), 6);
    assert!(page.events.iter().all(|event| event.reason == Some(Reason::RelayDamaged)));
    for _ in 0..2 {
        assert_eq!(store.event(Sight::All, id(1), at(0)).await.map(|_| ()), Err(StoreError::Damaged(id(1))));
        assert_eq!(store.body(name("a"), id(7), 262_144..262_150, at(0)).await, Err(StoreError::Damaged(id(7))));
    }
    assert_eq!(store.usage().damaged, 6, "each is counted once");
    let replay = Act { endpoint: name("a"), id: id(1), action: Action::Replay(id(50), Signature::Auto) };
    assert_eq!(store.act(vec![replay], at(9)).await.expect("acted"), [Acted::Not(State::Damaged)]);
    assert_eq!(*store.health().borrow(), Health::Ready, "the others are delivered");
    take(&store, 20, "new").await.expect("kept");
}

#[tokio::test]
async fn a_damaged_event_is_found_by_whoever_reads_it_first() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, "one").await.expect("kept");
    take(&store, 2, vec![5; 1_400_000]).await.expect("kept");
    store.backlog(Sight::All).await.expect("all rows are in the table now");
    damage(&folder, 1, 1);
    damage_file(&folder, 300_000);
    assert!(store.event(Sight::All, id(1), at(7)).await.is_err());
    assert!(store.body(name("a"), id(2), 0..400_000, at(8)).await.is_err());
    let filter = Filter { states: vec![State::Damaged], ..Filter::default() };
    let page = store.list(filter, PageRequest { limit: 10, after: None, oldest_first: true }).await.expect("a page");
    let found: Vec<_> = page.events.iter().map(|event| event.settled_at).collect();
    assert_eq!(found, [Some(at(7)), Some(at(8))], "when they were found");
    assert!(claim(&store, 100, 5).await.deliveries.is_empty());
    assert_eq!(store.usage().damaged, 2);
}

fn count(folder: &Folder, table: &str) -> i64 {
    folder.stranger().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("counted")
}

async fn purge_all(store: &SqliteStore, now: i64) -> Purged {
    let mut sum = Purged::default();
    let (retention, pending_retention) = (Duration::from_millis(10), Duration::MAX);
    let mut policy = Purge { retention, pending_retention, max_bytes: u64::MAX, cursor: None };
    loop {
        let step = store.purge(policy.clone(), at(now)).await.expect("purged");
        sum.removed += step.removed;
        policy.cursor = step.next;
        if policy.cursor.is_none() {
            return sum;
        }
    }
}

#[tokio::test]
async fn a_long_body_in_a_file_gets_a_name_or_is_copied_where_it_can_have_none() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = Folder::new();
    let store = folder.open();
    let whole: Vec<u8> = (0..2_600_000_u32).map(|n| (n ^ (n >> 8)).to_le_bytes()[0]).collect();
    let named = tempfile::NamedTempFile::new_in(folder.path().parent().expect("a folder")).expect("a file");
    std::fs::write(named.path(), &whole).expect("written");
    let body = || BodyFile::of(named.reopen().expect("a file"), whole.len() as u64);
    let append = async |n, body: &BodyFile| {
        let new = NewEvent { body: Body::File(body.clone()), ..event(n, Vec::new()) };
        store.append(vec![new], at(1)).await.expect("kept");
        let part = store.body(name("a"), id(n), 1_000_000..1_500_000, at(1)).await.expect("read");
        assert_eq!(part.expect("there"), whole[1_000_000..1_500_000]);
    };
    let (linked, unlinked) = (body(), body().without_name_for_ever());
    append(1, &linked).await;
    assert_eq!(linked.file().metadata().expect("told").nlink(), 1, "it is the same file");
    append(2, &unlinked).await;
    assert_eq!(unlinked.file().metadata().expect("told").nlink(), 0);
    let files = schema::log_folder(&folder.path()).join("bodies");
    assert_eq!(std::fs::read_dir(files).expect("a folder").count(), 2);
}

#[tokio::test]
async fn files_of_nobodys_are_removed() {
    let folder = Folder::new();
    let store = folder.open();
    let files = || std::fs::read_dir(schema::log_folder(&folder.path()).join("bodies")).expect("a folder").count();
    take(&store, 1, vec![1; 2_600_000]).await.expect("kept");
    assert_eq!(files(), 1);
    // A repeat has no use for its own.
    take(&store, 1, vec![1; 2_600_000]).await.expect("kept");
    until("a repeat's", || files() == 1).await;
    // A caller that gives up halfway.
    let mut abandoned = store.append(vec![event(2, vec![2; 9_000_000])], at(2));
    for _ in 0..20 {
        if futures_util::poll!(&mut abandoned).is_ready() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(abandoned);
    // Whether it was kept is known once the writer has come to what was called after it.
    take(&store, 1, vec![1; 2_600_000]).await.expect("kept");
    let is_kept = store.event(Sight::All, id(2), at(0)).await.expect("read").is_some();
    until("the one that was given up", || files() == 1 + usize::from(is_kept)).await;
    // A process that ended halfway.
    drop(store);
    for name in ["00000000000000aa", ".part-x"] {
        let path = schema::log_folder(&folder.path()).join("bodies").join(name);
        std::fs::write(path, b"left over").expect("written");
    }
    let store = folder.open();
    store.backlog(Sight::All).await.expect("the index is committed");
    assert_eq!(i64::try_from(files()), Ok(count(&folder, "event")), "one for each event that is there");
    // An event that is removed.
    let held = claim(&store, 100, 5).await;
    let ends = held.deliveries.iter().map(|one| end(one, Then::Done)).collect();
    store.settle(ends, at(6)).await.expect("settled");
    assert!(purge_all(&store, 50).await.removed >= 1);
    until("those of events that were removed", || files() == 0).await;
    assert_eq!((count(&folder, "event"), count(&folder, "attempt")), (0, 0));
}

#[tokio::test]
async fn the_log_stays_short_and_the_file_holds_it_all_in_the_end() {
    let folder = Folder::new();
    let store = folder.open();
    let log = schema::beside(&folder.path(), "x").with_extension("");
    let log = PathBuf::from(format!("{}-wal", log.display()));
    for round in 0..80_u64 {
        let events = (0..100).map(|n| event(1 + round * 100 + n, vec![1; 16 * 1024])).collect();
        store.append(events, at(1)).await.expect("kept");
    }
    let length = std::fs::metadata(&log).expect("a log").len();
    assert!(length < 96 * 1024 * 1024, "128 MiB came in and SQLite's log has {length} bytes");
    drop(store);
    assert!(std::fs::metadata(&log).map_or(0, |log| log.len()) == 0, "copied on the way out");
    check(&folder.path()).expect("sound");
}

fn keyed(n: u64) -> NewEvent {
    let dedup = Dedup { key: format!("key {n}"), window: Duration::from_secs(60), sender_retries: true };
    NewEvent { dedup: Some(dedup), ..event(n, "same") }
}

async fn is_duplicate(store: &SqliteStore, n: u64) -> bool {
    let again = NewEvent { id: id(1_000_000 + n), ..keyed(n) };
    let verdicts = store.append(vec![again], at(2)).await.expect("kept");
    matches!(verdicts[0], Verdict::Duplicate { of, .. } if of == id(n))
}

#[tokio::test]
async fn keys_move_into_their_table_and_are_found_everywhere() {
    let folder = Folder::new();
    let store = folder.open();
    let total = 40_000; // Two keys each: more than stand in memory.
    for first in (0..total).step_by(500) {
        store.append((first..first + 500).map(keyed).collect(), at(1)).await.expect("kept");
    }
    store.backlog(Sight::All).await.expect("the index is committed");
    assert!(count(&folder, "key_page") > 0, "some have moved");
    let probes = [0, 1, 499, 20_000, 32_767, 32_768, 39_999];
    for n in probes {
        assert!(is_duplicate(&store, n).await, "{n}");
    }
    drop(store);
    let store = folder.open();
    for n in probes {
        assert!(is_duplicate(&store, n).await, "{n} after a restart");
    }
    let filter = Filter { sender_id: Some("sender-20000".into()), ..Filter::default() };
    let page = store.list(filter, PageRequest { limit: 5, after: None, oldest_first: true }).await.expect("a page");
    assert_eq!(page.events.iter().map(|one| one.id).collect::<Vec<_>>(), [id(20_000)]);
}

/// What a process that was killed leaves: its file and its log.
fn killed(folder: &Folder) -> Folder {
    let other = Folder::new();
    std::fs::create_dir_all(other.path().parent().expect("a folder")).expect("made");
    for ending in ["", "-wal"] {
        let of = |folder: &Folder| PathBuf::from(format!("{}{ending}", folder.path().display()));
        std::fs::copy(of(folder), of(&other)).expect("copied");
    }
    let [from, to] = [folder, &other].map(|folder| schema::log_folder(&folder.path()));
    std::fs::create_dir_all(to.join("bodies")).expect("made");
    for part in ["", "bodies"] {
        for file in std::fs::read_dir(from.join(part)).expect("a folder") {
            let file = file.expect("a file");
            if file.file_type().expect("a kind").is_file() {
                std::fs::copy(file.path(), to.join(part).join(file.file_name())).expect("copied");
            }
        }
    }
    other
}

#[tokio::test]
async fn rows_that_were_not_in_the_table_come_back_after_a_crash() {
    let folder = Folder::new();
    let store = folder.open();
    let dedup = Dedup { key: "own key".into(), window: Duration::from_secs(60), sender_retries: true };
    let full = NewEvent {
        event_type: Some("push".into()),
        dedup: Some(dedup.clone()),
        lease: Some(grant(500)),
        ..event(2, vec![9; 3000])
    };
    store.append(vec![event(1, "one"), full, keyed(3)], at(1)).await.expect("kept");
    let lease = Lease { fence: 1, attempt: 1, tries: 1 };
    let attempt = Attempt {
        number: 1,
        fence: 1,
        started_at: at(1),
        duration: Duration::ZERO,
        outcome: Outcome::Answered,
        agent: None,
        answer: None,
        resigned: false,
        sha256_in: None,
        hops: Hops::default(),
    };
    store.append(vec![NewEvent { lease: Some(grant(500)), ..event(4, "four") }], at(2)).await.expect("kept");
    let end = End { endpoint: name("a"), id: id(4), attempt, then: Then::Done };
    assert_eq!(store.settle(vec![end], at(3)).await.expect("settled"), [Ended::Settled(State::Delivered)]);
    assert_eq!(count(&folder, "event"), 0, "nothing is committed to the index yet");

    let other = killed(&folder);
    let after = other.open();
    for n in 1..=4 {
        let (there, back) = (store.event(Sight::All, id(n), at(9)).await, after.event(Sight::All, id(n), at(9)).await);
        let both = [there, back].map(|record| record.expect("read").expect("there"));
        let [there, back] = both.map(|record| format!("{:?} {:?}", record.summary, record.head));
        assert_eq!(there, back, "{n}");
    }
    after.backlog(Sight::All).await.expect("read");
    assert_eq!(count(&other, "event"), 4, "they are in the table, now that somebody has looked");
    let again = NewEvent { dedup: Some(dedup), ..event(9, vec![9; 3000]) };
    let verdict = after.append(vec![again], at(4)).await.expect("kept").remove(0);
    assert!(matches!(verdict, Verdict::Duplicate { of, state: State::Running, .. } if of == id(2)), "{verdict:?}");
    assert!(is_duplicate(&after, 3).await);
    let held = claim(&after, 900, 600).await.deliveries;
    assert_eq!(held.iter().map(|one| one.lease.fence).collect::<Vec<_>>(), [1, 1, 2], "{lease:?} is over");
}

#[tokio::test]
async fn what_the_index_lacks_is_bounded() {
    let folder = Folder::new();
    let store = folder.open();
    for first in (0..20_000).step_by(100) {
        store.append((first..first + 100).map(|n| event(n, "x")).collect(), at(1)).await.expect("kept");
    }
    until("a commit of the index", || count(&folder, "event") >= 16_000).await;
    assert!(matches!(take(&store, 19_999, "y").await, Err(StoreError::Invalid(_))), "an id is taken once");
    assert!(matches!(take(&store, 1, "y").await, Err(StoreError::Invalid(_))), "also in the table");
    let after = killed(&folder);
    let backlog = after.open().backlog(Sight::All).await.expect("read");
    assert_eq!(backlog.iter().map(|one| one.open).sum::<u64>(), 20_000);
}

#[test]
fn few_open_rows_whose_attempts_take_much_are_moved() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = schema::open_writer(&folder.path().join("relay.db")).expect("a database");
    connection.execute("INSERT INTO endpoint (key, name) VALUES (1, 'a')", []).expect("an endpoint");
    let mut pending = PendingRows::load(&connection).expect("read");
    let body = Bytes::from(vec![7; MAX_ANSWER_BYTES]);
    let answer = Answer { status: 500, headers: <_>::default(), body, truncated: false };
    let total = 300; // More bytes than may wait beside rows, of fewer rows than may wait.
    for n in 0..total {
        let mut row = Row::new(&event(n, "x"), [0; 32], None, at(1));
        let (lease, _) = row.lease(grant(500), None, at(1));
        let attempt = attempt(&lease, Outcome::Answered, Some(answer.clone()));
        let seq = i64::try_from(n).expect("few");
        let found = Found { counted: Sum::of(&row), row, seq, place: LogPlace::default(), file: None };
        pending.put(Pending { key: 1, found, attempts: vec![AttemptRecord::of(&attempt)] });
        pending.keep();
    }
    assert!(pending.is_full());
    let mut moved = 0;
    while pending.is_filling() {
        let slice = pending.move_slice(&connection, 16, false).expect("written");
        assert!(slice > 0, "who waits for room would wait for ever");
        moved += slice;
    }
    let count = |table: &str| connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    assert_eq!([count("event"), count("attempt")], [Ok(moved), Ok(moved)]);
    assert!((0..total).any(|n| pending.find(1, id(n)).is_some()), "those that may wait do");
}

/// Rows of events that ended, and wait for their table.
pub(super) fn ended_rows(connection: &rusqlite::Connection, total: u64) -> PendingRows {
    connection.execute("INSERT INTO endpoint (key, name) VALUES (1, 'a')", []).expect("an endpoint");
    let mut pending = PendingRows::load(connection).expect("read");
    for n in 0..total {
        let mut row = Row::new(&event(n, "x"), [0; 32], None, at(1));
        row.end(State::Delivered, None, at(2));
        let seq = i64::try_from(n).expect("few");
        let found = Found { counted: Sum::of(&row), row, seq, place: LogPlace::default(), file: None };
        pending.put(Pending { key: 1, found, attempts: Vec::new() });
    }
    pending.keep();
    pending
}

#[test]
fn rows_move_by_full_statements_and_the_rest_with_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = schema::open_writer(&folder.path().join("relay.db")).expect("a database");
    let mut pending = ended_rows(&connection, 20);
    assert_eq!(pending.move_slice(&connection, 64, false), Ok(16));
    assert_eq!(pending.move_slice(&connection, 64, false), Ok(0), "four wait for others");
    pending.move_all(&connection).expect("written");
    let count = connection.query_row("SELECT count(*) FROM event", [], |row| row.get(0));
    assert_eq!(count, Ok(20));
}

#[test]
fn rows_that_moved_in_a_batch_that_never_was_wait_once_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = schema::open_writer(&folder.path().join("relay.db")).expect("a database");
    let mut pending = ended_rows(&connection, 32);
    connection.execute_batch("BEGIN; SAVEPOINT batch").expect("begun");
    assert_eq!(pending.move_slice(&connection, 16, false), Ok(16));
    assert!(pending.find(1, id(0)).is_none());
    connection.execute_batch("ROLLBACK TO batch; RELEASE batch; COMMIT").expect("rolled back");
    pending.undo();
    assert!((0..32).all(|n| pending.find(1, id(n)).is_some()));
    assert_eq!(connection.query_row("SELECT count(*) FROM event", [], |row| row.get(0)), Ok(0));
}

#[tokio::test]
async fn an_event_is_the_same_before_and_after_its_row_is_in_the_table() {
    let folder = Folder::new();
    let store = folder.open();
    let exact = |ms: i64| at(ms) + jiff::SignedDuration::from_micros(345);
    let leased = NewEvent { received_at: exact(1), lease: Some(grant(500)), ..event(1, "x") };
    let lease = match store.append(vec![leased], exact(2)).await.expect("kept").remove(0) {
        Verdict::Accepted { lease, .. } => lease.expect("leased"),
        other => panic!("{other:?}"),
    };
    let attempt = Attempt { started_at: exact(3), ..attempt(&lease, Outcome::Answered, None) };
    let end = End { endpoint: name("a"), id: id(1), attempt, then: Then::Done };
    store.settle(vec![end], exact(4)).await.expect("settled");
    let seen = async || {
        let record = store.event(Sight::All, id(1), at(5)).await.expect("read").expect("there");
        format!("{:?} {:?}", record.summary, record.attempts)
    };
    let before = seen().await;
    store.backlog(Sight::All).await.expect("the index is committed");
    assert_eq!(seen().await, before);
}

#[test]
fn a_row_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = schema::open_writer(&folder.path().join("relay.db")).expect("a database");
    let mut pending = ended_rows(&connection, 0);
    let new = NewEvent {
        order_key: Some("order".into()),
        dedup: Some(Dedup { key: "another".into(), window: Duration::from_secs(9), sender_retries: true }),
        event_type: Some("push".into()),
        replay_of: Some(id(7)),
        ..event(1, "x")
    };
    let mut parked = Row::new(&new, [3; 32], Some(id(5)), at(1)).costing(77);
    parked.park();
    let mut running = Row::new(&event(2, "x"), [4; 32], None, at(1));
    running.lease(grant(500), Some(id(9)), at(1));
    let mut dead = Row::new(&event(3, "x"), [5; 32], None, at(1));
    dead.end(State::Dead, Some(Reason::HandlerGaveUp), at(0));
    let place = LogPlace { segment: 3, offset: 70_000, length: 12 };
    for (seq, row) in (1..).zip([parked, running, dead]) {
        let id = row.summary.id;
        let found = Found { counted: Sum::of(&row), row, seq, place, file: Some(u64::MAX >> 1) };
        pending.put(Pending { key: 1, found: found.clone(), attempts: Vec::new() });
        pending.move_one(&connection, 1, id).expect("written");
        let read = row::load(&connection, &name("a"), 1, id).expect("read").expect("there");
        assert_eq!(format!("{read:?}"), format!("{found:?}"));
    }
}

#[tokio::test]
async fn a_number_is_not_given_again_once_its_event_is_gone() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, "one").await.expect("kept");
    take(&store, 2, "two").await.expect("kept");
    let held = claim(&store, 100, 5).await.deliveries;
    store.settle(vec![end(&held[1], Then::Done)], at(6)).await.expect("settled");
    assert_eq!(purge_all(&store, 50).await.removed, 1, "the one that came last");
    drop(store);
    let store = folder.open();
    take(&store, 3, "three").await.expect("kept");
    store.backlog(Sight::All).await.expect("the index is committed");
    let last: i64 = folder.stranger().query_row("SELECT max(seq) FROM event", [], |row| row.get(0)).expect("a number");
    assert_eq!(last, 3);
}

#[tokio::test]
async fn an_only_attempt_stands_in_its_row_until_there_is_another() {
    let folder = Folder::new();
    let store = folder.open();
    let attempts = async |what: &str| {
        store.backlog(Sight::All).await.expect("the index is committed");
        let record = store.event(Sight::All, id(1), at(0)).await.expect("read").expect("there");
        let fences: Vec<u64> = record.attempts.iter().map(|attempt| attempt.fence).collect();
        (fences, count(&folder, &format!("event WHERE attempt {what}")), count(&folder, "attempt"))
    };
    take(&store, 1, "one").await.expect("kept");
    let held = claim(&store, 100, 5).await.deliveries;
    store.settle(vec![end(&held[0], Then::Retry(at(7)))], at(6)).await.expect("settled");
    assert_eq!(attempts("<> x''").await, (vec![1], 1, 0));
    // What is told once more of the same attempt replaces what was told.
    store.settle(vec![end(&held[0], Then::Record)], at(7)).await.expect("settled");
    assert_eq!(attempts("<> x''").await, (vec![1], 1, 0));
    let held = claim(&store, 100, 8).await.deliveries;
    store.settle(vec![end(&held[0], Then::Done)], at(9)).await.expect("settled");
    assert_eq!(attempts("= x''").await, (vec![1, 2], 1, 2));
}

/// The only file of a long body.
fn body_file(folder: &Folder) -> PathBuf {
    let files = std::fs::read_dir(schema::log_folder(&folder.path()).join("bodies")).expect("a folder");
    files.map(|file| file.expect("a file").path()).next().expect("one")
}

#[tokio::test]
async fn an_event_that_has_lost_its_file_is_damaged_and_the_store_is_not() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, vec![1; 2_600_000]).await.expect("kept");
    std::fs::remove_file(body_file(&folder)).expect("removed");
    let act = Act { endpoint: name("a"), id: id(1), action: Action::Replay(id(2), Signature::Auto) };
    let acted = store.act(vec![act], at(2)).await;
    assert_eq!(*store.health().borrow(), Health::Ready, "{acted:?}");
    assert_eq!(acted, Ok(vec![Acted::Not(State::Damaged)]));
    take(&store, 3, "three").await.expect("kept");
}

#[tokio::test]
async fn an_append_whose_caller_has_gone_keeps_its_file_with_its_event() {
    let folder = Folder::new();
    let store = folder.open();
    let mut abandoned = store.append(vec![event(1, vec![1; 2_600_000])], at(1));
    // Its body is in its file, and the event waits for the writer.
    let mut held = None;
    for _ in 0..2000 {
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        if held.is_none() && schema::log_folder(&folder.path()).join("bodies").read_dir().expect("a folder").count() > 0
        {
            held = Some(hold_up(&store, |_| {}));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        if held.is_some() {
            break;
        }
    }
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(abandoned);
    let (go, held) = held.expect("its file has a name");
    drop(go);
    answered(held).await.expect("let go");
    until("it is in", || count(&folder, "event") == 1).await;
    let body = store.body(name("a"), id(1), 0..10, at(2)).await.expect("read").expect("there");
    assert_eq!(body[..], [1; 10]);
}

#[tokio::test]
async fn what_an_attempt_became_is_the_same_after_a_crash() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, "one").await.expect("kept");
    let held = claim(&store, 100, 5).await.deliveries;
    // A late word of the attempt, and then another holder takes it over.
    store.settle(vec![end(&held[0], Then::Record)], at(50)).await.expect("noted");
    assert_eq!(claim(&store, 300, 200).await.deliveries.len(), 1);
    let after = killed(&folder).open();
    for store in [&store, &after] {
        let record = store.event(Sight::All, id(1), at(300)).await.expect("read").expect("there");
        let outcomes: Vec<_> = record.attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Outcome::Unreachable]);
    }
}

#[tokio::test]
async fn nothing_is_given_up_for_a_commit_that_a_power_cut_can_take() {
    let folder = Folder::new();
    let store = open_small(&folder);
    for n in 0..200 {
        take(&store, n, vec![7; 12_000]).await.expect("kept");
    }
    let mut ends = Vec::new();
    for _ in 0..2 {
        ends.extend(claim(&store, 1000, 5).await.deliveries.iter().map(|one| end(one, Then::Done)));
    }
    store.settle(ends, at(6)).await.expect("settled");
    store.configure(Source::Api, Vec::new(), false, at(7)).await.expect("everything is committed and synced");
    let segments = || store.shared.shelves.log.segments().len();
    let before = segments();
    assert!(before >= 2, "{before}");
    // The log has nothing new, and the commit that does without these events is not synced.
    let emptied = store.writer.call(Kind::Upkeep, 0, |tx| {
        tx.wants.commit = true;
        let key = tx.endpoint(&name("a"))?.unwrap_or_default();
        (0..200).try_for_each(|n| purge::delete(tx, key, id(n)).map(drop))
    });
    answered(emptied).await.expect("removed");
    assert_eq!(segments(), before);
    until("they are given up", || segments() < before).await;
}

#[tokio::test]
async fn what_is_in_the_audit_log_and_what_a_bulk_action_is_of_outlive_a_kill() {
    let folder = Folder::new();
    let store = folder.open();
    let row = |id, result: Option<&str>| AuditRow {
        id,
        class: super::super::AuditClass::Actions,
        kind: "token".into(),
        name: "alice".into(),
        token: Some("tok_1".into()),
        address: Some("2001:db8::1".into()),
        action: "endpoint.delete".into(),
        object: Some("hub".into()),
        result: result.map(str::to_owned),
        detail: Some("two waited".into()),
        count: 1,
    };
    store.audit(vec![row(1, None), row(2, None)], u64::MAX).await.expect("kept");
    store.audit(vec![row(2, Some("ok"))], u64::MAX).await.expect("kept");
    let plan = BulkPlan::new(id(5), BulkAction::Drop, Filter::default());
    store.bulk(BulkPlan { by: Some("tok_1".into()), ..plan }, at(1)).await.expect("noted");
    // Nothing of it was committed to the tables.
    assert_eq!(count(&folder, "audit"), 0);
    let after = killed(&folder).open();
    let all = AuditFilter { oldest_first: true, limit: 10, ..AuditFilter::default() };
    for store in [&store, &after] {
        let page = store.audited(all.clone()).await.expect("read");
        assert_eq!(page.rows, [row(1, None), row(2, Some("ok"))]);
        assert_eq!(store.bulks().await.expect("read")[0].by.as_deref(), Some("tok_1"));
    }
}

/// Writes into the index as a bad disk would.
fn spoil(folder: &Folder, sql: &str) {
    assert_eq!(folder.stranger().execute(sql, []), Ok(1), "{sql}");
}

#[tokio::test]
async fn an_event_whose_row_is_damaged_is_set_apart_and_others_are_delivered() {
    let folder = Folder::new();
    let store = folder.open();
    for n in 1..=5 {
        take(&store, n, format!("body {n}")).await.expect("kept");
    }
    store.backlog(Sight::All).await.expect("all rows are in the table now");
    let waiting = store.usage().waiting_bytes;
    spoil(&folder, "UPDATE event SET facts = x'ff' WHERE seq = 1");
    spoil(&folder, "UPDATE event SET course = x'ff' WHERE seq = 2");
    spoil(&folder, "UPDATE event SET state = 777 WHERE seq = 3");
    let deliveries = claim(&store, 100, 5).await.deliveries;
    assert_eq!(deliveries.iter().map(|one| one.summary.id).collect::<Vec<_>>(), [id(4), id(5)]);
    assert_eq!((store.usage().damaged, store.usage().waiting_bytes), (3, waiting / 5 * 2));
    assert_eq!(*store.health().borrow(), Health::Ready);
    let filter = Filter { states: vec![State::Damaged], ..Filter::default() };
    let page = store.list(filter, PageRequest { limit: 10, after: None, oldest_first: true }).await.expect("a page");
    assert_eq!(page.events.iter().map(|event| event.id).collect::<Vec<_>>(), [id(1), id(2), id(3)]);
    assert_eq!(count(&folder, "event WHERE due_at IS NOT NULL"), 2);
    assert_eq!(store.event(Sight::All, id(1), at(6)).await.map(|_| ()), Err(StoreError::Damaged(id(1))));
    assert_eq!(store.usage().damaged, 3, "each is counted once");
    assert_eq!(purge_all(&store, 50).await.removed, 3);
}

#[tokio::test]
async fn damaged_rows_stop_neither_a_start_nor_the_purge() {
    let folder = Folder::new();
    let store = folder.open();
    for n in 1..=4 {
        take(&store, n, "x").await.expect("kept");
    }
    let mut held = claim(&store, 100, 5).await.deliveries;
    held.truncate(3);
    store.settle(held.iter().map(|one| end(one, Then::Done)).collect(), at(6)).await.expect("settled");
    drop(store);
    spoil(&folder, "UPDATE event SET facts = x'ff' WHERE seq = 1");
    spoil(&folder, "UPDATE event SET course = x'ff' WHERE seq = 2");
    assert_eq!(check(&folder.path()), Err(StoreError::Damaged(id(1))));
    let store = folder.open();
    spoil(&folder, "UPDATE event SET course = x'ff' WHERE seq = 4");
    assert_eq!(purge_all(&store, 50).await.removed, 3);
    assert_eq!(store.usage().damaged, 0);
    let keep = Duration::from_millis(10);
    let policy = Purge { retention: keep, pending_retention: keep, max_bytes: u64::MAX, cursor: None };
    store.purge(policy, at(50)).await.expect("purged");
    assert_eq!((store.usage().damaged, store.usage().waiting_bytes), (1, 0), "the one that waited is set apart");
}

#[tokio::test]
async fn a_damaged_record_of_an_attempt_is_left_out() {
    let folder = Folder::new();
    let store = folder.open();
    let fences = async || {
        store.backlog(Sight::All).await.expect("the index is committed");
        let record = store.event(Sight::All, id(1), at(0)).await.expect("read").expect("there");
        record.attempts.iter().map(|attempt| attempt.fence).collect::<Vec<_>>()
    };
    let attempt = async |now: i64| {
        let held = claim(&store, 100, now).await.deliveries;
        store.settle(vec![end(&held[0], Then::Retry(at(now)))], at(now)).await.expect("settled");
    };
    take(&store, 1, "one").await.expect("kept");
    attempt(5).await;
    assert_eq!(fences().await, [1]);
    spoil(&folder, "UPDATE event SET attempt = x'ff'");
    assert!(fences().await.is_empty());
    attempt(6).await;
    attempt(7).await;
    assert_eq!(fences().await, [2, 3]);
    spoil(&folder, "UPDATE attempt SET record = x'ff' WHERE fence = 2");
    assert_eq!(claim(&store, 20, 8).await.deliveries.len(), 1);
    assert_eq!(claim(&store, 100, 30).await.deliveries.len(), 1, "nobody said how the one before ended");
    assert_eq!(fences().await, [3, 4]);
    assert_eq!(*store.health().borrow(), Health::Ready);
    drop(store);
    assert_eq!(check(&folder.path()), Err(StoreError::Damaged(id(1))));
}

#[tokio::test]
async fn an_id_that_stands_twice_in_the_index_is_found() {
    let folder = Folder::new();
    let store = folder.open();
    take(&store, 1, "one").await.expect("kept");
    drop(store);
    check(&folder.path()).expect("sound");
    spoil(
        &folder,
        "INSERT INTO event SELECT 99, endpoint, id, received_at, 2, NULL, cost, place, length, facts, course, attempt, \
         order_key, file, TRUE FROM event",
    );
    assert!(matches!(check(&folder.path()), Err(StoreError::Failed(why)) if why.contains("twice")));
}

#[test]
fn the_last_answer_is_that_of_the_latest_attempt_that_has_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = schema::open_writer(&folder.path().join("relay.db")).expect("a database");
    let mut pending = ended_rows(&connection, 1);
    let mut row = pending.find(1, id(0)).expect("there").clone();
    let answer =
        |body: &'static str| Some(Answer { status: 500, headers: <_>::default(), body: body.into(), truncated: false });
    for (fence, answer) in (1..).zip([answer("one"), answer("two"), None]) {
        let lease = Lease { fence, attempt: 1, tries: 1 };
        row.attempts.push(AttemptRecord::of(&attempt(&lease, Outcome::Answered, answer)));
    }
    pending.put(row);
    assert_eq!(attempts::last_answer(&connection, 1, id(0)), Ok(None), "none is in the table");
    pending.move_all(&connection).expect("written");
    assert_eq!(attempts::last_answer(&connection, 1, id(0)), Ok(answer("two")));
}
