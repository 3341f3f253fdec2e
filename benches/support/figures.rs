//! Medians and percentiles.

use core::fmt;
use core::time::Duration;

/// The upper median; NaN of nothing.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of each column.
#[must_use]
pub fn medians(rows: &[[i64; 5]]) -> [i64; 5] {
    core::array::from_fn(|column| {
        median(rows.iter().map(|row| row[column] as f64).collect()) as i64
    })
}

/// The durations of single calls, in nanoseconds.
#[derive(Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    /// None yet; memory for this many is ready.
    #[must_use]
    pub fn with_capacity(calls: usize) -> Self {
        // Touches every page now, so that no page fault falls into the measurement.
        let mut all = vec![1; calls];
        all.clear();
        Self(all)
    }

    /// Adds a call.
    #[inline]
    pub fn push(&mut self, call: Duration) {
        self.0
            .push(u32::try_from(call.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Adds the calls of `others`.
    pub fn extend(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }

    /// p50, p99, p99.9, p99.99 and the maximum.
    pub fn percentiles(&mut self) -> Percentiles {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        let at = |part: f64| {
            let at = (last as f64 * part) as usize;
            self.0.get(at).copied().unwrap_or_default()
        };
        Percentiles([at(0.5), at(0.99), at(0.999), at(0.9999), at(1.0)])
    }
}

/// Nanoseconds at p50, p99, p99.9, p99.99 and the maximum.
#[derive(Clone, Copy)]
pub struct Percentiles([u32; 5]);

impl Percentiles {
    /// The columns of its `Display`, each ten wide.
    pub const TITLES: [&'static str; 5] = ["p50", "p99", "p99.9", "p99.99", "worst"];

    /// The ratios to a baseline.
    #[must_use]
    pub fn over(self, base: Self) -> [f64; 5] {
        core::array::from_fn(|at| f64::from(self.0[at]) / f64::from(base.0[at]))
    }

    /// The differences from an earlier measurement.
    #[must_use]
    pub fn since(self, before: Self) -> [i64; 5] {
        core::array::from_fn(|at| i64::from(self.0[at]) - i64::from(before.0[at]))
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|nanos| write!(f, "{nanos:>10}"))
    }
}
