//! The public side's TLS: which certificate a handshake gets, which settings it has, and how either changes while the
//! relay serves.
//!
//! A handshake's settings are chosen once its hello has been read: a certification authority that asks for a proof
//! (tls-alpn-01) gets that and nothing else. Certificates come from files, from an authority, or are a stand-in until one
//! of these is there; whoever gets them puts them into [`Certificates`], and the next handshake has them. Nothing here
//! opens a socket, orders a certificate or reads a config.

mod certificate;
mod certificates;
mod challenges;
mod clients;
mod expiry;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    certificate::{Certificate, CertificateFiles, CertificateSource, TlsError},
    certificates::{CertificateStatus, Certificates},
    challenges::{Challenges, OfferedProof},
    clients::ClientFiles,
    expiry::watch,
    server::{HelloAnswer, HelloPlace, TlsFiles, TlsServer},
};
