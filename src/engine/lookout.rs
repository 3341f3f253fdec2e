//! Looks: the driver predicts when the threshold will be reached, and looks at the queue by itself.
//!
//! Waking a driver takes a system call, in which a caller may even lose its processor to the driver. So a `log` call
//! wakes the driver only if its prediction was wrong: no look is near when the threshold is reached, or the queue has
//! grown beyond it by a quarter of the threshold or half of the room that was left.

use super::Engine;
use super::batch::BatchExtent;
use super::prediction::FULL;
use crate::time::Instant;

impl Engine {
    /// How full this many events make the queue. Their bytes are not predicted.
    fn fullness(&self, events: usize) -> u32 {
        let parts = events.saturating_mul(FULL as usize) / self.options.flush_threshold.max(1);
        u32::try_from(parts).unwrap_or(u32::MAX)
    }

    /// Whether the driver sleeps, and will look soon.
    pub(super) const fn is_look_near(&self) -> bool {
        self.prediction.is_near()
    }

    /// The accepted events since the last flush that count towards the threshold.
    pub(super) fn since_flush(&self) -> u64 {
        let last = self.flush_watermark.0.max(self.settled().0);
        let with_context = self.has_context && last < 2;
        (self.ledger.accepted - last).saturating_sub(u64::from(with_context))
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

    /// Whether the driver should yield and look again at once: the queue fills sooner than a timer would be noticed.
    #[cfg(has_arc)]
    pub(super) fn stays_awake(&mut self, now: Instant) -> bool {
        let fill = self.fullness(count(self.since_flush()));
        self.prediction.stays_awake(fill, now)
    }

    /// When the driver looks next, if nothing happens meanwhile.
    pub(super) fn next_look(&mut self, now: Instant) -> Option<Instant> {
        let fill = self.fullness(count(self.since_flush()));
        let threshold = u32::try_from(self.options.flush_threshold).unwrap_or(u32::MAX);
        let delay = self.prediction.plan(fill, threshold, now)?;
        now.after(delay.into())
    }

    /// Makes those of the events since the last flush due that fill the threshold once or several times. The driver has
    /// looked a little later, and the others may wait for the next batch.
    pub(super) fn make_threshold_due(&mut self) {
        let events = count(self.since_flush());
        let rest = events % self.options.flush_threshold.max(1);
        let bytes = self.bytes_since_flush;
        self.make_all_due();
        if bytes < self.options.batch_budget {
            self.flush_watermark.0 -= rest as u64;
            // About their share.
            self.bytes_since_flush = bytes / events.max(1) * rest;
        }
    }

    /// The first event of an idle session arms the timer of the flush interval.
    pub(super) fn note_first(&mut self, now: Instant) {
        self.prediction.begin(0, now);
        self.flush_at = now.after(self.options.flush_interval);
    }

    /// A batch takes these events, and those behind it begin to fill the queue again.
    pub(super) fn note_formed(&mut self, extent: &BatchExtent, now: Instant) {
        let behind = count(self.queued() - extent.events());
        let fill = self.fullness(count(self.queued()));
        self.prediction.learn(fill, now);
        self.prediction.begin(self.fullness(behind), now);
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
