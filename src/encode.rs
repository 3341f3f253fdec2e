//! Events become JSON, once, when they are logged.
//!
//! What is written here is everything behind an event's id and index, which are taken under the queue's lock:
//! `,"event":…}`. The wire's keys are in one place, this one and [`Front`].

use crate::scratch::{EncodeError, Scratch};
use crate::severity::Severity;
use crate::text::Why;
use crate::time::{Rfc3339, SessionDuration, Timestamp};
use core::fmt::{self, Write};
use core::time::Duration;
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// Everything behind the id and index of a `GENERIC_EVENT`.
pub(crate) fn generic<D: Serialize + ?Sized>(
    out: &mut Scratch,
    at: Timestamp,
    severity: Severity,
    name: &str,
    data: &D,
) -> Result<(), EncodeError> {
    head(out, "GENERIC_EVENT", severity, at);
    out.raw(b",\"event_name\":");
    out.value(name)?;
    out.raw(b",\"event_data\":");
    object(out, data)?;
    out.raw(b"}");
    out.finish()
}

/// Everything behind the id and index of a `SESSION_START`.
pub(crate) fn session_start(out: &mut Scratch, at: Timestamp) -> Result<(), EncodeError> {
    head(out, "SESSION_START", Severity::Info, at);
    out.raw(b"}");
    out.finish()
}

/// Everything behind the id and index of a `SESSION_END`.
pub(crate) fn session_end(at: Timestamp, lasted: Duration) -> SessionEnd {
    Text(Rfc3339::default().format(at), SessionDuration(lasted)).into()
}

/// The tail of a `SESSION_END`, which has a place of its own in the engine.
pub(crate) type SessionEnd = heapless::String<136>;

struct Text([u8; crate::time::RFC3339_LEN], SessionDuration);

impl From<Text> for SessionEnd {
    fn from(Text(at, lasted): Text) -> Self {
        let mut tail = Self::new();
        let at = core::str::from_utf8(&at).unwrap_or_default();
        // 113 bytes at the most: the longest duration is 584 542 years of microseconds.
        let _ = write!(
            tail,
            r#","event":"SESSION_END","severity":"INFO","timestamp":"{at}","duration":"{lasted}"}}"#
        );
        tail
    }
}

/// Everything behind the id and index of an `UNHANDLED_EXCEPTION`.
///
/// Message and traceback are cut to what fits, and say so: an exception is never too large.
pub(crate) fn exception(
    out: &mut Scratch,
    at: Timestamp,
    severity: Severity,
    error_type: &dyn fmt::Display,
    message: &dyn fmt::Display,
    traceback: Option<&dyn fmt::Display>,
) -> Result<(), EncodeError> {
    head(out, "UNHANDLED_EXCEPTION", severity, at);
    out.raw(b",\"error_type\":");
    out.value(&Cut::new(error_type, out.room() / 4))?;
    out.raw(b",\"error_message\":");
    out.value(&Cut::new(message, out.room() / 2))?;
    if let Some(traceback) = traceback {
        out.raw(b",\"traceback\":");
        out.value(&Cut::new(traceback, out.room().saturating_sub(3)))?;
    }
    out.raw(b"}");
    out.finish()
}

fn head(out: &mut Scratch, event: &str, severity: Severity, at: Timestamp) {
    out.raw(b",\"event\":\"");
    out.raw(event.as_bytes());
    out.raw(b"\",\"severity\":\"");
    out.raw(severity.as_str().as_bytes());
    out.raw(b"\",\"timestamp\":\"");
    out.raw(&timestamp(at));
    out.raw(b"\"");
}

#[cfg(feature = "std")]
fn timestamp(at: Timestamp) -> [u8; crate::time::RFC3339_LEN] {
    use core::cell::RefCell;
    std::thread_local! {
        static LAST: RefCell<Rfc3339> = RefCell::new(Rfc3339::default());
    }
    LAST.try_with(|last| last.borrow_mut().format(at))
        .unwrap_or_else(|_| Rfc3339::default().format(at))
}

