//! Bad weather, in simulated time: each wait is as long as the interface says, to the second.

use crate::sky::{PING, Sky, under};
use crate::worlds::try_again;
use futures::future::{Either, join, join_all, select};
use serde_json::json;
use std::pin::pin;
use std::sync::{Arc, Mutex};
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

async fn sampler(sky: &Sky, spawner: &SimSpawner) -> (ServiceClient, SamplingClient) {
    let service = sky.connect(spawner).await.expect("it connects");
    let sampler = service.create_sampling_client("small").await;
    (service, sampler.expect("a sampler"))
}

fn one() -> SamplingParams {
    SamplingParams::new().max_tokens(1)
}

#[test]
fn an_outage_is_polled_through_with_a_backoff_up_to_half_a_minute() {
    under(1, |sky, spawner| async move {
        let (service, sampler) = sampler(&sky, &spawner).await;
        let pending = Reply::json(&json!({ "status": "pending" }));
        sky.backend.script(POLL, [pending]);
        let sample = sampler.sample(vec![1], 1, one());
        let weather = async {
            sky.sleep(Duration::from_millis(40)).await;
            sky.outage(secs(100));
        };
        let (sampled, ()) = join(sample, weather).await;
        assert_eq!(sampled.unwrap().sequences.len(), 1);
        assert_eq!(sky.attempts(POLL), [0, 0, 1, 3, 7, 15, 31, 61, 91, 121]);
        assert!(service.close().await.all_delivered());
        // Each attempt has its start and its end.
        let events = sky.events();
        let count = |name: &str| {
            let told = events.iter().filter(|event| event["event_name"] == name);
            told.count()
        };
        let starts = count("tinkex.http.request.start");
        let stops = count("tinkex.http.request.stop");
        let exceptions = count("tinkex.http.request.exception");
        assert_eq!(starts, stops + exceptions);
        // Polls, and heartbeats.
        assert!(exceptions >= 8);
    });
}

#[test]
fn a_request_that_waits_is_polled_as_its_state_says() {
    under(2, |sky, spawner| async move {
        let (_service, sampler) = sampler(&sky, &spawner).await;
        let active = || try_again("active", &json!({}));
        sky.backend.script(POLL, (0..7).map(|_| active()));
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert_eq!(sky.attempts(POLL), [0, 1, 3, 7, 15, 31, 61, 91]);
        let begun = sky.passed();
        let paused = || try_again("paused_capacity", &json!({}));
        sky.backend.script(POLL, (0..5).map(|_| paused()));
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert_eq!((sky.passed() - begun).as_secs(), 5);
        let begun = sky.passed();
        let soon = try_again("paused_capacity", &json!({ "retry_after_ms": 90_000 }));
        sky.backend.script(POLL, [soon]);
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert_eq!((sky.passed() - begun).as_secs(), 90);
    });
}

#[test]
fn a_long_poll_is_given_forty_five_seconds() {
    under(3, |sky, spawner| async move {
        let (_service, sampler) = sampler(&sky, &spawner).await;
        sky.backend.script(POLL, [Reply::stall()]);
        sampler.sample(vec![1], 1, one()).await.unwrap();
        // And one for the backoff.
        assert_eq!(sky.attempts(POLL), [0, 46]);
    });
}

#[test]
fn a_plain_call_is_tried_for_five_minutes() {
    under(4, |sky, spawner| async move {
        let service = sky.connect(&spawner).await.unwrap();
        let name = "get_server_capabilities";
        sky.outage(secs(100_000));
        let error = service.get_server_capabilities().await.unwrap_err();
        assert!(matches!(error, ClientError::NoResponse { .. }), "{error}");
        assert!(error.is_retryable());
        let attempts = sky.attempts(name);
        assert_eq!(attempts[..7], [0, 1, 3, 7, 15, 31, 61]);
        let last = attempts.last().unwrap();
        assert!((270..=300).contains(last), "{last}");
        assert!(sky.passed() <= secs(301));
    });
}

#[test]
fn the_heart_beats_every_ten_seconds_whatever_comes_of_it() {
    under(5, |sky, spawner| async move {
        let name = "session_heartbeat";
        let service = sky.connect(&spawner).await.unwrap();
        sky.sleep(secs(35)).await;
        assert_eq!(sky.attempts(name), [10, 20, 30]);
        // One that gets no answer is given up when the next is due.
        sky.backend.script(name, [Reply::stall()]);
        sky.sleep(secs(30)).await;
        assert_eq!(sky.attempts(name), [10, 20, 30, 40, 50, 60]);
        assert!(sky.told(DiagnosticKind::HeartbeatLost).is_empty());
        let _ = service.close().await;
        sky.sleep(secs(100)).await;
        assert_eq!(sky.attempts(name).len(), 6, "a closed session has no heart");
    });
}

