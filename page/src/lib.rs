//! The inspector's page: its files, what type each has, and the policy under which a browser may run them. The relay
//! and the agent serve the same files, each from its own binary.
//!
//! The crate opens no socket and knows no webhook. Nothing is built from the files in `static/`: a browser gets their lines
//! as they stand there, but for comments and indents, which are for people. A debug build reads them from the folder that
//! the variable `RELAY_PAGE_DIR` names, so that a changed file needs a reload alone.
//!
//! - Only the paths of the table exist; a path is never joined to a folder's name.
//! - What is served has the line numbers of its source, and files of others are served byte for byte.
//! - No file here takes anything of a webhook into it.

use std::{borrow::Cow, sync::OnceLock};

/// The policy that goes with every file. Nothing inline runs, nothing is fetched from elsewhere, and no text becomes
/// markup or code: the browser has no sink left for it.
pub const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types \
    'none'";

/// A file of the page.
#[derive(Debug, Clone)]
pub struct File {
    /// All of it.
    pub bytes: Cow<'static, [u8]>,
    /// For the header of that name.
    pub content_type: &'static str,
    /// A strong validator, with its quotes.
    pub etag: String,
}

/// The file that a path names, `/app.js` for example. Addresses within the page, such as `/e/hook_…`, name its frame.
pub fn file(path: &str) -> Option<File> {
    let name = if is_room(path) { "index.html" } else { path.strip_prefix('/')? };
    static SERVED: OnceLock<Vec<File>> = OnceLock::new();
    let served = SERVED.get_or_init(|| FILES.iter().map(|(name, bytes)| of(name, served(name, bytes))).collect());
    let at = FILES.iter().position(|(known, _)| *known == name)?;
    Some(beside(FILES[at].0).map_or_else(|| served[at].clone(), |bytes| of(name, bytes.into())))
}

fn of(name: &str, bytes: Cow<'static, [u8]>) -> File {
    File { content_type: content_type(name), etag: etag(&bytes), bytes }
}

/// A file without lines that are comments alone, of which the ends stay, and without indents.
fn served(name: &str, bytes: &'static [u8]) -> Cow<'static, [u8]> {
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|_| !name.starts_with("vendor/")) else {
        return bytes.into();
    };
    let is_comment = |line: &str| line.starts_with("//") || (line.starts_with("/*") && line.ends_with("*/"));
    let lines = text.lines().map(str::trim_start).map(|line| if is_comment(line) { "" } else { line });
    lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes().into()
}

