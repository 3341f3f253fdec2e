//! Many events at once, and many sessions at once.
#![cfg(all(
    feature = "collector",
    feature = "thread",
    feature = "tokio",
    feature = "ureq"
))]

use core::time::Duration;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;
use tinkex_telemetry::collector::{Collector, EventKind};
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq, fields};

/// Longer than anything here takes, shorter than a person waits.
const BOUND: Duration = Duration::from_secs(120);
const SESSION: &str = "s";

fn session(name: &str, url: &str) -> Builder<HttpTransport<Ureq>, Thread, Thread> {
    let config = Config::new(url, "key").expect("a config");
    Reporter::builder(name)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .enabled(true)
        .http_timeout(BOUND)
        .drop_timeout(BOUND)
}

#[test]
fn eight_threads_lose_duplicate_and_reorder_nothing() {
    const THREADS: u64 = 8;
    // What takes seconds in an optimized build takes minutes in a debug build, most of them in the collector.
    const EACH: u64 = if cfg!(debug_assertions) {
        10_000
    } else {
        100_000
    };
    const ALL: u64 = THREADS * EACH + 2;

    let collector = Collector::start().expect("a collector");
    let session = session(SESSION, &collector.url())
        .max_queue_size(ALL as usize)
        .max_queue_bytes(1 << 30)
        .max_batch_size(1_000)
        .flush_threshold(1_000)
        .start()
        .expect("it starts");
    let begin = Instant::now();
    let together = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for from in 0..THREADS {
            let (handle, together) = (session.handle(), &together);
            scope.spawn(move || {
                together.wait();
                for n in 0..EACH {
                    assert!(handle.log("x", fields! { from: from, n: n }));
                }
            });
        }
    });
    let logged = begin.elapsed();
    let drain = session.stop_blocking(BOUND).expect("no executor here");
    let sent = begin.elapsed();
    assert!(drain.all_delivered(), "{drain:?}");

    let stats = session.stats();
    assert_eq!((stats.accepted, stats.delivered), (ALL, ALL));
    assert_eq!((stats.refused.total(), stats.dropped.total()), (0, 0));
    assert_eq!((stats.queued, stats.queued_bytes), (0, 0));
    // The collector refuses reordered events, changed contents under the same id, and events after the end.
    assert_eq!(collector.violations(), []);
    let record = collector.session(SESSION).expect("it was kept");
    assert_eq!((record.len() as u64, record.duplicates()), (ALL, 0));
    assert_eq!(record.gaps(), []);
    assert!(record.has_ended());
    let mut next = [0; THREADS as usize];
    for event in record.events() {
        if event.kind() == EventKind::GenericEvent {
            let value = event.value();
            let from = value["event_data"]["from"].as_u64().expect("a number");
            let next = &mut next[from as usize];
            assert_eq!(
                value["event_data"]["n"], *next,
                "each thread's events are in order"
            );
            *next += 1;
        }
    }
    assert_eq!(next, [EACH; THREADS as usize]);
    println!(
        "{ALL} events: logged in {logged:?}, delivered in {sent:?} with {} requests",
        collector.requests().len()
    );
}

/// Many sessions in one process; on Linux only, which reports a process's memory.
#[cfg(target_os = "linux")]
mod sessions {
    use super::{BOUND, session};
    use std::process::Command;
    use std::time::Instant;
    use tinkex_telemetry::collector::Collector;
    use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport};

    const URL: &str = "TINKEX_TEST_URL";
    const SESSIONS: usize = 1_000;

    /// The budget of an idle session, in KiB of resident memory.
    const WITHOUT_HTTP: usize = 100;
    /// With ureq: a second thread, whose stack is larger in a debug build, and a connection with its buffers.
    const OVER_HTTP: usize = if cfg!(debug_assertions) { 320 } else { 160 };

    /// Runs the sessions in a separate process, so that its memory is theirs alone.
    fn run(child: &str, url: &str) {
        // Each session keeps a connection open, and many systems allow only 1024 open files.
        let script = "ulimit -n 4096; exec \"$0\" --exact \"$1\" --nocapture";
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().expect("a path"))
            .arg(child)
            .env(URL, url)
            .output()
            .expect("it runs");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(output.status.success(), "{printed}");
        for line in printed.lines().filter(|line| line.contains("sessions ")) {
            println!("{line}");
        }
    }

    #[test]
    fn a_thousand_idle_sessions_take_little_memory_and_stop_together() {
        run("sessions::child_has_sessions_without_http", "none");
        let collector = Collector::start().expect("a collector");
        run("sessions::child_has_sessions_over_http", &collector.url());
        let sessions = collector.sessions();
        assert_eq!(sessions.len(), SESSIONS);
        for session in sessions {
            assert_eq!((session.len(), session.has_ended()), (2, true));
        }
        assert_eq!(collector.violations(), []);
    }

    #[test]
    fn child_has_sessions_over_http() {
        if let Ok(url) = std::env::var(URL) {
            let start = |name: &str| session(name, &url).start().expect("it starts");
            measure("over HTTP", OVER_HTTP, start);
        }
    }

    /// A transport that needs nothing.
    struct Nowhere;

    impl Transport for Nowhere {
        async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
            Ok(Receipt::delivered())
        }
    }

    #[test]
    fn child_has_sessions_without_http() {
        if std::env::var_os(URL).is_some() {
            let start = |name: &str| {
                let builder = Reporter::builder(name).transport(Nowhere).runtime(Thread);
                builder.enabled(true).start().expect("it starts")
            };
            measure("without HTTP", WITHOUT_HTTP, start);
        }
    }

    fn measure<T>(title: &str, limit: usize, start: impl Fn(&str) -> Reporter<T, Thread, Thread>) {
        let start = |n: usize| {
            let session = start(&format!("session-{n}"));
            session.flush();
            session
        };
        let drained = |session: &Reporter<T, Thread, Thread>| {
            let drain = session.wait_until_drained_blocking(BOUND);
            drain.is_ok_and(|drain| drain.is_drained()) && session.stats().delivered == 1
        };
        // The one-time cost of the first session does not count.
        let mut sessions = vec![start(0)];
        assert!(drained(&sessions[0]));
        let (before, threads_before) = (resident(), threads());
        let begin = Instant::now();
        sessions.extend((1..SESSIONS).map(start));
        assert!(sessions.iter().all(drained));
        let started = begin.elapsed();
        let each = resident().saturating_sub(before) / (SESSIONS - 1);
        let threads = threads() - threads_before;
        println!(
            "\n{SESSIONS} idle sessions {title}: {each} KiB each, {threads} threads, started in {started:?}"
        );
        assert!(each < limit, "{each} KiB");

        let begin = Instant::now();
        for session in &sessions {
            // The call itself requests the stop; the future only waits.
            drop(session.stop(BOUND));
        }
        for session in &sessions {
            let drain = session.stop_blocking(BOUND);
            assert!(drain.is_ok_and(|drain| drain.is_drained()));
            assert_eq!(session.stats().delivered, 2);
        }
        println!(
            "{SESSIONS} sessions {title}: stopped in {:?}",
            begin.elapsed()
        );
    }

    /// This process's resident memory, in KiB.
    fn resident() -> usize {
        status("VmRSS:")
    }

    fn threads() -> usize {
        status("Threads:")
    }

    fn status(field: &str) -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number")
    }
}
