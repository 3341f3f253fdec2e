//! Dates: how old something is, although wall clocks jump and those of two hosts differ.

use crate::time::{Instant, Timestamp};
use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use core::time::Duration;
use std::path::{Path, PathBuf};

/// An owner that cannot be looked up counts as alive as long as its lock was touched within this time.
pub(super) const STALE: Duration = Duration::from_secs(120);

/// How often events are looked through for those that are too old, at most. Not before this has passed once: what can be
/// delivered is, and a clock that is wrong when the machine starts has been set.
const PERIOD: Duration = Duration::from_secs(3_600);

/// The date, as far as it can be trusted to say that something is old.
///
/// It is the wall clock's at the first look, and from then on what has passed since, unless the wall clock shows less: a
/// clock that jumps ahead makes nothing older.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    first: Option<(Instant, Timestamp)>,
    last: Option<Instant>,
}

impl Calendar {
    /// The date, if it is time to look for events that are older than `max_age`.
    pub(super) fn look(
        &mut self,
        now: Instant,
        utc: Timestamp,
        max_age: Duration,
    ) -> Option<Timestamp> {
        let (first, began) = *self.first.get_or_insert((now, utc));
        let last = *self.last.get_or_insert(now);
        if now.saturating_duration_since(last) < PERIOD.min(max_age / 4) {
            return None;
        }
        self.last = Some(now);
        let passed = now.saturating_duration_since(first).as_micros();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let date = began.as_unix_micros().saturating_add(passed);
        Some(utc.min(Timestamp::from_unix_micros(date)))
    }
}

/// Watches locks that were touched in the future, as far as this process's clock knows: no date says when that ends.
#[derive(Debug, Default)]
pub(super) struct Watch(BTreeMap<PathBuf, (Timestamp, Instant)>);

impl Watch {
    /// Whether the owner has touched its lock a short while ago.
    pub(super) fn is_recent(
        &mut self,
        folder: &Path,
        touched: Timestamp,
        now: Instant,
        utc: Timestamp,
    ) -> bool {
        if touched <= utc {
            self.0.remove(folder);
            return utc.saturating_duration_since(touched) < STALE;
        }
        let seen = self.0.entry(folder.to_owned()).or_insert((touched, now));
        if seen.0 != touched {
            *seen = (touched, now);
        }
        now.saturating_duration_since(seen.1) < STALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000_000;
    const HOUR: u64 = DAY / 24;
    const MAX_AGE: Duration = Duration::from_secs(14 * 86_400);

    fn look(calendar: &mut Calendar, now: u64, utc: u64) -> Option<u64> {
        let (now, utc) = (Instant::from_micros(now), Timestamp::from_unix_micros(utc));
        let date = calendar.look(now, utc, MAX_AGE);
        date.map(Timestamp::as_unix_micros)
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_older() {
        let (mut calendar, began) = (Calendar::default(), 20_000 * DAY);
        assert_eq!(look(&mut calendar, 0, began), None, "not at once");
        let jumped = began + 4_500 * DAY;
        assert_eq!(look(&mut calendar, HOUR, jumped), Some(began + HOUR));
        assert_eq!(
            look(&mut calendar, HOUR + 1, jumped),
            None,
            "once in an hour"
        );
        assert_eq!(
            look(&mut calendar, 3 * HOUR, jumped),
            Some(began + 3 * HOUR)
        );
        // Set right, where it was wrong at the beginning.
        assert_eq!(
            look(&mut calendar, 5 * HOUR, began - DAY),
            Some(began - DAY)
        );
    }

    #[test]
    fn a_lock_from_the_future_is_stale_when_it_has_stood_still() {
        let (mut watch, path) = (Watch::default(), Path::new("folder"));
        let minute = 60_000_000;
        let mut is_recent = |now: u64, touched: u64| {
            let utc = Timestamp::from_unix_micros(1_000 * minute + now);
            let touched = Timestamp::from_unix_micros(touched * minute);
            watch.is_recent(path, touched, Instant::from_micros(now), utc)
        };
        assert!(is_recent(0, 5_000));
        assert!(is_recent(minute, 5_000));
        assert!(!is_recent(2 * minute, 5_000));
        assert!(is_recent(3 * minute, 5_001), "touched");
        assert!(!is_recent(5 * minute, 5_001));
        assert!(is_recent(5 * minute, 1_004));
        assert!(!is_recent(5 * minute, 1_003));
    }
}
