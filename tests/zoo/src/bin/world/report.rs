//! One line per check, and their number.

use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::process::ExitCode;
use std::time::Instant;

/// What a check found: what it saw, or what is wrong.
pub(crate) type Checked = Result<String, String>;

/// An error where a condition does not hold.
pub(crate) fn ensure(holds: bool, problem: impl fmt::Display) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(problem.to_string())
    }
}

/// How much of a problem is shown: with many sessions, it can be long.
const MAX_CHARS: usize = 1500;

#[derive(Default)]
pub(crate) struct Report {
    passed: AtomicUsize,
    failed: AtomicUsize,
    skipped: AtomicUsize,
}

impl Report {
    pub(crate) fn check(&self, name: &str, check: impl FnOnce() -> Checked) {
        let start = Instant::now();
        let result = check();
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(seen) => {
                self.passed.fetch_add(1, Ordering::Relaxed);
                println!("ok    {name}: {seen} ({seconds:.1} s)");
            }
            Err(mut problem) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if let Some((end, _)) = problem.char_indices().nth(MAX_CHARS) {
                    problem.truncate(end);
                }
                println!("FAIL  {name}: {problem} ({seconds:.1} s)");
            }
        }
    }

    pub(crate) fn skip(&self, name: &str, reason: &str) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        println!("skip  {name}: {reason}");
    }

    /// Skipped checks fail unless they are optional.
    pub(crate) fn end(&self, is_optional: bool) -> ExitCode {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let (passed, failed, skipped) = (
            count(&self.passed),
            count(&self.failed),
            count(&self.skipped),
        );
        println!("{passed} checks passed, {failed} failed, {skipped} skipped");
        if failed == 0 && passed > 0 && (skipped == 0 || is_optional) {
            return ExitCode::SUCCESS;
        }
        if failed == 0 && skipped > 0 {
            println!("A skipped check is a failure, unless ci/world is given --optional.");
        }
        ExitCode::FAILURE
    }
}
