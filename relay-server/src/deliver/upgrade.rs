//! Connections that switched protocols: raw bytes both ways, until nothing has passed for too long.

use std::{io, time::Duration};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use relay_tunnel::{
    Receiver, Sender,
    upgrade::{Carried, join},
};
use tokio_util::task::TaskTracker;

use super::silence::{Passed, noting};
use crate::admission::Admitted;

/// A connection whose sender asked to switch protocols.
pub(crate) struct Upgrade {
    pub(super) connection: OnUpgrade,
    pub(super) asked: Bytes,
    /// Longest time without a byte.
    pub(super) silence: Duration,
    pub(super) connections: TaskTracker,
    /// Its place among the endpoint's exchanges.
    pub(super) admitted: Option<Admitted>,
}

/// Carries raw bytes between a sender's upgraded connection and the tunnel.
pub(super) async fn carry(upgrade: Upgrade, request: Sender, body: Receiver) {
    let connection = match upgrade.connection.await {
        Ok(connection) => TokioIo::new(connection),
        Err(error) => return tracing::debug!(%error, "a sender left during its upgrade"),
    };
    let (mut carried, passed) = (Carried::default(), Passed::new());
    let joined = join(noting(connection, &passed), request, body, &mut carried);
    let outcome = tokio::select! {
        outcome = joined => outcome,
        () = passed.nothing_for(upgrade.silence) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it was silent for too long"))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, ?carried, "an upgraded connection broke");
    }
}
