//! The protobuf encoding: `opentelemetry.proto.collector.logs.v1`, version 1.

use super::form::{EntryMark, Form, Mark};
use super::json::{Malformed, RawStr};
use alloc::vec::Vec;
use core::ops::Range;

/// The bytes of messages in protobuf's wire format.
#[derive(Default)]
pub(super) struct Protobuf(pub(super) Vec<u8>);

/// Wire type 2, a length and that many bytes.
const fn bytes_tag(field: u8) -> u8 {
    field << 3 | 2
}

const fn fixed64_tag(field: u8) -> u8 {
    field << 3 | 1
}

const fn varint_tag(field: u8) -> u8 {
    field << 3
}

/// Fields of the messages, as `logs.proto` and `common.proto` number them.
mod field {
    pub(super) const ANY_STRING: u8 = 1;
    pub(super) const ANY_BOOL: u8 = 2;
    pub(super) const ANY_INT: u8 = 3;
    pub(super) const ANY_DOUBLE: u8 = 4;
    pub(super) const ANY_ARRAY: u8 = 5;
    pub(super) const ANY_MAP: u8 = 6;
    pub(super) const KEY: u8 = 1;
    pub(super) const VALUE: u8 = 2;
    /// Of an array or a map.
    pub(super) const ITEMS: u8 = 1;
    pub(super) const TIME: u8 = 1;
    pub(super) const SEVERITY_NUMBER: u8 = 2;
    pub(super) const SEVERITY_TEXT: u8 = 3;
    pub(super) const BODY: u8 = 5;
    pub(super) const ATTRIBUTES: u8 = 6;
    pub(super) const TRACE_ID: u8 = 9;
    pub(super) const SPAN_ID: u8 = 10;
    pub(super) const OBSERVED_TIME: u8 = 11;
    pub(super) const EVENT_NAME: u8 = 12;
    /// Of the messages around the records.
    pub(super) const RECORDS: u8 = 2;
    pub(super) const FIRST: u8 = 1;
    pub(super) const SECOND: u8 = 2;
}

impl Protobuf {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Begins a field whose length is not known yet: one byte is left for it.
    #[inline]
    fn begin(&mut self, field: u8) -> Mark {
        self.0.extend_from_slice(&[bytes_tag(field), 0]);
        Mark(self.0.len())
    }

    /// Writes the length of what was written since the mark. Where it takes more than a byte, that moves.
    #[inline]
    fn end(&mut self, Mark(start): Mark) {
        let len = self.0.len() - start;
        if let (0..0x80, Some(byte)) = (len, self.0.get_mut(start - 1)) {
            *byte = len as u8;
        } else {
            self.set_len(start - 1..start, len);
        }
    }

    /// Writes a length where room was left for another number of bytes.
    #[cold]
    fn set_len(&mut self, room: Range<usize>, len: usize) {
        let (varint, used) = encoded(len as u64);
        let varint = varint.get(..used).unwrap_or_default();
        self.0.splice(room, varint.iter().copied());
    }

    #[inline]
    fn string_field(&mut self, field: u8, text: &str) {
        if text.len() < 0x80 {
            let head = [bytes_tag(field), text.len() as u8];
            self.0.extend_from_slice(&head);
        } else {
            self.0.push(bytes_tag(field));
            self.varint(text.len() as u64);
        }
        self.0.extend_from_slice(text.as_bytes());
    }

    #[inline]
    fn raw_string_field(&mut self, field: u8, text: RawStr<'_>) -> Result<(), Malformed> {
        if let Some(text) = text.as_plain() {
            self.string_field(field, text);
            return Ok(());
        }
        let mark = self.begin(field);
        text.decode(|piece| self.0.extend_from_slice(piece.as_bytes()))?;
        self.end(mark);
        Ok(())
    }

    #[inline]
    fn fixed64(&mut self, field: u8, value: u64) {
        let mut bytes = [fixed64_tag(field); 9];
        let [_, number @ ..] = &mut bytes;
        *number = value.to_le_bytes();
        self.0.extend_from_slice(&bytes);
    }

    fn id(&mut self, field: u8, hex: Option<&str>) {
        let Some(hex) = hex else { return };
        self.0.push(bytes_tag(field));
        self.varint(hex.len() as u64 / 2);
        for pair in hex.as_bytes().chunks(2) {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
            let pair = pair.iter().fold(0, |value, &byte| value << 4 | digit(byte));
            self.0.push(pair);
        }
    }
}

