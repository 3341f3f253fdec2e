//! Outages and slow backends in simulated time: each wait has its documented length, to the second.

use crate::runtimes::try_again;
use crate::sim_harness::{PING, SimHarness, run_simulated};
use futures::future::{Either, join, join_all, select};
use serde_json::{Value, json};
use std::pin::pin;
use std::time::Duration;
use tinkex_telemetry::bus::QueueState;
use tinkex_telemetry::client::{
    AdamParams, ClientError, LoraConfig, ModelInput, SamplingClient, SamplingParams, ServiceClient,
};
use tinkex_telemetry::collector::Reply;
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::sim::SimSpawner;

const POLL: &str = "retrieve_future";

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

async fn sampler(sim: &SimHarness, spawner: &SimSpawner) -> (ServiceClient, SamplingClient) {
    let service = sim.connect(spawner).await.expect("the service connects");
    let sampler = service.create_sampling_client("small").await;
    (service, sampler.expect("the sampler is created"))
}

fn one() -> SamplingParams {
    SamplingParams::new().max_tokens(1)
}

#[test]
fn polling_survives_an_outage_with_a_backoff_of_at_most_thirty_seconds() {
    run_simulated(1, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        let pending = Reply::json(&json!({ "status": "pending" }));
        sim.backend.script(POLL, [pending]);
        let sample = sampler.sample(vec![1], 1, one());
        let outage = async {
            sim.sleep(Duration::from_millis(40)).await;
            sim.outage(secs(100));
        };
        let (sampled, ()) = join(sample, outage).await;
        assert_eq!(sampled.unwrap().sequences.len(), 1);
        assert_eq!(sim.attempts(POLL), [0, 0, 1, 3, 7, 15, 31, 61, 91, 121]);
        assert!(service.close().await.all_delivered());
        // Each attempt has a start and an end.
        let events = sim.events();
        let count = |name: &str| {
            let reported = events.iter().filter(|event| event["event_name"] == name);
            reported.count()
        };
        let starts = count("tinkex.http.request.start");
        let stops = count("tinkex.http.request.stop");
        let exceptions = count("tinkex.http.request.exception");
        assert_eq!(starts, stops + exceptions);
        // Polls and heartbeats.
        assert!(exceptions >= 8);
    });
}

#[test]
fn the_state_of_a_queued_request_sets_its_poll_interval() {
    run_simulated(2, |sim, spawner| async move {
        let (_service, sampler) = sampler(&sim, &spawner).await;
        let active = || try_again("active", &json!({}));
        sim.backend.script(POLL, (0..7).map(|_| active()));
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert_eq!(sim.attempts(POLL), [0, 1, 3, 7, 15, 31, 61, 91]);
        let begun = sim.passed();
        let paused = || try_again("paused_capacity", &json!({}));
        sim.backend.script(POLL, (0..5).map(|_| paused()));
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert_eq!((sim.passed() - begun).as_secs(), 5);
        let begun = sim.passed();
        let soon = try_again("paused_capacity", &json!({ "retry_after_ms": 90_000 }));
        sim.backend.script(POLL, [soon]);
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert_eq!((sim.passed() - begun).as_secs(), 90);
    });
}

#[test]
fn a_queue_depth_is_reported_where_the_backend_gives_one_and_else_left_out() {
    run_simulated(18, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        let depth = json!({ "queue_depth": 7 });
        let null = json!({ "queue_depth": null });
        sim.backend.script(
            POLL,
            [
                try_again("active", &json!({})),
                try_again("paused_capacity", &depth),
                try_again("paused_rate_limit", &null),
            ],
        );
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert!(service.close().await.all_delivered());
        let events = sim.events();
        let changes = events
            .iter()
            .filter(|event| event["event_name"] == "tinkex.queue.state_change")
            .map(|event| event["event_data"]["measurements"].clone());
        // The last change is that to the result.
        let none = json!({});
        assert!(changes.eq([none.clone(), depth, none.clone(), none]));
    });
}

#[test]
fn a_long_poll_times_out_after_forty_five_seconds() {
    run_simulated(3, |sim, spawner| async move {
        let (_service, sampler) = sampler(&sim, &spawner).await;
        sim.backend.script(POLL, [Reply::stall()]);
        sampler.sample(vec![1], 1, one()).await.unwrap();
        // 45 s for the poll, 1 s for the backoff.
        assert_eq!(sim.attempts(POLL), [0, 46]);
    });
}

