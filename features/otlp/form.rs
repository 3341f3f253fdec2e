//! What both encodings of OTLP can write: the seam between the mapping and the bytes.

use super::json::{Malformed, RawStr};
use alloc::vec::Vec;

/// Where something that is not complete yet begins in the output.
#[derive(Clone, Copy)]
pub(super) struct Mark(pub(super) usize);

/// Where an entry begins, and its value.
#[derive(Clone, Copy)]
pub(super) struct EntryMark {
    pub(super) entry: Mark,
    pub(super) value: Mark,
}

/// An encoding of OTLP's messages.
///
/// A list of attributes and the entries of a map are the same thing, and are written by [`entry`](Self::entry) to
/// [`end_entry`](Self::end_entry); between them stands one value.
pub(super) trait Form {
    /// Whether null is a value of its own. If not, what is null is left out: a collector may refuse a whole request for one empty
    /// value.
    const HAS_NULL: bool;

    /// Begins an entry, of a record's attributes, if `is_attribute`, or of a map, and writes its key: a prefix, and
    /// what the key in the event stands for.
    fn entry(
        &mut self,
        is_attribute: bool,
        prefix: &str,
        key: RawStr<'_>,
    ) -> Result<EntryMark, Malformed>;
    /// Ends an entry.
    fn end_entry(&mut self, mark: EntryMark);

    /// Begins an element of an array.
    fn element(&mut self) -> Mark;
    /// Ends an element.
    fn end_element(&mut self, mark: Mark);

    /// Begins a map.
    fn map(&mut self) -> Mark;
    /// Ends a map.
    fn end_map(&mut self, mark: Mark);
    /// Begins an array.
    fn array(&mut self) -> Mark;
    /// Ends an array.
    fn end_array(&mut self, mark: Mark);

    /// Writes an empty value.
    fn null(&mut self);
    /// Writes a value.
    fn bool(&mut self, value: bool);
    /// Writes a value.
    fn int(&mut self, value: i64);
    /// Writes a value.
    fn double(&mut self, value: f64);
    /// Writes a value.
    fn str(&mut self, value: RawStr<'_>) -> Result<(), Malformed>;
    /// Writes a value that is plain text.
    fn text(&mut self, value: &str);

    /// Begins a log record, of which the severity comes next, and then what is behind it here.
    fn record(&mut self) -> Mark;
    /// Writes a record's severity.
    fn severity(&mut self, number: u8, text: &str);
    /// Writes the name of the event, which is also the record's body.
    fn event_name(&mut self, name: RawStr<'_>) -> Result<(), Malformed>;
    /// Begins the record's attributes.
    fn attributes(&mut self);
    /// Ends the record's attributes.
    fn end_attributes(&mut self);
    /// Writes the ids of the trace and the span, in hexadecimal.
    fn trace(&mut self, trace_id: Option<&str>, span_id: Option<&str>);
    /// Writes a record's time, in nanoseconds since the Unix epoch, which is also when it was observed. An event has it
    /// behind its data.
    fn time(&mut self, nanos: u64);
    /// Ends the record.
    fn end_record(&mut self, mark: Mark);

    /// What was written.
    fn bytes(&mut self) -> &mut Vec<u8>;
}
