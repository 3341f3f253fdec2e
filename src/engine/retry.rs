//! Retry delays: backoff, jitter and `Retry-After`. Pure functions.

use crate::time::Timestamp;
use core::time::Duration;

/// The value of a `Retry-After` header (RFC 9110, section 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAfter {
    /// This long from now.
    Delay(Duration),
    /// At this wall-clock time.
    At(Timestamp),
}

impl RetryAfter {
    /// Parses the form that is a number of seconds; `None` for everything else.
    ///
    /// A number that overflows still asks for a wait, so it becomes a very long delay, which the session then caps.
    #[must_use]
    pub fn from_seconds(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = text.parse().unwrap_or(u64::from(u32::MAX));
        Some(Self::Delay(Duration::from_secs(seconds)))
    }

    /// The delay from `now`; zero for a date in the past.
    pub(crate) fn delay(self, now: Timestamp) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            Self::At(at) => at.saturating_duration_since(now),
        }
    }
}

/// The delay before retry `n` (from 0), in microseconds: `base` × 2ⁿ plus up to a tenth of that, never above `cap`.
/// With `varies_at_cap`, a delay that has reached the cap is up to a tenth shorter.
///
/// `jitter` returns a number below its argument.
pub(crate) fn backoff(
    base: u64,
    cap: u64,
    n: u32,
    varies_at_cap: bool,
    jitter: impl FnOnce(u64) -> u64,
) -> u64 {
    let doubled = 1_u64
        .checked_shl(n)
        .and_then(|times| base.checked_mul(times))
        .unwrap_or(cap)
        .min(cap);
    let jitter = jitter((doubled / 10).saturating_add(1));
    if varies_at_cap && doubled == cap {
        return cap - jitter;
    }
    doubled.saturating_add(jitter).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn backoff_doubles_up_to_its_cap() {
        let delays: [u64; 8] = core::array::from_fn(|n| {
            backoff(1_000_000, 60_000_000, n as u32, false, |_| 0) / 1_000_000
        });
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        for n in [31, 32, 63, 64, u32::MAX] {
            assert_eq!(backoff(1_000_000, 60_000_000, n, false, |_| 0), 60_000_000);
        }
    }

    #[test]
    fn jitter_adds_at_most_a_tenth_and_never_passes_the_cap() {
        let most = |n| backoff(1_000_000, 60_000_000, n, false, |bound| bound - 1);
        assert_eq!(most(0), 1_100_000);
        assert_eq!(most(3), 8_800_000);
        assert_eq!(most(9), 60_000_000);
    }

    #[test]
    fn at_the_cap_a_patient_delay_is_up_to_a_tenth_shorter() {
        let delay = |n, jitter: fn(u64) -> u64| backoff(1_000_000, 60_000_000, n, true, jitter);
        assert_eq!(delay(3, |bound| bound - 1), 8_800_000);
        assert_eq!(delay(9, |_| 0), 60_000_000);
        assert_eq!(delay(9, |bound| bound - 1), 54_000_000);
        assert_eq!(backoff(0, 0, 9, true, |bound| bound - 1), 0);
    }

    #[test]
    fn extreme_delays_do_not_overflow() {
        assert_eq!(
            backoff(u64::MAX, u64::MAX, 5, false, |bound| bound - 1),
            u64::MAX
        );
        assert_eq!(backoff(0, 60_000_000, 5, false, |bound| bound - 1), 0);
    }

    #[test]
    fn retry_after_seconds_are_digits_alone() {
        let seconds = |text| RetryAfter::from_seconds(text);
        assert_eq!(seconds(" 120 "), Some(RetryAfter::Delay(2 * MINUTE)));
        assert_eq!(seconds("0"), Some(RetryAfter::Delay(Duration::ZERO)));
        for garbage in ["", "-1", "1.5", "soon", "+3", "1e3"] {
            assert_eq!(seconds(garbage), None, "{garbage:?}");
        }
        assert!(matches!(
            seconds("99999999999999999999999"),
            Some(RetryAfter::Delay(delay)) if delay > MINUTE
        ));
    }

    #[test]
    fn a_retry_after_date_counts_from_now() {
        let at = RetryAfter::At(Timestamp::from_unix_micros(90_000_000));
        assert_eq!(at.delay(Timestamp::from_unix_micros(30_000_000)), MINUTE);
        assert_eq!(
            at.delay(Timestamp::from_unix_micros(99_000_000)),
            Duration::ZERO
        );
    }
}
