//! Coverage points: conditions that a sweep must reach at least once.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Records whether a condition is ever true here: `sometimes!(drain.remaining > 0, "a stop meets its deadline")`.
///
/// It asserts nothing. After a sweep [`SweepReport::never_reached`](crate::sim::SweepReport::never_reached) returns the
/// names of the points that were executed and whose condition was never true.
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
#[macro_export]
macro_rules! sometimes {
    ($condition:expr, $name:literal $(,)?) => {{
        static POINT: $crate::sim::Point = $crate::sim::Point::new($name);
        POINT.pass($condition);
    }};
}

/// A coverage point: one use of [`sometimes!`](crate::sometimes).
#[derive(Debug)]
pub struct Point {
    name: &'static str,
    is_listed: AtomicBool,
    reached: AtomicU64,
}

static POINTS: Mutex<Vec<&'static Point>> = Mutex::new(Vec::new());

impl Point {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            is_listed: AtomicBool::new(false),
            reached: AtomicU64::new(0),
        }
    }

    #[doc(hidden)]
    pub fn pass(&'static self, is_reached: bool) {
        if !self.is_listed.swap(true, Ordering::Relaxed) {
            POINTS
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(self);
        }
        if is_reached {
            self.reached.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The coverage points that this process has executed, by name, and how often the condition of each was true.
#[must_use]
pub fn coverage() -> BTreeMap<&'static str, u64> {
    let points = POINTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = BTreeMap::new();
    for point in &*points {
        *found.entry(point.name).or_default() += point.reached.load(Ordering::Relaxed);
    }
    found
}
