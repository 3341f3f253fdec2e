//! Events become JSON, once, when they are logged.
//!
//! What is written here is everything behind an event's id and index, which are taken under the queue's lock:
//! `,"event":…}`. The wire's keys are in one place, this one and [`Front`].

use crate::event::limits::{Limited, MARK};
use crate::event::severity::Severity;
use crate::event::writer::{Failed, Scratch};
#[cfg(feature = "std")]
use crate::sys::panics;
use crate::time::{self, SessionDuration, Timestamp};
use core::cell::Cell;
use core::fmt::{self, Write};
use core::time::Duration;
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// What stands behind a request's events.
pub(crate) const FOOT: &[u8] = b"]}";

/// Everything behind the id and index of a `GENERIC_EVENT`.
///
/// The clock is asked last: the time it takes is time for the bytes written before to settle in the cache, from where
/// they are copied next.
#[inline]
pub(crate) fn generic<D: Serialize + ?Sized>(
    out: &mut Scratch<'_>,
    at: impl FnOnce() -> Timestamp,
    severity: Severity,
    name: &str,
    data: &D,
) -> Result<(), Failed> {
    generic_with(out, at, severity, name, |out| object(out, data))
}

/// [`generic`], within limits on the data.
pub(crate) fn generic_limited<D: Serialize + ?Sized>(
    out: &mut Scratch<'_>,
    at: impl FnOnce() -> Timestamp,
    severity: Severity,
    name: &str,
    data: &Limited<'_, D>,
) -> Result<(), Failed> {
    generic_with(out, at, severity, name, |out| object_limited(out, data))
}

/// [`generic`], of an object that is JSON already.
#[cfg(feature = "std")]
pub(crate) fn generic_of_json(
    out: &mut Scratch<'_>,
    at: impl FnOnce() -> Timestamp,
    severity: Severity,
    name: &str,
    json: &[u8],
) -> Result<(), Failed> {
    generic_with(out, at, severity, name, |out| {
        out.raw(json);
        out.finish()
    })
}

