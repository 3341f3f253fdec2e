//! The serializer that writes values as JSON into an event's buffer.
//!
//! It writes what serde_json would, and two things more. It counts nesting, and stops where that is too deep. And each
//! object and array knows what may come next: once a call fails or comes out of turn, nothing that contains it can be
//! completed. So whatever a `Serialize` does, the result is an error or well-formed JSON.

mod compound;
mod key;
mod number;
mod output;
mod text;

#[cfg(feature = "std")]
use crate::event::raw::{self, NUMBER, RAW};
#[cfg(feature = "alloc")]
use crate::text::Reason;
use compound::{Compound, Struct};
use core::fmt;
pub(crate) use output::Output;
use serde::ser::{self, Serialize, Serializer};
#[cfg(feature = "std")]
pub(crate) use text::captured;

/// Why a value cannot be written.
#[derive(Debug)]
pub(crate) enum JsonError {
    /// The buffer is full.
    Full,
    /// Objects and arrays, or wrappers that write nothing, nest too deeply.
    TooDeep,
    Invalid(&'static str),
    /// The message of the value's own `Serialize`, on the heap to keep results small.
    #[cfg(feature = "alloc")]
    Custom(alloc::boxed::Box<Reason>),
}

impl JsonError {
    /// A call out of turn: a key without a value, a value without a key, a field after the end, anything after an error.
    pub(crate) const BROKEN: Self = Self::Invalid(
        "its Serialize implementation breaks its contract: a call out of turn or after an error",
    );
    const KEY: Self = Self::Invalid("a key must be a string, a number or a boolean");
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the buffer is full"),
            Self::TooDeep => f.write_str("it nests too deeply"),
            Self::Invalid(reason) => f.write_str(reason),
            #[cfg(feature = "alloc")]
            Self::Custom(reason) => reason.fmt(f),
        }
    }
}

impl core::error::Error for JsonError {}

impl ser::Error for JsonError {
    #[cold]
    fn custom<T: fmt::Display>(message: T) -> Self {
        #[cfg(feature = "alloc")]
        return Self::Custom(alloc::boxed::Box::new(Reason::new(message)));
        #[cfg(not(feature = "alloc"))]
        {
            let _ = message;
            Self::Invalid("its Serialize implementation failed")
        }
    }
}

/// How much more may be nested.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    /// Objects and arrays.
    pub(crate) depth: usize,
    /// `Some` and newtype structs: they write nothing, but recurse.
    pub(crate) wrappers: usize,
}

impl Levels {
    /// For data that nests at most `depth` objects and arrays.
    pub(crate) const fn of_depth(depth: usize) -> Self {
        let wrappers = depth.saturating_mul(4);
        Self {
            depth,
            wrappers: if wrappers < 256 { 256 } else { wrappers },
        }
    }
}

impl<'b> Output<'b> {
    fn put(&mut self, data: &[u8]) -> Result<(), JsonError> {
        self.append(data)
    }

    /// Goes one level down.
    #[inline]
    fn open(&mut self) -> Result<(), JsonError> {
        match self.levels.depth.checked_sub(1) {
            Some(depth) => {
                self.levels.depth = depth;
                Ok(())
            }
            None => Err(self.too_deep()),
        }
    }

    #[inline]
    fn close(&mut self) {
        self.levels.depth += 1;
    }

    #[cold]
    fn too_deep(&mut self) -> JsonError {
        self.is_too_deep = true;
        JsonError::TooDeep
    }

    #[inline]
    fn object(&mut self) -> Result<Compound<'_, 'b>, JsonError> {
        self.open()?;
        Ok(Compound::new(self, b'{'))
    }

    #[inline]
    fn array(&mut self) -> Result<Compound<'_, 'b>, JsonError> {
        if self.levels.depth == self.max_levels.depth {
            // Data that are an array become the value of an object.
            self.open()?;
        }
        self.open()?;
        Ok(Compound::new(self, b'['))
    }

    /// Begins the object that holds a variant's contents.
    fn variant(&mut self, variant: &str) -> Result<(), JsonError> {
        self.open()?;
        self.put(b"{")?;
        self.put_text(variant)?;
        self.put(b":")
    }

    fn end_variant(&mut self) -> Result<(), JsonError> {
        self.close();
        self.put(b"}")
    }

    /// Writes a value in a wrapper that writes nothing itself.
    #[inline]
    fn wrapped<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        match self.levels.wrappers.checked_sub(1) {
            Some(wrappers) => self.levels.wrappers = wrappers,
            None => return Err(self.too_deep()),
        }
        let written = value.serialize(&mut *self);
        self.levels.wrappers += 1;
        written
    }

    /// Writes JSON that someone else has written, if every reader will understand it.
    #[cfg(feature = "std")]
    fn put_raw(&mut self, name: &str, json: &str) -> Result<(), JsonError> {
        self.has_raw = true;
        let fragment = raw::check(json).map_err(JsonError::Invalid)?;
        if name == NUMBER && !fragment.is_number() {
            return Err(JsonError::BROKEN);
        }
        let is_top = self.levels.depth == self.max_levels.depth;
        let depth = fragment.depth + usize::from(is_top && fragment.json.starts_with('['));
        if depth > self.levels.depth {
            return Err(self.too_deep());
        }
        self.put(fragment.json.as_bytes())
    }
}

macro_rules! numbers {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), JsonError> {
            number::Number::write(value, self)
        }
    )*};
}

impl<'a, 'b> Serializer for &'a mut Output<'b> {
    type Ok = ();
    type Error = JsonError;
    type SerializeSeq = Compound<'a, 'b>;
    type SerializeTuple = Compound<'a, 'b>;
    type SerializeTupleStruct = Compound<'a, 'b>;
    type SerializeTupleVariant = Compound<'a, 'b>;
    type SerializeMap = Compound<'a, 'b>;
    type SerializeStruct = Struct<'a, 'b>;
    type SerializeStructVariant = Compound<'a, 'b>;

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
        serialize_f32: f32,
        serialize_f64: f64,
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), JsonError> {
        self.put(if value { b"true" } else { b"false" })
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<(), JsonError> {
        self.put_text(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), JsonError> {
        self.put_text(text)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<(), JsonError> {
        self.put_display(&text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), JsonError> {
        self.collect_seq(bytes)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), JsonError> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), JsonError> {
        self.wrapped(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), JsonError> {
        self.put(b"null")
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), JsonError> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), JsonError> {
        self.put_text(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        self.wrapped(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.end_variant()
    }

    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a, 'b>, JsonError> {
        self.array()
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Compound<'a, 'b>, JsonError> {
        self.array()
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'b>, JsonError> {
        self.array()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'b>, JsonError> {
        self.variant(variant)?;
        self.open()?;
        Ok(Compound::new(self, b'['))
    }

    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a, 'b>, JsonError> {
        self.object()
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Struct<'a, 'b>, JsonError> {
        #[cfg(feature = "std")]
        if name == RAW || name == NUMBER {
            return Ok(Struct::raw(self, name));
        }
        let _ = name;
        self.object().map(Struct::Object)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'b>, JsonError> {
        self.variant(variant)?;
        self.object()
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
