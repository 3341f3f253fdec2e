//! The prediction of when the queue will reach its threshold.
//!
//! Without an allocator nothing is predicted: there a wake-up is no system call, and flash is scarce.

#[cfg(not(has_arc))]
pub(super) use absent::Prediction;
#[cfg(has_arc)]
pub(super) use present::Prediction;

/// How full the queue is: parts of the threshold.
pub(super) const FULL: u32 = 256;

#[cfg(has_arc)]
mod present {
    use super::FULL;
    use crate::time::Instant;

    /// A look that is due within this time of the driver's parking, in microseconds, replaces the wake-up at the threshold.
    const NEAR: u32 = 10_000;

    /// The looks for one batch. Afterwards a call wakes the driver at the threshold.
    const MAX_LOOKS: u8 = 8;

    /// For how long the driver stays awake for one batch, in microseconds, and how often it yields in that time.
    const PATIENCE: u32 = 200;
    const MAX_YIELDS: u16 = 500;

    /// The longest time that is measured, in microseconds: 16.8 s.
    const MAX_MEASURED: u32 = u32::MAX / FULL;

    /// What the driver expects of the queue.
    #[derive(Debug, Default)]
    pub(in crate::engine) struct Prediction {
        /// When the queue began to fill.
        since: Option<Instant>,
        /// How full a backlog was at that time: it says how fast it is sent, only what came later how fast it grows.
        backlog: u32,
        /// How long the queue took to become due lately, in microseconds. Zero if it is not known.
        period: u32,
        /// How long it took when it was fastest. It fades with each slower batch.
        shortest: u32,
        /// The looks since the queue was empty.
        looks: u8,
        /// The driver sleeps, and will look soon.
        is_near: bool,
        lateness: Lateness,
        /// Since when the driver stays awake, and how often it has yielded.
        awake_since: Option<Instant>,
        yields: u16,
    }

    /// How much later than planned the driver looks: timers and the scheduler take their time.
    #[derive(Debug, Default)]
    struct Lateness {
        planned: Option<Instant>,
        /// In microseconds, averaged.
        usual: u32,
    }

    impl Lateness {
        fn note(&mut self, now: Instant) {
            let Some(planned) = self.planned.take() else {
                return;
            };
            // An earlier poll has another reason.
            if planned <= now {
                let late = micros(planned, now).min(NEAR);
                self.usual = average(self.usual, late);
            }
        }
    }

    impl Prediction {
        pub(in crate::engine) fn new() -> Self {
            Self::default()
        }

        /// A poll begins: the driver is awake.
        pub(in crate::engine) fn begin_poll(&mut self, now: Instant) {
            self.is_near = false;
            self.lateness.note(now);
        }

        /// Whether the driver sleeps, and will look soon.
        pub(in crate::engine) const fn is_near(&self) -> bool {
            self.is_near
        }

        /// The queue begins to fill, and is already this full.
        pub(in crate::engine) fn begin(&mut self, fill: u32, now: Instant) {
            let (backlog, fill) = if fill < FULL { (0, fill) } else { (fill, 0) };
            let before = u64::from(share(self.period, fill));
            self.since = Some(Instant::from_micros(now.as_micros().saturating_sub(before)));
            self.backlog = backlog;
            self.looks = 0;
            self.awake_since = None;
            self.yields = 0;
        }

        /// The queue remains empty, so when it begins to fill is unknown.
        pub(in crate::engine) fn rest(&mut self) {
            self.since = None;
        }

        /// The time since the queue began to fill, in microseconds, if it can be measured.
        fn elapsed(&self, now: Instant) -> Option<u32> {
            let elapsed = micros(self.since?, now);
            (elapsed <= MAX_MEASURED).then_some(elapsed)
        }

        /// Learns from a queue that has become this full. Too few events say too little.
        pub(in crate::engine) fn learn(&mut self, fill: u32, now: Instant) {
            let fill = fill.saturating_sub(self.backlog);
            if fill < FULL / 4 {
                return;
            }
            let measured = self.elapsed(now).and_then(|elapsed| period(elapsed, fill));
            self.period = match measured {
                // Noise is averaged, a higher rate is not: the driver would look too late.
                Some(measured)
                    if self.period > 0 && measured > self.period / 2 + self.period / 8 =>
                {
                    average(self.period, measured)
                }
                measured => measured.unwrap_or(0),
            };
            let faded = self.shortest.saturating_add(self.shortest / 4);
            self.shortest = match measured {
                Some(measured) if self.shortest > 0 => measured.min(faded),
                measured => measured.unwrap_or(0),
            };
        }

        /// Plans the next look at a queue that is this full. Returns how long until then, in microseconds.
        pub(in crate::engine) fn plan(
            &mut self,
            fill: u32,
            threshold: u32,
            now: Instant,
        ) -> Option<u32> {
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

        /// Whether the driver should yield rather than sleep: no timer would be noticed before the queue has grown a quarter
        /// beyond its threshold. What it waits for is due within microseconds, so its patience is short.
        pub(in crate::engine) fn stays_awake(&mut self, fill: u32, now: Instant) -> bool {
            let is_known = self.since.is_some() && self.shortest > 0;
            let time_left = share(self.shortest, (FULL + FULL / 4).saturating_sub(fill));
            // Timers are later than usual now and then.
            if !is_known || time_left >= 2 * self.lateness.usual {
                return false;
            }
            let since = *self.awake_since.get_or_insert(now);
            self.yields = self.yields.saturating_add(1);
            self.yields <= MAX_YIELDS && micros(since, now) < PATIENCE
        }

        /// Subtracts the usual lateness from a delay, but most of it remains.
        fn ahead(&mut self, delay: u32, gap: u32, now: Instant) -> u32 {
            let delay = delay
                .saturating_sub(self.lateness.usual)
                .max(gap / 4)
                .max(1);
            self.lateness.planned = now.after(delay.into());
            delay
        }
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

    /// The time from one instant to another, in microseconds.
    fn micros(from: Instant, to: Instant) -> u32 {
        let micros = to.as_micros().saturating_sub(from.as_micros());
        u32::try_from(micros).unwrap_or(u32::MAX)
    }
}

#[cfg(not(has_arc))]
mod absent {
    use crate::time::Instant;

    #[derive(Debug)]
    pub(in crate::engine) struct Prediction;

    #[expect(clippy::unused_self, reason = "nothing is predicted")]
    impl Prediction {
        pub(in crate::engine) const fn new() -> Self {
            Self
        }

        pub(in crate::engine) const fn begin_poll(&self, _now: Instant) {}

        pub(in crate::engine) const fn is_near(&self) -> bool {
            false
        }

        pub(in crate::engine) const fn begin(&self, _fill: u32, _now: Instant) {}

        pub(in crate::engine) const fn rest(&self) {}

        pub(in crate::engine) const fn learn(&self, _fill: u32, _now: Instant) {}

        pub(in crate::engine) const fn plan(
            &self,
            _fill: u32,
            _threshold: u32,
            _now: Instant,
        ) -> Option<u32> {
            None
        }
    }
}
