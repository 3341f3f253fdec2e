//! The panic hook. It is per process, so each program here is a separate process.

use crate::support::{BOUND, KEY, OverHttp, SESSION, child, events, is_child};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Instant;
use tinkex_telemetry::capture::PanicHook;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::event::Verdict;
use tinkex_telemetry::{
    Batch, Config, HttpTransport, Receipt, Reporter, Reqwest, SendError, Severity, Thread, Tokio,
    Transport, Ureq, capture, init, install_panic_hook,
};

fn run(test: &str, collector: &Collector, variables: &[(&str, &str)]) -> Output {
    program(&format!("hook::{test}"), collector)
        .envs(variables.iter().copied())
        .output()
        .expect("it runs")
}

/// A program with a session at the collector.
pub(crate) fn program(test: &str, collector: &Collector) -> Command {
    let mut command = child(test);
    command
        .env("TINKER_API_KEY", KEY)
        .env("TINKER_BASE_URL", collector.url());
    command
}

pub(crate) fn collector() -> Collector {
    let builder = Collector::builder().api_key(KEY);
    builder.start().expect("a collector")
}

/// The panics that arrived.
fn panics(collector: &Collector) -> Vec<Value> {
    let mut values: Vec<_> = events(collector)
        .iter()
        .map(|event| event.value())
        .collect();
    values.retain(|value| value["error_type"] == "panic");
    values
}

