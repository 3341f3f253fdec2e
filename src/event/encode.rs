//! Encoding of events as JSON.
//!
//! An event's id and index are only known under the queue's lock, so the functions here write everything after them,
//! `,"event":…}`, and [`EventPrefix`] writes the rest. All keys of an event are in this file.

use crate::event::context::Context;
use crate::event::cut::Cut;
use crate::event::limits::Limited;
use crate::event::severity::Severity;
use crate::event::writer::{EventWriter, Failed};
#[cfg(feature = "std")]
use crate::sys::panics;
use crate::time::{self, SessionDuration, Timestamp};
use core::fmt::{self, Write};
use core::time::Duration;
use serde::Serialize;
use uuid::Uuid;

/// Closes a request's body, after its events.
pub(crate) const BODY_SUFFIX: &[u8] = b"]}";

/// What a generic event says besides its data.
#[derive(Clone, Copy)]
pub(crate) struct Heading<'a> {
    pub(crate) name: &'a str,
    pub(crate) severity: Severity,
    /// That of the handle, unless the data have it already.
    pub(crate) context: Option<&'a Context>,
    /// Something was left out of the data before they came here.
    pub(crate) is_cut: bool,
}

/// Writes everything after the id and index of a `GENERIC_EVENT`.
///
/// Reads the clock last: while it does, the bytes written so far drain to the cache, from which they are copied next.
#[inline]
pub(crate) fn generic<D: Serialize + ?Sized>(
    out: &mut EventWriter<'_>,
    at: impl FnOnce() -> Timestamp,
    heading: Heading<'_>,
    data: &D,
) -> Result<(), Failed> {
    generic_with(out, at, heading, |out| object(out, data))
}

/// [`generic`], with limits on the data.
pub(crate) fn generic_limited<D: Serialize + ?Sized>(
    out: &mut EventWriter<'_>,
    at: impl FnOnce() -> Timestamp,
    heading: Heading<'_>,
    data: &Limited<'_, D>,
) -> Result<(), Failed> {
    generic_with(out, at, heading, |out| object_limited(out, data))
}

/// [`generic`], with an object that is already JSON.
#[cfg(feature = "std")]
pub(crate) fn generic_of_json(
    out: &mut EventWriter<'_>,
    at: impl FnOnce() -> Timestamp,
    heading: Heading<'_>,
    json: &[u8],
) -> Result<(), Failed> {
    generic_written(out, at, heading, &RawObject(json))
}

#[cfg(feature = "std")]
struct RawObject<'a>(&'a [u8]);

#[cfg(feature = "std")]
impl WriteJson for RawObject<'_> {
    fn write_json(&self, out: &mut EventWriter<'_>) -> Result<(), Failed> {
        out.raw(self.0);
        out.finish()
    }
}

