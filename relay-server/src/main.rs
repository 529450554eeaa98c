//! The thin binary around [`relay_server`].

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_server::cli::main()
}