pub(crate) fn messages(collector: &Collector) -> Vec<String> {
    let text = |value: &Value| value["error_message"].as_str().map(str::to_owned);
    panics(collector).iter().filter_map(text).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_panic_arrives_with_location_thread_and_stack() {
    let collector = collector();
    let output = run("child_panics", &collector, &[("RUST_BACKTRACE", "1")]);
    assert!(!output.status.success(), "{output:?}");
    let panics = panics(&collector);
    assert_eq!(panics.len(), 1, "{output:?}");
    assert_eq!(panics[0]["error_message"], "the weights are gone");
    assert_eq!(panics[0]["severity"], "CRITICAL");
    let traceback = panics[0]["traceback"].as_str().expect("a text");
    assert!(traceback.contains("hook.rs"), "{traceback}");
    assert!(traceback.contains("thread 'worker'"), "{traceback}");
    // The frames begin where the panic was raised.
    let mut lines = traceback.lines().skip(2);
    let first = lines.next().expect("a frame");
    assert!(first.contains("the_failing_code"), "{traceback}");
    // The previous hook printed it.
    assert!(text(&output.stderr).contains("the weights are gone"));
}

#[test]
fn child_panics() {
    #[inline(never)]
    fn the_failing_code() {
        panic!("the weights are gone");
    }
    if is_child() {
        let telemetry = init(SESSION).expect("it starts");
        let _ = PanicHook::new(&telemetry)
            .severity(Severity::Critical)
            .timeout(BOUND)
            .install();
        let worker = std::thread::Builder::new().name("worker".into());
        let worker = worker.spawn(the_failing_code).expect("a thread");
        assert!(worker.join().is_err());
        // The hook has waited: nothing else sends the queue before the process exits.
        std::process::exit(3);
    }
}

#[test]
fn installing_a_hook_again_makes_its_new_settings_effective() {
    let collector = collector();
    let output = run("child_installs_again", &collector, &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let severities: Vec<_> = panics(&collector)
        .iter()
        .map(|value| value["severity"].clone())
        .collect();
    assert_eq!(severities, ["ERROR", "CRITICAL", "WARNING"], "{output:?}");
    assert_eq!(messages(&collector), ["first", "second", "third"]);
}

#[test]
fn child_installs_again() {
    if is_child() {
        let telemetry = init(SESSION).expect("it starts");
        let panic = |text: &'static str| {
            assert!(std::thread::spawn(move || panic!("{text}")).join().is_err());
        };
        let hook = install_panic_hook(&telemetry);
        panic("first");
        let hook = hook.timeout(BOUND).severity(Severity::Critical).install();
        panic("second");
        // The last thread has waited, so the first two have been sent as well.
        assert_eq!(telemetry.stats().queued, 0);
        let other = install_panic_hook(&telemetry);
        // Replaces the other, and is removed with the settings that it has now.
        let hook = hook.severity(Severity::Warning).install();
        other.remove();
        panic("third");
        assert_eq!(telemetry.stats().queued, 0);
        hook.remove();
        panic("fourth");
        assert_eq!(telemetry.stats().queued, 0);
        std::process::exit(3);
    }
}

#[test]
fn without_rust_backtrace_a_panic_has_only_its_location() {
    let collector = collector();
    run("child_panics", &collector, &[]);
    let panics = panics(&collector);
    let traceback = panics[0]["traceback"].as_str().expect("a text");
    assert!(traceback.ends_with("thread 'worker'"), "{traceback}");
    assert_eq!(traceback.lines().count(), 2, "{traceback}");
}

#[test]
fn a_panic_that_is_both_hooked_and_captured_is_logged_once() {
    let collector = Collector::builder()
        .api_key(KEY)
        .start()
        .expect("a collector");
    let output = run("child_is_captured", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(&collector), ["one", "two", "three", "not hooked"]);
    assert_eq!(collector.violations(), []);
}

#[test]
fn child_is_captured() {
    if is_child() {
        let telemetry = init(SESSION).expect("it starts");
        let hook = install_panic_hook(&telemetry);
        let caught = |work: &dyn Fn()| {
            let work = core::panic::AssertUnwindSafe(work);
            assert!(std::panic::catch_unwind(work).is_err());
        };
        caught(&|| {
            capture!(reporter = telemetry, {
                capture!(reporter = telemetry, { panic!("one") })
            })
        });
        caught(&|| capture!(reporter = telemetry, fatal = true, { panic!("two") }));
        assert!(telemetry.stats().session_ended);
        // A panic on another thread, resumed here.
        caught(&|| {
            capture!(reporter = telemetry, {
                let failed = std::thread::spawn(|| panic!("three")).join();
                std::panic::resume_unwind(failed.expect_err("it panicked"))
            })
        });
        hook.remove();
        caught(&|| panic!("seen by no hook"));
        caught(&|| capture!(reporter = telemetry, { panic!("not hooked") }));
    }
}

#[test]
fn earlier_hooks_are_called_with_unchanged_panic_info() {
    let collector = collector();
    let output = run("child_has_its_own_hook", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(&collector), ["seen by both"]);
}

#[test]
fn child_has_its_own_hook() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    if is_child() {
        std::panic::set_hook(Box::new(|info| {
            assert!(
                info.location()
                    .is_some_and(|place| place.file().ends_with("hook.rs"))
            );
            CALLS.fetch_add(1, Ordering::Relaxed);
        }));
        let telemetry = init(SESSION).expect("it starts");
        // Installing is idempotent.
        let hook = install_panic_hook(&telemetry).install();
        assert!(
            std::thread::spawn(|| panic!("seen by both"))
                .join()
                .is_err()
        );
        hook.remove();
        assert!(std::thread::spawn(|| panic!("seen by one")).join().is_err());
        assert_eq!(CALLS.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn a_second_panic_while_the_first_unwinds_arrives_before_the_process_aborts() {
    let collector = collector();
    let output = run("child_panics_in_a_destructor", &collector, &[]);
    assert!(!output.status.success(), "{output:?}");
    // The standard library's own panic about it arrives too.
    assert_eq!(messages(&collector)[..2], ["first", "second"]);
}

#[test]
fn child_panics_in_a_destructor() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("second");
        }
    }
    if is_child() {
        let telemetry = init(SESSION).expect("it starts");
        let _ = PanicHook::new(&telemetry).timeout(BOUND).install();
        let _bomb = Bomb;
        panic!("first");
    }
}

