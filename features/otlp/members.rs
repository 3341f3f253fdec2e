//! The members of an object, each of which becomes an attribute or an entry of a map, and their values.

use super::form::Form;
use super::json::{Cursor, Malformed, Number, RawStr, Token};
use alloc::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// How deep values nest, an event's data itself included; what is deeper becomes its JSON, as text. Each level takes
/// three messages, or four levels of JSON, and collectors read no more than a hundred of those.
pub(super) const MAX_DEPTH: usize = 24;

/// Attributes of the record's own, and those that semantic conventions define.
const RESERVED: [&str; 8] = [
    "session.",
    "log.record.",
    "exception.",
    "tinkex.",
    "http.",
    "url.",
    "error.",
    "event.",
];

/// What stands before a member of the data that begins like one of [`RESERVED`].
const RENAMED: &str = "tinkex.data.";

/// Why an object could not be written.
pub(super) enum Fault {
    Malformed,
    /// A key stands in an object twice. Attributes must not.
    Repeated,
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What is done about keys that an object has twice.
#[derive(Clone, Copy)]
pub(super) enum Keys {
    /// They are a fault.
    Checked,
    /// The last counts, as to most readers of JSON.
    LastOfEach,
}

/// The ids of trace and span, if the data have them under these names, in the form that W3C gives them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TraceIds<'a> {
    pub(super) trace: Option<&'a str>,
    pub(super) span: Option<&'a str>,
}

impl<'a> TraceIds<'a> {
    /// Looks at a member of the data, whose value is next.
    #[inline]
    fn look(&mut self, key: RawStr<'a>, mut cursor: Cursor<'a>) -> Result<(), Malformed> {
        let (id, len) = match key.text {
            "trace_id" => (&mut self.trace, 32),
            "span_id" => (&mut self.span, 16),
            _ => return Ok(()),
        };
        *id = match cursor.token()? {
            Token::Str(text) => Some(text.text).filter(|hex| {
                let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
                // All zeros mean that there is none.
                hex.len() == len && is_hex && hex.bytes().any(|byte| byte != b'0')
            }),
            _ => None,
        };
        Ok(())
    }
}

/// What the members of an object become.
pub(super) enum Place<'a, 'b> {
    /// Attributes of a record, which also has these.
    Record(&'b mut TraceIds<'a>),
    /// Attributes of a resource that has those with these names.
    Resource(&'b [&'b str]),
    /// Entries of a map.
    Map,
}

impl<'a> Place<'a, '_> {
    /// What stands before a member's key here.
    #[inline]
    fn prefix(&self, key: RawStr<'a>) -> Result<&'static str, Malformed> {
        let is_taken = match self {
            Self::Map => false,
            // An escape may stand for the first letter.
            Self::Record(_)
                if !matches!(
                    key.text.as_bytes(),
                    [b'e' | b'h' | b'l' | b's' | b't' | b'u' | b'\\', ..]
                ) =>
            {
                false
            }
            Self::Record(_) => {
                let key = key.decoded()?;
                RESERVED.iter().any(|prefix| key.starts_with(prefix))
            }
            Self::Resource(taken) => taken.contains(&&*key.decoded()?),
        };
        Ok(if is_taken { RENAMED } else { "" })
    }
}

/// Writes the members of an object.
pub(super) fn write_members<'a, F: Form>(
    data: &'a str,
    keys: Keys,
    place: Place<'a, '_>,
    out: &mut F,
) -> Result<(), Fault> {
    let mut cursor = Cursor::over(data);
    cursor.object()?;
    write_object(&mut cursor, keys, place, 1, out)
}

/// Writes the members of an object, behind whose brace the cursor is, inside `depth - 1` others.
pub(super) fn write_object<'a, F: Form>(
    cursor: &mut Cursor<'a>,
    keys: Keys,
    mut place: Place<'a, '_>,
    depth: usize,
    out: &mut F,
) -> Result<(), Fault> {
    let mut seen = Seen::of(keys, *cursor)?;
    let mut at = 0;
    while let Some(key) = cursor.key(at == 0)? {
        let is_written = seen.is_written(key, at)?;
        at += 1;
        if !is_written || (!F::HAS_NULL && cursor.is_null()) {
            cursor.value()?;
            continue;
        }
        let prefix = place.prefix(key)?;
        let is_attribute = if let Place::Record(ids) = &mut place {
            ids.look(key, *cursor)?;
            true
        } else {
            false
        };
        let mark = out.entry(is_attribute, prefix, key)?;
        write_value(cursor, keys, depth, out)?;
        out.end_entry(mark);
    }
    Ok(())
}

