//! Certificates that change on the disk, and those that come to their end.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{certificates::CertificateStatus, server::TlsServer};
use crate::clock::wall;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How often the log says that a certificate comes to its end.
const REMIND: Duration = Duration::from_secs(12 * 60 * 60);

/// How long before its end it says so first.
const NEAR: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Looks at the files and at the certificates until `stop`.
pub(crate) async fn watch(tls: Arc<TlsServer>, stop: CancellationToken) {
    let mut remind = Instant::now();
    loop {
        if remind <= Instant::now() {
            say_expiring(&tls.certificates.status(), wall());
            remind = Instant::now() + REMIND;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        let read = Arc::clone(&tls);
        match tokio::task::spawn_blocking(move || read.refresh(wall())).await {
            Ok(Ok(true)) => {
                tracing::info!("certificates have changed and were read again");
                remind = Instant::now();
            }
            Ok(Err(error)) => tracing::warn!("certificates have changed, and those from before stay in use: {error}"),
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}

fn say_expiring(all: &[CertificateStatus], now: Timestamp) {
    for one in all.iter().filter(|one| one.is_near_end(now)) {
        let (name, source, expires) = (&one.name, one.source.name(), format!("{:.0}", one.not_after));
        if one.not_after <= now {
            tracing::warn!(name, source, expires, "a certificate has expired: senders refuse it; renew it");
        } else {
            tracing::warn!(name, source, expires, "a certificate expires soon; renew it");
        }
    }
}

impl CertificateStatus {
    /// Whether it has expired, or will within 14 days.
    pub(crate) fn is_near_end(&self, now: Timestamp) -> bool {
        self.not_after.duration_since(now) < NEAR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertificateSource;

    #[test]
    fn the_end_is_near_from_14_days_before_it() {
        let now = Timestamp::UNIX_EPOCH;
        let status = |days: i64| CertificateStatus {
            name: "a.test".to_owned(),
            source: CertificateSource::File,
            not_after: now + SignedDuration::from_hours(24 * days),
        };
        for (days, near) in [(-1, true), (0, true), (13, true), (14, false), (90, false)] {
            assert_eq!(status(days).is_near_end(now), near, "{days}");
        }
    }
}