/// A varint and its length.
fn encoded(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut used = 0;
    for byte in &mut bytes {
        used += 1;
        *byte = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    (bytes, used)
}

/// Appends `ExportLogsServiceRequest` up to its records: `resource` is a list of attributes, `records` the size of what
/// follows.
pub(super) fn write_head(resource: &[u8], scope: (&str, &str), records: usize, out: &mut Vec<u8>) {
    let message = |field: u8, len: usize, out: &mut Vec<u8>| {
        let (varint, used) = encoded(len as u64);
        out.push(bytes_tag(field));
        out.extend_from_slice(varint.get(..used).unwrap_or_default());
    };
    let size = |len: usize| 1 + encoded(len as u64).1 + len;
    let scope_size = size(scope.0.len()) + size(scope.1.len());
    let scope_logs = size(scope_size) + records;
    let resource_logs = size(resource.len()) + size(scope_logs);
    message(field::FIRST, resource_logs, out);
    message(field::FIRST, resource.len(), out);
    out.extend_from_slice(resource);
    message(field::SECOND, scope_logs, out);
    message(field::FIRST, scope_size, out);
    for (number, text) in [(field::FIRST, scope.0), (field::SECOND, scope.1)] {
        message(number, text.len(), out);
        out.extend_from_slice(text.as_bytes());
    }
}

impl Form for Protobuf {
    const HAS_NULL: bool = true;

    #[inline]
    fn entry(
        &mut self,
        is_attribute: bool,
        prefix: &str,
        key: RawStr<'_>,
    ) -> Result<EntryMark, Malformed> {
        let entry = self.begin(if is_attribute {
            field::ATTRIBUTES
        } else {
            field::ITEMS
        });
        match key.as_plain() {
            Some(key) if prefix.is_empty() => self.string_field(field::KEY, key),
            _ => {
                let name = self.begin(field::KEY);
                self.0.extend_from_slice(prefix.as_bytes());
                key.decode(|piece| self.0.extend_from_slice(piece.as_bytes()))?;
                self.end(name);
            }
        }
        let value = self.begin(field::VALUE);
        Ok(EntryMark { entry, value })
    }

    #[inline]
    fn end_entry(&mut self, mark: EntryMark) {
        self.end(mark.value);
        self.end(mark.entry);
    }

    fn element(&mut self) -> Mark {
        self.begin(field::ITEMS)
    }

    fn end_element(&mut self, mark: Mark) {
        self.end(mark);
    }

    fn map(&mut self) -> Mark {
        self.begin(field::ANY_MAP)
    }

    fn end_map(&mut self, mark: Mark) {
        self.end(mark);
    }

    fn array(&mut self) -> Mark {
        self.begin(field::ANY_ARRAY)
    }

    fn end_array(&mut self, mark: Mark) {
        self.end(mark);
    }

    fn null(&mut self) {}

    fn bool(&mut self, value: bool) {
        self.0
            .extend_from_slice(&[varint_tag(field::ANY_BOOL), u8::from(value)]);
    }

    fn int(&mut self, value: i64) {
        self.0.push(varint_tag(field::ANY_INT));
        self.varint(value.cast_unsigned());
    }

    fn double(&mut self, value: f64) {
        self.fixed64(field::ANY_DOUBLE, value.to_bits());
    }

    fn str(&mut self, value: RawStr<'_>) -> Result<(), Malformed> {
        self.raw_string_field(field::ANY_STRING, value)
    }

    fn text(&mut self, value: &str) {
        self.string_field(field::ANY_STRING, value);
    }

    fn record(&mut self) -> Mark {
        // Nearly every length takes two bytes.
        self.0.extend_from_slice(&[bytes_tag(field::RECORDS), 0, 0]);
        Mark(self.0.len())
    }

    fn severity(&mut self, number: u8, text: &str) {
        self.0
            .extend_from_slice(&[varint_tag(field::SEVERITY_NUMBER), number]);
        self.string_field(field::SEVERITY_TEXT, text);
    }

    fn event_name(&mut self, name: RawStr<'_>) -> Result<(), Malformed> {
        self.raw_string_field(field::EVENT_NAME, name)?;
        let body = self.begin(field::BODY);
        self.str(name)?;
        self.end(body);
        Ok(())
    }

    fn attributes(&mut self) {}

    fn end_attributes(&mut self) {}

    fn trace(&mut self, trace_id: Option<&str>, span_id: Option<&str>) {
        self.id(field::TRACE_ID, trace_id);
        self.id(field::SPAN_ID, span_id);
    }

    fn time(&mut self, nanos: u64) {
        self.fixed64(field::TIME, nanos);
        self.fixed64(field::OBSERVED_TIME, nanos);
    }

    fn end_record(&mut self, Mark(start): Mark) {
        let len = self.0.len() - start;
        match (len, self.0.get_mut(start - 2..start)) {
            (0x80..0x4000, Some([low, high])) => {
                [*low, *high] = [len as u8 | 0x80, (len >> 7) as u8]
            }
            _ => self.set_len(start - 2..start, len),
        }
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_as_many_bytes_as_it_needs() {
        for (len, prefix) in [
            (0, &[0x0a, 0][..]),
            (127, &[0x0a, 127]),
            (128, &[0x0a, 0x80, 1]),
            (16_383, &[0x0a, 0xff, 0x7f]),
            (16_384, &[0x0a, 0x80, 0x80, 1]),
        ] {
            let mut out = Protobuf::default();
            let mark = out.begin(1);
            out.0.resize(out.0.len() + len, 7);
            out.end(mark);
            assert!(out.0.starts_with(prefix), "{len}");
            assert_eq!(out.0.len(), prefix.len() + len);
        }
        for (len, prefix) in [
            (0, &[0x12, 0][..]),
            (127, &[0x12, 127]),
            (128, &[0x12, 0x80, 1]),
            (300, &[0x12, 0xac, 2]),
            (16_383, &[0x12, 0xff, 0x7f]),
            (16_384, &[0x12, 0x80, 0x80, 1]),
        ] {
            let mut out = Protobuf::default();
            let mark = out.record();
            out.0.resize(out.0.len() + len, 7);
            out.end_record(mark);
            assert!(out.0.starts_with(prefix), "{len}");
            assert_eq!(out.0.len(), prefix.len() + len);
        }
    }
}
