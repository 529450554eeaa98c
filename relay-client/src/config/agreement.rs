//! Which config files of other folders the user has agreed to.
//!
//! A folder may have come from somebody else, as a clone or an archive, and a file in it that nobody named would
//! decide where the user's token goes. So what decides that counts only once the user agreed to it: the relay, the
//! token, and what stands on the way between them, a proxy and the roots that are believed. Targets are no part of it,
//! since no token goes to them. Whom to ask, and when, is the command line's business.
//!
//! Invariants: an agreement is to one path and to exactly these values, so that a change of one is a new question; no
//! password of a proxy is written down.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use relay_program::{file::write_private, reason};

use super::check::ConfigFile;

/// Agreements that are kept; the oldest gives way.
const MAX_AGREEMENTS: usize = 500;
const MAX_BYTES: u64 = 4 << 20;
/// Bytes of a file with roots that are looked at.
const MAX_CA_BYTES: u64 = 1 << 20;

/// What of a config file decides where a token goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agreement {
    path: String,
    relay: Option<String>,
    token: Option<String>,
    relay_ca: Option<String>,
    /// Who writes into a folder can change what a file in it believes.
    relay_ca_sha256: Option<String>,
    client_cert: Option<String>,
    client_key: Option<String>,
    proxy: Option<String>,
}

impl Agreement {
    /// What a file decides. The error is a reason.
    pub(crate) fn of(file: &ConfigFile) -> Result<Self, String> {
        let path = absolute(&file.path)?;
        let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let hash = file.relay_ca.as_ref().map(|path| hash(path));
        Ok(Self {
            path,
            relay: file.relay.as_ref().map(ToString::to_string),
            token: file.token.as_ref().map(ToString::to_string),
            relay_ca: shown(&file.relay_ca),
            relay_ca_sha256: hash.transpose()?,
            client_cert: shown(&file.client_cert),
            client_key: shown(&file.client_key),
            proxy: file.proxy.as_ref().map(ToString::to_string),
        })
    }

    /// The keys that it is about and their values, as people read them.
    pub(crate) fn values(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("relay", &self.relay),
            ("token", &self.token),
            ("relay_ca", &self.relay_ca),
            ("client_cert", &self.client_cert),
            ("client_key", &self.client_key),
            ("proxy", &self.proxy),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))).collect()
    }
}

/// The user's agreements, in a file of their own.
#[derive(Debug, Clone)]
pub(crate) struct Agreements {
    file: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    #[serde(default)]
    allowed: Vec<Agreement>,
}

impl Agreements {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    pub(crate) fn hold(&self, agreement: &Agreement) -> Result<bool, String> {
        Ok(self.read()?.contains(agreement))
    }

    /// Keeps an agreement in place of an earlier one to the same file.
    pub(crate) fn add(&self, agreement: Agreement) -> Result<(), String> {
        let mut kept = self.read()?;
        kept.retain(|other| other.path != agreement.path);
        kept.push(agreement);
        kept.drain(..kept.len().saturating_sub(MAX_AGREEMENTS));
        self.write(kept)
    }

    /// Takes the agreement to a file back; whether there was one.
    pub(crate) fn remove(&self, path: &Path) -> Result<bool, String> {
        let (path, mut kept) = (absolute(path)?, self.read()?);
        let before = kept.len();
        kept.retain(|other| other.path != path);
        if kept.len() == before {
            return Ok(false);
        }
        self.write(kept).map(|()| true)
    }

    fn read(&self) -> Result<Vec<Agreement>, String> {
        let named = |reason: String| format!("{}: {reason}", self.file.display());
        let file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(named(reason::of_io(&error))),
        };
        if others_may_write(&file).map_err(|error| named(reason::of_io(&error)))? {
            let remedy = format!("others may write it; look what is in it, and run: chmod 600 {}", self.file.display());
            return Err(named(remedy));
        }
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| named(reason::of_io(&error)))?;
        let kept: Kept = toml::from_str(&text)
            .map_err(|_| named("it is not what `config allow` wrote; remove it, and agree again".to_owned()))?;
        Ok(kept.allowed)
    }

    fn write(&self, allowed: Vec<Agreement>) -> Result<(), String> {
        let text = toml::to_string(&Kept { allowed }).map_err(|error| error.to_string())?;
        write_private(&self.file, format!("# Written by relay-client config allow.\n{text}").as_bytes())
            .map_err(|error| format!("{}: {}", self.file.display(), reason::of_io(&error)))
    }
}

/// The file's path from the root, whatever links lead to its folder.
fn absolute(path: &Path) -> Result<String, String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let folder = std::fs::canonicalize(folder).map_err(|error| reason::of_io(&error))?;
    let whole = folder.join(path.file_name().unwrap_or_default());
    whole.to_str().map(str::to_owned).ok_or_else(|| "its path is not UTF-8".to_owned())
}

