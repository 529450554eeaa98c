//! A proxy as companies have them: HTTP CONNECT or SOCKS5, with a password or without.
//!
//! It leads every connection to one relay, whatever name it is asked for, and remembers what that was.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, bail, ensure};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP CONNECT.
    Connect,
    /// SOCKS5 (RFC 1928), with a user name and password (RFC 1929) if there is one.
    Socks5,
    /// HTTP, and it lets nobody through.
    Refuses,
}

/// A running proxy.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

/// A connection in the clear or under TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// What one connection asks of the proxy.
struct Asked {
    kind: Kind,
    /// `USER:PASSWORD`.
    login: Option<&'static str>,
    relay: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// A proxy that wants this login.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(kind: Kind, relay: &str, login: Option<&'static str>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let all = Arc::new(Asked { kind, login, relay: relay.to_owned(), asked: Arc::clone(&asked) });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                // One that is turned away is the test's business.
                tokio::spawn(async move { all.serve(stream).await });
            }
        });
        Ok(Self { address, asked, task })
    }

    /// A proxy for HTTP CONNECT that is itself spoken to under TLS, without a login.
    ///
    /// # Errors
    /// If no port is free, or the certificate or its key cannot be used.
    pub async fn start_secure(relay: &str, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from_pem_file(certificate)?], PrivateKeyDer::from_pem_file(key)?)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kind, relay) = (Kind::Connect, relay.to_owned());
        let all = Arc::new(Asked { kind, login: None, relay, asked: Arc::clone(&asked) });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (all, acceptor) = (Arc::clone(&all), acceptor.clone());
                tokio::spawn(async move { all.serve(acceptor.accept(stream).await?).await });
            }
        });
        Ok(Self { address, asked, task })
    }

    /// What it was asked to connect to, in order: `HOST:PORT`.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asked {
    async fn serve(&self, mut stream: impl Stream) -> anyhow::Result<()> {
        match self.kind {
            Kind::Connect | Kind::Refuses => self.connect(&mut stream).await?,
            Kind::Socks5 => self.socks5(&mut stream).await?,
        }
        let mut relay = TcpStream::connect(&self.relay).await?;
        copy_bidirectional(&mut stream, &mut relay).await?;
        Ok(())
    }

    fn note(&self, asked: String) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    }

    async fn connect(&self, stream: &mut impl Stream) -> anyhow::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < 8192, "a long head");
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head)?;
        let asked = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).context("CONNECT")?;
        self.note(asked.to_owned());
        let given = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Basic "));
        let wanted = self.login.map(|login| {
            // The one login of these tests, in base64.
            assert_eq!(login, "me:s3cret", "add its base64 here");
            "bWU6czNjcmV0"
        });
        if self.kind == Kind::Refuses {
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await?;
            bail!("refused");
        }
        if given != wanted {
            let answer = "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await?;
            bail!("no login");
        }
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        Ok(())
    }

    async fn socks5(&self, stream: &mut impl Stream) -> anyhow::Result<()> {
        ensure!(stream.read_u8().await? == 5, "SOCKS5");
        let mut methods = vec![0; stream.read_u8().await?.into()];
        stream.read_exact(&mut methods).await?;
        let method = if self.login.is_some() { 2 } else { 0 };
        if !methods.contains(&method) {
            stream.write_all(&[5, 0xff]).await?;
            bail!("no method");
        }
        stream.write_all(&[5, method]).await?;
        if let Some(login) = self.login {
            ensure!(stream.read_u8().await? == 1, "the version of RFC 1929");
            let mut words = Vec::new();
            for _ in 0..2 {
                let mut word = vec![0; stream.read_u8().await?.into()];
                stream.read_exact(&mut word).await?;
                words.push(String::from_utf8(word)?);
            }
            let right = words.join(":") == login;
            stream.write_all(&[1, u8::from(!right)]).await?;
            ensure!(right, "a wrong login");
        }
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let host = match head[3] {
            1 => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
            3 => {
                let mut name = vec![0; stream.read_u8().await?.into()];
                stream.read_exact(&mut name).await?;
                String::from_utf8(name)?
            }
            4 => std::net::Ipv6Addr::from(stream.read_u128().await?).to_string(),
            other => bail!("an address of type {other}"),
        };
        self.note(format!("{host}:{}", stream.read_u16().await?));
        stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        Ok(())
    }
}
