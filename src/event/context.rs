//! Contexts: what is true of a part of a program, encoded once, and copied into each of that part's events.

use crate::event::cut::json_len;
use crate::event::encode;
use crate::event::json::Output;
use crate::event::limits::{DataLimits, Limited, MARK};
use crate::event::writer::{EncodeError, EventWriter, Failed};
use crate::text::Str;
use core::cell::Cell;
use core::fmt;
use serde::Serialize;

#[cfg(feature = "alloc")]
use alloc::collections::BTreeMap;

/// The JSON of an object that is not empty.
pub(crate) struct Context {
    json: Str,
    /// [`add`], by a pointer: a firmware that has no context must not contain it.
    #[cfg(not(feature = "alloc"))]
    add: fn(&mut EventWriter<'_>, usize, &str) -> Result<(), Failed>,
}

/// The smallest room for one: that of the mark of a cut.
pub(crate) const MIN_BYTES: usize = 64;

/// The member of an event's data that has the context.
const KEY: &str = "context";

impl Context {
    /// `json` must be a [merged](merge) object.
    pub(crate) const fn new(json: Str) -> Self {
        Self {
            json,
            #[cfg(not(feature = "alloc"))]
            add,
        }
    }

    pub(crate) fn json(&self) -> &str {
        self.json.as_str()
    }

    /// Adds it to the object that was written from `start` on.
    #[inline]
    pub(crate) fn add_to(&self, out: &mut EventWriter<'_>, start: usize) -> Result<(), Failed> {
        #[cfg(feature = "alloc")]
        return add(out, start, self.json());
        #[cfg(not(feature = "alloc"))]
        (self.add)(out, start, self.json())
    }

    /// What it adds to an event's data, in bytes, if they have no `context` of their own.
    pub(crate) fn len_in_data(&self) -> usize {
        self.json().len() + r#","context":"#.len()
    }

    /// What its line adds to a traceback, in bytes of JSON.
    pub(crate) fn len_in_traceback(&self) -> usize {
        json_len(Self::LINE) + json_len(self.json()) + json_len("\n")
    }

    const LINE: &str = "Context: ";
}

/// Its line in a traceback.
impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::LINE)?;
        f.write_str(self.json())
    }
}

/// Adds a context to the object that was written from `start` on.
#[inline(never)]
fn add(out: &mut EventWriter<'_>, start: usize, context: &str) -> Result<(), Failed> {
    let data = out.bytes().get(start..).unwrap_or_default();
    let has_raw = out.output.has_raw;
    let is_empty = match data {
        [b'{', inside @ .., b'}'] if has_raw => inside.trim_ascii().is_empty(),
        _ => data.len() <= 2,
    };
    let taken = if has_raw || may_have_key(data) {
        taken_keys(data)
    } else {
        0
    };
    out.truncate(out.len().saturating_sub(1));
    if !is_empty {
        out.raw(b",");
    }
    out.raw(b"\"context");
    for _ in 0..taken {
        out.raw(b"_");
    }
    out.raw(b"\":");
    out.raw(context.as_bytes());
    out.raw(b"}");
    out.finish()
}

/// Whether data may have a member `context`. Seldom wrong, and never if it says no; raw JSON, in which a key may be
/// written with escapes, must be looked at.
#[cfg(feature = "std")]
fn may_have_key(data: &[u8]) -> bool {
    const LANES: usize = 16;
    /// Compares all places of a chunk at once with letters of the key that hardly any other word has in a row.
    fn look(chunk: &[u8; LANES + 3], found: &mut [u8; LANES]) {
        for at in 0..LANES {
            let is_first_half = (chunk[at] == b'n') & (chunk[at + 1] == b't');
            let is_second_half = (chunk[at + 2] == b'e') & (chunk[at + 3] == b'x');
            found[at] |= u8::from(is_first_half & is_second_half);
        }
    }
    let Some(last) = data.last_chunk() else {
        return has_key_text(data);
    };
    let mut found = [0; LANES];
    let mut rest = data;
    while let Some(chunk) = rest.first_chunk() {
        look(chunk, &mut found);
        rest = &rest[LANES..];
    }
    look(last, &mut found);
    found != [0; LANES]
}

/// Whether data may have a member `context`.
#[cfg(not(feature = "std"))]
fn may_have_key(data: &[u8]) -> bool {
    has_key_text(data)
}

fn has_key_text(data: &[u8]) -> bool {
    data.windows(KEY.len()).any(|text| text == KEY.as_bytes())
}

/// With how many underscores behind it the key `context` is still free.
#[cold]
fn taken_keys(data: &[u8]) -> u32 {
    let mut taken = 0_u128;
    for member in members(core::str::from_utf8(data).unwrap_or_default()) {
        let key = text_of(member.key);
        let underscores = key.strip_prefix(KEY).unwrap_or("other");
        if underscores.bytes().all(|byte| byte == b'_') && underscores.len() < 128 {
            taken |= 1 << underscores.len();
        }
    }
    taken.trailing_ones()
}

