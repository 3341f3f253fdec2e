//! The scrub hook, and the limits on an event's data.

use crate::host::quiet_panic;
use crate::support::{BOUND, FAILURE, Failure, events, names, session};
use alloc::sync::Arc;
use core::error::Error;
use core::sync::atomic::{AtomicUsize, Ordering};
use serde_json::{Value, json};
use std::sync::{Mutex, OnceLock};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::event::{Draft, StatusError, Verdict};
use tinkex_telemetry::{Handle, Severity, fields};

/// Runs `work` on a session with this hook, then stops it. Returns the collector and the events it received.
fn sent(
    hook: impl Fn(&mut Draft<'_>) -> Verdict + Send + Sync + 'static,
    work: impl FnOnce(&Handle),
) -> (Collector, Vec<Value>) {
    let collector = Collector::start().expect("a collector");
    let session = session(&collector.url())
        .scrub(hook)
        .start()
        .expect("it starts");
    work(&session);
    let drain = session.stop_blocking(BOUND).expect("no executor here");
    assert!(drain.all_delivered());
    let events = events(&collector);
    let values = events.iter().map(|event| event.value().clone()).collect();
    (collector, values)
}

/// Replaces the secret with a star, wherever it occurs.
fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("hunter2", "*"),
        Value::Array(array) => array.iter_mut().for_each(redact),
        Value::Object(object) => object.values_mut().for_each(redact),
        _ => {}
    }
}

fn redact_all(draft: &mut Draft<'_>) -> Verdict {
    draft.data_mut().values_mut().for_each(redact);
    Verdict::Keep
}

#[test]
fn a_hook_sees_name_severity_and_data_and_may_change_them() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let hook = move |draft: &mut Draft<'_>| {
        let mut seen = sink.lock().expect("no panic");
        seen.push((
            draft.name().to_owned(),
            draft.severity(),
            Value::from(draft.data().clone()),
        ));
        if draft.name() == "login" {
            draft.set_name("auth");
            draft.set_severity(Severity::Error);
            draft.data_mut().remove("password");
        }
        Verdict::Keep
    };
    let (_collector, events) = sent(hook, |handle| {
        let data = fields! { user: "ada", password: "hunter2" };
        assert!(handle.log_with("login", data, Severity::Debug));
        assert!(handle.log("plain", fields! { large: u128::MAX, float: 0.1_f32 }));
        assert!(handle.log("nothing", ()));
    });
    let expected = [
        (
            "login".to_owned(),
            Severity::Debug,
            json!({"user": "ada", "password": "hunter2"}),
        ),
        (
            "plain".to_owned(),
            Severity::Info,
            json!({"large": 3.402_823_669_209_385e38, "float": 0.1}),
        ),
        ("nothing".to_owned(), Severity::Info, json!({})),
    ];
    assert_eq!(*seen.lock().expect("no panic"), expected);
    assert_eq!(
        events.len(),
        5,
        "the hook does not see the session's own events"
    );
    assert_eq!(events[1]["event_name"], "auth");
    assert_eq!(events[1]["severity"], "ERROR");
    assert_eq!(events[1]["event_data"], json!({"user": "ada"}));
    assert_eq!(events[3]["event_data"], json!({}));
}

#[test]
fn data_that_a_hook_leaves_alone_is_sent_as_encoded() {
    let (collector, _) = sent(
        |draft| {
            let _ = draft.data();
            Verdict::Keep
        },
        |handle| {
            assert!(handle.log("plain", fields! { large: u128::MAX, z: 1, a: 2 }));
        },
    );
    let events = events(&collector);
    let json = events[1].json();
    let data = format!(r#""event_data":{{"large":{},"z":1,"a":2}}"#, u128::MAX);
    assert!(json.contains(&data), "{json}");
}

#[test]
fn an_event_that_a_hook_drops_leaves_no_gap_and_is_counted() {
    let hook = |draft: &mut Draft<'_>| match draft.name() {
        "internal" => Verdict::Drop,
        _ => Verdict::Keep,
    };
    let (collector, _) = sent(hook, |handle| {
        assert!(!handle.log("internal", ()));
        assert!(handle.log("public", ()));
        let stats = handle.stats();
        assert_eq!((stats.refused.scrubbed, stats.refused.total()), (1, 1));
        assert!(stats.is_balanced());
    });
    assert_eq!(
        names(&collector),
        ["SESSION_START", "public", "SESSION_END"]
    );
    let record = collector.session("s").expect("it was kept");
    assert!(record.gaps().is_empty());
}