/// Writes the value that is next, inside `depth` others.
fn write_value<'a, F: Form>(
    cursor: &mut Cursor<'a>,
    keys: Keys,
    depth: usize,
    out: &mut F,
) -> Result<(), Fault> {
    let before = *cursor;
    match cursor.token()? {
        Token::Null => out.null(),
        Token::Bool(value) => out.bool(value),
        Token::Number(number) => write_number(number, out),
        Token::Str(text) => out.str(text)?,
        Token::Object | Token::Array if depth >= MAX_DEPTH => {
            *cursor = before;
            out.text(cursor.value()?);
        }
        Token::Object => {
            let map = out.map();
            write_object(cursor, keys, Place::Map, depth + 1, out)?;
            out.end_map(map);
        }
        Token::Array => {
            let array = out.array();
            let mut is_first = true;
            while cursor.element(is_first)? {
                is_first = false;
                if !F::HAS_NULL && cursor.is_null() {
                    cursor.value()?;
                    continue;
                }
                let element = out.element();
                write_value(cursor, keys, depth + 1, out)?;
                out.end_element(element);
            }
            out.end_array(array);
        }
    }
    Ok(())
}

/// Integers beyond 64 bits with a sign are text: every digit of them is kept.
#[inline]
fn write_number<F: Form>(Number { text, is_integer }: Number<'_>, out: &mut F) {
    if is_integer {
        match text.parse::<i64>() {
            Ok(value) => out.int(value),
            Err(_) => out.text(text),
        }
    } else {
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => out.double(value),
            _ => out.text(text),
        }
    }
}

/// The keys of an object so far.
struct Seen<'a> {
    /// The first of them.
    few: heapless::Vec<RawStr<'a>, 16>,
    more: More<'a>,
}

enum More<'a> {
    /// There are few.
    None,
    /// All that there are.
    Many(HashSet<Cow<'a, str>>),
    /// Where the last of each key stands among the members.
    Last(HashMap<Cow<'a, str>, usize>),
}

impl<'a> Seen<'a> {
    /// `cursor` is at the object's members.
    #[inline]
    fn of(keys: Keys, cursor: Cursor<'a>) -> Result<Self, Malformed> {
        let more = match keys {
            Keys::Checked => More::None,
            Keys::LastOfEach => More::Last(last_of_each(cursor)?),
        };
        let few = heapless::Vec::new();
        Ok(Self { few, more })
    }

    /// Whether the member with this key, at this place, is to be written.
    #[inline]
    fn is_written(&mut self, key: RawStr<'a>, at: usize) -> Result<bool, Fault> {
        let is_new = match &mut self.more {
            More::Last(last) => return Ok(last.get(&key.decoded()?) == Some(&at)),
            More::Many(keys) => keys.insert(key.decoded()?),
            More::None => {
                let is_new = !self.few.iter().any(|other| other.is_same(key));
                if is_new && self.few.push(key).is_err() {
                    let decoded = self.few.iter().chain([&key]).map(RawStr::decoded);
                    self.more = More::Many(decoded.collect::<Result<_, _>>()?);
                }
                is_new
            }
        };
        if is_new {
            Ok(true)
        } else {
            Err(Fault::Repeated)
        }
    }
}

/// Where the last of each key stands among an object's members.
fn last_of_each(mut cursor: Cursor<'_>) -> Result<HashMap<Cow<'_, str>, usize>, Malformed> {
    let mut last = HashMap::new();
    let mut at = 0;
    while let Some(key) = cursor.key(at == 0)? {
        cursor.value()?;
        last.insert(key.decoded()?, at);
        at += 1;
    }
    Ok(last)
}
