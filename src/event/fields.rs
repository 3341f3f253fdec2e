//! `fields!`: event data in place, without a struct and without an allocation.

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// The data of an event: names and values, serialized as a JSON object without allocating.
///
/// A name is an identifier or a string literal; a value is any expression whose type is `Serialize`, taken by
/// reference. Nest objects with another `fields!`.
///
/// ```
/// # use tinkex_telemetry::fields;
/// let tokens = vec![1, 2, 3];
/// let data = fields! {
///     model: "small",
///     "latency.ms": 12.5,
///     tokens: tokens,
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
    () => { $crate::Fields { list: () } };
    ($($body:tt)+) => { $crate::Fields { list: $crate::__field_list!($($body)+) } };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __field_list {
    () => { () };
    ($name:ident : $value:expr $(, $($rest:tt)*)?) => {
        $crate::__private::Field {
            name: ::core::stringify!($name),
            value: &$value,
            rest: $crate::__field_list!($($($rest)*)?),
        }
    };
    ($name:literal : $value:expr $(, $($rest:tt)*)?) => {
        $crate::__private::Field {
            name: $name,
            value: &$value,
            rest: $crate::__field_list!($($($rest)*)?),
        }
    };
}

/// What [`fields!`](crate::event::fields) makes.
#[derive(Clone, Copy, Debug)]
pub struct Fields<L> {
    #[doc(hidden)]
    pub list: L,
}

/// One field, and those behind it.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a, V: ?Sized, R> {
    /// The JSON key.
    pub name: &'static str,
    /// Its value.
    pub value: &'a V,
    /// The fields behind it.
    pub rest: R,
}

/// A list of fields.
pub trait FieldList {
    /// How many there are.
    const LEN: usize;

    /// Writes them.
    ///
    /// # Errors
    /// What the serializer answers.
    fn write<S: SerializeStruct>(&self, object: &mut S) -> Result<(), S::Error>;
}

impl FieldList for () {
    const LEN: usize = 0;

    fn write<S: SerializeStruct>(&self, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }
}

impl<V: Serialize + ?Sized, R: FieldList> FieldList for Field<'_, V, R> {
    const LEN: usize = 1 + R::LEN;

    #[inline]
    fn write<S: SerializeStruct>(&self, object: &mut S) -> Result<(), S::Error> {
        object.serialize_field(self.name, self.value)?;
        self.rest.write(object)
    }
}

impl<L: FieldList> Serialize for Fields<L> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Fields", L::LEN)?;
        self.list.write(&mut object)?;
        object.end()
    }
}
