//! What an event says: a name, measurements and metadata, borrowed from whoever executes it.

use core::fmt;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// An event, as a handler gets it.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    name: &'a str,
    measurements: Values<'a>,
    metadata: Values<'a>,
}

impl<'a> Event<'a> {
    pub(super) fn new(
        name: &'a str,
        measurements: &'a [Pair<'a>],
        metadata: &'a [Pair<'a>],
    ) -> Self {
        Self {
            name,
            measurements: Values(measurements),
            metadata: Values(metadata),
        }
    }

    /// Its name, dotted words.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// What was measured.
    #[must_use]
    pub const fn measurements(&self) -> Values<'a> {
        self.measurements
    }

    /// Of what it was measured.
    #[must_use]
    pub const fn metadata(&self) -> Values<'a> {
        self.metadata
    }
}

/// A name and its value.
pub type Pair<'a> = (&'a str, Value<'a>);

/// The measurements or the metadata of an event. Serialized it is a map.
#[derive(Clone, Copy, PartialEq)]
pub struct Values<'a>(&'a [Pair<'a>]);

impl<'a> Values<'a> {
    /// The first value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        let mut pairs = self.iter();
        pairs.find(|pair| pair.0 == name).map(|(_, value)| value)
    }

    /// The value of this name, if it is a string.
    #[must_use]
    pub fn str(&self, name: &str) -> Option<&'a str> {
        match self.get(name)? {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The value of this name, if it is a whole number and not negative.
    #[must_use]
    pub fn u64(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::U64(number) => Some(number),
            Value::I64(number) => number.try_into().ok(),
            _ => None,
        }
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = Pair<'a>> + use<'a> {
        self.0.iter().copied()
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Without(*self, None).serialize(serializer)
    }
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Values but for those of one name.
pub(crate) struct Without<'a>(pub(crate) Values<'a>, pub(crate) Option<&'a str>);

impl Serialize for Without<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(values, name) = self;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in values.iter().filter(|pair| Some(pair.0) != *name) {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

/// A measurement, or a piece of metadata. The usual types convert into it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number that is not negative.
    U64(u64),
    /// A whole number.
    I64(i64),
    /// A number. NaN and the infinities become null where it is sent.
    F64(f64),
    /// A text.
    Str(&'a str),
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(value),
            Self::U64(value) => serializer.serialize_u64(value),
            Self::I64(value) => serializer.serialize_i64(value),
            Self::F64(value) => serializer.serialize_f64(value),
            Self::Str(value) => serializer.serialize_str(value),
        }
    }
}

/// Texts as they are; [`Debug`](fmt::Debug) shows where they end.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::U64(value) => value.fmt(f),
            Self::I64(value) => value.fmt(f),
            Self::F64(value) => value.fmt(f),
            Self::Str(value) => f.write_str(value),
        }
    }
}

macro_rules! from {
    ($($variant:ident($wide:ty): $($type:ty)*;)*) => {$($(
        impl From<$type> for Value<'_> {
            fn from(value: $type) -> Self {
                Self::$variant(value as $wide)
            }
        }
    )*)*};
}

from! {
    Bool(bool): bool;
    U64(u64): u8 u16 u32 u64 usize;
    I64(i64): i8 i16 i32 i64 isize;
    F64(f64): f32 f64;
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(text)
    }
}

impl<'a> From<&'a alloc::string::String> for Value<'a> {
    fn from(text: &'a alloc::string::String) -> Self {
        Self::Str(text)
    }
}

impl<'a, V: Into<Value<'a>>> From<Option<V>> for Value<'a> {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn values_are_json_of_their_own_types_and_the_one_left_out_is_not_there() {
        let text = String::from("a \"b\"");
        let pairs = [
            ("session_id", Value::from("s")),
            ("yes", true.into()),
            ("n", 1_u8.into()),
            ("below", (-1).into()),
            ("half", 0.5.into()),
            ("nan", f64::NAN.into()),
            ("text", (&text).into()),
            ("nothing", None::<u64>.into()),
            ("something", Some(2_usize).into()),
        ];
        let event = Event::new("e", &[], &pairs);
        let values = event.metadata();
        let json = serde_json::to_string(&Without(values, Some("session_id"))).unwrap();
        assert_eq!(
            json,
            r#"{"yes":true,"n":1,"below":-1,"half":0.5,"nan":null,"text":"a \"b\"","nothing":null,"something":2}"#
        );
        let all = serde_json::to_value(values).unwrap();
        assert_eq!(all["session_id"], "s");
        assert_eq!(values.u64("something"), Some(2));
        assert_eq!((values.u64("below"), values.str("n")), (None, None));
    }
}