#[test]
fn a_panic_waits_for_a_stalled_backend_no_longer_than_its_timeout() {
    let collector = collector();
    collector.always(Reply::stall());
    let output = run("child_meets_a_stall", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn child_meets_a_stall() {
    if is_child() {
        let telemetry = init(SESSION).expect("it starts");
        let _ = PanicHook::new(&telemetry)
            .timeout(Duration::from_millis(300))
            .install();
        let start = Instant::now();
        assert!(std::thread::spawn(|| panic!("stalled")).join().is_err());
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(300), "{took:?}");
        assert!(took < BOUND, "{took:?}");
        assert_eq!(telemetry.stats().queued, 2);
        std::process::exit(0);
    }
}

#[test]
fn a_panic_on_a_single_threaded_runtime_does_not_deadlock() {
    let collector = collector();
    let output = run("child_has_one_thread", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(&collector), ["in a task", "in the main future"]);
}

#[test]
fn child_has_one_thread() {
    if is_child() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let client = Reqwest::new().expect("a client");
            let telemetry = Reporter::builder(SESSION)
                .transport(HttpTransport::new(
                    Config::from_env().expect("it is set"),
                    client,
                ))
                .runtime(Tokio)
                .start()
                .expect("it starts");
            let _ = PanicHook::new(&telemetry).timeout(BOUND * 100).install();
            tokio::task::yield_now().await;
            assert!(tokio::spawn(async { panic!("in a task") }).await.is_err());
            let caught = std::panic::catch_unwind(|| panic!("in the main future"));
            assert!(caught.is_err());
            assert!(telemetry.stop(BOUND).await.all_delivered());
        });
    }
}

#[test]
fn a_panic_on_a_worker_of_a_multi_threaded_runtime_is_sent_at_once() {
    let collector = collector();
    let output = run("child_has_many_threads", &collector, &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(messages(&collector), ["on a worker"]);
}

#[test]
fn child_has_many_threads() {
    if is_child() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let client = Reqwest::new().expect("a client");
            let telemetry = Reporter::builder(SESSION)
                .transport(HttpTransport::new(
                    Config::from_env().expect("it is set"),
                    client,
                ))
                .runtime(Tokio)
                .start()
                .expect("it starts");
            let _ = PanicHook::new(&telemetry).timeout(BOUND).install();
            let failed = tokio::spawn(async { panic!("on a worker") }).await;
            assert!(failed.is_err());
            // If the driver runs on another thread, the hook has waited for it; otherwise the driver sends the event now.
            let drain = telemetry.wait_until_drained(BOUND).await;
            assert!(drain.is_drained());
            std::process::exit(3);
        });
    }
}

#[test]
fn a_hook_that_another_library_has_replaced_is_installed_again_and_logs_each_panic_once() {
    let collector = collector();
    let output = run("child_loses_its_hook", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    let expected = [
        "installed twice",
        "installed again",
        "installed over one that chains",
        "and over it again",
        "put back",
        "by the same value",
    ];
    assert_eq!(messages(&collector), expected);
}

#[test]
fn child_loses_its_hook() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn panics(message: &'static str) {
        let panicked = std::thread::spawn(move || panic!("{message}")).join();
        assert!(panicked.is_err());
    }
    /// What a library does that keeps the hook that was set before.
    fn chain() {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            before(info);
        }));
    }
    if is_child() {
        let telemetry = init(SESSION).expect("it starts");
        let _ = install_panic_hook(&telemetry);
        for _ in 0..100 {
            let _ = install_panic_hook(&telemetry);
        }
        panics("installed twice");
        std::panic::set_hook(Box::new(|_| {}));
        panics("seen by no hook");
        let _ = install_panic_hook(&telemetry);
        panics("installed again");
        chain();
        let _ = install_panic_hook(&telemetry);
        panics("installed over one that chains");
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
        chain();
        chain();
        let _ = install_panic_hook(&telemetry);
        panics("and over it again");
        assert_eq!(CALLS.load(Ordering::Relaxed), 4);
        // Switched off for a moment.
        let before = std::panic::take_hook();
        panics("seen by the default hook");
        std::panic::set_hook(before);
        let hook = install_panic_hook(&telemetry);
        panics("put back");
        std::panic::set_hook(Box::new(|_| {}));
        let hook = hook.install();
        panics("by the same value");
        hook.remove();
        panics("after the removal");
    }
}

/// A transport whose first attempts panic.
struct Explosive<T>(T, usize);

