//! What a spool costs, compared in one run with a session that sends, with `emit_file` and with a file by hand; and how
//! fast it sends what it has kept.
//!
//! `cargo bench -p benches --bench spool` runs everything; a word after `--` (`throughput`, `recovery`) runs only that
//! part. Files are in the folder for temporary ones, which must be on a disk for the syncs to cost anything. The backend
//! is a separate process on loopback. Rounds interleave all contestants.

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use benches::cpu;
use benches::event::{self, Data, NAME};
use benches::figures::median;
use benches::file::{self, File};
use benches::ours::{self, BOUND};
use benches::sink::{self, Mode, Sink};
use core::time::Duration;
use emit::Emitter as _;
use std::env;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::{Instant, SystemTime};
use tinkex_telemetry::session::Builder;
use tinkex_telemetry::spool::{Spool, SpoolTransport, Sync};
use tinkex_telemetry::{
    Batch, Config, Drain, HttpTransport, Receipt, Reporter, SendError, Thread, Transport, Ureq,
};

/// Where a process that only writes a spool has it.
const WRITES: &str = "SPOOL_BENCH_WRITES";

/// Where a process that recovers finds its spool, and where it sends what is there.
const RECOVERS: &str = "SPOOL_BENCH_RECOVERS";
const URL: &str = "SPOOL_BENCH_URL";

fn main() -> io::Result<()> {
    if sink::is_this_process() {
        return Ok(());
    }
    // The spools say what they leave on disk, which is no news here.
    log::set_max_level(log::LevelFilter::Error);
    if let Some(directory) = env::var_os(WRITES) {
        write(Path::new(&directory));
        return Ok(());
    }
    if let Some(directory) = env::var_os(RECOVERS) {
        return recover(Path::new(&directory));
    }
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let is_wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    if is_wanted("throughput") {
        throughput()?;
    }
    if is_wanted("recovery") {
        recovery()?;
    }
    Ok(())
}

/// A folder that is removed again.
struct Place(PathBuf);

impl Place {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("tinkex-bench-spool-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The lines of all files below a folder that have an event.
fn lines(folder: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            count += lines(&path)?;
            continue;
        }
        let mut bytes = Vec::new();
        fs::File::open(&path)?.read_to_end(&mut bytes)?;
        let lines = bytes.split(|byte| *byte == b'\n');
        let has_event = |line: &&[u8]| line.windows(NAME.len()).any(|it| it == NAME.as_bytes());
        count += lines.filter(has_event).count() as u64;
    }
    Ok(count)
}

// ---------------------------------------------------------------------------------------------------------------------
// Throughput

const ROUNDS: usize = 8;
const EVENTS: u64 = 200_000;

/// So many events are logged before all of them must be written, or sent.
const PIECE: u64 = 100_000;

/// The same for `emit_file`, whose queue holds 10 000 and throws them away when it is full.
const SHORT_PIECE: u64 = 5_000;

#[derive(Clone, Copy)]
enum Contestant {
    Sends,
    Spools(Sync),
    EmitFile,
    ByHand { and_sync: bool },
}

struct Row {
    name: &'static str,
    contestant: Contestant,
    rates: Vec<f64>,
    cpu: Duration,
    writes: u64,
}

fn throughput() -> io::Result<()> {
    let row = |name, contestant| Row {
        name,
        contestant,
        rates: Vec::new(),
        cpu: Duration::ZERO,
        writes: 0,
    };
    let mut rows = [
        row("sent, no spool", Contestant::Sends),
        row("spool, Sync::Never", Contestant::Spools(Sync::Never)),
        row("spool, Sync::OnStop", Contestant::Spools(Sync::OnStop)),
        row(
            "spool, Sync::Every(1 s)",
            Contestant::Spools(Sync::Every(Duration::from_secs(1))),
        ),
        row("emit_file", Contestant::EmitFile),
        row("by hand, BufWriter", Contestant::ByHand { and_sync: false }),
        row(
            "  and a sync at the end",
            Contestant::ByHand { and_sync: true },
        ),
    ];
    let sink = Sink::start(Mode::Responds)?;
    for round in 0..=ROUNDS {
        for row in &mut rows {
            let place = Place::new()?;
            let (took, cpu, writes) = match row.contestant {
                Contestant::Sends => send(&sink.url),
                Contestant::Spools(sync) => spool(&place.0, sync),
                Contestant::EmitFile => emit_file(&place.0)?,
                Contestant::ByHand { and_sync } => by_hand(&place.0, and_sync)?,
            };
            if !matches!(row.contestant, Contestant::Sends) {
                assert_eq!(lines(&place.0)?, EVENTS, "{} lost some", row.name);
            }
            // The first round only warms up.
            if round > 0 {
                row.rates.push(EVENTS as f64 / took.as_secs_f64());
                row.cpu += cpu;
                row.writes += writes;
            }
        }
    }
    println!("\nThroughput: {ROUNDS} rounds of {EVENTS} events, until all are sent or written");
    println!(
        "{:<26}{:>10}{:>10}{:>11}{:>14}{:>10}{:>11}{:>16}",
        "",
        "events/s",
        "/ sent",
        "/ BufWriter",
        "CPU ns/event",
        "/ sent",
        "/ BufWriter",
        "writes / 1 000"
    );
    let bases = [0, 5].map(|at: usize| (rows[at].rates.clone(), rows[at].cpu));
    let all = (ROUNDS as u64 * EVENTS) as f64;
    for row in &rows {
        print!("{:<26}{:>10.0}", row.name, median(row.rates.clone()));
        for ((base, _), width) in bases.iter().zip([10, 11]) {
            let ratios = row.rates.iter().zip(base).map(|(a, b)| a / b);
            print!("{:>width$.2}", median(ratios.collect()));
        }
        print!("{:>14.0}", row.cpu.as_nanos() as f64 / all);
        for ((_, base), width) in bases.iter().zip([10, 11]) {
            print!("{:>width$.2}", row.cpu.as_secs_f64() / base.as_secs_f64());
        }
        println!("{:>16.1}", row.writes as f64 * 1_000.0 / all);
    }
    println!("nothing lost: every event is in the ledger, and on a line of a file");
    Ok(())
}