#[cfg(not(feature = "std"))]
fn timestamp(at: Timestamp) -> [u8; crate::time::RFC3339_LEN] {
    Rfc3339::default().format(at)
}

/// Writes `data`, which must be an object; nothing (`()`, `None`, a unit struct) is the empty one.
fn object<D: Serialize + ?Sized>(out: &mut Scratch, data: &D) -> Result<(), EncodeError> {
    let start = out.len();
    out.value(data)?;
    match &out.bytes()[start..] {
        [b'{', ..] => Ok(()),
        b"null" => {
            out.truncate(start);
            out.raw(b"{}");
            Ok(())
        }
        other => Err(EncodeError::Unencodable(Why::new(format_args!(
            "event_data must be an object (a struct or a map), not {}",
            match other.first() {
                Some(b'[') => "an array",
                Some(b'"') => "a string",
                Some(b't' | b'f') => "a boolean",
                _ => "a number",
            }
        )))),
    }
}

/// Text that is cut where its JSON would grow beyond a limit, and says so.
pub(crate) struct Cut<'a> {
    text: &'a dyn fmt::Display,
    limit: usize,
}

impl<'a> Cut<'a> {
    const MARK: &'static str = "… (cut)";

    /// At most `limit` bytes of JSON, quotes included.
    pub(crate) fn new(text: &'a dyn fmt::Display, limit: usize) -> Self {
        Self { text, limit }
    }
}

impl Serialize for Cut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self}"))
    }
}

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cutter = Cutter {
            out: f,
            room: self.limit.saturating_sub(2 + Self::MARK.len()),
            is_cut: false,
        };
        write!(cutter, "{}", self.text)?;
        if cutter.is_cut {
            f.write_str(Self::MARK)?;
        }
        Ok(())
    }
}

struct Cutter<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    room: usize,
    is_cut: bool,
}

impl Write for Cutter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        let mut end = 0;
        for character in text.chars() {
            let size = json_size(character);
            if size > self.room {
                self.is_cut = true;
                break;
            }
            self.room -= size;
            end += character.len_utf8();
        }
        self.out.write_str(&text[..end])
    }
}

