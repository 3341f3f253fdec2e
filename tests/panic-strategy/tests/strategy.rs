//! What arrives of a program that panics, and where it may wait, as built with `panic = "unwind"` or `"abort"`.
//!
//! `ci/panic-abort` sets `PANIC_STRATEGY_PROGRAM` to the program as built with the latter.

use std::process::{Command, Output, Stdio};

fn run(place: &str) -> Output {
    let path = std::env::var("PANIC_STRATEGY_PROGRAM");
    let path = path.unwrap_or_else(|_| env!("CARGO_BIN_EXE_panic-strategy").into());
    Command::new(path)
        .arg(place)
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE")
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn aborts() -> bool {
    text(&run("strategy").stdout).trim() == "abort"
}

/// The panics that have arrived.
fn panics(output: &Output) -> usize {
    text(&output.stdout).matches("UNHANDLED_EXCEPTION").count()
}

/// The results of waits.
fn results(output: &Output) -> Vec<String> {
    let stdout = text(&output.stdout);
    let lines = stdout.lines().filter(|line| !line.starts_with('{'));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_panic_that_ends_the_process_is_delivered_first() {
    for place in ["main", "block-on", "block-on-local-set"] {
        let output = run(place);
        assert!(!output.status.success(), "{place}: {output:?}");
        assert_eq!(panics(&output), 1, "{place}: {output:?}");
    }
}

#[test]
fn a_panic_elsewhere_is_delivered_first_where_panics_abort_and_else_waits_for_nothing() {
    let expected = usize::from(aborts());
    for place in ["thread", "task"] {
        let output = run(place);
        assert_eq!(panics(&output), expected, "{place}: {output:?}");
    }
}

#[test]
fn a_panic_elsewhere_is_delivered_first_where_the_hook_has_a_timeout() {
    for place in ["thread-with-timeout", "task-with-timeout"] {
        let output = run(place);
        assert_eq!(panics(&output), 1, "{place}: {output:?}");
    }
}

#[test]
fn twelve_panics_on_two_workers_hold_no_healthy_task() {
    // With panic = "abort" the first one ends the process.
    let places = ["healthy", "silent", "refusing"];
    for place in places.iter().filter(|_| !aborts()) {
        let output = run(place);
        assert!(output.status.success(), "{place}: {output:?}");
        let results = results(&output);
        assert!(results[0].starts_with("25 events"), "{place}: {output:?}");
        println!("{place}: {}", results[0]);
    }
}

#[test]
fn blocking_works_on_workers_and_in_block_on() {
    for place in ["wait-in-task", "wait-in-block-on"] {
        let output = run(place);
        assert!(output.status.success(), "{place}: {output:?}");
        assert_eq!(results(&output), ["drained: true"], "{place}: {output:?}");
        assert_eq!(panics(&output), 0, "{place}: {output:?}");
    }
}

#[test]
fn where_tokio_refuses_to_block_it_panics_at_most_once_per_thread_and_no_panic_is_logged() {
    let refused = ["blocking on this thread would deadlock the executor that runs the driver; await instead";
        3];
    for (place, expected) in [
        (
            "wait-in-local-set",
            &[&refused[..], &["drained: true"]].concat(),
        ),
        ("wait-in-entered", &refused.to_vec()),
    ] {
        let output = run(place);
        assert!(output.status.success(), "{place}: {output:?}");
        assert_eq!(results(&output), **expected, "{place}: {output:?}");
        assert_eq!(panics(&output), 0, "{place}: {output:?}");
        let seen = text(&output.stderr)
            .matches("can call blocking only")
            .count();
        assert_eq!(seen, usize::from(!aborts()), "{place}: {output:?}");
    }
}
