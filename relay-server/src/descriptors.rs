//! How many descriptors this process may have open, and how many of them are for public connections.
//!
//! The soft limit that a shell or a service manager gives is for programs that use `select`; it is raised to the hard one.
//! Where that is too low for what the config wants, fewer connections are taken: accepting them and failing at the store
//! would be worse. Agents' sessions, admin, store and the files of a reload have to find room in what is kept back.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything but public connections: 64 of the admin listener, the store and its readers, listeners
/// and runtimes, files that are read, and agents.
const KEPT_BACK: u64 = 512;

/// Raises the limit of this process, and says how many of the wanted public connections there can be.
#[must_use]
pub fn make_room(wanted: usize) -> usize {
    let limit = raise();
    let room = room(limit, wanted);
    if room < wanted {
        tracing::warn!(
            limit,
            max_connections = wanted,
            taken = room,
            "this process may open too few files for max_connections; raise its hard limit (LimitNOFILE=, ulimit -Hn)"
        );
    }
    room
}

/// The limit after it was raised as far as may be; `None` if there is none.
fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit on open files cannot be raised");
            current
        }
    }
}

/// At least a half is for connections, where there are few.
fn room(limit: Option<u64>, wanted: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let room = limit - KEPT_BACK.min(limit / 2);
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn connections_take_what_the_limit_leaves() {
        for (limit, wanted, room) in [
            (None, 10_000, 10_000),
            (Some(1 << 20), 10_000, 10_000),
            (Some(10_256), 10_000, 9_744),
            (Some(1024), 10_000, 512),
            (Some(256), 10_000, 128),
            (Some(256), 100, 100),
            (Some(0), 10, 1),
        ] {
            assert_eq!(super::room(limit, wanted), room, "{limit:?}");
        }
    }
}
