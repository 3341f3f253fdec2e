//! What the clients report automatically: failures by category, messages of the backend, and never a secret.

use crate::on_each_stack;
use crate::runtimes::{KEY, Stack, data_of, names, site, site_with};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkex_telemetry::bus::QueueStateChange;
use tinkex_telemetry::client::{AdamParams, ClientError, SamplingParams};
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::diagnostic::DiagnosticKind;

on_each_stack! {
    an_error_caused_by_the_user_is_a_user_error_and_the_session_continues,
    any_other_error_is_an_exception_and_the_session_continues,
    a_stalled_telemetry_endpoint_delays_no_error,
    messages_of_the_backend_reach_the_diagnostics,
    pauses_reach_the_observer_and_the_diagnostics,
    no_event_contains_a_secret,
    a_call_that_is_never_awaited_reports_nothing,
}

fn an_error_caused_by_the_user_is_a_user_error_and_the_session_continues<W: Stack>() {
    let site = site::<W>();
    let sampler = site.sampler();
    site.backend.script("asample", [Reply::status(404)]);
    let sample = || sampler.sample(vec![1], 1, SamplingParams::new());
    assert_eq!(site.wait(sample()).unwrap_err().status(), Some(404));
    let failed = json!({ "error": "your fault", "category": "user" });
    let failed = Reply::json(&failed);
    site.backend.script("retrieve_future", [failed]);
    assert!(site.wait(sample()).is_err());
    assert!(site.wait(sample()).is_ok());
    let session = site.close();
    let reported = data_of(&session, "user_error");
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert_eq!(reported[0]["status_code"], 404);
    assert_eq!(
        reported[0]["error_type"],
        core::any::type_name::<tinkex_telemetry::client::ClientError>()
    );
    assert!(reported[0].get("body").is_none());
    assert_eq!(reported[1]["message"], "sample failed: your fault");
    let names = names(&session);
    assert!(!names.iter().any(|name| name == "UNHANDLED_EXCEPTION"));
    // One end, as the last event.
    let ends = names.iter().filter(|name| *name == "SESSION_END");
    assert_eq!(ends.count(), 1);
    assert_eq!(names.last().unwrap(), "SESSION_END");
}

fn any_other_error_is_an_exception_and_the_session_continues<W: Stack>() {
    let site = site::<W>();
    let training = site.trainer();
    let failed = json!({ "error": "out of memory", "category": "server" });
    let failed = Reply::json(&failed);
    site.backend.script("retrieve_future", [failed]);
    let step = site.wait(training.optim_step(AdamParams::default()));
    assert!(matches!(step, Err(ClientError::Failed { .. })));
    assert!(site.wait(training.get_info()).is_ok());
    let session = site.close();
    let events = session.events().iter().map(|event| event.value());
    let reported: Vec<_> = events
        .filter(|event| event["event"] == "UNHANDLED_EXCEPTION")
        .collect();
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_eq!(
        reported[0]["error_message"],
        "optim_step failed: out of memory"
    );
    assert_eq!(reported[0]["severity"], "ERROR");
    assert_eq!(names(&session).last().unwrap(), "SESSION_END");
}

fn a_stalled_telemetry_endpoint_delays_no_error<W: Stack>() {
    let collector = Collector::start().unwrap();
    collector.always(Reply::stall());
    // A caller that waited for telemetry would wait for more than half an hour.
    let long = Duration::from_secs(50_000);
    let site = site_with::<W>(collector, |builder| {
        builder
            .close_timeout(Duration::from_secs(2))
            .telemetry(move |telemetry| {
                telemetry
                    .enabled(true)
                    .drop_timeout(Duration::ZERO)
                    .flush_timeout(long)
                    .http_timeout(long)
            })
    });
    let name = "get_server_capabilities";
    for status in [404, 422] {
        site.backend.script(name, [Reply::status(status)]);
        let call = site.service.get_server_capabilities();
        assert_eq!(site.wait(call).unwrap_err().status(), Some(status));
    }
    assert!(site.wait(site.service.get_server_capabilities()).is_ok());
    let _ = site.stack.block_on(site.service.close());
}

