//! The event bus: handlers attach, detach and fail, and a session takes the events that are its own.
#![cfg(feature = "std")]

extern crate alloc;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use serde_json::json;
use std::sync::Mutex;
use std::thread;
use tinkex_telemetry::bus::{AttachError, Bus, Event, EventNames, HANDLER_FAILURE};

mod sessions;

/// The calls that handlers received, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("not poisoned").push(what.into());
    }

    fn take(&self) -> Vec<String> {
        core::mem::take(&mut self.0.lock().expect("not poisoned"))
    }

    /// A handler that records its calls.
    fn handler(&self, name: &str) -> impl Fn(&Event<'_>) + Send + Sync + 'static + use<> {
        let (seen, name) = (self.clone(), name.to_owned());
        move |event| seen.note(format!("{name} {}", event.name()))
    }
}

/// Everything that the tests of this binary wrote to the `log` facade.
static WRITTEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Writer;

impl log::Log for Writer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}: {}", record.level(), record.target(), record.args());
        WRITTEN.lock().expect("not poisoned").push(line);
    }

    fn flush(&self) {}
}

/// The lines that contain `part`.
fn written(part: &str) -> Vec<String> {
    let all = WRITTEN.lock().expect("not poisoned");
    all.iter()
        .filter(|line| line.contains(part))
        .cloned()
        .collect()
}

fn write_log() {
    // All tests of this binary share one logger.
    let _ = log::set_logger(&Writer);
    log::set_max_level(log::LevelFilter::Trace);
}

fn ids(bus: &Bus) -> Vec<String> {
    bus.list().into_iter().map(|one| one.handler_id).collect()
}

#[test]
fn handlers_are_called_for_their_events_in_the_order_they_were_attached() {
    let (bus, seen) = (Bus::new(), Seen::default());
    bus.attach("one", "a.b", seen.handler("one"))
        .expect("the id is free");
    bus.attach_many("two", ["a.b", "c.d"], seen.handler("two"))
        .expect("the id is free");
    for event in ["a.b", "c.d", "a", "a.b.c", ""] {
        bus.execute(event, &[], &[]);
    }
    assert_eq!(seen.take(), ["one a.b", "two a.b", "two c.d"]);
    let listed = bus.list();
    assert_eq!(listed[1].handler_id, "two");
    assert_eq!(listed[1].events, ["a.b", "c.d"]);
}

#[test]
fn measurements_and_metadata_arrive_unchanged() {
    let (bus, seen) = (Bus::new(), Seen::default());
    let note = seen.clone();
    bus.attach("one", "a.b", move |event| {
        let all = json!([event.measurements(), event.metadata()]);
        note.note(all.to_string());
    })
    .expect("the id is free");
    let path = String::from("/x");
    bus.execute(
        "a.b",
        &[("duration", 5_u64.into()), ("part", 0.5.into())],
        &[("path", (&path).into()), ("cached", true.into())],
    );
    assert_eq!(
        seen.take(),
        [r#"[{"duration":5,"part":0.5},{"cached":true,"path":"/x"}]"#]
    );
}

#[test]
fn an_id_can_be_attached_only_once_until_it_is_detached() {
    let bus = Bus::new();
    bus.attach("one", "a", |_| {}).expect("the id is free");
    let again = bus.attach("one", "b", |_| {});
    assert_eq!(again, Err(AttachError::AlreadyAttached("one".into())));
    assert_eq!(
        again.map_err(|error| error.to_string()),
        Err("a handler with the id \"one\" is attached".into())
    );
    assert!(bus.detach("one"));
    assert!(!bus.detach("one"));
    assert!(bus.is_idle());
    bus.attach("one", "b", |_| {})
        .expect("the id is free again");
    assert_eq!(bus.list()[0].events, ["b"]);
}

#[test]
fn buses_are_independent_and_a_clone_is_the_same_bus() {
    let (bus, other) = (Bus::new(), Bus::new());
    bus.clone()
        .attach("one", "a", |_| {})
        .expect("the id is free");
    assert_eq!((bus.list().len(), other.list().len()), (1, 0));
}

#[test]
fn a_handler_may_attach_detach_and_execute() {
    let (bus, seen) = (Bus::new(), Seen::default());
    bus.attach("once", "a", {
        let (bus, seen) = (bus.clone(), seen.clone());
        move |_| {
            seen.note("once");
            assert!(bus.detach("once"));
            assert!(bus.detach("victim"), "it comes after this one");
            assert!(bus.attach("new", "a", seen.handler("new")).is_ok());
            bus.execute("b", &[], &[]);
        }
    })
    .expect("the id is free");
    bus.attach("victim", "a", seen.handler("victim"))
        .expect("the id is free");
    bus.attach("b", "b", seen.handler("b"))
        .expect("the id is free");
    bus.execute("a", &[], &[]);
    assert_eq!(seen.take(), ["once", "b b"], "the new one comes next time");
    bus.execute("a", &[], &[]);
    assert_eq!(seen.take(), ["new a"]);
}

#[test]
fn a_panicking_handler_is_detached_and_reported_and_the_others_still_run() {
    write_log();
    let (bus, seen) = (Bus::new(), Seen::default());
    bus.attach("first", "a", seen.handler("first"))
        .expect("the id is free");
    bus.attach("bad", "a", |_| std::panic::resume_unwind(Box::new("bad")))
        .expect("the id is free");
    bus.attach("last", "a", seen.handler("last"))
        .expect("the id is free");
    let note = seen.clone();
    bus.attach("watch", HANDLER_FAILURE, move |event| {
        note.note(json!(event.metadata()).to_string());
    })
    .expect("the id is free");
    // A handler that fails at this event is detached too, and emits no further event.
    bus.attach_many("worse", [HANDLER_FAILURE], |_| {
        std::panic::resume_unwind(Box::new("worse"));
    })
    .expect("the id is free");
    bus.execute("a", &[], &[]);
    assert_eq!(
        seen.take(),
        ["first a", "last a", r#"{"event":"a","handler_id":"bad"}"#]
    );
    assert_eq!(ids(&bus), ["first", "last", "watch"]);
    for (id, event) in [("bad", "a"), ("worse", HANDLER_FAILURE)] {
        let line = format!("the handler {id:?} panicked at the event {event:?} and was detached");
        assert_eq!(written(&line), [format!("ERROR tinkex_telemetry: {line}")]);
    }
    bus.execute("a", &[], &[]);
    assert_eq!(seen.take(), ["first a", "last a"]);
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("boom"));
    }
}

