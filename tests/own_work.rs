//! What a session's own work logs does not return to the session: with a logger that forwards every record to it, or to
//! several, nothing loops. The logger is global, so each test has the sessions of all to itself.
#![cfg(all(feature = "collector", feature = "thread", feature = "ureq"))]
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::future::Future as _;
use core::pin::pin;
use core::task::{Context, Waker};
use core::time::Duration;
use serde::{Serialize, Serializer};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::http::HttpClient as _;
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::stats::Refused;
use tinkex_telemetry::{Config, Handle, HttpTransport, Reporter, Severity, Thread, Ureq, fields};

const BOUND: Duration = Duration::from_secs(20);

/// Forwards each record at once to every session in the list, as a program's own logger might.
struct Forwarder;

static SESSIONS: Mutex<Vec<Handle>> = Mutex::new(Vec::new());

impl log::Log for Forwarder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let sessions = lock(&SESSIONS).clone();
        for session in sessions {
            let message = record.args().to_string();
            session.log(
                "record",
                fields! { target: record.target(), message: message },
            );
        }
    }

    fn flush(&self) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until dropped, no other test of this process runs: its sessions would log, too. Taken before any session starts.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_TEST: Mutex<()> = Mutex::new(());
    lock(&ONE_TEST)
}

/// Until dropped, the logger forwards to these sessions.
struct Forwarding(());

impl Forwarding {
    fn to(sessions: &[&Handle]) -> Self {
        static INSTALLED: OnceLock<()> = OnceLock::new();
        INSTALLED.get_or_init(|| {
            log::set_logger(&Forwarder).expect("there is no other logger");
            log::set_max_level(log::LevelFilter::Debug);
        });
        *lock(&SESSIONS) = sessions.iter().map(|session| (*session).clone()).collect();
        Self(())
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        lock(&SESSIONS).clear();
    }
}

/// A session that sends each event at once, so that a loop would show immediately.
fn session(collector: &Collector, id: &str) -> Builder<HttpTransport<Ureq>, Thread, Thread> {
    let config = Config::new(&collector.url(), "any key").expect("a config");
    Reporter::builder(id)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .enabled(true)
        .flush_threshold(1)
        .flush_interval(Duration::from_millis(1))
        .retry_base_delay(Duration::from_millis(1))
}

fn drain(session: &Handle) {
    let drain = session.wait_until_drained_blocking(BOUND);
    assert!(drain.expect("no deadlock").is_drained());
}

fn refused(session: &Handle) -> Refused {
    session.stats().refused
}

#[test]
fn a_logger_that_forwards_to_the_session_gets_no_echo() {
    let _alone = alone();
    let collector = Collector::start().expect("a collector");
    let session = session(&collector, "s").start().expect("it starts");
    let forwarding = Forwarding::to(&[&session]);
    for round in 0..30 {
        log::warn!("the application's own, {round}");
        drain(&session);
    }
    let stats = session.stats();
    // SESSION_START, and what the application has logged.
    assert_eq!(stats.accepted, 31);
    assert!(stats.refused.own_work >= 30, "{stats:?}");
    assert_eq!(stats.refused.total(), stats.refused.own_work);
    assert!(
        session
            .stop_blocking(BOUND)
            .is_ok_and(|drain| drain.all_delivered())
    );
    drop(forwarding);
    let sent = collector.session("s").expect("it arrived");
    assert_eq!(
        (sent.len(), sent.gaps()),
        (32, vec![]),
        "a refusal takes no index"
    );
}

#[test]
fn a_forwarded_diagnostic_is_not_sent() {
    let _alone = alone();
    let collector = Collector::start().expect("a collector");
    collector.script([Reply::status(503), Reply::status(503)]);
    let session = session(&collector, "s").start().expect("it starts");
    let _forwarding = Forwarding::to(&[&session]);
    session.log("x", ());
    drain(&session);
    assert_eq!(session.stats().accepted, 2);
    assert!(refused(&session).own_work > 0);
}

