//! What is true of a whole session, and of a part of a program: contexts, from the builder and the handles to the wire.
#![cfg(feature = "std")]
#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::error::Error;
use core::fmt;
use core::future::{Future, pending};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tinkex_telemetry::bus::{Bus, Value as BusValue};
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::event::{StatusError, Verdict};
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::session::{Builder, ContextBuffer, Driver, Memory};
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{
    Batch, Handle, Receipt, Reporter, SendError, Severity, Transport, capture, fields,
};

/// Keeps the bodies of the requests it is given.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<String>>>);

impl Transport for Keep {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let body = String::from_utf8(batch.body().to_vec()).expect("UTF-8");
        self.bodies().push(body);
        Ok(Receipt::delivered())
    }
}

impl Keep {
    fn bodies(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> Vec<Value> {
        let bodies = self.bodies();
        let events = bodies.iter().flat_map(|body| {
            let body: Value = serde_json::from_str(body).expect("the body is JSON");
            body["events"].as_array().expect("events").clone()
        });
        events.collect()
    }
}

/// A clock that stands still.
#[derive(Clone)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(0)
    }

    fn sleep_until(&self, _: Instant) -> impl Future<Output = ()> + Send {
        pending()
    }
}

type Build = Builder<Keep, Still, ()>;
type Diagnostics = Arc<Mutex<Vec<(DiagnosticKind, u64, String)>>>;

fn builder(keep: &Keep) -> Build {
    Reporter::builder("s")
        .transport(keep.clone())
        .clock(Still)
        .enabled(true)
        .bus(Bus::new())
}

fn poll(driver: core::pin::Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
    driver.poll(&mut Context::from_waker(Waker::noop()))
}

/// What a session sends, its start and end included, and what it reports.
fn sent_with_diagnostics(
    change: impl FnOnce(Build) -> Build,
    work: impl FnOnce(&Handle),
) -> (Vec<Value>, Vec<(DiagnosticKind, u64, String)>) {
    let (keep, told) = (Keep::default(), Diagnostics::default());
    let builder = builder(&keep).on_diagnostic({
        let told = Arc::clone(&told);
        move |diagnostic| {
            let reason = diagnostic.reason.to_owned();
            let mut told = told.lock().expect("no panic");
            told.push((diagnostic.kind, diagnostic.count, reason));
        }
    });
    let (reporter, driver) = change(builder).build().expect("valid options");
    work(&reporter);
    let mut driver = pin!(driver.run());
    let mut stop = pin!(reporter.stop(Duration::MAX));
    assert!(poll(driver.as_mut()).is_ready());
    let Poll::Ready(drain) = stop.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the driver has ended");
    };
    assert!(drain.all_delivered());
    let told = told.lock().expect("no panic").clone();
    (keep.events(), told)
}

/// The events between a session's start and its end, with nothing reported.
fn sent(change: impl FnOnce(Build) -> Build, work: impl FnOnce(&Handle)) -> Vec<Value> {
    let (mut events, told) = sent_with_diagnostics(change, work);
    let losses = told
        .iter()
        .filter(|(kind, ..)| *kind != DiagnosticKind::ExceptionLogged);
    assert_eq!(losses.count(), 0, "{told:?}");
    assert_eq!(events.remove(0)["event"], "SESSION_START");
    assert_eq!(events.pop().expect("an end")["event"], "SESSION_END");
    events
}

fn data(events: &[Value]) -> Vec<&Value> {
    events.iter().map(|event| &event["event_data"]).collect()
}

/// An error with a cause.
#[derive(Debug)]
struct Failure(&'static str, Option<Box<Failure>>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_ref().map(|source| &**source as _)
    }
}

struct Fails;

impl Serialize for Fails {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("out of paper"))
    }
}

struct Panics;

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        std::panic::resume_unwind(Box::new("no message"))
    }
}

#[test]
fn each_event_of_a_handle_carries_its_context_and_no_other_event_does() {
    let events = sent(
        |builder| builder,
        |telemetry| {
            let request = telemetry.with(fields! { request_id: 42, user: "ada" });
            assert!(request.log("one", fields! { n: 1 }));
            assert!(telemetry.log("two", fields! { n: 2 }));
            assert!(request.clone().log_with("three", (), Severity::Error));
            assert!(request.log("four", None::<u8>));
            assert!(request.log("five", "text"));
            assert!(request.with(()).log("six", ()));
        },
    );
    let context = json!({"request_id": 42, "user": "ada"});
    let expected = [
        json!({"n": 1, "context": context}),
        json!({"n": 2}),
        json!({"context": context}),
        json!({"context": context}),
        json!({"message": "text", "context": context}),
        json!({"context": context}),
    ];
    assert_eq!(data(&events), expected.iter().collect::<Vec<_>>());
}

