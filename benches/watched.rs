//! Programs for tools to watch: `ci/syscalls` counts the system calls of the thread that logs, `ci/lock` the instructions
//! under the session's lock. By itself this measures nothing.
//!
//! The main thread logs, and no other does. It marks each phase by a system call that tools can tell from all others: it
//! seeks in an empty file, to [`MARK`] plus the phase. The first word after `--` says what to do, the others are numbers.

use benches::event::{self, NAME};
use benches::ours::{self, BOUND, OverUreq, Session};
use benches::sink::{self, Mode, Sink};
use core::hint::black_box;
use core::pin::pin;
use core::time::Duration;
use std::env;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::thread;
use std::time::Instant;

mod nowhere;

const PACE: Duration = Duration::from_millis(1);
const BURST: usize = 100;
/// A round stays below the default of `max_queue_size`, so that nothing is refused.
const LEAD_IN: usize = 1_000;
const ROUND: usize = 8_000;

fn main() -> io::Result<()> {
    if sink::is_this_process() {
        return Ok(());
    }
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let number = |at: usize, usual| {
        words
            .get(at)
            .and_then(|word| word.parse().ok())
            .unwrap_or(usual)
    };
    match words.first().map(String::as_str) {
        Some("paced") => over_a_socket(number(1, 10), |session, marks| {
            marks.begin(Phase::Paced);
            pace(session, number(2, 100_000));
        }),
        Some("flat-out") => over_a_socket(number(1, 10), |session, marks| {
            flat_out(session, marks, number(2, 100_000))
        }),
        Some("bursts") => {
            bursts(number(1, 10_000));
            Ok(())
        }
        _ => {
            println!(
                "paced SECONDS CALLS, flat-out SECONDS CALLS, or bursts CALLS; see ci/syscalls and ci/lock"
            );
            Ok(())
        }
    }
}

const MARK: u64 = 7_000_000;

#[derive(Clone, Copy)]
enum Phase {
    WarmUp = 1,
    Paced,
    LeadIn,
    FlatOut,
    Drain,
    End,
}

/// What marks the phases.
struct Marks(File);

impl Marks {
    fn begin(&self, phase: Phase) {
        let _ = (&self.0).seek(SeekFrom::Start(MARK + phase as u64));
    }
}

fn log(session: &Session<OverUreq>) {
    // A refusal shows in the ledger.
    black_box(session.log(NAME, event::usual()));
}

/// Warms up a session with the default options, runs `work`, and checks the ledger.
fn over_a_socket(warm_up: usize, work: impl FnOnce(&Session<OverUreq>, &Marks)) -> io::Result<()> {
    let mut sink = Sink::start(Mode::Responds)?;
    let session = ours::over_ureq(&sink.url)
        .0
        .start()
        .expect("the session starts");
    let marks = Marks(File::open("/dev/null")?);
    marks.begin(Phase::WarmUp);
    pace(&session, warm_up * 1_000);
    work(&session, &marks);
    marks.begin(Phase::End);
    let drain = session.wait_until_drained_blocking(BOUND);
    let stats = session.stats();
    println!(
        "ledger: accepted {}, delivered {}, dropped {}, refused {}; {} requests",
        stats.accepted,
        stats.delivered,
        stats.dropped.total(),
        stats.refused.total(),
        sink.counts()?.requests
    );
    assert!(drain.is_ok_and(|drain| drain.is_drained()));
    assert!(stats.is_balanced());
    assert_eq!(stats.delivered, stats.accepted, "everything was delivered");
    assert_eq!(stats.refused.total(), 0, "the driver kept up");
    Ok(())
}

fn pace(session: &Session<OverUreq>, calls: usize) {
    let mut next = Instant::now();
    for _ in 0..calls {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        log(session);
        next = (next + PACE).max(Instant::now());
    }
}

/// Logs in rounds. The lead-in of each begins on an empty queue; the rest finds the driver at work.
fn flat_out(session: &Session<OverUreq>, marks: &Marks, calls: usize) {
    for _ in 0..calls.div_ceil(ROUND) {
        marks.begin(Phase::LeadIn);
        (0..LEAD_IN).for_each(|_| log(session));
        marks.begin(Phase::FlatOut);
        (0..ROUND).for_each(|_| log(session));
        marks.begin(Phase::Drain);
        let _ = session.wait_until_drained_blocking(BOUND);
    }
}

/// Logs bursts into a session that discards them, and polls its driver in between.
fn bursts(calls: usize) {
    let (reporter, driver) = nowhere::session("watched")
        .build()
        .expect("the defaults are valid");
    let mut driver = pin!(driver.run());
    let handle = reporter.handle();
    for _ in 0..calls.div_ceil(BURST) {
        for _ in 0..BURST {
            assert!(handle.log(NAME, event::usual()));
        }
        nowhere::drain(&handle, driver.as_mut());
    }
    println!("events in total: {}", handle.stats().accepted);
}