/// The events of polls, as `(name, status or kind, polls)`.
fn poll_events(sim: &SimHarness) -> Vec<(String, Value, Value)> {
    let events = sim.events();
    let polls = events.iter().filter(|event| {
        let path = event["event_data"]["metadata"]["path"].as_str();
        path.is_some_and(|path| path.ends_with(POLL))
    });
    polls
        .map(|event| {
            let metadata = &event["event_data"]["metadata"];
            let name = event["event_name"].as_str().unwrap_or_default();
            let end = metadata.get("status").or(metadata.get("kind"));
            let name = name.trim_start_matches("tinkex.http.request.");
            (
                name.to_owned(),
                end.cloned().unwrap_or_default(),
                metadata["polls"].clone(),
            )
        })
        .collect()
}

fn event(name: &str, end: impl Into<Value>, polls: impl Into<Value>) -> (String, Value, Value) {
    (name.to_owned(), end.into(), polls.into())
}

#[test]
fn polls_that_say_at_once_that_there_is_nothing_new_are_reported_as_one_request() {
    for body in [
        json!({ "status": "pending" }),
        json!({ "status": "complete_metadata" }),
        json!({ "type": "try_again", "queue_state": "active", "retry_after_ms": 0 }),
        json!({ "type": "try_again", "queue_state": "paused_capacity", "retry_after_ms": 1_000 }),
    ] {
        run_simulated(21, |sim, spawner| async move {
            let (service, sampler) = sampler(&sim, &spawner).await;
            let again = || Reply::json(&body);
            // Until there is a result.
            sim.backend.script(POLL, (0..7).map(|_| again()));
            sampler.sample(vec![1], 1, one()).await.unwrap();
            // Until the backend is overloaded, once: what fails is reported as before.
            let busy = [again(), again(), Reply::status(503), again()];
            sim.backend.script(POLL, busy);
            sampler.sample(vec![1], 1, one()).await.unwrap();
            // Until it does not respond.
            sim.backend.script(POLL, [again(), again(), Reply::stall()]);
            sampler.sample(vec![1], 1, one()).await.unwrap();
            // For ever, until the call is dropped: between two polls.
            sim.backend.always(POLL, again());
            let sample = sampler.sample(vec![1], 1, one());
            let timeout = pin!(sim.sleep(secs(600)));
            assert!(matches!(select(sample, timeout).await, Either::Right(_)));
            let polls = sim.attempts(POLL).len();
            assert!((60..700).contains(&polls), "{polls}");
            assert!(service.close().await.all_delivered());
            let events = poll_events(&sim);
            let last = events.last().cloned().map(|(name, end, _)| (name, end));
            assert_eq!(last, Some(("stop".to_owned(), json!(200))), "{body}");
            let expected = [
                event("start", Value::Null, Value::Null),
                event("stop", 200, 8),
                event("start", Value::Null, Value::Null),
                event("stop", 503, 3),
                event("start", Value::Null, Value::Null),
                event("stop", 200, 2),
                event("start", Value::Null, Value::Null),
                event("exception", "timeout", 3),
                event("start", Value::Null, Value::Null),
                event("stop", 200, Value::Null),
                event("start", Value::Null, Value::Null),
            ];
            assert_eq!(events[..events.len() - 1], expected, "{body}");
        });
    }
}

#[test]
fn polls_that_the_backend_holds_back_are_reported_one_by_one() {
    run_simulated(22, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        sim.hold_polls(secs(30));
        let pending = || Reply::json(&json!({ "status": "pending" }));
        sim.backend.script(POLL, [pending(), pending()]);
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert!(service.close().await.all_delivered());
        let expected = (0..3).flat_map(|_| {
            [
                event("start", Value::Null, Value::Null),
                event("stop", 200, Value::Null),
            ]
        });
        assert!(expected.eq(poll_events(&sim)), "{:?}", poll_events(&sim));
    });
}

#[test]
fn a_plain_call_is_retried_for_five_minutes() {
    run_simulated(4, |sim, spawner| async move {
        let service = sim.connect(&spawner).await.unwrap();
        let name = "get_server_capabilities";
        sim.outage(secs(100_000));
        let error = service.get_server_capabilities().await.unwrap_err();
        assert!(matches!(error, ClientError::NoResponse { .. }), "{error}");
        assert!(error.is_retryable());
        let attempts = sim.attempts(name);
        assert_eq!(attempts[..7], [0, 1, 3, 7, 15, 31, 61]);
        let last = attempts.last().unwrap();
        assert!((270..=300).contains(last), "{last}");
        assert!(sim.passed() <= secs(301));
    });
}

