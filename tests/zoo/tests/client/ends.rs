//! The end of a session, by a close or by the last drop, and its effect on pending calls.

use crate::on_each_stack;
use crate::runtimes::{KEY, Stack, ThreadUreq, TokioReqwest, builder, site, site_with};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tinkex_telemetry::client::{ClientError, SamplingParams, ServiceClient};
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::{Config, Reqwest, Tokio};

on_each_stack! {
    a_close_ends_pending_calls_at_once,
    after_a_close_every_call_fails_and_nothing_is_sent,
    dropping_one_client_does_not_end_the_session,
    dropping_the_last_client_ends_the_session,
    a_close_keeps_its_deadline_when_the_backend_stalls,
    without_telemetry_everything_else_works,
    a_session_whose_id_no_url_can_name_is_refused,
}

const BOUND: Duration = Duration::from_secs(60);

fn a_close_ends_pending_calls_at_once<W: Stack + Sync>() {
    let site = site::<W>();
    let sampler = site.sampler();
    site.backend.always("retrieve_future", Reply::stall());
    let call = sampler.sample(vec![1], 1, SamplingParams::new());
    thread::scope(|scope| {
        let waits = scope.spawn(|| site.wait(call));
        assert!(site.backend.wait_for("retrieve_future", 1, BOUND));
        let session = site.close();
        assert!(session.has_ended());
        assert_eq!(waits.join().unwrap(), Err(ClientError::Closed));
    });
    site.only("finish");
}

fn after_a_close_every_call_fails_and_nothing_is_sent<W: Stack>() {
    let site = site::<W>();
    let (sampler, training) = (site.sampler(), site.trainer());
    site.close();
    let calls = site.backend.calls().len();
    let sampled = sampler.sample(vec![1], 1, SamplingParams::new());
    assert_eq!(site.wait(sampled), Err(ClientError::Closed));
    assert_eq!(
        site.wait(training.save_weights("a")),
        Err(ClientError::Closed)
    );
    let capabilities = site.service.get_server_capabilities();
    assert_eq!(site.wait(capabilities), Err(ClientError::Closed));
    assert_eq!(site.backend.calls().len(), calls);
}

fn dropping_one_client_does_not_end_the_session<W: Stack>() {
    let site = site::<W>();
    let telemetry = site.service.telemetry().unwrap();
    let (sampler, training) = (site.sampler(), site.trainer());
    drop(training);
    assert!(telemetry.log("still", ()));
    // Drops the service; only a sampler is left.
    let (stack, backend, collector) = (site.stack, site.backend, site.collector);
    drop(site.service);
    assert!(telemetry.log("still", ()));
    let sampled = sampler.sample(vec![1], 1, SamplingParams::new());
    drop(sampler);
    // Only the pending call is left.
    assert!(stack.wait(sampled).is_ok());
    assert!(backend.wait_for("finish", 1, BOUND));
    let id = telemetry.session_id().unwrap().to_owned();
    assert!(collector.wait_for(&id, 10, BOUND));
}

fn dropping_the_last_client_ends_the_session<W: Stack>() {
    let site = site::<W>();
    let telemetry = site.service.telemetry().unwrap();
    let id = site.service.session_id().to_owned();
    drop(site.service);
    assert!(!telemetry.log("over", ()));
    assert!(site.backend.wait_for("finish", 1, BOUND));
    let finish = &site.backend.calls_of("finish")[0];
    assert_eq!(finish.body()["reason"]["type"], "success");
    // The start and the end.
    assert!(site.collector.wait_for(&id, 2, BOUND));
}

#[test]
fn on_the_thread_runtime_a_drop_waits_until_everything_is_sent() {
    let site = site::<ThreadUreq>();
    let id = site.service.session_id().to_owned();
    site.sampler();
    drop(site.service);
    assert!(site.collector.session(&id).unwrap().has_ended());
    assert_eq!(site.backend.calls_of("finish").len(), 1);
}

#[test]
fn at_the_end_of_a_tokio_main_a_drop_waits_until_everything_is_sent() {
    let site = site::<TokioReqwest>();
    let id = site.service.session_id().to_owned();
    let service = site.service;
    site.stack.block_on(async move { drop(service) });
    assert!(site.collector.session(&id).unwrap().has_ended());
    assert_eq!(site.backend.calls_of("finish").len(), 1);
}

