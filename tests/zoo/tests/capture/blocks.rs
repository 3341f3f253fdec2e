//! Captured blocks: what they return, and what is logged.

use crate::support::{BOUND, Failed, builder, finish, pair, payload, thread};
use core::error::Error;
use core::num::ParseIntError;
use std::panic::panic_any;
use tinkex_telemetry::capture::Capture;
use tinkex_telemetry::event::StatusError;
use tinkex_telemetry::session::AsHandle;
use tinkex_telemetry::{Handle, Severity, Thread, async_capture, capture};

#[test]
fn values_of_any_type_pass_through_and_nothing_is_logged() {
    let (session, kept) = thread();
    assert_eq!(capture!(reporter = session, { 5 }), 5);
    assert_eq!(capture!(reporter = session, { Some("x") }), Some("x"));
    assert_eq!(capture!(reporter = session, { Ok::<_, Failed>(7) }), Ok(7));
    // Not a type that can be logged as an error.
    assert_eq!(
        capture!(reporter = session, { Err::<(), _>(404) }),
        Err(404)
    );
    capture!(reporter = session, {});
    let moved = vec![1, 2, 3];
    assert_eq!(capture!(reporter = session, { moved }), [1, 2, 3]);
    assert_eq!(session.capture().run_plain(|| 'x'), 'x');
    assert_eq!(finish(session, &kept), []);
    assert_eq!(kept.logged(), [] as [serde_json::Value; 0]);
}

#[test]
fn an_error_is_logged_and_returned() {
    let (session, kept) = thread();
    let result: Result<(), Failed> = capture!(reporter = session, { Err(Failed("one")) });
    assert_eq!(result, Err(Failed("one")));
    let result = session.capture().run(|| Err::<u8, _>(Failed("two")));
    assert_eq!(result, Err(Failed("two")));
    let exceptions = finish(session, &kept);
    assert_eq!(exceptions, [pair("Failed", "one"), pair("Failed", "two")]);
    assert_eq!(kept.logged()[0]["severity"], "ERROR");
}

#[test]
fn a_question_mark_ends_only_the_block() {
    fn parse(session: &Handle, text: &str) -> Result<u8, ParseIntError> {
        let doubled = capture!(reporter = session, {
            let number: u8 = text.parse()?;
            Ok::<_, ParseIntError>(number * 2)
        })?;
        Ok(doubled + 1)
    }
    let (session, kept) = thread();
    assert_eq!(parse(&session, "4"), Ok(9));
    assert!(parse(&session, "four").is_err());
    let message = "invalid digit found in string";
    assert_eq!(finish(session, &kept), [pair("ParseIntError", message)]);
}

#[test]
fn boxed_errors_and_reports_are_logged_as_the_errors_they_contain() {
    let (session, kept) = thread();
    let boxed = capture!(reporter = session, {
        Err::<(), Box<dyn Error>>(Box::new(Failed("boxed")))
    });
    assert!(boxed.is_err());
    let sync = session
        .capture()
        .run(|| Err::<(), Box<dyn Error + Send + Sync>>(Box::new(Failed("sync"))));
    assert!(sync.is_err());
    let any = capture!(reporter = session, {
        Err::<(), _>(anyhow::anyhow!(Failed("anyhow")))
    });
    assert!(any.is_err());
    let report: eyre::Result<()> = session.capture().run(|| Err(eyre::eyre!(Failed("eyre"))));
    assert!(report.is_err());
    let context: anyhow::Result<()> = session.capture().run(|| {
        let error = anyhow::Error::new(Failed("inner"));
        Err(error.context("outer"))
    });
    assert!(context.is_err());
    let exceptions = finish(session, &kept);
    assert_eq!(
        exceptions[..4],
        ["boxed", "sync", "anyhow", "eyre"].map(|text| pair("Failed", text))
    );
    assert_eq!(exceptions[4].1, "outer");
    let traceback = kept.logged()[4]["traceback"].as_str().map(str::to_owned);
    assert!(traceback.is_some_and(|text| text.contains("Caused by: Failed: inner")));
}

