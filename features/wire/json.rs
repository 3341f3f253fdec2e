//! Reads JSON in place: the borrowed members of an object, and whether a value can be decoded.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::{fmt, hash::Hash};
use std::collections::HashSet;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::split;

/// A value that is valid JSON, unparsed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// Text that is known to be valid, without white space around it.
    pub(crate) const fn known(text: &'a str) -> Self {
        Self(text)
    }

    pub(crate) fn get(self) -> &'a str {
        self.0
    }

    /// The items of an array; `None` for another type.
    pub(crate) fn items(self) -> Option<impl Iterator<Item = Self>> {
        split::items(self.0).map(|items| items.map(Self))
    }
}

impl<'a> From<&'a RawValue> for Raw<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(value.get())
    }
}

/// An object's members in the order they were written, with unparsed values.
///
/// A map would hide duplicate keys.
pub(crate) struct Object<'a> {
    members: Vec<(Cow<'a, str>, Raw<'a>)>,
}

impl<'a> Object<'a> {
    pub(crate) fn read(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// Reads what is known to be valid.
    ///
    /// # Errors
    ///
    /// It is no object, or a key cannot be decoded.
    pub(crate) fn of(raw: Raw<'a>) -> serde_json::Result<Self> {
        let members = split::members(raw.0).and_then(|members| {
            members
                .map(|(key, value)| {
                    (!key.contains('\\')).then_some((Cow::Borrowed(key), Raw(value)))
                })
                .collect()
        });
        match members {
            Some(members) => Ok(Self { members }),
            None => Self::read(raw.0),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Raw<'a>> {
        self.members
            .iter()
            .find_map(|(name, value)| (name == key).then_some(*value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| &**name)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = Raw<'a>> {
        self.members.iter().map(|(_, value)| *value)
    }

    pub(crate) fn duplicate_key(&self) -> Option<&str> {
        if self.members.len() > FEW {
            return first_repeated(self.keys());
        }
        let mut at = 0..self.members.len();
        let repeated = at.find(|at| {
            let (before, rest) = self.members.split_at(*at);
            rest.first()
                .is_some_and(|(key, _)| before.iter().any(|(earlier, _)| earlier == key))
        })?;
        self.members.get(repeated).map(|(key, _)| &**key)
    }
}

/// So few keys are compared with each other: a hash of each takes longer.
const FEW: usize = 16;

/// The first key that occurred before. One hash per key: a stranger decides how many there are.
fn first_repeated<K: Hash + Eq + Copy>(mut keys: impl Iterator<Item = K>) -> Option<K> {
    let mut seen = HashSet::with_capacity(keys.size_hint().0);
    keys.find(|key| !seen.insert(*key))
}

/// The string in `raw`; `None` for another type, or for half a surrogate pair.
pub(crate) fn string(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(raw.get())
            .ok()
            .map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The number of items of the array in `raw`; 0 for another type.
#[cfg(feature = "collector")]
pub(crate) fn array_len(raw: Raw<'_>) -> usize {
    raw.items().map_or(0, Iterator::count)
}

/// Whether all of `text` can be decoded.
///
/// Reading a [`RawValue`] only skips over it: half a surrogate pair, a number beyond `f64` or 200 nested arrays pass as
/// raw text, but fail in every later reader.
pub(crate) fn decodes(text: &str) -> serde_json::Result<()> {
    serde_json::from_str::<Decoded>(text).map(|Decoded| ())
}

/// Whether a quick check shows that a member's value can be decoded; `false` means unknown.
///
/// Valid JSON cannot be decoded if it has half a surrogate pair, which is an escape, a number beyond `f64`, which has an
/// exponent or hundreds of digits, or too many levels.
pub(crate) fn clearly_decodes(member: Raw<'_>) -> bool {
    /// Within any reader's nesting limit, wherever the value stands.
    const BRACKETS: usize = 100;
    const DIGITS: usize = 300;
    let text = member.get().as_bytes();
    if text.first() == Some(&b'"') {
        return !text.contains(&b'\\');
    }
    let (mut brackets, mut digits) = (0, 0);
    for byte in text {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'\\' => return false,
            b'e' | b'E' if digits > 0 => return false,
            b'[' | b'{' => (brackets, digits) = (brackets + 1, 0),
            _ => digits = 0,
        }
        if brackets > BRACKETS || digits > DIGITS {
            return false;
        }
    }
    true
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some((Key(key), value)) = map.next_entry::<_, &RawValue>()? {
            members.push((key, value.into()));
        }
        Ok(Object { members })
    }
}

/// serde's own `Cow` always copies.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.into())))
    }
}

