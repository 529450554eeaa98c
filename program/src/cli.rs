//! Arguments that both command lines have.

mod bulk;
mod edit;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

pub use self::{
    bulk::{BulkQuestion, BulkWhat, stop},
    edit::EditWhat,
};
use crate::{Failure, terminal};

/// Which events become a file, and of what form.
#[derive(Debug, Args)]
pub struct ExportWhat {
    /// The events' ids
    #[arg(value_name = "ID", required_unless_present = "q")]
    ids: Vec<String>,
    /// All that this query finds, such as 'endpoint:pay since:1d'
    #[arg(short, long = "query", value_name = "QUERY", conflicts_with = "ids")]
    q: Option<String>,
    /// The file's form
    #[arg(long = "as", value_enum, default_value_t, value_name = "FORM")]
    form: ExportFormArg,
    /// Without any value that its sender wrote: only the form of the requests stays
    #[arg(long)]
    pub redact: bool,
    /// The file [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ExportFormArg {
    /// A recording for `relay-client play`
    #[default]
    Cassette,
    /// An HTTP Archive, for browsers and proxies
    Har,
    /// Requests as HTTP/1.1 has them
    Http,
    /// Commands for a POSIX shell
    Curl,
    /// Commands for PowerShell
    CurlPs,
}

impl ExportWhat {
    /// As the API calls it.
    pub fn form(&self) -> &'static str {
        match self.form {
            ExportFormArg::Cassette => "cassette",
            ExportFormArg::Har => "har",
            ExportFormArg::Http => "http",
            ExportFormArg::Curl => "curl",
            ExportFormArg::CurlPs => "curl-ps",
        }
    }

    /// As the API is asked for them.
    pub fn which(&self) -> Value {
        match &self.q {
            Some(q) => json!({ "q": q }),
            None => json!({ "ids": self.ids }),
        }
    }

    pub fn write(&self, file: &[u8]) -> Result<(), Failure> {
        match &self.output {
            None => terminal::body(file),
            Some(path) => {
                std::fs::write(path, file).with_context(|| format!("cannot write {}", path.display()))?;
                terminal::note(&format!("{} bytes are in {}", file.len(), path.display()));
                Ok(())
            }
        }
    }
}