#[test]
fn sessions_that_forward_to_each_other_come_to_rest() {
    let _alone = alone();
    let collector = Collector::start().expect("a collector");
    let sessions = ["a", "b", "c"].map(|id| session(&collector, id).start().expect("it starts"));
    let _forwarding = Forwarding::to(&[&sessions[0], &sessions[1], &sessions[2]]);
    sessions[0].log("x", ());
    let accepted = || -> u64 {
        sessions
            .iter()
            .map(|session| session.stats().accepted)
            .sum()
    };
    let mut rounds = 0;
    loop {
        let before = accepted();
        sessions.iter().for_each(|session| drain(session));
        if accepted() == before {
            break;
        }
        rounds += 1;
        assert!(rounds < 100, "{before} events, and no end");
    }
    // They have taken what the others' requests log, and nothing of what came back to them.
    assert!(accepted() > 4, "{}", accepted());
    for session in &sessions {
        assert!(refused(session).own_work > 0);
    }
}

#[test]
fn an_observer_may_log_to_another_session_and_not_to_its_own() {
    let _alone = alone();
    static OBSERVED: OnceLock<[Handle; 2]> = OnceLock::new();
    let collector = Collector::start().expect("a collector");
    let other = session(&collector, "other").start().expect("it starts");
    let own = session(&collector, "own")
        .max_event_bytes(1_000)
        .on_diagnostic(|diagnostic| {
            for handle in OBSERVED.get().into_iter().flatten() {
                handle.log("diagnostic", fields! { text: diagnostic.to_string() });
            }
        })
        .start()
        .expect("it starts");
    assert!(OBSERVED.set([own.handle(), other.handle()]).is_ok());
    assert!(!own.log("large", fields! { text: "x".repeat(1_000) }));
    while refused(&own).own_work == 0 {
        std::thread::yield_now();
    }
    drain(&own);
    drain(&other);
    assert_eq!((own.stats().accepted, refused(&own).own_work), (1, 1));
    assert_eq!((other.stats().accepted, refused(&other).total()), (2, 0));
}

/// Logs whenever it is encoded.
struct Chatty<'a>(&'a Handle);

impl Serialize for Chatty<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.log("from a Serialize", ());
        let map = std::collections::BTreeMap::from([("n", 1)]);
        map.serialize(serializer)
    }
}

#[test]
fn a_serialize_and_an_error_that_log_are_heard() {
    let _alone = alone();
    #[derive(Debug)]
    struct Talkative(Handle);
    impl core::fmt::Display for Talkative {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            self.0.log("from a Display", ());
            f.write_str("it failed")
        }
    }
    impl core::error::Error for Talkative {}

    let collector = Collector::start().expect("a collector");
    let session = session(&collector, "s").start().expect("it starts");
    assert!(session.log("x", Chatty(&session)));
    assert!(session.log_exception(&Talkative(session.handle()), Severity::Error));
    drain(&session);
    let stats = session.stats();
    assert!(stats.accepted >= 5, "{stats:?}");
    assert_eq!(stats.refused.total(), 0);
}

#[test]
fn a_client_of_the_applications_own_is_heard() {
    let _alone = alone();
    let collector = Collector::start().expect("a collector");
    let session = session(&collector, "s").start().expect("it starts");
    let _forwarding = Forwarding::to(&[&session]);
    // Not a request of the session's, though the client is of the same kind.
    let mut own = Ureq::new();
    let request = http::Request::get(collector.url()).body(bytes::Bytes::new());
    let mut sending = pin!(own.send(request.expect("a request")));
    let mut context = Context::from_waker(Waker::noop());
    while sending.as_mut().poll(&mut context).is_pending() {
        std::thread::yield_now();
    }
    drain(&session);
    assert!(session.stats().accepted > 1);
}
