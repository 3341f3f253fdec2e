//! Data that a scrub hook has changed: what it has left alone keeps its text.

use super::reader::{AsIs, Checked, Contents, number};
use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Number, Value};

/// How far ahead the original of an array's element is looked for.
const MAX_AHEAD: usize = 64;

/// A hook's data, with the text of the original wherever they are equal.
pub(crate) struct Merged<'a> {
    /// The original object, if it may be reused.
    original: Option<Checked<'a>>,
    data: &'a Map<alloc::string::String, Value>,
    numbers: Numbers<'a>,
}

/// The numbers of the original that would be written differently: wider than 64 bits, or in another notation.
struct Numbers<'a>(Vec<(Number, &'a str)>);

impl<'a> Merged<'a> {
    /// `original` has been checked. If it `has_duplicates`, which the hook cannot have seen, only its numbers are used.
    pub(crate) fn new(
        original: &'a str,
        has_duplicates: bool,
        data: &'a Map<alloc::string::String, Value>,
    ) -> Self {
        let mut numbers = Vec::new();
        let original = Checked(original);
        original.for_each_number(&mut |text| {
            if let Some(number) = number(text)
                && alloc::string::ToString::to_string(&number) != text
            {
                numbers.push((number, text));
            }
        });
        let may_reuse = !has_duplicates && original.0.starts_with('{');
        Self {
            original: may_reuse.then_some(original),
            data,
            numbers: Numbers(numbers),
        }
    }
}

impl Serialize for Merged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let original = match self.original.map(Checked::contents) {
            Some(Contents::Object(members)) => members,
            _ => Vec::new(),
        };
        self.numbers.object(&original, self.data, serializer)
    }
}

impl Numbers<'_> {
    /// The members that are left in their old order, then the new ones.
    fn object<S: Serializer>(
        &self,
        original: &[(Cow<'_, str>, Checked<'_>)],
        data: &Map<alloc::string::String, Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut old = BTreeMap::new();
        for (key, original) in original {
            old.insert(&**key, ());
            if let Some(value) = data.get(&**key) {
                map.serialize_entry(&**key, &self.part(Some(*original), value))?;
            }
        }
        for (key, value) in data {
            if !old.contains_key(&**key) {
                map.serialize_entry(key, &self.part(None, value))?;
            }
        }
        map.end()
    }

    /// Elements that are equal at both ends, or are found ahead, keep their text; as do, if nothing was inserted or
    /// removed, the unchanged parts of those that are not equal.
    fn array<S: Serializer>(
        &self,
        original: &[Checked<'_>],
        array: &[Value],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let old: Vec<Value> = original.iter().map(|element| element.value()).collect();
        let is_same_length = old.len() == array.len();
        let equal_ends = |(old, new): (&Value, &Value)| old == new;
        let shared = old.iter().rev().zip(array.iter().rev());
        let suffix = shared.take_while(|pair| equal_ends(*pair)).count();
        let mut at = 0;
        let mut out = serializer.serialize_seq(Some(array.len()))?;
        for (index, value) in array.iter().enumerate() {
            if !is_same_length && array.len() - index <= suffix {
                at = at.max(old.len() - (array.len() - index));
            }
            let ahead = old.iter().skip(at).take(MAX_AHEAD);
            let found = if is_same_length {
                Some(index)
            } else {
                ahead
                    .into_iter()
                    .position(|old| old == value)
                    .map(|n| at + n)
            };
            if let Some(found) = found {
                at = found + 1;
            }
            let original = found.and_then(|found| original.get(found));
            out.serialize_element(&self.part(original.copied(), value))?;
        }
        out.end()
    }

    fn part<'a>(&'a self, original: Option<Checked<'a>>, value: &'a Value) -> Part<'a> {
        Part {
            numbers: self,
            original,
            value,
        }
    }
}

/// A part of the data.
struct Part<'a> {
    numbers: &'a Numbers<'a>,
    original: Option<Checked<'a>>,
    value: &'a Value,
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(original) = self.original
            && original.value() == *self.value
        {
            return AsIs(original.0).serialize(serializer);
        }
        match (self.value, self.original.map(Checked::contents)) {
            (Value::Object(data), Some(Contents::Object(original))) => {
                self.numbers.object(&original, data, serializer)
            }
            (Value::Object(data), _) => self.numbers.object(&[], data, serializer),
            (Value::Array(array), Some(Contents::Array(original))) => {
                self.numbers.array(&original, array, serializer)
            }
            (Value::Array(array), _) => self.numbers.array(&[], array, serializer),
            (Value::Number(number), _) => {
                let mut known = self.numbers.0.iter();
                match known.find(|(known, _)| known == number) {
                    Some((_, text)) => AsIs(text).serialize(serializer),
                    None => number.serialize(serializer),
                }
            }
            (other, _) => other.serialize(serializer),
        }
    }
}
