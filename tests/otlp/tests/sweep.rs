//! The transport in the simulator: a collector answers as a seed decides, the network fails, and at the end the ledger
//! says exactly what the collector did with each event. `TINKEX_SIM_SEED` runs one seed, `TINKEX_SIM_SEEDS` so many.

extern crate alloc;

mod simulated;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::time::Duration;
use otlp::lock;
use simulated::{Collector, Exchange, Lost, Outcome, Record, Rng, Watch};
use tinkex_telemetry::otlp::{OtlpConfig, OtlpTransport, Protocol};
use tinkex_telemetry::session::Entropy;
use tinkex_telemetry::sim::SimExecutor;
use tinkex_telemetry::{Reporter, Severity, Stats, fields};

/// Longer than any retry takes that is not given up.
const LONG: Duration = Duration::from_secs(100_000);

/// A session, as its two sides have seen it.
struct Run {
    stats: Stats,
    exchanges: Vec<Exchange>,
    /// The indices of each batch that the transport was given.
    batches: Vec<Vec<u64>>,
    /// Whether the stop has all the time that it needs.
    is_patient: bool,
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs `check` for each seed, and names the one that fails.
fn each_seed(check: impl Fn(u64)) {
    let seeds = match variable("TINKEX_SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=variable("TINKEX_SIM_SEEDS").unwrap_or(120),
    };
    for seed in seeds {
        let named = NameSeed(seed);
        check(seed);
        core::mem::forget(named);
    }
}

struct NameSeed(u64);

impl Drop for NameSeed {
    fn drop(&mut self) {
        eprintln!("TINKEX_SIM_SEED={} fails", self.0);
    }
}

/// A session that logs in bursts while the collector and the network misbehave, and then stops while they do not.
fn run(seed: u64) -> Run {
    let mut executor = SimExecutor::new(seed);
    let mut rng = Rng::new(seed);
    let protocol = [Protocol::HttpProtobuf, Protocol::HttpJson][rng.below(2)];
    let collector = Collector::new(&mut rng, executor.clock(), protocol);
    let config = OtlpConfig::new("http://collector.example:4318").expect("a valid URL");
    let batches = Arc::default();
    let transport = Watch {
        inner: OtlpTransport::new(config.protocol(protocol), collector.clone()),
        batches: Arc::clone(&batches),
    };
    let size = 1 + rng.below(40);
    let reporter = Reporter::builder(format!("otlp-sweep-{seed}"))
        .transport(transport)
        .runtime(executor.spawner())
        .entropy(Entropy::new(rng.bytes()))
        .enabled(true)
        .max_batch_size(size)
        .flush_threshold(size)
        .max_retries(rng.below(6) as u32)
        .max_queue_size(4_000)
        .max_event_bytes(2_048)
        .on_diagnostic(|_| {})
        .start()
        .expect("the session starts");
    for _ in 0..rng.below(12) {
        for _ in 0..rng.below(60) {
            let (step, word) = (rng.below(1_000), collector.word(&mut rng));
            // Refused: a gap in the indices.
            let text = if rng.below(60) == 0 {
                "x".repeat(3_000)
            } else {
                word
            };
            let severity = Severity::ALL[rng.below(4)];
            let is_accepted =
                reporter.log_with("step", fields! { step: step, word: &*text }, severity);
            assert_eq!(is_accepted, text.len() < 3_000);
        }
        executor.advance(Duration::from_millis(rng.below(60_000) as u64));
    }
    let heals = rng.below(4) > 0;
    if heals {
        collector.heal();
    }
    let handle = reporter.handle();
    let patience = if heals {
        LONG
    } else {
        Duration::from_secs(rng.below(60) as u64)
    };
    let stopped = executor.block_on(async move { reporter.stop(patience).await });
    assert!(stopped.is_some(), "the stop ends");
    executor.run();
    let stats = handle.stats();
    assert!(stats.is_balanced() && stats.queued == 0, "{stats:?}");
    let batches = lock(&batches).clone();
    Run {
        stats,
        exchanges: collector.exchanges(),
        batches,
        is_patient: heals,
    }
}

impl Run {
    /// How many records were in requests that ended in a way that `count` gives a number for.
    fn sum(&self, count: impl Fn(&Exchange) -> usize) -> u64 {
        self.exchanges.iter().map(|it| count(it) as u64).sum()
    }
}

#[test]
fn the_ledger_says_what_the_collector_did_with_every_event() {
    let mut seen = BTreeMap::new();
    each_seed(|seed| {
        let run = run(seed);
        let stats = &run.stats;
        let is_alone = |it: &Exchange| it.records.len() == 1;
        let handed_over = run.sum(|it| match it.outcome {
            Outcome::Taken { rejected } => it.records.len() - rejected,
            _ => 0,
        });
        let rejected = run.sum(|it| match it.outcome {
            Outcome::Taken { rejected } => rejected,
            Outcome::Forbidden => it.records.len(),
            Outcome::Invalid if is_alone(it) => 1,
            _ => 0,
        });
        let too_large = run.sum(|it| match it.outcome {
            Outcome::TooLarge if is_alone(it) => 1,
            _ => 0,
        });
        assert_eq!(stats.delivered, 0, "a collector never delivers");
        assert_eq!(stats.handed_over, handed_over, "{stats:?}");
        assert_eq!(stats.dropped.rejected, rejected, "{stats:?}");
        assert_eq!(stats.dropped.too_large, too_large, "{stats:?}");
        // What no request has settled was given up, after as many attempts as there may be, or at the stop.
        let settled = handed_over + rejected + too_large;
        let given_up = stats.dropped.retries_exhausted + stats.dropped.shutdown;
        assert_eq!(given_up, stats.accepted - settled, "{stats:?}");
        assert_eq!(stats.dropped.discarded, 0);
    });
    // The sweep is about these.
    for seed in 1..=60 {
        for exchange in run(seed).exchanges {
            *seen.entry(exchange.outcome.name()).or_insert(0) += 1;
        }
    }
    for outcome in [
        "taken",
        "taken in part",
        "forbidden",
        "invalid",
        "too large",
        "retryable",
        "no response",
    ] {
        assert!(
            seen.get(outcome).is_some_and(|count| *count > 10),
            "{outcome}: {seen:?}"
        );
    }
}

#[test]
fn an_attempt_is_one_request_with_each_of_its_events_once() {
    each_seed(|seed| {
        let run = run(seed);
        assert_eq!(
            run.exchanges.len(),
            run.batches.len(),
            "one request for each attempt"
        );
        for (exchange, batch) in run.exchanges.iter().zip(&run.batches) {
            let indices: Vec<_> = exchange.records.iter().map(|it| it.index).collect();
            assert_eq!(&indices, batch, "the indices across gaps");
            assert!(indices.is_sorted_by(|one, next| one < next), "{indices:?}");
            let ids: BTreeSet<_> = exchange.records.iter().map(|it| &it.id).collect();
            assert_eq!(ids.len(), indices.len());
        }
    });
}

#[test]
fn what_is_settled_is_never_sent_again_and_what_may_be_taken_later_is() {
    each_seed(|seed| {
        let run = run(seed);
        let mut settled = BTreeSet::new();
        let mut to_retry: Option<&Exchange> = None;
        let ids = |it: &Exchange| {
            it.records
                .iter()
                .map(|it| it.id.clone())
                .collect::<Vec<_>>()
        };
        for exchange in &run.exchanges {
            let now = ids(exchange);
            assert!(now.iter().all(|id| !settled.contains(id)), "sent again");
            if let Some(before) = to_retry {
                // The same request, byte for byte, or it was given up.
                let is_same = before.body == exchange.body;
                let last = before.records.iter().map(|it| it.index).max();
                let is_behind = exchange.records.iter().map(|it| it.index).min() > last;
                assert!(is_same || is_behind, "another batch with the same events");
                if let Some(until) = before.not_before.filter(|_| is_same && run.is_patient) {
                    assert!(
                        exchange.at >= until,
                        "before its time: {:?} < {until:?}",
                        exchange.at
                    );
                }
            }
            to_retry = None;
            match exchange.outcome {
                Outcome::Taken { .. } | Outcome::Forbidden => settled.extend(now),
                Outcome::Invalid | Outcome::TooLarge if now.len() == 1 => settled.extend(now),
                Outcome::Invalid | Outcome::TooLarge => {}
                Outcome::Retryable | Outcome::Silent => to_retry = Some(exchange),
            }
        }
    });
}

#[test]
fn an_event_that_is_invalid_or_too_large_costs_no_other() {
    each_seed(|seed| {
        let run = run(seed);
        for exchange in run.exchanges.iter().filter(|it| it.records.len() == 1) {
            let record = &exchange.records[0];
            match exchange.outcome {
                Outcome::Invalid => assert!(record.is_poison(), "{record:?}"),
                Outcome::TooLarge => assert!(record.is_large(), "{record:?}"),
                _ => {}
            }
        }
    });
}

/// What a loss report lists, its record, and the batches that were taken in part before it was sent first.
type Report<'a> = (Vec<Lost>, &'a Record, Vec<Lost>);

