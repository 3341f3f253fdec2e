//! `embedded <what the firmware printed>`: checks it, and compares it with the same scenario on this host.

mod check;
mod host;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: embedded <what the firmware printed>");
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

/// What is known of a run that passed the check.
fn check_firmware(printed: &str) -> Result<String, String> {
    let (runs, rest) = check::sessions(printed)?;
    let held = check::held(rest)?;
    let [scenario, storm] = &runs[..] else {
        return Err(format!("there are {} sessions, not two", runs.len()));
    };
    scenario.expect_answers(scenario::ANSWERS)?;
    storm.expect_interrupted_thread()?;
    let (there, here) = (scenario.printed, host::run());
    if let Some(difference) = check::difference(there, here) {
        return Err(format!("the host's requests are others: {difference}"));
    }
    Ok(format!(
        "{scenario}\n{storm}\n{held}\nThe scenario is the same on this host, to the last byte."
    ))
}
