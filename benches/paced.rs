//! The whole call of `log` at the pace of a program that does something else in between, beside an empty call at the
//! same pace (two clock reads, after the same sleep), one that encodes the event and throws it away (the null sink), and a
//! client by hand (`benches::buffer`).
//!
//! `cargo bench -p benches --bench paced` runs three parts: `steady` (a call each millisecond), `bursts` (100 calls every
//! 300 µs), and `spinning` (`steady` for a caller that spins in between). A word after `--` runs only that part, and a
//! number sets the seconds for each row (8). Unless it spins, the caller sleeps until its next call is due: its caches
//! are as cold as in life, which an empty call does not notice. The options are the defaults, the driver sends over a
//! socket to a process that responds at once, and the rows take turns.

use benches::buffer::{Buffer, Discard};
use benches::cpu;
use benches::event::{self, NAME};
use benches::figures::{Latencies, Percentiles};
use benches::ours::{self, BOUND, OverUreq, Session};
use benches::sink::{self, Mode, Sink};
use core::hint::black_box;
use core::time::Duration;
use std::env;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

const ROUNDS: u32 = 2;
const WARM_UP: Duration = Duration::from_secs(2);
/// Before each turn, because the other rows have had theirs.
const LEAD_IN: Duration = Duration::from_millis(200);
/// The default of `flush_threshold`.
const BATCH: usize = 100;

#[derive(Clone, Copy)]
struct Pace {
    calls: usize,
    every: Duration,
    spins: bool,
}

const STEADY: Pace = Pace {
    calls: 1,
    every: Duration::from_millis(1),
    spins: false,
};

const SPINNING: Pace = Pace {
    spins: true,
    ..STEADY
};

const BURSTS: Pace = Pace {
    calls: 100,
    every: Duration::from_micros(300),
    spins: false,
};

