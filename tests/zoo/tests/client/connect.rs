//! Connecting to a backend that is slow, down or silent, in simulated time.

use crate::sim_harness::run_simulated;
use std::cell::RefCell;
use std::sync::Once;
use std::time::Duration;
use tinkex_telemetry::client::ClientError;
use tinkex_telemetry::collector::Reply;

const CREATE: &str = "create_session";

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

thread_local! {
    static WAITING: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps each thread's messages about a slow connect: there is no observer that could have them.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        if record.target() == "tinkex_telemetry" && line.contains("to create the session") {
            let line = format!("{}: {line}", record.level());
            WAITING.with_borrow_mut(|lines| lines.push(line));
        }
    }

    fn flush(&self) {}
}

/// Keeps the messages of this thread from now on.
fn keep_messages() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&Log).expect("the only logger");
        log::set_max_level(log::LevelFilter::Warn);
    });
    WAITING.take();
}

#[test]
fn a_connect_that_hangs_ends_at_its_timeout_and_says_meanwhile_what_it_waits_for() {
    keep_messages();
    run_simulated(1, |sim, spawner| async move {
        sim.backend.always(CREATE, Reply::stall());
        let service = sim.connect(&spawner);
        let error = service.await.expect_err("the backend is silent");
        assert_eq!(sim.passed(), secs(30));
        // One attempt has 15 s.
        assert_eq!(sim.attempts(CREATE), [0, 16]);
        assert!(matches!(error, ClientError::NoResponse { .. }) && error.is_retryable());
        let expected = "create_session got no response: timed out; the backend is at \
                        http://simulated.invalid/api/v1/ (connect_timeout: 30s)";
        assert_eq!(error.to_string(), expected);
    });
    let at = |elapsed| {
        format!(
            "WARN: waiting for the backend at http://simulated.invalid/api/v1/ to create the session, \
             for {elapsed} s so far (connect_timeout: 30s)"
        )
    };
    assert_eq!(WAITING.take(), [5, 15, 25].map(at));
}

#[test]
fn a_connect_timeout_below_a_second_holds_and_is_named_as_it_was_given() {
    keep_messages();
    run_simulated(2, |sim, spawner| async move {
        sim.backend.always(CREATE, Reply::stall());
        let timeout = Duration::from_millis(500);
        let service = sim.connect_with(&spawner, |builder| builder.connect_timeout(timeout));
        let error = service
            .await
            .expect_err("the backend is silent")
            .to_string();
        assert_eq!(sim.passed(), timeout);
        assert!(error.ends_with("(connect_timeout: 500ms)"), "{error}");
    });
    assert!(WAITING.take().is_empty());
}

#[test]
fn a_connect_to_a_backend_that_is_down_fails_in_time_with_the_reason_of_the_last_attempt() {
    run_simulated(3, |sim, spawner| async move {
        sim.outage(secs(1_000));
        let service = sim.connect_with(&spawner, |builder| builder.connect_timeout(secs(20)));
        let error = service.await.expect_err("the backend is down").to_string();
        assert_eq!(sim.attempts(CREATE), [0, 1, 3, 7, 12, 17]);
        assert!(sim.passed() <= secs(20));
        let expected = "create_session got no response: connection refused; the backend is at \
                        http://simulated.invalid/api/v1/ (connect_timeout: 20s)";
        assert_eq!(error, expected);
    });
}

#[test]
fn a_connect_survives_an_outage_shorter_than_its_timeout() {
    keep_messages();
    run_simulated(4, |sim, spawner| async move {
        sim.outage(secs(20));
        let service = sim.connect(&spawner).await.expect("the outage has ended");
        assert_eq!(sim.passed().as_secs(), 22);
        assert!(service.close().await.all_delivered());
    });
    assert_eq!(WAITING.take().len(), 2, "and none once it is connected");
}
