//! What `login` keeps: a relay's address and a token for it, in one file of the user's own.
//!
//! One file, so that no token is ever taken for another relay than the one it was given for. It does not judge
//! whether they fit; `login` tries them first.
//!
//! Invariants: the file is 0600 from its first byte on and appears whole or not at all; one that everyone can read
//! is refused.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{RelayUrl, Token};
use relay_program::{
    file, reason,
    secret::{Unread, read_private},
};

const MAX_BYTES: u64 = 16 * 1024;

const BROKEN: &str = "it is not what `login` wrote; run relay-client login again";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub relay: RelayUrl,
    /// PEM file with roots believed for it besides the system's.
    pub relay_ca: Option<PathBuf>,
    pub token: Token,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLogin {
    relay: String,
    relay_ca: Option<PathBuf>,
    token: String,
}

impl Login {
    /// The login in a file; `None` if there is no such file. The error is a reason, without the token.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, String> {
        let bytes = match read_private(path, MAX_BYTES) {
            Ok((bytes, _)) => bytes,
            Err(Unread::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(Unread::Io(error)) => return Err(reason::of_io(&error)),
            Err(Unread::Public) => {
                return Err(format!("everyone on this machine can read it; run: chmod 600 {}", path.display()));
            }
            Err(Unread::TooLarge | Unread::Directory) => return Err(BROKEN.to_owned()),
        };
        // The parser's own words quote the line, which may be the token's.
        let broken = || BROKEN.to_owned();
        let text = std::str::from_utf8(&bytes).map_err(|_| broken())?;
        let raw: RawLogin = toml::from_str(text).map_err(|_| broken())?;
        let token = Zeroizing::new(raw.token);
        let relay = raw.relay.parse().map_err(|_| broken())?;
        let token = Token::checked(token.as_bytes(), "it").map_err(|_| broken())?;
        Ok(Some(Self { relay, relay_ca: raw.relay_ca, token }))
    }

    /// Puts the login into a file, in place of the one before.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let ca = self.relay_ca.as_ref().map(|ca| format!("relay_ca = {}\n", quoted(&ca.to_string_lossy())));
        let text = Zeroizing::new(format!(
            "# Written by relay-client login.\nrelay = {}\n{}token = {}\n",
            quoted(&self.relay.to_string()),
            ca.unwrap_or_default(),
            quoted(self.token.reveal()),
        ));
        file::write_private(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(token: &str) -> Login {
        let token = Token::checked(token.as_bytes(), "the test").unwrap();
        Login { relay: "https://h".parse().unwrap(), relay_ca: Some("/ca \"x\".pem".into()), token }
    }

    #[test]
    fn what_is_written_is_read_again_and_is_the_users_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/relay/login.toml");
        assert_eq!(Login::read(&path), Ok(None));
        for token in ["first", "s3cret"] {
            login(token).write(&path).unwrap();
            assert_eq!(Login::read(&path), Ok(Some(login(token))));
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(Login::read(&path).unwrap_err().contains("chmod 600"));
        }
    }

    #[test]
    fn a_broken_file_is_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login.toml");
        login("s3cret").write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for broken in [text.replace("relay = ", "rely = "), text.replace('=', ""), text.replace("s3cret", "s3cret x")] {
            std::fs::write(&path, broken).unwrap();
            let error = Login::read(&path).unwrap_err();
            assert!(!error.contains("s3cret") && error.contains("login again"), "{error}");
        }
    }
}
