//! `[tls]`: the certificates that the public listeners have.

use std::fs::File;
use std::path::{Path, PathBuf};

use relay_program::config::{Place, Section};

use super::{Context, acme, clients, doubt};
use crate::config::keys;
use crate::config::settings::TlsSettings;
use crate::tls::{CertificateFiles, TlsFiles};

/// Certificates that one relay may have.
const MAX_CERTIFICATES: usize = 1000;

/// Whether the relay ends TLS at all.
pub(super) fn is_there(main: &Section<'_>, context: Context<'_>) -> bool {
    main.has("tls") || context.flags.tls_cert.is_some() || context.flags.tls_key.is_some()
}

pub(super) fn settings(main: &Section<'_>, context: Context<'_>) -> Option<TlsSettings> {
    let (cert, key) = (context.flags.tls_cert.as_deref(), context.flags.tls_key.as_deref());
    if !is_there(main, context) {
        return None;
    }
    let tls = main.section("tls", keys::TLS).under("cert", "--tls-cert", cert.and_then(Path::to_str)).under(
        "key",
        "--tls-key",
        key.and_then(Path::to_str),
    );
    let place = match (cert, key) {
        (Some(_), _) => Place::flag("--tls-cert"),
        (None, Some(_)) => Place::flag("--tls-key"),
        (None, None) => main.place("tls"),
    };
    let report = main.report();
    let before = report.errors();
    let mut certificates: Vec<CertificateFiles> = pair(&tls, &place, context, [cert, key]).into_iter().collect();
    let rows = tls.rows("certificate", "cert", keys::CERTIFICATE);
    if rows.len() > MAX_CERTIFICATES {
        report.error(&tls.place("certificate"), format!("there are more than {MAX_CERTIFICATES}"), "");
    }
    certificates.extend(rows.iter().filter_map(|row| {
        row.require(&["cert", "key"]);
        pair(row, &row.here(), context, [None, None])
    }));
    let acme = acme::settings(&tls, context);
    if certificates.is_empty() && acme.is_none() && report.errors() == before {
        let help = "set cert = \"FILE\" and key = \"FILE\", or acme, or leave [tls] out";
        report.error(&place, "neither certificate nor key is named", help);
    }
    let clients = clients::clients(&tls, context);
    Some(TlsSettings { files: TlsFiles { certificates, clients }, acme })
}

/// A certificate and its key, where both are named.
fn pair(
    table: &Section<'_>,
    place: &Place,
    context: Context<'_>,
    [cert, key]: [Option<&Path>; 2],
) -> Option<CertificateFiles> {
    let cert = file(table, "cert", cert, context);
    let key = file(table, "key", key, context);
    let report = table.report();
    let (message, help) = match (cert, key) {
        (Some(cert), Some(key)) => {
            for path in [&cert, &key].into_iter().filter(|_| context.around.is_some()) {
                if let Err(error) = File::open(path) {
                    report.error(place, format!("cannot read {}: {error}", path.display()), "");
                }
                doubt(path, place, report);
            }
            return Some(CertificateFiles { cert, key });
        }
        (Some(_), None) => ("there is a certificate and no key", "set key = \"FILE\" or --tls-key FILE"),
        (None, Some(_)) => ("there is a key and no certificate", "set cert = \"FILE\" or --tls-cert FILE"),
        (None, None) => return None,
    };
    report.error(place, message, help);
    None
}

/// A file that a key or a flag names.
pub(super) fn file(
    table: &Section<'_>,
    name: &'static str,
    flag: Option<&Path>,
    context: Context<'_>,
) -> Option<PathBuf> {
    let typed = || table.text(name).map(|path| context.base.join(path.value));
    let path = flag.map(Path::to_owned).or_else(typed);
    table.show_if(name, path.as_ref().map(|path| path.display().to_string()));
    path
}
