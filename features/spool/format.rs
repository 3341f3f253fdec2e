//! The lines of a segment: heads and events, each JSON that people can read, each with a checksum.
//!
//! ```text
//! {"tinkex":1,"segment":"5f3c9a1e00c0ffee","run":0,"n":0,"to":"9ae16a3b2f90404f","head":{"session_id":…},"c":"0b1f2e3d"}
//! {"n":0,"i":17,"c":"9ae0daaf","e":{"event_id":…}}
//! ```
//!
//! `n` counts the segment's events; a head's is the number of events before it, so that a later head shows how many
//! there were. An event's checksum covers the segment's id, `n`, `i` and the bytes of `e`, so that a line which found its
//! way into another segment is not taken for one of it.

use crate::time;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use crc32fast::Hasher;

/// The random id of a segment, which is also in its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentId(pub(crate) u64);

impl SegmentId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        hex(text.as_bytes(), 16).map(Self)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a segment's events go, as a hash: a spool keeps no address in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Destination(u64);

#[cfg(feature = "cli")]
impl Destination {
    /// Of events that were received rather than logged: no spool sends them by itself.
    pub(crate) const ANYWHERE: Self = Self(0);

    /// The hash.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

impl Destination {
    /// FNV-1a of the destination's name.
    pub(crate) fn of(name: &str) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(hash)
    }
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// The sessions of one process are runs of their own, even under one id.
    pub(crate) run: u64,
    pub(crate) to: Destination,
    /// The fields before a request's events, as a JSON object.
    pub(crate) fields: &'a [u8],
}

/// A line of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Head {
        n: u64,
        head: Head<'a>,
    },
    Event(Event<'a>),
    /// Anything else.
    Damaged,
}

/// An intact event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) n: u64,
    /// Its `event_session_index`.
    pub(super) index: u64,
    pub(super) json: &'a [u8],
}

/// The most bytes that a line has around its event.
pub(super) const LINE_OVERHEAD: usize = 80;

pub(super) fn write_head(out: &mut Vec<u8>, segment: SegmentId, n: u64, head: &Head<'_>) {
    let start = out.len();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        r#"{{"tinkex":1,"segment":"{segment}","run":{},"n":{n},"to":"{:016x}","head":"#,
        head.run, head.to.0
    );
    out.extend(text.as_bytes());
    out.extend(head.fields);
    let checksum = crc32fast::hash(out.get(start..).unwrap_or_default());
    text.clear();
    let _ = write!(text, r#","c":"{checksum:08x}"}}"#);
    out.extend(text.as_bytes());
    out.push(b'\n');
}

