//! `check <firmware output>`: checks the output, and compares it with that of the same scenario on this host.

mod check;
mod host;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: check <firmware output>");
        return ExitCode::FAILURE;
    };
    match std::fs::read_to_string(&path)
        .map_err(|error| format!("{path}: {error}"))
        .and_then(|printed| check_firmware(&printed))
    {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Checks a run and reports what it did.
fn check_firmware(printed: &str) -> Result<String, String> {
    let (runs, rest) = check::sessions(printed)?;
    let held = check::held(rest)?;
    let [scenario, storm] = &runs[..] else {
        return Err(format!("expected two sessions, found {}", runs.len()));
    };
    scenario.expect_responses(scenario::REPLIES)?;
    storm.expect_interrupted_thread()?;
    let (there, here) = (scenario.printed, host::run());
    if let Some(difference) = check::difference(there, here) {
        return Err(format!("the host's requests differ: {difference}"));
    }
    Ok(format!(
        "{scenario}\n{storm}\n{held}\nThe scenario printed the same on this host, byte for byte."
    ))
}
