//! How many descriptors this process may have open, and how many of them are for public connections.
//!
//! Where that is too low for what the config wants, the relay takes fewer connections: accepting them and
//! failing at the store would be worse. The store, the admin listener and agents' sessions keep a share.

use relay_program::process::raise_limit_on_files;

use crate::spool::MAX_FILES;

/// Descriptors for everything but public connections and agents: 64 of the admin listener, the store and its readers,
/// listeners and runtimes, files that are read; and the files of long bodies.
const KEPT_BACK: u64 = 256 + MAX_FILES;

/// Raises the limit of this process, and says how many of the wanted public connections there can be beside so many
/// sessions of agents.
pub(crate) fn make_room(wanted: usize, sessions: usize) -> usize {
    let limit = raise_limit_on_files();
    let room = room(limit, wanted, sessions);
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

/// Where there are few, agents have a quarter of what is not kept back.
fn room(limit: Option<u64>, wanted: usize, sessions: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let free = limit - KEPT_BACK.min(limit / 2);
    let room = free - u64::try_from(sessions).unwrap_or(u64::MAX).min(free / 4);
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn connections_take_what_the_limit_leaves() {
        for (limit, wanted, room) in [
            (None, 10_000, 10_000),
            (Some(1 << 20), 10_000, 10_000),
            (Some(10_512), 10_000, 8_000),
            (Some(1024), 10_000, 384),
            (Some(256), 10_000, 96),
            (Some(256), 90, 90),
            (Some(0), 10, 1),
        ] {
            assert_eq!(super::room(limit, wanted, 2_000), room, "{limit:?}");
        }
    }
}
