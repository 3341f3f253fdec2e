//! One event of a batch, with its members as they stand in the body.

use super::json::{Cursor, Malformed, RawStr, Token};
use crate::event::Severity;

/// An event's members. What they hold is read when it is written.
#[derive(Default)]
pub(super) struct Event<'a> {
    pub(super) kind: Option<RawStr<'a>>,
    pub(super) id: Option<RawStr<'a>>,
    pub(super) index: u64,
    pub(super) severity: Option<Severity>,
    /// Nanoseconds since the Unix epoch.
    pub(super) time: u64,
    pub(super) name: Option<RawStr<'a>>,
    pub(super) data: Option<&'a str>,
    /// Seconds.
    pub(super) duration: Option<f64>,
    pub(super) error_type: Option<RawStr<'a>>,
    pub(super) error_message: Option<RawStr<'a>>,
    pub(super) traceback: Option<RawStr<'a>>,
}

impl<'a> Event<'a> {
    /// Reads the event that is next.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let Token::Object = cursor.token()? else {
            return Err(Malformed);
        };
        let mut event = Event::default();
        let mut is_first = true;
        while let Some(key) = cursor.key(is_first)? {
            is_first = false;
            event.member(key, cursor)?;
        }
        Ok(event)
    }

    fn member(&mut self, key: RawStr<'a>, cursor: &mut Cursor<'a>) -> Result<(), Malformed> {
        match key.text {
            "event" => self.kind = text(cursor)?,
            "event_id" => self.id = text(cursor)?,
            "event_session_index" => {
                if let Token::Number(number) = cursor.token()? {
                    self.index = number.text.parse().map_err(|_| Malformed)?;
                }
            }
            "severity" => self.severity = text(cursor)?.and_then(|text| text.text.parse().ok()),
            "timestamp" => {
                let text = text(cursor)?.ok_or(Malformed)?;
                self.time = nanos(text.text).ok_or(Malformed)?;
            }
            "event_name" => self.name = text(cursor)?,
            "event_data" => self.data = Some(cursor.value()?),
            "duration" => self.duration = text(cursor)?.and_then(|text| seconds(text.text)),
            "error_type" => self.error_type = text(cursor)?,
            "error_message" => self.error_message = text(cursor)?,
            "traceback" => self.traceback = text(cursor)?,
            _ => drop(cursor.value()?),
        }
        Ok(())
    }
}

/// The text that is next.
pub(super) fn text<'a>(cursor: &mut Cursor<'a>) -> Result<Option<RawStr<'a>>, Malformed> {
    match cursor.token()? {
        Token::Str(text) => Ok(Some(text)),
        Token::Null => Ok(None),
        _ => Err(Malformed),
    }
}

/// Nanoseconds since the Unix epoch of a timestamp as events have it: `2025-11-26T10:30:45.000000Z`.
pub(super) fn nanos(timestamp: &str) -> Option<u64> {
    let bytes: &[u8; 27] = timestamp.as_bytes().try_into().ok()?;
    let number = |from: usize, to: usize| {
        let digits = bytes.get(from..to)?.iter();
        digits
            .copied()
            .try_fold(0_u64, |number, digit| match digit {
                b'0'..=b'9' => Some(number * 10 + u64::from(digit - b'0')),
                _ => None,
            })
    };
    let separators = [
        bytes[4], bytes[7], bytes[10], bytes[13], bytes[16], bytes[19], bytes[26],
    ];
    if &separators != b"--T::.Z" {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = (number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?;
    let micros = number(20, 26)?;
    // Days since 1970-01-01, by Howard Hinnant's algorithm, with a year that begins in March.
    let year = year.checked_sub(u64::from(month <= 2))?;
    let month = (month + 9) % 12;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let days = days.checked_sub(719_469)?;
    (days * 86_400 + seconds)
        .checked_mul(1_000_000)?
        .checked_add(micros)?
        .checked_mul(1_000)
}

/// The seconds of a duration as `SESSION_END` has it: `1:02:03.5`, with hours without bound.
fn seconds(duration: &str) -> Option<f64> {
    let (hours, rest) = duration.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let whole = hours.parse::<u64>().ok()? as f64 * 3600.0;
    Some(whole + f64::from(minutes.parse::<u8>().ok()?) * 60.0 + seconds.parse::<f64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use alloc::string::ToString as _;
    use arbtest::arbtest;

    #[test]
    fn every_timestamp_is_read_as_it_was_written() {
        arbtest(|u| {
            // Nanoseconds in a `u64` end in the year 2554.
            let micros = u.int_in_range(0..=u64::MAX / 1_000)?;
            let text = Timestamp::from_unix_micros(micros).to_string();
            assert_eq!(nanos(&text), Some(micros * 1_000), "{text}");
            Ok(())
        });
        assert_eq!(nanos("1970-01-01T00:00:00.000000Z"), Some(0));
        assert_eq!(nanos("9999-12-31T23:59:59.999999Z"), None);
        assert_eq!(nanos("1970-01-01T00:00:00.00000Z"), None);
        assert_eq!(nanos("0000-01-01T00:00:00.000000Z"), None);
    }

    #[test]
    fn a_duration_is_read_in_seconds() {
        assert_eq!(seconds("0:00:01"), Some(1.0));
        assert_eq!(seconds("25:01:02.500000"), Some(90_062.5));
        assert_eq!(seconds("soon"), None);
    }
}