fn messages_of_the_backend_reach_the_diagnostics<W: Stack>() {
    let collector = Collector::start().unwrap();
    let created = json!({
        "session_id": "s", "info_message": "hello", "warning_message": format!("old {KEY}"),
        "error_message": "",
    });
    let created = Reply::json(&created);
    collector.backend().script("create_session", [created]);
    let reported = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&reported);
    let site = site_with::<W>(collector, |builder| {
        builder.telemetry(move |telemetry| {
            telemetry.enabled(true).on_diagnostic(move |diagnostic| {
                let what = (diagnostic.kind, diagnostic.reason.to_owned());
                recorded.lock().unwrap().push(what);
            })
        })
    });
    assert_eq!(
        *reported.lock().unwrap(),
        [
            (DiagnosticKind::BackendInfo, "hello".to_owned()),
            (DiagnosticKind::BackendWarning, "old [redacted]".to_owned()),
        ]
    );
    drop(site);
}

fn pauses_reach_the_observer_and_the_diagnostics<W: Stack>() {
    let collector = Collector::start().unwrap();
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let (recorded, changes) = (Arc::clone(&pauses), Arc::new(Mutex::new(Vec::new())));
    let observed = Arc::clone(&changes);
    let site = site_with::<W>(collector, |builder| {
        builder
            .queue_state_observer(move |change: &QueueStateChange<'_>| {
                observed.lock().unwrap().push(change.to.as_str());
            })
            .telemetry(move |telemetry| {
                telemetry.enabled(true).on_diagnostic(move |diagnostic| {
                    if diagnostic.kind == DiagnosticKind::QueuePaused {
                        recorded.lock().unwrap().push(diagnostic.to_string());
                    }
                })
            })
    });
    let sampler = site.sampler();
    let paused = crate::runtimes::try_again("paused_rate_limit", &json!({ "retry_after_ms": 1 }));
    site.backend
        .script("retrieve_future", [paused.clone(), paused]);
    let sampled = sampler.sample(vec![1], 1, SamplingParams::new());
    site.wait(sampled).unwrap();
    assert_eq!(*changes.lock().unwrap(), ["paused_rate_limit", "active"]);
    assert_eq!(
        *pauses.lock().unwrap(),
        ["sample is paused: concurrent sampler weights limit hit"]
    );
}

fn no_event_contains_a_secret<W: Stack>() {
    let site = site::<W>();
    let sampler = site.sampler();
    let sample = || sampler.sample(vec![1], 1, SamplingParams::new());
    let echo = || Reply::status(422).body(format!("{{\"error\":\"x-api-key: {KEY}\"}}"));
    site.backend.script("asample", [echo()]);
    assert!(site.wait(sample()).is_err());
    for status in [400, 404] {
        let echo = Reply::status(status).body(format!("{KEY} {KEY}"));
        let echoes = core::iter::repeat_n(echo, 4);
        let before = site.backend.calls_of("retrieve_future").len();
        site.backend.script("retrieve_future", echoes);
        assert!(site.wait(sample()).is_err());
        // Uses up the replies that no poll has consumed.
        let taken = site.backend.calls_of("retrieve_future").len() - before;
        for _ in taken..4 {
            assert!(site.wait(sample()).is_err());
        }
    }
    let failed = json!({ "error": format!("no {KEY}"), "category": "server" });
    let failed = Reply::json(&failed);
    site.backend.script("retrieve_future", [failed]);
    assert!(site.wait(sample()).is_err());
    let reason = json!({ "queue_state_reason": format!("for {KEY}"), "retry_after_ms": 1 });
    let paused = crate::runtimes::try_again("paused_capacity", &reason);
    site.backend.script("retrieve_future", [paused]);
    assert!(site.wait(sample()).is_ok());
    let session = site.close();
    assert!(session.len() > 20);
    for event in session.events() {
        assert!(!event.json().contains(KEY), "{}", event.json());
    }
}

fn a_call_that_is_never_awaited_reports_nothing<W: Stack>() {
    let site = site::<W>();
    let sampler = site.sampler();
    drop(sampler.sample(vec![1], 1, SamplingParams::new()));
    assert_eq!(site.backend.calls_of("asample").len(), 0);
    let names = names(&site.close());
    assert!(!names.iter().any(|name| name.ends_with("exception")));
}
