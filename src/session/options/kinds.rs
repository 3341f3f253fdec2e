//! The kinds of options as people write them: durations, sizes, counts, words and lists.

use crate::engine::GiveUp;
use crate::event::severity::Severity;
use crate::text::Text;
use core::fmt;
use core::time::Duration;
use serde::ser::Serializer;

#[cfg(has_arc)]
use crate::{bus::EventNames, text::Str};
#[cfg(has_arc)]
use alloc::string::String;

/// A kind of options: how a value is read from text, from a number or a truth value, and how it is written.
pub(super) trait Kind {
    type Value;

    /// What goes behind "it must be".
    const MUST_BE: &'static str;

    fn of_text(text: &str) -> Result<Self::Value, Wrong<'_>>;

    fn of_number(_: u64) -> Result<Self::Value, Wrong<'static>> {
        Err(Wrong::Form)
    }

    fn of_bool(_: bool) -> Result<Self::Value, Wrong<'static>> {
        Err(Wrong::Form)
    }

    /// What `null` means.
    fn of_nothing() -> Result<Self::Value, Wrong<'static>> {
        Err(Wrong::Form)
    }

    #[cfg(has_arc)]
    fn of_list(_: impl Iterator<Item = String>) -> Result<Self::Value, Wrong<'static>> {
        Err(Wrong::Form)
    }

    /// Whether a file that has all options names this one.
    fn is_written(_: &Self::Value) -> bool {
        true
    }

    fn write<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error>;
}

/// What is wrong with a value.
pub(super) enum Wrong<'a> {
    /// Of another kind altogether, or nothing that needs to be said besides the value.
    Form,
    /// A number without a unit, where it could mean several.
    NoUnit(&'a str),
    Unit(&'a str),
    Number(&'a str),
    /// A unit that comes twice, or behind a smaller one.
    Order(&'a str),
    TooLarge,
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |part: &str| Text::<24>::new(part.escape_debug());
        match self {
            Self::Form => Ok(()),
            Self::NoUnit("") => f.write_str(", which has no unit"),
            Self::NoUnit(part) => write!(f, ", where \"{}\" has no unit", quoted(part)),
            Self::Unit(part) => write!(f, ", where \"{}\" is no unit", quoted(part)),
            Self::Number(part) => write!(f, ", where \"{}\" is no number", quoted(part)),
            Self::Order(part) => {
                write!(
                    f,
                    ", where \"{}\" is not smaller than the unit before",
                    quoted(part)
                )
            }
            Self::TooLarge => f.write_str(", which is too large"),
        }
    }
}

/// Splits off what the characters at the beginning of a text are.
fn split(text: &str, is_part: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

/// Digits alone, in ASCII.
fn digits(text: &str) -> Result<u64, Wrong<'_>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Number(text));
    }
    text.parse().map_err(|_| Wrong::TooLarge)
}

fn is_word(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

const UNLIMITED: &str = "unlimited";

pub(super) struct Time;

/// In nanoseconds, the largest first.
const UNITS: [(&[&str], u64); 7] = [
    (&["d"], 86_400_000_000_000),
    (&["h"], 3_600_000_000_000),
    (&["m", "min"], 60_000_000_000),
    (&["s"], 1_000_000_000),
    (&["ms"], 1_000_000),
    (&["us", "µs", "μs"], 1_000),
    (&["ns"], 1),
];

impl Kind for Time {
    type Value = Duration;

    const MUST_BE: &'static str =
        "a duration, such as \"10s\", \"250ms\" or \"1m30s\" (d, h, m, s, ms, us, ns)";

    fn of_text(text: &str) -> Result<Duration, Wrong<'_>> {
        let mut rest = text;
        let mut total: u128 = 0;
        let mut units = UNITS.iter();
        if rest == "0" {
            return Ok(Duration::ZERO);
        }
        loop {
            let (number, behind) = split(rest, |c| c.is_ascii_digit() || c == '.');
            if number.is_empty() {
                return Err(Wrong::Number(rest));
            }
            let is_all = number.len() == text.len();
            let (unit, behind) = split(behind.trim_start(), char::is_alphabetic);
            let is_this = |(names, _): &&(&[&str], u64)| names.contains(&unit);
            let Some((_, nanos)) = units.find(is_this) else {
                return Err(match UNITS.iter().find(is_this) {
                    Some(_) => Wrong::Order(unit),
                    None if is_all => Wrong::NoUnit(""),
                    None if unit.is_empty() => Wrong::NoUnit(number),
                    None => Wrong::Unit(unit),
                });
            };
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            let wrong = |wrong| match wrong {
                Wrong::Number(_) => Wrong::Number(number),
                other => other,
            };
            let whole = digits(whole).map_err(wrong)?;
            // Beyond the ninth digit there is nothing, even of a day, that a session's clock could tell.
            digits(part.get(..9).unwrap_or(part)).map_err(wrong)?;
            if !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Wrong::Number(number));
            }
            total += u128::from(whole) * u128::from(*nanos);
            let mut scale = *nanos;
            for digit in part.bytes() {
                scale /= 10;
                total += u128::from(scale * u64::from(digit - b'0'));
            }
            rest = behind.trim_start();
            if rest.is_empty() {
                break;
            }
        }
        let second = 1_000_000_000;
        let seconds = u64::try_from(total / second).map_err(|_| Wrong::TooLarge)?;
        Ok(Duration::new(seconds, (total % second) as u32))
    }

    fn of_number(number: u64) -> Result<Duration, Wrong<'static>> {
        match number {
            0 => Ok(Duration::ZERO),
            _ => Err(Wrong::NoUnit("")),
        }
    }

    fn write<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Written(*value))
    }
}

