//! The text formats of the wire: uuids, timestamps, durations, platforms.

/// A uuid of any version, in either case.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A random uuid in the one form that clients write: lower case, 36 characters.
pub(crate) fn is_uuid_v4(text: &str) -> bool {
    let bytes = text.as_bytes();
    is_uuid(text)
        && !bytes.iter().any(u8::is_ascii_uppercase)
        && bytes[14] == b'4'
        && matches!(bytes[19], b'8' | b'9' | b'a' | b'b')
}

/// `2025-11-26T10:30:45.000000Z`: an existing date from 1970 to 9999.
pub(crate) fn is_timestamp(text: &str) -> bool {
    let fraction = text.strip_suffix('Z').and_then(timestamp_fraction);
    fraction == Some(6)
}

/// The same, with zero to nine fractional digits, and UTC as `Z`, `z` or an offset of zero: `+00:00`, `-00:00`,
/// `+0000`, `+00`.
pub(crate) fn is_loose_timestamp(text: &str) -> bool {
    let mut endings = ["Z", "z", "+00:00", "-00:00", "+0000", "-0000", "+00", "-00"].into_iter();
    let local = endings.find_map(|utc| text.strip_suffix(utc));
    local
        .and_then(timestamp_fraction)
        .is_some_and(|digits| digits <= 9)
}

/// `H:MM:SS` or `H:MM:SS.ffffff`; hours are neither capped nor padded.
pub(crate) fn is_duration(text: &str) -> bool {
    let Some((clock, fraction)) = split_fraction(text) else {
        return false;
    };
    let Some((hours, rest)) = clock.split_once(':') else {
        return false;
    };
    is_plain_number(hours)
        && matches!(fraction, 0 | 6)
        && matches!(numbers(rest, ':', [2, 2]), Some([0..60, 0..60]))
}

/// `family/os`.
pub(crate) fn is_platform(text: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
    text.split_once('/')
        .is_some_and(|(family, os)| is_word(family) && is_word(os) && !os.contains('/'))
}

/// The number of fractional digits of a valid timestamp, from which the time zone was cut off.
fn timestamp_fraction(local: &str) -> Option<usize> {
    let (date, time) = local.split_once('T')?;
    let (clock, fraction) = split_fraction(time)?;
    let is_valid = numbers(date, '-', [4, 2, 2]).is_some_and(is_date)
        && matches!(numbers(clock, ':', [2, 2, 2]), Some([0..24, 0..60, 0..60]));
    is_valid.then_some(fraction)
}

/// Splits off `.digits` and counts them; `None` for a point without digits.
fn split_fraction(text: &str) -> Option<(&str, usize)> {
    match text.split_once('.') {
        None => Some((text, 0)),
        Some((head, digits)) => {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then_some((head, digits.len()))
        }
    }
}

fn is_date([year, month, day]: [u32; 3]) -> bool {
    year >= 1970 && day >= 1 && day <= days_in(month, year)
}

fn days_in(month: u32, year: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 0,
    }
}

fn is_plain_number(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

/// Exactly `N` numbers of exactly these widths.
fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[u32; N]> {
    let mut parts = text.split(separator);
    let mut values = [0; N];
    for (value, width) in values.iter_mut().zip(widths) {
        let part = parts.next()?;
        let is_number = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
        *value = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_has_six_fractional_digits_and_an_existing_date() {
        for good in [
            "2025-11-26T10:30:45.000000Z",
            "1970-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59.999999Z",
            "2024-02-29T00:00:00.000001Z",
            "2000-02-29T00:00:00.000001Z",
        ] {
            assert!(is_timestamp(good), "{good}");
        }
        for bad in [
            "2025-11-26T10:30:45Z",
            "2025-11-26T10:30:45.00000Z",
            "2025-11-26T10:30:45.0000000Z",
            "2025-11-26T10:30:45.000000",
            "2025-11-26T10:30:45.000000+00:00",
            "2025-11-26 10:30:45.000000Z",
            "2025-02-29T10:30:45.000000Z",
            "1900-02-28T10:30:45.000000Z",
            "2025-13-01T10:30:45.000000Z",
            "2025-00-01T10:30:45.000000Z",
            "2025-01-00T10:30:45.000000Z",
            "2025-11-26T24:00:00.000000Z",
            "2025-11-26T10:60:45.000000Z",
            "2025-11-26T10:30:60.000000Z",
            "2025-11-26T10:30:+5.000000Z",
            "2025-1-26T10:30:45.000000Z",
            "+025-11-26T10:30:45.000000Z",
            "２025-11-26T10:30:45.000000Z",
            "",
        ] {
            assert!(!is_timestamp(bad), "{bad}");
        }
    }

    #[test]
    fn a_loose_timestamp_has_zero_to_nine_fractional_digits_and_any_form_of_utc() {
        for good in [
            "2025-11-26T10:30:45Z",
            "2025-11-26T10:30:45.123Z",
            "2025-11-26T10:30:45.123456789Z",
            "2025-11-26T10:30:45+00:00",
            "2025-11-26T10:30:45.123456+00:00",
            "2025-11-26T10:30:45.123456-00:00",
            "2025-11-26T10:30:45.5+0000",
            "2025-11-26T10:30:45z",
        ] {
            assert!(is_loose_timestamp(good), "{good}");
        }
        for bad in [
            "2025-11-26T10:30:45.Z",
            "2025-11-26T10:30:45.1234567890Z",
            "2025-11-26T10:30:45",
            "2025-11-26T10:30:45.123456+01:00",
            "2025-11-26T10:30:45.123456+00:00Z",
            "2025-11-26T10:30:45.123456Z+00:00",
            "2025-02-30T10:30:45+00:00",
            "",
        ] {
            assert!(!is_loose_timestamp(bad), "{bad}");
        }
    }

    #[test]
    fn a_duration_has_unpadded_hours_without_a_cap() {
        for good in ["0:00:00", "25:00:00", "0:01:59.000001", "123456:59:59"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in [
            "00:00:00",
            "0:0:00",
            "0:60:00",
            "0:00:60",
            "0:00:00.1",
            "0:00:00.",
            ":00:00",
            "5",
            "-1:00:00",
            "1 day, 0:00:00",
        ] {
            assert!(!is_duration(bad), "{bad}");
        }
    }

    #[test]
    fn a_uuid_v4_has_its_version_and_is_lower_case() {
        assert!(is_uuid_v4("6f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f"));
        for bad in [
            "6F1C2D3E-4B5A-4C7D-8E9F-0A1B2C3D4E5F",
            "6f1c2d3e-4b5a-1c7d-8e9f-0a1b2c3d4e5f",
            "6f1c2d3e-4b5a-4c7d-ce9f-0a1b2c3d4e5f",
            "6f1c2d3e4b5a4c7d8e9f0a1b2c3d4e5f",
            "6f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5",
        ] {
            assert!(!is_uuid_v4(bad), "{bad}");
        }
    }

    #[test]
    fn a_platform_is_two_words() {
        assert!(is_platform("unix/linux"));
        for bad in [
            "linux",
            "/linux",
            "unix/",
            "unix/linux/x",
            "unix /linux",
            "",
        ] {
            assert!(!is_platform(bad), "{bad}");
        }
    }
}
