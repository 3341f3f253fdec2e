//! Limits on the data of an event: nesting depth, length of texts, number of fields.
//!
//! A serializer around the one that writes enforces them while the data is encoded. What is cut leaves a mark; what is
//! nested too deeply is not even visited.

mod compound;
mod cut;

use crate::event::json::Levels;
#[cfg(feature = "std")]
use crate::event::raw::{NUMBER, RAW};
use compound::{Compound, Struct};
use core::cell::Cell;
use core::fmt;
use cut::{CutText, is_longer};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Replaces what was omitted, or ends a text that was cut.
pub(crate) const MARK: &str = "… (cut)";

/// The limits of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataLimits {
    /// Nested objects and arrays, counting the data itself.
    pub(crate) depth: usize,
    /// Bytes of UTF-8, including the mark.
    pub(crate) string_bytes: usize,
    /// For each object and array, not counting the mark.
    pub(crate) fields: usize,
}

impl DataLimits {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self {
        depth: usize::MAX,
        string_bytes: usize::MAX,
        fields: usize::MAX,
    };

    /// The smallest `string_bytes`: a mark always fits.
    pub(crate) const MIN_STRING_BYTES: usize = 32;

    /// Whether data must be inspected while they are encoded. The encoder counts nesting itself, and only what is too
    /// deep is encoded again. The smallest depths are too small for data that are written without it.
    pub(crate) fn is_set(&self) -> bool {
        self.string_bytes < usize::MAX || self.fields < usize::MAX || self.depth < 4
    }
}

/// Serializes as much of a value as the limits allow.
pub(crate) struct Limited<'a, T: ?Sized> {
    value: &'a T,
    scope: Scope<'a>,
}

/// The limits as they apply at one level of nesting.
#[derive(Clone, Copy)]
struct Scope<'a> {
    limits: &'a DataLimits,
    /// How many more levels may be opened.
    depth: usize,
    /// How many more `Some` and newtype structs may be opened, which write nothing but recurse.
    wrappers: usize,
    /// The position of a key, which keeps keys distinct that are cut to the same text.
    key_index: Option<usize>,
    is_cut: &'a Cell<bool>,
}

impl<'a, T: ?Sized> Limited<'a, T> {
    /// Sets `is_cut` if something is omitted.
    pub(crate) fn new(value: &'a T, limits: &'a DataLimits, is_cut: &'a Cell<bool>) -> Self {
        let scope = Scope {
            limits,
            depth: limits.depth,
            wrappers: Levels::of_depth(limits.depth).wrappers,
            key_index: None,
            is_cut,
        };
        Self { value, scope }
    }
}

impl<T: Serialize + ?Sized> Serialize for Limited<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Limiter {
            inner: serializer,
            scope: self.scope,
        })
    }
}

impl Scope<'_> {
    fn nested(self) -> Self {
        Self {
            depth: self.depth - 1,
            key_index: None,
            ..self
        }
    }

    fn mark_cut(&self) {
        self.is_cut.set(true);
    }

    fn cut<D>(&self, text: D) -> CutText<D> {
        self.mark_cut();
        CutText {
            text,
            limit: self.limits.string_bytes,
            key_index: self.key_index,
        }
    }

    fn fits(&self, text: &str) -> bool {
        text.len() <= self.limits.string_bytes
    }
}

/// The serializer around the one that writes.
struct Limiter<'a, S> {
    inner: S,
    scope: Scope<'a>,
}

impl<'a, S: Serializer> Limiter<'a, S> {
    /// Opens an object or an array, or writes the mark instead.
    fn open<C>(
        self,
        open: impl FnOnce(S) -> Result<C, S::Error>,
    ) -> Result<Compound<'a, C, S::Ok>, S::Error> {
        if self.scope.depth == 0 {
            self.scope.mark_cut();
            let written = self.inner.serialize_str(MARK)?;
            return Ok(Compound::new(Err(written), self.scope));
        }
        let scope = self.scope.nested();
        Ok(Compound::new(Ok(open(self.inner)?), scope))
    }

    /// Writes what a wrapper contains.
    fn unwrap<T: Serialize + ?Sized>(mut self, value: &T) -> Result<S::Ok, S::Error> {
        match self.scope.wrappers.checked_sub(1) {
            Some(wrappers) => {
                self.scope.wrappers = wrappers;
                value.serialize(self)
            }
            None => {
                let mark = self.scope.cut("");
                self.inner.collect_str(&mark)
            }
        }
    }

    /// Writes a variant whose value is the mark.
    fn cut_variant<C>(self, variant: &'static str) -> Result<Compound<'a, C, S::Ok>, S::Error> {
        let scope = self.scope;
        scope.mark_cut();
        let written = self.serialize_newtype_variant("", 0, variant, MARK)?;
        Ok(Compound::new(Err(written), scope))
    }
}

macro_rules! forward {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Limiter<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    // In JSON, tuples are sequences and structs are maps. Opened without a length, they may turn out shorter.
    type SerializeSeq = Compound<'a, S::SerializeSeq, S::Ok>;
    type SerializeTuple = Compound<'a, S::SerializeSeq, S::Ok>;
    type SerializeTupleStruct = Compound<'a, S::SerializeSeq, S::Ok>;
    type SerializeTupleVariant = Compound<'a, S::SerializeTupleVariant, S::Ok>;
    type SerializeMap = Compound<'a, S::SerializeMap, S::Ok>;
    type SerializeStruct = Struct<'a, S>;
    type SerializeStructVariant = Compound<'a, S::SerializeStructVariant, S::Ok>;

    forward! {
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
        if self.scope.fits(text) {
            return self.inner.serialize_str(text);
        }
        let text = self.scope.cut(text);
        self.inner.collect_str(&text)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, text: &T) -> Result<S::Ok, S::Error> {
        if !is_longer(&text, self.scope.limits.string_bytes) {
            return self.inner.collect_str(text);
        }
        let text = self.scope.cut(text);
        self.inner.collect_str(&text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<S::Ok, S::Error> {
        if self.scope.depth > 0 && bytes.len() <= self.scope.limits.fields {
            return self.inner.serialize_bytes(bytes);
        }
        self.collect_seq(bytes)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.unwrap(value)
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
        self.unwrap(value)
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

    fn serialize_seq(mut self, _: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        if self.scope.depth == self.scope.limits.depth {
            // Data that are an array become the value of an object.
            self.scope.depth -= 1;
        }
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
        if self.scope.depth == 1 {
            return self.cut_variant(variant);
        }
        let array = self.open(|inner| inner.serialize_tuple_variant(name, index, variant, len))?;
        Ok(array.nested())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.open(|inner| inner.serialize_map(None))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        #[cfg(feature = "std")]
        match name {
            NUMBER => return Ok(Struct::Number(self.inner.serialize_struct(name, len)?)),
            RAW => {
                return Ok(Struct::Raw {
                    serializer: self,
                    json: None,
                });
            }
            _ => {}
        }
        let _ = (name, len);
        self.serialize_map(None).map(Struct::Object)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        if self.scope.depth == 1 {
            return self.cut_variant(variant);
        }
        let object =
            self.open(|inner| inner.serialize_struct_variant(name, index, variant, len))?;
        Ok(object.nested())
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