/// A duration as it is read: in hours and what is smaller, exactly.
struct Written(Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        for (count, unit) in [
            (seconds / 3_600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(nanos / 1_000_000), "ms"),
            (u64::from(nanos / 1_000 % 1_000), "us"),
            (u64::from(nanos % 1_000), "ns"),
        ] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

/// A number of things; without limit it is the largest number.
pub(super) struct Count;

impl Kind for Count {
    type Value = usize;

    const MUST_BE: &'static str = "a whole number, or \"unlimited\"";

    fn of_text(text: &str) -> Result<usize, Wrong<'_>> {
        if is_word(text, &[UNLIMITED]) {
            return Ok(usize::MAX);
        }
        Self::of_number(digits(text)?)
    }

    fn of_number(number: u64) -> Result<usize, Wrong<'static>> {
        usize::try_from(number).map_err(|_| Wrong::TooLarge)
    }

    fn write<S: Serializer>(value: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        // Not every format has numbers so large.
        match *value {
            usize::MAX => serializer.serialize_str(UNLIMITED),
            number => serializer.serialize_u64(number as u64),
        }
    }
}

/// A number of bytes.
pub(super) struct Size;

impl Kind for Size {
    type Value = usize;

    const MUST_BE: &'static str =
        "a number of bytes, such as 65536, \"64KiB\" or \"8MiB\", or \"unlimited\"";

    fn of_text(text: &str) -> Result<usize, Wrong<'_>> {
        let (number, unit) = split(text, |c| c.is_ascii_digit());
        if number.is_empty() {
            return Count::of_text(text);
        }
        let scale: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            unit => return Err(Wrong::Unit(unit)),
        };
        let bytes = digits(number)?.checked_mul(scale);
        Count::of_number(bytes.ok_or(Wrong::TooLarge)?)
    }

    fn of_number(number: u64) -> Result<usize, Wrong<'static>> {
        Count::of_number(number)
    }

    fn write<S: Serializer>(value: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        Count::write(value, serializer)
    }
}

/// A number of attempts.
pub(super) struct Number;

impl Kind for Number {
    type Value = u32;

    const MUST_BE: &'static str = "a whole number up to 4294967295";

    fn of_text(text: &str) -> Result<u32, Wrong<'_>> {
        Self::of_number(digits(text)?)
    }

    fn of_number(number: u64) -> Result<u32, Wrong<'static>> {
        u32::try_from(number).map_err(|_| Wrong::TooLarge)
    }

    fn write<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(*value)
    }
}

/// One part in so many, or what is the default.
pub(super) struct Part;

impl Kind for Part {
    type Value = Option<u32>;

    const MUST_BE: &'static str = Number::MUST_BE;

