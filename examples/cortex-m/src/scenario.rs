//! What the firmware does, with identical requests on a microcontroller and, in mock time, on a host.
//!
//! Also what this package's programs share: the board's executor and time.
#![no_std]

#[cfg(target_os = "none")]
pub mod executor;
#[cfg(target_os = "none")]
pub mod section;
#[cfg(target_os = "none")]
pub mod time;

use core::fmt::{self, Write};
use core::future::pending;
use core::marker::PhantomData;
use core::time::Duration;
use embassy_time::Timer;
use serde::Serialize;
use serde::ser::{Error as _, Serializer};
use tinkex_telemetry::event::StatusError;
use tinkex_telemetry::local::LocalTransport;
use tinkex_telemetry::runtime::Embassy;
use tinkex_telemetry::session::{Builder, Entropy, Memory};
use tinkex_telemetry::time::Timestamp;
use tinkex_telemetry::transport::RetryAfter;
use tinkex_telemetry::{
    Batch, Handle, Options, Receipt, Reporter, SendError, Severity, Stats, fields,
};

/// The sizes of the queue and of the request buffer, in bytes.
pub const QUEUE: usize = 8 * 1024;
/// See [`QUEUE`].
pub const BATCH: usize = 4 * 1024;

/// A session's memory.
pub type SessionMemory = Memory<Embassy, QUEUE, BATCH>;

/// A console to print to.
pub trait Console {
    /// Prints these bytes.
    fn print(&self, bytes: &[u8]);
}

struct Formatted<'a, C>(&'a C);

impl<C: Console> Write for Formatted<'_, C> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.print(text.as_bytes());
        Ok(())
    }
}

/// Prints formatted text.
pub fn print(console: &impl Console, text: fmt::Arguments<'_>) {
    // A console does not fail.
    let _ = Formatted(console).write_fmt(text);
}

/// The backend's scripted responses, one per attempt; further attempts succeed.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// 200.
    Ok,
    /// No connection.
    Refused,
    /// No response.
    Silence,
    /// 429, with `Retry-After: 3`.
    Later,
    /// Any other status.
    Status(u16),
}

/// The backend's responses in the scenario.
pub const REPLIES: &[Reply] = &[
    Reply::Refused,
    Reply::Ok,
    Reply::Silence,
    Reply::Status(503),
    Reply::Ok,
    Reply::Later,
    Reply::Ok,
    Reply::Status(400),
    Reply::Status(413),
    Reply::Status(413),
    Reply::Ok,
    Reply::Status(503),
];

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("200"),
            Self::Refused => f.write_str("refused"),
            Self::Silence => f.write_str("silence"),
            Self::Later => f.write_str("429"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

/// Prints each request and returns the next scripted response. Not `Send`, like most device drivers.
pub struct Printer<C: 'static> {
    console: &'static C,
    replies: &'static [Reply],
    not_send: PhantomData<*const ()>,
}

impl<C: Console> Printer<C> {
    /// Returns these responses, then `200` forever.
    pub fn new(console: &'static C, replies: &'static [Reply]) -> Self {
        Self {
            console,
            replies,
            not_send: PhantomData,
        }
    }

    fn next_reply(&mut self) -> Reply {
        match self.replies.split_first() {
            Some((first, rest)) => {
                self.replies = rest;
                *first
            }
            None => Reply::Ok,
        }
    }
}

impl<C: Console> LocalTransport for Printer<C> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let reply = self.next_reply();
        let (attempt, key) = (batch.attempt(), batch.idempotency_key());
        // A console does not fail.
        let _ = write!(Formatted(self.console), "request {attempt} {key} {reply} ");
        self.console.print(batch.body());
        self.console.print(b"\n");
        match reply {
            Reply::Ok => Ok(Receipt::delivered()),
            Reply::Refused => Err(SendError::retryable("connection refused")),
            Reply::Silence => pending().await,
            Reply::Later => {
                let delay = RetryAfter::Delay(Duration::from_secs(3));
                Err(SendError::retryable("status 429").retry_after(delay))
            }
            Reply::Status(413) => Err(SendError::too_large("status 413")),
            Reply::Status(status @ 500..) => {
                Err(SendError::retryable(format_args!("status {status}")))
            }
            Reply::Status(status) => Err(SendError::rejected(format_args!("status {status}"))),
        }
    }
}

