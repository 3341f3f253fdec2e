//! Sessions on a bus: which events they take, and for how long.

use super::ids;
use alloc::sync::Arc;
use core::future::{Future, pending};
use core::pin::pin;
use core::task::{Context, Waker};
use core::time::Duration;
use serde_json::{Value as Json, json};
use std::sync::Mutex;
use std::thread;
use tinkex_telemetry::bus::{AttachError, Bus, EventNames, QueueState, QueueStateTracker};
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::session::{BuildError, Builder, Driver, Memory};
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Transport};

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_764_151_845_000_000)
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Send {
        pending()
    }
}

/// A transport that keeps the events it is given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Json>>>);

impl Transport for Kept {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let body: Json = serde_json::from_slice(batch.body()).expect("JSON");
        let events = body["events"].as_array().expect("a list").clone();
        self.0.lock().expect("not poisoned").extend(events);
        Ok(Receipt::delivered())
    }
}

impl Kept {
    /// The generic events, once the driver has sent everything.
    fn generic(&self, reporter: &Session, driver: Driver<Kept, Still>) -> Vec<Json> {
        let mut context = Context::from_waker(Waker::noop());
        let mut driver = pin!(driver.run());
        reporter.flush();
        for _ in 0..1_000 {
            if reporter.stats().queued == 0 {
                break;
            }
            assert!(driver.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(reporter.stats().queued, 0);
        let all = self.0.lock().expect("not poisoned");
        let generic = all.iter().filter(|event| event["event"] == "GENERIC_EVENT");
        generic.cloned().collect()
    }
}

type Session = Reporter<Kept, Still, ()>;

fn session(id: &str, bus: &Bus) -> (Builder<Kept, Still, ()>, Kept) {
    let kept = Kept::default();
    let builder = Reporter::builder(id)
        .transport(kept.clone())
        .clock(Still)
        .bus(bus.clone())
        .enabled(true);
    (builder, kept)
}

fn stop_event<'a>(session: &'a str) -> [tinkex_telemetry::bus::Pair<'a>; 3] {
    [
        ("method", "GET".into()),
        ("session_id", session.into()),
        ("status", 200.into()),
    ]
}

#[test]
fn a_session_takes_its_own_events_and_leaves_the_others() {
    let bus = Bus::new();
    let (builder, kept) = session("s", &bus);
    let (reporter, driver) = builder.build().expect("a valid configuration");
    let (other, other_kept) = session("t", &bus);
    let (other, other_driver) = other.build().expect("a valid configuration");
    assert_eq!(ids(&bus), ["tinkex-telemetry-s", "tinkex-telemetry-t"]);
    assert!(reporter.handle().bus().is_some());

    let took = [("duration", 1_500_u64.into())];
    bus.execute("tinkex.http.request.stop", &took, &stop_event("s"));
    bus.execute("tinkex.http.request.exception", &took, &stop_event("s"));
    bus.execute("tinkex.http.request.stop", &took, &stop_event("t"));
    bus.execute("tinkex.http.request.stop", &took, &stop_event("u"));
    bus.execute("tinkex.http.request.stop", &took, &[]);
    bus.execute("an.unrelated.event", &took, &stop_event("s"));
    bus.execute(
        "tinkex.http.request.stop",
        &took,
        &[("session_id", 5.into())],
    );

    let events = kept.generic(&reporter, driver);
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["event_name"], "tinkex.http.request.stop");
    assert_eq!(events[0]["severity"], "INFO");
    assert_eq!(
        events[0]["event_data"],
        json!({"measurements": {"duration": 1500}, "metadata": {"method": "GET", "status": 200}})
    );
    assert_eq!(events[1]["event_name"], "tinkex.http.request.exception");
    assert_eq!(events[1]["severity"], "ERROR");
    assert_eq!(other_kept.generic(&other, other_driver).len(), 1);
}

#[test]
fn a_queue_state_change_reaches_the_session() {
    let (builder, kept) = session("s", &Bus::new());
    let (reporter, driver) = builder.build().expect("a valid configuration");
    let tracker = QueueStateTracker::new(&reporter);
    for depth in [9, 8] {
        tracker.observe(
            "r",
            QueueState::PausedCapacity,
            Some("no room"),
            Some(depth),
        );
    }
    let events = kept.generic(&reporter, driver);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event_name"], "tinkex.queue.state_change");
    let metadata = json!({
        "from": "unknown", "to": "paused_capacity", "reason": "no room", "request_id": "r", "call": 0,
    });
    assert_eq!(
        events[0]["event_data"],
        json!({"measurements": {"queue_depth": 9}, "metadata": metadata})
    );
}

#[test]
fn a_queue_depth_that_the_backend_does_not_give_is_left_out() {
    let (builder, kept) = session("s", &Bus::new());
    let (reporter, driver) = builder.build().expect("a valid configuration");
    let tracker = QueueStateTracker::new(&reporter);
    tracker.observe("r", QueueState::PausedCapacity, None, None);
    tracker.observe("r", QueueState::Active, None, Some(0));
    let events = kept.generic(&reporter, driver);
    let measurements: Vec<_> = events
        .iter()
        .map(|event| event["event_data"]["measurements"].clone())
        .collect();
    assert_eq!(measurements, [json!({}), json!({"queue_depth": 0})]);
}

#[test]
fn a_session_takes_the_configured_events() {
    let bus = Bus::new();
    let (builder, kept) = session("s", &bus);
    let events = EventNames::AUTOMATIC.into_iter().chain(["my.event"]);
    let builder = builder.events(events).handler_id("mine");
    let (reporter, driver) = builder.build().expect("a valid configuration");
    assert_eq!(ids(&bus), ["mine"]);
    bus.execute("my.event", &[], &stop_event("s"));
    bus.execute("another", &[], &stop_event("s"));
    let events = kept.generic(&reporter, driver);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event_name"], "my.event");
    assert_eq!(events[0]["event_data"]["measurements"], json!({}));
}

