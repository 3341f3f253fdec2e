//! Limits on the data of an event: how deep it nests, how long its texts are, how many fields its parts have.
//!
//! They are kept while the data is encoded, by a serializer around the one that writes. What is cut leaves a mark, and
//! what lies too deep is not even looked at.

mod cut;

use crate::text::Text;
use core::cell::Cell;
use core::fmt;
use cut::{CutText, is_longer};
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Stands for what was cut, or at the end of it.
pub(crate) const MARK: &str = "… (cut)";

/// How much of an event's data is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataLimits {
    /// Objects and arrays inside each other, the data itself included.
    pub(crate) depth: usize,
    /// Bytes of UTF-8, marks included.
    pub(crate) string_bytes: usize,
    /// For each object and each array, without the mark.
    pub(crate) fields: usize,
}

impl DataLimits {
    pub(crate) const NONE: Self = Self {
        depth: usize::MAX,
        string_bytes: usize::MAX,
        fields: usize::MAX,
    };

    /// The least `string_bytes`: a mark always fits.
    pub(crate) const MIN_STRING_BYTES: usize = 32;

    pub(crate) fn is_set(&self) -> bool {
        *self != Self::NONE
    }
}

/// A value, of which no more is written than the limits allow.
pub(crate) struct Limited<'a, T: ?Sized> {
    value: &'a T,
    rules: Rules<'a>,
}

#[derive(Clone, Copy)]
struct Rules<'a> {
    limits: &'a DataLimits,
    /// Objects and arrays that may still be opened inside each other.
    depth: usize,
    /// For a key, its place: what keys were cut to must differ.
    place: Option<usize>,
    is_cut: &'a Cell<bool>,
}

impl<'a, T: ?Sized> Limited<'a, T> {
    /// Sets `is_cut` when something is left out.
    pub(crate) fn new(value: &'a T, limits: &'a DataLimits, is_cut: &'a Cell<bool>) -> Self {
        let rules = Rules {
            limits,
            depth: limits.depth,
            place: None,
            is_cut,
        };
        Self { value, rules }
    }
}

impl<T: Serialize + ?Sized> Serialize for Limited<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Limiter {
            inner: serializer,
            rules: self.rules,
        })
    }
}

impl Rules<'_> {
    fn inside(self) -> Self {
        Self {
            depth: self.depth - 1,
            place: None,
            ..self
        }
    }

    fn note(&self) {
        self.is_cut.set(true);
    }

    fn cut<D>(&self, text: D) -> CutText<D> {
        self.note();
        CutText {
            text,
            limit: self.limits.string_bytes,
            place: self.place,
        }
    }

    fn fits(&self, text: &str) -> bool {
        text.len() <= self.limits.string_bytes
    }
}

/// The serializer around the one that writes.
struct Limiter<'a, S> {
    inner: S,
    rules: Rules<'a>,
}

impl<'a, S: Serializer> Limiter<'a, S> {
    /// Opens an object or an array, or writes the mark in its place.
    fn open<C>(
        self,
        open: impl FnOnce(S) -> Result<C, S::Error>,
    ) -> Result<Counted<'a, C, S::Ok>, S::Error> {
        if self.rules.depth == 0 {
            return self.instead();
        }
        Ok(Counted {
            inner: Ok(open(self.inner)?),
            rules: self.rules.inside(),
            count: 0,
            left_out: 0,
        })
    }

    /// Writes the mark.
    fn instead<C>(self) -> Result<Counted<'a, C, S::Ok>, S::Error> {
        self.rules.note();
        Ok(Counted {
            inner: Err(self.inner.serialize_str(MARK)?),
            rules: self.rules,
            count: 0,
            left_out: 0,
        })
    }

    /// An object of one field whose value is the mark.
    fn variant_instead<C>(self, variant: &'static str) -> Result<Counted<'a, C, S::Ok>, S::Error> {
        let rules = self.rules;
        rules.note();
        Ok(Counted {
            inner: Err(self.serialize_newtype_variant("", 0, variant, MARK)?),
            rules,
            count: 0,
            left_out: 0,
        })
    }
}

