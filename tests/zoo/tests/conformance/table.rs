//! The table of results: printed when all cases have run, and compared with the documentation.

use crate::PAIRS;
use alloc::collections::BTreeMap;
use core::panic::AssertUnwindSafe;
use std::io::Write as _;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::Mutex;

/// A runtime and an HTTP client, as named in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) runtime: &'static str,
    pub(crate) http: &'static str,
}

/// The result of a case that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// The runtime lacks what the case tests.
    DoesNotApply,
}

/// The results of the cases so far; `None` is a failure.
type Row = BTreeMap<&'static str, Option<Verdict>>;

static ROWS: Mutex<BTreeMap<Pair, Row>> = Mutex::new(BTreeMap::new());

/// Runs a case.
pub(crate) fn record(pair: Pair, case: &'static str, run: impl FnOnce() -> Verdict) {
    let result = catch_unwind(AssertUnwindSafe(run));
    let mut rows = ROWS.lock().expect("no panic under the lock");
    let verdict = result.as_ref().ok().copied();
    rows.entry(pair).or_default().insert(case, verdict);
    let has_run = |(pair, cases): &(Pair, usize)| rows.get(pair).map(Row::len) == Some(*cases);
    if PAIRS.iter().all(has_run) {
        // Not `print!`: the output of passing tests is captured.
        let _ = std::io::stderr().write_all(show(&rows).as_bytes());
    }
    drop(rows);
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

fn show(rows: &BTreeMap<Pair, Row>) -> String {
    let mut text = String::from("\n\nConformance: what passes\n");
    for (pair, cases) in PAIRS {
        let count = |verdict| {
            let verdicts = rows.get(pair).into_iter().flat_map(BTreeMap::values);
            verdicts.filter(|found| **found == verdict).count()
        };
        text += &format!(
            "  {:<42}{:<20}{:>3} of {cases}, {} do not apply, {} failed\n",
            pair.runtime,
            pair.http,
            count(Some(Verdict::Passed)),
            count(Some(Verdict::DoesNotApply)),
            count(None),
        );
    }
    text
}

#[test]
fn the_documentation_shows_every_pair() {
    let page = include_str!("../../../../docs/runtimes.md");
    let table = page
        .split_once("| on | with |")
        .expect("the page has the table")
        .1;
    let rows: Vec<_> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected = PAIRS
        .iter()
        .map(|(pair, _)| format!("| {} | {} |", pair.runtime, pair.http));
    assert_eq!(rows, expected.collect::<Vec<_>>());
}