#[test]
fn a_panic_in_a_hook_costs_only_that_event_and_is_reported() {
    let collector = Collector::start().expect("a collector");
    let reports = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&reports);
    let session = session(&collector.url())
        .on_diagnostic(move |diagnostic| {
            let mut reports = sink.lock().expect("no panic");
            reports.push((diagnostic.kind, diagnostic.to_string()));
        })
        .scrub(|draft| {
            if draft.name() == "bad" {
                quiet_panic();
            }
            Verdict::Keep
        })
        .start()
        .expect("it starts");
    assert!(session.log("good", ()));
    assert!(!session.log("bad", ()));
    assert!(session.log("good", ()));
    let stats = session.stats();
    assert_eq!(
        (stats.refused.scrub_panicked, stats.refused.total()),
        (1, 1)
    );
    drop(session);
    let record = collector.session("s").expect("it was kept");
    assert_eq!(record.gaps(), [2..=2], "a loss leaves a gap");
    let reports = reports.lock().expect("no panic");
    let expected = "Telemetry scrub hook panicked, dropping event (1 refused): event \"bad\"";
    let expected = (DiagnosticKind::ScrubPanicked, expected.to_owned());
    assert_eq!(*reports, [expected]);
}

#[test]
fn a_hook_sees_the_texts_of_errors_too() {
    let (_collector, events) = sent(redact_all, |handle| {
        let source: Box<dyn Error + Send + Sync> = "no hunter2 here".into();
        let error = Failure("the key hunter2 is wrong", Some(source));
        assert!(handle.log_exception(&error, Severity::Error));
        let error = Failure(
            "hunter2 is not a model",
            Some(Box::new(StatusError::new(404))),
        );
        assert!(handle.log_exception(&error, Severity::Error));
    });
    assert_eq!(events[1]["event"], "UNHANDLED_EXCEPTION");
    assert_eq!(events[1]["error_type"], FAILURE);
    assert_eq!(events[1]["error_message"], "the key * is wrong");
    let traceback = events[1]["traceback"].as_str().expect("it has a source");
    assert!(traceback.starts_with("Caused by: Error: no * here"));
    assert_eq!(events[2]["event_name"], "user_error");
    assert_eq!(events[2]["event_data"]["message"], "* is not a model");
    assert_eq!(events[2]["event_data"]["status_code"], 404);
}

#[test]
fn an_exception_keeps_its_form_whatever_a_hook_does_to_it() {
    let hook = |draft: &mut Draft<'_>| {
        assert!(draft.is_exception());
        draft.set_name("renamed");
        draft.set_severity(Severity::Critical);
        let data = draft.data_mut();
        data.clear();
        data.insert("error_message".into(), json!({"n": 1}));
        data.insert("more".into(), json!(1));
        Verdict::Keep
    };
    let (_collector, events) = sent(hook, |handle| {
        assert!(handle.log_exception(&Failure("x", None), Severity::Error));
    });
    let event = events[1].as_object().expect("an object");
    assert_eq!(event["event"], "UNHANDLED_EXCEPTION");
    assert_eq!(event["severity"], "CRITICAL");
    assert_eq!(event["error_type"], "Error");
    assert_eq!(event["error_message"], "{\"n\":1}");
    assert!(!event.contains_key("more") && !event.contains_key("traceback"));
}

#[test]
fn a_fatal_exception_ends_the_session_even_if_a_hook_drops_it_or_panics() {
    for panics in [false, true] {
        let hook = move |_: &mut Draft<'_>| {
            if panics {
                quiet_panic();
            }
            Verdict::Drop
        };
        let (collector, _) = sent(hook, |handle| {
            let drain = handle.log_fatal_exception_blocking(&Failure("x", None), Severity::Error);
            let drain = drain.expect("no executor here");
            assert!(drain.all_delivered() && drain.delivered > 0);
            let stats = handle.stats();
            assert!(stats.session_ended);
            let refused = (stats.refused.scrubbed, stats.refused.scrub_panicked);
            assert_eq!(refused, if panics { (0, 1) } else { (1, 0) });
        });
        let expected = ["SESSION_START", "tinkex.telemetry.report", "SESSION_END"];
        assert_eq!(names(&collector), expected);
    }
}