macro_rules! as_it_is {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Limiter<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    // In JSON these are the same, and an array or an object whose length is not told cannot break its promise.
    type SerializeSeq = Counted<'a, S::SerializeSeq, S::Ok>;
    type SerializeTuple = Counted<'a, S::SerializeSeq, S::Ok>;
    type SerializeTupleStruct = Counted<'a, S::SerializeSeq, S::Ok>;
    type SerializeTupleVariant = Counted<'a, S::SerializeTupleVariant, S::Ok>;
    type SerializeMap = Counted<'a, S::SerializeMap, S::Ok>;
    type SerializeStruct = Struct<'a, S>;
    type SerializeStructVariant = Counted<'a, S::SerializeStructVariant, S::Ok>;

    as_it_is! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_unit_struct: &'static str,
    }

    fn serialize_str(self, text: &str) -> Result<S::Ok, S::Error> {
        if self.rules.fits(text) {
            return self.inner.serialize_str(text);
        }
        let text = self.rules.cut(text);
        self.inner.collect_str(&text)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<S::Ok, S::Error> {
        if !is_longer(&text, self.rules.limits.string_bytes) {
            return self.inner.collect_str(text);
        }
        let text = self.rules.cut(text);
        self.inner.collect_str(&text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<S::Ok, S::Error> {
        if self.rules.depth > 0 && bytes.len() <= self.rules.limits.fields {
            return self.inner.serialize_bytes(bytes);
        }
        self.collect_seq(bytes)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let mut object = self.serialize_map(None)?;
        object.serialize_entry(variant, value)?;
        SerializeMap::end(object)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.open(|inner| inner.serialize_seq(None))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        if self.rules.depth == 1 {
            return self.variant_instead(variant);
        }
        let array = self.open(|inner| inner.serialize_tuple_variant(name, index, variant, len))?;
        Ok(array.one_deeper())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.open(|inner| inner.serialize_map(None))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        match name {
            NUMBER => Ok(Struct::Number(self.inner.serialize_struct(name, len)?)),
            #[cfg(feature = "std")]
            RAW => Ok(Struct::Raw {
                place: self,
                value: None,
            }),
            _ => self.serialize_map(None).map(Struct::Object),
        }
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        if self.rules.depth == 1 {
            return self.variant_instead(variant);
        }
        let object =
            self.open(|inner| inner.serialize_struct_variant(name, index, variant, len))?;
        Ok(object.one_deeper())
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// An object or an array whose fields are counted; or what was written in its place.
struct Counted<'a, C, Ok> {
    inner: Result<C, Ok>,
    rules: Rules<'a>,
    count: usize,
    left_out: usize,
}

impl<'a, C, Ok> Counted<'a, C, Ok> {
    /// Where a field is to be written; nowhere, if there are too many.
    fn next<'b, T: ?Sized>(&'b mut self, value: &'b T) -> Option<(&'b mut C, Limited<'b, T>)>
    where
        'a: 'b,
    {
        let inner = self.inner.as_mut().ok()?;
        if self.count == self.rules.limits.fields {
            self.rules.note();
            self.left_out += 1;
            return None;
        }
        self.count += 1;
        let rules = self.rules;
        Some((inner, Limited { value, rules }))
    }

    fn one_deeper(mut self) -> Self {
        if self.inner.is_ok() {
            self.rules = self.rules.inside();
        }
        self
    }

    /// What stands at the end of an array for what was left out.
    fn rest(&self) -> Option<Text<32>> {
        (self.left_out > 0).then(|| Text::new(format_args!("… ({} more)", self.left_out)))
    }
}

/// Arrays: what is left out is told of by one more element.
macro_rules! array {
    ($compound:ident, $method:ident) => {
        impl<C: $compound> $compound for Counted<'_, C, C::Ok> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                match self.next(value) {
                    Some((array, value)) => array.$method(&value),
                    None => Ok(()),
                }
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                let rest = self.rest();
                match (self.inner, rest) {
                    (Ok(mut array), Some(rest)) => {
                        array.$method(rest.as_str())?;
                        array.end()
                    }
                    (Ok(array), None) => array.end(),
                    (Err(done), _) => Ok(done),
                }
            }
        }
    };
}

array!(SerializeSeq, serialize_element);
array!(SerializeTupleVariant, serialize_field);

impl<C: SerializeSeq> SerializeTuple for Counted<'_, C, C::Ok> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        SerializeSeq::end(self)
    }
}

impl<C: SerializeSeq> SerializeTupleStruct for Counted<'_, C, C::Ok> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        SerializeSeq::end(self)
    }
}

/// Objects: what is left out is told of by one more field, whose value is how many.
impl<C: SerializeMap> SerializeMap for Counted<'_, C, C::Ok> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        let place = Some(self.count);
        match self.next(key) {
            Some((object, mut key)) => {
                key.rules.place = place;
                object.serialize_key(&key)
            }
            None => Ok(()),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let rules = self.rules;
        match &mut self.inner {
            // The one that was left out is always the last so far.
            Ok(object) if self.left_out == 0 => object.serialize_value(&Limited { value, rules }),
            _ => Ok(()),
        }
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        match self.inner {
            Ok(mut object) => {
                if self.left_out > 0 {
                    object.serialize_entry(MARK, &self.left_out)?;
                }
                object.end()
            }
            Err(done) => Ok(done),
        }
    }
}

impl<C: SerializeStructVariant> SerializeStructVariant for Counted<'_, C, C::Ok> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), C::Error> {
        match self.next(value) {
            Some((object, value)) => object.serialize_field(key, &value),
            None => Ok(()),
        }
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        match self.inner {
            Ok(mut object) => {
                if self.left_out > 0 {
                    object.serialize_field(MARK, &self.left_out)?;
                }
                object.end()
            }
            Err(done) => Ok(done),
        }
    }
}

/// What serde_json calls a number of arbitrary precision, and JSON that is written already.
const NUMBER: &str = "$serde_json::private::Number";
#[cfg(feature = "std")]
const RAW: &str = "$serde_json::private::RawValue";

/// A struct: an object, but for two that serde_json uses for its own ends.
enum Struct<'a, S: Serializer> {
    Object(Counted<'a, S::SerializeMap, S::Ok>),
    Number(S::SerializeStruct),
    /// Its text is parsed, to be held to the limits.
    #[cfg(feature = "std")]
    Raw {
        place: Limiter<'a, S>,
        value: Option<serde_json::Value>,
    },
}

impl<S: Serializer> SerializeStruct for Struct<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        field: &T,
    ) -> Result<(), S::Error> {
        match self {
            Self::Object(object) => object.serialize_entry(key, field),
            Self::Number(number) => number.serialize_field(key, field),
            #[cfg(feature = "std")]
            Self::Raw { value, .. } => {
                let text = serde_json::to_value(field).ok();
                let text = text.as_ref().and_then(serde_json::Value::as_str);
                *value = text.and_then(|text| serde_json::from_str(text).ok());
                Ok(())
            }
        }
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(object) => SerializeMap::end(object),
            Self::Number(number) => number.end(),
            #[cfg(feature = "std")]
            Self::Raw {
                place,
                value: Some(value),
            } => value.serialize(place),
            // It is not JSON, or nests too deeply to be looked at.
            #[cfg(feature = "std")]
            Self::Raw { place, value: None } => {
                place.rules.note();
                place.inner.serialize_str(MARK)
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