/// Data that write their own JSON, an object, faster than serde does.
#[cfg(feature = "std")]
pub(crate) trait WriteJson {
    fn write_json(&self, out: &mut Scratch<'_>) -> Result<(), Failed>;
}

/// [`generic`], of such data.
#[cfg(feature = "std")]
#[allow(dead_code, reason = "for adapters")]
pub(crate) fn generic_written(
    out: &mut Scratch<'_>,
    at: impl FnOnce() -> Timestamp,
    severity: Severity,
    name: &str,
    data: &impl WriteJson,
) -> Result<(), Failed> {
    generic_with(out, at, severity, name, |out| {
        panics::catch(|| data.write_json(out))
            .unwrap_or_else(|| Err(out.fail("it panicked while it was written")))
    })
}

#[inline(always)]
fn generic_with(
    out: &mut Scratch<'_>,
    at: impl FnOnce() -> Timestamp,
    severity: Severity,
    name: &str,
    data: impl FnOnce(&mut Scratch<'_>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    out.raw(head(severity).as_bytes());
    out.text(name)?;
    out.raw(b",\"event_data\":");
    data(out)?;
    out.timestamp(",\"timestamp\":\"", at(), "\"}");
    out.finish()
}

/// The head of a generic event, in one piece.
const fn head(severity: Severity) -> &'static str {
    macro_rules! head {
        ($severity:literal) => {
            concat!(
                r#","event":"GENERIC_EVENT","severity":""#,
                $severity,
                r#"","event_name":"#
            )
        };
    }
    match severity {
        Severity::Debug => head!("DEBUG"),
        Severity::Info => head!("INFO"),
        Severity::Warning => head!("WARNING"),
        Severity::Error => head!("ERROR"),
        Severity::Critical => head!("CRITICAL"),
    }
}

/// Everything behind the id and index of a `SESSION_START`.
pub(crate) fn session_start(out: &mut Scratch<'_>, at: Timestamp) -> Result<(), Failed> {
    out.timestamp(
        r#","event":"SESSION_START","severity":"INFO","timestamp":""#,
        at,
        "\"}",
    );
    out.finish()
}

/// Everything behind the id and index of a `SESSION_END`.
pub(crate) fn session_end(at: Timestamp, lasted: Duration) -> SessionEnd {
    Text(at, SessionDuration(lasted)).into()
}

/// The tail of a `SESSION_END`, which has a place of its own in the engine.
pub(crate) type SessionEnd = heapless::String<136>;

struct Text(Timestamp, SessionDuration);

impl From<Text> for SessionEnd {
    fn from(Text(at, lasted): Text) -> Self {
        let mut tail = Self::new();
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
    out: &mut Scratch<'_>,
    at: Timestamp,
    severity: Severity,
    error_type: &dyn fmt::Display,
    message: &dyn fmt::Display,
    traceback: Option<&dyn fmt::Display>,
) -> Result<(), Failed> {
    out.raw(b",\"event\":\"UNHANDLED_EXCEPTION\",\"severity\":\"");
    out.raw(severity.as_str().as_bytes());
    out.timestamp("\",\"timestamp\":\"", at, "\",\"error_type\":");
    out.cut(error_type, out.room() / 4)?;
    out.raw(b",\"error_message\":");
    out.cut(message, out.room() / 2)?;
    if let Some(traceback) = traceback {
        out.raw(b",\"traceback\":");
        out.cut(traceback, out.room().saturating_sub(3))?;
    }
    out.raw(b"}");
    out.finish()
}

/// Writes `data`, which must be an object; nothing (`()`, `None`, a unit struct) is the empty one.
#[inline(always)]
fn object<D: Serialize + ?Sized>(out: &mut Scratch<'_>, data: &D) -> Result<(), Failed> {
    let start = out.len();
    out.value(data)?;
    must_be_object(out, start)
}

/// The same, within limits.
pub(crate) fn object_limited<D: Serialize + ?Sized>(
    out: &mut Scratch<'_>,
    data: &Limited<'_, D>,
) -> Result<(), Failed> {
    let start = out.len();
    out.value_apart(data)?;
    must_be_object(out, start)
}

#[inline(always)]
fn must_be_object(out: &mut Scratch<'_>, start: usize) -> Result<(), Failed> {
    let what = match out.bytes().get(start..).unwrap_or_default() {
        [b'{', ..] => return Ok(()),
        b"null" => {
            out.truncate(start);
            out.raw(b"{}");
            return Ok(());
        }
        [b'[', ..] => "an array",
        [b'"', ..] => "a string",
        [b't' | b'f', ..] => "a boolean",
        _ => "a number",
    };
    Err(out.fail(format_args!(
        "event_data must be an object (a struct or a map), not {what}"
    )))
}

impl Scratch<'_> {
    /// Writes a text, of at most `limit` bytes of JSON.
    fn cut(&mut self, text: &dyn fmt::Display, limit: usize) -> Result<(), Failed> {
        let cut = Cut::new(text, limit);
        self.value(&cut)?;
        self.note_truncated(cut.is_cut());
        Ok(())
    }
}

/// Text that is cut where its JSON would grow beyond a limit, and says so.
pub(crate) struct Cut<'a> {
    text: &'a dyn fmt::Display,
    limit: usize,
    is_cut: Cell<bool>,
}

impl<'a> Cut<'a> {
    /// At most `limit` bytes of JSON, quotes included.
    pub(crate) fn new(text: &'a dyn fmt::Display, limit: usize) -> Self {
        Self {
            text,
            limit,
            is_cut: Cell::new(false),
        }
    }

    /// Whether it was cut when it was written.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.get()
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
            room: self.limit.saturating_sub(2 + MARK.len()),
            is_cut: false,
            result: Ok(()),
        };
        // A `Display` that fails has written what it has written: that is better than nothing.
        let _ = write!(cutter, "{}", self.text);
        cutter.result?;
        if cutter.is_cut {
            self.is_cut.set(true);
            f.write_str(MARK)?;
        }
        Ok(())
    }
}

struct Cutter<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    room: usize,
    is_cut: bool,
    /// Of writing, as opposed to the text's own.
    result: fmt::Result,
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
        self.result = self.result.and(self.out.write_str(&text[..end]));
        self.result
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
///
/// It is written where it stays: bytes that were stored one by one cannot be loaded in larger pieces right afterwards
/// without the processor waiting for them.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    id: Uuid,
    pub(crate) index: u64,
    digits: usize,
}

impl Front {
    const ID: &[u8; 13] = b"{\"event_id\":\"";
    const INDEX: &[u8; 24] = b"\",\"event_session_index\":";
    const DIGITS_AT: usize = Self::ID.len() + 36 + Self::INDEX.len();
    /// With the largest index, 20 digits.
    pub(crate) const MAX: usize = Self::DIGITS_AT + 20;
    /// With a single digit.
    pub(crate) const MIN: usize = Self::DIGITS_AT + 1;

    pub(crate) fn new(id: Uuid, index: u64) -> Self {
        Self {
            id,
            index,
            digits: index.checked_ilog10().unwrap_or(0) as usize + 1,
        }
    }

