//! What a program without a logger sees of its losses, on stderr. Each program is a separate process.

use crate::support::{KEY, SESSION, child, is_child};
use core::time::Duration;
use std::process::Output;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq, fields};

/// The lines that the session writes to stderr while the program runs.
fn lines(test: &str, url: &str, wanted: Option<&str>) -> Vec<String> {
    let mut program = child(&format!("console::{test}"));
    program
        .env("TINKER_API_KEY", KEY)
        .env("TINKER_BASE_URL", url);
    program.env_remove("TINKER_LOG");
    if let Some(wanted) = wanted {
        program.env("TINKER_LOG", wanted);
    }
    let Output { status, stderr, .. } = program.output().expect("it runs");
    let stderr = String::from_utf8(stderr).expect("text");
    assert!(status.success(), "{stderr}");
    let lines = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("tinkex-telemetry: "));
    lines.map(str::to_owned).collect()
}

/// A backend that fails twice, then for good.
fn failing() -> Collector {
    let collector = Collector::start().expect("a collector");
    collector.always(Reply::status(503));
    collector
}

#[test]
fn a_guard_that_ends_with_losses_says_so_in_one_line_with_count_and_reason() {
    let collector = failing();
    let lines = lines("child_logs", &collector.url(), None);
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert!(
        line.starts_with(&format!("session \"{SESSION}\" has lost events. ")),
        "{line}"
    );
    assert!(line.contains("failed after 1 retry: "), "{line}");
    assert!(
        line.contains("503") && line.contains("(3 events dropped)"),
        "{line}"
    );
    assert!(
        line.contains("larger than 1000 bytes") && line.contains("(1 refused)"),
        "{line}"
    );
    assert!(!line.contains(KEY), "{line}");
}

#[test]
fn a_stop_before_an_exit_tells_of_losses_too_and_a_guard_then_does_not_repeat_it() {
    let collector = failing();
    for child in ["child_stops_and_exits", "child_stops_and_drops"] {
        let lines = lines(child, &collector.url(), None);
        let [line] = &lines[..] else {
            panic!("{child}: {lines:?}");
        };
        assert!(line.contains("(3 events dropped)"), "{line}");
        assert!(line.contains("(1 refused)"), "{line}");
    }
}

#[test]
fn a_logger_that_takes_no_warnings_is_as_good_as_none() {
    let collector = failing();
    for (child, expected) in [("child_has_a_deaf_logger", 1), ("child_has_a_logger", 0)] {
        let lines = lines(child, &collector.url(), None);
        assert_eq!(lines.len(), expected, "{child}: {lines:?}");
    }
}

#[test]
fn tinker_log_asks_for_more_and_for_nothing() {
    let collector = failing();
    let lines = |wanted| lines("child_logs", &collector.url(), Some(wanted));
    assert_eq!(lines("off"), [""; 0]);
    let debug = lines("debug");
    assert!(
        debug
            .iter()
            .any(|line| line.starts_with("DEBUG Telemetry send failed, will retry (1 attempt): ")),
        "{debug:?}"
    );
    let warn = lines("warn");
    assert!(
        warn.iter().all(|line| line.starts_with("WARN ")),
        "{warn:?}"
    );
    assert_eq!(warn.len(), 2, "{warn:?}");
    assert_eq!(lines("INFO").len(), 2);
}

#[test]
fn an_unknown_word_in_tinker_log_is_reported_once() {
    let collector = Collector::start().expect("a collector");
    let lines = lines("child_logs_twice", &collector.url(), Some("loud"));
    assert_eq!(
        lines,
        ["TINKER_LOG is \"loud\", which is none of debug, info, warn and off"]
    );
}

#[test]
fn a_program_that_loses_nothing_or_has_an_observer_is_not_disturbed() {
    for wanted in [None, Some("debug")] {
        let collector = Collector::start().expect("a collector");
        let lines = lines("child_logs_twice", &collector.url(), wanted);
        assert_eq!(lines, [""; 0]);
    }
    let collector = failing();
    assert_eq!(lines("child_observes", &collector.url(), None), [""; 0]);
}

fn run(observes: bool) {
    drop(start(observes));
}

/// A session that has logged what it will lose.
fn start(observes: bool) -> Reporter<HttpTransport<Ureq>, Thread, Thread> {
    let config = Config::from_env().expect("the environment is set");
    let builder = Reporter::builder(SESSION)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .enabled(true)
        .loss_report(false)
        .max_event_bytes(1_000)
        .max_retries(1)
        .retry_base_delay(Duration::from_millis(1));
    let builder = if observes {
        builder.on_diagnostic(|_| ())
    } else {
        builder
    };
    let session = builder.start().expect("it starts");
    session.log("x", ());
    session.log("large", fields! { text: "x".repeat(1_000) });
    session
}

#[test]
fn child_stops_and_exits() {
    if is_child() {
        let session = start(false);
        let drain = session.stop_blocking(Duration::from_secs(20));
        assert!(drain.is_ok_and(|drain| !drain.all_delivered()));
        std::process::exit(0);
    }
}

#[test]
fn child_stops_and_drops() {
    if is_child() {
        let session = start(false);
        let drain = session.stop_blocking(Duration::from_secs(20));
        assert!(drain.is_ok_and(|drain| !drain.all_delivered()));
    }
}

/// A logger that takes warnings, or only errors; it shows nothing.
struct Hidden(log::Level);

impl log::Log for Hidden {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= self.0
    }

    fn log(&self, _: &log::Record<'_>) {}

    fn flush(&self) {}
}

#[test]
fn child_has_a_deaf_logger() {
    if is_child() {
        log::set_logger(&Hidden(log::Level::Error)).expect("there is no other");
        log::set_max_level(log::LevelFilter::Trace);
        run(false);
    }
}

#[test]
fn child_has_a_logger() {
    if is_child() {
        log::set_logger(&Hidden(log::Level::Warn)).expect("there is no other");
        log::set_max_level(log::LevelFilter::Trace);
        run(false);
    }
}

#[test]
fn child_logs() {
    if is_child() {
        run(false);
    }
}

#[test]
fn child_observes() {
    if is_child() {
        run(true);
    }
}

#[test]
fn child_logs_twice() {
    if !is_child() {
        return;
    }
    for id in ["a", "b"] {
        drop(tinkex_telemetry::init(id).expect("it starts"));
    }
}
