//! Programs of calls under random faults, in simulated time: what must hold whatever happens.

use crate::sim_harness::{SimHarness, run_simulated};
use futures::future::{Either, join, join_all, select};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;
use tinkex_telemetry::client::{
    Datum, LoraConfig, LossFn, ModelInput, SamplingClient, SamplingParams, TrainingClient,
};
use tinkex_telemetry::collector::Reply;
use tinkex_telemetry::sim::SimSpawner;

/// How many seeds to run: `TINKEX_CLIENT_SEEDS`.
fn seeds() -> u64 {
    let seeds = std::env::var("TINKEX_CLIENT_SEEDS");
    seeds.map_or(200, |seeds| seeds.parse().expect("a number of seeds"))
}

/// What a program does and what it meets, from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A reply to a poll that is not the backend's own.
fn strange_reply(dice: &mut Dice) -> Reply {
    match dice.below(9) {
        0 => Reply::json(&json!({ "status": "pending" })),
        1 => Reply::json(&json!({ "status": "complete_metadata" })),
        2 => Reply::json(&json!({ "type": "try_again", "queue_state": "paused_capacity" })),
        3 => Reply::json(&json!({ "type": "try_again", "retry_after_ms": 1e300 })),
        4 => Reply::json(&json!({ "error": "no", "category": "server" })),
        5 => Reply::status(410),
        6 => Reply::status(429),
        7 => Reply::status(400),
        _ => Reply::stall(),
    }
}

/// Tokens that results have granted: prefilled, sampled, trained.
type Granted = [u64; 3];

/// One call, which may be dropped. Returns what its result has granted, or `None` without one, and how long it was under
/// way.
async fn call(
    sim: &SimHarness,
    (sampler, training): (&SamplingClient, &TrainingClient),
    (kind, len, patience): (u64, u64, Duration),
) -> (Option<Granted>, Duration) {
    let begun = sim.passed();
    let work = async {
        let prompt = vec![1; len as usize];
        let data = || [Datum::new(ModelInput::from_tokens(vec![1; len as usize]))];
        match kind {
            0 | 1 => {
                let params = SamplingParams::new().max_tokens(3);
                let sampled = sampler.sample(prompt, 2, params).await.ok()?;
                let lens = sampled.sequences.iter().map(|one| one.tokens.len() as u64);
                Some([len, lens.sum(), 0])
            }
            2 => {
                let pass = training.forward_backward(data(), LossFn::CrossEntropy);
                pass.await.ok().map(|_| [0, 0, len])
            }
            3 => {
                let pass = training.forward(data(), LossFn::CrossEntropy);
                pass.await.ok().map(|_| [len, 0, 0])
            }
            4 => training.save_weights("a").await.ok().map(|_| [0; 3]),
            _ => training.get_info().await.ok().map(|_| [0; 3]),
        }
    };
    let timeout = pin!(sim.sleep(patience));
    let granted = match select(pin!(work), timeout).await {
        Either::Left((granted, _)) => granted,
        Either::Right(_) => None,
    };
    (granted, sim.passed() - begun)
}

async fn run_program(sim: SimHarness, spawner: SimSpawner, seed: u64) {
    let mut dice = Dice(seed);
    let service = sim.connect(&spawner).await.expect("the service connects");
    let sampler = service.create_sampling_client("small").await.unwrap();
    let training = service.create_training_client("small", LoraConfig::default());
    let training = training.await.unwrap();
    let replies: Vec<_> = (0..dice.below(20))
        .map(|_| strange_reply(&mut dice))
        .collect();
    sim.backend.script("retrieve_future", replies);
    sim.storm(dice.below(300), seed.wrapping_mul(2) + 1);
    if dice.below(4) == 0 {
        sim.hold_polls(Duration::from_secs(dice.below(44)));
    }
    if dice.below(4) == 0 {
        sim.outage(Duration::from_secs(dice.below(400)));
    }
    let calls: Vec<_> = (0..=dice.below(8))
        .map(|_| {
            let patience = Duration::from_secs([1, 30, 90, 4_000][dice.below(4) as usize]);
            (dice.below(6), 1 + dice.below(5), patience)
        })
        .collect();
    let clients = (&sampler, &training);
    let calls = calls.into_iter().map(|one| call(&sim, clients, one));
    let is_closed_early = dice.below(4) == 0;
    let close_at = Duration::from_secs(dice.below(200));
    let results = join_all(calls);
    let results = if is_closed_early {
        let close = async {
            sim.sleep(close_at).await;
            let _ = service.close().await;
        };
        join(results, close).await.0
    } else {
        results.await
    };
    sim.storm(0, 1);
    // Every call has ended, or was dropped: none is left.
    assert_eq!(service.open_requests(), [], "seed {seed}");
    let mut expected = [0; 3];
    for granted in results.iter().filter_map(|(granted, _)| *granted) {
        (0..3).for_each(|n| expected[n] += granted[n]);
    }
    let usage = service.usage().tokens;
    let counted = [usage.prefilled, usage.sampled, usage.trained];
    assert_eq!(counted, expected, "seed {seed}");
    let telemetry = service.telemetry().expect("it is on");
    let drain = service.close().await;
    let stats = telemetry.stats();
    assert!(stats.is_balanced(), "seed {seed}: {stats:?}");
    assert!(drain.all_delivered(), "seed {seed}: {drain:?}");
    if !is_closed_early {
        assert_eq!(stats.refused.total(), 0, "seed {seed}: {stats:?}");
    }
    let ages: Vec<_> = results.iter().map(|(_, age)| *age).collect();
    check_events(&sim, seed, counted, &ages, is_closed_early);
}

