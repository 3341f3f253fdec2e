//! `fields!`: ad-hoc event data, without a struct or an allocation.

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Creates the data of an event from names and values: a JSON object, serialized without allocating.
///
/// A name is an identifier or a string literal; a value is any expression whose type is `Serialize`, taken by
/// reference. A name alone is the variable of that name. Nest another `fields!` for an object within an object. If a
/// name is given twice, its last value is sent; `r#type` gives the key `type`.
///
/// ```
/// # use tinkex_telemetry::fields;
/// let tokens = vec![1, 2, 3];
/// let data = fields! {
///     model: "small",
///     "latency.ms": 12.5,
///     tokens,
///     cache: fields! { hit: true },
/// };
/// assert_eq!(
///     serde_json::to_string(&data)?,
///     r#"{"model":"small","latency.ms":12.5,"tokens":[1,2,3],"cache":{"hit":true}}"#
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[macro_export]
macro_rules! fields {
    () => { $crate::event::Fields { list: () } };
    ($($body:tt)+) => { $crate::event::Fields { list: $crate::__field_list!($($body)+) } };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __field_list {
    () => { () };
    ($name:ident $(, $($rest:tt)*)?) => {
        $crate::__field_list!($name: $name $(, $($rest)*)?)
    };
    ($name:tt : $value:expr $(, $($rest:tt)*)?) => {
        $crate::__private::Field {
            name: const { $crate::__field_name!($name) },
            is_repeated: const {
                $crate::__private::is_among(
                    $crate::__field_name!($name),
                    &$crate::__field_names!($($($rest)*)?),
                )
            },
            value: &$value,
            rest: $crate::__field_list!($($($rest)*)?),
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __field_names {
    ($($name:tt $(: $value:expr)?),* $(,)?) => {
        [$($crate::__field_name!($name)),*] as [&'static str; _]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __field_name {
    ($name:ident) => {
        $crate::__private::without_raw_prefix(::core::stringify!($name))
    };
    ($name:literal) => {
        $name
    };
}

/// The key of a field whose identifier may be a raw one: `type` for `r#type`.
#[must_use]
pub const fn without_raw_prefix(identifier: &'static str) -> &'static str {
    match identifier.as_bytes() {
        [b'r', b'#', ..] => identifier.split_at(2).1,
        _ => identifier,
    }
}

/// Whether a key is one of these.
#[must_use]
pub const fn is_among(key: &str, mut keys: &[&str]) -> bool {
    while let [first, rest @ ..] = keys {
        if is_equal(key.as_bytes(), first.as_bytes()) {
            return true;
        }
        keys = rest;
    }
    false
}

const fn is_equal(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([a, one_rest @ ..], [b, other_rest @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        (one, other) = (one_rest, other_rest);
    }
    one.is_empty() && other.is_empty()
}

/// Event data created by [`fields!`](crate::fields).
#[derive(Clone, Copy, Debug)]
pub struct Fields<L> {
    #[doc(hidden)]
    pub list: L,
}

/// One field, and those after it.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a, V: ?Sized, R> {
    /// The JSON key.
    pub name: &'static str,
    /// Whether a later field has the same key, so that this one is left out.
    pub is_repeated: bool,
    /// Its value.
    pub value: &'a V,
    /// The fields after it.
    pub rest: R,
}

/// A list of fields.
pub trait FieldList {
    /// How many are written.
    fn count(&self) -> usize;

    /// Writes them to `object`.
    ///
    /// # Errors
    /// Those of the serializer.
    fn write<S: SerializeStruct>(&self, object: &mut S) -> Result<(), S::Error>;
}

impl FieldList for () {
    #[inline]
    fn count(&self) -> usize {
        0
    }

    #[inline]
    fn write<S: SerializeStruct>(&self, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }
}

impl<V: Serialize + ?Sized, R: FieldList> FieldList for Field<'_, V, R> {
    #[inline]
    fn count(&self) -> usize {
        usize::from(!self.is_repeated) + self.rest.count()
    }

    #[inline]
    fn write<S: SerializeStruct>(&self, object: &mut S) -> Result<(), S::Error> {
        if !self.is_repeated {
            object.serialize_field(self.name, self.value)?;
        }
        self.rest.write(object)
    }
}

impl<L: FieldList> Serialize for Fields<L> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Fields", self.list.count())?;
        self.list.write(&mut object)?;
        object.end()
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use alloc::string::{String, ToString};

    fn json(data: impl serde::Serialize) -> String {
        serde_json::to_string(&data).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_raw_identifier_gives_the_key_without_its_prefix() {
        assert_eq!(json(fields! { r#type: 1, r: 2 }), r#"{"type":1,"r":2}"#);
    }

    #[test]
    fn of_a_key_given_twice_the_last_value_is_sent() {
        let data = fields! { a: 1, "b": 2, "a": 3, r#b: "x", c: 4 };
        assert_eq!(json(data), r#"{"a":3,"b":"x","c":4}"#);
    }

    #[test]
    fn a_name_alone_is_a_variable() {
        let (step, r#type) = (1, "t");
        let data = fields! { step, "n": 2, r#type };
        assert_eq!(json(data), r#"{"step":1,"n":2,"type":"t"}"#);
        assert_eq!(json(fields! { step }), r#"{"step":1}"#);
    }
}
