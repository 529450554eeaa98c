//! `init`: writes a config and its secret files, and says what to paste where.
//!
//! It overwrites nothing unless told to. Secrets are made in the provider's own form; one that only
//! the provider can make is left to be pasted.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use relay_program::{Failure, config::Wrong, file::write_private, terminal};

use super::{endpoint::secret, new_token, no_randomness};
use crate::{
    config::{PublicUrl, check_email},
    endpoint::EndpointName,
};

const HTTPS: u16 = 443;
const HTTP: u16 = 80;

#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The address under which the relay is reached from outside
    #[arg(long, value_name = "URL")]
    public_url: String,
    /// An endpoint and its provider, or `none` for an open one
    #[arg(long, value_name = "NAME=PROVIDER", required_unless_present = "acme")]
    endpoint: Vec<String>,
    /// Get the certificate from Let's Encrypt, and agree to its terms; it writes to this address
    #[arg(long, value_name = "EMAIL")]
    acme: Option<String>,
    /// Where the files go
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    force: bool,
}

/// Where the relay listens, so that senders reach it under its public URL.
struct Listen {
    address: String,
    comment: &'static str,
    /// Where it only shows who it is, and leads senders to TLS.
    http: Option<String>,
    /// `[tls]`, if it ends TLS itself.
    tls: String,
    /// What has to be done beside it.
    advice: String,
}

impl Listen {
    /// It gets its certificate by itself, so the world has to reach it at the usual ports.
    fn with_acme(url: &PublicUrl, email: &str) -> Result<Self, Failure> {
        let uri = url.uri();
        let host = uri.host().unwrap_or_default();
        let usage = |why: &str| Err(Failure::Usage(format!("--acme: {why}")));
        if uri.scheme_str() != Some("https") || uri.port_u16().is_some_and(|port| port != HTTPS) {
            return usage("a certificate is for an https address on port 443; write --public-url https://HOST");
        }
        if host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return usage("a certificate is for a name that the world knows, such as hooks.example.com");
        }
        if let Err(Wrong { message, help }) = check_email(email) {
            return usage(&format!("{message}; {help}"));
        }
        let any = if TcpListener::bind("[::]:0").is_ok() { "[::]" } else { "0.0.0.0" };
        Ok(Self {
            address: format!("{any}:{HTTPS}"),
            comment: "public: senders and agents",
            http: Some(format!("{any}:{HTTP}")),
            tls: format!("\n[tls]\nacme = {{ domains = [\"{host}\"], email = \"{email}\" }}\n"),
            advice: format!(
                "\nthe name {host} has to lead to this machine, and the world has to reach its ports {HTTPS} and {HTTP}\n{}",
                [HTTPS, HTTP].map(|port| usable(port).unwrap_or_default()).concat()
            ),
        })
    }

    /// Without certificate files a proxy in front has to end TLS; the relay then listens where that alone reaches it.
    fn of(url: &PublicUrl) -> Self {
        let uri = url.uri();
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
        if uri.scheme_str() == Some("https") {
            let address = "127.0.0.1:8080".to_owned();
            let advice = format!(
                "\nlet a proxy end TLS for {url} and pass everything on to {address}; or have the relay\n\
                 do it: --acme EMAIL gets the certificate, or listen = \"0.0.0.0:{}\" and [tls] with cert and key\n",
                port.unwrap_or(443)
            );
            return Self { advice, ..Self::plain(address, "for the proxy in front, which ends TLS") };
        }
        let own = match host {
            "localhost" => "127.0.0.1",
            host if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) => host,
            _ => "0.0.0.0",
        };
        let address = format!("{own}:{}", port.unwrap_or(80));
        Self::plain(address, "public: senders and agents")
    }

    fn plain(address: String, comment: &'static str) -> Self {
        Self { address, comment, http: None, tls: String::new(), advice: String::new() }
    }
}

/// Why the relay would not get a port if this user started it now, and what to do.
fn usable(port: u16) -> Option<String> {
    let error = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).err()?;
    match error.kind() {
        ErrorKind::PermissionDenied => Some(format!(
            "this user may not listen on port {port}; run  setcap cap_net_bind_service=+ep PATH/relay-server  as root, or\n  \
             start it by a systemd unit with AmbientCapabilities=CAP_NET_BIND_SERVICE\n"
        )),
        ErrorKind::AddrInUse => Some(format!("something else listens on port {port} now; stop it first\n")),
        _ => None,
    }
}

/// What `init` is about to write and to say.
struct Draft<'a> {
    arguments: &'a Init,
    url: PublicUrl,
    config: String,
    /// Names and contents of the files beside the config.
    files: Vec<(String, String)>,
    steps: String,
}