/// Data that writes its own JSON object, faster than serde would.
#[cfg(feature = "std")]
pub(crate) trait WriteJson {
    fn write_json(&self, out: &mut EventWriter<'_>) -> Result<(), Failed>;
}

/// [`generic`], with data that writes its own JSON.
#[cfg(feature = "std")]
pub(crate) fn generic_written(
    out: &mut EventWriter<'_>,
    at: impl FnOnce() -> Timestamp,
    heading: Heading<'_>,
    data: &impl WriteJson,
) -> Result<(), Failed> {
    generic_with(out, at, heading, |out| {
        panics::catch(|| data.write_json(out))
            .unwrap_or_else(|| Err(out.fail("one of its values panicked")))
    })
}

#[inline(always)]
fn generic_with(
    out: &mut EventWriter<'_>,
    at: impl FnOnce() -> Timestamp,
    heading: Heading<'_>,
    data: impl FnOnce(&mut EventWriter<'_>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let start = begin_generic(out, heading)?;
    data(out)?;
    end_generic(out, at, heading, start)
}

/// Writes what stands before the data, and returns where those start. Without `std`, flash is scarcer than time.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
fn begin_generic(out: &mut EventWriter<'_>, heading: Heading<'_>) -> Result<usize, Failed> {
    out.raw(head(heading.severity).as_bytes());
    out.text(heading.name)?;
    out.raw(b",\"event_data\":");
    Ok(out.len())
}

/// Writes what stands after the data, which start at `start`.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
fn end_generic(
    out: &mut EventWriter<'_>,
    at: impl FnOnce() -> Timestamp,
    heading: Heading<'_>,
    start: usize,
) -> Result<(), Failed> {
    if let Some(context) = heading.context {
        context.add_to(out, start)?;
    }
    out.timestamp(",\"timestamp\":\"", at(), "\"}");
    out.finish()
}

/// The beginning of a generic event, as one constant.
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

/// Writes everything after the id and index of a `SESSION_START`.
pub(crate) fn session_start(out: &mut EventWriter<'_>, at: Timestamp) -> Result<(), Failed> {
    out.timestamp(
        r#","event":"SESSION_START","severity":"INFO","timestamp":""#,
        at,
        "\"}",
    );
    out.finish()
}

/// Everything after the id and index of a `SESSION_END`.
pub(crate) fn session_end(at: Timestamp, lasted: Duration) -> SessionEnd {
    let lasted = SessionDuration(lasted);
    let mut tail = SessionEnd::new();
    // At most 113 bytes: the longest duration is 584 542 years of microseconds.
    let _ = write!(
        tail,
        r#","event":"SESSION_END","severity":"INFO","timestamp":"{at}","duration":"{lasted}"}}"#
    );
    tail
}

/// The tail of a `SESSION_END`; the engine keeps it outside the ring.
pub(crate) type SessionEnd = heapless::String<136>;

/// The parts of an `UNHANDLED_EXCEPTION`.
#[derive(Clone, Copy)]
pub(crate) struct Exception<'a> {
    pub(crate) severity: Severity,
    pub(crate) error_type: &'a dyn fmt::Display,
    pub(crate) message: &'a dyn fmt::Display,
    pub(crate) traceback: Option<&'a dyn fmt::Display>,
    /// How much of the traceback must not be cut, in bytes of JSON.
    pub(crate) kept: usize,
}

/// Writes everything after the id and index of an `UNHANDLED_EXCEPTION`.
///
/// An exception is never too large: type, message and traceback are cut to fit, and then end with a mark.
pub(crate) fn exception(
    out: &mut EventWriter<'_>,
    at: Timestamp,
    exception: &Exception<'_>,
) -> Result<(), Failed> {
    out.raw(b",\"event\":\"UNHANDLED_EXCEPTION\",\"severity\":\"");
    out.raw(exception.severity.as_str().as_bytes());
    out.timestamp("\",\"timestamp\":\"", at, "\",\"error_type\":");
    let room = |out: &EventWriter<'_>| out.room().saturating_sub(exception.kept);
    out.cut(exception.error_type, room(out) / 4)?;
    out.raw(b",\"error_message\":");
    out.cut(exception.message, room(out) / 2)?;
    if let Some(traceback) = exception.traceback {
        out.raw(b",\"traceback\":");
        out.cut(traceback, out.room().saturating_sub(3))?;
    }
    out.raw(b"}");
    out.finish()
}

/// Writes `data` as an object: `()`, `None` and unit structs become the empty one, a text becomes a `message`, and
/// anything else that is no object a `value`.
#[inline(always)]
fn object<D: Serialize + ?Sized>(out: &mut EventWriter<'_>, data: &D) -> Result<(), Failed> {
    let start = out.len();
    out.value(data)?;
    match key_of(out, start) {
        None => Ok(()),
        #[cfg(feature = "std")]
        Some(key) => out.wrap(start, key),
        // Serializing it again takes less flash than moving it.
        #[cfg(not(feature = "std"))]
        Some(key) => {
            out.truncate(start);
            out.raw(key);
            out.value(data)?;
            out.raw(b"}");
            out.finish()
        }
    }
}

/// [`object`], with limits.
pub(crate) fn object_limited<D: Serialize + ?Sized>(
    out: &mut EventWriter<'_>,
    data: &Limited<'_, D>,
) -> Result<(), Failed> {
    object(out, data)
}

/// What comes before data that is no object, to make it the member of one; `None` if nothing is needed.
#[inline(always)]
fn key_of(out: &mut EventWriter<'_>, start: usize) -> Option<&'static [u8]> {
    match out.bytes().get(start..).unwrap_or_default() {
        [b'{', ..] => None,
        b"null" => {
            out.truncate(start);
            out.raw(b"{}");
            None
        }
        [b'"', ..] => Some(b"{\"message\":"),
        _ => Some(b"{\"value\":"),
    }
}

impl EventWriter<'_> {
    /// Writes a text, cut to at most `limit` bytes of JSON.
    fn cut(&mut self, text: &dyn fmt::Display, limit: usize) -> Result<(), Failed> {
        let cut = Cut::new(text, limit);
        self.value(&cut)?;
        self.note_truncated(cut.is_cut());
        Ok(())
    }
}

/// The beginning of an event: its id and index, which are only known under the queue's lock.
///
/// It is written in place: copying it right after storing it byte by byte would stall the processor, which cannot
/// forward small stores to a larger load.
#[derive(Clone, Copy)]
pub(crate) struct EventPrefix {
    id: Uuid,
    pub(crate) index: u64,
    digits: usize,
}

impl EventPrefix {
    const ID: &[u8; 13] = b"{\"event_id\":\"";
    const INDEX: &[u8; 24] = b"\",\"event_session_index\":";
    const DIGITS_AT: usize = Self::ID.len() + 36 + Self::INDEX.len();
    /// Length with the largest index, 20 digits.
    pub(crate) const MAX: usize = Self::DIGITS_AT + 20;
    /// Length with a one-digit index.
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

