//! Looks: the driver predicts when the threshold will be reached, and looks at the queue by itself.
//!
//! Waking a driver takes a system call, in which a caller may even lose its processor to the driver. So a `log` call
//! wakes the driver only if its prediction was wrong: no look is [near](Lookout::is_near) when the threshold is reached,
//! or the queue has grown beyond it by a quarter of the threshold or half of the room that was left.

use super::batch::BatchExtent;
use super::{Engine, Watermark};
use crate::time::Instant;
use core::time::Duration;

/// A look that is due within this time of the driver's parking, in microseconds, replaces the wake-up at the threshold.
const NEAR: u32 = 10_000;

/// The looks for one batch. Afterwards a call wakes the driver at the threshold.
const MAX_LOOKS: u8 = 8;

/// How full the queue is: parts of what makes it due.
const FULL: u32 = 256;

/// The longest time that is measured, in microseconds: 16.8 s.
const MAX_MEASURED: u32 = u32::MAX / FULL;

/// What the driver expects of the queue.
#[derive(Debug, Default)]
pub(super) struct Lookout {
    /// When the queue began to fill.
    since: Option<Instant>,
    /// How long the queue took to become due lately, in microseconds. Zero if it is not known.
    period: u32,
    /// The looks since the queue was empty.
    looks: u8,
    /// The driver sleeps, and will look soon.
    is_near: bool,
    #[cfg(has_arc)]
    lateness: Lateness,
}

/// How much later than planned the driver looks: timers and the scheduler take their time.
#[cfg(has_arc)]
#[derive(Debug, Default)]
struct Lateness {
    planned: Option<Instant>,
    /// In microseconds, averaged.
    usual: u32,
}

#[cfg(has_arc)]
impl Lateness {
    fn note(&mut self, now: Instant) {
        let Some(planned) = self.planned.take() else {
            return;
        };
        // An earlier poll has another reason.
        if planned <= now {
            let late = micros(now.saturating_duration_since(planned)).min(NEAR);
            self.usual = average(self.usual, late);
        }
    }
}

impl Lookout {
    /// A poll begins: the driver is awake.
    pub(super) fn begin_poll(&mut self, now: Instant) {
        self.is_near = false;
        #[cfg(has_arc)]
        self.lateness.note(now);
        #[cfg(not(has_arc))]
        let _ = now;
    }

    /// The queue begins to fill, and is already this full.
    fn begin(&mut self, fill: u32, now: Instant) {
        let before = u64::from(share(self.period, fill));
        self.since = Some(Instant::from_micros(now.as_micros().saturating_sub(before)));
        self.looks = 0;
    }

    /// The queue remains empty, so when it begins to fill is unknown.
    pub(super) fn rest(&mut self) {
        self.since = None;
    }

    /// The time since the queue began to fill, in microseconds, if it can be measured.
    fn elapsed(&self, now: Instant) -> Option<u32> {
        let elapsed = micros(now.saturating_duration_since(self.since?));
        (elapsed <= MAX_MEASURED).then_some(elapsed)
    }

    /// Learns from a queue that has become this full. Too few events say too little.
    fn learn(&mut self, fill: u32, now: Instant) {
        if fill < FULL / 4 {
            return;
        }
        let measured = self.elapsed(now).and_then(|elapsed| period(elapsed, fill));
        self.period = match measured {
            // Noise is averaged, a higher rate is not: the driver would look too late.
            Some(measured) if self.period > 0 && measured > self.period / 2 + self.period / 8 => {
                average(self.period, measured)
            }
            measured => measured.unwrap_or(0),
        };
    }

    /// Plans the next look at a queue that is this full. Returns how long until then, in microseconds.
    fn plan(&mut self, fill: u32, threshold: u32, now: Instant) -> Option<u32> {
        let elapsed = self.elapsed(now)?;
        let is_first = self.looks == 0;
        // A queue that fills at another rate than expected.
        let period = match period(elapsed, fill) {
            Some(measured) if !is_first && fill >= FULL / 4 => measured,
            _ => self.period,
        };
        // Where less than one event is expected until a near look, it would seldom be better than a wake-up.
        let per_event = period / threshold.max(1);
        let is_slow = per_event > NEAR;
        if period == 0 || is_slow || self.looks == MAX_LOOKS {
            return None;
        }
        self.looks += 1;
        let gap = share(period, FULL.saturating_sub(fill));
        let is_overdue = elapsed > period - period / 8;
        let delay = if is_overdue && fill < FULL / 4 {
            // It fills in bursts, and the next one is late.
            (period / 4).min(NEAR)
        } else if gap > NEAR - NEAR / 4 {
            // So that a near look follows, and the next event does not come before it.
            let lead = (per_event + per_event / 4).clamp(NEAR / 2, NEAR - NEAR / 4);
            return Some(self.ahead(gap - lead.max(gap / 16), gap, now));
        } else if is_first {
            gap - gap / 16
        } else {
            (gap + period / 8).min(NEAR)
        };
        self.is_near = true;
        Some(self.ahead(delay, gap, now))
    }