fn main() -> io::Result<ExitCode> {
    if sink::is_this_process() {
        return Ok(ExitCode::SUCCESS);
    }
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let seconds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(8);
    let is_wanted = |part: &str| {
        let mut parts = words.iter().filter(|word| word.parse::<u64>().is_err());
        parts.clone().next().is_none() || parts.any(|word| word == part)
    };
    let time = Duration::from_secs(seconds);
    let mut kept_up = true;
    if is_wanted("steady") {
        kept_up &= part("One call each millisecond, ns", STEADY, time)?;
    }
    if is_wanted("bursts") {
        kept_up &= part("100 calls every 300 µs, ns", BURSTS, time)?;
    }
    if is_wanted("spinning") {
        kept_up &= part("One each millisecond, spinning, ns", SPINNING, time)?;
    }
    Ok(if kept_up {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Pace {
    /// Calls at this pace, and returns the number of calls.
    fn run(
        self,
        time: Duration,
        into: &mut Latencies,
        firsts: &mut Latencies,
        mut call: impl FnMut(),
    ) -> u64 {
        let mut next = Instant::now();
        let end = next + time;
        let mut count = 0;
        while next < end {
            if self.spins {
                while Instant::now() < next {
                    core::hint::spin_loop();
                }
            } else {
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            for at in 0..self.calls {
                let start = Instant::now();
                call();
                let took = start.elapsed();
                into.push(took);
                if at == 0 {
                    firsts.push(took);
                }
            }
            count += self.calls as u64;
            // What was missed is not made up for.
            next = (next + self.every).max(Instant::now());
        }
        count
    }

    fn calls_in(self, time: Duration) -> usize {
        (time.as_nanos() / self.every.as_nanos()) as usize * self.calls
    }
}

/// What a row has measured.
struct Row {
    calls: Latencies,
    /// The first call of each burst again, by itself: it finds its code and data out of the caches.
    firsts: Latencies,
    events: u64,
    sleeps: u64,
}

impl Row {
    fn new(pace: Pace, time: Duration) -> Self {
        Self {
            calls: Latencies::with_capacity(pace.calls_in(time) + 2 * pace.calls),
            firsts: Latencies::with_capacity(pace.calls_in(time) / pace.calls + 2),
            events: 0,
            sleeps: 0,
        }
    }

    fn turn(&mut self, pace: Pace, time: Duration, mut call: impl FnMut(), drain: impl FnOnce()) {
        let mut ignored = Latencies::with_capacity(2 * pace.calls_in(LEAD_IN));
        pace.run(LEAD_IN, &mut ignored, &mut Latencies::default(), &mut call);
        let before = cpu::sleeps_of_other_threads();
        self.events += pace.run(time, &mut self.calls, &mut self.firsts, call);
        self.sleeps += cpu::sleeps_of_other_threads() - before;
        drain();
    }

    fn print(&mut self, name: &str) -> Percentiles {
        let percentiles = self.calls.percentiles();
        let per_thousand = self.sleeps as f64 * 1_000.0 / self.events as f64;
        println!(
            "{name:<36}{percentiles}{:>10}{per_thousand:>10.1}",
            self.events
        );
        percentiles
    }
}

/// Returns whether the driver kept up, without which the figures are not those of the load.
fn part(title: &str, pace: Pace, time: Duration) -> io::Result<bool> {
    let (theirs, mut sink) = (Sink::start(Mode::Responds)?, Sink::start(Mode::Responds)?);
    let by_hand = Buffer::start(&theirs.url, BATCH);
    let session = ours::over_ureq(&sink.url)
        .0
        .start()
        .expect("the session starts");
    let log = || {
        // A refusal shows in the ledger.
        black_box(session.log(NAME, event::usual()));
    };
    let log_by_hand = || by_hand.log(event::usual());
    let mut ignored = Latencies::with_capacity(pace.calls_in(WARM_UP));
    pace.run(WARM_UP, &mut ignored, &mut Latencies::default(), log);
    let mut discard = Discard::new(BATCH);
    let mut rows = [(); 4].map(|()| Row::new(pace, time));
    let [empty, null, hand, ours] = &mut rows;
    let turn = time / ROUNDS;
    for _ in 0..ROUNDS {
        empty.turn(pace, turn, || {}, || {});
        null.turn(pace, turn, || discard.log(event::usual()), || {});
        hand.turn(pace, turn, log_by_hand, || {
            let _ = by_hand.drain();
        });
        ours.turn(pace, turn, log, || {
            let _ = session.wait_until_drained_blocking(BOUND);
        });
    }
    print!("\n{title:<36}");
    for title in Percentiles::TITLES {
        print!("{title:>10}");
    }
    println!("{:>10}{:>10}", "calls", "sleeps*");
    empty.print("empty: two clock reads");
    let floor = null.print("null sink: encode, throw away");
    let hand = hand.print("by hand, a buffer");
    let logged = ours;
    let ours = logged.print("log, Thread and Ureq");
    for (name, row, base) in [
        ("by hand / null sink", hand, floor),
        ("log / null sink", ours, floor),
        ("log / by hand", ours, hand),
    ] {
        print!("{name:<36}");
        for ratio in row.over(base) {
            print!("{ratio:>10.2}");
        }
        println!();
    }
    if pace.calls > 1 {
        println!(
            "the first call of each burst: null sink {}",
            null.firsts.percentiles()
        );
        println!(
            "                              log       {}",
            logged.firsts.percentiles()
        );
    }
    println!("* of the sending thread per 1 000 events, one or more for each request's response");
    check(&session, &mut sink)
}

/// Prints the ledger, and fails unless everything that was accepted was delivered. Returns whether everything was
/// accepted.
fn check(session: &Session<OverUreq>, sink: &mut Sink) -> io::Result<bool> {
    let stats = session.stats();
    println!(
        "ledger: accepted {}, delivered {}, dropped {}, refused {}; {} requests",
        stats.accepted,
        stats.delivered,
        stats.dropped.total(),
        stats.refused.total(),
        sink.counts()?.requests
    );
    assert!(stats.is_balanced());
    assert_eq!(stats.delivered, stats.accepted, "everything was delivered");
    let kept_up = stats.refused.total() == 0;
    if !kept_up {
        println!(
            "The driver fell behind: the machine has too much else to do for these figures to count."
        );
    }
    Ok(kept_up)
}
