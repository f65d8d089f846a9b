//! The `tideover` binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    tideover::cli::main()
}
