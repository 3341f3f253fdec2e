//! How logged values arrive, and which are refused.

use crate::host::quiet_panic;
use crate::support::{BOUND, Session, events, names, session, start};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::json;
use std::sync::Mutex;
use tinkex_telemetry::collector::{Collector, EventRecord};
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::{Handle, fields};

fn stopped(session: &Session) -> bool {
    let drain = session.stop_blocking(BOUND).expect("no executor here");
    drain.all_delivered()
}

/// A value serialized by a closure.
struct Written<F>(F);

impl<F: Fn(&mut dyn FnMut(&'static str, u64))> Serialize for Written<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut result = Ok(());
        (self.0)(&mut |key, value| {
            if result.is_ok() {
                result = map.serialize_entry(key, &value);
            }
        });
        result?;
        map.end()
    }
}

/// A value that fails halfway through its serialization.
struct Failing;

impl Serialize for Failing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("half", &1)?;
        Err(S::Error::custom("it has no other half"))
    }
}

/// A list of ten million numbers, generated on demand, that records how far its serialization got.
struct Huge(Cell<u64>);

impl Serialize for Huge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for number in 0..10_000_000 {
            self.0.set(number);
            list.serialize_element(&number)?;
        }
        list.end()
    }
}

#[test]
fn a_value_that_cannot_be_encoded_costs_only_its_own_event() {
    let collector = Collector::start().expect("a collector");
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    let session = session(&collector.url())
        .on_diagnostic(move |diagnostic| {
            let mut reports = sink.lock().expect("no panic");
            reports.push((
                diagnostic.kind,
                diagnostic.count,
                diagnostic.reason.to_owned(),
            ));
        })
        .start()
        .expect("it starts");
    let good = |handle: &Handle| assert!(handle.log("good", fields! { n: 1 }));
    good(&session);

    assert!(!session.log("failing", Failing));
    good(&session);
    let panicking = Written(|write: &mut dyn FnMut(_, _)| {
        write("half", 1);
        quiet_panic();
    });
    assert!(!session.log("panicking", panicking));
    good(&session);
    assert!(!session.log("keys", BTreeMap::from([(vec![1], 1)])));
    good(&session);
    let huge = Huge(Cell::new(0));
    assert!(!session.log("huge", fields! { list: huge }));
    assert!(huge.0.get() < 64 << 10, "serialization stopped early");
    good(&session);
    assert!(!session.log("large", fields! { text: "x".repeat(64 << 10) }));
    assert!(!session.log(&"name".repeat(64 << 10), ()));
    good(&session);

    let handle = session.handle();
    let logging = Written(|write: &mut dyn FnMut(_, _)| {
        write("before", 1);
        assert!(!handle.log("inner", Failing));
        assert!(handle.log("inner", fields! { n: 1 }));
        write("after", 2);
    });
    assert!(session.log("outer", logging));
    good(&session);

    let stats = session.stats();
    assert_eq!(stats.refused.unencodable, 4);
    assert_eq!(stats.refused.event_too_large, 3);
    assert_eq!(stats.refused.total(), 7);
    assert!(stopped(&session));

    let names = names(&collector);
    assert_eq!(names.iter().filter(|name| *name == "good").count(), 7);
    // Each refusal leaves one index unused.
    let record = collector.session("s").expect("it was kept");
    let gaps: Vec<u64> = record.gaps().into_iter().flatten().collect();
    assert_eq!(gaps.len(), 7);
    let events = events(&collector);
    let data = |name: &str| {
        let mut values = events.iter().map(|event| event.value());
        let event = values.find(|event| event["event_name"] == name);
        event.expect("it was sent")["event_data"].clone()
    };
    assert_eq!(data("inner"), json!({"n": 1}));
    assert_eq!(data("outer"), json!({"before": 1, "after": 2}));
    let reports = reports.lock().expect("no panic");
    let first = reports
        .iter()
        .find(|(kind, _, _)| *kind == DiagnosticKind::Unencodable);
    let reason = "event \"failing\": it has no other half";
    assert_eq!(first.map(|(_, _, reason)| reason.as_str()), Some(reason));
    let count = |kind| {
        let of_kind = reports.iter().filter(|(other, _, _)| *other == kind);
        of_kind.map(|(_, count, _)| count).sum::<u64>()
    };
    assert_eq!(count(DiagnosticKind::Unencodable), 4);
    assert_eq!(count(DiagnosticKind::EventTooLarge), 3);
}

