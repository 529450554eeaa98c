//! What a command line changes of an event before it is delivered once more.

use std::{io::Read, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use data_encoding::BASE64;

use crate::{Failure, api::Edit};

/// Longest body that the relay takes of an edit, in bytes, as base64 in a request of 1 MiB.
const MAX_BODY_BYTES: u64 = 700 * 1024;

/// Changes to an event.
#[derive(Debug, Default, Args)]
pub struct EditWhat {
    /// With this method instead
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// With this in place of what followed the endpoint, such as '/x?y=1'
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// With this header in place of those of its name; 'Name:' leaves them out
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// With this file's content as its body; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
}

impl EditWhat {
    pub fn is_none(&self) -> bool {
        self.method.is_none() && self.target.is_none() && self.headers.is_empty() && self.body_file.is_none()
    }

    /// Whether the event's own headers have to be known for it.
    pub fn needs_headers(&self) -> bool {
        !self.headers.is_empty()
    }

    /// As the API takes it. `shown` are the event's own headers as the relay shows them: those that come back so stay as
    /// they are.
    pub fn edit(&self, shown: &[(String, String)], stdin: impl Read) -> Result<Edit, Failure> {
        let mut edit = Edit { method: self.method.clone(), target: self.target.clone(), ..Edit::default() };
        if self.needs_headers() {
            edit.headers = Some(self.lines(shown)?);
        }
        if let Some(path) = &self.body_file {
            let body = body(path, stdin)?;
            match String::from_utf8(body) {
                Ok(text) => edit.body_text = Some(text),
                Err(bytes) => edit.body_base64 = Some(BASE64.encode(bytes.as_bytes())),
            }
        }
        Ok(edit)
    }

    /// The event's headers with these changes.
    pub fn lines(&self, shown: &[(String, String)]) -> Result<Vec<(String, String)>, Failure> {
        let mut given = Vec::new();
        for typed in &self.headers {
            let wrong = || Failure::Usage(format!("--header {typed:?}: write it as 'Name: value'"));
            let (name, value) = typed.split_once(':').ok_or_else(wrong)?;
            if name.trim().is_empty() {
                return Err(wrong());
            }
            given.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        let is_given = |name: &str| given.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let mut lines: Vec<_> = shown.iter().filter(|(name, _)| !is_given(name)).cloned().collect();
        lines.extend(given.iter().filter(|(_, value)| !value.is_empty()).cloned());
        Ok(lines)
    }
}

fn body(path: &PathBuf, stdin: impl Read) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let mut body = Vec::new();
    let read = if path.as_os_str() == "-" {
        stdin.take(MAX_BODY_BYTES + 1).read_to_end(&mut body)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_BODY_BYTES + 1).read_to_end(&mut body))
    };
    read.with_context(|| format!("--body-file {shown}: it cannot be read"))?;
    if body.len() as u64 > MAX_BODY_BYTES {
        let why = format!("--body-file {shown}: a body that is changed has at most {} KiB", MAX_BODY_BYTES / 1024);
        return Err(Failure::Usage(why));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn headers_take_the_place_of_those_of_their_name_and_all_others_stay() {
        let shown = [line("content-type", "text/plain"), line("authorization", "[masked]"), line("x-a", "1")];
        let typed = ["Content-Type: application/json", "X-A:", "x-new: a:b", "x-new: c"].map(str::to_owned);
        let edit = EditWhat { headers: typed.to_vec(), ..EditWhat::default() }.edit(&shown, &b""[..]).unwrap();
        let expected = vec![
            line("authorization", "[masked]"),
            line("content-type", "application/json"),
            line("x-new", "a:b"),
            line("x-new", "c"),
        ];
        assert_eq!(edit, Edit { headers: Some(expected), ..Edit::default() });
        for wrong in ["no colon", ": value"] {
            let what = EditWhat { headers: vec![wrong.to_owned()], ..EditWhat::default() };
            assert!(matches!(what.edit(&shown, &b""[..]), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn a_body_is_text_or_base64_and_has_an_end() {
        let what = EditWhat { body_file: Some("-".into()), ..EditWhat::default() };
        assert_eq!(what.edit(&[], &b"text"[..]).unwrap().body_text.as_deref(), Some("text"));
        assert_eq!(what.edit(&[], &b"\xff"[..]).unwrap().body_base64.as_deref(), Some("/w=="));
        assert!(matches!(what.edit(&[], std::io::repeat(0)), Err(Failure::Usage(_))));
    }
}