/// A session configured for a small device. In production, each device needs its own entropy.
pub fn session<T>(id: &'static str, seed: u8, transport: T) -> Builder<T, Embassy, ()> {
    /// 2026-01-01 plus the time since the start.
    fn utc() -> Timestamp {
        const STARTED: u64 = 1_767_225_600_000_000;
        Timestamp::from_unix_micros(STARTED + embassy_time::Instant::now().as_micros())
    }

    let mut options = Options::default();
    options.flush_interval = Duration::from_secs(2);
    options.flush_threshold = 16;
    options.http_timeout = Duration::from_secs(1);
    options.retry_base_delay = Duration::from_millis(500);
    options.retry_max_delay = Duration::from_secs(10);
    options.max_queue_size = 40;
    // A host has an allocator, and with it the report of losses, which would be one event more.
    #[cfg(not(target_os = "none"))]
    {
        options.loss_report = false;
    }
    options.max_batch_size = 12;
    options.max_event_bytes = 1024;
    Reporter::builder(id)
        .transport(transport)
        .clock(Embassy.with_utc(utc))
        .options(options)
        .platform("bare/metal")
        .sdk_version("1.0.0")
        .entropy(Entropy::new([seed; 32]))
        .enabled(true)
}

#[derive(Serialize)]
struct Sample {
    n: u32,
    celsius: i16,
    volts: [u16; 3],
    state: State,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Idle,
    Busy { since: u32 },
}

impl Sample {
    const fn new(n: u32) -> Self {
        Self {
            n,
            celsius: 215 - (n % 50) as i16 * 7,
            volts: [3300, 3298, n as u16],
            state: match n % 2 {
                0 => State::Idle,
                _ => State::Busy { since: n / 2 },
            },
        }
    }
}

/// A task that logs a sample every 300 ms until the session has ended.
pub async fn sample(telemetry: Handle) {
    Timer::after_millis(150).await;
    let mut n = 0;
    while !telemetry.stats().session_ended {
        telemetry.log("sample", Sample::new(n));
        n += 1;
        Timer::after_millis(300).await;
    }
}

/// The interrupt handler.
pub fn interrupted(telemetry: &Handle) {
    telemetry.log_with("button", fields! { pressed: true }, Severity::Warning);
}

/// More than is copied in one critical section, with some characters that JSON escapes.
const PAGE: &str = concat!(
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore ",
    "magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo ",
    "consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur. ",
    "\"Excepteur\" sint\\occaecat\tcupidatat\u{1} non proident\n\u{e9}\u{20ac}",
);

/// Data that cannot be encoded.
struct Failing;

impl Serialize for Failing {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("the sensor is not there"))
    }
}

/// The whole run, concurrent with [`sample`]. `interrupt` raises an interrupt whose handler calls [`interrupted`].
///
/// # Errors
/// The first expectation that fails.
pub async fn run<T, C: Console>(
    reporter: Reporter<T, Embassy, ()>,
    console: &C,
    interrupt: impl Fn(),
) -> Result<(), &'static str> {
    ensure(
        reporter.log(
            "app.started",
            fields! { version: "1.2.3", reset: "power on" },
        ),
        "a new session has room",
    )?;
    for _ in 0..4 {
        Timer::after_secs(1).await;
        interrupt();
    }
    ensure(reporter.log("page", fields! { text: PAGE }), "a page fits")?;
    Timer::after_secs(4).await;

    let is_accepted = reporter.log("failing", Failing)
        || reporter.log("failing", fields! { part: Failing })
        || reporter.log("large", fields! { a: PAGE, b: PAGE, c: PAGE });
    ensure(!is_accepted, "the data cannot be encoded, or are too large")?;
    reporter.log_exception(&fmt::Error, Severity::Error);
    reporter.log_exception(&StatusError::new(404), Severity::Error);
    Timer::after_secs(6).await;

    let log = |n: &u32| reporter.log_with("burst", fields! { n: n }, Severity::Debug);
    let accepted = (0..60).filter(log).count();
    interrupt();
    ensure(
        (1..40).contains(&accepted),
        "the burst overfills the queue: some are refused",
    )?;
    let drain = reporter.wait_until_drained(Duration::from_secs(30)).await;
    ensure(drain.is_drained(), "what was accepted is settled")?;

    Timer::after_millis(700).await;
    ensure(reporter.log("app.stopping", ()), "there is room again")?;
    let drain = reporter.stop(Duration::from_secs(10)).await;
    ensure(drain.all_delivered(), "the rest is delivered")?;
    ensure(!reporter.log("late", ()), "the session has ended")?;
    print_ledger(console, &reporter.stats());
    Ok(())
}

/// Ends the run with an error if an expectation fails.
pub fn ensure(is_so: bool, what: &'static str) -> Result<(), &'static str> {
    if is_so { Ok(()) } else { Err(what) }
}

/// Prints the ledger for the host to check.
pub fn print_ledger(console: &impl Console, stats: &Stats) {
    let (dropped, refused) = (&stats.dropped, &stats.refused);
    let _ = writeln!(
        Formatted(console),
        "ledger accepted={} delivered={} queued={} rejected={} too_large={} retries_exhausted={} shutdown={} \
         queue_full={} event_too_large={} unencodable={} session_ended={}",
        stats.accepted,
        stats.delivered,
        stats.queued,
        dropped.rejected,
        dropped.too_large,
        dropped.retries_exhausted,
        dropped.shutdown,
        refused.queue_full,
        refused.event_too_large,
        refused.unencodable,
        refused.session_ended,
    );
}
