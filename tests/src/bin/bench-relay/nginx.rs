//! nginx, if it is there: as the handler, and as one or two proxies before it.
//!
//! One process each with kept connections on every hop, tuned as one would for many small webhooks: no access log, no
//! limit of requests for a connection, bodies passed on as they come.

use std::{fmt::Write as _, path::Path};

/// A server of nginx.
pub(crate) struct Nginx<'a> {
    /// `ip:port`.
    pub(crate) listen: &'a str,
    /// With `cert.pem` and `key.pem`, if it speaks TLS.
    pub(crate) secure: Option<&'a Path>,
    pub(crate) role: Role<'a>,
}

pub(crate) enum Role<'a> {
    /// Answers every request.
    Handler,
    /// Passes on to an address, over TLS or not.
    Proxy { next: &'a str, is_secure: bool },
}

/// What the handler answers to a small request, and how long its answer at `/big` is.
pub(crate) const ANSWER: &str = "ok: event accepted.\n";
pub(crate) const BIG_BYTES: usize = 1_000_000;

impl Nginx<'_> {
    /// Its config; it keeps its files in `folder`, where `big` is what it answers there.
    pub(crate) fn config(&self, folder: &Path) -> String {
        let folder = folder.display();
        let mut text = format!(
            "daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log stderr crit;\n\
             events {{ worker_connections 16384; }}\nhttp {{ access_log off; keepalive_requests 1000000000;\n"
        );
        for place in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(text, "{place}_temp_path {folder}/{place};");
        }
        if let Role::Proxy { next, .. } = self.role {
            let _ = writeln!(
                text,
                "upstream next {{ server {next}; keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 1h; }}"
            );
        }
        let ssl = if self.secure.is_some() { " ssl" } else { "" };
        let _ = writeln!(text, "server {{ listen {}{ssl} backlog=4096; client_max_body_size 0;", self.listen);
        if let Some(keys) = self.secure.map(Path::display) {
            let _ = writeln!(
                text,
                "ssl_certificate {keys}/cert.pem; ssl_certificate_key {keys}/key.pem; ssl_protocols TLSv1.3;"
            );
        }
        match self.role {
            // `return` answers before a body has come, so that a long one is read by a proxy to itself. A static file
            // takes no POST; as the page of an error it is asked for with GET.
            Role::Handler => {
                let _ = writeln!(
                    text,
                    "location / {{ return 200 \"{}\"; }}\n\
                     location /up {{ client_body_buffer_size 1m; proxy_pass http://{}/; proxy_pass_request_body off;\n\
                     proxy_set_header Content-Length \"\"; }}\n\
                     location /big {{ root {folder}; error_page 405 =200 $uri; }}",
                    ANSWER.replace('\n', "\\n"),
                    self.listen
                );
            }
            Role::Proxy { is_secure, .. } => {
                let scheme = if is_secure { "https" } else { "http" };
                let _ = writeln!(
                    text,
                    "location / {{ proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                     proxy_ssl_protocols TLSv1.3; client_body_buffer_size 1m; proxy_max_temp_file_size 0; }}"
                );
            }
        }
        text + "} }\n"
    }
}
