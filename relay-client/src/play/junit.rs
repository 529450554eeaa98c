//! Results in the form that CI systems read (JUnit's XML).
//!
//! Foreign text is escaped, and what XML cannot carry is left out. Invariants: at most [`MAX_CASES`] are kept; beyond
//! that they are counted, and the file says so.

use std::{fmt::Write as _, time::Duration};

const MAX_CASES: usize = 100_000;
/// Of a name or a message.
const MAX_CHARS: usize = 500;

#[derive(Debug, Default)]
pub(crate) struct Report {
    cases: Vec<Case>,
    left_out: u64,
}

#[derive(Debug)]
pub(crate) struct Case {
    /// What was sent.
    pub name: String,
    pub took: Duration,
    /// Why it is none that was expected.
    pub failure: Option<String>,
}

impl Report {
    pub(crate) fn add(&mut self, case: Case) {
        if self.cases.len() < MAX_CASES { self.cases.push(case) } else { self.left_out += 1 }
    }

    /// The document, for the recording of that name.
    pub(crate) fn xml(&self, suite: &str) -> String {
        let failures = self.cases.iter().filter(|case| case.failure.is_some()).count();
        let took: Duration = self.cases.iter().map(|case| case.took).sum();
        let (suite, tests, seconds) = (escaped(suite), self.cases.len(), took.as_secs_f64());
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        // Writing to a string does not fail.
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{suite}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" time=\"{seconds:.6}\">"
        );
        for Case { name, took, failure } in &self.cases {
            let (name, seconds) = (escaped(name), took.as_secs_f64());
            let _ = write!(xml, "    <testcase classname=\"{suite}\" name=\"{name}\" time=\"{seconds:.6}\"");
            let _ = match failure {
                None => writeln!(xml, "/>"),
                Some(why) => writeln!(xml, "><failure message=\"{}\"/></testcase>", escaped(why)),
            };
        }
        if self.left_out > 0 {
            let _ = writeln!(xml, "    <system-out>{} more are not listed</system-out>", self.left_out);
        }
        xml.push_str("  </testsuite>\n</testsuites>\n");
        xml
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars().take(MAX_CHARS) {
        match char {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // Characters that XML 1.0 has not, and those that would steer who reads it.
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_sent_the_document_stays_one() {
        let mut report = Report::default();
        let evil = "\"/><failure a='&lt;'>\u{0}\u{1b}[2J\n]]>";
        report.add(Case { name: evil.to_owned(), took: Duration::from_millis(1500), failure: None });
        report.add(Case { name: "b".to_owned(), took: Duration::ZERO, failure: Some(evil.to_owned()) });
        let xml = report.xml("a&b.cassette");
        assert!(xml.contains("tests=\"2\" failures=\"1\"") && xml.contains("time=\"1.500000\""), "{xml}");
        assert!(xml.contains("name=\"a&amp;b.cassette\"") && xml.contains("&quot;/&gt;&lt;failure"), "{xml}");
        assert_eq!(xml.matches("<failure").count(), 1);
        assert!(!xml.contains('\u{1b}') && !xml.contains('\u{0}'));
    }
}