#[test]
fn a_handlers_captures_are_dropped_with_it_and_may_use_the_bus_or_panic() {
    let bus = Bus::new();
    let held = Arc::new(());
    let captured = Arc::clone(&held);
    bus.attach("one", "a", move |_| drop(Arc::clone(&captured)))
        .expect("the id is free");
    bus.detach("one");
    assert_eq!(Arc::strong_count(&held), 1);

    /// Uses the bus when it is dropped.
    struct Leaves(Bus);

    impl Drop for Leaves {
        fn drop(&mut self) {
            self.0.detach("three");
        }
    }
    let leaves = [Leaves(bus.clone()), Leaves(bus.clone())];
    for leaves in leaves {
        // The second is refused.
        let _ = bus.attach("three", "a", move |_| drop(leaves.0.clone()));
    }
    assert!(bus.is_idle());

    for event in ["a", "b"] {
        let grenade = Grenade;
        let inner = bus.clone();
        bus.attach("two", "a", move |_| {
            let _ = &grenade;
            inner.detach("two");
        })
        .expect("the id is free");
        bus.execute(event, &[], &[]);
        bus.detach("two");
        assert!(bus.is_idle());
    }
}

#[test]
fn threads_attach_detach_and_execute_concurrently() {
    const ROUNDS: usize = 2_000;
    let (bus, calls) = (Bus::new(), Arc::new(AtomicUsize::new(0)));
    let stays = Arc::clone(&calls);
    bus.attach("stays", "e", move |_| {
        stays.fetch_add(1, Ordering::Relaxed);
    })
    .expect("the id is free");
    thread::scope(|scope| {
        for thread in 0..2 {
            let bus = &bus;
            scope.spawn(move || {
                let id = format!("comes and goes {thread}");
                for round in 0..ROUNDS {
                    let is_alive = Arc::new(AtomicBool::new(true));
                    let seen = Arc::clone(&is_alive);
                    let attached = bus.attach(&id, "e", move |_| {
                        assert!(seen.load(Ordering::Relaxed));
                        if round % 7 == 0 {
                            std::panic::resume_unwind(Box::new("now and then"));
                        }
                    });
                    attached.expect("no other thread uses this id");
                    bus.execute("e", &[], &[]);
                    // A handler that panicked is detached already.
                    assert_eq!(bus.detach(&id), round % 7 != 0);
                }
            });
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    bus.execute("e", &[("n", 1.into())], &[]);
                    bus.execute("another", &[], &[]);
                }
            });
        }
    });
    assert_eq!(ids(&bus), ["stays"]);
    assert_eq!(calls.load(Ordering::Relaxed), 4 * ROUNDS);
}

#[test]
fn loggers_can_be_attached_repeatedly_and_stop_when_detached() {
    let bus = Bus::new();
    let first = bus.attach_logger(log::Level::Info).expect("not forked");
    let second = bus.attach_logger(log::Level::Debug).expect("not forked");
    assert_ne!(first, second);
    assert_eq!(bus.list()[0].events, EventNames::AUTOMATIC);
    write_log();
    let event = |id| {
        let metadata = [("request_id", tinkex_telemetry::bus::Value::Str(id))];
        bus.execute(
            "tinkex.queue.state_change",
            &[("queue_depth", 3.into())],
            &metadata,
        );
    };
    event("to both");
    assert!(bus.detach(&first));
    event("to one");
    assert!(bus.detach(&second));
    event("to none");
    let line = "tinkex_telemetry: tinkex.queue.state_change queue_depth=3 request_id=";
    assert_eq!(
        written("queue_depth=3"),
        [
            format!("INFO {line}\"to both\""),
            format!("DEBUG {line}\"to both\""),
            format!("DEBUG {line}\"to one\""),
        ]
    );
}