/// The bytes a character takes inside a JSON string.
fn json_size(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

/// The front of an event: what is only known under the queue's lock.
pub(crate) struct Front {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Front {
    const ID: &'static [u8] = b"{\"event_id\":\"";
    const INDEX: &'static [u8] = b"\",\"event_session_index\":";
    const UUID: usize = uuid::fmt::Hyphenated::LENGTH;
    const DIGITS_AT: usize = Self::ID.len() + Self::UUID + Self::INDEX.len();
    /// With the largest index, 20 digits.
    pub(crate) const MAX: usize = Self::DIGITS_AT + 20;
    /// With a single digit.
    pub(crate) const MIN: usize = Self::DIGITS_AT + 1;

    pub(crate) fn new(id: Uuid, index: u64) -> Self {
        let mut bytes = [0; Self::MAX];
        let index_at = Self::ID.len() + Self::UUID;
        bytes[..Self::ID.len()].copy_from_slice(Self::ID);
        id.hyphenated()
            .encode_lower(&mut bytes[Self::ID.len()..index_at]);
        bytes[index_at..Self::DIGITS_AT].copy_from_slice(Self::INDEX);
        let digits = index.checked_ilog10().unwrap_or(0) as usize + 1;
        let len = Self::DIGITS_AT + digits;
        let mut rest = index;
        for digit in bytes[Self::DIGITS_AT..len].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self { bytes, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use alloc::{format, string::String, vec::Vec};
    use serde_json::json;

    fn event(encode: impl FnOnce(&mut Scratch) -> Result<(), EncodeError>) -> serde_json::Value {
        let mut out = Scratch::new();
        out.reset(1_000);
        assert_eq!(encode(&mut out), Ok(()));
        let json = [Front::new(Uuid::nil(), 7).bytes(), out.bytes()].concat();
        serde_json::from_slice(&json).unwrap()
    }

    const AT: Timestamp = Timestamp::from_unix_micros(1);

    #[test]
    fn a_generic_event_has_the_keys_of_the_wire() {
        let json = event(|out| {
            generic(
                out,
                AT,
                Severity::Warning,
                "a \"b\"\n",
                &json!({"n": 1, "t": true, "z": null}),
            )
        });
        assert_eq!(
            json,
            json!({
                "event": "GENERIC_EVENT",
                "event_id": "00000000-0000-0000-0000-000000000000",
                "event_session_index": 7,
                "severity": "WARNING",
                "timestamp": "1970-01-01T00:00:00.000001Z",
                "event_name": "a \"b\"\n",
                "event_data": {"n": 1, "t": true, "z": null},
            })
        );
    }

    #[test]
    fn nothing_is_an_empty_object_and_anything_else_is_refused() {
        for nothing in [json!(null), json!({})] {
            let json = event(|out| generic(out, AT, Severity::Info, "e", &nothing));
            assert_eq!(json["event_data"], json!({}));
        }
        for (value, kind) in [
            (json!([1]), "an array"),
            (json!("x"), "a string"),
            (json!(-1), "a number"),
            (json!(true), "a boolean"),
        ] {
            let mut out = Scratch::new();
            out.reset(1_000);
            match generic(&mut out, AT, Severity::Info, "e", &value) {
                Err(EncodeError::Unencodable(why)) => {
                    assert!(why.as_str().ends_with(kind), "{why}")
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn session_events_have_the_keys_of_the_wire() {
        assert_eq!(
            event(|out| session_start(out, AT))["event"],
            "SESSION_START"
        );
        let end = event(|out| {
            out.raw(session_end(AT, Duration::from_micros(u64::MAX)).as_bytes());
            out.finish()
        });
        assert_eq!(end["event"], "SESSION_END");
        assert_eq!(end["duration"], "5124095576:01:49.551615");
    }

    #[test]
    fn a_long_traceback_is_cut_and_says_so_and_a_short_one_is_whole() {
        for limit in 300..420 {
            for filler in ["x", "é", "\"", "\u{1}", "😀\n"] {
                let long = filler.repeat(400);
                let mut out = Scratch::new();
                out.reset(limit);
                let result =
                    exception(&mut out, AT, Severity::Error, &"E", &"message", Some(&long));
                assert_eq!(result, Ok(()));
                let json = [b"{\"event_id\":0", out.bytes()].concat();
                let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
                let text = json["traceback"].as_str().unwrap();
                let kept = text.strip_suffix(Cut::MARK).unwrap();
                assert!(long.starts_with(kept), "{limit} {filler:?}");
                assert_eq!(json["error_message"], "message");
            }
        }
        let json = event(|out| exception(out, AT, Severity::Error, &"E", &"", Some(&"a\nb")));
        assert_eq!(json["traceback"], "a\nb");
        assert_eq!(json["error_message"], "");
    }

    #[test]
    fn the_front_holds_every_index() {
        for index in [0, 9, 10, 99, 100, u64::MAX] {
            let front =
                String::from_utf8(Vec::from(Front::new(Uuid::max(), index).bytes())).unwrap();
            assert_eq!(
                front,
                format!(
                    "{{\"event_id\":\"{}\",\"event_session_index\":{index}",
                    Uuid::max()
                )
            );
            assert!((Front::MIN..=Front::MAX).contains(&front.len()));
        }
    }

    #[test]
    fn an_event_over_the_limit_is_too_large_and_not_a_byte_sooner() {
        let mut out = Scratch::new();
        out.reset(usize::MAX);
        assert_eq!(
            generic(&mut out, AT, Severity::Info, "e", &json!({"a": "b"})),
            Ok(())
        );
        let size = out.len();
        for (limit, expected) in [(size, Ok(())), (size - 1, Err(EncodeError::TooLarge))] {
            out.reset(limit);
            assert_eq!(
                generic(&mut out, AT, Severity::Info, "e", &json!({"a": "b"})),
                expected
            );
        }
    }
}