#[test]
fn what_the_http_client_calls_final_is_not_retried() {
    run_simulated(17, |sim, spawner| async move {
        sim.refuse("create_session");
        let error = sim.connect(&spawner).await.expect_err("it is refused");
        assert_eq!(sim.attempts("create_session"), [0]);
        let expected = "create_session got no response: a setting cannot work";
        assert_eq!(
            (&*error.to_string(), error.is_retryable()),
            (expected, false)
        );

        sim.refuse("get_server_capabilities");
        let (service, sampler) = sampler(&sim, &spawner).await;
        let error = service.get_server_capabilities().await.unwrap_err();
        assert!(!error.is_retryable());
        assert_eq!(sim.attempts("get_server_capabilities"), [0]);
        // With backpressure, and a poll.
        for name in ["asample", POLL] {
            sim.refuse(name);
            let error = sampler.sample(vec![1], 1, one()).await.unwrap_err();
            assert!(!error.is_retryable(), "{error}");
            assert_eq!(sim.attempts(POLL).len(), usize::from(name == POLL));
        }
        assert_eq!(sim.attempts("asample"), [0, 0]);

        sim.refuse("session_heartbeat");
        sim.sleep(secs(500)).await;
        assert_eq!(sim.attempts("session_heartbeat"), [10]);
        let reason = "heartbeats stop, for they cannot succeed: a setting cannot work";
        let reported = sim.diagnostics(DiagnosticKind::HeartbeatLost);
        assert_eq!(reported, [(10, reason.to_owned())]);
        sim.refuse("finish");
        assert!(service.close().await.all_delivered());
    });
}

#[test]
fn a_busy_backend_holds_back_all_samples_of_a_client() {
    run_simulated(8, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        sim.backend.script("asample", [Reply::status(429)]);
        let first = sampler.sample(vec![1], 1, one());
        let late = async {
            sim.sleep(Duration::from_millis(500)).await;
            sampler.sample(vec![2], 1, one()).await
        };
        let (first, late) = join(first, late).await;
        assert!(first.is_ok() && late.is_ok());
        assert_eq!(sim.attempts("asample"), [0, 1, 1]);
        // Large requests wait longer.
        let begun = sim.passed();
        let large = ModelInput::from_tokens(vec![1_000_000; 20_000]);
        sim.backend.script("asample", [Reply::status(429)]);
        sampler.sample(large, 1, one()).await.unwrap();
        assert_eq!((sim.passed() - begun).as_secs(), 5);
        // A 429 is not a failure and is retried without a limit.
        let begun = sim.passed();
        let busy = (0..400).map(|_| Reply::status(429));
        sim.backend.script("asample", busy);
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert!(sim.passed() - begun >= secs(400));
        let _ = service.close().await;
        let events = sim.events();
        assert!(
            !events
                .iter()
                .any(|event| event["event_name"] == "user_error")
        );
    });
}

#[test]
fn a_close_during_a_poll_ends_it_and_keeps_its_own_deadline() {
    run_simulated(9, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        sim.backend.always(POLL, Reply::stall());
        sim.backend.always("finish", Reply::stall());
        let sample = async {
            let sampled = sampler.sample(vec![1], 1, one()).await;
            (sampled, sim.passed())
        };
        let close = async {
            sim.sleep(secs(20)).await;
            let begun = sim.passed();
            let drain = service.close().await;
            (drain, begun, sim.passed())
        };
        let ((sampled, ended), (drain, begun, closed)) = join(sample, close).await;
        assert_eq!(sampled, Err(ClientError::Closed));
        assert_eq!(ended, begun);
        // The close waited at most five seconds for the backend, and the telemetry has arrived.
        assert!(closed - begun <= secs(6), "{:?}", closed - begun);
        assert!(drain.all_delivered());
        assert_eq!(sim.events().last().unwrap()["event"], "SESSION_END");
    });
}

#[test]
fn stalled_telemetry_delays_no_error_and_no_close_beyond_its_timeout() {
    run_simulated(10, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        sim.stall_telemetry();
        sim.backend.script("asample", [Reply::status(404)]);
        let begun = sim.passed();
        let error = sampler.sample(vec![1], 1, one()).await.unwrap_err();
        assert_eq!(error.status(), Some(404));
        assert_eq!(sim.passed() - begun, PING * 2);
        let failed = json!({ "error": "no", "category": "server" });
        sim.backend.script(POLL, [Reply::json(&failed)]);
        assert!(sampler.sample(vec![1], 1, one()).await.is_err());
        assert_eq!(sim.passed() - begun, PING * 6);
        let begun = sim.passed();
        assert!(!service.close().await.is_drained());
        assert!(sim.passed() - begun <= secs(10));
    });
}

