//! Protobuf's wire format: the fields of a message, read in place and written.

use alloc::vec::Vec;
use core::fmt;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const CUT_SHORT: Malformed = Malformed("the message ends within a field");

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Field<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a text, message or tensor has another wire type")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(super) fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(Malformed("a number has another wire type")),
        }
    }

    pub(super) fn double(self) -> Result<f64, Malformed> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(Malformed("a number has another wire type")),
        }
    }
}

/// Reads the fields of a message, each with its number. Ends after the first error.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| CUT_SHORT)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(CUT_SHORT)?;
            self.0 = rest;
            // Of the tenth byte only the lowest bit fits.
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number has more than ten bytes"))
    }

    fn field(&mut self) -> Result<(u64, Field<'a>), Malformed> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| CUT_SHORT)?;
                Field::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                let bytes = self.take(4)?.try_into().map_err(|_| CUT_SHORT)?;
                Field::Fixed32(u32::from_le_bytes(bytes))
            }
            _ => return Err(Malformed("a field has an unknown wire type")),
        };
        match tag >> 3 {
            0 => Err(Malformed("a field has the number 0")),
            number => Ok((number, value)),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The items of a repeated number, which are packed into one field or have one each.
pub(super) fn repeated(field: Field<'_>, out: &mut Vec<i64>) -> Result<(), Malformed> {
    let Field::Bytes(bytes) = field else {
        out.push(field.varint()?.cast_signed());
        return Ok(());
    };
    let mut packed = Fields(bytes);
    while !packed.0.is_empty() {
        out.push(packed.varint()?.cast_signed());
    }
    Ok(())
}

/// Writes a message.
#[derive(Default)]
pub(super) struct Message(pub(super) Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn number(&mut self, field: u8, value: u64) {
        self.0.push(field << 3);
        self.varint(value);
    }

    pub(super) fn double(&mut self, field: u8, value: f64) {
        self.0.push(field << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, field: u8, bytes: &[u8]) {
        self.0.push(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, field: u8, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    pub(super) fn message(&mut self, field: u8, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// A repeated number.
    pub(super) fn packed(&mut self, field: u8, values: &[u64]) {
        if values.is_empty() {
            return;
        }
        let mut packed = Self::default();
        for value in values {
            packed.varint(*value);
        }
        self.message(field, &packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::default();
        message.number(1, u64::MAX);
        message.double(2, -0.5);
        message.text(3, "ä");
        message.packed(4, &[1, 300]);
        let fields: Result<Vec<_>, _> = Fields(&message.0).collect();
        let fields = fields.unwrap();
        assert_eq!(fields[0], (1, Field::Varint(u64::MAX)));
        assert_eq!(fields[1].1.double(), Ok(-0.5));
        assert_eq!(fields[2].1.text(), Ok("ä"));
        let mut numbers = Vec::new();
        repeated(fields[3].1, &mut numbers).unwrap();
        repeated(Field::Varint(7), &mut numbers).unwrap();
        assert_eq!(numbers, [1, 300, 7]);
    }

    #[test]
    fn a_message_that_is_cut_short_or_malformed_is_an_error_and_no_panic() {
        let mut message = Message::default();
        message.number(1, 300);
        message.double(2, 1.0);
        message.bytes(3, b"abc");
        let whole = Fields(&message.0).count();
        for len in 1..message.0.len() {
            let fields: Vec<_> = Fields(&message.0[..len]).collect();
            let is_boundary = fields.iter().all(Result::is_ok);
            assert!(fields.len() <= whole && (!is_boundary || fields.len() < whole));
        }
        for bytes in [
            &[0xff; 11][..],
            &[0x0b],
            &[0x00, 0x01],
            &[
                0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
        ] {
            let last = Fields(bytes).last();
            assert!(last.is_some_and(|field| field.is_err()), "{bytes:?}");
        }
    }
}