/// A value that is fully decoded and discarded; `IgnoredAny` would skip it undecoded.
struct Decoded;

impl<'de> Deserialize<'de> for Decoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DecodedVisitor)
    }
}

struct DecodedVisitor;

impl<'de> Visitor<'de> for DecodedVisitor {
    type Value = Decoded;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Decoded, E> {
        Ok(Decoded)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Decoded, E> {
        Ok(Decoded)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Decoded, E> {
        Ok(Decoded)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Decoded, E> {
        Ok(Decoded)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Decoded, E> {
        Ok(Decoded)
    }

    fn visit_str<E>(self, _: &str) -> Result<Decoded, E> {
        Ok(Decoded)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Decoded, A::Error> {
        while let Some(Decoded) = seq.next_element()? {}
        Ok(Decoded)
    }

    // Under serde_json's `arbitrary_precision`, which any crate in the build can enable, a number arrives here as a map
    // with one entry.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decoded, A::Error> {
        while let Some((Key(_), Decoded)) = map.next_entry()? {}
        Ok(Decoded)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use core::cell::Cell;

    use super::*;

    #[test]
    fn a_duplicate_key_is_found_even_if_one_is_escaped() {
        let text = r#"{"a":1,"b":2,"\u0061":3}"#;
        for object in [Object::read(text).unwrap(), Object::of(Raw(text)).unwrap()] {
            assert_eq!(object.duplicate_key(), Some("a"));
            assert_eq!(object.get("b").unwrap().get(), "2");
        }
        let many: String = (0..2 * FEW).map(|at| format!("\"{at}\":0,")).collect();
        let many = format!("{{{many}\"7\":1}}");
        assert_eq!(Object::of(Raw(&many)).unwrap().duplicate_key(), Some("7"));
        assert_eq!(
            Object::read(r#"{"a":1,"b":2}"#).unwrap().duplicate_key(),
            None
        );
    }

    /// A key that counts how often it is hashed and compared.
    #[derive(Clone, Copy)]
    struct Counted<'a>(u64, &'a Cell<u64>);

    impl Hash for Counted<'_> {
        fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
            self.1.set(self.1.get() + 1);
            self.0.hash(state);
        }
    }

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.1.set(self.1.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for Counted<'_> {}

    #[test]
    fn twice_as_many_keys_are_twice_the_work() {
        let work = |keys: u64| {
            let count = Cell::new(0);
            let mut all = (0..keys).map(|key| Counted(key, &count));
            assert!(first_repeated(&mut all).is_none());
            count.get()
        };
        for keys in [1_000, 2_000, 4_000, 64_000] {
            // A hash each, and a rare comparison with a key whose hash begins alike.
            assert!((keys..keys + keys / 4).contains(&work(keys)), "{keys}");
        }
    }

    #[test]
    fn only_a_whole_string_is_a_string() {
        let read = |text: &str| {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            string(raw.into()).map(String::from)
        };
        assert_eq!(read(r#""a\"b\u00e9""#).as_deref(), Some("a\"bé"));
        assert_eq!(read(r#""""#).as_deref(), Some(""));
        assert_eq!(read(r#""\ud800""#), None);
        assert_eq!(read("17"), None);
        assert_eq!(read("null"), None);
    }

    #[test]
    fn undecodable_values_do_not_pass() {
        let deep = [Vec::from("[".repeat(200)), Vec::from("]".repeat(200))].concat();
        assert!(decodes(core::str::from_utf8(&deep).unwrap()).is_err());
        assert!(decodes(r#"{"a":["\ud800"]}"#).is_err());
        assert!(decodes("[1e999]").is_err());
        assert!(decodes(r#"{"a":[1,-2,0.5,null,true,"x",{}]}"#).is_ok());
    }

    #[test]
    fn the_quick_check_never_passes_an_undecodable_value() {
        let passes = |text: &str| {
            let raw: &RawValue = serde_json::from_str(text).unwrap();
            clearly_decodes(raw.into())
        };
        for text in ["\"é\"", "-1.5", "null", "true", r#"{"a":[1,{"b":"e 1"}]}"#] {
            assert!(passes(text), "{text}");
        }
        let deep = ["[".repeat(120), "]".repeat(120)].concat();
        let long = "9".repeat(400);
        for text in [
            r#""\ud800""#,
            r#"{"a":"\ud800"}"#,
            "1e999",
            "[1E999]",
            &long,
            &deep,
        ] {
            assert!(!passes(text), "{text}");
        }
    }
}
