//! The `gristmill` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    gristmill::cli::main()
}
