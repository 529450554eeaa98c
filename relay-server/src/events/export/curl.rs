//! A request as a command line that sends it again, for a POSIX shell and for PowerShell.
//!
//! Invariant: nothing that a sender wrote is read by the shell, or by curl, as anything but text: no file is sent for an
//! `@`, and no address is made of brackets and braces.

use super::Exported;

/// A longer body comes from a file.
const MAX_INLINE_BYTES: usize = 4096;

/// Lines that curl writes itself, or that the relay added.
const LEFT_OUT: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "accept-encoding"];

/// What stands in the place of what lets its bearer in.
const TOKEN: &str = "TOKEN";

/// A line of the request, as far as a command line can have it.
enum Line<'a> {
    Text(&'a str, &'a str),
    /// Its value is for whoever runs the command to give.
    Credential(&'a str),
    /// It has bytes that a command line cannot have.
    Unwritable(&'a str),
}

fn lines(event: &Exported) -> impl Iterator<Item = Line<'_>> {
    let kept = event.headers.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
    kept.map(|(name, value)| match std::str::from_utf8(value) {
        _ if event.masked.contains(name) => Line::Credential(name),
        Ok(text) if !text.chars().any(char::is_control) => Line::Text(name, text),
        _ => Line::Unwritable(name),
    })
}

/// The body as text, where a command line can have it.
fn inline(event: &Exported) -> Option<&str> {
    let text = std::str::from_utf8(&event.body).ok()?;
    let is_plain = !text.chars().any(|char| char.is_control() && char != '\n');
    (text.len() <= MAX_INLINE_BYTES && is_plain).then_some(text)
}

fn file(event: &Exported) -> String {
    format!("{}.bin", event.id)
}

fn has_credential(event: &Exported) -> bool {
    lines(event).any(|line| matches!(line, Line::Credential(_)))
}

pub(super) fn posix(event: &Exported) -> String {
    let mut text = String::new();
    if has_credential(event) {
        text.push_str(&format!("# {TOKEN}=… has to be set: the relay does not show credentials\n"));
    }
    let body = inline(event);
    if body.is_none() {
        let (id, file) = (&event.id, file(event));
        text.push_str(&format!("relay-server event body {id} > {file}\n"));
    }
    let mut words = vec![format!("curl -sSg -X {}", posix_quoted(&event.method)), posix_quoted(&event.url)];
    for line in lines(event) {
        match line {
            // A header without a value is written with a semicolon.
            Line::Text(name, "") => words.push(format!("-H {}", posix_quoted(&format!("{name};")))),
            Line::Text(name, value) => words.push(format!("-H {}", posix_quoted(&format!("{name}: {value}")))),
            Line::Credential(name) => words.push(format!("-H {}\"${TOKEN}\"", posix_quoted(&format!("{name}: ")))),
            Line::Unwritable(name) => {
                text.insert_str(0, &format!("# the header {name} is left out: its value is not text\n"));
            }
        }
    }
    match body {
        Some("") => {}
        Some(body) => words.push(format!("--data-raw {}", posix_quoted(body))),
        None => words.push(format!("--data-binary {}", posix_quoted(&format!("@{}", file(event))))),
    }
    text + &words.join(" \\\n  ") + "\n"
}