    /// Subtracts the usual lateness from a delay, but most of it remains.
    #[cfg(has_arc)]
    fn ahead(&mut self, delay: u32, gap: u32, now: Instant) -> u32 {
        let delay = delay
            .saturating_sub(self.lateness.usual)
            .max(gap / 4)
            .max(1);
        self.lateness.planned = now.after(delay.into());
        delay
    }

    #[cfg(not(has_arc))]
    #[expect(clippy::unused_self, reason = "hardware timers are on time")]
    fn ahead(&self, delay: u32, _gap: u32, _now: Instant) -> u32 {
        delay.max(1)
    }
}

impl Engine {
    /// How full the queue is, in events since the last flush and in their bytes.
    fn fullness(&self) -> u32 {
        self.fullness_of(count(self.since_flush()), self.bytes_since_flush)
    }

    fn fullness_of(&self, events: usize, bytes: usize) -> u32 {
        let part = |of: usize, whole: usize| {
            let part = of.saturating_mul(FULL as usize) / whole.max(1);
            u32::try_from(part).unwrap_or(u32::MAX)
        };
        let options = &self.options;
        part(events, options.flush_threshold).max(part(bytes, options.batch_budget))
    }

    /// Whether the driver sleeps, and will look soon.
    pub(super) const fn is_look_near(&self) -> bool {
        self.lookout.is_near
    }

    /// The accepted events since the last flush.
    pub(super) fn since_flush(&self) -> u64 {
        self.ledger.accepted - self.flush_watermark.0.max(self.ledger.settled())
    }

    /// Whether the events since the last flush reach the threshold.
    pub(super) fn is_threshold_reached(&self) -> bool {
        self.since_flush() >= self.options.flush_threshold as u64
            || self.bytes_since_flush >= self.options.batch_budget
    }

    /// Whether an event that reaches the threshold, or goes beyond it, can wait for the driver's look.
    #[cold]
    pub(super) fn can_wait_for_look(&self) -> bool {
        let can_grow = |over: usize, threshold: usize, used: usize, limit: usize| {
            let room_at_threshold = (limit + over).saturating_sub(used);
            over < (threshold / 4).min(room_at_threshold / 2)
        };
        let options = &self.options;
        let events = count(self.since_flush());
        can_grow(
            events.saturating_sub(options.flush_threshold),
            options.flush_threshold,
            self.ring.records(),
            options.max_queue_size,
        ) && can_grow(
            self.bytes_since_flush.saturating_sub(options.batch_budget),
            options.batch_budget,
            self.ring.used(),
            options.max_queue_bytes,
        )
    }

    /// When the driver looks next, if nothing happens meanwhile.
    pub(super) fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let (fill, threshold) = (self.fullness(), self.options.flush_threshold);
        let threshold = u32::try_from(threshold).unwrap_or(u32::MAX);
        let delay = self.lookout.plan(fill, threshold, now)?;
        now.after(delay.into())
    }

    /// Makes those of the events since the last flush due that fill the threshold once or several times. The driver has
    /// looked a little later, and the others may wait for the next batch.
    pub(super) fn make_threshold_due(&mut self) {
        let events = self.since_flush();
        let rest = events % (self.options.flush_threshold as u64).max(1);
        if self.bytes_since_flush >= self.options.batch_budget || rest == events {
            return self.make_all_due();
        }
        self.flush_watermark = Watermark(self.ledger.accepted - rest);
        // About their share.
        self.bytes_since_flush = self.bytes_since_flush / events as usize * rest as usize;
    }

    /// The first event of an idle session arms the timer of the flush interval.
    pub(super) fn note_first(&mut self, now: Instant) {
        self.lookout.begin(0, now);
        self.flush_at = now.after(self.options.flush_interval);
    }

    /// A batch takes these events, and those behind it begin to fill the queue again.
    pub(super) fn note_formed(&mut self, extent: &BatchExtent, now: Instant) {
        let behind = count(self.queued() - extent.events());
        let bytes_behind = self.ring.used() - extent.ring_bytes;
        if behind >= self.options.flush_threshold {
            // A backlog, which says how fast it is sent.
            self.lookout.rest();
        } else {
            let events = count(extent.events()) + behind;
            let fill = self.fullness_of(events, extent.ring_bytes + bytes_behind);
            self.lookout.learn(fill, now);
            let fill = self.fullness_of(behind, bytes_behind);
            self.lookout.begin(fill, now);
        }
        if behind == 0 {
            self.bytes_since_flush = 0;
            self.flush_at = match self.options.flush_interval {
                0 => None,
                // No event that is queued from now on waits longer. The next one need not wake the driver for it.
                interval => now.after(interval),
            };
        }
    }
}

fn count(events: u64) -> usize {
    usize::try_from(events).unwrap_or(usize::MAX)
}

/// How long a queue takes to fill at this rate.
fn period(elapsed: u32, fill: u32) -> Option<u32> {
    elapsed.checked_mul(FULL)?.checked_div(fill)
}

const fn share(period: u32, fill: u32) -> u32 {
    ((period as u64 * fill as u64) / FULL as u64) as u32
}

const fn average(a: u32, b: u32) -> u32 {
    a / 2 + b / 2
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
