//! `init`: a session in one line, configured by the environment.
//!
//! The environment is per process, so each case runs in a separate process: this test binary, running one of the
//! `child_…` tests, which do nothing unless started this way.
#![cfg(all(
    feature = "collector",
    feature = "thread",
    feature = "tokio",
    feature = "ureq"
))]

use std::process::Command;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::session::BuildError;
use tinkex_telemetry::{Config, HttpTransport, InitError, Options, Reporter, Thread, Ureq, init};

const KEY: &str = "sk-sentinel-0123456789";
const IS_CHILD: &str = "TINKEX_TEST_CHILD";

/// Runs one of the tests below in a process with only these variables of ours. Returns what it printed.
fn run(child: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command
        .args(["--exact", child, "--nocapture"])
        .env(IS_CHILD, "1");
    for read in [
        "TINKER_API_KEY",
        "TINKER_BASE_URL",
        "TINKER_TELEMETRY",
        "DO_NOT_TRACK",
        "TINKER_LOG",
    ] {
        command.env_remove(read);
    }
    let names = std::env::vars_os().map(|(name, _)| name);
    let is_option =
        |name: &std::ffi::OsString| name.to_string_lossy().starts_with("TINKER_TELEMETRY_");
    names.filter(is_option).for_each(|name| {
        command.env_remove(name);
    });
    let output = command
        .envs(variables.iter().copied())
        .output()
        .expect("it runs");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("1 passed"), "{printed}");
    assert!(!printed.contains(KEY), "{printed}");
    printed
}

fn is_child() -> bool {
    std::env::var_os(IS_CHILD).is_some()
}

#[test]
fn the_guard_drains_the_session_when_it_is_dropped() {
    for child in ["child_logs", "child_logs_in_an_executor"] {
        let collector = Collector::builder()
            .api_key(KEY)
            .start()
            .expect("a collector");
        let url = format!("{}/", collector.url());
        run(child, &[("TINKER_API_KEY", KEY), ("TINKER_BASE_URL", &url)]);
        let session = collector.session("one-line").expect("it was kept");
        assert_eq!((session.len(), session.has_ended()), (3, true));
        assert_eq!(collector.violations(), []);
    }
}

#[test]
fn child_logs() {
    if is_child() {
        let telemetry = init("one-line").expect("it starts");
        assert!(telemetry.log("x", ()));
        println!("{telemetry:?}");
    }
}

#[test]
fn child_logs_in_an_executor() {
    if is_child() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async { child_logs() });
    }
}

#[test]
fn a_missing_or_invalid_variable_is_named() {
    let refused = |variables: &[_], expected: &str| {
        let printed = run("child_is_refused", variables);
        assert!(
            printed.contains(&format!("refused: {expected}\n")),
            "{printed}"
        );
    };
    let missing =
        "TINKER_API_KEY is not set: set it, or TINKER_TELEMETRY=off where only telemetry needs it";
    refused(&[], missing);
    refused(&[("TINKER_API_KEY", " ")], missing);
    let split = format!("{KEY}\nx: y");
    refused(
        &[("TINKER_API_KEY", &split)],
        "TINKER_API_KEY contains CR, LF or NUL",
    );
    let url = |url| [("TINKER_API_KEY", KEY), ("TINKER_BASE_URL", url)];
    refused(
        &url("ftp://host"),
        "TINKER_BASE_URL begins with neither https:// nor http:// (\"ftp://\")",
    );
    refused(
        &url("http://me:sk-sentinel-0123456789@host"),
        "TINKER_BASE_URL has a user or password (the part before \"@\"): leave it out",
    );
}

#[test]
fn child_is_refused() {
    if is_child() {
        let error = init("s").expect_err("refused");
        assert!(matches!(error, InitError::Config(_)), "{error:?}");
        println!("refused: {error}");
    }
}

#[test]
fn a_variable_sets_an_option() {
    let collector = Collector::builder().api_key(KEY).start();
    let collector = collector.expect("a collector");
    let url = collector.url();
    let variables = [
        ("TINKER_API_KEY", KEY),
        ("TINKER_BASE_URL", &*url),
        ("TINKER_TELEMETRY_FLUSH_INTERVAL", "0"),
        ("TINKER_TELEMETRY_MAX_EVENT_BYTES", "1 KiB"),
    ];
    run("child_logs_a_large_event", &variables);
    let session = collector.session("one-line").expect("it was kept");
    // `SESSION_START`, a small event, a report of what was lost, and `SESSION_END`.
    assert_eq!((session.len(), session.has_ended()), (4, true));
}

#[test]
fn child_logs_a_large_event() {
    if is_child() {
        let telemetry = init("one-line").expect("it starts");
        assert!(!telemetry.log("large", "x".repeat(1_000)));
        assert!(telemetry.log("small", "x".repeat(100)));
    }
}