#[test]
fn a_silence_of_two_minutes_is_told_once_and_again_after_the_next() {
    under(6, |sky, spawner| async move {
        let service = sky.connect(&spawner).await.unwrap();
        sky.sleep(secs(15)).await;
        sky.outage(secs(400));
        sky.sleep(secs(500)).await;
        let told = sky.told(DiagnosticKind::HeartbeatLost);
        let silence = "the backend has not heard from the session for 120 s";
        assert_eq!(told, [(130, silence.to_owned())]);
        sky.outage(secs(200));
        sky.sleep(secs(250)).await;
        assert_eq!(sky.told(DiagnosticKind::HeartbeatLost).len(), 2);
        assert!(service.close().await.all_delivered());
    });
}

#[test]
fn a_heart_that_the_backend_has_given_up_stops() {
    under(7, |sky, spawner| async move {
        let name = "session_heartbeat";
        let service = sky.connect(&spawner).await.unwrap();
        sky.backend.script(name, [Reply::status(410)]);
        sky.sleep(secs(100)).await;
        assert_eq!(sky.attempts(name), [10]);
        assert_eq!(sky.told(DiagnosticKind::HeartbeatLost).len(), 1);
        // Everything else goes on.
        assert!(service.get_server_capabilities().await.is_ok());
        assert!(service.close().await.all_delivered());
    });
}

#[test]
fn a_busy_backend_holds_all_samples_of_a_client_back() {
    under(8, |sky, spawner| async move {
        let (service, sampler) = sampler(&sky, &spawner).await;
        sky.backend.script("asample", [Reply::status(429)]);
        let first = sampler.sample(vec![1], 1, one());
        let late = async {
            sky.sleep(Duration::from_millis(500)).await;
            sampler.sample(vec![2], 1, one()).await
        };
        let (first, late) = join(first, late).await;
        assert!(first.is_ok() && late.is_ok());
        assert_eq!(sky.attempts("asample"), [0, 1, 1]);
        // What is large waits for longer.
        let begun = sky.passed();
        let large = ModelInput::from_tokens(vec![1_000_000; 20_000]);
        sky.backend.script("asample", [Reply::status(429)]);
        sampler.sample(large, 1, one()).await.unwrap();
        assert_eq!((sky.passed() - begun).as_secs(), 5);
        // It is no failure, and nothing is given up for it.
        let begun = sky.passed();
        let busy = (0..400).map(|_| Reply::status(429));
        sky.backend.script("asample", busy);
        sampler.sample(vec![1], 1, one()).await.unwrap();
        assert!(sky.passed() - begun >= secs(400));
        let _ = service.close().await;
        let events = sky.events();
        assert!(
            !events
                .iter()
                .any(|event| event["event_name"] == "user_error")
        );
    });
}

#[test]
fn a_close_during_a_poll_ends_it_and_keeps_its_own_deadline() {
    under(9, |sky, spawner| async move {
        let (service, sampler) = sampler(&sky, &spawner).await;
        sky.backend.always(POLL, Reply::stall());
        sky.backend.always("finish", Reply::stall());
        let sample = async {
            let sampled = sampler.sample(vec![1], 1, one()).await;
            (sampled, sky.passed())
        };
        let close = async {
            sky.sleep(secs(20)).await;
            let begun = sky.passed();
            let drain = service.close().await;
            (drain, begun, sky.passed())
        };
        let ((sampled, ended), (drain, begun, closed)) = join(sample, close).await;
        assert_eq!(sampled, Err(ClientError::Closed));
        assert_eq!(ended, begun);
        // The backend was given five seconds to hear of it, and the telemetry has arrived.
        assert!(closed - begun <= secs(6), "{:?}", closed - begun);
        assert!(drain.all_delivered());
        assert_eq!(sky.events().last().unwrap()["event"], "SESSION_END");
    });
}

