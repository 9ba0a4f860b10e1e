//! Executable of the lab; all code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mptcp_trace_lab::cli::main()
}
