//! The owner without parameters: the same type for every transport and runtime, and a guard as the reporter is.

use crate::support::{BOUND, KEY, SESSION, child, is_child, names, session, start};
use core::time::Duration;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::session::AsHandle;
use tinkex_telemetry::{
    Batch, Config, HttpTransport, Receipt, Reporter, Reqwest, SendError, Severity, Telemetry,
    Thread, Tokio, Transport, Ureq, capture, fields,
};

/// A library's function, which knows neither transport nor runtime.
async fn checkpoint(telemetry: &Telemetry) -> bool {
    telemetry.log("checkpoint", fields! { step: 1 });
    telemetry.wait_until_drained(BOUND).await.all_delivered()
}

fn on_thread(url: &str) -> Telemetry {
    let reporter = session(url).drop_timeout(BOUND).start();
    reporter.expect("it starts").into_telemetry()
}

/// On the tokio runtime that the caller is in.
fn on_tokio(url: &str) -> Telemetry {
    let config = Config::new(url, KEY).expect("a config");
    let client = Reqwest::new().expect("a client");
    let builder = Reporter::builder(SESSION)
        .transport(HttpTransport::new(config, client))
        .runtime(Tokio)
        .drop_timeout(BOUND);
    builder.enabled(true).start().expect("it starts").into()
}

fn tokio_with(threads: usize) -> tokio::runtime::Runtime {
    let mut builder = match threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.max(1)).enable_all();
    builder.build().expect("a runtime")
}

#[test]
fn one_function_serves_sessions_of_every_transport_and_runtime() {
    let starts: [fn(&str) -> Telemetry; 2] = [on_thread, on_tokio];
    for start in starts {
        let collector = Collector::start().expect("a collector");
        tokio_with(0).block_on(async {
            let telemetry = start(&collector.url());
            assert!(checkpoint(&telemetry).await);
            assert!(telemetry.stop(BOUND).await.all_delivered());
        });
        assert_eq!(
            names(&collector),
            ["SESSION_START", "checkpoint", "SESSION_END"]
        );
    }
}

#[test]
fn dropping_it_waits_wherever_dropping_the_reporter_does() {
    let collector = Collector::start().expect("a collector");
    drop(on_thread(&collector.url()));
    assert_eq!(names(&collector), ["SESSION_START", "SESSION_END"]);

    let collector = Collector::start().expect("a collector");
    tokio_with(2).block_on(async {
        let telemetry = on_tokio(&collector.url());
        telemetry.log("x", ());
    });
    assert_eq!(names(&collector), ["SESSION_START", "x", "SESSION_END"]);
}

#[test]
fn where_no_other_thread_runs_the_driver_dropping_it_begins_the_stop() {
    let collector = Collector::start().expect("a collector");
    tokio_with(0).block_on(async {
        let telemetry = on_tokio(&collector.url());
        let handle = telemetry.handle();
        drop(telemetry);
        assert!(!handle.log("late", ()));
        assert!(handle.stop(BOUND).await.all_delivered());
    });
    assert_eq!(names(&collector), ["SESSION_START", "SESSION_END"]);
}

#[test]
fn turning_a_reporter_into_it_does_not_stop_the_session() {
    let collector = Collector::start().expect("a collector");
    let reporter = start(&collector);
    let handle = reporter.handle();
    let telemetry = reporter.into_telemetry();
    assert!(handle.log("x", ()) && telemetry.log("y", ()));
    assert!(telemetry.as_handle().is_some());
    let failed = capture!(reporter = telemetry, { Err::<(), _>("captured") });
    assert!(failed.is_err());
    let shown = format!("{telemetry:?}");
    assert!(
        shown.starts_with("Telemetry { session_id: Some("),
        "{shown}"
    );
    let drain = telemetry.log_fatal_exception_blocking("fatal", Severity::Error);
    assert!(drain.is_ok_and(|drain| drain.all_delivered()));
    let expected = [
        "SESSION_START",
        "x",
        "y",
        "UNHANDLED_EXCEPTION",
        "UNHANDLED_EXCEPTION",
        "SESSION_END",
    ];
    assert_eq!(names(&collector), expected);
    let drain = telemetry.stop_blocking(BOUND).expect("it can wait");
    assert!(drain.all_delivered());
}

struct Unused;

impl Transport for Unused {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        unreachable!("telemetry is off")
    }
}

#[test]
fn it_is_an_owner_where_telemetry_is_off() {
    let builder = Reporter::builder(SESSION).transport(Unused).runtime(Thread);
    let telemetry = builder.enabled(false).start().expect("it starts");
    let telemetry = telemetry.into_telemetry();
    assert!(!telemetry.is_enabled() && !telemetry.log("x", ()));
    assert_eq!(telemetry.stats().refused.disabled, 1);
    let drain = telemetry.stop_blocking(BOUND).expect("it can wait");
    assert!(drain.all_delivered());
}

#[test]
fn ending_with_losses_it_says_so_on_stderr_as_the_reporter_does() {
    let collector = Collector::start().expect("a collector");
    collector.always(Reply::status(503));
    let told = |test: &str| {
        let mut program = child(&format!("owner::{test}"));
        program.env("TINKER_BASE_URL", collector.url());
        program.env_remove("TINKER_LOG");
        let output = program.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).expect("text");
        let lines = stderr.lines().filter(|line| line.contains("tinkex-"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = told("child_loses_with_an_owner");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("has lost events"), "{lines:?}");
    assert_eq!(lines, told("child_loses_with_a_reporter"));
}

fn losing() -> Reporter<HttpTransport<Ureq>, Thread, Thread> {
    let url = std::env::var("TINKER_BASE_URL").expect("it is set");
    let builder = session(&url)
        .max_retries(0)
        .retry_base_delay(Duration::from_millis(1));
    builder.start().expect("it starts")
}

#[test]
fn child_loses_with_an_owner() {
    if is_child() {
        drop(losing().into_telemetry());
    }
}

#[test]
fn child_loses_with_a_reporter() {
    if is_child() {
        drop(losing());
    }
}