    /// Writes it to `out`, which must be [`len`](Self::len) bytes long.
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

/// Writes the 36 characters of a UUID. The uuid crate does so a byte at a time, which takes three times as long, a
/// tenth of an event's cost to its caller. Without `std`, where code size matters more, its smaller code is used.
#[inline]
fn write_uuid(id: Uuid, out: &mut [u8; 36]) {
    if cfg!(not(feature = "std")) {
        id.hyphenated().encode_lower(out);
        return;
    }
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

/// Eight lower-case digits, computed in parallel.
#[inline]
fn hex(value: u32) -> [u8; 8] {
    let spread = u64::from(value);
    let spread = (spread | (spread << 16)) & 0x0000_ffff_0000_ffff;
    let spread = (spread | (spread << 8)) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (spread | (spread << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    // Adding six carries into the fifth bit of exactly those nibbles that are letters.
    let letters = ((nibbles + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * 0x27).to_be_bytes()
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::event::limits::{DataLimits, MARK};
    use crate::event::writer::{EncodeError, encode_to_vec};
    use alloc::{format, string::String, vec::Vec};
    use core::cell::Cell;
    use serde_json::json;

    fn event(encode: impl FnOnce(&mut EventWriter<'_>) -> Result<(), Failed>) -> serde_json::Value {
        let tail = encode_to_vec(1_000, encode).unwrap();
        let json = [&prefix(Uuid::nil(), 7)[..], &tail].concat();
        serde_json::from_slice(&json).unwrap()
    }

    fn prefix(id: Uuid, index: u64) -> Vec<u8> {
        let prefix = EventPrefix::new(id, index);
        let mut out = alloc::vec![0; prefix.len()];
        prefix.write(&mut out);
        out
    }

    const AT: Timestamp = Timestamp::from_unix_micros(1);

    fn heading(severity: Severity, name: &str) -> Heading<'_> {
        Heading {
            name,
            severity,
            context: None,
            is_cut: false,
        }
    }

    fn failure<'a>(
        message: &'a dyn fmt::Display,
        traceback: &'a dyn fmt::Display,
    ) -> Exception<'a> {
        Exception {
            severity: Severity::Error,
            error_type: &"E",
            message,
            traceback: Some(traceback),
            kept: 0,
        }
    }

    #[test]
    fn a_generic_event_has_the_keys_of_the_wire_format() {
        let json = event(|out| {
            generic(
                out,
                || AT,
                heading(Severity::Warning, "a \"b\"\n"),
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
    fn null_becomes_an_empty_object_and_anything_else_a_member_of_one() {
        for empty in [json!(null), json!({})] {
            let json = event(|out| generic(out, || AT, heading(Severity::Info, "e"), &empty));
            assert_eq!(json["event_data"], json!({}));
        }
        for (value, expected) in [
            (json!([1, []]), json!({"value": [1, []]})),
            (json!([]), json!({"value": []})),
            (json!("x \"y\""), json!({"message": "x \"y\""})),
            (json!(-1), json!({"value": -1})),
            (json!(0.5), json!({"value": 0.5})),
            (json!(true), json!({"value": true})),
        ] {
            let json = event(|out| generic(out, || AT, heading(Severity::Info, "e"), &value));
            assert_eq!(json["event_data"], expected);
            let limits = DataLimits {
                depth: 2,
                ..DataLimits::NONE
            };
            let is_cut = Cell::new(false);
            let limited = Limited::new(&value, &limits, &is_cut);
            let json =
                event(|out| generic_limited(out, || AT, heading(Severity::Info, "e"), &limited));
            let is_nested = value == json!([1, []]);
            assert_eq!(is_cut.get(), is_nested);
            if !is_nested {
                assert_eq!(json["event_data"], expected);
            }
        }
    }

    #[test]
    fn session_events_have_the_keys_of_the_wire_format() {
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
    fn a_long_traceback_is_cut_and_marked_and_a_short_one_stays_whole() {
        for limit in 300..420 {
            for filler in ["x", "é", "\"", "\u{1}", "😀\n"] {
                let long = filler.repeat(400);
                let tail =
                    encode_to_vec(limit, |out| exception(out, AT, &failure(&"message", &long)));
                let json = [b"{\"event_id\":0", &tail.unwrap()[..]].concat();
                let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
                let text = json["traceback"].as_str().unwrap();
                let kept = text.strip_suffix(MARK).unwrap();
                assert!(long.starts_with(kept), "{limit} {filler:?}");
                assert_eq!(json["error_message"], "message");
            }
        }
        let json = event(|out| exception(out, AT, &failure(&"", &"a\nb")));
        assert_eq!(json["traceback"], "a\nb");
        assert_eq!(json["error_message"], "");
    }

    #[test]
    fn the_prefix_holds_every_index() {
        let id = Uuid::from_u128(0x0123_4567_89ab_4cde_8f00_9a0b_c0d0_e0f9);
        for index in [0, 9, 10, 99, 100, u64::MAX] {
            let prefix = String::from_utf8(prefix(id, index)).unwrap();
            assert_eq!(
                prefix,
                format!("{{\"event_id\":\"{}\",\"event_session_index\":{index}", id)
            );
            assert!((EventPrefix::MIN..=EventPrefix::MAX).contains(&prefix.len()));
        }
    }

    #[test]
    fn an_event_is_too_large_from_the_first_byte_over_the_limit() {
        let encode = |limit| {
            encode_to_vec(limit, |out| {
                generic(out, || AT, heading(Severity::Info, "e"), &json!({"a": "b"}))
            })
        };
        let whole = encode(1_000).unwrap();
        assert_eq!(encode(whole.len()), Ok(whole.clone()));
        assert_eq!(encode(whole.len() - 1), Err(EncodeError::TooLarge));
    }
}
