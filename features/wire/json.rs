//! Reads JSON in place: the borrowed members of an object, and whether a value can be decoded.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::{fmt, hash::Hash};
use std::collections::HashSet;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// An object's members in the order they were written, with unparsed values.
///
/// A map would hide duplicate keys.
pub(crate) struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    pub(crate) fn read(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.members
            .iter()
            .find_map(|(name, value)| (name == key).then_some(*value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| &**name)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &'a RawValue> {
        self.members.iter().map(|(_, value)| *value)
    }

    pub(crate) fn duplicate_key(&self) -> Option<&str> {
        first_repeated(self.keys())
    }
}

/// The first key that occurred before. One hash per key: a stranger decides how many there are.
fn first_repeated<K: Hash + Eq + Copy>(mut keys: impl Iterator<Item = K>) -> Option<K> {
    let mut seen = HashSet::with_capacity(keys.size_hint().0);
    keys.find(|key| !seen.insert(*key))
}

/// The string in `raw`; `None` for another type, or for half a surrogate pair.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(raw.get())
            .ok()
            .map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The number of items of the array in `raw`, without keeping them; 0 for another type.
#[cfg(feature = "collector")]
pub(crate) fn array_len(raw: &RawValue) -> usize {
    struct Count;

    impl<'de> Visitor<'de> for Count {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
            let mut len = 0;
            while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {
                len += 1;
            }
            Ok(len)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    deserializer.deserialize_seq(Count).unwrap_or_default()
}

/// Whether all of `text` can be decoded.
///
/// Reading a [`RawValue`] only skips over it: half a surrogate pair, a number beyond `f64` or 200 nested arrays pass as
/// raw text, but fail in every later reader.
pub(crate) fn decodes(text: &str) -> serde_json::Result<()> {
    serde_json::from_str::<Decoded>(text).map(|Decoded| ())
}

/// Whether a quick check shows that a member's value can be decoded; `false` means unknown.
pub(crate) fn clearly_decodes(member: &RawValue) -> bool {
    /// Too short to exceed any reader's nesting limit, wherever the value stands.
    const SHORT: usize = 100;
    let text = member.get();
    if text.starts_with('"') {
        !text.as_bytes().contains(&b'\\')
    } else {
        text.len() < SHORT && decodes(text).is_ok()
    }
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
        while let Some((Key(key), value)) = map.next_entry()? {
            members.push((key, value));
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
    use core::cell::Cell;

    use super::*;

    #[test]
    fn a_duplicate_key_is_found_even_if_one_is_escaped() {
        let object = Object::read(r#"{"a":1,"b":2,"\u0061":3}"#).unwrap();
        assert_eq!(object.duplicate_key(), Some("a"));
        assert_eq!(object.get("b").unwrap().get(), "2");
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
            string(raw).map(String::from)
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
        let passes = |text: &str| clearly_decodes(serde_json::from_str(text).unwrap());
        for text in ["\"é\"", "-1.5", "null", r#"{"a":[1,{"b":"\n"}]}"#] {
            assert!(passes(text), "{text}");
        }
        let deep = ["[".repeat(60), "]".repeat(60)].concat();
        for text in [r#""\ud800""#, r#"{"a":"\ud800"}"#, "1e999", &deep] {
            assert!(!passes(text), "{text}");
        }
    }
}