#[test]
fn nested_contexts_add_up_and_the_inner_value_counts() {
    let events = sent(
        |builder| builder,
        |telemetry| {
            let outer = telemetry.with(fields! { a: 1, b: fields! { c: 2 } });
            let inner = outer.with(fields! { b: "new", d: [1.5, 2.5] });
            let innermost = inner.with("a text").with([1, 2]).with(7);
            inner.log("inner", ());
            outer.log("outer", ());
            innermost.log("innermost", fields! { context: "own", context_: 1 });
        },
    );
    let expected = [
        json!({"context": {"a": 1, "b": "new", "d": [1.5, 2.5]}}),
        json!({"context": {"a": 1, "b": {"c": 2}}}),
        json!({
            "context": "own",
            "context_": 1,
            "context__": {"a": 1, "b": "new", "d": [1.5, 2.5], "message": "a text", "value": 7},
        }),
    ];
    assert_eq!(data(&events), expected.iter().collect::<Vec<_>>());
}

#[test]
fn a_handle_that_is_nested_a_hundred_thousand_times_keeps_no_chain() {
    let events = sent(
        |builder| builder,
        |telemetry| {
            let mut handle = telemetry.clone();
            for n in 0..100_000 {
                handle = handle.with(fields! { n });
            }
            handle.log("last", ());
        },
    );
    assert_eq!(data(&events), [&json!({"context": {"n": 99_999}})]);
}

#[test]
fn an_exception_has_its_context_on_the_first_line_of_its_traceback() {
    let events = sent(
        |builder| builder,
        |telemetry| {
            let part = telemetry.with(fields! { job: "j-1", text: "a \"quote\"\nand more" });
            let cause = Failure("inner", None);
            part.log_exception(&Failure("outer", Some(Box::new(cause))), Severity::Error);
            part.log_exception(&StatusError::new(404), Severity::Error);
            let result: Result<(), Failure> =
                capture!(reporter = &part, { Err(Failure("captured", None)) });
            assert!(result.is_err());
            telemetry.log_exception(&Failure("without", None), Severity::Error);
        },
    );
    let line = r#"Context: {"job":"j-1","text":"a \"quote\"\nand more"}"#;
    let traceback = |at: usize| events[at]["traceback"].as_str().unwrap_or_default();
    let expected = format!("{line}\nCaused by: Failure: inner");
    assert!(traceback(0).starts_with(&expected), "{}", traceback(0));
    assert_eq!(events[1]["event_name"], "user_error");
    let context = json!({"job": "j-1", "text": "a \"quote\"\nand more"});
    assert_eq!(events[1]["event_data"]["context"], context);
    assert_eq!(events[1]["event_data"]["status_code"], 404);
    assert!(traceback(2).starts_with(line), "{}", traceback(2));
    assert!(!traceback(3).contains("Context"));
}

