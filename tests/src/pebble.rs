//! A certification authority of the tests' own: Debian's pebble and its name server (package `pebble`), as processes on
//! free ports. It looks at each domain on loopback, and now and then refuses a nonce, as authorities may.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    process::PATIENCE,
    tls::{certificate, connect},
};

/// How many of a hundred good nonces are refused.
const REFUSED_NONCES: &str = "10";

/// A port of loopback that nobody else gets: it is bound, and whoever means to listen may bind it as well.
#[derive(Debug)]
pub struct Port {
    _socket: TcpSocket,
    /// Its number.
    pub number: u16,
}

impl Port {
    /// Any that is free.
    ///
    /// # Errors
    /// If there is none.
    pub fn any() -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let number = socket.local_addr()?.port();
        Ok(Self { _socket: socket, number })
    }

    /// As a relay's config has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// A running authority. It ends when it is dropped.
#[derive(Debug)]
pub struct Pebble {
    folder: tempfile::TempDir,
    _names: Child,
    authority: Child,
    acme: Port,
    management: Port,
    names_port: Port,
    /// Where records are made.
    records: Port,
    tls: u16,
    http: u16,
    own: CertificateDer<'static>,
}

impl Pebble {
    /// Whether it is installed; says so otherwise.
    #[must_use]
    pub fn is_here() -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let has = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        let is_here = has("pebble") && has("pebble-challtestsrv");
        if !is_here {
            println!("skipped: pebble is not installed (Debian's package of this name)");
        }
        is_here
    }

    /// Starts one that looks at these ports in the place of 443 and 80, and whose certificates live so long.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(tls: &Port, http: &Port, lifetime_days: u32) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let own = certificate(folder.path())?;
        let [acme, management, names_port, records] = [Port::any()?, Port::any()?, Port::any()?, Port::any()?];
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-dns01", &names_port.address(), "-management", &records.address(), "-defaultIPv6", ""]);
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        let names = run(&mut names, "Starting management server").await?;
        let authority = authority(folder.path(), &acme, &management, &names_port, [tls, http], lifetime_days).await?;
        let (tls, http) = (tls.number, http.number);
        Ok(Self { folder, _names: names, authority, acme, management, names_port, records, tls, http, own })
    }

    /// Ends it, and starts another one in its place, which knows nothing of what the first one did.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_again(&mut self, lifetime_days: u32) -> anyhow::Result<()> {
        self.authority.kill().await?;
        let ports = [self.tls, self.http];
        let config = config(self.folder.path(), &self.acme, &self.management, ports, lifetime_days);
        self.authority = spawn(self.folder.path(), &config, &self.names_port).await?;
        Ok(())
    }

    /// Lines of a relay's `tls.acme` that lead there.
    #[must_use]
    pub fn settings(&self) -> String {
        let ca = self.folder.path().join("cert.pem");
        format!("directory = \"https://localhost:{}/dir\", ca = \"{}\"", self.acme.number, ca.display())
    }

    /// The certificate by which all that it gives are believed.
    ///
    /// # Errors
    /// If it does not say.
    pub async fn root(&self) -> anyhow::Result<CertificateDer<'static>> {
        // It says that it is there a moment before this port is.
        let come = async {
            loop {
                match connect(&self.management.address(), &self.own, b"http/1.1").await {
                    Ok(stream) => return stream,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let stream = timeout(PATIENCE, come).await.context("its port for questions does not open")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = http::Request::get("/roots/0").header("host", "localhost").body(Empty::<bytes::Bytes>::new())?;
        let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
        Ok(CertificateDer::from_pem_slice(&body)?)
    }

    /// Writes a hook for dns-01 that makes and clears records here, and notes its calls in a file beside it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn hook(&self) -> std::io::Result<Hook> {
        let (script, calls) = (self.folder.path().join("hook"), self.folder.path().join("calls"));
        let text = format!(
            "[ $1 = present ] && what=set-txt || what=clear-txt\n\
             body=\"{{\\\"host\\\": \\\"$2.\\\", \\\"value\\\": \\\"$3\\\"}}\"\n\
             exec 3<>/dev/tcp/127.0.0.1/{}\n\
             printf 'POST /%s HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: %s\\r\\n\\r\\n%s' \
             \"$what\" \"${{#body}}\" \"$body\" >&3\n\
             read -r answer <&3\n\
             echo \"$1 $2 $3\" >> {}\n\
             case $answer in *200*) ;; *) echo \"$answer\" >&2; exit 1;; esac\n",
            self.records.number,
            calls.display()
        );
        fs::write(&script, text)?;
        Ok(Hook { script, calls })
    }
}

