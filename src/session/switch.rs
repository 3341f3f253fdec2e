//! The switch in the environment: whether sessions exist that the program does not switch on or off itself.

use crate::text::Text;
use core::fmt;
use std::ffi::OsString;

pub(crate) const SWITCH: &str = "TINKER_TELEMETRY";
/// The same by the name that the option's variable would have.
pub(crate) const ENABLED: &str = "TINKER_TELEMETRY_ENABLED";
/// What programs of any kind agreed on: <https://consoledonottrack.com>.
const DO_NOT_TRACK: &str = "DO_NOT_TRACK";

const ON: [&str; 4] = ["1", "true", "yes", "on"];
const OFF: [&str; 4] = ["0", "false", "no", "off"];

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
    /// Off as well: who sets a switch for privacy to a word that is not known wants something switched off.
    Unknown(&'static str, Text<40>),
}

impl Switch {
    pub(crate) fn in_environment() -> Self {
        Self::read(|name| std::env::var_os(name))
    }

    fn read(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let is_one = |words: [&str; 4], value: &str| {
            let mut words = words.iter();
            words.any(|word| value.eq_ignore_ascii_case(word))
        };
        for name in [SWITCH, ENABLED] {
            let Some(value) = get(name) else { continue };
            match value.to_str().map(str::trim) {
                Some("") => {}
                Some(word) if is_one(ON, word) => return Self::On,
                Some(word) if is_one(OFF, word) => return Self::Off,
                _ => {
                    let shown = value.to_string_lossy();
                    return Self::Unknown(name, Text::new(shown.trim().escape_debug()));
                }
            }
        }
        match get(DO_NOT_TRACK) {
            Some(value) if !matches!(value.to_str().map(str::trim), Some("" | "0")) => Self::Off,
            _ => Self::On,
        }
    }

    /// Whether the environment decides at all: without a switch in it, telemetry is on by default only.
    pub(crate) fn is_set(get: impl Fn(&str) -> Option<OsString>) -> bool {
        let is_set =
            |name| get(name).is_some_and(|value| value.to_str().map(str::trim) != Some(""));
        is_set(SWITCH) || is_set(ENABLED) || Self::read(get) == Self::Off
    }
}

/// What is wrong with the switch, for a diagnostic.
impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("telemetry is on"),
            Self::Off => f.write_str("telemetry is off"),
            Self::Unknown(name, value) => write!(
                f,
                "{name}=\"{value}\" is not known, so telemetry is off: use 1, true, yes or on; 0, false, no or off"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn read(telemetry: Option<&str>, do_not_track: Option<&str>) -> Switch {
        Switch::read(|name| match name {
            SWITCH => telemetry.map(Into::into),
            DO_NOT_TRACK => do_not_track.map(Into::into),
            _ => None,
        })
    }

    #[test]
    fn four_words_switch_telemetry_on_and_four_off() {
        for on in ["1", "true", "YES", " On\n"] {
            assert_eq!(read(Some(on), None), Switch::On, "{on:?}");
        }
        for off in ["0", "false", "NO", " Off\n"] {
            assert_eq!(read(Some(off), None), Switch::Off, "{off:?}");
        }
    }

    #[test]
    fn a_word_that_is_not_known_switches_telemetry_off_and_is_named() {
        for word in [
            "disabled", "none", "never", "n", "f", "null", "nope", "enabled", "2", "-1", "\"off\"",
        ] {
            let switch = read(Some(word), None);
            assert!(matches!(switch, Switch::Unknown(..)), "{word}");
            let shown = switch.to_string();
            let begin = alloc::format!("TINKER_TELEMETRY=\"{}\" is not", word.escape_debug());
            assert!(shown.starts_with(&begin), "{shown}");
            assert!(shown.len() <= 160, "{shown}");
        }
        let long = read(Some(&"x\u{202e}\n".repeat(1000)), None).to_string();
        assert!(
            long.len() <= 160 && !long.contains(['\n', '\u{202e}']),
            "{long}"
        );
    }

    #[test]
    fn the_name_of_the_option_is_a_second_name_of_the_switch() {
        let read = |switch: &str, enabled: &str| {
            Switch::read(|name| match name {
                SWITCH => Some(switch.into()),
                ENABLED => Some(enabled.into()),
                _ => Some("1".into()),
            })
        };
        assert_eq!(read("", "off"), Switch::Off);
        assert_eq!(read("", "on"), Switch::On);
        assert_eq!(read("off", "on"), Switch::Off);
        assert_eq!(read("on", "off"), Switch::On);
        let unknown = read("", "never").to_string();
        assert!(
            unknown.starts_with("TINKER_TELEMETRY_ENABLED=\"never\" is not known"),
            "{unknown}"
        );
    }

    #[test]
    fn a_switch_is_set_if_it_is_not_blank_and_do_not_track_if_it_says_so() {
        let is_set =
            |name: &str, value: &str| Switch::is_set(|other| (other == name).then(|| value.into()));
        for name in [SWITCH, ENABLED] {
            assert!(is_set(name, "off") && is_set(name, "on") && is_set(name, "never"));
            assert!(!is_set(name, " "));
        }
        assert!(is_set(DO_NOT_TRACK, "1"));
        assert!(!is_set(DO_NOT_TRACK, "0") && !is_set(DO_NOT_TRACK, ""));
        assert!(!is_set("OTHER", "off"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_unicode_switches_telemetry_off() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(b"on\xff".to_vec());
        let switch = Switch::read(|name| (name == SWITCH).then(odd));
        assert!(matches!(switch, Switch::Unknown(..)));
        let switch = Switch::read(|name| (name == DO_NOT_TRACK).then(odd));
        assert_eq!(switch, Switch::Off);
    }

    #[test]
    fn do_not_track_switches_telemetry_off_unless_its_own_switch_decides() {
        for (telemetry, do_not_track, expected) in [
            (None, None, Switch::On),
            (None, Some("1"), Switch::Off),
            (None, Some("true"), Switch::Off),
            (None, Some("false"), Switch::Off),
            (None, Some("0"), Switch::On),
            (None, Some(" 0 "), Switch::On),
            (None, Some(""), Switch::On),
            (None, Some(" "), Switch::On),
            (Some(""), Some("1"), Switch::Off),
            (Some("  "), Some("1"), Switch::Off),
            (Some("on"), Some("1"), Switch::On),
            (Some("off"), Some("0"), Switch::Off),
        ] {
            assert_eq!(
                read(telemetry, do_not_track),
                expected,
                "{telemetry:?} {do_not_track:?}"
            );
        }
    }
}
