//! Reading JSON in place: the members of an object, borrowed, and whether a value can be decoded.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// An object's members in the order they were written, their values unread.
///
/// A map would hide a key that is written twice.
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

    pub(crate) fn repeated_key(&self) -> Option<&str> {
        let mut keys = self.keys().enumerate();
        keys.find_map(|(at, key)| self.keys().take(at).any(|seen| seen == key).then_some(key))
    }
}

/// The string that `raw` is, or `None` when it is another type or holds half a surrogate pair.
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

/// Whether all of `text` can be decoded.
///
/// A [`RawValue`] is only skipped over: half a surrogate pair, a number beyond `f64` or 200 nested
/// arrays pass as raw text and fail in every reader after it.
pub(crate) fn decodes(text: &str) -> serde_json::Result<()> {
    serde_json::from_str::<Decoded>(text).map(|Decoded| ())
}

/// Whether a short look at a member's value tells that it can be decoded; false says nothing.
pub(crate) fn clearly_decodes(member: &RawValue) -> bool {
    /// Too short to be nested deeper than any reader goes, whatever it is a member of.
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

/// A value that was decoded in full and thrown away, where `IgnoredAny` would skip it.
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

    // Under serde_json's `arbitrary_precision`, which any crate in the build can switch on, a number
    // arrives here as a map of one.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decoded, A::Error> {
        while let Some((Key(_), Decoded)) = map.next_entry()? {}
        Ok(Decoded)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_key_written_twice_is_seen_even_when_it_is_escaped_once() {
        let object = Object::read(r#"{"a":1,"b":2,"\u0061":3}"#).unwrap();
        assert_eq!(object.repeated_key(), Some("a"));
        assert_eq!(object.get("b").unwrap().get(), "2");
        assert_eq!(
            Object::read(r#"{"a":1,"b":2}"#).unwrap().repeated_key(),
            None
        );
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
    fn what_no_reader_could_decode_does_not_pass() {
        let deep = [Vec::from("[".repeat(200)), Vec::from("]".repeat(200))].concat();
        assert!(decodes(core::str::from_utf8(&deep).unwrap()).is_err());
        assert!(decodes(r#"{"a":["\ud800"]}"#).is_err());
        assert!(decodes("[1e999]").is_err());
        assert!(decodes(r#"{"a":[1,-2,0.5,null,true,"x",{}]}"#).is_ok());
    }

    #[test]
    fn a_short_look_never_takes_what_no_reader_could_decode() {
        let looks_well = |text: &str| clearly_decodes(serde_json::from_str(text).unwrap());
        for text in ["\"é\"", "-1.5", "null", r#"{"a":[1,{"b":"\n"}]}"#] {
            assert!(looks_well(text), "{text}");
        }
        let deep = ["[".repeat(60), "]".repeat(60)].concat();
        for text in [r#""\ud800""#, r#"{"a":"\ud800"}"#, "1e999", &deep] {
            assert!(!looks_well(text), "{text}");
        }
    }
}