#[derive(serde::Serialize)]
struct Everything<'a> {
    yes: bool,
    no: bool,
    nothing: Option<u8>,
    unit: (),
    zero: u8,
    largest: u64,
    least: i64,
    fraction: f64,
    not_a_number: f64,
    infinite: f32,
    text: &'a str,
    character: char,
    number_as_text: &'a str,
    list: (u8, bool, Option<u8>),
    bytes: &'a [u8],
    map: BTreeMap<u32, bool>,
    variant: Result<u8, ()>,
}

#[test]
fn json_types_arrive_unchanged() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let everything = Everything {
        yes: true,
        no: false,
        nothing: None,
        unit: (),
        zero: 0,
        largest: u64::MAX,
        least: i64::MIN,
        fraction: 0.1,
        not_a_number: f64::NAN,
        infinite: f32::NEG_INFINITY,
        text: "\"\\\u{0}\u{1f}\n\u{2028}é😀</script>",
        character: '\'',
        number_as_text: "1",
        list: (1, true, None),
        bytes: &[0, 255],
        map: BTreeMap::from([(7, true)]),
        variant: Ok(1),
    };
    let expected = json!({
        "yes": true,
        "no": false,
        "nothing": null,
        "unit": null,
        "zero": 0,
        "largest": u64::MAX,
        "least": i64::MIN,
        "fraction": 0.1,
        "not_a_number": null,
        "infinite": null,
        "text": "\"\\\u{0}\u{1f}\n\u{2028}é😀</script>",
        "character": "'",
        "number_as_text": "1",
        "list": [1, true, null],
        "bytes": [0, 255],
        "map": {"7": true},
        "variant": {"Ok": 1},
    });
    assert!(session.log("struct", &everything));
    assert!(session.log("value", &expected));
    assert!(session.log(
        "fields",
        fields! { yes: true, nothing: None::<u8>, inner: fields! { n: -1 } }
    ));
    for nothing in [json!(null), json!({})] {
        assert!(session.log("nothing", nothing));
    }
    assert!(session.log("nothing", ()));
    assert!(session.log("nothing", None::<Everything<'_>>));
    assert!(stopped(&session));
    let events = events(&collector);
    let data: Vec<_> = events
        .iter()
        .map(|event| event.value()["event_data"].clone())
        .collect();
    assert_eq!(data[1], expected);
    assert_eq!(data[2], expected);
    assert_eq!(
        data[3],
        json!({"yes": true, "nothing": null, "inner": {"n": -1}})
    );
    assert_eq!(data[4..8], vec![json!({}); 4]);
}

#[test]
fn a_value_changed_after_log_is_sent_as_logged() {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    let count = AtomicU64::new(1);
    let shared = Mutex::new(json!({"state": "before"}));
    let mut list = vec![1, 2, 3];
    assert!(session.log("count", fields! { n: count }));
    assert!(session.log("shared", &shared));
    assert!(session.log("list", fields! { list: list }));
    count.store(2, Ordering::SeqCst);
    *shared.lock().expect("no panic") = json!("after");
    list.clear();
    drop(list);
    assert!(stopped(&session));
    let events = events(&collector);
    let data: Vec<_> = events
        .iter()
        .map(|event| event.value()["event_data"].clone())
        .collect();
    assert_eq!(data[1], json!({"n": 1}));
    assert_eq!(data[2], json!({"state": "before"}));
    assert_eq!(data[3], json!({"list": [1, 2, 3]}));
}

/// The data of the events between the session's own two.
fn sent(work: impl FnOnce(&Session)) -> Vec<serde_json::Value> {
    let collector = Collector::start().expect("a collector");
    let session = start(&collector);
    work(&session);
    assert!(stopped(&session));
    let events = events(&collector);
    let [_start, between @ .., _end] = &events[..] else {
        panic!("{events:?}");
    };
    let data = |event: &EventRecord| event.value()["event_data"].clone();
    between.iter().map(data).collect()
}

#[test]
fn data_that_are_no_object_become_one() {
    let data = sent(|session| {
        assert!(session.log("text", "all is well"));
        assert!(session.log("number", -1.5));
        assert!(session.log("list", vec![1, 2]));
        assert!(session.log("bool", false));
        assert!(session.log("variant", Ok::<_, ()>(1)));
        assert!(session.log("nothing", None::<&str>));
    });
    let expected = [
        json!({"message": "all is well"}),
        json!({"value": -1.5}),
        json!({"value": [1, 2]}),
        json!({"value": false}),
        json!({"Ok": 1}),
        json!({}),
    ];
    assert_eq!(data, expected);
}

/// JSON nested this deep, the outermost object included.
fn nested(depth: usize) -> serde_json::Value {
    (1..depth).fold(json!({}), |inner, _| json!({"in": inner}))
}

fn depth(value: &serde_json::Value) -> usize {
    match value.get("in") {
        Some(inner) if inner.is_object() => depth(inner) + 1,
        _ => 1,
    }
}

#[test]
fn data_nested_too_deeply_are_cut_and_cost_no_other_event() {
    let data = sent(|session| {
        assert!(session.log("before", fields! { n: 1 }));
        assert!(session.log("deepest", nested(100)));
        assert_eq!(session.stats().truncated, 0);
        for depth in [101, 126, 500] {
            assert!(session.log("deeper", nested(depth)));
            assert!(session.log("in fields", fields! { deep: nested(depth) }));
            assert!(session.log("in a list", [nested(depth)]));
        }
        let raw = "[".repeat(120) + &"]".repeat(120);
        let raw = serde_json::value::RawValue::from_string(raw).expect("JSON");
        assert!(session.log("raw", fields! { raw: raw }));
        assert_eq!(session.stats().truncated, 10);
        assert!(session.log("after", fields! { n: 2 }));
    });
    assert_eq!(data.len(), 13);
    assert_eq!(data[1], nested(100));
    for deep in [&data[2], &data[5], &data[8]] {
        assert_eq!(depth(deep), 100);
    }
    assert!(data[2].to_string().contains("… (cut)"));
    assert_eq!(data[12], json!({"n": 2}));
}

/// A map whose errors are swallowed, and which goes on.
struct Rude(u8);

impl Serialize for Rude {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            0 => map.serialize_key("without a value")?,
            1 => map.serialize_value("without a key")?,
            2 => {
                if map.serialize_entry("x", &Failing).is_err() {
                    map.serialize_entry("x", "(cannot be shown)")?;
                }
            }
            3 => {
                let _ = map.serialize_entry("x", &[Failing]);
            }
            _ => {
                let shown = core::panic::AssertUnwindSafe(|| {
                    map.serialize_entry("x", &Written(|_: &mut dyn FnMut(_, _)| quiet_panic()))
                });
                let _ = std::panic::catch_unwind(shown);
                map.serialize_entry("y", &1)?;
            }
        }
        map.end()
    }
}

#[test]
fn a_serialize_that_breaks_its_contract_costs_only_its_own_event() {
    let data = sent(|session| {
        for rude in 0..5 {
            assert!(session.log("good", fields! { n: rude }));
            assert!(!session.log("rude", Rude(rude)));
            assert!(!session.log("nested", fields! { list: [Rude(rude)] }));
        }
        for bad in ["1e999", "\"\\ud800\"", "[1,{\"a\":-1e400}]"] {
            let raw = serde_json::value::RawValue::from_string(bad.into()).expect("it takes it");
            assert!(!session.log("raw", fields! { raw: raw }));
        }
        assert_eq!(session.stats().refused.unencodable, 13);
    });
    // And a report of the others.
    assert_eq!(data.len(), 5 + 1);
}
