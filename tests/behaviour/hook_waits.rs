//! How long a panic takes with the panic hook: what it waits for, and where it does not. Each program is a process.

use crate::hook::{collector, messages, program};
use crate::support::{BOUND, DAY, Failure, OverHttp, SESSION, is_child};
use core::fmt;
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use serde::{Serialize, Serializer};
use std::panic::catch_unwind;
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;
use tinkex_telemetry::capture::PanicHook;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::event::Verdict;
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{
    Config, Handle, HttpTransport, Reporter, Reqwest, Severity, Thread, Tokio, Ureq, capture,
    install_panic_hook,
};

fn run(test: &str, collector: &Collector) -> Output {
    let mut program = program(&format!("hook_waits::{test}"), collector);
    program.output().expect("it runs")
}

fn session() -> Builder<OverHttp, Thread, Thread> {
    session_named(SESSION)
}

fn session_named(id: &str) -> Builder<OverHttp, Thread, Thread> {
    let config = Config::from_env().expect("it is set");
    Reporter::builder(id)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .retry_base_delay(Duration::from_millis(1))
}

fn caught(work: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
}

/// Runs `work` on a thread that looks like that of `main`, which a test does not run on.
fn on_main(work: impl FnOnce() + Send + 'static) {
    let main = thread::Builder::new().name("main".into()).spawn(work);
    main.expect("a thread").join().expect("no panic escapes");
}

#[test]
fn a_panic_of_mains_thread_is_delivered_before_the_process_ends() {
    let collector = collector();
    let output = run("child_panics_on_main", &collector);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(messages(&collector), ["on main"]);
}

#[test]
fn child_panics_on_main() {
    if is_child() {
        let telemetry = session().start().expect("it starts");
        let _ = install_panic_hook(&telemetry);
        on_main(|| {
            caught(|| panic!("on main"));
            std::process::exit(3);
        });
    }
}

#[test]
fn twelve_panics_on_two_workers_hold_none_of_them_whatever_the_backend_does() {
    let healthy = collector();
    let silent = collector();
    silent.always(Reply::stall());
    let refusing = collector();
    refusing.always(Reply::status(503));
    for (collector, is_healthy) in [(&healthy, true), (&silent, false), (&refusing, false)] {
        let output = run("child_panics_on_workers", collector);
        assert!(output.status.success(), "{output:?}");
        // Only the healthy one is waited for, at the end.
        assert_eq!(messages(collector).len(), if is_healthy { 12 } else { 0 });
    }
}

