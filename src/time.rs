//! Time: monotonic [`Instant`]s, which order a session's work, and wall-clock [`Timestamp`]s, which events carry.

use core::fmt;
use core::num::NonZero;
use core::time::Duration;

/// A point on a session's monotonic clock: microseconds since an origin that the clock chooses.
///
/// Only differences between instants of the same [`Clock`](crate::runtime::Clock) are meaningful.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZero<u64>);

impl Instant {
    /// The clock's origin.
    pub const ORIGIN: Self = Self::from_micros(0);

    /// The latest instant.
    pub(crate) const END: Self = Self::from_micros(u64::MAX);

    /// Creates an instant from microseconds since the clock's origin, capped at 2⁶⁴ − 2 µs.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        // Stored plus one, so that `Option<Instant>` is no larger.
        Self(NonZero::<u64>::MIN.saturating_add(micros))
    }

    /// Microseconds since the clock's origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// The instant `duration` later, rounded up to a whole microsecond; `None` on overflow.
    #[must_use]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        self.after(micros(duration)?)
    }

    /// The instant `micros` later; `None` on overflow.
    pub(crate) const fn after(self, micros: u64) -> Option<Self> {
        match self.0.checked_add(micros) {
            Some(later) => Some(Self(later)),
            None => None,
        }
    }

    /// The time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instant").field(&self.as_micros()).finish()
    }
}

/// The duration in microseconds, rounded up; `None` on overflow.
pub(crate) fn micros(duration: Duration) -> Option<u64> {
    let micros = duration.as_secs().checked_mul(1_000_000)?;
    micros.checked_add(u64::from(duration.subsec_nanos().div_ceil(1_000)))
}

/// Wall-clock time: microseconds since the Unix epoch, UTC, clamped to the years 1970 to 9999.
///
/// [`Display`](fmt::Display) is the wire format, RFC 3339 with six fractional digits:
///
/// ```
/// # use tinkex_telemetry::time::Timestamp;
/// let timestamp = Timestamp::from_unix_micros(1_764_153_045_000_001);
/// assert_eq!(timestamp.to_string(), "2025-11-26T10:30:45.000001Z");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// Creates a timestamp from microseconds since the Unix epoch, capped at [`Timestamp::MAX`].
    #[must_use]
    pub const fn from_unix_micros(micros: u64) -> Self {
        if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_unix_micros(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; RFC3339_LEN];
        Rfc3339::new().write(*self, &mut text);
        f.write_str(core::str::from_utf8(&text).unwrap_or_default())
    }
}

/// Times before 1970 become the epoch, times after 9999 [`Timestamp::MAX`].
#[cfg(feature = "std")]
impl From<std::time::SystemTime> for Timestamp {
    #[inline]
    fn from(time: std::time::SystemTime) -> Self {
        let since = time
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let micros = since.as_secs().saturating_mul(1_000_000);
        Self::from_unix_micros(micros.saturating_add(u64::from(since.subsec_micros())))
    }
}

/// The length of `2025-11-26T10:30:45.000000Z`.
pub(crate) const RFC3339_LEN: usize = 27;

/// Formats timestamps as RFC 3339, caching the text of the last whole second, which is most of the work.
#[derive(Clone, Debug)]
pub(crate) struct Rfc3339 {
    second: u64,
    /// The text up to and including the decimal point.
    text: [u8; 20],
}

impl Rfc3339 {
    pub(crate) const fn new() -> Self {
        Self {
            second: 0,
            text: *b"1970-01-01T00:00:00.",
        }
    }

    /// Writes the timestamp as ASCII.
    #[inline]
    pub(crate) fn write(&mut self, timestamp: Timestamp, out: &mut [u8; RFC3339_LEN]) {
        let (second, micros) = (timestamp.0 / 1_000_000, (timestamp.0 % 1_000_000) as u32);
        if second != self.second {
            self.set_second(second);
        }
        out[..20].copy_from_slice(&self.text);
        // Three pairs without data dependencies between them.
        out[20..22].copy_from_slice(&pair(micros / 10_000));
        out[22..24].copy_from_slice(&pair(micros / 100 % 100));
        out[24..26].copy_from_slice(&pair(micros % 100));
        out[26] = b'Z';
    }

