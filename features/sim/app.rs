//! The application under test: a session with the checks of each operation, and data that misbehave.

use super::Fault;
use super::env::{Env, Life, SimReporter};
use super::losses::LossLog;
use super::op::Op;
use super::settling::settling_bound;
use crate::event::Severity;
use crate::session::{Handle, Options};
use crate::stats::{Drain, Stats};
use crate::time::Instant;
use crate::{fields, sometimes};
use alloc::boxed::Box;
use alloc::string::String;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use serde::{Serialize, Serializer, ser::Error as _};

/// A session of the application.
pub(super) struct AppSession {
    pub(super) env: Env,
    pub(super) options: Options,
    number: usize,
    pub(super) reporter: Option<SimReporter>,
    pub(super) handle: Handle,
    /// The deadline of the first stop.
    stop_deadline: Option<Instant>,
    has_context: bool,
    pub(super) is_enabled: bool,
    min_severity: Severity,
}

impl AppSession {
    pub(super) fn open(env: &Env, options: &Options) -> Self {
        Self::open_in(env, options, false)
    }

    /// A session that has a context or none.
    pub(super) fn open_in(env: &Env, options: &Options, has_context: bool) -> Self {
        let number = env.0.sessions.borrow().len();
        let reporter = env.reporter_with(options.clone(), |builder| match has_context {
            true => builder.fields(fields! { release: "1.2.3", rank: 7 }),
            false => builder,
        });
        let accepted = reporter.stats().accepted;
        assert_eq!(
            accepted,
            1 + u64::from(has_context),
            "SESSION_START, context"
        );
        Self {
            has_context,
            env: env.clone(),
            options: options.clone(),
            number,
            handle: reporter.handle(),
            reporter: Some(reporter),
            stop_deadline: None,
            is_enabled: true,
            min_severity: options.min_severity,
        }
    }