/// A script that makes records, for bash.
#[derive(Debug)]
pub struct Hook {
    script: PathBuf,
    calls: PathBuf,
}

impl Hook {
    /// The line of a relay's `tls.acme` that names it.
    #[must_use]
    pub fn setting(&self) -> String {
        format!("dns_hook = [\"bash\", \"{}\"]", self.script.display())
    }

    /// Its calls so far, a line each: what, name, value.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        fs::read_to_string(&self.calls).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// A name of the authority's leads to `address`; shows that the chain there is believed, and gives the leaf.
///
/// # Errors
/// If it is not.
pub async fn leaf(address: &str, name: &str, root: &CertificateDer<'static>) -> anyhow::Result<Vec<u8>> {
    let config = crate::tls::client(root, b"http/1.1")?;
    let stream = TcpStream::connect(address).await?;
    let name = rustls::pki_types::ServerName::try_from(name.to_owned())?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    let chain = stream.get_ref().1.peer_certificates().context("a chain")?;
    Ok(chain.first().context("a leaf")?.to_vec())
}

async fn authority(
    folder: &Path,
    acme: &Port,
    management: &Port,
    names: &Port,
    [tls, http]: [&Port; 2],
    lifetime_days: u32,
) -> anyhow::Result<Child> {
    let config = config(folder, acme, management, [tls.number, http.number], lifetime_days);
    spawn(folder, &config, names).await
}

fn config(
    folder: &Path,
    acme: &Port,
    management: &Port,
    [tls, http]: [u16; 2],
    lifetime_days: u32,
) -> serde_json::Value {
    serde_json::json!({ "pebble": {
        "listenAddress": acme.address(),
        "managementListenAddress": management.address(),
        "certificate": folder.join("cert.pem"),
        "privateKey": folder.join("key.pem"),
        "tlsPort": tls,
        "httpPort": http,
        "certificateValidityPeriod": lifetime_days * 24 * 60 * 60,
    } })
}

async fn spawn(folder: &Path, config: &serde_json::Value, names: &Port) -> anyhow::Result<Child> {
    let file = folder.join("pebble.json");
    fs::write(&file, config.to_string())?;
    let mut command = Command::new("pebble");
    command.arg("-config").arg(&file).args(["-strict", "-dnsserver", &names.address()]);
    command.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", REFUSED_NONCES), ("PEBBLE_AUTHZREUSE", "0")]);
    run(&mut command, "ACME directory available").await
}

/// Runs a program until it says that it is there; what it says after that is read, and nobody's.
async fn run(command: &mut Command, ready: &str) -> anyhow::Result<Child> {
    let (log, output) = std::io::pipe()?;
    let mut child =
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true).spawn()?;
    // The writing end is the child's alone from here on.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let log = tokio::net::unix::pipe::Receiver::from_owned_fd(log.into())?;
    let mut lines = BufReader::new(log).lines();
    let mut said = String::new();
    let waited = timeout(PATIENCE, async {
        while let Ok(Some(line)) = lines.next_line().await {
            said += &line;
            said.push('\n');
            if line.contains(ready) {
                return true;
            }
        }
        false
    });
    if !waited.await.unwrap_or(false) {
        let _ = child.start_kill();
        anyhow::bail!("it does not start; it said:\n{said}");
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(child)
}
