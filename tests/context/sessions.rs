//! The context of a session, and contexts without an allocator.

use super::*;

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
    let built = builder(&keep)
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
    // With a report of that loss.
    assert_eq!(events.len(), 4);
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