#[test]
fn an_error_that_is_a_text_is_logged_with_the_text_as_its_message() {
    let (session, kept) = thread();
    let captured: Result<u8, String> = capture!(reporter = session, {
        let parsed = "x".parse::<u8>();
        let number = parsed.map_err(|error| format!("bad step: {error}"))?;
        Ok(number)
    });
    assert!(captured.is_err());
    let captured: Result<(), &str> = capture!(reporter = session, { Err("no data") });
    assert_eq!(captured, Err("no data"));
    let captured: Result<u8, String> = capture!(reporter = session, { Ok(1) });
    assert_eq!(captured, Ok(1));
    let spawned = async_capture!(reporter = session, {
        Err::<(), _>(String::from("in a task"))
    });
    assert_eq!(
        smol::block_on(spawned).expect("it ran"),
        Err("in a task".into())
    );
    let messages = [
        pair("String", "bad step: invalid digit found in string"),
        pair("str", "no data"),
        pair("String", "in a task"),
    ];
    assert_eq!(finish(session, &kept), messages);
}

#[test]
fn boxes_reports_and_texts_can_be_logged_without_a_conversion() {
    let (session, kept) = thread();
    let boxed: Box<dyn Error> = Box::new(Failed("boxed"));
    let sync: Box<dyn Error + Send + Sync> = Box::new(Failed("sync"));
    session.log_exception(&boxed, Severity::Error);
    session.log_exception(&*boxed, Severity::Error);
    session.log_exception(&sync, Severity::Error);
    session.log_exception(&anyhow::anyhow!(Failed("anyhow")), Severity::Error);
    session.log_exception(&eyre::eyre!(Failed("eyre")), Severity::Error);
    session.log_exception(&format!("step {}", 7), Severity::Error);
    session.log_exception("a text", Severity::Error);
    let status = StatusError::new(404);
    session.log_exception(
        &anyhow::Error::new(status).context("asked"),
        Severity::Error,
    );
    let fatal = session.log_fatal_exception_blocking(&boxed, Severity::Critical);
    assert!(fatal.is_ok_and(|drain| drain.all_delivered()));
    let mut expected = ["boxed", "boxed", "sync", "anyhow", "eyre"]
        .map(|text| pair("Failed", text))
        .to_vec();
    expected.push(pair("String", "step 7"));
    expected.push(pair("str", "a text"));
    expected.push(pair("Failed", "boxed"));
    assert_eq!(finish(session, &kept), expected);
    let logged = kept.logged();
    assert!(
        logged
            .iter()
            .any(|event| event["event_name"] == "user_error")
    );
}

#[test]
fn a_panic_is_logged_and_continues_with_its_payload() {
    #[derive(Debug, PartialEq)]
    struct Own(u32);
    let (session, kept) = thread();
    let step = core::hint::black_box(3);
    let text = payload(|| capture!(reporter = session, { panic!("at {step}") }));
    assert_eq!(
        text.downcast_ref::<String>().map(String::as_str),
        Some("at 3")
    );
    let own = payload(|| session.capture().run_plain(|| panic_any(Own(7))));
    assert_eq!(own.downcast_ref(), Some(&Own(7)));
    assert_eq!(
        finish(session, &kept),
        [pair("panic", "at 3"), pair("panic", "Box<dyn Any>")]
    );
}

#[test]
fn the_requested_severity_is_used() {
    let (session, kept) = thread();
    let _: Result<(), _> = capture!(reporter = session, severity = Severity::Critical, {
        Err(Failed("critical"))
    });
    let _: Result<(), _> = session
        .capture()
        .severity(Severity::Warning)
        .run(|| Err(Failed("warning")));
    finish(session, &kept);
    let severities: Vec<_> = kept
        .logged()
        .iter()
        .map(|event| event["severity"].clone())
        .collect();
    assert_eq!(severities, ["CRITICAL", "WARNING"]);
}

