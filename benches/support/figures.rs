//! Medians and percentiles.

use core::fmt;
use core::time::Duration;

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of each column.
pub(crate) fn medians(rows: &[[i64; 5]]) -> [i64; 5] {
    core::array::from_fn(|column| {
        median(rows.iter().map(|row| row[column] as f64).collect()) as i64
    })
}

/// The durations of single calls, in nanoseconds.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn with_capacity(calls: usize) -> Self {
        // Touches every page now, so that no page fault falls into the measurement.
        let mut all = vec![1; calls];
        all.clear();
        Self(all)
    }

    pub(crate) fn push(&mut self, call: Duration) {
        self.0
            .push(u32::try_from(call.as_nanos()).unwrap_or(u32::MAX));
    }

    pub(crate) fn extend(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }

    /// p50, p99, p99.9, p99.99 and the maximum.
    pub(crate) fn percentiles(&mut self) -> Percentiles {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        let at = |part: f64| {
            let at = (last as f64 * part) as usize;
            self.0.get(at).copied().unwrap_or_default()
        };
        Percentiles([at(0.5), at(0.99), at(0.999), at(0.9999), at(1.0)])
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Percentiles([u32; 5]);

impl Percentiles {
    pub(crate) const TITLES: [&'static str; 5] = ["p50", "p99", "p99.9", "p99.99", "worst"];

    pub(crate) fn since(self, before: Self) -> [i64; 5] {
        core::array::from_fn(|at| i64::from(self.0[at]) - i64::from(before.0[at]))
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|nanos| write!(f, "{nanos:>10}"))
    }
}
