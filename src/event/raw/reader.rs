//! JSON that has been checked, as values and as something to serialize.

use super::{RAW, Scan, is_space};
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};
use serde_json::{Map, Number, Value};

/// JSON that has been checked, without whitespace around it. Serializes value by value, with each number as it is
/// written.
#[derive(Clone, Copy)]
pub(crate) struct Checked<'a>(pub(crate) &'a str);

/// What is in it.
pub(super) enum Contents<'a> {
    Object(Vec<(Cow<'a, str>, Checked<'a>)>),
    Array(Vec<Checked<'a>>),
    Text(Cow<'a, str>),
    Number(&'a str),
    Bool(bool),
    Null,
}

impl<'a> Checked<'a> {
    pub(super) fn contents(self) -> Contents<'a> {
        match self.0.as_bytes().first() {
            Some(b'{') => {
                let mut parts = self.parts().into_iter();
                let mut members = Vec::new();
                while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
                    members.push((text(key), Checked(value)));
                }
                Contents::Object(members)
            }
            Some(b'[') => Contents::Array(self.parts().into_iter().map(Checked).collect()),
            Some(b'"') => Contents::Text(text(self.0)),
            Some(b't') => Contents::Bool(true),
            Some(b'f') => Contents::Bool(false),
            Some(b'n') | None => Contents::Null,
            _ => Contents::Number(self.0),
        }
    }

    /// The keys and values of an object, or the elements of an array.
    fn parts(self) -> Vec<&'a str> {
        let mut parts = Vec::new();
        let mut scan = Scan {
            text: self.0,
            at: 1,
        };
        let mut depth = 0_usize;
        let mut start = 1;
        while let Some(byte) = scan.next() {
            let is_end = match byte {
                b'"' => {
                    // It has been checked.
                    let _ = scan.string();
                    false
                }
                b'{' | b'[' => {
                    depth += 1;
                    false
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    false
                }
                b',' | b':' => depth == 0,
                b'}' | b']' => true,
                _ => false,
            };
            if is_end {
                let part = self.0[start..scan.at - 1].trim_matches(is_space);
                if !part.is_empty() {
                    parts.push(part);
                }
                start = scan.at;
            }
        }
        parts
    }

    /// Calls `visit` with each number.
    pub(super) fn for_each_number(self, visit: &mut impl FnMut(&'a str)) {
        match self.contents() {
            Contents::Object(members) => {
                let mut values = members.into_iter().map(|(_, value)| value);
                values
                    .by_ref()
                    .for_each(|value| value.for_each_number(visit));
            }
            Contents::Array(elements) => {
                elements
                    .into_iter()
                    .for_each(|value| value.for_each_number(visit));
            }
            Contents::Number(text) => visit(text),
            Contents::Text(_) | Contents::Bool(_) | Contents::Null => {}
        }
    }

    pub(super) fn value(self) -> Value {
        let mut has_duplicates = false;
        self.value_noting(&mut has_duplicates)
    }

    /// Its value. Of a key given twice the last value counts, as it does for most readers.
    fn value_noting(self, has_duplicates: &mut bool) -> Value {
        match self.contents() {
            Contents::Object(members) => Value::Object(object(members, has_duplicates)),
            Contents::Array(elements) => {
                let values = elements.into_iter();
                Value::Array(
                    values
                        .map(|value| value.value_noting(has_duplicates))
                        .collect(),
                )
            }
            Contents::Text(text) => Value::String(text.into_owned()),
            Contents::Number(text) => number(text).map_or(Value::Null, Value::Number),
            Contents::Bool(value) => Value::Bool(value),
            Contents::Null => Value::Null,
        }
    }
}

fn object(
    members: Vec<(Cow<'_, str>, Checked<'_>)>,
    has_duplicates: &mut bool,
) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, value) in members {
        let value = value.value_noting(has_duplicates);
        *has_duplicates |= map.insert(key.into_owned(), value).is_some();
    }
    map
}

/// An object's members.
pub(crate) struct Parsed {
    pub(crate) map: Map<String, Value>,
    /// Whether an object in it has a key twice, of which only the last value is here.
    pub(crate) has_duplicates: bool,
}

/// Parses an object; `None` if it is none.
pub(crate) fn parse(json: &str) -> Option<Parsed> {
    let json = super::check(json).ok()?.json;
    let mut has_duplicates = false;
    match Checked(json).contents() {
        Contents::Object(members) => Some(Parsed {
            map: object(members, &mut has_duplicates),
            has_duplicates,
        }),
        _ => None,
    }
}

/// The number that a text stands for; exact if it fits into 64 bits.
pub(super) fn number(text: &str) -> Option<Number> {
    if !text.contains(['.', 'e', 'E']) && text != "-0" {
        if let Ok(value) = text.parse::<u64>() {
            return Some(value.into());
        }
        if let Ok(value) = text.parse::<i64>() {
            return Some(value.into());
        }
        // `Some` only where serde_json has numbers of any precision.
        let large = match text.parse::<u128>() {
            Ok(value) => Number::from_u128(value),
            Err(_) => text.parse().ok().and_then(Number::from_i128),
        };
        if large.is_some() {
            return large;
        }
    }
    // Correctly rounded, which serde_json's own parser is not by default.
    Number::from_f64(text.parse().ok()?)
}

/// The text of a string.
fn text(string: &str) -> Cow<'_, str> {
    let inside = string.strip_prefix('"');
    unescape(
        inside
            .and_then(|inside| inside.strip_suffix('"'))
            .unwrap_or_default(),
    )
}

/// The text that is written between the quotes of a string.
pub(crate) fn unescape(inside: &str) -> Cow<'_, str> {
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    let mut text = String::with_capacity(inside.len());
    let mut scan = Scan::new(inside);
    loop {
        let start = scan.at;
        scan.skip_while(|byte| byte != b'\\');
        text.push_str(&inside[start..scan.at]);
        scan.at += 1;
        let Some(letter) = scan.next() else {
            return Cow::Owned(text);
        };
        text.push(match letter {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => escaped(&mut scan),
            other => char::from(other),
        });
    }
}

/// The character of one or two escapes, after the first `\u`.
fn escaped(scan: &mut Scan<'_>) -> char {
    let mut code = scan.hex().unwrap_or_default();
    if (0xd800..0xdc00).contains(&code) {
        scan.at += 2;
        let low = scan.hex().unwrap_or_default();
        code = 0x10000 + ((code - 0xd800) << 10) + (low & 0x3ff);
    }
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

impl Serialize for Checked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.contents() {
            Contents::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in &members {
                    map.serialize_entry(&**key, value)?;
                }
                map.end()
            }
            Contents::Array(elements) => {
                let mut array = serializer.serialize_seq(Some(elements.len()))?;
                for element in &elements {
                    array.serialize_element(element)?;
                }
                array.end()
            }
            Contents::Text(text) => serializer.serialize_str(&text),
            Contents::Number(text) => AsIs(text).serialize(serializer),
            Contents::Bool(value) => serializer.serialize_bool(value),
            Contents::Null => serializer.serialize_unit(),
        }
    }
}

/// JSON that is written as it is.
pub(crate) struct AsIs<'a>(pub(crate) &'a str);

impl Serialize for AsIs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = serializer.serialize_struct(RAW, 1)?;
        raw.serialize_field(RAW, self.0)?;
        raw.end()
    }
}