/// What `#[tokio::main(flavor = "current_thread")]` does with a client that is dropped where it ends.
#[test]
fn at_the_end_of_a_current_thread_main_everything_that_a_drop_cannot_send_is_reported() {
    for closes in [false, true] {
        let collector = Collector::start().unwrap();
        let reported = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reported);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let handle = runtime.enable_all().build().unwrap().block_on(async {
            let service = ServiceClient::builder(Config::new(&collector.url(), KEY).unwrap())
                .http(Reqwest::new().unwrap())
                .runtime(Tokio)
                .telemetry(move |telemetry| {
                    telemetry.enabled(true).on_diagnostic(move |diagnostic| {
                        let mut all = seen.lock().unwrap();
                        all.push((diagnostic.kind, diagnostic.count));
                    })
                })
                .connect()
                .await
                .unwrap();
            let handle = service.telemetry().unwrap();
            for step in 0..3 {
                assert!(handle.log("step", step));
            }
            if closes {
                assert!(service.close().await.all_delivered());
            }
            handle
        });
        let stats = handle.stats();
        let received = collector.session(handle.session_id().unwrap());
        let received = received.map_or(0, |session| session.len() as u64);
        let finished = collector.backend().calls_of("finish").len();
        if closes {
            assert_eq!((received, finished), (stats.accepted, 1));
            assert_eq!(*reported.lock().unwrap(), []);
            continue;
        }
        // Without a driver it may come from a thread of its own.
        let until = Instant::now() + BOUND;
        while reported.lock().unwrap().is_empty() {
            assert!(Instant::now() < until, "nothing is reported");
            thread::yield_now();
        }
        assert_eq!(finished, 0);
        let lost = stats.accepted - received;
        // At least the steps and the end.
        assert!(lost >= 4, "{stats:?}");
        assert_eq!(
            *reported.lock().unwrap(),
            [(DiagnosticKind::NoDriver, lost)]
        );
    }
}

#[test]
fn a_panic_that_drops_the_service_ends_the_session_as_errored() {
    let site = site::<ThreadUreq>();
    let service = site.service;
    let thread = thread::spawn(move || {
        let _service = service;
        std::panic::resume_unwind(Box::new("simulated"));
    });
    assert!(thread.join().is_err());
    let finish = &site.backend.calls_of("finish")[0];
    assert_eq!(finish.body()["reason"]["type"], "errored");
}

fn a_close_keeps_its_deadline_when_the_backend_stalls<W: Stack>() {
    let short = Duration::from_secs(4);
    let collector = Collector::start().unwrap();
    let site = site_with::<W>(collector, |builder| builder.close_timeout(short));
    site.collector.always(Reply::stall());
    site.backend.always("finish", Reply::stall());
    let drain = site.stack.block_on(site.service.close());
    // Neither response ever arrives; the point is that the close returns at all.
    assert!(!drain.is_drained());
}

fn without_telemetry_everything_else_works<W: Stack>() {
    let collector = Collector::start().unwrap();
    let off = builder::<W>(&collector).telemetry(|telemetry| telemetry.enabled(false));
    let stack = W::default();
    let service = stack.wait(off.connect()).unwrap();
    assert!(service.telemetry().is_none());
    let sampler = stack.wait(service.create_sampling_client("small")).unwrap();
    let sampled = sampler.sample(vec![1], 1, SamplingParams::new());
    assert_eq!(stack.wait(sampled).unwrap().sequences.len(), 1);
    assert_eq!(stack.block_on(service.close()), Default::default());
    assert_eq!(collector.requests().len(), 0);
    assert_eq!(collector.backend().calls_of("finish").len(), 1);
}

fn a_session_whose_id_no_url_can_name_is_refused<W: Stack>() {
    for id in ["", ".", ".."] {
        let collector = Collector::start().unwrap();
        let created = Reply::json(&json!({ "session_id": id, "type": "create_session" }));
        collector.backend().script("create_session", [created]);
        let stack = W::default();
        let error = stack.wait(builder::<W>(&collector).connect()).unwrap_err();
        assert!(
            matches!(error, ClientError::InvalidResponse { .. }),
            "{error}"
        );
        let expected = format!("the session id {id:?} cannot be part of a URL");
        assert!(error.to_string().ends_with(&expected), "{error}");
        assert_eq!(collector.backend().calls_of("finish").len(), 0);
    }
}

#[test]
fn an_invalid_setup_is_an_error_that_names_the_problem() {
    let wrong = Config::new("ftp://host", KEY).unwrap_err();
    let shown = ClientError::from(wrong).to_string();
    let expected = "base_url begins with neither https:// nor http:// (\"ftp://\")";
    assert_eq!(shown, expected);
    let config = Config::new("http://127.0.0.1:1", KEY).unwrap();
    let outside = ServiceClient::builder(config)
        .http(Reqwest::new().unwrap())
        .runtime(Tokio)
        .connect();
    // There is no tokio runtime here to bind to.
    assert!(matches!(outside.wait(), Err(ClientError::Spawn(_))));
}
