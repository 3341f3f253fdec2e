//! Objects and arrays, which know what may come next.

use super::JsonError;
use super::key::Key;
use super::output::Output;
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};

/// An object or an array.
pub(crate) struct Compound<'a, 'b> {
    out: &'a mut Output<'b>,
    next: u8,
}

/// What comes next: the byte before a key or an element, which is the bracket at first and a comma afterwards; the colon
/// after a key; or, while a key or a value is being written, nothing. There it stays if that fails.
const COMMA: u8 = b',';
const COLON: u8 = b':';
const NOTHING: u8 = 0;

impl<'a, 'b> Compound<'a, 'b> {
    #[inline]
    pub(super) fn new(out: &'a mut Output<'b>, bracket: u8) -> Self {
        Self { out, next: bracket }
    }

    /// The byte before a key or an element.
    #[inline]
    fn before(&mut self) -> Result<u8, JsonError> {
        match core::mem::replace(&mut self.next, NOTHING) {
            COLON | NOTHING => Err(JsonError::BROKEN),
            before => Ok(before),
        }
    }

    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        let before = self.before()?;
        self.out.put(&[before])?;
        value.serialize(&mut *self.out)?;
        self.next = COMMA;
        Ok(())
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), JsonError> {
        let before = self.before()?;
        self.out.put_key(before, key)?;
        value.serialize(&mut *self.out)?;
        self.next = COMMA;
        Ok(())
    }

    /// Writes the closing bracket; both if there is nothing between them.
    #[inline]
    fn close(self, brackets: &[u8; 2]) -> Result<&'a mut Output<'b>, JsonError> {
        let close: &[u8] = match self.next {
            COMMA => &brackets[1..],
            COLON | NOTHING => return Err(JsonError::BROKEN),
            _ => brackets,
        };
        self.out.close();
        self.out.put(close)?;
        Ok(self.out)
    }
}

macro_rules! array {
    ($trait:ident, $method:ident) => {
        impl $trait for Compound<'_, '_> {
            type Ok = ();
            type Error = JsonError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
                self.element(value)
            }

            #[inline]
            fn end(self) -> Result<(), JsonError> {
                self.close(b"[]").map(drop)
            }
        }
    };
}

array!(SerializeSeq, serialize_element);
array!(SerializeTuple, serialize_element);
array!(SerializeTupleStruct, serialize_field);

impl SerializeTupleVariant for Compound<'_, '_> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        self.element(value)
    }

    fn end(self) -> Result<(), JsonError> {
        self.close(b"[]")?.end_variant()
    }
}

impl SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), JsonError> {
        let before = self.before()?;
        self.out.put(&[before])?;
        key.serialize(Key(&mut *self.out))?;
        self.next = COLON;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        let COLON = core::mem::replace(&mut self.next, NOTHING) else {
            return Err(JsonError::BROKEN);
        };
        self.out.put(&[COLON])?;
        value.serialize(&mut *self.out)?;
        self.next = COMMA;
        Ok(())
    }

    #[inline]
    fn end(self) -> Result<(), JsonError> {
        self.close(b"{}").map(drop)
    }
}

impl SerializeStructVariant for Compound<'_, '_> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        self.field(key, value)
    }

    fn end(self) -> Result<(), JsonError> {
        self.close(b"{}")?.end_variant()
    }
}

/// A struct: an object, except for the two that serde_json uses internally.
pub(crate) enum Struct<'a, 'b> {
    Object(Compound<'a, 'b>),
    /// Raw JSON or an arbitrary-precision number, whose text is the struct's only field.
    #[cfg(feature = "std")]
    Raw {
        /// `None` once it is written, or has failed.
        out: Option<&'a mut Output<'b>>,
        name: &'static str,
        is_written: bool,
    },
}

#[cfg(feature = "std")]
impl<'a, 'b> Struct<'a, 'b> {
    pub(super) fn raw(out: &'a mut Output<'b>, name: &'static str) -> Self {
        Self::Raw {
            out: Some(out),
            name,
            is_written: false,
        }
    }
}

impl SerializeStruct for Struct<'_, '_> {
    type Ok = ();
    type Error = JsonError;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        match self {
            Self::Object(object) => object.field(key, value),
            #[cfg(feature = "std")]
            Self::Raw {
                out,
                name,
                is_written,
            } => {
                let out = out.take().filter(|_| key == *name);
                let out = out.ok_or(JsonError::BROKEN)?;
                let json = super::text::captured(value)?;
                out.put_raw(name, &json)?;
                *is_written = true;
                Ok(())
            }
        }
    }

    #[inline]
    fn end(self) -> Result<(), JsonError> {
        match self {
            Self::Object(object) => SerializeMap::end(object),
            #[cfg(feature = "std")]
            Self::Raw {
                is_written: true, ..
            } => Ok(()),
            #[cfg(feature = "std")]
            Self::Raw { .. } => Err(JsonError::BROKEN),
        }
    }
}
