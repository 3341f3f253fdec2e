//! A healthy server: what arrives, when, in what order, in how many requests.

use crate::session::{BOUND, ID, builder, open, options, transport};
use crate::table::Verdict::{self, Passed};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::thread;
use tinkex_telemetry::collector::{Collector, EventKind, RequestRecord};
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::{Severity, fields};
use zoo::runtimes::{Opened, RuntimeUnderTest};

pub(crate) fn events_arrive_as_they_were_logged<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    let data = fields! { yes: true, none: Option::<u8>::None, text: "a \"b\" ü" };
    assert!(session.handle.log_with("first", data, Severity::Warning));
    session.deliver();
    let drain = session.run(session.handle.stop(BOUND));
    assert!(drain.all_delivered());
    let kept = session.kept();
    let kinds: Vec<_> = kept.events().iter().map(|event| event.kind()).collect();
    let expected = [
        EventKind::SessionStart,
        EventKind::GenericEvent,
        EventKind::SessionEnd,
    ];
    assert_eq!(kinds, expected);
    let event = &kept.events()[1];
    assert_eq!((event.index(), event.severity()), (1, "WARNING"));
    let value = event.value();
    assert_eq!(value["event_name"], "first");
    assert_eq!(
        value["event_data"],
        serde_json::json!({"yes": true, "none": null, "text": "a \"b\" ü"})
    );
    Passed
}

pub(crate) fn events_from_many_threads_arrive_once_in_order_and_without_gaps<
    W: RuntimeUnderTest,
    H: HttpClient,
>(
    client: fn() -> H,
) -> Verdict {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let session = open::<W, H>(client, options());
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let handle = session.handle.clone();
            scope.spawn(move || {
                for n in 0..EACH {
                    assert!(handle.log("x", fields! { thread: thread, n: n }));
                }
            });
        }
    });
    session.deliver();
    let kept = session.kept();
    assert_eq!(kept.len() as u64, 1 + THREADS * EACH);
    assert_eq!((kept.gaps(), kept.duplicates()), (vec![], 0));
    // The collector rejects requests whose indices are out of order; here, the order within each thread is checked.
    let mut next = [0; THREADS as usize];
    for event in &kept.events()[1..] {
        let data = &event.value()["event_data"];
        let number = |name: &str| data[name].as_u64().expect("a number");
        let expected = &mut next[number("thread") as usize];
        assert_eq!(number("n"), *expected);
        *expected += 1;
    }
    Passed
}

fn sizes(collector: &Collector) -> Vec<usize> {
    let requests = collector.requests();
    requests.iter().map(RequestRecord::event_count).collect()
}

pub(crate) fn batches_have_at_most_a_hundred_events<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let mut options = options();
    options.flush_threshold = 1_000;
    let session = open::<W, H>(client, options);
    session.log(250);
    session.deliver();
    assert_eq!(session.kept().len(), 251);
    assert_eq!(sizes(&session.collector), [100, 100, 51]);
    Passed
}

pub(crate) fn reaching_the_threshold_triggers_a_send<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let session = open::<W, H>(client, options());
    session.log(99);
    assert!(session.collector.wait_for(ID, 100, BOUND));
    assert_eq!(session.kept().len(), 100);
    Passed
}

/// In real time: the runtimes' own timers are under test.
pub(crate) fn the_interval_triggers_a_send<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let mut options = options();
    options.flush_interval = Duration::from_millis(20);
    let session = open::<W, H>(client, options);
    for count in 2..5 {
        session.log(1);
        assert!(session.collector.wait_for(ID, count, BOUND));
    }
    assert_eq!(session.kept().len(), 4);
    Passed
}

pub(crate) fn a_disabled_session_touches_nothing<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let (runtime, collector) = (W::new(), Collector::start().expect("a collector"));
    let start = builder(ID, options()).enabled(false);
    let Opened { handle, reporter } = runtime.open(start, transport(&collector, client));
    assert!(!handle.is_enabled());
    assert!(!handle.log("x", ()));
    handle.flush();
    let drain = handle.stop_blocking(BOUND).expect("nothing to wait for");
    assert_eq!((drain.delivered, drain.remaining), (0, 0));
    assert!(!handle.stats().driver_alive);
    drop(reporter);
    assert!(collector.requests().is_empty());
    Passed
}

pub(crate) fn a_thousand_sessions_run_side_by_side<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    const SESSIONS: usize = 1_000;
    // They take threads and sockets, so only one runtime runs this at a time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (runtime, collector) = (W::new(), Collector::start().expect("a collector"));
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|n| {
            let start = builder(&format!("s{n}"), options());
            runtime.open(start, transport(&collector, client))
        })
        .collect();
    for session in &sessions {
        assert!(session.handle.log("x", ()));
        session.handle.flush();
    }
    for session in &sessions {
        let drain = session
            .handle
            .stop_blocking(BOUND)
            .expect("no executor on this thread");
        assert!(drain.all_delivered(), "{drain:?}");
    }
    assert_eq!(collector.violations(), []);
    let kept = collector.sessions();
    assert_eq!(kept.len(), SESSIONS);
    assert!(kept.iter().all(|kept| kept.len() == 3 && kept.has_ended()));
    Passed
}
