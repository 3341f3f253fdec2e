//! The check detects every fault that it is meant to detect.

use crate::{check, host};

/// Changes the scenario's output on this host and returns the result of the check.
fn changed(change: impl FnOnce(&str) -> String) -> Result<(), String> {
    let printed = change(host::run());
    check::sessions(&printed)?.0[0].expect_responses(scenario::REPLIES)
}

fn without_line(printed: &str, at: usize) -> String {
    let lines = printed.split_inclusive('\n').enumerate();
    lines
        .filter(|(n, _)| *n != at)
        .map(|(_, line)| line)
        .collect()
}

#[test]
fn the_scenario_passes_on_this_host() {
    assert_eq!(changed(str::to_owned), Ok(()));
}

#[test]
fn a_request_that_violates_the_wire_format_is_detected() {
    let reason = changed(|printed| printed.replacen("\"INFO\"", "\"LOUD\"", 1));
    assert!(reason.unwrap_err().contains("severity"));
}

#[test]
fn a_missing_request_is_detected() {
    for at in 0..12 {
        assert!(
            changed(|printed| without_line(printed, at)).is_err(),
            "{at}"
        );
    }
}

#[test]
fn an_event_that_changes_between_two_attempts_is_detected() {
    let reason = changed(|printed| printed.replacen("power on", "power 0n", 1));
    assert!(reason.unwrap_err().contains("two batches"));
}

#[test]
fn a_wrong_ledger_is_detected() {
    let reason = changed(|printed| printed.replacen("rejected=12", "rejected=11", 1));
    assert!(reason.unwrap_err().contains("rejected"));
    let reason = changed(|printed| printed.replacen("queue_full=", "queue_full=1", 1));
    assert!(reason.unwrap_err().contains("refusals"));
}

#[test]
fn a_session_without_its_end_is_detected() {
    let cut = |printed: &str| {
        let lines = printed.lines().count();
        without_line(printed, lines - 2)
    };
    assert!(changed(cut).unwrap_err().contains("SESSION_END"));
}