    fn of_text(text: &str) -> Result<Option<u32>, Wrong<'_>> {
        Number::of_text(text).map(Some)
    }

    fn of_number(number: u64) -> Result<Option<u32>, Wrong<'static>> {
        Number::of_number(number).map(Some)
    }

    fn of_nothing() -> Result<Option<u32>, Wrong<'static>> {
        Ok(None)
    }

    fn is_written(value: &Option<u32>) -> bool {
        value.is_some()
    }

    fn write<S: Serializer>(value: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(number) => serializer.serialize_u32(*number),
            None => serializer.serialize_none(),
        }
    }
}

pub(super) struct Patience;

impl Kind for Patience {
    type Value = GiveUp;

    const MUST_BE: &'static str = "\"after_retries\" or \"when_full\"";

    fn of_text(text: &str) -> Result<GiveUp, Wrong<'_>> {
        if is_word(text, &["after_retries", "after-retries", "AfterRetries"]) {
            Ok(GiveUp::AfterRetries)
        } else if is_word(text, &["when_full", "when-full", "WhenFull"]) {
            Ok(GiveUp::WhenFull)
        } else {
            Err(Wrong::Form)
        }
    }

    fn write<S: Serializer>(value: &GiveUp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match value {
            GiveUp::AfterRetries => "after_retries",
            GiveUp::WhenFull => "when_full",
        })
    }
}

pub(super) struct Level;

impl Kind for Level {
    type Value = Severity;

    const MUST_BE: &'static str = "DEBUG, INFO, WARNING, ERROR or CRITICAL";

    fn of_text(text: &str) -> Result<Severity, Wrong<'_>> {
        text.parse().map_err(|_| Wrong::Form)
    }

    fn write<S: Serializer>(value: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.as_str())
    }
}

/// Yes or no.
pub(super) struct Flag;

impl Kind for Flag {
    type Value = bool;

    const MUST_BE: &'static str = "true or false (or 1, yes, on; 0, no, off)";

    fn of_text(text: &str) -> Result<bool, Wrong<'_>> {
        if is_word(text, &["1", "true", "yes", "on"]) {
            Ok(true)
        } else if is_word(text, &["0", "false", "no", "off"]) {
            Ok(false)
        } else {
            Err(Wrong::Form)
        }
    }

    fn of_bool(value: bool) -> Result<bool, Wrong<'static>> {
        Ok(value)
    }

    fn write<S: Serializer>(value: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*value)
    }
}

/// Yes, no, or what something else decides.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = Option<bool>;

    const MUST_BE: &'static str = Flag::MUST_BE;

    fn of_text(text: &str) -> Result<Option<bool>, Wrong<'_>> {
        Flag::of_text(text).map(Some)
    }

    fn of_bool(value: bool) -> Result<Option<bool>, Wrong<'static>> {
        Ok(Some(value))
    }

    fn of_nothing() -> Result<Option<bool>, Wrong<'static>> {
        Ok(None)
    }

    fn is_written(value: &Option<bool>) -> bool {
        value.is_some()
    }

    fn write<S: Serializer>(value: &Option<bool>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_bool(*value),
            None => serializer.serialize_none(),
        }
    }
}

/// Names of events: a list, or in one text with commas between them.
#[cfg(has_arc)]
pub(super) struct Names;

#[cfg(has_arc)]
impl Kind for Names {
    type Value = EventNames;

    const MUST_BE: &'static str = "a list of names of events, in a text with commas between them";

    fn of_text(text: &str) -> Result<EventNames, Wrong<'_>> {
        let names = text.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        Ok(names.map(String::from).collect())
    }

    fn of_list(names: impl Iterator<Item = String>) -> Result<EventNames, Wrong<'static>> {
        Ok(names.collect())
    }

    fn write<S: Serializer>(value: &EventNames, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter())
    }
}

/// An identifier, if there is one.
#[cfg(has_arc)]
pub(super) struct Name;

#[cfg(has_arc)]
impl Kind for Name {
    type Value = Option<Str>;

    const MUST_BE: &'static str = "a text";

