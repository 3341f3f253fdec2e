//! Calls that take long, in simulated time: when they are reported, with what, and how they end.

use crate::sim_harness::{SimHarness, run_simulated};
use futures::future::{Either, join, join_all, select};
use serde_json::{Value, json};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkex_telemetry::bus::QueueState;
use tinkex_telemetry::client::{
    AdamParams, CallEnd, LoraConfig, OpenRequest, SamplingClient, SamplingParams, ServiceClient,
};
use tinkex_telemetry::collector::Reply;
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::sim::SimSpawner;

const POLL: &str = "retrieve_future";
const STALLED: &str = "tinkex.request.stalled";
const ENDED: &str = "tinkex.request.stall_ended";

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn one() -> SamplingParams {
    SamplingParams::new().max_tokens(1)
}

async fn sampler(sim: &SimHarness, spawner: &SimSpawner) -> (ServiceClient, SamplingClient) {
    let service = sim.connect(spawner).await.expect("the service connects");
    let sampler = service.create_sampling_client("small").await;
    (service, sampler.expect("the sampler is created"))
}

/// The data of all events with this name.
fn data_of(sim: &SimHarness, name: &str) -> Vec<Value> {
    let events = sim.events();
    let events = events.iter().filter(|event| event["event_name"] == name);
    events.map(|event| event["event_data"].clone()).collect()
}

/// The ages in the data of events, in seconds.
fn ages(data: &[Value]) -> Vec<u64> {
    let age = |data: &Value| data["measurements"]["age"].as_u64().unwrap_or_default();
    data.iter().map(|data| age(data) / 1_000_000_000).collect()
}