#[test]
fn child_panics_on_workers() {
    if is_child() {
        let workers = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        workers.block_on(async {
            let config = Config::from_env().expect("it is set");
            let client = Reqwest::new().expect("a client");
            let telemetry = Reporter::builder(SESSION)
                .transport(HttpTransport::new(config, client))
                .runtime(Tokio)
                // A panic that waited would not end.
                .drop_timeout(DAY)
                .http_timeout(DAY)
                .start()
                .expect("it starts");
            let _ = install_panic_hook(&telemetry);
            let tasks = (0..12).map(|number| {
                let handle = telemetry.handle();
                tokio::spawn(async move {
                    handle.log("step", ());
                    handle.flush();
                    panic!("task {number}");
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                let ended = tokio::time::timeout(BOUND, task).await;
                assert!(ended.expect("no panic waits").is_err());
            }
            assert_eq!(telemetry.stats().accepted, 25);
            let drain = telemetry.wait_until_drained(Duration::from_secs(1)).await;
            println!("{drain:?}");
            std::process::exit(0);
        });
    }
}

#[test]
fn a_panic_that_has_waited_in_vain_is_not_waited_for_again_until_something_was_delivered() {
    let collector = collector();
    collector.always(Reply::stall());
    let child = {
        let mut program = program("hook_waits::child_panics_again_and_again", &collector);
        program.stdout(std::process::Stdio::piped()).spawn()
    };
    let mut child = child.expect("it runs");
    let output = child.stdout.take().expect("piped");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    for line in lines.map_while(Result::ok) {
        if line.contains("the backend is down") {
            collector.always(Reply::accept());
        }
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
    assert_eq!(
        messages(&collector).last().map(String::as_str),
        Some("last")
    );
}

#[test]
fn child_panics_again_and_again() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    if is_child() {
        let telemetry = session()
            .http_timeout(Duration::from_secs(1))
            .max_retries(1_000)
            .drop_timeout(TIMEOUT)
            .start()
            .expect("it starts");
        let _ = install_panic_hook(&telemetry);
        on_main(move || {
            let start = Instant::now();
            caught(|| panic!("waits in vain"));
            assert!(start.elapsed() >= TIMEOUT);
            let start = Instant::now();
            for _ in 0..50 {
                caught(|| panic!("does not wait"));
            }
            // Fewer than half of them can have waited.
            assert!(start.elapsed() < TIMEOUT * 25);
            println!("the backend is down");
            let drain = telemetry.wait_until_drained_blocking(BOUND);
            assert!(drain.expect("it may block").all_delivered());
            caught(|| panic!("last"));
            std::process::exit(3);
        });
    }
}

#[test]
fn a_timeout_without_end_ends_with_the_delivery() {
    let collector = collector();
    let output = run("child_has_no_limit", &collector);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(messages(&collector), ["without a limit"]);
}

#[test]
fn child_has_no_limit() {
    if is_child() {
        let telemetry = session().start().expect("it starts");
        let hook = PanicHook::new(&telemetry).timeout(Duration::MAX);
        let _ = hook.install();
        caught(|| panic!("without a limit"));
        std::process::exit(3);
    }
}

#[test]
fn a_panic_that_logging_catches_is_neither_logged_nor_waited_for() {
    let collector = collector();
    collector.always(Reply::stall());
    let output = run("child_panics_in_log", &collector);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(messages(&collector), [] as [String; 0]);
}

/// Panics wherever logging calls it.
#[derive(Clone, Copy)]
struct Bomb;

impl Serialize for Bomb {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("in Serialize");
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in Display");
    }
}

impl fmt::Debug for Bomb {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in Debug");
    }
}

impl core::error::Error for Bomb {}

fn fails_with_a_bomb(handle: &Handle) {
    for _ in 0..3 {
        assert!(!handle.log("x", Bomb));
        assert!(handle.log("x", ()));
        assert!(!handle.log_exception(&Bomb, Severity::Error));
        let boxed: &(dyn core::error::Error + 'static) = &Bomb;
        assert!(!handle.log_exception(boxed, Severity::Error));
        let failed: Result<(), Bomb> = capture!(reporter = handle, { Err(Bomb) });
        assert!(failed.is_err());
    }
}

#[test]
fn child_panics_in_log() {
    if is_child() {
        // A panic that waited would not end.
        let telemetry = session().http_timeout(DAY).start().expect("it starts");
        let _ = PanicHook::new(&telemetry).timeout(DAY).install();
        on_main(move || {
            fails_with_a_bomb(&telemetry);
            let stats = telemetry.stats();
            // SESSION_START, and the three events without a bomb.
            assert_eq!((stats.accepted, stats.refused.unencodable), (4, 12));
            core::mem::forget(telemetry);
            let scrubbed = session_named("scrubbed")
                .http_timeout(DAY)
                .scrub(|event| match event.name() {
                    "dropped" => Verdict::Drop,
                    _ => panic!("in a scrub hook"),
                })
                .start()
                .expect("it starts");
            let _ = PanicHook::new(&scrubbed).timeout(DAY).install();
            assert!(!scrubbed.log("x", ()));
            assert!(!scrubbed.log("dropped", Bomb));
            assert!(!scrubbed.log_exception(&Failure("x", None), Severity::Error));
            assert!(!scrubbed.log_exception(&Bomb, Severity::Error));
            assert_eq!(scrubbed.stats().accepted, 1);
            std::process::exit(0);
        });
    }
}

#[test]
fn where_no_thread_can_be_started_a_panic_is_logged_on_its_own() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let collector = collector();
    // Less memory than the threads below ask for.
    let limited = "ulimit -v 8000000 && exec \"$0\" \"$@\"";
    let program = program("hook_waits::child_has_no_threads_left", &collector);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", limited])
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = shell.output().expect("it runs");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let messages = messages(&collector);
    assert_eq!(messages.len(), 1, "{output:?}");
    assert!(
        messages[0].starts_with("failed to spawn thread"),
        "{messages:?}"
    );
}

#[test]
fn child_has_no_threads_left() {
    if is_child() {
        let telemetry = session().start().expect("it starts");
        let _ = PanicHook::new(&telemetry).timeout(BOUND).install();
        // Its threads are there, and wait.
        let drain = telemetry.wait_until_drained_blocking(BOUND);
        assert!(drain.expect("it may block").all_delivered());
        // For what the panic allocates: with what the loop leaves, less than a thread asks for.
        let reserve = vec![1_u8; 900 << 10];
        let mut size = 1 << 32;
        while size >= 1 << 20 {
            let (started, starts) = channel();
            let builder = thread::Builder::new().stack_size(size);
            let spawned = builder.spawn(move || {
                // A thread allocates when it starts, and could not any more if it started last.
                let _ = started.send(());
                loop {
                    thread::park()
                }
            });
            match spawned {
                Ok(_) => starts.recv().expect("it starts"),
                Err(_) => size /= 2,
            }
        }
        drop(reserve);
        caught(|| drop(thread::spawn(|| ())));
        std::process::exit(3);
    }
}