/// Encodes data as an object of at most `room` bytes: what would make it larger is cut, at last all of it. Returns
/// whether something was.
pub(crate) fn encode_within<D: Serialize + ?Sized>(
    out: &mut EventWriter<'_>,
    data: &D,
    limits: &DataLimits,
    room: usize,
) -> Result<bool, EncodeError> {
    /// Depth, bytes of each text, and fields: each step leaves less, and the last one says only how much there was.
    const STEPS: [(usize, usize, usize); 6] = [
        (4, 32, 16),
        (2, 32, 8),
        (1, 32, 4),
        (1, 32, 2),
        (1, 32, 1),
        (1, 32, 0),
    ];
    let whole = (usize::MAX, usize::MAX, usize::MAX);
    let shortened = (usize::MAX, (room / 8).max(32), usize::MAX);
    for (depth, string_bytes, fields) in [whole, shortened].into_iter().chain(STEPS) {
        let limits = DataLimits {
            depth: limits.depth.min(depth),
            string_bytes: limits.string_bytes.min(string_bytes),
            fields: limits.fields.min(fields),
        };
        out.clear();
        let is_cut = Cell::new(false);
        let limited = Limited::new(data, &limits, &is_cut);
        match encode::object_limited(out, &limited).map_err(|Failed| out.error()) {
            Ok(()) if out.len() <= room => return Ok(is_cut.get()),
            Ok(()) | Err(EncodeError::TooLarge) => {}
            Err(error) => return Err(error),
        }
    }
    Err(EncodeError::TooLarge)
}

/// Joins two objects in `into`: of a key that occurs more than once, the last value counts. What has no room there, or is
/// more than `max_fields`, is left out, and a mark says how many that are, with those of earlier marks. Returns the length,
/// and whether something was.
pub(crate) fn merge(outer: &str, inner: &str, max_fields: usize, into: &mut [u8]) -> (usize, bool) {
    /// The most that the mark and the closing brace take.
    const MARK_ROOM: usize = ",\"\":18446744073709551615}".len() + MARK.len();
    let room = into.len();
    let mut out = Output::new(into);
    let mut omitted = 0_u64;
    let is_last = last_of_each_key(outer, inner);
    let kept = || {
        let all = members(outer).chain(members(inner)).enumerate();
        all.filter_map(|(at, member)| is_last(at, &member).then_some(member))
    };
    // Each says what its own object lacks.
    let marks = members(outer).chain(members(inner));
    for mark in marks.filter(|member| member.key == MARK) {
        omitted = omitted.saturating_add(mark.value().parse().unwrap_or(1));
    }
    let marked = omitted;
    let fields = || kept().filter(|member| member.key != MARK);
    let (count, len) = fields().fold((0, 1), |(count, len), member| {
        (count + 1, len + 1 + member.json.len())
    });
    let fits = marked == 0 && count <= max_fields && len <= room;
    let mut separator: &[u8] = b"{";
    let mut count = 0;
    for member in fields() {
        let end = out.len + separator.len() + member.json.len();
        if !fits && (count == max_fields || end + MARK_ROOM > room) {
            omitted = omitted.saturating_add(1);
            continue;
        }
        let _ = out.append(separator);
        let _ = out.append(member.json.as_bytes());
        (separator, count) = (b",", count + 1);
    }
    if omitted > 0 {
        let mut digits = [0; 20];
        let count = omitted.checked_ilog10().unwrap_or(0) as usize + 1;
        let digits = digits.get_mut(..count);
        let digits = digits.unwrap_or_default();
        crate::time::digits(digits, omitted);
        for part in [separator, b"\"", MARK.as_bytes(), b"\":", digits] {
            let _ = out.append(part);
        }
    } else if count == 0 {
        let _ = out.append(b"{");
    }
    let _ = out.append(b"}");
    (out.len, omitted > marked)
}

/// Returns whether a member, given with its place in both objects, is the last of its key.
#[cfg(feature = "alloc")]
fn last_of_each_key<'a>(
    outer: &'a str,
    inner: &'a str,
) -> impl Fn(usize, &Member<'a>) -> bool + use<'a> {
    let all = members(outer).chain(members(inner)).enumerate();
    let last: BTreeMap<_, _> = all.map(|(at, member)| (text_of(member.key), at)).collect();
    move |at, member| last.get(&text_of(member.key)) == Some(&at)
}

#[cfg(not(feature = "alloc"))]
fn last_of_each_key<'a>(
    outer: &'a str,
    inner: &'a str,
) -> impl Fn(usize, &Member<'a>) -> bool + use<'a> {
    move |at, member| {
        let mut later = members(outer).chain(members(inner)).skip(at + 1);
        !later.any(|later| later.key == member.key)
    }
}

/// A member of an object, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// Between its quotes.
    pub(crate) key: &'a str,
    /// The key and the value.
    json: &'a str,
}

impl Member<'_> {
    fn value(&self) -> &str {
        let rest = self.json.get(self.key.len() + 2..).unwrap_or_default();
        let rest = rest.trim_ascii_start();
        rest.strip_prefix(':').unwrap_or(rest).trim_ascii_start()
    }
}

/// The members of an object's JSON, which must be valid.
pub(crate) fn members(json: &str) -> Members<'_> {
    Members { json, at: 1 }
}

pub(crate) struct Members<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let bytes = self.json.as_bytes();
        let mut depth = 0_usize;
        let mut key = None;
        loop {
            let at = self.at;
            self.at += 1;
            match bytes.get(at)? {
                b'"' => {
                    let end = end_of_string(bytes, at + 1);
                    self.at = end + 1;
                    let _ = key.get_or_insert((at, end));
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' if depth > 0 => depth -= 1,
                b',' | b'}' if depth == 0 => {
                    let (start, end) = key?;
                    return Some(Member {
                        key: self.json.get(start + 1..end)?,
                        json: self.json.get(start..at)?.trim_ascii_end(),
                    });
                }
                _ => {}
            }
        }
    }
}

/// Where the closing quote of a string is, of which this is the first byte inside.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

/// The text of a key, which in raw JSON may be written with escapes.
#[cfg(feature = "std")]
fn text_of(key: &str) -> alloc::borrow::Cow<'_, str> {
    crate::event::raw::unescape(key)
}

#[cfg(not(feature = "std"))]
const fn text_of(key: &str) -> &str {
    key
}

#[cfg(all(test, feature = "std"))]
mod tests;