    pub(crate) fn len(self) -> usize {
        Self::DIGITS_AT + self.digits
    }

    /// Writes it to a place of its length.
    #[inline]
    pub(crate) fn write(self, out: &mut [u8]) {
        let Some((head, digits)) = out.split_first_chunk_mut::<{ Self::DIGITS_AT }>() else {
            return;
        };
        head[..13].copy_from_slice(Self::ID);
        if let Some((id, _)) = head[13..].split_first_chunk_mut() {
            write_uuid(self.id, id);
        }
        head[49..].copy_from_slice(Self::INDEX);
        time::digits(digits, self.index);
    }
}

/// The 36 characters of a UUID. The uuid crate's own way, a byte at a time, takes three times as long, and that is a
/// tenth of all that an event costs its caller.
#[inline]
fn write_uuid(id: Uuid, out: &mut [u8; 36]) {
    let id = id.as_u128();
    let [one, two, three, four] = [96, 64, 32, 0].map(|shift| hex((id >> shift) as u32));
    out[..8].copy_from_slice(&one);
    out[8] = b'-';
    out[9..13].copy_from_slice(&two[..4]);
    out[13] = b'-';
    out[14..18].copy_from_slice(&two[4..]);
    out[18] = b'-';
    out[19..23].copy_from_slice(&three[..4]);
    out[23] = b'-';
    out[24..28].copy_from_slice(&three[4..]);
    out[28..36].copy_from_slice(&four);
}

/// Eight lower-case digits, all at once.
#[inline]
fn hex(value: u32) -> [u8; 8] {
    let spread = u64::from(value);
    let spread = (spread | (spread << 16)) & 0x0000_ffff_0000_ffff;
    let spread = (spread | (spread << 8)) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (spread | (spread << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    // Adding six carries into the fifth bit of just those nibbles that are letters.
    let letters = ((nibbles + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::event::writer::{EncodeError, encoded};
    use alloc::{format, string::String, vec::Vec};
    use serde_json::json;

    fn event(encode: impl FnOnce(&mut Scratch<'_>) -> Result<(), Failed>) -> serde_json::Value {
        let tail = encoded(1_000, encode).unwrap();
        let json = [&front(Uuid::nil(), 7)[..], &tail].concat();
        serde_json::from_slice(&json).unwrap()
    }

    fn front(id: Uuid, index: u64) -> Vec<u8> {
        let front = Front::new(id, index);
        let mut out = alloc::vec![0; front.len()];
        front.write(&mut out);
        out
    }

    const AT: Timestamp = Timestamp::from_unix_micros(1);

    #[test]
    fn a_generic_event_has_the_keys_of_the_wire() {
        let json = event(|out| {
            generic(
                out,
                || AT,
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
            let json = event(|out| generic(out, || AT, Severity::Info, "e", &nothing));
            assert_eq!(json["event_data"], json!({}));
        }
        for (value, kind) in [
            (json!([1]), "an array"),
            (json!("x"), "a string"),
            (json!(-1), "a number"),
            (json!(true), "a boolean"),
        ] {
            match encoded(1_000, |out| {
                generic(out, || AT, Severity::Info, "e", &value)
            }) {
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
                let tail = encoded(limit, |out| {
                    exception(out, AT, Severity::Error, &"E", &"message", Some(&long))
                });
                let json = [b"{\"event_id\":0", &tail.unwrap()[..]].concat();
                let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
                let text = json["traceback"].as_str().unwrap();
                let kept = text.strip_suffix(MARK).unwrap();
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
        let id = Uuid::from_u128(0x0123_4567_89ab_4cde_8f00_9a0b_c0d0_e0f9);
        for index in [0, 9, 10, 99, 100, u64::MAX] {
            let front = String::from_utf8(front(id, index)).unwrap();
            assert_eq!(
                front,
                format!("{{\"event_id\":\"{}\",\"event_session_index\":{index}", id)
            );
            assert!((Front::MIN..=Front::MAX).contains(&front.len()));
        }
    }

    #[test]
    fn an_event_over_the_limit_is_too_large_and_not_a_byte_sooner() {
        let encode = |limit| {
            encoded(limit, |out| {
                generic(out, || AT, Severity::Info, "e", &json!({"a": "b"}))
            })
        };
        let whole = encode(1_000).unwrap();
        assert_eq!(encode(whole.len()), Ok(whole.clone()));
        assert_eq!(encode(whole.len() - 1), Err(EncodeError::TooLarge));
    }
}
