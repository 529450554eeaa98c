//! What verifying costs: a 2 KB webhook of GitHub and of Stripe, beside the bare HMAC-SHA256 of the same bytes.
//!
//! Rounds of both take turns, so that what else the machine does meets both alike; the middle ratio counts.
//! `cargo bench-verify` runs it, built as a release is.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use relay_schemes::{Request, Secret, provider};
use sha2::Sha256;

const ROUNDS: usize = 41;
const EACH: u32 = 5000;
const SECRET: &str = "It's a Secret to Everybody";
const NOW: i64 = 1_770_000_000;

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed(mut work: impl FnMut()) -> Duration {
    let started = Instant::now();
    for _ in 0..EACH {
        work();
    }
    started.elapsed()
}

fn main() {
    let body = vec![b'x'; 2048];
    for name in ["github", "stripe", "standard-webhooks"] {
        let scheme = provider(name).and_then(|row| row.scheme.as_ref()).expect("a row");
        let secret = if name == "standard-webhooks" { "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" } else { SECRET };
        let keys = scheme.keys(&[Secret::new(secret)]).expect("a key");
        let none: [(&str, &str); 0] = [];
        let unsigned = Request { method: "POST", url: "https://hooks.example.com/in", headers: &none, body: &body };
        let headers = scheme.sign(&keys, &unsigned, Some("msg_1"), NOW).expect("signs").headers;
        let request = Request { headers: &headers, ..unsigned };
        let mut rounds: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let bare = timed(|| {
                    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length will do");
                    mac.update(black_box(&body));
                    black_box(mac.finalize().into_bytes());
                });
                let whole = timed(|| {
                    let verified = scheme.verify(&keys, black_box(&request), NOW);
                    assert!(verified.is_ok());
                });
                (whole.as_secs_f64() / bare.as_secs_f64(), whole, bare)
            })
            .collect();
        rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (ratio, whole, bare) = rounds[ROUNDS / 2];
        let micros = |span: Duration| span.as_secs_f64() * 1e6 / f64::from(EACH);
        println!("{name}: {:.2} µs to verify 2 KB, {:.2} µs bare: {ratio:.2} times", micros(whole), micros(bare));
    }
}
