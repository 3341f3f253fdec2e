//! The cost of sending, compared in one run with clients by hand: one that a good programmer writes for
//! speed (`benches::buffer`), and one that is easy to write (`benches::channel`).
//!
//! `cargo bench -p benches --bench send_path` runs everything; a word after `--` (`throughput`, `shutdown`,
//! `latency`, `threads`, `collector`) runs only that part. The backend is a separate process on loopback, so that CPU time is only
//! the client's. Rounds interleave all contestants.

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use benches::buffer::Buffer;
use benches::by_hand::Sent;
use benches::channel::Channel;
use benches::collector::Collector;
use benches::cpu;
use benches::event::{self, Data, NAME};
use benches::figures::{Latencies, Percentiles, median, medians};
use benches::ours::{self, BOUND, OverUreq, Session};
use benches::sink::{self, Counts, Mode, Sink};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::env;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Instant;
use tinkex_telemetry::Handle;

fn main() -> io::Result<()> {
    if sink::is_this_process() {
        return Ok(());
    }
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let is_wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    if is_wanted("throughput") {
        throughput(100)?;
        throughput(1_000)?;
    }
    if is_wanted("shutdown") {
        shutdown()?;
    }
    if is_wanted("latency") {
        latency()?;
        under_load()?;
    }
    if is_wanted("threads") {
        threads();
    }
    if is_wanted("collector") {
        collector(100)?;
        collector(1_000)?;
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Throughput

const ROUNDS: usize = 10;
const EVENTS_PER_ROUND: u64 = 200_000;

/// A client that logs and sends.
trait Contestant {
    /// Logs this many events as fast as it can, and returns when all are sent.
    fn round(&mut self, events: u64);

    /// Checks against the sink's counts that everything was sent. Returns the number of events.
    fn check(&mut self, counts: Counts) -> u64;
}

impl Contestant for Buffer {
    fn round(&mut self, events: u64) {
        for _ in 0..events {
            self.log(event::usual());
        }
        let _ = self.drain();
    }

    fn check(&mut self, counts: Counts) -> u64 {
        check_by_hand(self.drain(), counts)
    }
}

impl Contestant for Channel {
    fn round(&mut self, events: u64) {
        for _ in 0..events {
            self.log(event::usual());
        }
        let _ = self.drain();
    }

    fn check(&mut self, counts: Counts) -> u64 {
        check_by_hand(self.drain(), counts)
    }
}

fn check_by_hand(sent: Sent, counts: Counts) -> u64 {
    let Counts { requests, bytes } = counts;
    assert_eq!((sent.requests, sent.bytes), (requests, bytes));
    sent.events
}

struct Ours {
    session: Session<OverUreq>,
    bytes: Arc<AtomicU64>,
}

impl Ours {
    /// The queue holds a whole round, as those by hand do, so that nothing is refused.
    fn start(url: &str, batch: usize) -> Self {
        let (builder, bytes) = ours::over_ureq(url);
        let session = builder
            .max_batch_size(batch)
            .flush_threshold(batch)
            .max_queue_size(EVENTS_PER_ROUND as usize + 10)
            .max_queue_bytes(128 << 20)
            .start()
            .expect("the session starts");
        Self { session, bytes }
    }
}

impl Contestant for Ours {
    fn round(&mut self, events: u64) {
        for _ in 0..events {
            assert!(self.session.log(NAME, event::usual()));
        }
        let drain = self.session.wait_until_drained_blocking(BOUND);
        assert!(drain.is_ok_and(|drain| drain.all_delivered()));
    }

    fn check(&mut self, counts: Counts) -> u64 {
        let stats = self.session.stats();
        assert!(stats.is_balanced());
        assert_eq!(stats.delivered, stats.accepted);
        assert_eq!(stats.refused.total(), 0);
        assert_eq!(counts.bytes, self.bytes.load(Ordering::Relaxed));
        stats.delivered
    }
}

struct Row {
    name: &'static str,
    contestant: Box<dyn Contestant>,
    sink: Sink,
    warmed_up: Counts,
    rates: Vec<f64>,
    cpu: Duration,
}

fn throughput(batch: usize) -> io::Result<()> {
    let start = || Sink::start(Mode::Responds);
    let (first, second, third, fourth) = (start()?, start()?, start()?, start()?);
    let mut rows = [
        row("by hand, a buffer", Buffer::start(&first.url, batch), first),
        row(
            "by hand, a channel",
            Channel::start(&second.url, batch, None),
            second,
        ),
        row(
            "  and timeout_global",
            Channel::start(&third.url, batch, Some(Duration::from_secs(5))),
            third,
        ),
        row(
            "ours, Thread and Ureq",
            Ours::start(&fourth.url, batch),
            fourth,
        ),
    ];
    for row in &mut rows {
        row.contestant.round(EVENTS_PER_ROUND / 4);
        row.warmed_up = row.sink.counts()?;
    }
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let (start, cpu) = (Instant::now(), cpu::time());
            row.contestant.round(EVENTS_PER_ROUND);
            row.rates
                .push(EVENTS_PER_ROUND as f64 / start.elapsed().as_secs_f64());
            row.cpu += cpu::time() - cpu;
        }
    }
    println!("\nThroughput, batches of {batch}: {ROUNDS} rounds of {EVENTS_PER_ROUND} events");
    println!(
        "{:<24}{:>10}{:>9}{:>9}{:>14}{:>9}{:>9}{:>10}{:>10}{:>12}",
        "",
        "events/s",
        "/buffer",
        "/channel",
        "CPU ns/event",
        "/buffer",
        "/channel",
        "events",
        "requests",
        "bytes"
    );
    let bases = [0, 1].map(|at: usize| (rows[at].rates.clone(), rows[at].cpu));
    for row in &mut rows {
        let counts = row.sink.counts()?;
        let events = row.contestant.check(counts);
        let timed = counts.since(row.warmed_up);
        print!("{:<24}{:>10.0}", row.name, median(row.rates.clone()));
        for (base, _) in &bases {
            let ratios = row.rates.iter().zip(base).map(|(a, b)| a / b);
            print!("{:>9.2}", median(ratios.collect()));
        }
        let cpu = row.cpu.as_nanos() as f64 / (ROUNDS as u64 * EVENTS_PER_ROUND) as f64;
        print!("{cpu:>14.0}");
        for (_, base) in &bases {
            print!("{:>9.2}", row.cpu.as_secs_f64() / base.as_secs_f64());
        }
        println!("{events:>10}{:>10}{:>12}", timed.requests, timed.bytes);
    }
    println!(
        "nothing lost: the sink counted every byte that was posted, and every event is in the ledger"
    );
    Ok(())
}