    /// Runs an operation and checks what it promises.
    pub(super) async fn step(&mut self, op: Op) {
        match op {
            Op::Log(count) => self.log(count),
            Op::LogInContext(count) => self.log_in_context(count),
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
                assert!(!accepted || self.takes(Severity::Error));
                sometimes!(accepted, "an exception is accepted");
                sometimes!(!accepted, "an exception is refused");
            }
            Op::Fatal => self.fatal().await,
            Op::Flush => self.handle.flush(),
            Op::Pass(millis) => self.env.advance(Duration::from_millis(millis)).await,
            Op::Drain(millis) => self.drain(Duration::from_millis(millis)).await,
            Op::GiveUpDrain(millis) => self.give_up_drain(Duration::from_millis(millis)).await,
            Op::Stop(millis) => drop(self.stop(Duration::from_millis(millis)).await),
            Op::Reopen => {
                let was_alive = self.handle.stats().driver_alive;
                self.reporter = None;
                sometimes!(was_alive, "a reporter is dropped while its driver lives");
                *self = Self::open_in(&self.env, &self.options, self.has_context);
            }
            Op::DropDriver => {
                self.env.drop_driver(self.number);
                sometimes!(
                    self.handle.stats().queued > 0,
                    "a driver is dropped with a queue"
                );
            }
            Op::Heal => self.env.heal(),
            Op::SetEnabled(is_enabled) => self.set_enabled(is_enabled),
            Op::SetMinSeverity(severity) => {
                self.min_severity = severity;
                self.handle.set_min_severity(severity);
            }
            Op::Discard => self.discard(),
            Op::Withdraw => {
                self.set_enabled(false);
                self.discard();
            }
        }
        self.note_coverage();
    }

    pub(super) fn log(&self, count: u32) {
        if self.env.occurs(Fault::SerializePanics) {
            self.expect_refusal(Panics);
        }
        if self.env.occurs(Fault::SerializeLogs) {
            self.handle.log("nested", Logs(self.handle.clone()));
        }
        if self.env.occurs(Fault::Burst) {
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
                self.assert_full();
            }
            if !self.takes(Severity::Info) {
                assert!(!accepted, "an event that is not wanted is accepted");
                assert_eq!(indices_taken(&after), indices_taken(&before));
            }
        }
    }

    /// Whether the session's settings admit events of this severity.
    fn takes(&self, severity: Severity) -> bool {
        self.is_enabled && severity >= self.min_severity
    }

    /// Only a full queue refuses events.
    fn assert_full(&self) {
        let stats = self.handle.stats();
        let is_full = stats.queued >= self.options.max_queue_size as u64
            || stats.queued_bytes + 400 > self.options.max_queue_bytes;
        assert!(is_full, "a queue that is not full refuses: {stats:?}");
    }

    /// Once faults are healed, a driver that still runs settles everything.
    pub(super) async fn settle(&self) {
        self.env.heal();
        // A dropped driver is replaced within five seconds.
        self.env.advance(Duration::from_secs(6)).await;
        let life = self.env.0.sessions.borrow()[self.number].life;
        let is_near_end = self.env.now().as_micros() > u64::MAX / 2;
        if life != Life::Alive || self.stop_deadline.is_some() || is_near_end {
            return;
        }
        let stats = self.handle.stats();
        assert!(stats.driver_alive, "the driver is gone: {stats:?}");
        let bound = settling_bound(&self.options, stats.queued);
        let drain = self.handle.wait_until_drained(bound).await;
        let stats = self.handle.stats();
        assert!(drain.is_drained(), "not settled after {bound:?}: {stats:?}");
    }

    pub(super) fn log_text(&self, bytes: u32) {
        let text: String = core::iter::repeat_n('x', bytes as usize).collect();
        let before = self.handle.stats().refused.event_too_large;
        let accepted = self.handle.log("text", fields! { text: text.as_str() });
        let is_too_large = self.handle.stats().refused.event_too_large > before;
        sometimes!(is_too_large, "an event is too large");
        sometimes!(accepted && bytes > 2_000, "a large event is accepted");
        assert!(!is_too_large || bytes as usize + 400 > self.options.max_event_bytes);
    }

    /// Logs data that cannot be encoded.
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
        let has_refused = stats.refused.session_ended + stats.refused.queue_full > before;
        assert!(
            has_refused || !self.takes(Severity::Info),
            "a queue exceeds its limit: {stats:?}"
        );
        sometimes!(stats.refused.queue_full > before, "a burst fills the queue");
        if stats.refused.queue_full > before {
            self.assert_full();
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
        self.assert_in_time(start, bound);
        let after = self.handle.stats();
        // The reserve holds one, which nothing else can take.
        if !self.is_enabled {
            assert_eq!(after.accepted, before.accepted);
            assert_eq!(after.session_ended, before.session_ended);
        } else if !before.session_ended {
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
        self.assert_in_time(start, timeout);
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

    async fn give_up_drain(&self, after: Duration) {
        let handle = self.handle.clone();
        self.env.spawn(async move {
            let _ = handle.wait_until_drained(Duration::from_secs(3_600)).await;
        });
        let wait = self.handle.wait_until_drained(Duration::from_secs(60));
        let is_finished = is_first(wait, self.env.advance(after)).await;
        sometimes!(!is_finished, "a wait is given up");
    }

    pub(super) async fn stop(&mut self, timeout: Duration) -> Drain {
        let (before, start) = (self.handle.stats(), self.env.now());
        let deadline = *self
            .stop_deadline
            .get_or_insert_with(|| self.env.clock().after(timeout));
        let drain = self.handle.stop(timeout).await;
        self.assert_in_time(start, timeout);
        let after = self.handle.stats();
        assert!(after.session_ended);
        let end = u64::from(!before.session_ended && self.is_enabled);
        let logged = |stats: &Stats| stats.accepted - stats.reports;
        assert_eq!(logged(&after), logged(&before) + end, "{after:?}");
        if end == 1 {
            self.assert_reported(&after);
        }
        assert!(!self.handle.log("late", ()));
        if end == 1
            && let Some(index) = self.index_of_the_end()
        {
            assert_eq!(index + 1, indices_taken(&after), "{after:?}");
        }
        if !before.session_ended && !self.is_enabled {
            let id = self.handle.session_id().unwrap_or_default();
            assert!(!self.env.server().has_ended(id), "an end without consent");
        }
        // A later stop waits no longer than its own timeout, and does not move the deadline of the first.
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
        sometimes!(!self.is_enabled, "a session is stopped while it is off");
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

    /// A report that the client knows to be at the server right before the end tells of exactly what is lost.
    fn assert_reported(&self, stats: &Stats) {
        let state = self.env.0.world.state();
        let id = self.handle.session_id().unwrap_or_default();
        let Some(record) = state.server.sessions.get(id) else {
            return;
        };
        let report = state.server.losses.get(id).and_then(LossLog::latest);
        let Some((index, losses)) = report else {
            return;
        };
        let are_confirmed = record.stored(*index..=index + 1).filter(|it| *it).count() == 2;
        if record.ended_at() != Some(index + 1) || !are_confirmed {
            return;
        }
        let (refused, dropped) = (&stats.refused, &stats.dropped);
        for (reason, count) in [
            ("queue_full", refused.queue_full),
            ("event_too_large", refused.event_too_large),
            ("unencodable", refused.unencodable),
            ("retries_exhausted", dropped.retries_exhausted),
            ("rejected", dropped.rejected),
            ("too_large", dropped.too_large),
        ] {
            assert_eq!(
                losses.count(reason),
                count,
                "{reason}: {losses:?} {stats:?}"
            );
        }
        sometimes!(losses.is_complete(), "a report lists all losses");
        sometimes!(!losses.is_complete(), "a report counts what it cannot list");
    }

    /// The index of `SESSION_END`, if the server has it.
    fn index_of_the_end(&self) -> Option<u64> {
        let state = self.env.0.world.state();
        let id = self.handle.session_id()?;
        state.server.sessions.get(id)?.ended_at()
    }

    /// A wait ends at its deadline at the latest; after a suspension, when the machine wakes.
    fn assert_in_time(&self, start: Instant, bound: Duration) {
        let may_be_suspended = {
            let state = self.env.0.world.state();
            state.faults.rate(Fault::Suspend) > 0 || state.happened[Fault::Suspend as usize] > 0
        };
        if !may_be_suspended {
            let took = self.env.now().saturating_duration_since(start);
            assert!(took <= bound, "a wait of {bound:?} took {took:?}");
        }
    }

    /// Coverage points that do not belong to one operation.
    fn note_coverage(&self) {
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
        sometimes!(stats.refused.unencodable > 0, "data are unencodable");
        sometimes!(stats.queued > 50, "a queue is long");
        sometimes!(stats.queued_bytes > 10_000, "a queue is heavy");
        sometimes!(!stats.driver_alive, "a session has no driver");
        sometimes!(server.duplicates(id) > 0, "the server sees duplicates");
        sometimes!(
            at_server > stats.delivered,
            "the server has unconfirmed events"
        );
        sometimes!(server.has_ended(id), "the end is at the server");
        sometimes!(server.requests(id) > 10, "a session takes many requests");
        sometimes!(stats.delivered > 200, "a session delivers many events");
        sometimes!(self.number > 1, "a process has several sessions");
        sometimes!(
            self.env.utc().as_unix_micros() < 86_400_000_000,
            "it is 1970"
        );
        sometimes!(
            self.env.now().as_micros() > u64::MAX / 2,
            "the clock is near its maximum"
        );
    }
}

/// How many indices a session has taken: one for each event that it accepted, and for each that it lost by a refusal.
pub(super) const fn indices_taken(stats: &Stats) -> u64 {
    let refused = &stats.refused;
    stats.accepted
        + refused.queue_full
        + refused.event_too_large
        + refused.unencodable
        + refused.scrub_panicked
}

/// Whether the first future completes before the second.
async fn is_first(first: impl Future, second: impl Future) -> bool {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|context| {
        if first.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        second.as_mut().poll(context).map(|_| false)
    })
    .await
}

/// Data that cannot be encoded.
pub(super) struct Unencodable;

impl Serialize for Unencodable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("simulated"))
    }
}

/// Data whose `Serialize` panics.
struct Panics;

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        // A panic without the message that the hook would print.
        std::panic::resume_unwind(Box::new("simulated"))
    }
}

/// Data whose `Serialize` logs an event.
struct Logs(Handle);

impl Serialize for Logs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.log("inner", ());
        serializer.serialize_some(&fields! { nested: true })
    }
}