/// Time, CPU time and write calls of some work.
type Cost = (Duration, Duration, u64);

fn measured<R>(work: impl FnOnce() -> R) -> (R, Cost) {
    let (start, cpu, writes) = (Instant::now(), cpu::time(), cpu::write_calls());
    let result = work();
    let took = start.elapsed();
    (
        result,
        (took, cpu::time() - cpu, cpu::write_calls() - writes),
    )
}

fn send(url: &str) -> Cost {
    let (builder, _) = ours::over_ureq(url);
    let (drain, cost) = log_all(builder);
    assert!(drain.all_delivered(), "{drain:?}");
    cost
}

fn spool(folder: &Path, sync: Sync) -> Cost {
    let spool = start(&folder.join("spool"), Backend::Away, sync);
    let (drain, cost) = log_all(into(&spool));
    assert!(drain.all_safe() && drain.delivered == 0, "{drain:?}");
    let stats = spool.stats();
    // With the session's start and end.
    assert!(
        stats.is_balanced() && stats.stored == EVENTS + 2,
        "{stats:?}"
    );
    cost
}

/// A spool with room for everything, which tries a backend that is away once.
fn start(path: &Path, backend: impl Transport, sync: Sync) -> Spool {
    Spool::builder(path)
        .transport(backend)
        .destination("the benchmark's")
        .runtime(Thread)
        .max_bytes(4 << 30)
        .sync(sync)
        .retry_base_delay(Duration::from_secs(60))
        .enabled(true)
        .start()
        .expect("the spool starts")
}

fn into(spool: &Spool) -> Builder<SpoolTransport, Thread, Thread> {
    Reporter::builder("spool")
        .transport(spool.transport())
        .runtime(Thread)
        .enabled(true)
}

/// Logs all events in a session, and stops it.
fn log_all<T: Transport>(builder: Builder<T, Thread, Thread>) -> (Drain, Cost) {
    let session = builder
        .max_queue_size(PIECE as usize + 10)
        .max_queue_bytes(64 << 20)
        .start()
        .expect("the session starts");
    measured(|| {
        for n in 1..=EVENTS {
            assert!(session.log(NAME, event::usual()));
            if n % PIECE == 0 {
                let drain = session.wait_until_drained_blocking(BOUND);
                assert!(drain.is_ok_and(|drain| drain.all_safe()));
            }
        }
        session.stop_blocking(BOUND).expect("no deadlock")
    })
}

fn emit_file(folder: &Path) -> io::Result<Cost> {
    let files = emit_file::set(folder.join("events.ndjson")).spawn();
    let (is_flushed, cost) = measured(|| {
        let mut is_flushed = true;
        for n in 1..=EVENTS {
            let at = emit::Timestamp::from_system_time(SystemTime::now());
            let Data {
                tokens,
                cached,
                model,
            } = event::usual();
            files.emit(emit::Event::new(
                emit::path!("benches"),
                emit::Template::literal(NAME),
                at,
                emit::props! { tokens, cached, model },
            ));
            if n % SHORT_PIECE == 0 {
                is_flushed &= files.blocking_flush(BOUND);
            }
        }
        is_flushed
    });
    assert!(is_flushed, "emit_file is late");
    Ok(cost)
}

fn by_hand(folder: &Path, and_sync: bool) -> io::Result<Cost> {
    let file = File::create(&folder.join("events.ndjson"))?;
    let (result, cost) = measured(|| {
        for n in 1..=EVENTS {
            file.log(event::usual())?;
            if n % PIECE == 0 {
                file.flush(false)?;
            }
        }
        file.flush(and_sync)
    });
    result.map(|()| cost)
}

