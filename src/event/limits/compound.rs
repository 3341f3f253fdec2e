//! Objects and arrays with a limited number of fields.

use super::{Limited, MARK, Scope};
#[cfg(feature = "std")]
use crate::event::raw;
use crate::text::Text;
#[cfg(feature = "std")]
use serde::ser::Error as _;
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// An object or an array that counts its fields.
pub(super) struct Compound<'a, C, Ok> {
    /// An `Err` is the result of the mark that was written instead.
    inner: Result<C, Ok>,
    scope: Scope<'a>,
    count: usize,
    omitted: usize,
}

impl<'a, C, Ok> Compound<'a, C, Ok> {
    pub(super) const fn new(inner: Result<C, Ok>, scope: Scope<'a>) -> Self {
        Self {
            inner,
            scope,
            count: 0,
            omitted: 0,
        }
    }

    /// The compound and the next field to write to it; `None` if there are too many.
    fn next<'b, T: ?Sized>(&'b mut self, value: &'b T) -> Option<(&'b mut C, Limited<'b, T>)>
    where
        'a: 'b,
    {
        let inner = self.inner.as_mut().ok()?;
        if self.count == self.scope.limits.fields {
            self.scope.mark_cut();
            self.omitted += 1;
            return None;
        }
        self.count += 1;
        let scope = self.scope;
        Some((inner, Limited { value, scope }))
    }

    /// Applies the limits one level deeper, as for the contents of a variant.
    pub(super) fn nested(mut self) -> Self {
        if self.inner.is_ok() {
            self.scope = self.scope.nested();
        }
        self
    }

    /// The last element of an array that has omitted some.
    fn omitted_mark(&self) -> Option<Text<32>> {
        (self.omitted > 0).then(|| Text::new(format_args!("… ({} more)", self.omitted)))
    }
}

/// Arrays: one more element says how many are omitted.
macro_rules! array {
    ($compound:ident, $method:ident) => {
        impl<C: $compound> $compound for Compound<'_, C, C::Ok> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                match self.next(value) {
                    Some((array, value)) => array.$method(&value),
                    None => Ok(()),
                }
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                let mark = self.omitted_mark();
                match (self.inner, mark) {
                    (Ok(mut array), Some(mark)) => {
                        array.$method(mark.as_str())?;
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

impl<C: SerializeSeq> SerializeTuple for Compound<'_, C, C::Ok> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        SerializeSeq::end(self)
    }
}

impl<C: SerializeSeq> SerializeTupleStruct for Compound<'_, C, C::Ok> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        SerializeSeq::end(self)
    }
}

/// Objects: one more field says how many are omitted.
impl<C: SerializeMap> SerializeMap for Compound<'_, C, C::Ok> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        let key_index = Some(self.count);
        match self.next(key) {
            Some((object, mut key)) => {
                key.scope.key_index = key_index;
                object.serialize_key(&key)
            }
            None => Ok(()),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let scope = self.scope;
        match &mut self.inner {
            // Once a key has been omitted, so is everything after it.
            Ok(object) if self.omitted == 0 => object.serialize_value(&Limited { value, scope }),
            _ => Ok(()),
        }
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        match self.inner {
            Ok(mut object) => {
                if self.omitted > 0 {
                    object.serialize_entry(MARK, &self.omitted)?;
                }
                object.end()
            }
            Err(done) => Ok(done),
        }
    }
}

impl<C: SerializeStructVariant> SerializeStructVariant for Compound<'_, C, C::Ok> {
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
                if self.omitted > 0 {
                    object.serialize_field(MARK, &self.omitted)?;
                }
                object.end()
            }
            Err(done) => Ok(done),
        }
    }
}

/// A struct: an object, except for the two that serde_json uses internally.
pub(super) enum Struct<'a, S: Serializer> {
    Object(Compound<'a, S::SerializeMap, S::Ok>),
    #[cfg(feature = "std")]
    Number(S::SerializeStruct),
    /// Raw JSON, which is read so that the limits apply to it.
    #[cfg(feature = "std")]
    Raw {
        serializer: super::Limiter<'a, S>,
        json: Option<alloc::string::String>,
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
            #[cfg(feature = "std")]
            Self::Number(number) => number.serialize_field(key, field),
            #[cfg(feature = "std")]
            Self::Raw { json, .. } => {
                let text = crate::event::json::captured(field);
                *json = Some(text.map_err(S::Error::custom)?);
                Ok(())
            }
        }
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(object) => SerializeMap::end(object),
            #[cfg(feature = "std")]
            Self::Number(number) => number.end(),
            #[cfg(feature = "std")]
            Self::Raw { serializer, json } => {
                let json = json.unwrap_or_default();
                match raw::check(&json) {
                    Ok(fragment) if fragment.is_number() => {
                        raw::AsIs(fragment.json).serialize(serializer.inner)
                    }
                    Ok(fragment) => raw::Checked(fragment.json).serialize(serializer),
                    Err(reason) => Err(S::Error::custom(reason)),
                }
            }
        }
    }
}