#[test]
fn a_call_is_reported_after_a_minute_and_whenever_its_age_has_doubled_and_so_is_its_end() {
    run_simulated(1, |sim, spawner| async move {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let service = sim.connect_with(&spawner, |builder| {
            builder.stall_observer(move |request: &OpenRequest| {
                noted.lock().unwrap().push(request.clone());
                assert!(
                    request.stalls < 3,
                    "a panic of the observer changes nothing"
                );
            })
        });
        let service = service.await.unwrap();
        let sampler = service.create_sampling_client("small").await.unwrap();
        let paused = json!({
            "type": "try_again", "queue_state": "paused_capacity", "queue_state_reason": "no room: tml-key",
            "retry_after_ms": 10_000,
        });
        sim.backend
            .script(POLL, (0..30).map(|_| Reply::json(&paused)));
        let begun = sim.passed();
        let look = async {
            sim.sleep(secs(65)).await;
            service.open_requests()
        };
        let (sampled, open) = join(sampler.sample(vec![1], 1, one()), look).await;
        sampled.unwrap();
        let age = sim.passed() - begun;
        assert_eq!(age.as_secs(), 300);
        assert!(service.open_requests().is_empty());
        assert!(service.close().await.all_delivered());

        let stalled = data_of(&sim, STALLED);
        assert_eq!(ages(&stalled), [60, 120, 240]);
        let metadata = &stalled[0]["metadata"];
        assert_eq!(metadata["type"], "sample");
        assert_eq!(metadata["request_id"], "request-1");
        assert_eq!(metadata["queue_state"], "paused_capacity");
        assert_eq!(metadata["queue_state_reason"], "no room: [redacted]");
        assert_eq!(metadata["last_response"], "HTTP 200");
        assert_eq!(stalled[0]["measurements"]["polls"], 6);
        assert_eq!(stalled[2]["measurements"]["polls"], 24);
        let ended = data_of(&sim, ENDED);
        assert_eq!(ages(&ended), [300]);
        assert_eq!(ended[0]["metadata"]["result"], "ok");
        assert_eq!(ended[0]["metadata"]["call"], metadata["call"]);
        let severities: Vec<_> = sim
            .events()
            .iter()
            .filter(|event| event["event_name"] == STALLED || event["event_name"] == ENDED)
            .map(|event| event["severity"].clone())
            .collect();
        assert_eq!(severities, ["WARNING", "WARNING", "WARNING", "INFO"]);

        let told = sim.diagnostics(DiagnosticKind::RequestStalled);
        let call = &metadata["call"];
        let expected = format!(
            "sample has been under way for 60s (call {call}, 6 polls, paused_capacity: no room: [redacted], \
             last response: HTTP 200)"
        );
        assert_eq!(told[0].1, expected);
        assert_eq!(told.len(), 3);

        let [open] = &*open else {
            panic!("{open:?}");
        };
        assert_eq!((open.r#type, open.stalls, open.end), ("sample", 1, None));
        assert_eq!(open.age, secs(65));
        assert_eq!(json!(open.call), *call);
        assert_eq!(open.queue_state, Some(QueueState::PausedCapacity));
        let seen = seen.lock().unwrap();
        let stalls: Vec<_> = seen.iter().map(|seen| (seen.stalls, seen.end)).collect();
        let end = Some(CallEnd::Ok);
        assert_eq!(stalls, [(1, None), (2, None), (3, None), (3, end)]);
    });
}

#[test]
fn a_call_that_ends_within_a_minute_is_not_reported_however_many_there_are() {
    run_simulated(2, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        sim.hold_polls(secs(40));
        for _ in 0..10 {
            sampler.sample(vec![1], 1, one()).await.unwrap();
        }
        assert!(service.close().await.all_delivered());
        assert_eq!(data_of(&sim, STALLED).len() + data_of(&sim, ENDED).len(), 0);
    });
}

#[test]
fn every_kind_of_call_is_reported_wherever_it_hangs() {
    run_simulated(3, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        let training = service.create_training_client("small", LoraConfig::default());
        let training = training.await.unwrap();
        // The attempt after 61 s succeeds.
        sim.outage(Duration::from_millis(60_700));
        // Nested calls are one: the inner one.
        let calls = join(
            join(
                service.get_server_capabilities(),
                join(
                    training.get_info(),
                    training.optim_step(AdamParams::default()),
                ),
            ),
            join(
                sampler.compute_logprobs(vec![1]),
                join(
                    training.save_weights_for_sampler("a"),
                    service.create_sampling_client("small"),
                ),
            ),
        );
        let look = async {
            sim.sleep(Duration::from_millis(60_500)).await;
            service.open_requests()
        };
        let (((capabilities, (info, step)), (logprobs, (saved, created))), open) =
            join(calls, look).await;
        assert!(capabilities.is_ok() && info.is_ok() && step.is_ok());
        assert!(logprobs.is_ok() && saved.is_ok() && created.is_ok());
        let mut types: Vec<_> = open.iter().map(|open| open.r#type).collect();
        types.sort_unstable();
        let expected = [
            "create_sampling_session",
            "get_info",
            "get_server_capabilities",
            "optim_step",
            "sample",
            "save_weights_for_sampler",
        ];
        assert_eq!(types, expected);
        let waits = open.iter().filter(|open| open.last_response.is_none());
        // It waits for the one before it.
        let waits: Vec<_> = waits.map(|open| open.r#type).collect();
        assert_eq!(waits, ["save_weights_for_sampler"]);
        let refused = open
            .iter()
            .filter(|open| open.last_response.as_deref() == Some("connection refused"));
        assert_eq!(refused.count(), 5);
        assert!(service.close().await.all_delivered());
        // Reported together, once.
        assert_eq!(data_of(&sim, STALLED).len(), 6);
        assert_eq!(data_of(&sim, ENDED).len(), 6);
        let told = sim.diagnostics(DiagnosticKind::RequestStalled);
        assert_eq!(told.len(), 1);
        assert!(told[0].1.ends_with(", and 5 other calls"), "{}", told[0].1);
    });
}

#[test]
fn a_stalled_call_that_fails_is_dropped_or_is_closed_has_one_end() {
    run_simulated(4, |sim, spawner| async move {
        let (service, sampler) = sampler(&sim, &spawner).await;
        sim.backend.always(POLL, Reply::stall());
        let sample = || sampler.sample(vec![1], 1, one());
        // Dropped, once before it was reported.
        for timeout in [30, 100] {
            let timeout = pin!(sim.sleep(secs(timeout)));
            assert!(matches!(select(sample(), timeout).await, Either::Right(_)));
        }
        sim.backend.always(POLL, Reply::status(404));
        sim.hold_polls(secs(40));
        let again = json!({ "status": "pending" });
        sim.backend
            .script(POLL, [Reply::json(&again), Reply::json(&again)]);
        assert!(sample().await.is_err());
        sim.hold_polls(Duration::ZERO);
        sim.backend.always(POLL, Reply::stall());
        let close = async {
            sim.sleep(secs(200)).await;
            service.close().await
        };
        let (sampled, drain) = join(sample(), close).await;
        assert!(sampled.is_err() && drain.all_delivered());
        let results: Vec<_> = data_of(&sim, ENDED)
            .iter()
            .map(|data| data["metadata"]["result"].clone())
            .collect();
        assert_eq!(results, ["cancelled", "error", "closed"]);
        let events = sim.events();
        assert_eq!(events.last().unwrap()["event"], "SESSION_END");
        assert!(service.open_requests().is_empty());
    });
}

#[test]
fn the_time_until_a_call_counts_as_stalled_can_be_set_or_switched_off() {
    for (stall_after, expected) in [
        (Duration::from_millis(100), 9),
        (Duration::ZERO, 16),
        (Duration::MAX, 0),
    ] {
        run_simulated(5, |sim, spawner| async move {
            let service = sim.connect_with(&spawner, |builder| builder.stall_after(stall_after));
            let service = service.await.unwrap();
            let sampler = service.create_sampling_client("small").await.unwrap();
            sim.hold_polls(secs(40));
            sampler.sample(vec![1], 1, one()).await.unwrap();
            assert!(service.close().await.all_delivered());
            let data = data_of(&sim, STALLED);
            let of_sample = data
                .iter()
                .filter(|data| data["metadata"]["type"] == "sample");
            assert_eq!(of_sample.count(), expected, "{stall_after:?}");
        });
    }
}

#[test]
fn a_thousand_calls_that_stall_are_reported_each_but_in_one_message() {
    run_simulated(6, |sim, spawner| async move {
        let service = sim.connect_with(&spawner, |builder| builder.max_requests(1_000));
        let service = service.await.unwrap();
        let sampler = service.create_sampling_client("small").await.unwrap();
        let again = json!({ "status": "pending" });
        sim.hold_polls(secs(40));
        sim.backend
            .script(POLL, (0..1_000).map(|_| Reply::json(&again)));
        let samples = join_all((0..1_000).map(|n| sampler.sample(vec![n], 1, one()))).await;
        assert!(samples.iter().all(Result::is_ok));
        assert!(service.close().await.all_delivered());
        assert_eq!(data_of(&sim, STALLED).len(), 1_000);
        assert_eq!(data_of(&sim, ENDED).len(), 1_000);
        let told = sim.diagnostics(DiagnosticKind::RequestStalled);
        assert_eq!(told.len(), 1, "{told:?}");
    });
}
