//! What does a backend see of many sessions? Simulated: requests and bytes per second, before, during and after five
//! minutes in which it answers nothing but 503.
//!
//! `cargo run --example scale --features sim --release -- 1 1000 10000 100000`
//!
//! Without arguments, 1 and 1 000 sessions. Each session logs an event every two seconds, with the default options but for
//! `GiveUp::WhenFull`.

extern crate alloc;

use alloc::sync::Arc;
use core::error::Error;
use core::ops::Range;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use tinkex_telemetry::runtime::{Clock as _, Spawner as _};
use tinkex_telemetry::sim::{SimClock, SimExecutor};
use tinkex_telemetry::time::Instant;
use tinkex_telemetry::{Batch, GiveUp, Receipt, Reporter, SendError, Transport, fields};

/// In seconds.
const OUTAGE: Range<usize> = 120..420;
const END: usize = 600;
/// Sessions do not affect one another, so as many as fit into memory are simulated at a time.
const AT_A_TIME: usize = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let given: Result<Vec<usize>, _> = std::env::args().skip(1).map(|it| it.parse()).collect();
    let given = given?;
    let counts = if given.is_empty() {
        &[1, 1_000]
    } else {
        &given[..]
    };
    println!(
        "| sessions | started | requests per second | in the busiest | KiB per second | requests per second in the outage | in the busiest second after it | events lost |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &sessions in counts {
        for (name, within) in [("at once", 0), ("over a minute", 60)] {
            let seen = simulate(sessions, Duration::from_secs(within));
            // When all have started.
            let (before, after) = (70..OUTAGE.start, OUTAGE.end..END);
            println!(
                "| {sessions} | {name} | {:.1} | {} | {:.1} | {:.1} | {} | {} |",
                seen.mean(before.clone(), |second| second.requests),
                seen.busiest(before.clone()),
                seen.mean(before, |second| second.bytes) / 1_024.0,
                seen.mean(OUTAGE, |second| second.requests),
                seen.busiest(after),
                seen.lost,
            );
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Second {
    requests: u64,
    bytes: u64,
}

/// What a backend has seen, by the second.
struct Seen {
    seconds: Vec<Second>,
    lost: u64,
}

impl Seen {
    fn mean(&self, seconds: Range<usize>, of: impl Fn(&Second) -> u64) -> f64 {
        let count = seconds.len();
        self.seconds[seconds].iter().map(of).sum::<u64>() as f64 / count as f64
    }

    fn busiest(&self, seconds: Range<usize>) -> u64 {
        let requests = self.seconds[seconds].iter().map(|second| second.requests);
        requests.max().unwrap_or(0)
    }
}

/// A backend that counts, seen through one session's transport.
struct Backend {
    clock: SimClock,
    begun: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl Transport for Backend {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let passed = self.clock.now().saturating_duration_since(self.begun);
        let at = usize::try_from(passed.as_secs()).unwrap_or(usize::MAX);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(second) = seen.seconds.get_mut(at) {
            second.requests += 1;
            second.bytes += batch.body().len() as u64;
        }
        if OUTAGE.contains(&at) {
            Err(SendError::retryable("503"))
        } else {
            Ok(Receipt::delivered())
        }
    }
}

/// Runs sessions that start within this time.
fn simulate(sessions: usize, within: Duration) -> Seen {
    let seen = Arc::new(Mutex::new(Seen {
        seconds: vec![Second::default(); END],
        lost: 0,
    }));
    for first in (0..sessions).step_by(AT_A_TIME) {
        let mut executor = SimExecutor::new(first as u64);
        let begun = executor.clock().now();
        for number in first..sessions.min(first + AT_A_TIME) {
            let start = within.mul_f64(number as f64 / sessions as f64);
            let session = session(&executor, number, begun, start, Arc::clone(&seen));
            executor
                .spawner()
                .spawn(session)
                .expect("the executor runs");
        }
        executor.advance(Duration::from_secs(END as u64 + 120));
    }
    let seen = Arc::into_inner(seen).map(Mutex::into_inner);
    match seen {
        Some(Ok(seen)) => seen,
        _ => panic!("a session has not ended"),
    }
}

/// Logs until the end, then stops.
fn session(
    executor: &SimExecutor,
    number: usize,
    begun: Instant,
    start: Duration,
    seen: Arc<Mutex<Seen>>,
) -> impl Future<Output = ()> + Send + 'static {
    let (clock, spawner) = (executor.clock(), executor.spawner());
    async move {
        let at = |after: Duration| begun.checked_add(after).unwrap_or(begun);
        clock.sleep_until(at(start)).await;
        let backend = Backend {
            clock: clock.clone(),
            begun,
            seen: Arc::clone(&seen),
        };
        let telemetry = Reporter::builder(format!("worker-{number}"))
            .transport(backend)
            .runtime(spawner)
            .give_up(GiveUp::WhenFull)
            .enabled(true)
            .start()
            .expect("the session starts");
        let mut next = start;
        while next < Duration::from_secs(END as u64) {
            telemetry.log("train.step", fields! { step: number, loss: 0.5 });
            next += Duration::from_secs(2);
            clock.sleep_until(at(next)).await;
        }
        let handle = telemetry.handle();
        let drain = telemetry.stop(Duration::from_secs(60)).await;
        let (stats, left) = (handle.stats(), drain.remaining);
        let lost = stats.dropped.total() + stats.refused.total() + left;
        seen.lock().unwrap_or_else(PoisonError::into_inner).lost += lost;
    }
}