#[test]
fn a_fatal_failure_ends_the_session_and_is_sent_before_it_is_returned() {
    let (session, kept) = thread();
    let result: Result<(), _> = capture!(fatal = true, reporter = session, { Err(Failed("last")) });
    assert_eq!(result, Err(Failed("last")));
    let kinds = |index: usize| kept.events()[index]["event"].clone();
    assert_eq!(
        [kinds(0), kinds(1), kinds(2)],
        ["SESSION_START", "UNHANDLED_EXCEPTION", "SESSION_END"]
    );
    // The session still accepts events.
    assert!(session.log("still.here", ()));
    finish(session, &kept);
    assert_eq!(kept.events().len(), 4);
}

#[test]
fn a_fatal_panic_ends_the_session_and_is_sent_before_it_continues() {
    let (session, kept) = thread();
    let text = payload(|| capture!(reporter = session, fatal = true, { panic!("last") }));
    assert_eq!(text.downcast_ref(), Some(&"last"));
    assert_eq!(kept.exceptions(), [pair("panic", "last")]);
    assert_eq!(kept.events().len(), 3);
}

#[test]
fn without_a_reporter_capture_changes_nothing() {
    let none: Option<Handle> = None;
    assert_eq!(capture!({ 3 }), 3);
    assert_eq!(
        capture!(reporter = none, { Err::<(), _>(Failed("x")) }),
        Err(Failed("x"))
    );
    assert_eq!(capture!(reporter = Handle::off(), fatal = true, { 4 }), 4);
    assert_eq!(
        Capture::new().run(|| Err::<(), _>(Failed("y"))),
        Err(Failed("y"))
    );
    let text = payload(|| capture!({ panic!("z") }));
    assert_eq!(text.downcast_ref(), Some(&"z"));
}

#[test]
fn handles_reporters_and_options_of_them_are_accepted_as_reporters() {
    let (session, kept) = thread();
    let handle = session.handle();
    let option = Some(handle.clone());
    let fail = |capture: Capture<'_>| capture.run(|| Err::<(), _>(Failed("x")));
    assert!(fail(Capture::new().reporter(&session)).is_err());
    assert!(fail(Capture::new().reporter(&handle)).is_err());
    assert!(fail(Capture::new().reporter(&option)).is_err());
    assert!(fail(Capture::new().reporter(&option.as_ref())).is_err());
    assert!(None::<Handle>.as_handle().is_none());
    assert_eq!(finish(session, &kept).len(), 4);
}

#[test]
fn a_disabled_session_changes_nothing_and_logs_nothing() {
    let (builder, kept) = builder(Thread);
    let session = builder.enabled(false).start().expect("the session starts");
    assert_eq!(
        capture!(reporter = session, { Err::<(), _>(Failed("x")) }),
        Err(Failed("x"))
    );
    let text = payload(|| capture!(reporter = session, fatal = true, { panic!("z") }));
    assert_eq!(text.downcast_ref(), Some(&"z"));
    assert!(
        session
            .stop_blocking(BOUND)
            .is_ok_and(|drain| drain.is_drained())
    );
    assert_eq!(kept.events(), [] as [serde_json::Value; 0]);
}

#[test]
fn an_error_whose_display_panics_is_still_returned() {
    #[derive(Debug)]
    struct PanickingDisplay;
    impl core::fmt::Display for PanickingDisplay {
        fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            panic!("formatted")
        }
    }
    impl Error for PanickingDisplay {}
    let (session, kept) = thread();
    let result = capture!(reporter = session, {
        capture!(reporter = session, { Err::<(), _>(PanickingDisplay) })
    });
    assert!(result.is_err());
    assert!(session.stats().refused.unencodable > 0);
    assert_eq!(finish(session, &kept), []);
}