#[test]
fn a_session_that_stops_or_is_dropped_leaves_its_bus() {
    let bus = Bus::new();
    let (reporter, _driver) = session("s", &bus).0.build().expect("a valid configuration");
    let handle = reporter.handle();
    drop(handle.stop(Duration::ZERO));
    assert!(bus.is_idle(), "stopping is enough");
    // Another owner's handler with the same id stays.
    bus.attach("tinkex-telemetry-s", "e", |_| {})
        .expect("the id is free again");
    drop(handle.stop(Duration::ZERO));
    drop(reporter);
    assert_eq!(ids(&bus), ["tinkex-telemetry-s"]);
    bus.detach("tinkex-telemetry-s");

    let (reporter, _driver) = session("s", &bus).0.build().expect("a valid configuration");
    drop(reporter);
    assert!(bus.is_idle(), "so is dropping");

    let (reporter, driver) = session("s", &bus).0.build().expect("a valid configuration");
    core::mem::forget(reporter.handle());
    drop(driver);
    assert!(!bus.is_idle(), "a driver may come and go");
    drop(reporter);
    assert!(bus.is_idle());
}

#[test]
fn an_attached_handler_does_not_keep_its_session_alive() {
    /// A clock whose drop can be observed.
    struct Watched(Arc<()>);

    impl Clock for Watched {
        fn now(&self) -> Instant {
            let _ = &self.0;
            Instant::ORIGIN
        }

        fn utc(&self) -> Timestamp {
            Timestamp::from_unix_micros(0)
        }

        fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Send {
            pending()
        }
    }

    let (bus, clock) = (Bus::new(), Arc::new(()));
    let builder = Reporter::builder("s").transport(Kept::default());
    let builder = builder.clock(Watched(Arc::clone(&clock))).bus(bus.clone());
    let (reporter, driver) = builder
        .enabled(true)
        .build()
        .expect("a valid configuration");
    assert_eq!(Arc::strong_count(&clock), 2);
    drop((reporter, driver));
    assert_eq!(Arc::strong_count(&clock), 1);
}

#[test]
fn a_session_that_is_disabled_or_opts_out_attaches_nothing() {
    let bus = Bus::new();
    let (builder, _) = session("s", &bus);
    let (off, _driver) = builder
        .enabled(false)
        .build()
        .expect("a valid configuration");
    assert!(bus.is_idle());
    assert!(off.handle().bus().is_none());
    let (builder, _) = session("s", &bus);
    let (on, _driver) = builder
        .attach_events(false)
        .build()
        .expect("a valid configuration");
    assert!(bus.is_idle());
    assert!(on.handle().bus().is_some(), "others may attach to it");
}

#[test]
fn sessions_with_the_same_id_get_distinct_handler_ids_unless_one_is_set() {
    let bus = Bus::new();
    let first = session("s", &bus).0.build().expect("a valid configuration");
    let second = session("s", &bus).0.build().expect("a valid configuration");
    assert_eq!(ids(&bus), ["tinkex-telemetry-s", "tinkex-telemetry-s-2"]);
    let third = session("s", &bus).0.handler_id("tinkex-telemetry-s");
    let error = third.build().expect_err("it is taken");
    let taken = AttachError::AlreadyAttached("tinkex-telemetry-s".into());
    assert_eq!(error, BuildError::Attach(taken));
    drop((first, second));
    assert!(bus.is_idle());
}

#[test]
fn a_session_in_provided_memory_takes_its_events_too() {
    let memory = Box::leak(Box::new(Memory::<Still, 8_192, 4_096>::new()));
    let bus = Bus::new();
    let (builder, kept) = session("s", &bus);
    let builder = builder.max_event_bytes(1_024).flush_threshold(2);
    let (reporter, driver) = builder.build_in(memory).expect("a valid configuration");
    bus.execute("tinkex.http.request.stop", &[], &stop_event("s"));
    assert_eq!(kept.generic(&reporter, driver).len(), 1);
    drop(reporter);
    assert!(bus.is_idle());
}

#[test]
fn without_a_bus_of_its_own_a_session_uses_the_global_one() {
    let builder = Reporter::builder("on the global bus").transport(Kept::default());
    let built = builder.clock(Still).enabled(true).build();
    let (reporter, _driver) = built.expect("a valid configuration");
    let id = "tinkex-telemetry-on the global bus".to_owned();
    assert!(ids(Bus::global()).contains(&id));
    drop(reporter);
    assert!(!ids(Bus::global()).contains(&id));
}

#[test]
fn events_arrive_from_any_thread_while_sessions_come_and_go() {
    const EVENTS: usize = 5_000;
    let bus = Bus::new();
    let (builder, _) = session("s", &bus);
    let (reporter, _driver) = builder.build().expect("a valid configuration");
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..EVENTS {
                    bus.execute("tinkex.http.request.start", &[], &stop_event("s"));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..200 {
                let (builder, _) = session("t", &bus);
                let (other, _driver) = builder.build().expect("a valid configuration");
                drop(other);
            }
        });
    });
    let stats = reporter.stats();
    // Plus `SESSION_START`.
    assert_eq!(
        stats.accepted + stats.refused.total(),
        2 * EVENTS as u64 + 1
    );
    assert_eq!(ids(&bus), ["tinkex-telemetry-s"]);
}