#[test]
fn a_session_whose_fatal_exception_a_hook_drops_goes_on_after_a_gap() {
    let hook = |draft: &mut Draft<'_>| match draft.name() {
        "UNHANDLED_EXCEPTION" | "user_error" => Verdict::Drop,
        _ => Verdict::Keep,
    };
    for is_users in [false, true] {
        let (collector, _) = sent(hook, |handle| {
            let fatal = || match is_users {
                true => drop(handle.log_fatal_exception(&StatusError::new(404), Severity::Error)),
                false => drop(handle.log_fatal_exception(&Failure("x", None), Severity::Error)),
            };
            assert!(handle.log("before", ()));
            fatal();
            assert!(handle.log("after", ()));
            // The session has ended, so that this one is dropped like any other event.
            fatal();
            assert!(handle.log("last", ()));
        });
        assert_eq!(
            names(&collector),
            [
                "SESSION_START",
                "before",
                "tinkex.telemetry.report",
                "SESSION_END",
                "after",
                "last"
            ]
        );
        let session = collector.session("s").expect("it arrived");
        assert_eq!(session.gaps(), [2..=2], "the exception's place");
        assert_eq!(collector.violations(), []);
    }
}

#[test]
fn events_logged_by_a_hook_are_refused_so_recursion_ends() {
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let hook = |_: &mut Draft<'_>| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        let handle = HANDLE.get().expect("it was set");
        assert!(!handle.log("from the hook", ()));
        assert!(!handle.log_exception(&Failure("x", None), Severity::Error));
        // Everything except logging works.
        handle.flush();
        assert!(handle.stats().is_balanced());
        Verdict::Keep
    };
    let (collector, _) = sent(hook, |handle| {
        HANDLE.set(handle.clone()).expect("once");
        assert!(handle.log("one", ()));
        assert!(handle.log("two", ()));
        assert_eq!(handle.stats().refused.scrubbed, 4);
    });
    assert_eq!(CALLS.load(Ordering::SeqCst), 2);
    assert_eq!(
        names(&collector),
        ["SESSION_START", "one", "two", "SESSION_END"]
    );
}

#[test]
fn data_that_cannot_be_encoded_never_reaches_a_hook() {
    let (_collector, events) = sent(
        |_| Verdict::Keep,
        |handle| {
            let raw = serde_json::value::RawValue::from_string("1e999".into());
            assert!(!handle.log("raw", raw.expect("it takes it")));
            assert!(!handle.log("large", fields! { text: "x".repeat(64 << 10) }));
            let stats = handle.stats();
            assert_eq!(stats.refused.unencodable, 1);
            assert_eq!(stats.refused.event_too_large, 1);
        },
    );
    // A report of the two, and no more.
    assert_eq!(events.len(), 3);
    assert_eq!(events[1]["event_name"], "tinkex.telemetry.report");
}

#[test]
fn data_nested_deeper_than_a_hook_can_see_is_cut() {
    let mut deep = json!(1);
    for _ in 0..500 {
        deep = json!([deep]);
    }
    let (_collector, events) = sent(redact_all, |handle| {
        assert!(handle.log("deep", fields! { deep: deep }));
        assert_eq!(handle.stats().truncated, 1);
    });
    let mut value = &events[1]["event_data"]["deep"];
    while let Some(inner) = value.get(0) {
        value = inner;
    }
    assert_eq!(*value, json!("… (cut)"));
}