pub(super) fn write_event(out: &mut Vec<u8>, segment: SegmentId, n: u64, index: u64, json: &[u8]) {
    if json.contains(&b'\n') {
        // Only white space can be a bare line feed in JSON, and a space is the same.
        let mut json = json.to_vec();
        json.iter_mut()
            .filter(|byte| **byte == b'\n')
            .for_each(|byte| *byte = b' ');
        return write_event(out, segment, n, index, &json);
    }
    out.reserve(LINE_OVERHEAD + json.len());
    out.extend(br#"{"n":"#);
    write_number(out, n);
    out.extend(br#","i":"#);
    write_number(out, index);
    out.extend(br#","c":""#);
    write_checksum(out, event_checksum(segment, n, index, json));
    out.extend(br#"","e":"#);
    out.extend(json);
    out.extend(b"}\n");
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    let start = out.len();
    let len = number.checked_ilog10().unwrap_or(0) as usize + 1;
    out.resize(start + len, b'0');
    time::digits(out.get_mut(start..).unwrap_or_default(), number);
}

fn write_checksum(out: &mut Vec<u8>, checksum: u32) {
    let digits = checksum.to_be_bytes().map(|byte| {
        let digit = |value: u8| match value {
            0..=9 => b'0' + value,
            _ => b'a' - 10 + value,
        };
        [digit(byte >> 4), digit(byte & 15)]
    });
    out.extend(digits.as_flattened());
}

fn event_checksum(segment: SegmentId, n: u64, index: u64, json: &[u8]) -> u32 {
    let place = [segment.0, n, index].map(u64::to_le_bytes);
    let mut hasher = Hasher::new();
    hasher.update(place.as_flattened());
    hasher.update(json);
    hasher.finalize()
}

/// Reads a line, without its line feed.
pub(super) fn parse(segment: SegmentId, line: &[u8]) -> Line<'_> {
    parse_event(segment, line)
        .map(Line::Event)
        .or_else(|| parse_head(segment, line))
        .unwrap_or(Line::Damaged)
}

fn parse_event(segment: SegmentId, line: &[u8]) -> Option<Event<'_>> {
    let mut rest = line.strip_prefix(br#"{"n":"#)?;
    let n = number(&mut rest)?;
    rest = rest.strip_prefix(br#","i":"#)?;
    let index = number(&mut rest)?;
    rest = rest.strip_prefix(br#","c":""#)?;
    let (checksum, rest) = rest.split_at_checked(8)?;
    let json = rest.strip_prefix(br#"","e":"#)?.strip_suffix(b"}")?;
    let is_intact = hex(checksum, 8) == Some(event_checksum(segment, n, index, json).into());
    is_intact.then_some(Event { n, index, json })
}

fn parse_head(segment: SegmentId, line: &[u8]) -> Option<Line<'_>> {
    let body = line.strip_suffix(br#""}"#)?;
    let (covered, checksum) = body.split_at_checked(body.len().checked_sub(8)?)?;
    let covered = covered.strip_suffix(br#","c":""#)?;
    if hex(checksum, 8)? != u64::from(crc32fast::hash(covered)) {
        return None;
    }
    let mut rest = covered.strip_prefix(br#"{"tinkex":1,"segment":""#)?;
    let (id, after) = rest.split_at_checked(16)?;
    if hex(id, 16)? != segment.0 {
        return None;
    }
    rest = after.strip_prefix(br#"","run":"#)?;
    let run = number(&mut rest)?;
    rest = rest.strip_prefix(br#","n":"#)?;
    let n = number(&mut rest)?;
    rest = rest.strip_prefix(br#","to":""#)?;
    let (to, after) = rest.split_at_checked(16)?;
    let to = Destination(hex(to, 16)?);
    let fields = after.strip_prefix(br#"","head":"#)?;
    let head = Head { run, to, fields };
    Some(Line::Head { n, head })
}

/// The id in a line that may be a head.
#[cfg(feature = "cli")]
pub(super) fn segment_of_head(line: &[u8]) -> Option<SegmentId> {
    let rest = line.strip_prefix(br#"{"tinkex":1,"segment":""#)?;
    hex(rest.get(..16)?, 16).map(SegmentId)
}

/// Whether a damaged line was a head rather than an event, as far as that can be seen.
pub(super) fn looks_like_head(line: &[u8]) -> bool {
    line.starts_with(br#"{"tin"#)
}

/// A line of a `.done` file: the segment's events are settled up to this index.
pub(super) fn write_settled(out: &mut Vec<u8>, segment: SegmentId, index: u64) {
    let mut text = String::new();
    let checksum = settled_checksum(segment, index);
    let _ = writeln!(text, r#"{{"i":{index},"c":"{checksum:08x}"}}"#);
    out.extend(text.as_bytes());
}

/// The index in a line of a `.done` file, if the line is intact.
pub(super) fn parse_settled(segment: SegmentId, line: &[u8]) -> Option<u64> {
    let mut rest = line.strip_prefix(br#"{"i":"#)?;
    let index = number(&mut rest)?;
    let checksum = rest.strip_prefix(br#","c":""#)?.strip_suffix(br#""}"#)?;
    (hex(checksum, 8)? == u64::from(settled_checksum(segment, index))).then_some(index)
}

fn settled_checksum(segment: SegmentId, index: u64) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(b"done");
    hasher.update(&segment.0.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.finalize()
}

/// Takes a number without leading zeros from the beginning of `text`.
fn number(text: &mut &[u8]) -> Option<u64> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(len)?;
    if digits.len() > 1 && digits.starts_with(b"0") {
        return None;
    }
    let number = core::str::from_utf8(digits).ok()?.parse().ok()?;
    *text = rest;
    Some(number)
}

/// A number of this many lower-case hexadecimal digits.
fn hex(text: &[u8], digits: usize) -> Option<u64> {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.iter().all(is_hex) {
        return None;
    }
    u64::from_str_radix(core::str::from_utf8(text).ok()?, 16).ok()
}

/// The `event_session_index` of an event that this crate has encoded.
pub(super) fn index_of(event: &[u8]) -> Option<u64> {
    let mut rest = at_index(event)?;
    number(&mut rest)
}

/// What follows the key of the index in an event that this crate has encoded.
fn at_index(event: &[u8]) -> Option<&[u8]> {
    let rest = event.strip_prefix(br#"{"event_id":""#)?.get(36..)?;
    rest.strip_prefix(br#"","event_session_index":"#)
}

/// What follows the index in an event that this crate has encoded, if that is its kind.
fn behind_index(event: &[u8]) -> Option<&[u8]> {
    let mut rest = at_index(event)?;
    number(&mut rest)?;
    rest.starts_with(br#","event":""#).then_some(rest)
}

/// Whether an event has the severity `ERROR` or `CRITICAL`. In one that this crate has not encoded, data that says so
/// counts as well, which costs a sync.
pub(super) fn is_error(event: &[u8]) -> bool {
    const SEVERITY: &[u8] = br#"","severity":""#;
    if let Some(rest) = behind_index(event)
        && let Some((_, rest)) = rest.split_first_chunk::<10>()
        && let Some(end) = rest.iter().position(|byte| *byte == b'"')
        && let Some(severity) = rest.get(end..).unwrap_or_default().strip_prefix(SEVERITY)
    {
        return severity.starts_with(b"ERROR\"") || severity.starts_with(b"CRITICAL\"");
    }
    [&br#""severity":"ERROR""#[..], br#""severity":"CRITICAL""#]
        .iter()
        .any(|needle| event.windows(needle.len()).any(|part| part == *needle))
}

/// Whether an event from a file is one that this crate may have encoded: a checksum is no signature.
pub(super) fn is_event(event: &Event<'_>) -> bool {
    index_of(event.json) == Some(event.index)
        && serde_json::from_slice::<serde::de::IgnoredAny>(event.json).is_ok()
}

/// The session's id in a head's fields, if they are ones that this crate may have written.
pub(super) fn session_id(fields: &[u8]) -> Option<String> {
    let serde_json::Value::Object(mut fields) = serde_json::from_slice(fields).ok()? else {
        return None;
    };
    let names = ["session_id", "platform", "sdk_version", "process_uuid"];
    let are_known = fields
        .iter()
        .all(|(name, value)| names.contains(&name.as_str()) && value.is_string());
    match fields.remove("session_id")? {
        serde_json::Value::String(id) if are_known => Some(id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId(0x5f3c_9a1e_00c0_ffee);

    fn event(n: u64, index: u64, json: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        write_event(&mut line, SEGMENT, n, index, json);
        line.pop();
        line
    }

    fn head(fields: &[u8]) -> Vec<u8> {
        let head = Head {
            run: 3,
            to: Destination::of("https://example.com:443/"),
            fields,
        };
        let mut line = Vec::new();
        write_head(&mut line, SEGMENT, 7, &head);
        line.pop();
        line
    }

    #[test]
    fn what_is_written_is_read_and_is_json() {
        let json = br#"{"a":[1,"}\n"]}"#;
        let line = event(3, 17, json);
        let read = Event {
            n: 3,
            index: 17,
            json,
        };
        assert_eq!(parse(SEGMENT, &line), Line::Event(read));
        assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
        let line = head(br#"{"session_id":"s"}"#);
        assert!(matches!(parse(SEGMENT, &line), Line::Head { n: 7, head } if head.run == 3));
        assert!(serde_json::from_slice::<serde_json::Value>(&line).is_ok());
        let text = String::from_utf8(line).expect("text");
        assert!(!text.contains("example"), "{text}");
    }

    #[test]
    fn a_line_of_another_segment_or_place_is_not_believed() {
        let line = event(3, 17, b"{}");
        assert_eq!(parse(SegmentId(1), &line), Line::Damaged);
        for (from, to) in [
            (&b"\"n\":3"[..], &b"\"n\":4"[..]),
            (b"\"i\":17", b"\"i\":18"),
        ] {
            let at = line.windows(from.len()).position(|part| part == from);
            let mut moved = line.clone();
            let at = at.expect("it is there");
            moved[at..at + to.len()].copy_from_slice(to);
            assert_eq!(parse(SEGMENT, &moved), Line::Damaged);
        }
        assert_eq!(parse(SegmentId(1), &head(b"{}")), Line::Damaged);
    }

    #[test]
    fn no_single_bit_can_change_without_notice() {
        for line in [
            event(3, 17, br#"{"a":"b"}"#),
            head(br#"{"session_id":"s"}"#),
        ] {
            for bit in 0..line.len() * 8 {
                let mut flipped = line.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(parse(SEGMENT, &flipped), Line::Damaged, "bit {bit}");
            }
        }
        let mut line = Vec::new();
        write_settled(&mut line, SEGMENT, 17);
        line.pop();
        assert_eq!(parse_settled(SEGMENT, &line), Some(17));
        for bit in 0..line.len() * 8 {
            let mut flipped = line.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_settled(SEGMENT, &flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_line_feed_between_tokens_becomes_a_space() {
        let line = event(0, 0, b"{\"a\":\n1}");
        assert!(!line.contains(&b'\n'));
        assert!(matches!(parse(SEGMENT, &line), Line::Event(event) if event.json == b"{\"a\": 1}"));
    }

    #[test]
    fn an_event_shows_its_index_and_whether_it_is_an_error() {
        let event = br#"{"event_id":"01970000-0000-7000-8000-000000000001","event_session_index":12,"event":"X","severity":"ERROR"}"#;
        assert_eq!(index_of(event), Some(12));
        assert!(is_error(event));
        assert!(!is_error(br#"{"severity":"INFO"}"#));
        // The order in which this crate encodes, and data that have a severity of their own.
        for (severity, data, expected) in [
            ("ERROR", "INFO", true),
            ("CRITICAL", "INFO", true),
            ("INFO", "ERROR", false),
        ] {
            let event = alloc::format!(
                r#"{{"event_id":"01970000-0000-7000-8000-000000000001","event_session_index":12,"event":"GENERIC_EVENT","severity":"{severity}","event_data":{{"severity":"{data}"}}}}"#
            );
            assert_eq!(is_error(event.as_bytes()), expected, "{event}");
        }
        assert_eq!(index_of(b"{}"), None);
    }

    #[test]
    fn fields_that_no_session_writes_are_not_sent() {
        assert_eq!(
            session_id(br#"{"session_id":"s","platform":"a/b"}"#).as_deref(),
            Some("s")
        );
        for bad in [
            &b"{}"[..],
            br#"{"session_id":1}"#,
            br#"{"session_id":"s","x":"y"}"#,
            b"[]",
            b"",
        ] {
            assert_eq!(session_id(bad), None);
        }
    }
}
