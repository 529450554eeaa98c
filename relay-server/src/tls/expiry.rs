//! Certificates that change on the disk, and those that come to their end.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{certificates::CertificateStatus, server::TlsServer};
use crate::{alert::notice, clock::wall};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How often the log says that a certificate comes to its end.
const REMIND: Duration = Duration::from_secs(12 * 60 * 60);

/// How long before its end it says so first, at most.
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
    /// How long it is good, from its first moment to its last.
    pub(crate) fn lifetime(&self) -> SignedDuration {
        self.not_after.duration_since(self.not_before)
    }

    /// Whether it has expired, or will soon.
    fn is_near_end(&self, now: Timestamp) -> bool {
        self.not_after.duration_since(now) < notice(self.lifetime(), NEAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CertificateSource;

    #[test]
    fn the_end_is_near_from_14_days_before_it_or_a_quarter_of_a_short_life() {
        let now = Timestamp::UNIX_EPOCH;
        let hours = SignedDuration::from_hours;
        let status = |lifetime: i64, left: i64| CertificateStatus {
            name: "a.test".to_owned(),
            source: CertificateSource::File,
            not_before: now + hours(left - lifetime),
            not_after: now + hours(left),
        };
        for (lifetime_d, left_h, near) in [
            (90, -1, true),
            (90, 0, true),
            (90, 14 * 24 - 1, true),
            (90, 14 * 24, false),
            (90, 90 * 24, false),
            (6, 6 * 24, false),
            (6, 2 * 24, false),
            (6, 36, false),
            (6, 35, true),
            (6, -1, true),
        ] {
            assert_eq!(status(24 * lifetime_d, left_h).is_near_end(now), near, "{lifetime_d} d, {left_h} h left");
        }
    }
}
