//! The tokens that a session has used: what is counted, when it is reported, and what it costs.

use crate::sim_harness::{SimHarness, run_simulated};
use serde_json::{Value, json};
use std::time::Duration;
use tinkex_telemetry::client::{
    Datum, LoraConfig, LossFn, ModelInput, Prices, SamplingParams, ServiceClient, Usage,
};
use tinkex_telemetry::collector::Reply;
use tinkex_telemetry::sim::SimSpawner;

async fn connect(
    sim: &SimHarness,
    spawner: &SimSpawner,
    prices: &'static [(&'static str, Prices)],
) -> ServiceClient {
    let service = sim.connect_with(spawner, |mut builder| {
        for (model, price) in prices {
            builder = builder.price(*model, *price);
        }
        builder
    });
    service.await.expect("the service connects")
}

/// The measurements of the usage events, without their durations; and these, in seconds.
fn reports(sim: &SimHarness) -> Vec<(u64, Value)> {
    let events = sim.events();
    let events = events
        .iter()
        .filter(|event| event["event_name"] == "tinkex.usage");
    events
        .map(|event| {
            let mut measurements = event["event_data"]["measurements"].clone();
            let members = measurements.as_object_mut().expect("an object");
            let duration = members.remove("duration").and_then(|nanos| nanos.as_u64());
            (duration.unwrap_or_default() / 1_000_000_000, measurements)
        })
        .collect()
}

/// Samples, computes log probabilities, passes forward, and trains.
async fn use_all(service: &ServiceClient) {
    let sampler = service.create_sampling_client("small").await.unwrap();
    let params = SamplingParams::new().max_tokens(5);
    sampler.sample(vec![1, 2, 3], 2, params).await.unwrap();
    sampler.compute_logprobs(vec![1, 2]).await.unwrap();
    let training = service.create_training_client("large", LoraConfig::default());
    let training = training.await.unwrap();
    let data: Vec<_> = [4, 7]
        .map(|len| Datum::new(ModelInput::from_tokens(vec![1; len])))
        .into();
    training.forward(&data, LossFn::CrossEntropy).await.unwrap();
    let pass = training.forward_backward(&data, LossFn::CrossEntropy);
    pass.await.unwrap();
    let sampler = training.create_sampling_client().await.unwrap();
    let params = SamplingParams::new().max_tokens(2);
    sampler.sample(vec![1], 1, params).await.unwrap();
}

fn tokens(usage: &Usage) -> [u64; 4] {
    let tokens = usage.tokens;
    [
        tokens.prefilled,
        tokens.cached,
        tokens.sampled,
        tokens.trained,
    ]
}

#[test]
fn tokens_are_counted_where_results_arrive_by_model() {
    run_simulated(1, |sim, spawner| async move {
        let service = connect(&sim, &spawner, &[]).await;
        assert_eq!(service.usage(), Usage::default());
        use_all(&service).await;
        let usage = service.usage();
        assert_eq!(tokens(&usage), [3 + 2 + 11 + 1, 0, 10 + 1 + 2, 11]);
        assert_eq!(usage.by_model["small"].sampled, 11);
        assert_eq!(usage.by_model["large"].prefilled, 12);
        assert_eq!(usage.cost, None);
        assert!(service.close().await.all_delivered());
        let expected = json!({ "prefilled": 17, "cached": 0, "sampled": 13, "trained": 11 });
        assert_eq!(reports(&sim), [(0, expected)]);
        let events = sim.events();
        let last = &events[events.len() - 1];
        assert_eq!(last["event"], "SESSION_END");
    });
}

#[test]
fn what_fails_or_is_dropped_is_not_counted_and_a_retry_is_counted_once() {
    run_simulated(2, |sim, spawner| async move {
        let service = connect(&sim, &spawner, &[]).await;
        let sampler = service.create_sampling_client("small").await.unwrap();
        let sample = || sampler.sample(vec![1, 2], 1, SamplingParams::new().max_tokens(3));
        let failed = json!({ "error": "no", "category": "server" });
        sim.backend
            .script("retrieve_future", [Reply::json(&failed)]);
        assert!(sample().await.is_err());
        drop(sample());
        assert_eq!(tokens(&service.usage()), [0; 4]);
        let replies = [Reply::status(410), Reply::status(503)];
        sim.backend.script("retrieve_future", replies);
        sim.backend.script("asample", [Reply::status(503)]);
        assert!(sample().await.is_ok());
        assert_eq!(tokens(&service.usage()), [2, 0, 3, 0]);
        // The backend says what came from its cache; no more than the prompt can.
        for (hits, cached) in [(1, 1), (99, 3)] {
            let result = json!({ "sequences": [], "prompt_cache_hit_tokens": hits });
            sim.backend.result("Sample", result);
            assert!(sample().await.is_ok());
            assert_eq!(service.usage().tokens.cached, cached);
        }
        let _ = service.close().await;
    });
}

#[test]
fn the_usage_is_reported_every_ten_minutes_and_at_the_end() {
    run_simulated(3, |sim, spawner| async move {
        let service = connect(&sim, &spawner, &[]).await;
        sim.sleep(Duration::from_secs(700)).await;
        use_all(&service).await;
        sim.sleep(Duration::from_secs(800)).await;
        drop(service);
        sim.sleep(Duration::from_secs(100)).await;
        let prefilled = |report: &(u64, Value)| (report.0, report.1["prefilled"].clone());
        let reports: Vec<_> = reports(&sim).iter().map(prefilled).collect();
        let expected = [(600, 0), (1_200, 17), (1_500, 17)];
        assert_eq!(reports, expected.map(|(at, tokens)| (at, json!(tokens))));
    });
}

#[test]
fn there_is_a_cost_if_each_model_with_tokens_has_a_price() {
    const SMALL: Prices = Prices::per_million(1e6, 1e6, 1e6);
    const LARGE: Prices = Prices::per_million(2e6, 0.0, 1e7);
    run_simulated(4, |sim, spawner| async move {
        let service = connect(&sim, &spawner, &[("small", SMALL), ("large", LARGE)]).await;
        assert_eq!(service.usage().cost, Some(0.0));
        use_all(&service).await;
        let cost = 5.0 + 11.0 + 24.0 + 110.0;
        assert_eq!(service.usage().cost, Some(cost));
        let read: Usage = serde_json::from_value(json!(service.usage())).unwrap();
        assert_eq!(read, service.usage());
        assert!(service.close().await.all_delivered());
        assert_eq!(reports(&sim)[0].1["cost"], cost);
    });
    run_simulated(5, |sim, spawner| async move {
        let service = connect(&sim, &spawner, &[("small", SMALL)]).await;
        use_all(&service).await;
        assert_eq!(service.usage().cost, None);
        let _ = service.close().await;
    });
}

#[test]
fn models_without_end_are_counted_together_from_some_number_on() {
    run_simulated(6, |sim, spawner| async move {
        let service = connect(&sim, &spawner, &[]).await;
        let count = Usage::MAX_MODELS + 5;
        for n in 0..count {
            let path = format!("tinker://model/{n}");
            let sampler = service.create_sampling_client(&*path).await.unwrap();
            let params = SamplingParams::new().max_tokens(1);
            sampler.sample(vec![1], 1, params).await.unwrap();
        }
        let usage = service.usage();
        assert_eq!(usage.by_model.len(), Usage::MAX_MODELS + 1);
        assert_eq!(usage.by_model[Usage::OTHERS].sampled, 5);
        assert_eq!(usage.tokens.sampled, count as u64);
        let _ = service.close().await;
    });
}
