//! A workload: what an application might do, drawn from a seed and written down, so that a failure can be made shorter.

use super::Fault;
use super::calm::calm;
use super::env::{Env, Life, SimReporter};
use super::rng::Rng;
use super::run::settling_bound;
use crate::event::Severity;
use crate::session::{Handle, Options};
use crate::stats::Drain;
use crate::{fields, sometimes};
use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::time::Duration;
use serde::{Serialize, Serializer, ser::Error as _};

/// One thing that an application does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Logs so many events.
    Log(u32),
    /// Logs an event with a text of so many bytes.
    LogText(u32),
    /// Logs something that cannot be encoded.
    LogUnencodable,
    /// Logs something that panics while it is encoded.
    LogPanics,
    /// Logs something that logs while it is encoded.
    LogNested,
    /// Logs more events than any queue here takes.
    Burst,
    /// Logs an error.
    Exception,
    /// Logs an error that ends the session, and waits.
    Fatal,
    /// Asks for a flush.
    Flush,
    /// Lets so many milliseconds pass.
    Pass(u64),
    /// Waits until all is settled, at most so many milliseconds.
    Drain(u64),
    /// Begins such a wait and gives it up after so many milliseconds.
    GiveUpDrain(u64),
    /// Ends the session, within so many milliseconds.
    Stop(u64),
    /// Drops the reporter and opens another session.
    Reopen,
    /// Drops the driver where it waits.
    DropDriver,
    /// Heals all faults.
    Heal,
}

/// What an application does, with the options of its sessions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Workload {
    /// The options of each session.
    pub options: Options,
    /// One after the other.
    pub ops: Vec<Op>,
}

impl Workload {
    /// Small queues and batches, so that every limit is met, and up to sixty things to do.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, 6);
        let mut pick = |values: &[u64]| values[rng.below(values.len() as u64) as usize];
        let mut options = Options::default();
        options.max_queue_size = pick(&[5, 20, 100, 1_000]) as usize;
        options.flush_threshold =
            pick(&[1, 5, 20, 100]).min(options.max_queue_size as u64) as usize;
        options.max_batch_size = pick(&[1, 7, 100]) as usize;
        options.max_event_bytes = pick(&[1_024, 4_096]) as usize;
        options.max_batch_bytes = pick(&[6_000, 100_000]) as usize;
        options.max_queue_bytes = pick(&[16_384, 1_000_000]) as usize;
        options.flush_interval = Duration::from_secs(pick(&[0, 1, 10]));
        options.http_timeout = Duration::from_millis(pick(&[200, 5_000]));
        options.max_retries = pick(&[0, 1, 3, 8]) as u32;
        options.retry_base_delay = Duration::from_millis(pick(&[1, 100, 1_000]));
        options.retry_max_delay = Duration::from_secs(pick(&[1, 60]));
        options.flush_timeout = Duration::from_secs(pick(&[1, 30]));
        options.drop_timeout = Duration::from_secs(pick(&[0, 5]));
        let count = 1 + pick(&[4, 15, 60]);
        let ops = (0..count).map(|_| op(&mut rng)).collect();
        Self { options, ops }
    }

    /// Does it all, and checks what each operation promises.
    pub async fn run(self, env: Env) {
        let mut session = Session::open(&env, &self.options);
        for op in self.ops {
            if env.strikes(Fault::ShutdownInRetry) {
                let _ = session.stop(Duration::from_secs(1)).await;
            }
            session.step(op).await;
        }
        let is_healed = env.0.healed_at.get().is_some();
        if env.random(2) == 0 {
            session.settle().await;
        }
        let drain = session.stop(Duration::from_secs(10)).await;
        sometimes!(
            is_healed && drain.all_delivered(),
            "all is delivered after healing"
        );
        env.heal();
        // The promises about time do not reach beyond the clock's end.
        if env.now().as_micros() < u64::MAX / 2 {
            calm(&env, &self.options).await;
        }
    }
}

fn op(rng: &mut Rng) -> Op {
    let kind = rng.below(100);
    let millis = [0, 1, 50, 1_000, 11_000, 90_000][rng.below(6) as usize];
    let millis = millis + rng.below(millis / 2 + 2);
    match kind {
        0..30 => Op::Log(1 + rng.below(30) as u32),
        30..36 => Op::LogText(rng.below(5_000) as u32),
        36..38 => Op::LogUnencodable,
        38..40 => Op::LogPanics,
        40..42 => Op::LogNested,
        42..45 => Op::Burst,
        45..49 => Op::Exception,
        49..51 => Op::Fatal,
        51..57 => Op::Flush,
        57..80 => Op::Pass(millis),
        80..87 => Op::Drain(millis),
        87..90 => Op::GiveUpDrain(millis),
        90..92 => Op::Stop(millis),
        92..95 => Op::Reopen,
        95..98 => Op::DropDriver,
        _ => Op::Heal,
    }
}

