//! What the clients report by themselves: failures by whose fault they were, messages, and never a secret.

use crate::in_each_world;
use crate::worlds::{KEY, World, data_of, names, site, site_with};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkex_telemetry::bus::QueueStateChange;
use tinkex_telemetry::client::{AdamParams, ClientError, SamplingParams};
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::diagnostic::DiagnosticKind;

in_each_world! {
    a_users_own_error_is_a_user_error_and_the_session_lives_on,
    any_other_error_is_an_exception_and_the_session_lives_on,
    a_telemetry_endpoint_that_stalls_for_ever_delays_no_error,
    what_the_backend_says_of_the_session_reaches_the_diagnostics,
    pauses_reach_observer_and_diagnostics,
    no_event_has_a_secret_in_it,
    a_call_that_is_never_awaited_reports_nothing,
}

fn a_users_own_error_is_a_user_error_and_the_session_lives_on<W: World>() {
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
    let told = data_of(&session, "user_error");
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0]["status_code"], 404);
    assert_eq!(told[0]["error_type"], "ClientError");
    assert!(told[0].get("body").is_none());
    assert_eq!(told[1]["message"], "sample failed: your fault");
    let names = names(&session);
    assert!(!names.iter().any(|name| name == "UNHANDLED_EXCEPTION"));
    // One end, and that is the last of all.
    let ends = names.iter().filter(|name| *name == "SESSION_END");
    assert_eq!(ends.count(), 1);
    assert_eq!(names.last().unwrap(), "SESSION_END");
}

fn any_other_error_is_an_exception_and_the_session_lives_on<W: World>() {
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
    let told: Vec<_> = events
        .filter(|event| event["event"] == "UNHANDLED_EXCEPTION")
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["error_message"], "optim_step failed: out of memory");
    assert_eq!(told[0]["severity"], "ERROR");
    assert_eq!(names(&session).last().unwrap(), "SESSION_END");
}

fn a_telemetry_endpoint_that_stalls_for_ever_delays_no_error<W: World>() {
    let collector = Collector::start().unwrap();
    collector.always(Reply::stall());
    // Whoever waited for telemetry would wait for half an hour and more.
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
    let _ = site.world.block_on(site.service.close());
}

fn what_the_backend_says_of_the_session_reaches_the_diagnostics<W: World>() {
    let collector = Collector::start().unwrap();
    let created = json!({
        "session_id": "s", "info_message": "hello", "warning_message": format!("old {KEY}"),
        "error_message": "",
    });
    let created = Reply::json(&created);
    collector.backend().script("create_session", [created]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&told);
    let site = site_with::<W>(collector, |builder| {
        builder.telemetry(move |telemetry| {
            telemetry.enabled(true).on_diagnostic(move |diagnostic| {
                let what = (diagnostic.kind, diagnostic.reason.to_owned());
                note.lock().unwrap().push(what);
            })
        })
    });
    assert_eq!(
        *told.lock().unwrap(),
        [
            (DiagnosticKind::BackendInfo, "hello".to_owned()),
            (DiagnosticKind::BackendWarning, "old [redacted]".to_owned()),
        ]
    );
    drop(site);
}

fn pauses_reach_observer_and_diagnostics<W: World>() {
    let collector = Collector::start().unwrap();
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let (note, changes) = (Arc::clone(&pauses), Arc::new(Mutex::new(Vec::new())));
    let observed = Arc::clone(&changes);
    let site = site_with::<W>(collector, |builder| {
        builder
            .queue_state_observer(move |change: &QueueStateChange<'_>| {
                observed.lock().unwrap().push(change.to.as_str());
            })
            .telemetry(move |telemetry| {
                telemetry.enabled(true).on_diagnostic(move |diagnostic| {
                    if diagnostic.kind == DiagnosticKind::QueuePaused {
                        note.lock().unwrap().push(diagnostic.to_string());
                    }
                })
            })
    });
    let sampler = site.sampler();
    let paused = crate::worlds::try_again("paused_rate_limit", &json!({ "retry_after_ms": 1 }));
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

fn no_event_has_a_secret_in_it<W: World>() {
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
        // Those that were not taken.
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
    let paused = crate::worlds::try_again("paused_capacity", &reason);
    site.backend.script("retrieve_future", [paused]);
    assert!(site.wait(sample()).is_ok());
    let session = site.close();
    assert!(session.len() > 20);
    for event in session.events() {
        assert!(!event.json().contains(KEY), "{}", event.json());
    }
}

fn a_call_that_is_never_awaited_reports_nothing<W: World>() {
    let site = site::<W>();
    let sampler = site.sampler();
    drop(sampler.sample(vec![1], 1, SamplingParams::new()));
    assert_eq!(site.backend.calls_of("asample").len(), 0);
    let names = names(&site.close());
    assert!(!names.iter().any(|name| name.ends_with("exception")));
}
