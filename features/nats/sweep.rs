//! The transport's decisions before simulated servers, in a real session: seed by seed, what the ledger says is what the
//! stream has. `TINKEX_SIM_SEED` runs one seed, `TINKEX_SIM_SEEDS` so many.

use super::JetStream;
use super::attempts::Attempts;
use super::config::Config;
use super::message::{event_id, is_end};
use super::simulated::{Rng, UNDER_WAY, World};
use crate::runtime::Clock as _;
use crate::session::Entropy;
use crate::sim::SimExecutor;
use crate::time::Instant;
use crate::transport::{Batch, Receipt, SendError, Transport};
use crate::{Reporter, Stats, fields};
use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

/// Longer than any retry takes that is not given up.
const LONG: Duration = Duration::from_secs(100_000);

/// What the session and the stream agree on, batch by batch.
#[derive(Default)]
struct Settled {
    handed_over: u64,
    too_large: u64,
    attempts: Vec<Attempt>,
}

/// The events of an attempt, and when it was under way.
struct Attempt {
    ids: BTreeSet<String>,
    begun: Instant,
    ended: Option<Instant>,
}

/// The transport of the feature, on a simulated network.
struct Watched {
    attempts: Attempts<World>,
    config: Config,
    world: World,
    settled: Arc<Mutex<Settled>>,
}

/// Notes the end of an attempt, also of one that is abandoned.
struct Ending<'a>(&'a World, &'a Mutex<Settled>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut settled = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = settled.attempts.last_mut() {
            attempt.ended = Some(self.0.clock.now());
        }
    }
}

impl Transport for Watched {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let ids_of = |is_wanted: fn(&[u8]) -> bool| {
            let events = batch.events().filter(move |event| is_wanted(event));
            events.filter_map(event_id).map(Cow::into_owned)
        };
        let ids: BTreeSet<String> = ids_of(|_| true).collect();
        assert_eq!(ids.len(), batch.event_count());
        {
            let mut state = self.world.state();
            state.batch = ids_of(|event| !is_end(event)).collect();
            state.end = ids_of(is_end).next();
        }
        let lock = || self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        lock().attempts.push(Attempt {
            ids: ids.clone(),
            begun: self.world.clock.now(),
            ended: None,
        });
        let ending = Ending(&self.world, &self.settled);
        let outcome = self.attempts.send(&batch, &self.config).await;
        drop(ending);
        match &outcome {
            Ok(()) => {
                let mut state = self.world.state();
                if !ids.is_subset(&state.stored) {
                    state
                        .faults
                        .push(String::from("what is handed over is not in the stream"));
                }
                lock().handed_over += ids.len() as u64;
            }
            Err(error) if !error.is_retryable() && ids.len() == 1 => {
                lock().too_large += 1;
                if batch.body().len() < 1_500 {
                    self.world.state().faults.push(format!("dropped: {error}"));
                }
            }
            Err(_) => {}
        }
        outcome.map(|()| Receipt::handed_over())
    }
}

/// Runs a session, and returns its ledger, and what has occurred.
fn run(seed: u64) -> (Stats, BTreeMap<&'static str, u32>) {
    let mut executor = SimExecutor::new(seed);
    let mut rng = Rng(seed);
    let world = World::new(rng.next(), executor.clock());
    let transport = JetStream::connect("nats://one,nats://two").stream("EVENTS");
    let settled = Arc::<Mutex<Settled>>::default();
    let watched = Watched {
        attempts: Attempts::new(world.clone()),
        config: transport.config().expect("a valid configuration").clone(),
        world: world.clone(),
        settled: Arc::clone(&settled),
    };
    let mut entropy = [0; 32];
    entropy[..8].copy_from_slice(&rng.next().to_le_bytes());
    let size = 1 + rng.below(40) as usize;
    let reporter = Reporter::builder(format!("jetstream-sweep-{seed}"))
        .transport(watched)
        .runtime(executor.spawner())
        .entropy(Entropy::new(entropy))
        .enabled(true)
        .max_batch_size(size)
        .flush_threshold(size)
        .max_retries(rng.below(6) as u32)
        .on_diagnostic(|_| {})
        .start()
        .expect("the session starts");
    for _ in 0..rng.below(12) {
        for _ in 0..rng.below(60) {
            let len = match rng.below(200) {
                0 => 1_850,
                1 => 3_000,
                _ => rng.below(100),
            };
            let word = "x".repeat(len as usize);
            assert!(reporter.log("step", fields! { word: &*word }));
        }
        executor.advance(Duration::from_millis(rng.below(60_000)));
    }
    let heals = rng.below(4) > 0;
    world.state().is_healed = heals;
    let patience = if heals {
        LONG
    } else {
        Duration::from_secs(rng.below(60))
    };
    let handle = reporter.handle();
    let stopped = executor.block_on(async move { reporter.stop(patience).await });
    assert!(stopped.is_some(), "the stop ends");
    executor.run();
    let stats = handle.stats();
    assert!(stats.is_balanced() && stats.queued == 0, "{stats:?}");
    let settled = settled.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(stats.handed_over, settled.handed_over, "{stats:?}");
    assert_eq!(stats.dropped.too_large, settled.too_large, "{stats:?}");
    assert_eq!(
        (stats.delivered, stats.dropped.rejected),
        (0, 0),
        "{stats:?}"
    );
    let given_up = stats.dropped.retries_exhausted + stats.dropped.shutdown;
    let others = stats.handed_over + stats.dropped.too_large;
    assert_eq!(stats.accepted - others, given_up, "{stats:?}");
    let state = world.state();
    assert!(state.faults.is_empty(), "{:?}", state.faults);
    // A message arrives during an attempt at it, or was under way when that ended.
    for (id, at) in &state.arrivals {
        let is_timely = |attempt: &Attempt| {
            let end = attempt.ended.unwrap_or(Instant::END);
            let end = end.checked_add(UNDER_WAY).unwrap_or(end);
            attempt.ids.contains(id) && attempt.begun <= *at && *at <= end
        };
        assert!(
            settled.attempts.iter().any(is_timely),
            "{id} arrives at {at:?}, which no attempt has sent"
        );
    }
    (stats, state.seen.clone())
}

struct NameSeed(u64);

impl Drop for NameSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::eprintln!("TINKEX_SIM_SEED={} fails", self.0);
        }
    }
}

#[test]
fn nothing_arrives_that_the_ledger_has_dropped_and_what_it_hands_over_is_stored() {
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match variable("TINKEX_SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=variable("TINKEX_SIM_SEEDS").unwrap_or(300),
    };
    let is_sweep = seeds.clone().count() >= 300;
    let mut seen = BTreeMap::new();
    let mut total = 0;
    for seed in seeds {
        let _named = NameSeed(seed);
        let (stats, occurred) = run(seed);
        total += stats.handed_over;
        for (what, count) in occurred {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    if is_sweep {
        assert!(total > 10_000, "{total}");
        for what in [
            "no connection",
            "no stream",
            "broken",
            "too large for the stream",
            "full",
            "no responders",
            "not stored, and silence",
            "stored, and silence",
        ] {
            assert!(
                seen.get(what).is_some_and(|count| *count > 10),
                "{what}: {seen:?}"
            );
        }
    }
}
