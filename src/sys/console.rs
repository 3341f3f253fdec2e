//! The console: lines on stderr for a program that listens to nothing else, as far as `TINKER_LOG` asks for them.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io::Write as _;
use std::sync::OnceLock;

/// What `TINKER_LOG` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Unset: what a session has lost, when it ends.
    Losses,
    Nothing,
    /// Every diagnostic of this level and above.
    Level(log::LevelFilter),
}

impl Wanted {
    fn parse(value: &str) -> Option<Self> {
        match &*value.trim().to_ascii_lowercase() {
            "" => Some(Self::Losses),
            "off" => Some(Self::Nothing),
            "warn" => Some(Self::Level(log::LevelFilter::Warn)),
            "info" => Some(Self::Level(log::LevelFilter::Info)),
            "debug" => Some(Self::Level(log::LevelFilter::Debug)),
            _ => None,
        }
    }
}

/// What the environment asked for when it was first looked at. A value that it does not know is reported once.
pub(crate) fn wanted() -> Wanted {
    static VALUE: OnceLock<Result<Wanted, String>> = OnceLock::new();
    static IS_REPORTED: AtomicBool = AtomicBool::new(false);
    let value = VALUE.get_or_init(|| {
        let value = std::env::var_os("TINKER_LOG").unwrap_or_default();
        let value = value.to_string_lossy();
        Wanted::parse(&value).ok_or_else(|| value.escape_debug().take(48).collect())
    });
    match value {
        Ok(wanted) => *wanted,
        Err(unknown) => {
            if !IS_REPORTED.swap(true, Ordering::Relaxed) {
                write_line(format_args!(
                    "TINKER_LOG is \"{unknown}\", which is none of debug, info, warn and off"
                ));
            }
            Wanted::Losses
        }
    }
}

/// Writes one line to stderr. That it cannot be written is no one's concern.
pub(crate) fn write_line(line: fmt::Arguments<'_>) {
    // In one piece, so that other threads' lines do not come in between.
    let line = format!("tinkex-telemetry: {line}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_known_in_any_case_and_others_are_not() {
        let level = |level| Some(Wanted::Level(level));
        assert_eq!(Wanted::parse("debug"), level(log::LevelFilter::Debug));
        assert_eq!(Wanted::parse(" Info "), level(log::LevelFilter::Info));
        assert_eq!(Wanted::parse("WARN"), level(log::LevelFilter::Warn));
        assert_eq!(Wanted::parse("off"), Some(Wanted::Nothing));
        assert_eq!(Wanted::parse(""), Some(Wanted::Losses));
        assert_eq!(Wanted::parse("loud"), None);
    }
}