#[test]
fn a_report_gives_the_range_and_the_count_of_a_batch_that_was_taken_in_part() {
    let mut with_gaps = 0;
    each_seed(|seed| {
        let run = run(seed);
        let (mut parts, mut latest) = (Vec::new(), None::<Report<'_>>);
        let mut end = None;
        for (exchange, batch) in run.exchanges.iter().zip(&run.batches) {
            for record in &exchange.records {
                if let Some(lost) = &record.lost {
                    let told: Vec<_> = lost
                        .iter()
                        .filter(|it| it.count.is_some())
                        .cloned()
                        .collect();
                    for part in &told {
                        assert!(parts.contains(part), "{part:?} is not in {parts:?}");
                    }
                    // A request that is sent again tells what it told.
                    if latest
                        .as_ref()
                        .is_none_or(|(_, known, _)| known.id != record.id)
                    {
                        latest = Some((lost.clone(), record, parts.clone()));
                    }
                }
                if record.name == "session.end" {
                    end = Some(record.index);
                }
            }
            if let Outcome::Taken { rejected } = exchange.outcome
                && (1..batch.len()).contains(&rejected)
            {
                parts.push(Lost {
                    first: batch[0],
                    last: batch[batch.len() - 1],
                    count: Some(rejected as u64),
                });
            }
        }
        // The last report before the end tells of everything, as far as it has room.
        if let (Some((lost, report, parts)), Some(end)) = (latest, end)
            && report.index + 1 == end
            && lost.len() < 10
        {
            let told: Vec<_> = lost.into_iter().filter(|it| it.count.is_some()).collect();
            assert_eq!(told, parts);
        }
    });
    for seed in 1..=120 {
        let run = run(seed);
        with_gaps += run.exchanges.iter().zip(&run.batches).filter(|(exchange, batch)| {
            let is_part = matches!(exchange.outcome, Outcome::Taken { rejected } if (1..batch.len()).contains(&rejected));
            is_part && batch[batch.len() - 1] - batch[0] >= batch.len() as u64
        }).count();
    }
    assert!(with_gaps > 0, "no batch had a gap");
}
