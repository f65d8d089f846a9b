//! The `tideover` binary: arguments in, exit code out.

fn main() {}