#[test]
fn limits_cut_data_and_cuts_are_counted() {
    let collector = Collector::start().expect("a collector");
    let session = session(&collector.url())
        .max_data_depth(2)
        .max_string_bytes(32)
        .max_fields(3)
        .user_error_bodies(true)
        .start()
        .expect("it starts");
    assert!(session.log("small", fields! { list: [1, 2], text: "x" }));
    assert_eq!(session.stats().truncated, 0);
    assert!(session.log("deep", json!({"a": {"b": {}}})));
    assert!(session.log("long", fields! { text: "x".repeat(100_000) }));
    assert!(session.log("wide", fields! { list: [1, 2, 3, 4], b: 1, c: 2, d: 3 }));
    let error = StatusError::new(404).with_body("b".repeat(40));
    assert!(session.log_exception(&error, Severity::Error));
    assert_eq!(session.stats().truncated, 4);
    // An exception is cut only as far as needed to fit.
    let long: Box<dyn Error> = "m".repeat(1_000).into();
    assert!(session.log_exception(&*long, Severity::Error));
    assert_eq!(session.stats().truncated, 4);
    let long: Box<dyn Error> = "m".repeat(100_000).into();
    assert!(session.log_exception(&*long, Severity::Error));
    assert_eq!(session.stats().truncated, 5);
    drop(session);
    let events = events(&collector);
    let data = |at: usize| events[at].value()["event_data"].clone();
    assert_eq!(data(1), json!({"list": [1, 2], "text": "x"}));
    assert_eq!(data(2), json!({"a": {"b": "… (cut)"}}));
    let text = format!("{}… (cut)", "x".repeat(32 - "… (cut)".len()));
    assert_eq!(data(3), json!({"text": text}));
    let expected = json!({"list": [1, 2, 3, "… (1 more)"], "b": 1, "c": 2, "… (cut)": 1});
    assert_eq!(data(4), expected);
    let path = "tinkex_telemetry::event… (cut)";
    let expected =
        json!({"error_type": path, "message": "HTTP status 404", "status_code": 404, "… (cut)": 1});
    assert_eq!(data(5), expected);
}

#[test]
fn a_hook_sees_texts_before_they_are_cut() {
    let collector = Collector::start().expect("a collector");
    let session = session(&collector.url())
        .max_string_bytes(32)
        .max_fields(2)
        .scrub(redact_all)
        .start()
        .expect("it starts");
    // Cutting first would leave half of the secret.
    let text = format!("{}hunter2{}", "x".repeat(20), "y".repeat(20));
    assert!(session.log("cut", fields! { text: text, list: [1, 2, 3], c: 1 }));
    assert_eq!(session.stats().truncated, 1);
    drop(session);
    let text = format!("{}*yy… (cut)", "x".repeat(20));
    let expected = json!({"text": text, "list": [1, 2, "… (1 more)"], "… (cut)": 1});
    assert_eq!(events(&collector)[1].value()["event_data"], expected);
}

#[test]
fn texts_of_errors_that_are_cut_for_a_hook_are_counted() {
    let (_collector, events) = sent(redact_all, |handle| {
        let body = "b".repeat(70_000);
        let long = Failure(body.clone().leak(), Some(Box::new(StatusError::new(404))));
        assert!(handle.log_exception(&long, Severity::Error));
        assert_eq!(handle.stats().truncated, 1);
        let long = Failure(body.leak(), None);
        assert!(handle.log_exception(&long, Severity::Error));
        assert_eq!(handle.stats().truncated, 2);
        assert!(handle.log_exception(&Failure("short", None), Severity::Error));
        assert_eq!(handle.stats().truncated, 2);
    });
    let message = events[1]["event_data"]["message"].as_str();
    assert!(message.is_some_and(|message| message.ends_with("… (cut)")));
}

#[test]
fn what_a_hook_leaves_equal_is_sent_as_it_was_logged() {
    let hook = |draft: &mut Draft<'_>| {
        let data = draft.data_mut();
        data.remove("secret");
        if let Some(part) = data.get_mut("part") {
            part["secret"] = Value::from("*");
        }
        Verdict::Keep
    };
    let floats: Vec<f64> = (1..200).map(|n| f64::from(n) / 7.0e3).collect();
    let (collector, _) = sent(hook, |handle| {
        let part = fields! { id: u128::MAX, zero: -0.0, secret: 1, list: floats };
        let data = fields! { z: floats, secret: "hunter2", part: part, id: u128::MAX - 1, a: -0.0 };
        assert!(handle.log("mixed", data));
        assert!(handle.log("list", [u128::MAX]));
        assert!(handle.log("text", "hunter2"));
    });
    let floats = serde_json::to_string(&floats).expect("encodable");
    let events = events(&collector);
    let part = format!(
        r#"{{"id":{},"zero":-0.0,"secret":"*","list":{floats}}}"#,
        u128::MAX
    );
    let data = format!(
        r#""event_data":{{"z":{floats},"part":{part},"id":{},"a":-0.0}}"#,
        u128::MAX - 1
    );
    assert!(events[1].json().contains(&data), "{}", events[1].json());
    let list = format!(r#""event_data":{{"value":[{}]}}"#, u128::MAX);
    assert!(events[2].json().contains(&list), "{}", events[2].json());
    assert_eq!(
        events[3].value()["event_data"],
        json!({"message": "hunter2"})
    );
}