/// How a call was reported as stalled.
#[derive(Debug, Default)]
struct Stalled {
    /// In seconds.
    ages: Vec<u64>,
    ended: Option<u64>,
}

/// Each request has one start and one end; a call is reported as stalled after a minute and whenever its age has doubled,
/// and then ends once; the last usage is what was granted.
fn check_events(
    sim: &SimHarness,
    seed: u64,
    counted: Granted,
    ages: &[Duration],
    is_closed_early: bool,
) {
    let (mut requests, mut stalls) = (BTreeMap::new(), BTreeMap::<u64, Stalled>::new());
    let mut last_usage = Value::Null;
    let events = sim.events();
    for event in &events {
        let data = &event["event_data"];
        let call = data["metadata"]["call"].as_u64().unwrap_or(u64::MAX);
        let age = data["measurements"]["age"].as_u64().unwrap_or_default() / 1_000_000_000;
        match event["event_name"].as_str().unwrap_or_default() {
            "tinkex.http.request.start" => {
                let before = requests.insert(call, false);
                assert_eq!(before, None, "seed {seed}, call {call}");
            }
            "tinkex.http.request.stop" | "tinkex.http.request.exception" => {
                let before = requests.insert(call, true);
                assert_eq!(before, Some(false), "seed {seed}, call {call}");
            }
            "tinkex.request.stalled" => stalls.entry(call).or_default().ages.push(age),
            "tinkex.request.stall_ended" => {
                let ended = &mut stalls.entry(call).or_default().ended;
                assert_eq!(ended.replace(age), None, "seed {seed}, call {call}");
            }
            "tinkex.usage" => last_usage = data["measurements"].clone(),
            _ => {}
        }
    }
    for (call, Stalled { ages, ended }) in &stalls {
        let due = (0..ages.len()).map(|doubled| 60 << doubled);
        assert!(
            ages.iter().copied().eq(due),
            "seed {seed}, call {call}: {ages:?}"
        );
        let next = 60 << ages.len();
        let is_in_time = ended.is_some_and(|end| ages.last() <= Some(&end) && end <= next);
        assert!(is_in_time, "seed {seed}, call {call}: {ages:?} {ended:?}");
    }
    let minute = Duration::from_secs(60);
    if !ages.contains(&minute) {
        let long = ages.iter().filter(|age| **age > minute).count();
        assert_eq!(stalls.len(), long, "seed {seed}: {ages:?} {stalls:?}");
    }
    // What a close interrupts may end after the session.
    if !is_closed_early {
        let all_ended = requests.values().all(|has_ended| *has_ended);
        assert!(all_ended, "seed {seed}: {requests:?}");
    }
    let reported = ["prefilled", "sampled", "trained"].map(|name| last_usage[name].as_u64());
    assert_eq!(reported, counted.map(Some), "seed {seed}");
    let last = events.last().map(|event| event["event"].clone());
    assert_eq!(last, Some(json!("SESSION_END")), "seed {seed}");
}

#[test]
fn each_call_ends_or_is_dropped_once_its_events_pair_and_the_usage_is_what_was_granted() {
    for seed in 0..seeds() {
        run_simulated(seed, |sim, spawner| run_program(sim, spawner, seed));
    }
}