#[test]
fn a_pause_is_reported_in_words_once_a_minute() {
    run_simulated(11, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        let training = service.create_training_client("small", LoraConfig::default());
        let training = training.await.unwrap();
        let plain = || try_again("paused_rate_limit", &json!({}));
        sim.backend.script(POLL, (0..150).map(|_| plain()));
        sampler.sample(vec![1], 1, one()).await.unwrap();
        let reported = sim.diagnostics(DiagnosticKind::QueuePaused);
        let seconds: Vec<_> = reported.iter().map(|(at, _)| *at).collect();
        assert_eq!(seconds.len(), 3);
        assert!(seconds.windows(2).all(|pair| pair[1] - pair[0] >= 60));
        sim.sleep(secs(60)).await;
        sim.backend.script(POLL, [plain()]);
        let step = || training.optim_step(AdamParams::default());
        step().await.unwrap();
        sim.sleep(secs(60)).await;
        let capacity = try_again("paused_capacity", &json!({}));
        sim.backend.script(POLL, [capacity]);
        step().await.unwrap();
        sim.sleep(secs(60)).await;
        let reason = json!({ "queue_state_reason": "it is night" });
        let reasoned = try_again(QueueState::PausedCapacity.as_str(), &reason);
        sim.backend.script(POLL, [reasoned]);
        step().await.unwrap();
        let reported = sim.diagnostics(DiagnosticKind::QueuePaused);
        let texts: Vec<_> = reported[2..].iter().map(|(_, reason)| &**reason).collect();
        assert_eq!(
            texts,
            [
                "sample is paused: concurrent sampler weights limit hit",
                "optim_step is paused: concurrent training clients rate limit hit",
                "optim_step is paused: Tinker backend is running short on capacity, please wait",
                "optim_step is paused: it is night",
            ]
        );
        let _ = service.close().await;
    });
}

#[test]
fn a_dropped_call_stops_polling_and_is_not_a_failure() {
    run_simulated(12, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        sim.backend.script(POLL, [Reply::stall()]);
        let sample = sampler.sample(vec![1], 1, one());
        let timeout = pin!(sim.sleep(secs(20)));
        assert!(matches!(select(sample, timeout).await, Either::Right(_)));
        // Ends halfway between two heartbeats: the close would also cancel a pending one.
        sim.sleep(secs(495)).await;
        assert_eq!(sim.attempts(POLL), [0]);
        let _ = service.close().await;
        let kinds: Vec<_> = sim
            .events()
            .iter()
            .filter(|event| event["event_name"] == "tinkex.http.request.exception")
            .map(|event| event["event_data"]["metadata"]["kind"].clone())
            .collect();
        assert_eq!(kinds, ["cancelled"]);
        let events = sim.events();
        assert!(
            !events
                .iter()
                .any(|event| event["event"] == "UNHANDLED_EXCEPTION")
        );
    });
}

#[test]
fn a_request_dropped_before_its_turn_is_not_submitted_and_takes_no_number() {
    run_simulated(13, |sim, spawner| async move {
        let service = sim.connect(&spawner).await.unwrap();
        let training = service.create_training_client("small", LoraConfig::default());
        let training = training.await.unwrap();
        sim.outage(secs(3));
        let first = training.save_weights("first");
        let dropped = training.save_weights("dropped");
        let last = training.save_weights("last");
        sim.sleep(secs(1)).await;
        drop(dropped);
        assert!(first.await.is_ok() && last.await.is_ok());
        let submitted = sim.backend.calls_of("save_weights");
        let submitted = submitted
            .iter()
            .map(|call| (call.body()["path"].clone(), call.body()["seq_id"].clone()));
        let expected = [("first", 1), ("last", 2)].map(|(path, id)| (json!(path), json!(id)));
        assert!(submitted.eq(expected));
    });
}

#[test]
fn max_requests_limits_concurrent_requests_but_not_heartbeats() {
    run_simulated(14, |sim, spawner| async move {
        let service = sim.connect_with(&spawner, |builder| builder.max_requests(3));
        let service = service.await.unwrap();
        let sampler = service.create_sampling_client("small").await.unwrap();
        sim.backend.script(POLL, (0..3).map(|_| Reply::stall()));
        let samples = (0..10).map(|n| sampler.sample(vec![n], 1, one()));
        let sampled = join_all(samples).await;
        assert!(sampled.iter().all(Result::is_ok));
        assert_eq!(sim.max_in_flight(), 3);
        // For 45 s, three stalled polls held all permits.
        assert!(sim.passed() >= secs(45));
        assert_eq!(sim.attempts("session_heartbeat"), [10, 20, 30, 40]);
        let _ = service.close().await;
    });
}

#[test]
fn a_nested_call_ended_by_the_close_is_not_a_failure() {
    run_simulated(15, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        let training = service.create_training_client("small", LoraConfig::default());
        let training = training.await.unwrap();
        sim.outage(secs(1_000));
        let logprobs = sampler.compute_logprobs(vec![1]);
        let saved = training.save_weights_for_sampler("a");
        let close = async {
            sim.sleep(secs(20)).await;
            service.close().await
        };
        let ((logprobs, saved), drain) = join(join(logprobs, saved), close).await;
        assert_eq!(logprobs, Err(ClientError::Closed));
        assert_eq!(saved, Err(ClientError::Closed));
        assert!(drain.all_delivered());
        let events = sim.events();
        assert!(
            !events
                .iter()
                .any(|event| event["event"] == "UNHANDLED_EXCEPTION")
        );
    });
}
