//! Opening the file: one process, by whatever name it calls the file; a sound SQLite, the promised settings, the right
//! version.
//!
//! Every setting that durability rests on is read back; SQLite ignores what it does not understand.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, types::Value};

use crate::{spool::Spool, store::StoreError};

/// Before this, two connections that write and checkpoint can lose committed pages.
const OLDEST_SQLITE: i32 = 3_051_003;

pub(super) const PAGE_BYTES: u64 = 8192;

/// "RLAY": marks the file as ours.
const APPLICATION: i32 = 0x524c_4159;

/// `user_version` of the files that this program reads and writes.
const VERSION: i32 = 9;

fn unusable(what: impl fmt::Display) -> StoreError {
    StoreError::Unusable(what.to_string())
}

/// What was tried with a path in vain, for `map_err`.
fn cannot<E: fmt::Display>(what: &str, path: &Path) -> impl Fn(E) -> StoreError {
    move |error| unusable(format_args!("cannot {what} {}: {error}", path.display()))
}

/// Symbolic links that lead to a store, one through the other: as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Where a store is, whatever links lead to it; its folder is made if it is not there. What belongs to a store (lock,
/// log, room kept aside) stands beside this, so that two names of one file have it in common.
pub fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Ok(target) = fs::read_link(&place) {
            place = folder(&place).join(target);
            continue;
        }
        let Some(name) = place.file_name() else {
            return Err(unusable(format_args!("{} names no file for the store", path.display())));
        };
        let folder = folder(&place);
        fs::create_dir_all(folder).map_err(cannot("create", folder))?;
        return Ok(folder.canonicalize().map_err(cannot("find", folder))?.join(name));
    }
    Err(unusable(format_args!("too many symbolic links lead from {}", path.display())))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The hold of this process on a store, until it is dropped: after the last connection, since closing the file again
/// would let go of the locks that SQLite has on it.
#[derive(Debug)]
pub(super) struct Lock {
    _beside: File,
    _itself: File,
}

/// Holds the file at a resolved place for this process, and makes it if it is not there.
///
/// The file beside it is what other processes find locked. The store's own file is locked as well, for a name of it
/// that no link shows: a mount of this one file. Of two hard links each would have a log of its own.
pub(super) fn lock(path: &Path) -> Result<Lock, StoreError> {
    let beside = beside(path, "lock");
    let file = File::options().create(true).truncate(false).write(true).open(&beside);
    let file = file.map_err(cannot("create", &beside))?;
    hold(&file, path)?;
    create_private(path)?;
    let itself = File::open(path).map_err(cannot("open", path))?;
    hold(&itself, path)?;
    let names = itself.metadata().map_err(cannot("look at", path))?.nlink();
    if names > 1 {
        return Err(unusable(format_args!(
            "the store {} has {names} names (hard links), and SQLite would keep a log beside each of them; remove the others, \
             or use a copy made with `relay-server backup`",
            path.display()
        )));
    }
    Ok(Lock { _beside: file, _itself: itself })
}

fn hold(file: &File, store: &Path) -> Result<(), StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(format!(
            "the store {} is in use by another process; stop that one, or name another file with --store",
            store.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unusable(format_args!(
            "cannot lock the store {}: {error}; keep it on a local disk, not on NFS",
            store.display()
        ))),
    }
}

/// Where the log of a store is.
pub(super) fn log_folder(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-log");
    name.into()
}

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Where the log of a store has its long bodies.
pub(super) fn bodies_folder(path: &Path) -> PathBuf {
    log_folder(path).join("bodies")
}

/// Where long bodies come into files. Its name and the log's are safe then.
pub(super) fn spool(path: &Path, max_bytes: u64) -> Result<Spool, StoreError> {
    let folder = bodies_folder(path);
    let spool = Spool::open(&folder, max_bytes).map_err(cannot("create", &folder))?;
    sync_directory(&folder)?;
    sync_directory(path)?;
    Ok(spool)
}

/// Opens the connection that writes, creating what is needed.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(unusable(format_args!(
            "SQLite {} can lose committed data; this program needs 3.51.3 or newer",
            rusqlite::version()
        )));
    }
    let wrong = cannot("open the store", path);
    let mut connection = Connection::open(path).map_err(&wrong)?;
    let is_new = is_new(&connection, path)?;
    settle(&connection).map_err(wrong)?;
    expect(&connection, "journal_mode", "wal")?;
    expect(&connection, "synchronous", "1")?;
    if is_new {
        create(&mut connection).map_err(cannot("create the store", path))?;
    }
    expect(&connection, "page_size", &PAGE_BYTES.to_string())?;
    expect(&connection, "auto_vacuum", "2")?;
    sync_directory(path)?;
    Ok(connection)
}

/// Makes a file that only its owner reads, unless it is there: it will hold what senders said. SQLite gives the files
/// beside it the same mode.
pub(super) fn create_private(path: &Path) -> Result<(), StoreError> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(cannot("create", path)(error)),
        _ => Ok(()),
    }
}

fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    share(connection)
}

/// What all connections have in common.
fn share(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    // Checkpoints have their own thread (checkpoint.rs); the WAL is kept at its size so that it need not grow again.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    // The log is synced; a commit that must be is synced by itself (index.rs). A checkpoint syncs what it copies.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    // After a failed sync nothing may be copied on the way out.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

fn expect(connection: &Connection, pragma: &str, wanted: &str) -> Result<(), StoreError> {
    let found = match connection.pragma_query_value(None, pragma, |row| row.get(0)) {
        Ok(Value::Integer(number)) => number.to_string(),
        Ok(Value::Text(text)) => text,
        other => return Err(unusable(format_args!("cannot read the store's {pragma}: {other:?}"))),
    };
    if found == wanted {
        return Ok(());
    }
    Err(unusable(format_args!(
        "the store's {pragma} is {found} and not {wanted}, so what it acknowledges would not be safe; \
         keep it on a local disk that supports it"
    )))
}

/// Whether a file is empty. Looks before anything is changed: it may be another program's, or of another version.
fn is_new(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let number = |sql: &str| {
        let number = connection.query_row(sql, [], |row| row.get::<_, i32>(0));
        number.map_err(cannot("read the store", path))
    };
    if number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(true);
    }
    if number("PRAGMA application_id")? != APPLICATION {
        return Err(StoreError::Incompatible(format!(
            "{} is another program's database; name another file with --store",
            path.display()
        )));
    }
    match number("PRAGMA user_version")? {
        VERSION => Ok(false),
        newer if newer > VERSION => Err(StoreError::Incompatible(format!(
            "the store {} has version {newer}, written by a newer relay-server; this one reads version {VERSION}: start \
             the newer one, or restore a backup",
            path.display()
        ))),
        older => Err(StoreError::Incompatible(format!(
            "the store {} has version {older}, written by an earlier relay-server; this one reads version {VERSION}: \
             start the earlier one until what waits there is delivered or dropped, then name a new file with --store",
            path.display()
        ))),
    }
}

/// What the log has in common with its index is safe before there is a log.
fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute_batch(include_str!("schema.sql"))?;
    transaction.execute("INSERT INTO meta VALUES ('id', random())", [])?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    connection.pragma_update(None, "synchronous", "NORMAL")
}

/// What the log of this index has in common with it alone.
pub(super) fn id(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT value FROM meta WHERE name = 'id'", [], |row| row.get(0).map(i64::cast_unsigned))
}

/// The file's name must outlive a power cut as well.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let folder = folder(path);
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(cannot("sync", folder))
}

pub(super) fn open_second(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    share(&connection)?;
    Ok(connection)
}

pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    share(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}