#[test]
fn telemetry_that_stalls_for_ever_delays_neither_errors_nor_a_close_beyond_its_time() {
    under(10, |sky, spawner| async move {
        let (service, sampler) = sampler(&sky, &spawner).await;
        sky.stall_telemetry();
        sky.backend.script("asample", [Reply::status(404)]);
        let begun = sky.passed();
        let error = sampler.sample(vec![1], 1, one()).await.unwrap_err();
        assert_eq!(error.status(), Some(404));
        assert_eq!(sky.passed() - begun, PING * 2);
        let failed = json!({ "error": "no", "category": "server" });
        sky.backend.script(POLL, [Reply::json(&failed)]);
        assert!(sampler.sample(vec![1], 1, one()).await.is_err());
        assert_eq!(sky.passed() - begun, PING * 6);
        let begun = sky.passed();
        assert!(!service.close().await.is_drained());
        assert!(sky.passed() - begun <= secs(10));
    });
}

#[test]
fn a_pause_is_told_in_words_once_a_minute() {
    under(11, |sky, spawner| async move {
        let (service, sampler) = sampler(&sky, &spawner).await;
        let training = service.create_training_client("small", LoraConfig::default());
        let training = training.await.unwrap();
        let plain = || try_again("paused_rate_limit", &json!({}));
        sky.backend.script(POLL, (0..150).map(|_| plain()));
        sampler.sample(vec![1], 1, one()).await.unwrap();
        let told = sky.told(DiagnosticKind::QueuePaused);
        let seconds: Vec<_> = told.iter().map(|(at, _)| *at).collect();
        assert_eq!(seconds.len(), 3);
        assert!(seconds.windows(2).all(|pair| pair[1] - pair[0] >= 60));
        sky.sleep(secs(60)).await;
        sky.backend.script(POLL, [plain()]);
        let step = || training.optim_step(AdamParams::default());
        step().await.unwrap();
        sky.sleep(secs(60)).await;
        let capacity = try_again("paused_capacity", &json!({}));
        sky.backend.script(POLL, [capacity]);
        step().await.unwrap();
        sky.sleep(secs(60)).await;
        let reason = json!({ "queue_state_reason": "it is night" });
        let reasoned = try_again(QueueState::PausedCapacity.as_str(), &reason);
        sky.backend.script(POLL, [reasoned]);
        step().await.unwrap();
        let told = sky.told(DiagnosticKind::QueuePaused);
        let texts: Vec<_> = told[2..].iter().map(|(_, reason)| &**reason).collect();
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
fn a_call_that_is_dropped_polls_no_more_and_is_no_failure() {
    under(12, |sky, spawner| async move {
        let (service, sampler) = sampler(&sky, &spawner).await;
        sky.backend.script(POLL, [Reply::stall()]);
        let sample = sampler.sample(vec![1], 1, one());
        let patience = pin!(sky.sleep(secs(20)));
        assert!(matches!(select(sample, patience).await, Either::Right(_)));
        // And half a heartbeat, which the close would cancel as well.
        sky.sleep(secs(495)).await;
        assert_eq!(sky.attempts(POLL), [0]);
        let _ = service.close().await;
        let kinds: Vec<_> = sky
            .events()
            .iter()
            .filter(|event| event["event_name"] == "tinkex.http.request.exception")
            .map(|event| event["event_data"]["metadata"]["kind"].clone())
            .collect();
        assert_eq!(kinds, ["cancelled"]);
        let events = sky.events();
        assert!(
            !events
                .iter()
                .any(|event| event["event"] == "UNHANDLED_EXCEPTION")
        );
    });
}

#[test]
fn a_request_that_is_dropped_before_its_turn_is_not_submitted_and_takes_no_number() {
    under(13, |sky, spawner| async move {
        let service = sky.connect(&spawner).await.unwrap();
        let training = service.create_training_client("small", LoraConfig::default());
        let training = training.await.unwrap();
        sky.outage(secs(3));
        let first = training.save_weights("first");
        let dropped = training.save_weights("dropped");
        let last = training.save_weights("last");
        sky.sleep(secs(1)).await;
        drop(dropped);
        assert!(first.await.is_ok() && last.await.is_ok());
        let submitted = sky.backend.calls_of("save_weights");
        let submitted = submitted
            .iter()
            .map(|call| (call.body()["path"].clone(), call.body()["seq_id"].clone()));
        let expected = [("first", 1), ("last", 2)].map(|(path, id)| (json!(path), json!(id)));
        assert!(submitted.eq(expected));
    });
}

#[test]
fn no_more_requests_are_under_way_than_may_be_and_the_heart_beats_all_the_same() {
    under(14, |sky, spawner| async move {
        let service = sky.connect_with(&spawner, |builder| builder.max_requests(3));
        let service = service.await.unwrap();
        let sampler = service.create_sampling_client("small").await.unwrap();
        sky.backend.script(POLL, (0..3).map(|_| Reply::stall()));
        let samples = (0..10).map(|n| sampler.sample(vec![n], 1, one()));
        let sampled = join_all(samples).await;
        assert!(sampled.iter().all(Result::is_ok));
        assert_eq!(sky.most_under_way(), 3);
        // Three polls have had all there was for 45 s.
        assert!(sky.passed() >= secs(45));
        assert_eq!(sky.attempts("session_heartbeat"), [10, 20, 30, 40]);
        let _ = service.close().await;
    });
}

#[test]
fn a_call_that_the_close_ends_is_no_failure_however_deep_it_is() {
    under(15, |sky, spawner| async move {
        let (service, sampler) = sampler(&sky, &spawner).await;
        let training = service.create_training_client("small", LoraConfig::default());
        let training = training.await.unwrap();
        sky.outage(secs(1_000));
        let logprobs = sampler.compute_logprobs(vec![1]);
        let saved = training.save_weights_for_sampler("a");
        let close = async {
            sky.sleep(secs(20)).await;
            service.close().await
        };
        let ((logprobs, saved), drain) = join(join(logprobs, saved), close).await;
        assert_eq!(logprobs, Err(ClientError::Closed));
        assert_eq!(saved, Err(ClientError::Closed));
        assert!(drain.all_delivered());
        let events = sky.events();
        assert!(
            !events
                .iter()
                .any(|event| event["event"] == "UNHANDLED_EXCEPTION")
        );
    });
}

#[test]
fn a_heart_survives_a_client_that_panics() {
    under(16, |sky, spawner| async move {
        let service = sky.connect(&spawner).await.unwrap();
        sky.panic_in("session_heartbeat");
        sky.sleep(secs(145)).await;
        assert_eq!(sky.attempts("session_heartbeat").len(), 14);
        assert_eq!(sky.told(DiagnosticKind::HeartbeatLost).len(), 1);
        sky.panic_in("finish");
        assert!(service.close().await.all_delivered());
    });
}

/// Everything at once, in a storm; whatever the order of tasks.
async fn voyage(sky: Sky, spawner: SimSpawner, seed: u64) {
    let service = sky.connect(&spawner).await.unwrap();
    let sampler = service.create_sampling_client("small").await.unwrap();
    let training = service.create_training_client("small", LoraConfig::default());
    let training = training.await.unwrap();
    sky.storm(250, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let samples = (0..4).map(|n| sampler.sample(vec![n], 1, one()));
    let steps = (0..4).map(|n| training.save_weights(&n.to_string()));
    let (samples, steps) = join(join_all(samples), join_all(steps)).await;
    sky.storm(0, 1);
    assert!(samples.iter().all(Result::is_ok), "{samples:?}");
    for (n, step) in steps.into_iter().enumerate() {
        assert!(step.unwrap().path.ends_with(&n.to_string()));
    }
    // The backend has seen each number first after the one before.
    let mut last = 0;
    for call in sky.backend.calls_of("save_weights") {
        let seq_id = call.body()["seq_id"].as_u64().unwrap();
        assert!(seq_id == last || seq_id == last + 1);
        assert_eq!(call.status(), Some(200));
        last = seq_id;
    }
    let telemetry = service.telemetry().unwrap();
    assert!(service.close().await.all_delivered());
    let stats = telemetry.stats();
    assert!(stats.is_balanced() && stats.refused.total() == 0);
    assert_eq!(sky.events().len() as u64, stats.accepted);
}

#[test]
fn a_storm_is_the_same_every_time() {
    for seed in 0..20 {
        let run = || {
            let log = Arc::new(Mutex::new(None));
            let note = Arc::clone(&log);
            under(seed, |sky, spawner| async move {
                voyage(sky.clone(), spawner, seed + 1).await;
                *note.lock().unwrap() = Some(sky.log());
            });
            log.lock().unwrap().take().expect("it has ended")
        };
        assert_eq!(run(), run());
    }
}

#[test]
fn every_call_comes_through_a_storm_in_order_and_nothing_is_reported_twice() {
    for seed in 0..200 {
        under(seed, |sky, spawner| voyage(sky, spawner, seed + 1));
    }
}
