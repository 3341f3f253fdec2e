//! Every call under random faults, in simulated time.

use crate::sim_harness::{SimHarness, run_simulated};
use futures::future::{join, join_all};
use std::sync::{Arc, Mutex};
use tinkex_telemetry::client::{LoraConfig, SamplingParams};
use tinkex_telemetry::sim::SimSpawner;

/// Uses all clients at once in a storm, with the task order of the seed.
async fn use_all_clients(sim: SimHarness, spawner: SimSpawner, seed: u64) {
    let service = sim.connect(&spawner).await.unwrap();
    let sampler = service.create_sampling_client("small").await.unwrap();
    let training = service.create_training_client("small", LoraConfig::default());
    let training = training.await.unwrap();
    sim.storm(250, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let samples = (0..4).map(|n| sampler.sample(vec![n], 1, SamplingParams::new().max_tokens(1)));
    let steps = (0..4).map(|n| training.save_weights(&n.to_string()));
    let (samples, steps) = join(join_all(samples), join_all(steps)).await;
    sim.storm(0, 1);
    assert!(samples.iter().all(Result::is_ok), "{samples:?}");
    for (n, step) in steps.into_iter().enumerate() {
        assert!(step.unwrap().path.ends_with(&n.to_string()));
    }
    // The backend first sees each number after its predecessor.
    let mut last = 0;
    for call in sim.backend.calls_of("save_weights") {
        let seq_id = call.body()["seq_id"].as_u64().unwrap();
        assert!(seq_id == last || seq_id == last + 1);
        assert_eq!(call.status(), Some(200));
        last = seq_id;
    }
    let telemetry = service.telemetry().unwrap();
    assert!(service.close().await.all_delivered());
    let stats = telemetry.stats();
    assert!(stats.is_balanced() && stats.refused.total() == 0);
    assert_eq!(sim.events().len() as u64, stats.accepted);
}

#[test]
fn a_storm_is_reproducible_from_its_seed() {
    for seed in 0..20 {
        let run = || {
            let log = Arc::new(Mutex::new(None));
            let note = Arc::clone(&log);
            run_simulated(seed, |sim, spawner| async move {
                use_all_clients(sim.clone(), spawner, seed + 1).await;
                *note.lock().unwrap() = Some(sim.log());
            });
            log.lock().unwrap().take().expect("the run has ended")
        };
        assert_eq!(run(), run());
    }
}

#[test]
fn every_call_survives_a_storm_in_order_and_nothing_is_reported_twice() {
    for seed in 0..200 {
        run_simulated(seed, |sim, spawner| use_all_clients(sim, spawner, seed + 1));
    }
}