    fn of_text(text: &str) -> Result<Option<Str>, Wrong<'_>> {
        Ok(Some(String::from(text).into()))
    }

    fn of_nothing() -> Result<Option<Str>, Wrong<'static>> {
        Ok(None)
    }

    fn is_written(value: &Option<Str>) -> bool {
        value.is_some()
    }

    fn write<S: Serializer>(value: &Option<Str>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(text) => serializer.serialize_str(text),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString as _};

    fn time(text: &str) -> Result<Duration, String> {
        Time::of_text(text).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_duration_is_a_sum_of_numbers_with_units() {
        let millis = Duration::from_millis;
        for (text, expected) in [
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
            ("10s", millis(10_000)),
            ("250ms", millis(250)),
            ("1m30s", millis(90_000)),
            ("1m 30 s", millis(90_000)),
            ("2min", millis(120_000)),
            ("1.5s", millis(1_500)),
            ("0.25h", millis(900_000)),
            ("1d2h", millis(93_600_000)),
            ("90s", millis(90_000)),
            ("1us500ns", Duration::from_nanos(1_500)),
            ("7µs", Duration::from_micros(7)),
            ("1.0000000000001s", millis(1_000)),
            ("18446744073709551615s", Duration::from_secs(u64::MAX)),
        ] {
            assert_eq!(time(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_part_that_is_wrong() {
        for (text, expected) in [
            ("10", ", which has no unit"),
            ("1m30", ", where \"30\" has no unit"),
            ("", ", where \"\" is no number"),
            ("s", ", where \"s\" is no number"),
            ("-1s", ", where \"-1s\" is no number"),
            ("+1s", ", where \"+1s\" is no number"),
            ("1e3s", ", where \"e\" is no unit"),
            ("1_000s", ", where \"1\" has no unit"),
            ("10 parsecs", ", where \"parsecs\" is no unit"),
            ("10S", ", where \"S\" is no unit"),
            ("1M", ", where \"M\" is no unit"),
            ("1.2.3s", ", where \"1.2.3\" is no number"),
            (".5s", ", where \".5\" is no number"),
            ("5.s", ", where \"5.\" is no number"),
            ("1.0000000000x1s", ", where \"x\" is no unit"),
            ("30s1m", ", where \"m\" is not smaller than the unit before"),
            ("1s1s", ", where \"s\" is not smaller than the unit before"),
            ("1s,2ms", ", where \",2ms\" is no number"),
            ("١s", ", where \"١s\" is no number"),
            ("18446744073709551616s", ", which is too large"),
            ("18446744073709551615d", ", which is too large"),
            ("forever", ", where \"forever\" is no number"),
            ("inf", ", where \"inf\" is no number"),
        ] {
            assert_eq!(time(text), Err(expected.to_string()), "{text}");
        }
        let long = time(&"9".repeat(100_000)).expect_err("no unit");
        assert!(long.len() < 80, "{long}");
    }

    #[test]
    fn every_duration_survives_its_text() {
        for duration in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_secs(60),
            Duration::from_millis(3_661_001),
            Duration::new(86_400, 999_999_999),
            Duration::MAX,
        ] {
            let text = Written(duration).to_string();
            assert_eq!(time(&text), Ok(duration), "{text}");
        }
        let shown = |millis| Written(Duration::from_millis(millis)).to_string();
        assert_eq!([shown(10_000), shown(60_000)], ["10s", "1m"]);
        assert_eq!([shown(90_000), shown(1_500)], ["1m30s", "1s500ms"]);
    }

    #[test]
    fn sizes_have_units_and_counts_do_not() {
        let size = |text| Size::of_text(text).map_err(|wrong| wrong.to_string());
        for (text, expected) in [
            ("65536", 65_536),
            ("100B", 100),
            ("64KiB", 65_536),
            ("8 MiB", 8 << 20),
            ("1GiB", 1 << 30),
            ("unlimited", usize::MAX),
            ("Unlimited", usize::MAX),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("8MB", ", where \"MB\" is no unit"),
            ("1.5MiB", ", where \".5MiB\" is no unit"),
            ("-1", ", where \"-1\" is no number"),
            ("lots", ", where \"lots\" is no number"),
            ("99999999999GiB", ", which is too large"),
            ("99999999999999999999", ", which is too large"),
        ] {
            assert_eq!(size(text), Err(expected.to_string()), "{text}");
        }
        assert!(Count::of_text("10k").is_err() && Count::of_text("1_000").is_err());
        assert!(Number::of_text("4294967296").is_err());
    }
}