fn hash(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_CA_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("relay_ca: {}: {}", path.display(), reason::of_io(&error)))?;
    // What is not looked at could be changed behind an agreement.
    if bytes.len() as u64 > MAX_CA_BYTES {
        return Err(format!("relay_ca: {} is larger than 1 MiB", path.display()));
    }
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(unix)]
fn others_may_write(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(file.metadata()?.permissions().mode() & 0o022 != 0)
}

/// Elsewhere a user's folder is the user's own.
#[cfg(not(unix))]
fn others_may_write(_: &File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::find::{Found, Origin};

    struct World(tempfile::TempDir);

    impl World {
        fn put(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn asked(&self, text: &str) -> Agreement {
            let path = self.put("relay-client.toml", &format!("version = 1\n{text}"));
            Agreement::of(&ConfigFile::read(&Found { path, origin: Origin::CurrentFolder }, None).unwrap()).unwrap()
        }
    }

    const FILE: &str = "relay = \"https://h\"\ntoken = \"file:token\"\n";

    #[test]
    fn an_agreement_is_to_a_path_and_to_what_decides_where_a_token_goes() {
        let world = World(tempfile::tempdir().unwrap());
        let agreements = Agreements::new(world.0.path().join("own/allowed.toml"));
        let asked = world.asked(FILE);
        assert_eq!(agreements.hold(&asked), Ok(false));
        agreements.add(asked.clone()).unwrap();
        assert_eq!(agreements.hold(&asked), Ok(true));

        let endpoint = "[[endpoint]]\nname = \"a\"\ntarget = \"1\"\n";
        assert_eq!(
            agreements.hold(&world.asked(&format!("{FILE}name = \"n\"\n{endpoint}"))),
            Ok(true),
            "no token goes there"
        );
        world.put("ca.pem", "one");
        let with_roots = format!("{FILE}relay_ca = \"ca.pem\"\n");
        for other in [
            FILE.replace("https://h", "https://evil"),
            FILE.replace("file:token", "env:TOKEN"),
            FILE.replace("token = \"file:token\"", ""),
            format!("{FILE}proxy = \"http://evil:3128\"\n"),
            with_roots.clone(),
        ] {
            assert_eq!(agreements.hold(&world.asked(&other)), Ok(false), "{other}");
        }
        let elsewhere = Agreement { path: "/elsewhere/relay-client.toml".to_owned(), ..asked };
        assert_eq!(agreements.hold(&elsewhere), Ok(false));

        agreements.add(world.asked(&with_roots)).unwrap();
        assert_eq!(agreements.hold(&world.asked(&with_roots)), Ok(true));
        world.put("ca.pem", "two");
        assert_eq!(agreements.hold(&world.asked(&with_roots)), Ok(false), "other roots in the same file");
        assert_eq!(agreements.hold(&world.asked(FILE)), Ok(false), "the later agreement replaced the earlier");
        let most = usize::try_from(MAX_CA_BYTES).unwrap();
        world.put("ca.pem", &" ".repeat(most));
        world.asked(&with_roots);
        world.put("ca.pem", &" ".repeat(most + 1));
        let file = world.put("relay-client.toml", &format!("version = 1\n{with_roots}"));
        let file = ConfigFile::read(&Found { path: file, origin: Origin::CurrentFolder }, None).unwrap();
        assert!(Agreement::of(&file).unwrap_err().contains("larger than 1 MiB"), "its end would not be agreed to");
        assert_eq!(agreements.remove(&world.0.path().join("relay-client.toml")), Ok(true));
        assert_eq!(agreements.remove(&world.0.path().join("relay-client.toml")), Ok(false));
    }

    #[test]
    fn agreements_are_bounded_and_hold_no_password() {
        let world = World(tempfile::tempdir().unwrap());
        let agreements = Agreements::new(world.0.path().join("allowed.toml"));
        let asked = world.asked("relay = \"https://h\"\nproxy = \"http://me:s3cret@p:1\"\n");
        let many = (0..=MAX_AGREEMENTS).map(|number| Agreement { path: format!("/{number}"), ..asked.clone() });
        agreements.write(many.collect()).unwrap();
        agreements.add(asked).unwrap();
        assert_eq!(agreements.read().unwrap().len(), MAX_AGREEMENTS);
        assert!(!std::fs::read_to_string(&agreements.file).unwrap().contains("s3cret"));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_the_users_alone_to_write() {
        use std::os::unix::fs::PermissionsExt as _;
        let world = World(tempfile::tempdir().unwrap());
        let agreements = Agreements::new(world.0.path().join("allowed.toml"));
        let asked = world.asked(FILE);
        agreements.add(asked.clone()).unwrap();
        let mode = |mode| std::fs::set_permissions(&agreements.file, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(std::fs::metadata(&agreements.file).unwrap().permissions().mode() & 0o777, 0o600);
        mode(0o620);
        assert!(agreements.hold(&asked).unwrap_err().contains("chmod 600"));
        mode(0o600);
        std::fs::write(&agreements.file, "allowed = 1").unwrap();
        assert!(agreements.hold(&asked).unwrap_err().contains("agree again"));
    }
}
