//! Keys of maps: strings, and numbers and booleans in quotes.

use super::output::Output;
use super::{JsonError, number};
use core::fmt;
use serde::ser::{Impossible, Serialize, Serializer};

/// The serializer of a key.
pub(super) struct Key<'a, 'b>(pub(super) &'a mut Output<'b>);

macro_rules! numbers {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<(), JsonError> {
            self.0.put(b"\"")?;
            number::Number::write(value, self.0)?;
            self.0.put(b"\"")
        }
    )*};
}

macro_rules! floats {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<(), JsonError> {
            if !value.is_finite() {
                return Err(JsonError::KEY);
            }
            self.0.put(b"\"")?;
            number::Number::write(value, self.0)?;
            self.0.put(b"\"")
        }
    )*};
}

impl Serializer for Key<'_, '_> {
    type Ok = ();
    type Error = JsonError;
    type SerializeSeq = Impossible<(), JsonError>;
    type SerializeTuple = Impossible<(), JsonError>;
    type SerializeTupleStruct = Impossible<(), JsonError>;
    type SerializeTupleVariant = Impossible<(), JsonError>;
    type SerializeMap = Impossible<(), JsonError>;
    type SerializeStruct = Impossible<(), JsonError>;
    type SerializeStructVariant = Impossible<(), JsonError>;

    numbers! {
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
    }

    floats! {
        serialize_f32: f32,
        serialize_f64: f64,
    }

    fn serialize_bool(self, value: bool) -> Result<(), JsonError> {
        self.0.put_text(if value { "true" } else { "false" })
    }

    fn serialize_char(self, value: char) -> Result<(), JsonError> {
        self.0.put_text(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), JsonError> {
        self.0.put_text(text)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<(), JsonError> {
        self.0.put_display(&text)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_none(self) -> Result<(), JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), JsonError> {
        self.serialize_newtype_struct("", value)
    }

    fn serialize_unit(self) -> Result<(), JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), JsonError> {
        self.0.put_text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        match self.0.levels.wrappers.checked_sub(1) {
            Some(wrappers) => self.0.levels.wrappers = wrappers,
            None => return Err(self.0.too_deep()),
        }
        value.serialize(Key(&mut *self.0))?;
        self.0.levels.wrappers += 1;
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, JsonError> {
        Err(JsonError::KEY)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, JsonError> {
        Err(JsonError::KEY)
    }
}