/// A backend in this process: away, or it accepts everything at once.
#[derive(Clone, Copy)]
enum Backend {
    Away,
    Here,
}

impl Transport for Backend {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        core::hint::black_box(batch.body());
        match self {
            Self::Away => Err(SendError::retryable("away")),
            Self::Here => Ok(Receipt::delivered()),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Recovery

/// What is recovered: so many times `EVENTS`, a million.
const TIMES: u64 = 5;

/// How a process recovers.
#[derive(Clone, Copy)]
enum Way {
    /// It is read, checked and noted as settled; a backend in the same process accepts all.
    Here,
    /// It is sent over HTTP.
    Sent,
    /// Lines of a file are posted by hand.
    ByHand,
}

/// Writes a spool, five sessions one after the other, and prints the number of events.
fn write(directory: &Path) {
    let spool = start(directory, Backend::Away, Sync::Never);
    for _ in 0..TIMES {
        let (drain, _) = log_all(into(&spool));
        assert!(drain.all_safe(), "{drain:?}");
    }
    println!("{}", spool.stats().stored);
}

/// Recovers what is in the variables, and prints events per second, KiB of memory, and CPU nanoseconds per event.
fn recover(directory: &Path) -> io::Result<()> {
    let url = env::var(URL).unwrap_or_default();
    let before = cpu::memory("VmRSS:");
    let (events, (took, cpu, _)) = if directory.is_file() {
        let (sent, cost) = measured(|| file::post(directory, &url, 100));
        (sent?.events, cost)
    } else if url.is_empty() {
        drain(directory, Backend::Here)
    } else {
        let config = Config::new(&url, "sk-0123456789").expect("the config is valid");
        drain(directory, HttpTransport::new(config, Ureq::new()))
    };
    println!(
        "{events} {} {} {}",
        events as f64 / took.as_secs_f64(),
        cpu::memory("VmHWM:") - before,
        cpu.as_nanos() as f64 / events as f64
    );
    Ok(())
}

fn drain(directory: &Path, backend: impl Transport) -> (u64, Cost) {
    measured(|| {
        let spool = start(directory, backend, Sync::Never);
        let left = spool.wait_until_delivered_blocking(Duration::MAX);
        let stats = spool.stats();
        assert!(left.is_ok_and(|left| left.is_empty()), "{stats:?}");
        assert!(stats.is_balanced() && stats.unreadable == 0, "{stats:?}");
        stats.delivered
    })
}

fn recovery() -> io::Result<()> {
    println!("\nRecovery of {} events in a new process", TIMES * EVENTS);
    println!(
        "{:<34}{:>10}{:>11}{:>14}{:>11}{:>14}",
        "", "events/s", "/ by hand", "CPU ns/event", "/ by hand", "memory, KiB"
    );
    let ways = [
        ("lines of a file posted by hand", Way::ByHand),
        ("spool, over HTTP", Way::Sent),
        ("spool, to a backend in the process", Way::Here),
    ];
    let mut base = None;
    for (name, way) in ways {
        let [rate, memory, cpu] = recovered(way)?;
        let (base_rate, base_cpu) = *base.get_or_insert((rate, cpu));
        println!(
            "{name:<34}{rate:>10.0}{:>11.2}{cpu:>14.0}{:>11.2}{memory:>14.0}",
            rate / base_rate,
            cpu / base_cpu
        );
    }
    Ok(())
}

/// Writes what is to be recovered, and recovers it in another process: events per second, memory, CPU per event.
fn recovered(way: Way) -> io::Result<[f64; 3]> {
    let place = Place::new()?;
    let path = place.0.join("kept");
    let written = if matches!(way, Way::ByHand) {
        let file = File::create(&path)?;
        for _ in 0..TIMES * EVENTS {
            file.log(event::usual())?;
        }
        file.flush(false)?;
        TIMES * EVENTS
    } else {
        // By a process that ends: nothing is claimed from one that lives.
        let output = Command::new(env::current_exe()?)
            .env(WRITES, &path)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let stored = text.trim().parse();
        stored.map_err(|_| io::Error::other(format!("it failed: {output:?}")))?
    };
    let mut sink = Sink::start(Mode::Responds)?;
    let mut command = Command::new(env::current_exe()?);
    command.env(RECOVERS, &path);
    if !matches!(way, Way::Here) {
        command.env(URL, &sink.url);
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [events, rate, memory, cpu] = figures[..] else {
        return Err(io::Error::other(format!("it failed: {output:?}")));
    };
    assert_eq!(events as u64, written, "all of it");
    let is_sent = sink.counts()?.requests >= written / 100;
    assert!(
        is_sent || matches!(way, Way::Here),
        "the sink has all of it"
    );
    Ok([rate, memory, cpu])
}
