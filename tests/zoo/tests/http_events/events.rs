//! A bus that records its events.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use serde_json::{Value, json};
use std::sync::Mutex;
use tinkex_telemetry::bus::{Bus, Event, EventNames, HTTP_REQUEST_START};
use tinkex_telemetry::http::HttpEvents;

pub(crate) const SESSION: &str = "recorded";

/// A bus, and the events executed on it.
#[derive(Clone)]
pub(crate) struct RecordedEvents {
    pub(crate) bus: Bus,
    all: Arc<Mutex<Vec<Value>>>,
    pairs: Arc<Mutex<Pairs>>,
}

/// The calls so far, by number.
#[derive(Default)]
struct Pairs {
    started: u64,
    open: BTreeSet<u64>,
}

impl Pairs {
    fn note(&mut self, event: &Value) {
        let number = event[2]["call"].as_u64().expect("a number");
        if event[0] == HTTP_REQUEST_START {
            assert_eq!(number, self.started, "each call has the next number");
            self.started += 1;
            self.open.insert(number);
        } else {
            assert!(self.open.remove(&number), "the end of no call: {event}");
        }
    }
}

impl RecordedEvents {
    pub(crate) fn new() -> Self {
        let recorded = Self {
            bus: Bus::new(),
            all: Arc::default(),
            pairs: Arc::default(),
        };
        let all = Arc::clone(&recorded.all);
        let record = move |event: &Event<'_>| {
            let event = json!([event.name(), event.measurements(), event.metadata()]);
            all.lock().expect("no panic").push(event);
        };
        let attached = recorded
            .bus
            .attach_many("test", EventNames::AUTOMATIC, record);
        attached.expect("the id is free");
        recorded
    }

    pub(crate) fn events(&self) -> HttpEvents {
        HttpEvents::on(&self.bus, SESSION)
    }

    /// The events since the last call, of which each end has the number of a start before it.
    pub(crate) fn take(&self) -> Vec<Value> {
        let events = core::mem::take(&mut *self.all.lock().expect("no panic"));
        let mut pairs = self.pairs.lock().expect("no panic");
        events.iter().for_each(|event| pairs.note(event));
        events
    }

    /// How many requests have started and not ended.
    pub(crate) fn open(&self) -> usize {
        self.pairs.lock().expect("no panic").open.len()
    }

    /// The events since the last call, in short: `GET /ok`, `GET /ok: 200 ok`, `GET /x: error: connection refused`.
    pub(crate) fn short(&self) -> Vec<String> {
        let short = |event: Value| {
            let (measured, of) = (&event[1], &event[2]);
            let text = |key: &str| of[key].as_str().unwrap_or("-").to_owned();
            assert_eq!(of["session_id"], SESSION);
            let request = format!("{} {}", text("method"), text("path"));
            let name = event[0].as_str().and_then(|name| name.rsplit('.').next());
            let end = match name {
                Some("start") => {
                    // Between 2020 and 2100.
                    let at = measured["system_time"].as_u64().expect("nanoseconds");
                    assert!((1_577_836_800..4_102_444_800).contains(&(at / 1_000_000_000)));
                    return request;
                }
                Some("stop") => format!("{} {}", of["status"], text("result")),
                _ => format!("{}: {}", text("kind"), text("reason")),
            };
            assert!(measured["duration"].is_u64());
            match of["retry_count"].as_u64() {
                Some(0) | None => format!("{request}: {end}"),
                Some(count) => format!("{request}: {end}, retry {count}"),
            }
        };
        self.take().into_iter().map(short).collect()
    }
}
