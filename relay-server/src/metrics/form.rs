//! The two forms of the metrics, and which of them a request asks for.
//!
//! The registry writes OpenMetrics 1.0. This module makes Prometheus' older text format 0.0.4 of that, line by line: no
//! unit and no end, counters and infos under the names of their samples. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which everything reads.
    Text,
}

impl Form {
    /// The form that lines of `Accept` ask for: OpenMetrics for who prefers it by name, text for everybody else.
    pub(crate) fn asked_for<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for range in accept.into_iter().flat_map(|line| line.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            match kind.as_str() {
                "application/openmetrics-text" => open = open.max(weight),
                "text/plain" => text = text.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    pub(super) fn of(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Text => plain(&openmetrics),
        }
    }
}

/// A family begins with its help, its type and perhaps its unit; the name in these depends on the type.
fn plain(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                out.push_str(&format!("# HELP {name}{suffix} {words}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_openmetrics_gets_it_and_everybody_else_gets_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in
            [&[prometheus][..], &["application/openmetrics-text"], &["*/*", "Application/OpenMetrics-Text; Q=0.1"]]
        {
            assert_eq!(Form::asked_for(accept.iter().copied()), Form::OpenMetrics, "{accept:?}");
        }
        for accept in [
            &[][..],
            &["*/*"],
            &["text/plain"],
            &["text/html,application/xhtml+xml,*/*;q=0.8"],
            &["application/openmetrics-text;q=0, text/plain"],
            &["application/openmetrics-text;q=0.3", "text/plain;version=0.0.4;q=0.5"],
            &["application/openmetrics-text;q=x"],
        ] {
            assert_eq!(Form::asked_for(accept.iter().copied()), Form::Text, "{accept:?}");
        }
    }

    #[test]
    fn text_names_each_family_as_its_samples() {
        let openmetrics = "# HELP r_x X.\n# TYPE r_x counter\nr_x_total{endpoint=\"a\"} 1\n\
            # HELP r_d_seconds D.\n# TYPE r_d_seconds histogram\n# UNIT r_d_seconds seconds\nr_d_seconds_count 1\n\
            # HELP r_b B.\n# TYPE r_b info\nr_b_info{version=\"1\"} 1\n# HELP r_g G.\n# TYPE r_g gauge\nr_g 2\n# EOF\n";
        let expected = "# HELP r_x_total X.\n# TYPE r_x_total counter\nr_x_total{endpoint=\"a\"} 1\n\
            # HELP r_d_seconds D.\n# TYPE r_d_seconds histogram\nr_d_seconds_count 1\n\
            # HELP r_b_info B.\n# TYPE r_b_info gauge\nr_b_info{version=\"1\"} 1\n# HELP r_g G.\n# TYPE r_g gauge\nr_g 2\n";
        assert_eq!(Form::Text.of(openmetrics.to_owned()), expected);
        assert_eq!(Form::OpenMetrics.of(openmetrics.to_owned()), openmetrics);
    }
}