pub(super) fn run(arguments: &Init) -> Result<(), Failure> {
    let url = PublicUrl::parse(&arguments.public_url).map_err(|why| Failure::Usage(format!("--public-url: {why}")))?;
    let Listen { address, comment, http, tls, advice } = match &arguments.acme {
        Some(email) => Listen::with_acme(&url, email)?,
        None => Listen::of(&url),
    };
    let http = http.map(|address| format!("http_listen = \"{address}\"   # leads to https, and nothing else\n"));
    let admin = if address.ends_with(":9090") { "127.0.0.1:9091" } else { "127.0.0.1:9090" };
    let config = format!(
        "version = 1\n\n[server]\nlisten = \"{address}\"   # {comment}\n{}\
         admin = \"{admin}\"    # /livez and /readyz\npublic_url = \"{url}\"\n{tls}",
        http.unwrap_or_default()
    );
    let mut draft = Draft { arguments, url, config, files: Vec::new(), steps: String::new() };
    let mut names = Vec::new();
    for text in &arguments.endpoint {
        names.push(draft.endpoint(text)?);
    }
    let token = new_token()?;
    let hash = token.hash().to_hex();
    draft.config.push_str(&format!("\n[[token]]\nname = \"agent\"\nsha256 = [\"{hash}\"]\nendpoints = [\"*\"]\n"));
    draft.files.push(("agent.token".to_owned(), token.expose().to_owned()));
    draft.write()?;
    let Draft { url, files, steps, .. } = draft;
    let dir = arguments.dir.display();
    let agent = match names.first() {
        Some(endpoint) => {
            format!("run the agent  relay-client listen 3000 {endpoint} --relay {url} --token-file {dir}/agent.token\n")
        }
        None => format!(
            "make an endpoint  relay-server endpoint create github --provider github --generate-secret --config \
             {dir}/relay.toml\n\
             run the agent  relay-client listen 3000 github --relay {url} --token-file {dir}/agent.token\n"
        ),
    };
    terminal::print(&format!(
        "wrote {dir}/relay.toml and {} files of mode 0600 beside it\n{steps}{advice}\n\
         run the relay  relay-server serve --config {dir}/relay.toml\n{agent}",
        files.len()
    ))
}

impl Draft<'_> {
    /// Adds an endpoint, `NAME=PROVIDER`; its name as it will be.
    fn endpoint(&mut self, text: &str) -> Result<String, Failure> {
        let (name, provider) = text
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("--endpoint {text}: write it as NAME=PROVIDER")))?;
        EndpointName::parse(name).map_err(|error| Failure::Usage(format!("--endpoint {text}: {error}")))?;
        let row = relay_schemes::provider(provider).ok_or_else(|| {
            let known: Vec<_> = relay_schemes::providers().iter().map(|row| row.name.as_str()).collect();
            let known = known.join(", ");
            Failure::Usage(format!("--endpoint {text}: there is no provider \"{provider}\"; there are {known}"))
        })?;
        let name = if row.scheme.is_none() { unguessable(name)? } else { name.to_owned() };
        self.config.push_str(&format!("\n[[endpoint]]\nname = \"{name}\"\n"));
        self.steps.push_str(&format!("\n{}: webhook URL  {}/{name}\n", row.title, self.url));
        if row.scheme.is_none() {
            self.config.push_str("verify = \"none\"              # anyone who knows the address may post\n");
            return Ok(name);
        }
        let file = format!("{name}.secret");
        self.config.push_str(&format!("verify = {{ provider = \"{provider}\", secrets = [\"file:{file}\"] }}\n"));
        let path = self.arguments.dir.join(&file);
        match secret::new(provider)? {
            Some(secret) => {
                self.steps.push_str(&format!("  paste as its secret what is in {}\n", path.display()));
                self.files.push((file, secret.to_string()));
            }
            None => {
                let path = path.display();
                self.steps.push_str(&format!("  write the secret that it shows you into {path} (mode 0600)\n"));
            }
        }
        Ok(name)
    }

    fn write(&self) -> anyhow::Result<()> {
        let Init { dir, force, .. } = self.arguments;
        let config = [("relay.toml", &self.config)];
        let files = || self.files.iter().map(|(name, text)| (name.as_str(), text)).chain(config);
        if let Some((there, _)) = files().find(|(name, _)| !force && dir.join(name).exists()) {
            bail!(
                "{} is there already; use --force to overwrite it, or --dir for another place",
                dir.join(there).display()
            );
        }
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        files().try_for_each(|(name, text)| write(&dir.join(name), text))
    }
}

/// A name that is all that keeps strangers out.
fn unguessable(name: &str) -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    Ok(format!("{name}-{}", HEXLOWER.encode(&bytes)))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.is_symlink() {
        bail!("{} is a link; remove it first", path.display());
    }
    write_private(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_listens_where_its_public_url_leads() {
        for (url, address) in [
            ("http://hooks.example.com", "0.0.0.0:80"),
            ("http://hooks.example.com:8081", "0.0.0.0:8081"),
            ("http://192.0.2.7:8080", "0.0.0.0:8080"),
            ("http://localhost:3000", "127.0.0.1:3000"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("https://hooks.example.com", "127.0.0.1:8080"),
        ] {
            let listen = Listen::of(&PublicUrl::parse(url).expect("a URL"));
            assert_eq!(listen.address, address, "{url}");
            assert_eq!(listen.advice.contains("0.0.0.0:443"), url.starts_with("https"), "{url}");
        }
    }

    #[test]
    fn a_certificate_is_for_a_name_of_the_world_at_the_usual_port() {
        let with = |url, email| Listen::with_acme(&PublicUrl::parse(url).expect("a URL"), email);
        let listen = with("https://hooks.example.com", "ops@example.com").expect("good");
        assert!(listen.address.ends_with(":443") && listen.http.is_some_and(|http| http.ends_with(":80")));
        assert!(listen.tls.contains("domains = [\"hooks.example.com\"], email = \"ops@example.com\""));
        for (url, email, words) in [
            ("http://hooks.example.com", "ops@example.com", "https address"),
            ("https://hooks.example.com:8443", "ops@example.com", "port 443"),
            ("https://192.0.2.7", "ops@example.com", "a name"),
            ("https://[2001:db8::1]", "ops@example.com", "a name"),
            ("https://localhost", "ops@example.com", "a name"),
            ("https://hooks.example.com", "ops", "not an address of e-mail"),
            ("https://hooks.example.com", "a@b.c\"\n[x]", "not an address of e-mail"),
        ] {
            let error = with(url, email).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(words), "{url} {email}: {error}");
        }
    }
}