/// Whether the page itself answers for this address.
fn is_room(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    match rest.split_once('/').map_or((rest, None), |(room, rest)| (room, Some(rest))) {
        ("" | "events" | "agents" | "dead" | "figures" | "access" | "agent", None) => true,
        ("endpoints", _) => true,
        ("e", Some(id)) => !id.is_empty(),
        _ => false,
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// The file as it stands in the folder that a developer named. A name of the table leads nowhere else.
#[cfg(debug_assertions)]
fn beside(name: &str) -> Option<Vec<u8>> {
    std::fs::read(std::path::Path::new(&std::env::var_os("RELAY_PAGE_DIR")?).join(name)).ok()
}

#[cfg(not(debug_assertions))]
fn beside(_: &str) -> Option<Vec<u8>> {
    None
}

/// FNV-1a over 64 bits: two versions of a file differ in it, and nobody gains from files that do not.
fn etag(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("\"{hash:016x}\"")
}

/// The one file that does not stand in the folder: by it the page knows when the program behind it is another.
const VERSION: &str = concat!("export const VERSION = \"", env!("CARGO_PKG_VERSION"), "\";\n");

macro_rules! files {
    ($($name:literal)*) => {
        &[("version.js", VERSION.as_bytes()), $(($name, include_bytes!(concat!("../static/", $name)))),*]
    };
}

static FILES: &[(&str, &[u8])] = files! {
    "index.html" "style.css" "event.css" "icon.svg"
    "app.js" "route.js" "keys.js" "api.js" "live.js" "html.js" "text.js"
    "rooms.css" "rooms.js" "first.js" "endpoints.js" "setup.js" "agents.js" "dead.js" "figures.js" "access.js" "agent.js"
    "events.js" "feed.js" "rows.js" "judge.js" "list.js" "search.js" "hour.js"
    "event.js" "way.js" "body.js" "json.js" "hex.js" "multipart.js"
    "acts.js" "replay.js" "compare.js" "diff.js" "save.js"
    "vendor/preact.mjs" "vendor/htm.mjs" "vendor/signals-core.mjs"
    "vendor/LICENSE-preact" "vendor/LICENSE-htm" "vendor/LICENSE-signals-core"
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_page_name_its_frame_and_others_name_files_of_the_table() {
        let frame = file("/").unwrap();
        for room in ["/events", "/e/hook_1", "/endpoints", "/endpoints/pay", "/agents", "/dead", "/figures", "/access"]
        {
            assert_eq!(file(room).unwrap().etag, frame.etag, "{room}");
        }
        assert_eq!(frame.content_type, "text/html; charset=utf-8");
        assert_eq!(file("/app.js").unwrap().content_type, "text/javascript; charset=utf-8");
        assert_ne!(file("/style.css").unwrap().etag, frame.etag);
        for other in ["", "/e/", "/e", "/../Cargo.toml", "/vendor/../app.js", "/vendor/", "//app.js", "/api/v1/", "/x"]
        {
            assert!(file(other).is_none(), "{other}");
        }
    }

    #[test]
    fn all_that_stands_in_the_folder_is_served_and_small() {
        let (mut open, mut found, mut size) = (vec![std::path::PathBuf::from("static")], 0, 0);
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let name = path.strip_prefix("static").unwrap().to_str().unwrap();
            if name == "vendor/SHA256SUMS" {
                continue;
            }
            found += 1;
            assert!(FILES.iter().any(|(known, _)| *known == name), "{name} does not stand in the table");
            size += if name.contains("LICENSE") { 0 } else { file(&format!("/{name}")).unwrap().bytes.len() };
        }
        assert_eq!(found + 1, FILES.len(), "version.js stands in no folder");
        assert!(size <= 245_000, "all files are {size} bytes");
    }

    #[test]
    fn comments_and_indents_are_left_out_and_lines_stay_where_they_are() {
        let bytes = served("x.js", b"// why\nif (a) {\n  b(\"//\"); // c\n}\n");
        assert_eq!(std::str::from_utf8(&bytes).unwrap(), "\nif (a) {\nb(\"//\"); // c\n}\n");
        for (name, bytes) in FILES {
            let served = served(name, bytes);
            let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(ends(&served), ends(bytes), "{name}");
            assert!(!name.starts_with("vendor/") || *served == **bytes, "{name}");
        }
    }

    /// What the frame names, what that imports, and the room of the events: all that a browser needs to show rows.
    #[test]
    fn what_is_fetched_first_is_small() {
        let (mut open, mut seen, mut size) = (vec!["index.html".to_owned(), "events.js".to_owned()], Vec::new(), 0);
        while let Some(name) = open.pop() {
            if seen.contains(&name) {
                continue;
            }
            let address = if name == "index.html" { "/".to_owned() } else { format!("/{name}") };
            let bytes = file(&address).unwrap_or_else(|| panic!("{name} is not there")).bytes;
            size += bytes.len();
            let text = std::str::from_utf8(&bytes).unwrap();
            let named = |quoted: &str| quoted.split('"').next().unwrap().to_owned();
            open.extend(text.split("from \"./").skip(1).map(named));
            if name == "index.html" {
                open.extend(text.split("=\"/").skip(1).map(named));
            }
            seen.push(name);
        }
        // Asked for at once, not when the module that imports it has come.
        let frame = file("/").unwrap();
        let frame = std::str::from_utf8(&frame.bytes).unwrap();
        let is_named = |name: &str| name == "index.html" || frame.contains(&format!("\"/{name}\""));
        let late: Vec<_> = seen.iter().filter(|name| !is_named(name)).collect();
        assert!(late.is_empty(), "the frame does not name {late:?}");
        assert!(seen.contains(&"vendor/preact.mjs".to_owned()) && seen.contains(&"list.js".to_owned()), "{seen:?}");
        assert!(size <= 120_000, "{seen:?} are {size} bytes");
    }
}
