//! The program `tinkex-telemetry`: see, break, keep and play back telemetry on this machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    tinkex_telemetry::cli::main()
}