#[test]
fn a_fatal_error_and_a_panic_carry_the_context_of_their_handle() {
    let (events, _) = sent_with_diagnostics(
        |builder| builder,
        |telemetry| {
            let part = telemetry.with(fields! { job: 1 });
            let panicked = std::panic::catch_unwind(|| {
                capture!(reporter = &part, {
                    std::panic::resume_unwind(Box::new("no message"));
                });
            });
            assert!(panicked.is_err());
            drop(part.log_fatal_exception(&Failure("fatal", None), Severity::Critical));
        },
    );
    let failures = events
        .iter()
        .filter(|event| event["event"] == "UNHANDLED_EXCEPTION");
    let lines: Vec<_> = failures
        .map(|event| {
            event["traceback"]
                .as_str()
                .and_then(|text| text.lines().next())
        })
        .collect();
    assert_eq!(lines, [Some(r#"Context: {"job":1}"#); 2]);
}

#[test]
fn what_is_cut_of_an_exception_is_never_its_context() {
    for max_event_bytes in [512, 1_024, 4_096] {
        let context = "c".repeat(max_event_bytes / 4 - 20);
        let line = format!(r#"Context: {{"c":"{context}"}}"#);
        let long: &'static str = "x".repeat(10_000).leak();
        let events = sent(
            |builder| builder.max_event_bytes(max_event_bytes),
            |telemetry| {
                let part = telemetry.with(fields! { c: context });
                let cause = Failure(long, None);
                part.log_exception(&Failure(long, Some(Box::new(cause))), Severity::Error);
                let error = StatusError::new(400).with_body(long);
                part.log_exception(&error, Severity::Error);
            },
        );
        let traceback = events[0]["traceback"].as_str().expect("a traceback");
        assert!(traceback.starts_with(&format!("{line}\n")), "{traceback}");
        assert!(traceback.ends_with("… (cut)"), "{traceback}");
        assert_eq!(events[1]["event_data"]["context"]["c"], context);
    }
}

#[test]
fn a_context_of_more_than_a_quarter_of_an_event_is_cut_and_reported() {
    let long = "x".repeat(100_000);
    let (events, told) = sent_with_diagnostics(
        |builder| builder.max_event_bytes(1_024),
        |telemetry| {
            let part = telemetry.with(fields! { id: 7, text: long });
            part.log("cut", ());
            let list = vec!["y".repeat(20); 100];
            telemetry.with(fields! { list, id: 8 }).log("list", ());
            // Together they are too large.
            let outer = telemetry.with(fields! { a: "a".repeat(150) });
            let inner = outer.with(fields! { b: "b".repeat(150), c: 3 });
            inner.log("both", ());
            // Exactly a quarter.
            let exact = telemetry.with(fields! { a: "z".repeat(256 - 8) });
            exact.log("exact", ());
        },
    );
    let contexts: Vec<_> = data(&events[1..5])
        .into_iter()
        .map(|data| data["context"].clone())
        .collect();
    for context in &contexts {
        assert!(context.to_string().len() <= 256, "{context}");
    }
    assert_eq!(contexts[0]["id"], 7);
    let text = contexts[0]["text"].as_str().expect("a text");
    assert!(text.starts_with("xxx") && text.ends_with("… (cut)"));
    assert_eq!(contexts[1]["id"], 8);
    assert_eq!(contexts[2]["a"], "a".repeat(150));
    assert_eq!(contexts[2]["c"], 3);
    assert_eq!(contexts[2]["… (cut)"], 1);
    assert_eq!(contexts[3]["a"], "z".repeat(248));
    let incomplete = (
        DiagnosticKind::ContextIncomplete,
        3,
        "cut to 256 bytes and the limits on data".to_owned(),
    );
    assert_eq!(told, [incomplete]);
}

#[test]
fn a_context_that_cannot_be_encoded_is_left_out_and_the_handle_works() {
    let (events, told) = sent_with_diagnostics(
        |builder| builder,
        |telemetry| {
            let none = telemetry.with(fields! { a: 1, bad: Fails });
            assert!(none.log("none", fields! { n: 1 }));
            let outer = telemetry.with(fields! { a: 1 });
            assert!(outer.with(Panics).log("outer", ()));
        },
    );
    assert_eq!(events[1]["event_data"], json!({"n": 1}));
    assert_eq!(events[2]["event_data"], json!({"context": {"a": 1}}));
    let reason = "left out: out of paper".to_owned();
    assert_eq!(told, [(DiagnosticKind::ContextIncomplete, 2, reason)]);
}

#[test]
fn the_limits_on_data_cut_a_context_too() {
    let (events, told) = sent_with_diagnostics(
        |builder| builder.max_string_bytes(32).max_fields(3).max_data_depth(3),
        |telemetry| {
            let part = telemetry.with(fields! {
                text: "x".repeat(40),
                deep: [[[1]]],
                c: 3,
            });
            part.log("e", fields! { n: 1 });
            // Nested handles together, too.
            let nested = telemetry.with(fields! { a: 1, b: 2 });
            nested
                .with(fields! { c: 3, d: 4 })
                .log("n", fields! { a: 1, b: 2, c: 3 });
        },
    );
    let reason = "cut to 16384 bytes and the limits on data".to_owned();
    assert_eq!(told, [(DiagnosticKind::ContextIncomplete, 2, reason)]);
    let text = format!("{}… (cut)", "x".repeat(23));
    let expected = json!({"text": text, "deep": ["… (cut)"], "c": 3});
    assert_eq!(events[1]["event_data"]["context"], expected);
    let expected = json!({
        "a": 1, "b": 2, "c": 3,
        "context": {"a": 1, "b": 2, "c": 3, "… (cut)": 1},
    });
    assert_eq!(events[2]["event_data"], expected);
}

#[test]
fn a_hook_sees_a_context_when_it_is_set_and_with_each_event() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let hook = move |draft: &mut tinkex_telemetry::event::Draft<'_>| {
        let data = Value::from(draft.data().clone());
        let mut sink = sink.lock().expect("no panic");
        sink.push((draft.name().to_owned(), data));
        if draft.name() == "context" && draft.data().contains_key("drop") {
            return Verdict::Drop;
        }
        for key in ["password", "secret"] {
            if draft.data().contains_key(key) {
                draft.data_mut()[key] = "*".into();
            }
        }
        if draft.name() == "two" {
            draft.data_mut().remove("context");
        }
        Verdict::Keep
    };
    let events = sent(
        |builder| {
            builder
                .scrub(hook)
                .fields(fields! { secret: "s3cret", release: 1 })
        },
        |telemetry| {
            let part = telemetry.with(fields! { password: "hunter2", large: u128::MAX });
            part.log("one", fields! { n: 1 });
            part.log("two", ());
            part.with(fields! { drop: 1 }).log("three", ());
            part.log_exception(&Failure("failed", None), Severity::Error);
            part.log_exception(&StatusError::new(404), Severity::Error);
        },
    );
    let context = json!({"password": "*", "large": u128::MAX as f64});
    assert_eq!(events[0]["event_name"], "session.context");
    assert_eq!(
        events[0]["event_data"],
        json!({"secret": "*", "release": 1})
    );
    assert_eq!(events[1]["event_data"], json!({"n": 1, "context": context}));
    assert_eq!(events[2]["event_data"], json!({}));
    assert_eq!(events[3]["event_data"], json!({"context": context}));
    let traceback = events[4]["traceback"].as_str().expect("a traceback");
    let line = format!(r#"Context: {{"password":"*","large":{}}}"#, u128::MAX);
    assert!(traceback.starts_with(&line), "{traceback}");
    assert_eq!(events[5]["event_data"]["context"], context);
    let seen = seen.lock().expect("no panic");
    let names: Vec<_> = seen.iter().map(|(name, _)| &**name).collect();
    let expected = [
        "session.context",
        "context",
        "one",
        "two",
        "context",
        "three",
        "UNHANDLED_EXCEPTION",
        "user_error",
    ];
    assert_eq!(names, expected);
    assert_eq!(seen[1].1["password"], "hunter2");
    assert!(
        seen[2..]
            .iter()
            .all(|(_, data)| !data.to_string().contains("hunter2"))
    );
}

#[test]
fn a_hook_that_panics_on_a_context_costs_the_context_alone() {
    let (events, told) = sent_with_diagnostics(
        |builder| {
            builder.scrub(|draft| {
                if draft.name() == "context" {
                    std::panic::resume_unwind(Box::new("no message"));
                }
                Verdict::Keep
            })
        },
        |telemetry| assert!(telemetry.with(fields! { a: 1 }).log("one", ())),
    );
    assert_eq!(events[1]["event_data"], json!({}));
    let reason = "left out: the scrub hook panicked".to_owned();
    assert_eq!(told, [(DiagnosticKind::ContextIncomplete, 1, reason)]);
}

#[test]
fn events_of_the_bus_carry_no_context_of_a_handle() {
    let events = sent(
        |builder| builder.fields(fields! { release: 1 }),
        |telemetry| {
            let part = telemetry.with(fields! { a: 1 });
            let bus = part.bus().expect("a bus");
            let measurements = [("duration", BusValue::from(1_u64))];
            let metadata = [("session_id", BusValue::from("s"))];
            bus.execute("tinkex.http.request.stop", &measurements, &metadata);
        },
    );
    assert_eq!(events.len(), 2);
    let expected = json!({"measurements": {"duration": 1}, "metadata": {}});
    assert_eq!(events[1]["event_data"], expected);
}

#[test]
fn the_sessions_context_is_its_second_event() {
    let events = sent(
        |builder| {
            let builder = builder.fields(fields! { release: "0" });
            builder.fields(fields! { release: "2.4.0", host: "node-17", rank: 3 })
        },
        |telemetry| {
            telemetry.log("one", ());
        },
    );
    let context = &events[0];
    assert_eq!(context["event"], "GENERIC_EVENT");
    assert_eq!(context["event_name"], "session.context");
    assert_eq!(context["event_session_index"], 1);
    assert_eq!(context["severity"], "INFO");
    let expected = json!({"release": "2.4.0", "host": "node-17", "rank": 3});
    assert_eq!(context["event_data"], expected);
    assert_eq!(events[1]["event_session_index"], 2);
    let events = sent(
        |builder| {
            builder
                .min_severity(Severity::Error)
                .fields(fields! { release: 1 })
        },
        |telemetry| assert!(!telemetry.log("too mild", ())),
    );
    assert_eq!(events[0]["event_name"], "session.context");
    // An empty one is no event.
    let events = sent(|builder| builder.fields(()), |_| {});
    assert_eq!(events.len(), 0);
}

#[test]
fn the_sessions_context_does_not_count_towards_the_threshold() {
    for threshold in [2, 5, 100] {
        for has_context in [false, true] {
            let keep = Keep::default();
            let builder = builder(&keep).flush_threshold(threshold);
            let builder = match has_context {
                true => builder.fields(fields! { release: 1 }),
                false => builder,
            };
            let (reporter, driver) = builder.build().expect("valid options");
            let mut driver = pin!(driver.run());
            // The start counts.
            for _ in 1..threshold - 1 {
                reporter.log("event", ());
            }
            assert!(poll(driver.as_mut()).is_pending());
            assert_eq!(keep.events().len(), 0, "{threshold} {has_context}");
            reporter.log("event", ());
            assert!(poll(driver.as_mut()).is_pending());
            assert_eq!(keep.events().len(), threshold + usize::from(has_context));
            for _ in 0..threshold - 1 {
                reporter.log("event", ());
            }
            assert!(poll(driver.as_mut()).is_pending());
            assert_eq!(keep.events().len(), threshold + usize::from(has_context));
            reporter.log("event", ());
            assert!(poll(driver.as_mut()).is_pending());
            assert_eq!(
                keep.events().len(),
                2 * threshold + usize::from(has_context)
            );
        }
    }
}

/// The error of building a session, with its cause.
fn build_error(change: impl FnOnce(Build) -> Build) -> String {
    let error = match change(builder(&Keep::default())).build() {
        Ok(_) => return "none".into(),
        Err(error) => error,
    };
    let source = error.source().expect("a source");
    source.to_string()
}

#[test]
fn a_sessions_context_that_cannot_travel_is_an_error_that_says_what_to_change() {
    let text = |len: usize| fields_of("x".repeat(len));
    // `{"text":"…"}` has eleven bytes around the text.
    for max_event_bytes in [512, 64 << 10] {
        let half = max_event_bytes / 2;
        let with =
            |len| build_error(|builder| builder.max_event_bytes(max_event_bytes).fields(text(len)));
        assert_eq!(with(half - 11), "none");
        let expected = format!(
            "the option fields must be at most {half} (bytes of JSON, half of max_event_bytes)"
        );
        assert_eq!(with(half - 10), expected);
        assert_eq!(with(200 << 10), expected);
    }
    assert_eq!(
        build_error(|builder| builder.fields(Fails)),
        "the option fields cannot be encoded: out of paper"
    );
    assert_eq!(
        build_error(|builder| builder.fields(fields! { a: Panics })),
        "the option fields cannot be encoded: its Serialize implementation panicked"
    );
    let no_room = "the option fields does not fit into the queue behind SESSION_START: raise max_queue_size or max_queue_bytes";
    let small = |builder: Build| builder.max_queue_size(1).flush_threshold(1);
    assert_eq!(
        build_error(|builder| small(builder).fields(text(1))),
        no_room
    );
    assert_eq!(build_error(small), "none");
    let small = |builder: Build| builder.max_event_bytes(512).max_queue_bytes(524);
    assert_eq!(
        build_error(|builder| small(builder).fields(text(240))),
        no_room
    );
    // Within its limits it is short enough.
    let cut = |builder: Build| builder.max_string_bytes(100).fields(text(100_000));
    assert_eq!(build_error(cut), "none");
    // What is switched off has no context.
    let off = |builder: Build| builder.enabled(false).fields(Fails);
    assert_eq!(build_error(off), "none");
}

fn fields_of(text: String) -> impl Serialize {
    std::collections::BTreeMap::from([("text", text)])
}

#[test]
fn a_handle_without_a_session_takes_any_context() {
    let off = Handle::off().with(fields! { a: Panics });
    assert!(!off.is_enabled() && !off.log("nothing", ()));
    let (reporter, _driver) = builder(&Keep::default())
        .enabled(false)
        .build()
        .expect("off");
    let part = reporter.with(fields! { a: 1 });
    assert!(!part.log("nothing", ()));
    assert_eq!(reporter.stats().refused.disabled, 1);
}

#[test]
fn a_context_in_a_buffer_is_the_same_and_takes_no_more_than_that() {
    fn buffer<const N: usize>() -> &'static mut ContextBuffer<N> {
        Box::leak(Box::default())
    }
    let (events, told) = sent_with_diagnostics(
        |builder| builder,
        |telemetry| {
            let outer = telemetry.with_in(buffer::<64>(), fields! { device: "pump", port: 3 });
            outer.log("one", fields! { n: 1 });
            let inner = outer.with_in(buffer::<64>(), fields! { port: 4 });
            inner.log("two", fields! { context: 1 });
            // More than 64 bytes together.
            let cut = inner.with_in(buffer::<64>(), fields! { text: "t".repeat(20), on: true });
            cut.log("three", ());
            assert!(cut.with(fields! { a: 1 }).log("four", ()));
            assert!(telemetry.with_in(buffer::<64>(), Fails).log("five", ()));
        },
    );
    let expected = [
        json!({"n": 1, "context": {"device": "pump", "port": 3}}),
        json!({"context": 1, "context_": {"device": "pump", "port": 4}}),
        json!({"context": {"device": "pump", "port": 4, "… (cut)": 2}}),
        json!({"context": {"device": "pump", "port": 4, "a": 1, "… (cut)": 2}}),
        json!({}),
    ];
    assert_eq!(data(&events[1..6]), expected.iter().collect::<Vec<_>>());
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0, told[0].1),
        (DiagnosticKind::ContextIncomplete, 2)
    );
}

