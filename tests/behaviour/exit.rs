//! How programs end, and what arrives before they exit. Each program is a separate process.

use crate::support::{Failure, KEY, SESSION, child, events, is_child, names};
use std::process::Output;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::{Severity, Telemetry, fields, init};

/// Runs a program against the collector until it exits.
fn run(test: &str, collector: &Collector, variables: &[(&str, &str)]) -> Output {
    child(&format!("exit::{test}"))
        .env("TINKER_API_KEY", KEY)
        .env("TINKER_BASE_URL", collector.url())
        .envs(variables.iter().copied())
        .output()
        .expect("it runs")
}

fn strict() -> Collector {
    Collector::builder()
        .api_key(KEY)
        .start()
        .expect("a collector")
}

fn short_program() -> Telemetry {
    let telemetry = init(SESSION).expect("it starts");
    for n in 0..20 {
        assert!(telemetry.log("step", fields! { n: n }));
    }
    telemetry
}

fn check_events(collector: &Collector, more: &[&str]) {
    let names = names(collector);
    assert_eq!(names[0], "SESSION_START");
    assert_eq!(names[1..21], ["step"; 20]);
    assert_eq!(names[21..], *more);
    assert_eq!(collector.violations(), []);
}

#[test]
fn a_short_program_sends_everything_before_it_exits() {
    let collector = strict();
    let output = run("child_is_short", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    check_events(&collector, &["SESSION_END"]);
}

#[test]
fn child_is_short() {
    if is_child() {
        let _telemetry = short_program();
    }
}

#[test]
fn a_panicking_program_sends_everything_before_it_exits() {
    let collector = strict();
    let output = run("child_panics", &collector, &[]);
    assert!(!output.status.success(), "{output:?}");
    check_events(&collector, &["SESSION_END"]);
}

#[test]
fn child_panics() {
    if is_child() {
        let _telemetry = short_program();
        panic!("a test panic");
    }
}

#[test]
fn a_program_may_exit_right_after_a_fatal_error() {
    let collector = strict();
    let output = run("child_exits", &collector, &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    check_events(&collector, &["UNHANDLED_EXCEPTION", "SESSION_END"]);
}

#[test]
fn child_exits() {
    if is_child() {
        let telemetry = short_program();
        let drain =
            telemetry.log_fatal_exception_blocking(&Failure("fatal", None), Severity::Error);
        assert!(drain.is_ok_and(|drain| drain.all_delivered()));
        std::process::exit(3);
    }
}

#[test]
fn a_panic_hook_sends_the_panic() {
    let collector = strict();
    let output = run("child_has_a_hook", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    check_events(&collector, &["UNHANDLED_EXCEPTION", "SESSION_END"]);
    let event = events(&collector)[21].value();
    assert_eq!(event["error_message"], "a test panic");
}

#[test]
fn child_has_a_hook() {
    if is_child() {
        let telemetry = short_program();
        let handle = telemetry.handle();
        std::panic::set_hook(Box::new(move |_| {
            let error = Failure("a test panic", None);
            let _ = handle.log_fatal_exception_blocking(&error, Severity::Critical);
        }));
        let panicked = std::thread::spawn(|| panic!("seen by the hook")).join();
        assert!(panicked.is_err());
    }
}

#[test]
fn the_stack_in_a_traceback_belongs_to_the_failing_code() {
    let collector = strict();
    let with_stack = [("RUST_BACKTRACE", "1")];
    let output = run("child_fails", &collector, &with_stack);
    assert!(output.status.success(), "{output:?}");
    let event = events(&collector)[1].value();
    let traceback = event["traceback"].as_str().expect("there is one");
    let (chain, stack) = traceback.split_once("\nStack:\n").expect(traceback);
    assert_eq!(chain, "Caused by: Failure: inner");
    // The frames begin with the code that called the session.
    let first = stack.lines().next().expect("a frame");
    assert!(first.contains("failing_code"), "{stack}");

    let collector = strict();
    let output = run("child_fails", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    let event = events(&collector)[1].value();
    assert_eq!(event["traceback"], "Caused by: Failure: inner");
}

#[test]
fn child_fails() {
    if is_child() {
        failing_code(&init(SESSION).expect("it starts"));
    }
}

#[inline(never)]
fn failing_code(telemetry: &Telemetry) {
    let inner = Failure("inner", None);
    let error = Failure("outer", Some(Box::new(inner)));
    assert!(telemetry.log_exception(&error, Severity::Error));
}