fn posix_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// `curl` reads its options from what is piped to it, since PowerShell changes quotes in arguments. A body that begins with
/// `@`, or that older PowerShells would not pipe as it is, comes from a file.
pub(super) fn powershell(event: &Exported) -> String {
    let mut text = String::new();
    if has_credential(event) {
        text.push_str(&format!("# ${TOKEN} = \"…\" has to be set: the relay does not show credentials\n"));
    }
    let body = inline(event).filter(|body| body.is_ascii() && !body.starts_with('@'));
    if body.is_none() {
        let (id, file) = (&event.id, file(event));
        text.push_str(&format!("relay-server event body {id} --output {file}\n"));
    }
    let mut options = vec![
        "silent".to_owned(),
        "show-error".to_owned(),
        "globoff".to_owned(),
        format!("request = {}", config_quoted(&event.method)),
        format!("url = {}", config_quoted(&event.url)),
    ];
    for line in lines(event) {
        match line {
            Line::Text(name, value) if value.is_ascii() && !value.is_empty() => {
                options.push(format!("header = {}", config_quoted(&format!("{name}: {value}"))));
            }
            Line::Text(name, "") => options.push(format!("header = {}", config_quoted(&format!("{name};")))),
            Line::Credential(name) => options.push(format!("header = \"{name}: ${TOKEN}\"")),
            Line::Text(name, _) | Line::Unwritable(name) => {
                text.insert_str(0, &format!("# the header {name} is left out: its value is not ASCII\n"));
            }
        }
    }
    match body {
        Some("") => {}
        Some(body) => options.push(format!("data-binary = {}", config_quoted(body))),
        None => options.push(format!("data-binary = {}", config_quoted(&format!("@{}", file(event))))),
    }
    format!("{text}@\"\n{}\n\"@ | curl.exe --config -\n", options.join("\n"))
}

/// For curl's config, within a here-string of PowerShell, in which ` and $ would say something.
fn config_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '`' | '$' => quoted.extend(['`', char]),
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::{super::tests::exported, *};

    #[test]
    fn a_shell_reads_nothing_of_it_but_text() {
        let text = posix(&exported(false));
        // `sh` says what it would call.
        let script = format!("curl() {{ for one in \"$@\"; do printf '%s\\n' \"<$one>\"; done; }}\nTOKEN=mine\n{text}");
        let said = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
        let said = String::from_utf8(said.stdout).expect("text");
        for word in [
            "<POST>",
            "<https://hooks.test/pay/x?token=[masked]&y='>",
            "<x-quote: it's \"$HOME\" `id` \\ %PATH%>",
            "<authorization: mine>",
            "<{\"name\":\"it's $HOME\",\"n\":12}>",
        ] {
            assert!(said.lines().any(|line| line == word), "{word} is not in\n{said}");
        }
        assert!(text.contains("# the header x-raw is left out") && text.contains("# the header x-tab"), "{text}");
    }

    #[test]
    fn what_is_no_text_or_long_comes_from_a_file() {
        let mut event = exported(false);
        event.body = vec![b'a'; MAX_INLINE_BYTES + 1].into();
        let long = posix(&event);
        assert!(long.contains("relay-server event body hook_07") && long.contains("--data-binary '@hook_07"), "{long}");
        event.body = b"\0".to_vec().into();
        assert!(posix(&event).contains("'@hook_07") && powershell(&event).contains("\"@hook_07"));
        event.body = b"".to_vec().into();
        assert!(!posix(&event).contains("--data"));
    }

    #[test]
    fn curl_opens_no_file_and_no_other_address_that_a_sender_names() {
        let mut event = exported(false);
        event.body = b"@/etc/hostname".to_vec().into();
        assert!(posix(&event).contains("curl -sSg ") && posix(&event).contains("--data-raw '@/etc/hostname'"));
        assert!(powershell(&event).contains("\ngloboff\n") && powershell(&event).contains("data-binary = \"@hook_07"));
    }

    #[test]
    fn powershell_and_curl_read_nothing_of_it_but_text() {
        let text = powershell(&exported(false));
        assert!(text.contains("header = \"x-quote: it's \\\"`$HOME\\\" ``id`` \\\\ %PATH%\"\n"), "{text}");
        assert!(text.contains("data-binary = \"{\\\"name\\\":\\\"it's `$HOME\\\",\\\"n\\\":12}\"\n"), "{text}");
        assert!(text.contains("header = \"authorization: $TOKEN\"\n"), "{text}");
        assert!(text.ends_with("\"@ | curl.exe --config -\n"), "{text}");
    }
}