#[test]
fn a_session_in_static_memory_has_contexts_too() {
    let keep = Keep::default();
    let memory: &'static mut Memory<Still, 8_192, 4_096> = Box::leak(Box::new(Memory::new()));
    let built: Result<(Reporter<Keep, Still, ()>, Driver<Keep, Still>), _> = builder(&keep)
        .max_event_bytes(1_024)
        .fields(fields! { board: 7 })
        .build_in(memory);
    let (reporter, driver) = built.expect("the sizes are right");
    let buffer: &'static mut ContextBuffer<128> = Box::leak(Box::default());
    let part = reporter.with_in(buffer, fields! { sensor: 3 });
    assert!(part.log("sampled", fields! { celsius: 20 }));
    let mut driver = pin!(driver.run());
    reporter.flush();
    assert!(poll(driver.as_mut()).is_pending());
    let events = keep.events();
    assert_eq!(events[1]["event_data"], json!({"board": 7}));
    let expected = json!({"celsius": 20, "context": {"sensor": 3}});
    assert_eq!(events[2]["event_data"], expected);
}

#[test]
fn an_event_has_three_quarters_of_its_size_beside_any_context() {
    let (events, told) = sent_with_diagnostics(
        |builder| builder.max_event_bytes(4_096),
        |telemetry| {
            let part = telemetry.with(fields! { c: "c".repeat(1_024 - 8) });
            // Id, index, name and time take about 250 bytes.
            assert!(part.log("large", fields! { text: "x".repeat(3 * 1_024 - 300) }));
            assert!(!part.log("too large", fields! { text: "x".repeat(3 * 1_024) }));
        },
    );
    assert_eq!(events.len(), 3);
    assert_eq!(told, [(DiagnosticKind::EventTooLarge, 1, String::new())]);
}

#[test]
fn contexts_of_one_session_are_one_session() {
    let keep = Keep::default();
    let (reporter, driver) = builder(&keep).build().expect("valid options");
    let part = reporter.with(fields! { a: 1 });
    assert_eq!(part.session_id(), Some("s"));
    assert!(part.is_enabled() && part.bus().is_some());
    part.log("one", ());
    assert_eq!(part.stats(), reporter.stats());
    let mut driver = pin!(driver.run());
    let mut drain = pin!(part.wait_until_drained(Duration::MAX));
    assert!(poll(driver.as_mut()).is_pending());
    let drain = drain.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(drain, Poll::Ready(drain) if drain.all_delivered()));
}