/// The session at hand.
pub(super) struct Session {
    pub(super) env: Env,
    pub(super) options: Options,
    number: usize,
    pub(super) reporter: Option<SimReporter>,
    pub(super) handle: Handle,
    /// That of the first stop.
    stop_deadline: Option<crate::time::Instant>,
}

impl Session {
    pub(super) fn open(env: &Env, options: &Options) -> Self {
        let number = env.0.sessions.borrow().len();
        let reporter = env.reporter(options.clone());
        Self {
            env: env.clone(),
            options: options.clone(),
            number,
            handle: reporter.handle(),
            reporter: Some(reporter),
            stop_deadline: None,
        }
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Log(count) => self.log(count),
            Op::LogText(bytes) => self.log_text(bytes),
            Op::LogUnencodable => self.expect_refusal(Unencodable),
            Op::LogPanics => self.expect_refusal(Panics),
            Op::LogNested => {
                let accepted = self.handle.log("nested", Logs(self.handle.clone()));
                sometimes!(
                    accepted,
                    "an event that logs while it is encoded is accepted"
                );
            }
            Op::Burst => self.burst(),
            Op::Exception => {
                let error = std::io::Error::other("simulated");
                let accepted = self.handle.log_exception(&error, Severity::Error);
                sometimes!(accepted, "an exception is accepted");
                sometimes!(!accepted, "an exception is refused");
            }
            Op::Fatal => self.fatal().await,
            Op::Flush => self.handle.flush(),
            Op::Pass(millis) => self.env.advance(Duration::from_millis(millis)).await,
            Op::Drain(millis) => self.drain(Duration::from_millis(millis)).await,
            Op::GiveUpDrain(millis) => {
                let handle = self.handle.clone();
                self.env.spawn(async move {
                    let _ = handle.wait_until_drained(Duration::from_secs(3_600)).await;
                });
                let wait = self.handle.wait_until_drained(Duration::from_secs(60));
                let given_up = self.env.advance(Duration::from_millis(millis));
                let finished = either(wait, given_up).await;
                sometimes!(!finished, "a wait is given up");
            }
            Op::Stop(millis) => drop(self.stop(Duration::from_millis(millis)).await),
            Op::Reopen => {
                let was_alive = self.handle.stats().driver_alive;
                self.reporter = None;
                sometimes!(was_alive, "a reporter is dropped while its driver lives");
                *self = Self::open(&self.env, &self.options);
            }
            Op::DropDriver => {
                self.env.drop_driver(self.number);
                sometimes!(
                    self.handle.stats().queued > 0,
                    "a driver is dropped with a queue"
                );
            }
            Op::Heal => self.env.heal(),
        }
        self.look();
    }

    pub(super) fn log(&self, count: u32) {
        if self.env.strikes(Fault::SerializePanics) {
            self.expect_refusal(Panics);
        }
        if self.env.strikes(Fault::SerializeLogs) {
            self.handle.log("nested", Logs(self.handle.clone()));
        }
        if self.env.strikes(Fault::Burst) {
            self.burst();
        }
        for n in 0..count {
            let before = self.handle.stats();
            let accepted = self
                .handle
                .log("event", fields! { n: n, text: "some text" });
            let after = self.handle.stats();
            assert_eq!(after.accepted - before.accepted, u64::from(accepted));
            assert_eq!(
                after.refused.total() - before.refused.total(),
                u64::from(!accepted)
            );
            if after.refused.queue_full > before.refused.queue_full {
                self.is_full();
            }
        }
    }

    /// Only a full queue refuses.
    fn is_full(&self) {
        let stats = self.handle.stats();
        let has_no_room = stats.queued >= self.options.max_queue_size as u64
            || stats.queued_bytes + 400 > self.options.max_queue_bytes;
        assert!(has_no_room, "a queue refuses, and is not full: {stats:?}");
    }

    /// Once faults are healed all is settled, by a driver that is still there.
    async fn settle(&self) {
        self.env.heal();
        // A driver that was dropped is replaced within five seconds.
        self.env.advance(Duration::from_secs(6)).await;
        let life = self.env.0.sessions.borrow()[self.number].life;
        let is_near_end = self.env.now().as_micros() > u64::MAX / 2;
        if life != Life::Alive || self.stop_deadline.is_some() || is_near_end {
            return;
        }
        let stats = self.handle.stats();
        assert!(stats.driver_alive, "its driver has gone: {stats:?}");
        let bound = settling_bound(&self.options, stats.queued);
        let drain = self.handle.wait_until_drained(bound).await;
        let stats = self.handle.stats();
        assert!(drain.is_drained(), "not settled after {bound:?}: {stats:?}");
    }

    fn log_text(&self, bytes: u32) {
        let text: String = core::iter::repeat_n('x', bytes as usize).collect();
        let before = self.handle.stats().refused.event_too_large;
        let accepted = self.handle.log("text", fields! { text: text.as_str() });
        let is_too_large = self.handle.stats().refused.event_too_large > before;
        sometimes!(is_too_large, "an event is too large");
        sometimes!(accepted && bytes > 2_000, "a large event is accepted");
        assert!(!is_too_large || bytes as usize + 400 > self.options.max_event_bytes);
    }

    pub(super) fn expect_refusal(&self, data: impl Serialize) {
        let before = self.handle.stats();
        assert!(!self.handle.log("bad", data));
        let after = self.handle.stats();
        assert_eq!(after.accepted, before.accepted);
        sometimes!(
            after.refused.unencodable > before.refused.unencodable,
            "an event that cannot be encoded is counted"
        );
    }

    pub(super) fn burst(&self) {
        let before = self.handle.stats().refused.queue_full;
        for n in 0..self.options.max_queue_size + 10 {
            self.handle.log("burst", fields! { n: n });
        }
        let stats = self.handle.stats();
        let is_over = stats.refused.session_ended + stats.refused.queue_full > before;
        assert!(is_over, "a queue takes more than it may: {stats:?}");
        sometimes!(stats.refused.queue_full > before, "a burst fills the queue");
        if stats.refused.queue_full > before {
            self.is_full();
        }
    }

    async fn fatal(&self) {
        let before = self.handle.stats();
        let error = std::io::Error::other("simulated, fatal");
        let (start, bound) = (self.env.now(), self.options.flush_timeout);
        let drain = self
            .handle
            .log_fatal_exception(&error, Severity::Critical)
            .await;
        self.ends_in_time(start, bound);
        let after = self.handle.stats();
        // The reserve holds one, which nothing else can take.
        if !before.session_ended {
            assert!(
                after.accepted >= before.accepted + 2,
                "{before:?} {after:?}"
            );
            assert!(after.session_ended);
        }
        let is_full = before.queued >= self.options.max_queue_size as u64;
        sometimes!(
            is_full && !before.session_ended,
            "a fatal error meets a full queue"
        );
        sometimes!(before.session_ended, "a fatal error comes after the end");
        sometimes!(
            drain.all_delivered() && drain.delivered > 0,
            "a fatal error is delivered"
        );
        sometimes!(drain.remaining > 0, "a fatal error waits in vain");
    }

    async fn drain(&self, timeout: Duration) {
        let (before, start) = (self.handle.stats(), self.env.now());
        let drain = self.handle.wait_until_drained(timeout).await;
        self.ends_in_time(start, timeout);
        let after = self.handle.stats();
        let delivered = after.delivered - before.delivered;
        let dropped = after.dropped.total() - before.dropped.total();
        assert!(
            drain.delivered <= delivered && drain.dropped <= dropped,
            "{drain:?}"
        );
        if drain.is_drained() {
            assert!(after.settled() >= before.accepted, "{drain:?} {after:?}");
        }
        if drain.all_delivered() && before.queued > 0 {
            assert!(delivered >= before.queued, "{drain:?} {before:?} {after:?}");
        }
        sometimes!(
            drain.all_delivered() && drain.delivered > 0,
            "a drain delivers all"
        );
        sometimes!(drain.dropped > 0, "a drain sees a drop");
        sometimes!(drain.remaining > 0, "a drain meets its deadline");
        sometimes!(before.queued == 0, "a drain has nothing to wait for");
        sometimes!(
            before.driver_alive && !after.driver_alive,
            "a driver goes during a drain"
        );
    }

    pub(super) async fn stop(&mut self, timeout: Duration) -> Drain {
        let (before, start) = (self.handle.stats(), self.env.now());
        let deadline = *self
            .stop_deadline
            .get_or_insert_with(|| self.env.clock().after(timeout));
        let drain = self.handle.stop(timeout).await;
        self.ends_in_time(start, timeout);
        let after = self.handle.stats();
        assert!(after.session_ended);
        let end = u64::from(!before.session_ended);
        assert_eq!(after.accepted, before.accepted + end, "{after:?}");
        assert!(!self.handle.log("late", ()));
        // A later stop does not wait longer than it was told to, and does not move the deadline of the first.
        if after.driver_alive && self.env.now() >= deadline {
            assert_eq!(after.queued, 0, "{after:?}");
        }
        sometimes!(
            drain.all_delivered() && drain.delivered > 1,
            "a stop delivers all"
        );
        sometimes!(drain.remaining > 0, "a stop meets its deadline");
        sometimes!(drain.dropped > 0, "a stop sees a drop");
        sometimes!(before.session_ended, "a session is stopped twice");
        sometimes!(
            !before.driver_alive && before.queued > 0,
            "a stop finds no driver"
        );
        sometimes!(timeout.is_zero() && before.queued > 0, "a stop has no time");
        let took = self.env.now().saturating_duration_since(start);
        sometimes!(
            drain.remaining > 0 && took < timeout / 2,
            "a stop gives up early"
        );
        drain
    }

    /// A wait ends by its own deadline, whatever happens; a machine that slept through it ends it when it wakes.
    fn ends_in_time(&self, start: crate::time::Instant, bound: Duration) {
        if self.env.0.world.state().faults.rate(Fault::Suspend) == 0 && !self.has_slept() {
            let took = self.env.now().saturating_duration_since(start);
            assert!(took <= bound, "a wait of {bound:?} took {took:?}");
        }
    }

    fn has_slept(&self) -> bool {
        self.env.0.world.state().happened[Fault::Suspend as usize] > 0
    }

    /// What the whole is to have seen sometimes.
    fn look(&self) {
        let stats = self.handle.stats();
        let id = self.handle.session_id().unwrap_or_default();
        let server = self.env.server();
        let at_server = server.events(id);
        sometimes!(stats.dropped.retries_exhausted > 0, "retries are exhausted");
        sometimes!(stats.dropped.rejected > 0, "a batch is rejected");
        sometimes!(
            stats.dropped.too_large > 0,
            "an event is dropped as too large"
        );
        sometimes!(stats.dropped.shutdown > 0, "a shutdown drops events");
        sometimes!(stats.refused.queue_full > 0, "a full queue refuses");
        sometimes!(stats.refused.session_ended > 0, "an ended session refuses");
        sometimes!(stats.refused.unencodable > 0, "something is unencodable");
        sometimes!(stats.queued > 50, "a queue is long");
        sometimes!(stats.queued_bytes > 10_000, "a queue is heavy");
        sometimes!(!stats.driver_alive, "a session has no driver");
        sometimes!(server.duplicates(id) > 0, "the server sees duplicates");
        sometimes!(
            at_server > stats.delivered,
            "the server has what the client does not know of"
        );
        sometimes!(server.has_ended(id), "the end is at the server");
        sometimes!(server.requests(id) > 10, "a session takes many requests");
        sometimes!(stats.delivered > 200, "a session delivers many events");
        sometimes!(self.number > 1, "a process has several sessions");
        sometimes!(
            crate::clock::Clock::utc(&self.env.clock()).as_unix_micros() < 86_400_000_000,
            "it is 1970"
        );
        sometimes!(
            self.env.now().as_micros() > u64::MAX / 2,
            "the clock is near its end"
        );
    }
}

/// True when the first was ready before the second.
async fn either(first: impl Future, second: impl Future) -> bool {
    let (mut first, mut second) = (core::pin::pin!(first), core::pin::pin!(second));
    core::future::poll_fn(|context| {
        if first.as_mut().poll(context).is_ready() {
            return core::task::Poll::Ready(true);
        }
        second.as_mut().poll(context).map(|_| false)
    })
    .await
}

pub(super) struct Unencodable;

impl Serialize for Unencodable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("simulated"))
    }
}

struct Panics;

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        // As a panic would be, but for the message that the hook would print.
        std::panic::resume_unwind(alloc::boxed::Box::new("simulated"))
    }
}

/// Logs an event of its own while it is encoded.
struct Logs(Handle);

impl Serialize for Logs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.log("inner", ());
        serializer.serialize_some(&fields! { nested: true })
    }
}