    #[cold]
    fn set_second(&mut self, second: u64) {
        let (year, month, day) = civil_from_days((second / 86_400) as u32);
        let of_day = (second % 86_400) as u32;
        digits(&mut self.text[0..4], year);
        digits(&mut self.text[5..7], month);
        digits(&mut self.text[8..10], day);
        digits(&mut self.text[11..13], of_day / 3_600);
        digits(&mut self.text[14..16], of_day / 60 % 60);
        digits(&mut self.text[17..19], of_day % 60);
        self.second = second;
    }
}

/// Fills `out` with `value` in decimal, with leading zeros, two digits at a time from the end.
#[inline]
pub(crate) fn digits(out: &mut [u8], value: impl Into<u64>) {
    let mut value = value.into();
    let mut pairs = out.rchunks_exact_mut(2);
    for pair in &mut pairs {
        pair.copy_from_slice(&self::pair((value % 100) as u32));
        value /= 100;
    }
    if let [first] = pairs.into_remainder() {
        *first = b'0' + (value % 10) as u8;
    }
}

/// The two digits of a number below 100.
#[inline]
fn pair(value: u32) -> [u8; 2] {
    match PAIRS.get(value as usize) {
        Some(pair) => *pair,
        None => [b'?'; 2],
    }
}

static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut value = 0;
    while value < 100 {
        pairs[value] = [b'0' + value as u8 / 10, b'0' + value as u8 % 10];
        value += 1;
    }
    pairs
};

/// Year, month and day in the proleptic Gregorian calendar, from days since 1970-01-01.
///
/// Counts in 400-year eras that begin on 1 March, so that a leap day is the last day of its year.
fn civil_from_days(days: u32) -> (u32, u32, u32) {
    const DAYS_PER_ERA: u32 = 146_097;
    const FROM_ERA_START_TO_1970: u32 = 719_468;
    let shifted = days + FROM_ERA_START_TO_1970;
    let (era, of_era) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u32::from(month <= 2);
    (year, month, day)
}

/// A session's duration in wire format: `H:MM:SS`, followed by `.ffffff` if there are microseconds.
pub(crate) struct SessionDuration(pub(crate) Duration);

impl fmt::Display for SessionDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
        write!(f, "{hours}:{minutes:02}:{:02}", seconds % 60)?;
        match self.0.subsec_micros() {
            0 => Ok(()),
            micros => write!(f, ".{micros:06}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn timestamps_are_rfc_3339_with_six_digits_from_1970_to_9999() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (951_868_800_000_001, "2000-03-01T00:00:00.000001Z"),
            (2_147_483_648_000_000, "2038-01-19T03:14:08.000000Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
            (Timestamp::MAX.0, "9999-12-31T23:59:59.999999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999999Z"),
        ];
        for (micros, text) in cases {
            assert_eq!(Timestamp::from_unix_micros(micros).to_string(), text);
        }
    }

    #[test]
    fn a_cached_second_does_not_change_the_text() {
        let mut cached = Rfc3339::new();
        for micros in [5, 999_999, 1_000_000, 86_399_999_999, 86_400_000_000, 5] {
            let timestamp = Timestamp::from_unix_micros(micros);
            let mut text = [0; RFC3339_LEN];
            cached.write(timestamp, &mut text);
            assert_eq!(text, timestamp.to_string().as_bytes());
        }
    }

    #[test]
    fn session_durations_do_not_wrap_hours_into_days() {
        let text = |micros| SessionDuration(Duration::from_micros(micros)).to_string();
        assert_eq!(text(0), "0:00:00");
        assert_eq!(text(1), "0:00:00.000001");
        assert_eq!(text(90_000_000_000), "25:00:00");
        assert_eq!(text(3_661_500_000), "1:01:01.500000");
    }

    #[test]
    fn instants_round_up_and_do_not_overflow() {
        let at = Instant::from_micros(5);
        assert_eq!(
            at.checked_add(Duration::from_nanos(1)),
            Some(Instant::from_micros(6))
        );
        assert_eq!(at.checked_add(Duration::MAX), None);
        assert_eq!(
            Instant::ORIGIN.saturating_duration_since(at),
            Duration::ZERO
        );
    }
}
