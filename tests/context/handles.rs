//! Contexts of handles: where they go, how they nest, what limits and hooks do to them.

use super::*;

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
