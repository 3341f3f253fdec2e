//! Notes for people: what the spool says through the `log` facade, or on stderr where `TINKER_LOG` asks for it.

use crate::diagnostic;
use crate::sys::console;
use crate::sys::own_work::{self, OwnWork, Sessions};
use alloc::format;
use alloc::string::String;
use core::fmt;
use std::io;
use std::path::Path;

/// Says it to whom it may concern.
pub(super) fn say(level: log::Level, what: impl fmt::Display) {
    let _working = every_session().enter();
    if diagnostic::has_logger() {
        log::log!(target: "tinkex_telemetry", level, "{what}");
    } else if let console::Wanted::Level(least) = console::wanted()
        && level <= least
    {
        console::write_line(format_args!("{level} {what}"));
    }
}

pub(super) fn say_error(level: log::Level, what: &str, error: &io::Error) {
    say(level, format_args!("{what}: {error}"));
}

/// Says that batches go straight from now on.
pub(super) fn disk_failed(path: &Path, error: &io::Error) {
    say(
        log::Level::Warn,
        format_args!(
            "Telemetry spool {path:?} cannot be written to, sending without it, will try again every minute: {error}"
        ),
    );
}

/// Says that the disk has not answered in time, and what was being written.
pub(super) fn disk_stalls(path: &Path, events: usize) {
    let noun = if events == 1 { "event" } else { "events" };
    say(
        log::Level::Warn,
        format_args!(
            "Telemetry spool {path:?} does not answer: {events} {noun} may not be written, the session waits no longer"
        ),
    );
}

/// Says on stderr what a program leaves behind, if nothing else would: where it is, and how it gets sent.
pub(super) fn left(pending: u64, path: &Path) {
    let is_silent = !diagnostic::has_logger();
    let noun = if pending == 1 { "event" } else { "events" };
    let word = shell_word(path);
    let what = format_args!(
        "{pending} {noun} not sent yet, kept in {path:?}; the next program with this spool sends them, or, with the same \
         TINKER_BASE_URL and TINKER_API_KEY: tinkex-telemetry send {word}"
    );
    if is_silent && console::wanted() == console::Wanted::Losses {
        console::write_line(what);
    } else {
        say(log::Level::Warn, format_args!("Telemetry spool: {what}"));
    }
}

/// A path as a shell takes it.
fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "/._-+:@%,=".contains(char);
    if text.chars().all(is_plain) {
        return text.into_owned();
    }
    if text.contains(char::is_control) {
        // No name that a person has typed: as a program would show it.
        return format!("{path:?}");
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The set of every session, for work that is done for all of them.
pub(super) fn every_session() -> Sessions {
    fn enter(left: usize) -> Sessions {
        if left == 0 {
            return own_work::current();
        }
        let work = OwnWork::new();
        let _working = work.enter(|| 0);
        enter(left - 1)
    }
    // A set that would be larger than 8 contains every session.
    enter(9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_to_a_shell() {
        for (path, word) in [
            ("/tmp/telemetry-1.2", "/tmp/telemetry-1.2"),
            ("/tmp/a b$HOME", "'/tmp/a b$HOME'"),
            ("/tmp/it's", r"'/tmp/it'\''s'"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }
}