#[test]
fn a_wrong_variable_of_an_option_is_named_where_telemetry_is_on() {
    let wrong = ("TINKER_TELEMETRY_FLUSH_INTERVAL", "10");
    let printed = run(
        "child_is_refused_for_an_option",
        &[("TINKER_API_KEY", KEY), wrong],
    );
    let expected = "refused: TINKER_TELEMETRY_FLUSH_INTERVAL is \"10\", which has no unit; it must be a duration,";
    assert!(printed.contains(expected), "{printed}");
    run("child_is_off", &[("TINKER_TELEMETRY", "off"), wrong]);
    run(
        "child_is_off",
        &[("TINKER_TELEMETRY_ENABLED", "off"), wrong],
    );
}

#[test]
fn a_variable_that_does_not_fit_the_other_options_is_named() {
    let printed = run(
        "child_is_refused_for_an_option",
        &[
            ("TINKER_API_KEY", KEY),
            ("TINKER_TELEMETRY_MAX_QUEUE_SIZE", "10"),
        ],
    );
    let expected = "refused: TINKER_TELEMETRY_MAX_QUEUE_SIZE does not fit the other options: the option flush_threshold \
                    must be at most 10 (max_queue_size); change it, or set TINKER_TELEMETRY_FLUSH_THRESHOLD as well\n";
    assert!(printed.contains(expected), "{printed}");
}

#[test]
fn child_is_refused_for_an_option() {
    if is_child() {
        let error = init("s").expect_err("refused");
        assert!(matches!(error, InitError::Options(_)), "{error:?}");
        assert_eq!(format!("{error:?}"), error.to_string());
        println!("refused: {error}");
    }
}

#[test]
fn a_variable_of_no_option_is_reported_once_with_the_nearest() {
    let printed = run(
        "child_reports",
        &[
            ("TINKER_TELEMETRY", "off"),
            ("TINKER_TELEMETRY_FLUSH_INTERVALL", "10s"),
        ],
    );
    let expected = "WARN TINKER_TELEMETRY_FLUSH_INTERVALL belongs to no option: the nearest is TINKER_TELEMETRY_FLUSH_INTERVAL\n";
    assert_eq!(printed.matches(expected).count(), 1, "{printed}");
}

#[test]
fn without_a_logger_a_misspelt_variable_is_reported_once_on_stderr() {
    let variables = [
        ("TINKER_TELEMETRY_FLUSH_INTERVALL", "10s"),
        ("TINKER_API_KEY", KEY),
        ("TINKER_BASE_URL", "http://127.0.0.1:1"),
    ];
    let printed = run("child_starts_twice", &variables);
    let expected = "tinkex-telemetry: TINKER_TELEMETRY_FLUSH_INTERVALL belongs to no option: the nearest is TINKER_TELEMETRY_FLUSH_INTERVAL\n";
    assert_eq!(printed.matches(expected).count(), 1, "{printed}");
    let silent = [&variables[..], &[("TINKER_LOG", "off")]].concat();
    let printed = run("child_starts_twice", &silent);
    assert!(!printed.contains("belongs to no option"), "{printed}");
}

#[test]
fn a_file_is_completed_by_the_environment() {
    run(
        "child_reads_files",
        &[
            ("TINKER_API_KEY", KEY),
            ("TINKER_BASE_URL", "http://127.0.0.1:9"),
            ("TINKER_TELEMETRY_MAX_RETRIES", "9"),
        ],
    );
    // Without a key it is refused, unless telemetry is off.
    let printed = run("child_reads_a_file_without_key", &[]);
    let expected = "refused: TINKER_API_KEY is not set";
    assert!(printed.contains(expected), "{printed}");
    let off = [("TINKER_TELEMETRY", "off")];
    let printed = run("child_reads_a_file_without_key", &off);
    assert!(printed.contains("accepted"), "{printed}");
}