fn row(name: &'static str, contestant: impl Contestant + 'static, sink: Sink) -> Row {
    Row {
        name,
        contestant: Box::new(contestant),
        sink,
        warmed_up: Counts::default(),
        rates: Vec::new(),
        cpu: Duration::ZERO,
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Before a collector

/// A session at full speed before the program's collector, and before the sink that only counts.
fn collector(batch: usize) -> io::Result<()> {
    const ROUNDS: usize = 5;
    let (sink, collector) = (Sink::start(Mode::Responds)?, Collector::start()?);
    let mut rows = [&sink.url, &collector.url].map(|url| (Ours::start(url, batch), Vec::new()));
    for round in 0..=ROUNDS {
        for (ours, rates) in &mut rows {
            let start = Instant::now();
            ours.round(EVENTS_PER_ROUND);
            if round > 0 {
                rates.push(EVENTS_PER_ROUND as f64 / start.elapsed().as_secs_f64());
            }
        }
    }
    println!(
        "\nBefore a collector, batches of {batch}: {ROUNDS} rounds of {EVENTS_PER_ROUND} events"
    );
    let [sink, collector] = rows.map(|(ours, rates)| {
        let stats = ours.session.stats();
        assert!(stats.is_balanced() && stats.delivered == stats.accepted);
        rates
    });
    let ratios = collector.iter().zip(&sink).map(|(a, b)| a / b).collect();
    println!(
        "{:<24}{:>10.0} events/s",
        "a sink that counts",
        median(sink)
    );
    println!(
        "{:<24}{:>10.0} events/s{:>9.2}",
        "tinkex-telemetry serve",
        median(collector.clone()),
        median(ratios)
    );
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Shutdown

fn shutdown() -> io::Result<()> {
    const STOP: Duration = Duration::from_secs(1);
    println!("\nShutdown, the backend accepts and never responds");
    let sink = Sink::start(Mode::Stalls)?;
    let session = ours::over_ureq(&sink.url)
        .0
        .start()
        .expect("the session starts");
    for _ in 0..1_000 {
        assert!(session.log(NAME, event::usual()));
    }
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    let drain = session.stop_blocking(STOP).expect("no deadlock");
    let took = start.elapsed();
    println!(
        "stop({STOP:?}) took {took:?}, {:.3} of its limit; delivered {}, remaining {}",
        took.as_secs_f64() / STOP.as_secs_f64(),
        drain.delivered,
        drain.remaining
    );
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Latency

/// Logs events at this pace, spinning in between.
fn sample(handle: &Handle, data: fn() -> Data, pace: Duration, into: &mut Latencies, calls: usize) {
    let mut next = Instant::now();
    for _ in 0..calls {
        let mut start = Instant::now();
        while start < next {
            core::hint::spin_loop();
            start = Instant::now();
        }
        let accepted = handle.log(NAME, data());
        let end = Instant::now();
        assert!(accepted);
        into.push(end - start);
        next = (next + pace).max(end);
    }
}

fn titles(what: &str) {
    print!("{what:<44}");
    for title in Percentiles::TITLES {
        print!("{title:>10}");
    }
    println!();
}

fn latency() -> io::Result<()> {
    const CALLS: usize = 60_000;
    const PACE: Duration = Duration::from_micros(50);
    println!();
    titles("One call of log, ns, 20 000 calls/s");
    let mut empty = Latencies::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        empty.push(start.elapsed());
    }
    println!(
        "{:<44}{}",
        "(the clock alone, included in every figure)",
        empty.percentiles()
    );
    let healthy = Sink::start(Mode::Responds)?;
    let stalled = Sink::start(Mode::Stalls)?;
    let dead = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    for (name, url) in [
        ("healthy backend", &healthy.url),
        (
            "dead backend (connection refused)",
            &format!("http://{dead}"),
        ),
        ("stalled backend (never responds)", &stalled.url),
    ] {
        let session = ours::over_ureq(url)
            .0
            .max_queue_size(2 * CALLS)
            .max_queue_bytes(64 << 20)
            .start()
            .expect("the session starts");
        let mut calls = Latencies::with_capacity(CALLS);
        sample(&session, event::usual, PACE, &mut calls, CALLS);
        println!("{name:<44}{}", calls.percentiles());
        let _ = session.stop_blocking(Duration::from_millis(200));
    }
    Ok(())
}

/// The percentiles over all rounds.
fn pooled(rounds: &[Latencies]) -> Percentiles {
    let mut all = Latencies::default();
    rounds.iter().for_each(|round| all.extend(round));
    all.percentiles()
}

fn row_of(name: &str, nanos: [i64; 5]) {
    print!("{name:<44}");
    for nanos in nanos {
        print!("{nanos:>+10}");
    }
    println!();
}

/// Measures `log` while its session keeps sending large batches, compared with no sending and with another session
/// sending, which shows what the machine adds. Queue length and pace are the same in each case.
fn under_load() -> io::Result<()> {
    const BATCH: usize = 3_500;
    const BACKLOG: usize = 40 * BATCH;
    const CALLS: usize = 5_000;
    const ROUNDS: usize = 40;
    const PACE: Duration = Duration::from_micros(2);
    let sink = Sink::start(Mode::Responds)?;
    // This many queued bytes also trigger a send.
    let start = |threshold, bytes| {
        ours::over_ureq(&sink.url)
            .0
            .max_batch_size(BATCH)
            .max_batch_bytes(bytes)
            .flush_threshold(threshold)
            .flush_interval(Duration::ZERO)
            .max_queue_size(1_000_000)
            .max_queue_bytes(512 << 20)
            .start()
            .expect("the session starts")
    };
    // The first session sends only after the measurement.
    let (quiet, other, busy) = (
        start(1_000_000, 1 << 30),
        start(BATCH, 1 << 20),
        start(BATCH, 1 << 20),
    );
    let rows = [(&quiet, None), (&quiet, Some(&other)), (&busy, None)];
    let mut rounds = rows.map(|_| Vec::new());
    let fill = |session: &Session<OverUreq>| {
        for _ in 0..BACKLOG {
            assert!(session.log(NAME, event::large()));
        }
    };
    let mut left = 0;
    for round in 0..=ROUNDS {
        for ((session, sender), rounds) in rows.into_iter().zip(&mut rounds) {
            fill(session);
            if let Some(sender) = sender {
                fill(sender);
            }
            let mut calls = Latencies::with_capacity(CALLS);
            sample(session, event::large, PACE, &mut calls, CALLS);
            // The first round only warms up the memory.
            if round > 0 {
                rounds.push(calls);
            }
            let sending = sender.unwrap_or(&busy);
            left += usize::from(sending.stats().queued > BATCH as u64);
            for session in [&quiet, &other, &busy] {
                let drain = session.wait_until_drained_blocking(BOUND);
                assert!(drain.is_ok_and(|drain| drain.all_delivered()));
            }
        }
    }
    println!();
    titles("One call of log, ns, 500 000 calls/s");
    let [quiet, elsewhere, busy] = &mut rounds;
    println!("{:<44}{}", "no sending", pooled(quiet));
    println!(
        "{:<44}{}",
        "another session sends batches of 1 MiB",
        pooled(elsewhere)
    );
    println!("{:<44}{}", "this session sends them", pooled(busy));
    for (name, before) in [
        ("difference from no sending", &mut *quiet),
        ("difference from another session", &mut *elsewhere),
    ] {
        row_of(name, pooled(busy).since(pooled(before)));
        let rounds = busy.iter_mut().zip(before);
        let differences: Vec<_> = rounds
            .map(|(busy, before)| busy.percentiles().since(before.percentiles()))
            .collect();
        row_of("  median over the rounds", medians(&differences));
    }
    println!(
        "\n(batches still to be sent at the end in {left} of {} rounds)",
        2 * (ROUNDS + 1)
    );
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Threads

fn threads() {
    const BURSTS: usize = 5_000;
    const BURST: u32 = 100;
    const EVERY: Duration = Duration::from_micros(300);
    let session = ours::to_nowhere()
        .max_queue_size(1_000_000)
        .max_queue_bytes(256 << 20)
        .start()
        .expect("the session starts");
    let bursts = |handle: Handle| {
        move || {
            let mut times = Vec::with_capacity(BURSTS);
            let mut next = Instant::now();
            for _ in 0..BURSTS {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                let start = Instant::now();
                for _ in 0..BURST {
                    assert!(handle.log(NAME, event::usual()));
                }
                times.push(start.elapsed().as_nanos() as f64 / f64::from(BURST));
                next = (next + EVERY).max(Instant::now());
            }
            times
        }
    };
    let mut rows: [Vec<f64>; 2] = Default::default();
    let mut means: [Vec<f64>; 2] = Default::default();
    for _ in 0..5 {
        for (count, row) in [(1, 0), (2, 1)] {
            let times: Vec<f64> = thread::scope(|scope| {
                let threads: Vec<_> = (0..count)
                    .map(|_| scope.spawn(bursts(session.handle())))
                    .collect();
                threads
                    .into_iter()
                    .flat_map(|thread| thread.join().expect("the thread ends"))
                    .collect()
            });
            means[row].push(times.iter().sum::<f64>() / times.len() as f64);
            rows[row].push(median(times));
        }
    }
    let ([one, two], [mean_one, mean_two]) = (rows.map(median), means.map(median));
    println!("\n{BURST} events every {EVERY:?}, ns an event     median      mean");
    println!("{:<40}{one:>10.0}{mean_one:>10.0}", "one thread");
    println!("{:<40}{two:>10.0}{mean_two:>10.0}", "two threads, each");
    println!(
        "{:<40}{:>10.2}{:>10.2}",
        "ratio",
        two / one,
        mean_two / mean_one
    );
}
