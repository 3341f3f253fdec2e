//! A stream of 10 000 events from each thread while the driver is at work, beside bursts of 100 that find it idle.
//!
//! `cargo bench -p benches --bench stream` prints nanoseconds per event: of a thread's time, of its CPU time, and of all
//! threads' time together. A thread's time includes its waits for a core, which driver and sink need as well, its CPU time
//! does not. The rounds interleave all rows. The driver discards its batches, or sends them over a socket to a process
//! that responds at once. Where each thread has a session of its own, the threads share no lock, no queue and no driver:
//! no queue with a part for each thread could cost less.

mod nowhere;

use benches::cpu;
use benches::event::{self, NAME};
use benches::figures::median;
use benches::ours::{self, BOUND, Session};
use benches::sink::{self, Mode, Sink};
use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::io;
use std::thread;
use std::time::Instant;
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::{Handle, Thread, Transport};

const ROUNDS: usize = 40;
const BURSTS: usize = 100;
const BURST: usize = 100;
const EVENTS: usize = 10_000;
const THREADS: [usize; 3] = [1, 2, 8];
/// Those with a session for each.
const SEVERAL: [usize; 2] = [2, 8];
const MOST: usize = 8;

fn main() -> io::Result<()> {
    if sink::is_this_process() {
        return Ok(());
    }
    let (reporter, driver) = nowhere::session("stream")
        .build()
        .expect("the defaults are valid");
    let mut driver = pin!(driver.run());
    let burst = reporter.handle();
    let sink = Sink::start(Mode::Responds)?;
    let discards = start(ours::to_nowhere());
    let sends = start(ours::over_ureq(&sink.url).0);
    let apart = [(); MOST].map(|()| start(ours::to_nowhere()));

    let mut bursts = Vec::new();
    let mut rows: [[Row; 3]; 2] = Default::default();
    let mut own: [Row; 2] = Default::default();
    for round in 0..=ROUNDS {
        for _ in 0..BURSTS {
            bursts.push(time(&burst, BURST));
            nowhere::drain(&burst, driver.as_mut());
        }
        let [discarded, sent] = &mut rows;
        for (at, threads) in THREADS.into_iter().enumerate() {
            discarded[at].round(&vec![&discards; threads]);
            sent[at].round(&vec![&sends; threads]);
        }
        for (row, threads) in own.iter_mut().zip(SEVERAL) {
            row.round(&apart.each_ref()[..threads]);
        }
        if round == 0 {
            // It only warms up.
            bursts.clear();
            rows = Default::default();
            own = Default::default();
        }
    }
    let burst = median(bursts);
    println!(
        "{:<44}{:>10}{:>10}{:>10}{:>10}",
        "ns per event, medians", "a thread", "ratio", "its CPU", "together"
    );
    println!("{:<44}{burst:>10.0}{:>10.2}", "a burst of 100", 1.0);
    let mut one = [burst; 2];
    for (at, (what, rows)) in ["discards", "sends"].into_iter().zip(rows).enumerate() {
        for (row, threads) in rows.into_iter().zip(THREADS) {
            let title = format!("the driver {what}, threads: {threads}");
            let each = row.print(&title, one[at]);
            if threads == 1 {
                one[at] = each;
            }
        }
    }
    for (row, threads) in own.into_iter().zip(SEVERAL) {
        let title = format!("{threads} threads, a session that discards each");
        row.print(&title, one[0]);
    }
    println!("ratio: to a burst, or to one thread");
    apart.iter().for_each(check);
    check(&discards);
    check(&sends);
    Ok(())
}

/// A queue that holds a round of all threads, so that nothing is refused.
fn start<T: Transport + Send + 'static>(builder: Builder<T, Thread, Thread>) -> Session<T> {
    builder
        .max_queue_size(MOST * EVENTS + 10)
        .max_queue_bytes(64 << 20)
        .start()
        .expect("the session starts")
}

/// Nanoseconds per event.
fn time(handle: &Handle, events: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..events {
        assert!(handle.log(NAME, event::usual()));
    }
    start.elapsed().as_nanos() as f64 / events as f64
}

#[derive(Default)]
struct Row {
    each: Vec<f64>,
    cpu: Vec<f64>,
    together: Vec<f64>,
}

impl Row {
    /// A thread for each session, which may all be the same.
    fn round<T: Transport + Send + 'static>(&mut self, sessions: &[&Session<T>]) {
        let (threads, arrived) = (sessions.len(), AtomicUsize::new(0));
        let stream = |handle: &Handle| {
            // All begin at once.
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < threads {
                thread::yield_now();
            }
            let (start, cpu) = (Instant::now(), cpu::time_of_this_thread());
            let each = time(handle, EVENTS);
            let end = Instant::now();
            let cpu = cpu::time_of_this_thread().saturating_sub(cpu);
            (each, cpu.as_nanos() as f64 / EVENTS as f64, start, end)
        };
        let all: Vec<_> = thread::scope(|scope| {
            let threads = sessions.iter().map(|session| {
                let handle = session.handle();
                scope.spawn(|| stream(&{ handle }))
            });
            let threads: Vec<_> = threads.collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|all| all.expect("the thread ends")).collect()
        });
        let first = all.iter().map(|(.., start, _)| *start).min();
        let last = all.iter().map(|(.., end)| *end).max();
        let took = first.zip(last).map(|(first, last)| last - first);
        let nanos = took.unwrap_or_default().as_nanos() as f64;
        self.together.push(nanos / (threads * EVENTS) as f64);
        self.each.extend(all.iter().map(|(nanos, ..)| nanos));
        self.cpu.extend(all.iter().map(|(_, nanos, ..)| nanos));
        for session in sessions {
            let drain = session.wait_until_drained_blocking(BOUND);
            assert!(drain.is_ok_and(|drain| drain.is_drained()));
        }
    }

    /// Returns a thread's time.
    fn print(self, title: &str, base: f64) -> f64 {
        let [each, cpu, together] = [self.each, self.cpu, self.together].map(median);
        let ratio = each / base;
        println!("{title:<44}{each:>10.0}{ratio:>10.2}{cpu:>10.0}{together:>10.0}");
        each
    }
}

fn check<T>(session: &Session<T>) {
    let stats = session.stats();
    assert!(stats.is_balanced());
    assert_eq!(stats.delivered, stats.accepted);
    assert_eq!(stats.refused.total(), 0);
    println!(
        "ledger: accepted {}, delivered {}, refused {}",
        stats.accepted,
        stats.delivered,
        stats.refused.total()
    );
}