#[test]
fn child_reads_files() {
    if !is_child() {
        return;
    }
    let shown = |file: &str| {
        let config = serde_json::from_str::<Config>(file).expect("a config");
        format!("{config:?}")
    };
    assert!(shown("{}").contains("http://127.0.0.1:9/"));
    assert!(shown(r#"{"base_url": "http://127.0.0.1:7"}"#).contains("http://127.0.0.1:7/"));
    let file = r#"{"max_retries": 2, "max_batch_size": 20}"#;
    let options = serde_json::from_str::<Options>(file).expect("options");
    assert_eq!(options.max_retries, 2);
    let options = options.with_env().expect("the variables are valid");
    assert_eq!((options.max_retries, options.max_batch_size), (9, 20));
    let options = Options::from_env().expect("the variables are valid");
    assert_eq!((options.max_retries, options.max_batch_size), (9, 100));
}

#[test]
fn child_reads_a_file_without_key() {
    if is_child() {
        match serde_json::from_str::<Config>(r#"{"base_url": "http://127.0.0.1:7"}"#) {
            Ok(_) => println!("accepted"),
            Err(error) => println!("refused: {error}"),
        }
    }
}

#[test]
fn switched_off_it_needs_no_key_and_does_nothing() {
    run("child_is_off", &[("TINKER_TELEMETRY", "off")]);
    run("child_is_off", &[("DO_NOT_TRACK", "1")]);
    run(
        "child_is_off",
        &[("DO_NOT_TRACK", "yes"), ("TINKER_TELEMETRY", " ")],
    );
    run(
        "child_is_off",
        &[
            ("TINKER_TELEMETRY", " False "),
            ("TINKER_BASE_URL", "nonsense"),
        ],
    );
}

#[test]
fn its_own_switch_wins_over_do_not_track() {
    for on in ["1", "true", "YES", "on"] {
        run(
            "child_is_refused",
            &[("DO_NOT_TRACK", "1"), ("TINKER_TELEMETRY", on)],
        );
    }
    run("child_is_refused", &[("DO_NOT_TRACK", "0")]);
    run("child_is_refused", &[("DO_NOT_TRACK", "")]);
}

#[test]
fn a_word_that_is_not_known_switches_telemetry_off_and_is_reported() {
    for word in ["disabled", "none", "never", "n", "f", "null", "enabled"] {
        let printed = run("child_reports", &[("TINKER_TELEMETRY", word)]);
        let expected = format!(
            "WARN TINKER_TELEMETRY=\"{word}\" is not known, so telemetry is off: \
             use 1, true, yes or on; 0, false, no or off\n"
        );
        assert!(printed.contains(&expected), "{printed}");
        assert_eq!(printed.matches("is not known").count(), 2, "{printed}");
        // Each way of building tells of it, and the child is off in every other respect.
        run("child_is_off", &[("TINKER_TELEMETRY", word)]);
    }
    for known in ["off", "0"] {
        let printed = run("child_reports", &[("TINKER_TELEMETRY", known)]);
        assert!(!printed.contains("is not known"), "{printed}");
    }
}

/// Prints every record of the `log` facade.
struct Printer;

impl log::Log for Printer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("{} {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

#[test]
fn child_reports() {
    if is_child() {
        log::set_logger(&Printer).expect("there is no other");
        log::set_max_level(log::LevelFilter::Info);
        let telemetry = init("s").expect("no key is needed");
        assert!(!telemetry.is_enabled());
        let config = Config::from_env().expect("no key is needed");
        let observed = Reporter::builder("s")
            .transport(HttpTransport::new(config, Ureq::new()))
            .runtime(Thread)
            .on_diagnostic(|diagnostic| println!("observed: {diagnostic}"))
            .start()
            .expect("no key is needed");
        assert!(!observed.is_enabled());
    }
}

#[test]
fn a_second_session_of_one_id_is_refused() {
    let url = ("TINKER_BASE_URL", "http://127.0.0.1:1");
    run("child_starts_twice", &[("TINKER_API_KEY", KEY), url]);
}

#[test]
fn child_starts_twice() {
    if is_child() {
        let first = init("s").expect("it starts");
        let error = init("s").expect_err("the first one is live");
        let InitError::Build(BuildError::AlreadyLive { session_id }) = error else {
            panic!("{error}");
        };
        assert_eq!(session_id, "s");
        assert!(init("other").is_ok());
        assert!(first.is_enabled());
    }
}

#[test]
fn child_is_off() {
    if is_child() {
        let telemetry = init("s").expect("no key is needed");
        assert!(!telemetry.is_enabled());
        assert!(!telemetry.log("x", ()));
        assert_eq!(telemetry.stats().refused.disabled, 1);
    }
}

#[test]
fn a_session_enabled_in_code_needs_the_key_even_if_the_environment_switches_telemetry_off() {
    run("child_insists", &[("TINKER_TELEMETRY", "0")]);
}

#[test]
fn child_insists() {
    if is_child() {
        let config = Config::from_env().expect("no key is needed yet");
        let error = Reporter::builder("s")
            .transport(HttpTransport::new(config, Ureq::new()))
            .runtime(Thread)
            .enabled(true)
            .start()
            .expect_err("now the key is needed");
        let BuildError::Transport(error) = error else {
            panic!("{error:?}");
        };
        assert!(
            error.to_string().starts_with("TINKER_API_KEY is not set"),
            "{error}"
        );
    }
}
