//! The JSON encoding: protobuf's mapping to JSON, with OTLP's exceptions (ids in hexadecimal, enums as numbers).

use super::form::{EntryMark, Form, Mark};
use super::json::{Malformed, RawStr};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

/// The text of messages as JSON.
///
/// Each entry and element ends in a comma, and the bracket behind the last one takes its place.
#[derive(Default)]
pub(super) struct Json(pub(super) Vec<u8>);

impl Json {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// What stands in the text between quotes is JSON already.
    fn raw_str(&mut self, text: RawStr<'_>) {
        self.0.push(b'"');
        self.raw(text.text);
        self.0.push(b'"');
    }

    fn quoted(&mut self, text: &str) {
        self.0.push(b'"');
        let _ = fmt::write(self, format_args!("{}", Escaped(text)));
        self.0.push(b'"');
    }

    fn close(&mut self, brackets: &str) {
        if self.0.last() == Some(&b',') {
            self.0.pop();
        }
        self.raw(brackets);
    }

    const fn here(&self) -> Mark {
        Mark(self.0.len())
    }
}

impl fmt::Write for Json {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.raw(text);
        Ok(())
    }
}

/// A text with JSON's escapes.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\0'..' ' => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Appends the request up to its records: `resource` is a list of attributes that ends in a comma.
pub(super) fn write_head(resource: &[u8], scope: (&str, &str), out: &mut Vec<u8>) {
    let mut json = Json(core::mem::take(out));
    json.raw(r#"{"resourceLogs":[{"resource":{"attributes":["#);
    json.0.extend_from_slice(resource);
    json.close(r#"]},"scopeLogs":[{"scope":{"name":"#);
    json.quoted(scope.0);
    json.raw(r#","version":"#);
    json.quoted(scope.1);
    json.raw(r#"},"logRecords":["#);
    *out = json.0;
}

/// Ends the request, behind its records.
pub(super) fn write_tail(out: &mut Vec<u8>) {
    let mut json = Json(core::mem::take(out));
    json.close("]}]}]}");
    *out = json.0;
}

impl Form for Json {
    const HAS_NULL: bool = false;

    fn entry(
        &mut self,
        _is_attribute: bool,
        prefix: &str,
        key: RawStr<'_>,
    ) -> Result<EntryMark, Malformed> {
        let entry = self.here();
        self.raw("{\"key\":\"");
        self.raw(prefix);
        self.raw(key.text);
        self.raw("\",\"value\":");
        let value = self.here();
        Ok(EntryMark { entry, value })
    }

    fn end_entry(&mut self, _mark: EntryMark) {
        self.raw("},");
    }

    fn element(&mut self) -> Mark {
        self.here()
    }

    fn end_element(&mut self, _mark: Mark) {
        self.0.push(b',');
    }

    fn map(&mut self) -> Mark {
        self.raw(r#"{"kvlistValue":{"values":["#);
        self.here()
    }

    fn end_map(&mut self, _mark: Mark) {
        self.close("]}}");
    }

    fn array(&mut self) -> Mark {
        self.raw(r#"{"arrayValue":{"values":["#);
        self.here()
    }

    fn end_array(&mut self, _mark: Mark) {
        self.close("]}}");
    }

    fn null(&mut self) {
        self.raw("{}");
    }

    fn bool(&mut self, value: bool) {
        let _ = write!(self, "{{\"boolValue\":{value}}}");
    }

    fn int(&mut self, value: i64) {
        let _ = write!(self, "{{\"intValue\":\"{value}\"}}");
    }

    fn double(&mut self, value: f64) {
        // The shortest text that is read back as the same number, also where that has 300 digits.
        let _ = write!(self, "{{\"doubleValue\":{value:?}}}");
    }

    fn str(&mut self, value: RawStr<'_>) -> Result<(), Malformed> {
        self.raw("{\"stringValue\":");
        self.raw_str(value);
        self.0.push(b'}');
        Ok(())
    }

    fn text(&mut self, value: &str) {
        self.raw("{\"stringValue\":");
        self.quoted(value);
        self.0.push(b'}');
    }

    fn record(&mut self) -> Mark {
        self.0.push(b'{');
        self.here()
    }

    fn severity(&mut self, number: u8, text: &str) {
        let _ = write!(
            self,
            r#""severityNumber":{number},"severityText":"{text}","#
        );
    }

    fn event_name(&mut self, name: RawStr<'_>) -> Result<(), Malformed> {
        self.raw("\"eventName\":");
        self.raw_str(name);
        self.raw(",\"body\":");
        self.str(name)?;
        self.0.push(b',');
        Ok(())
    }

    fn attributes(&mut self) {
        self.raw("\"attributes\":[");
    }

    fn end_attributes(&mut self) {
        self.close("],");
    }

    fn trace(&mut self, trace_id: Option<&str>, span_id: Option<&str>) {
        for (name, id) in [("traceId", trace_id), ("spanId", span_id)] {
            if let Some(id) = id {
                let _ = write!(self, "\"{name}\":\"{id}\",");
            }
        }
    }

    fn time(&mut self, nanos: u64) {
        let _ = write!(
            self,
            r#""timeUnixNano":"{nanos}","observedTimeUnixNano":"{nanos}","#
        );
    }

    fn end_record(&mut self, _mark: Mark) {
        self.close("},");
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}