impl<T: Transport> Transport for Explosive<T> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        if self.1 > 0 {
            self.1 -= 1;
            panic!("the transport panics");
        }
        self.0.send(batch).await
    }
}

#[test]
fn a_panic_in_the_sessions_own_transport_does_not_become_telemetry() {
    let collector = collector();
    let output = run("child_has_a_panicking_transport", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(&collector), [] as [String; 0]);
    assert!(text(&output.stderr).contains("the transport panics"));
}

#[test]
fn child_has_a_panicking_transport() {
    if is_child() {
        let over_http: OverHttp =
            HttpTransport::new(Config::from_env().expect("it is set"), Ureq::new());
        let telemetry = Reporter::builder(SESSION)
            .transport(Explosive(over_http, 2))
            .runtime(Thread)
            .retry_base_delay(Duration::from_millis(1))
            .start()
            .expect("it starts");
        let _ = install_panic_hook(&telemetry);
        let drain = telemetry
            .wait_until_drained_blocking(BOUND)
            .expect("it may block");
        assert!(drain.all_delivered());
        assert_eq!(telemetry.stats().accepted, 1);
    }
}

#[test]
fn a_panicking_scrub_hook_costs_its_event_and_not_the_process() {
    let collector = collector();
    let output = run("child_has_a_panicking_scrub_hook", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(&collector), ["[scrubbed]"]);
    assert!(!text(&output.stderr).contains("aborting"), "{output:?}");
}

#[test]
fn child_has_a_panicking_scrub_hook() {
    if is_child() {
        let over_http: OverHttp =
            HttpTransport::new(Config::from_env().expect("it is set"), Ureq::new());
        let telemetry = Reporter::builder(SESSION)
            .transport(over_http)
            .runtime(Thread)
            .scrub(|event| {
                assert_ne!(event.data()["error_message"], "unbearable");
                event.data_mut()["error_message"] = "[scrubbed]".into();
                Verdict::Keep
            })
            .start()
            .expect("it starts");
        let _ = install_panic_hook(&telemetry);
        assert!(std::thread::spawn(|| panic!("unbearable")).join().is_err());
        assert!(std::thread::spawn(|| panic!("secret")).join().is_err());
        // The scrub hook's panic reached the panic hook too, and was not logged through the scrub hook again.
        assert_eq!(telemetry.stats().refused.scrub_panicked, 1);
        let drain = telemetry.stop_blocking(BOUND).expect("it may block");
        assert!(drain.all_delivered());
    }
}

#[test]
fn a_hook_lives_exactly_as_long_as_its_session() {
    let collector = collector();
    let output = run("child_has_several_sessions", &collector, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(&collector), ["seen by both sessions"]);
    let second = collector.session("second").expect("it arrived");
    let mut others = second.events().iter().map(|event| event.value());
    assert!(others.any(|value| value["error_message"] == "seen by both sessions"));
}

#[test]
fn child_has_several_sessions() {
    if is_child() {
        let first = init(SESSION).expect("it starts");
        let _ = install_panic_hook(&first);
        let held = Arc::new(());
        let observer = Arc::clone(&held);
        let over_http: OverHttp =
            HttpTransport::new(Config::from_env().expect("it is set"), Ureq::new());
        let stopped = Reporter::builder("stopped")
            .transport(over_http)
            .runtime(Thread)
            .on_diagnostic(move |_| drop(Arc::clone(&observer)))
            .start()
            .expect("it starts");
        let _ = install_panic_hook(&stopped);
        assert!(
            stopped
                .stop_blocking(BOUND)
                .expect("it may block")
                .is_drained()
        );
        drop(stopped);
        let second = init("second").expect("it starts");
        let _ = install_panic_hook(&second);
        // The driver's thread may release it a little later.
        let give_up = Instant::now() + BOUND;
        while Arc::strong_count(&held) > 1 {
            assert!(Instant::now() < give_up, "a stopped session is kept");
            std::thread::sleep(Duration::from_millis(1));
        }
        let worker = std::thread::spawn(|| panic!("seen by both sessions"));
        assert!(worker.join().is_err());
    }
}
