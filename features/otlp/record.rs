//! The mapping: what each member of an event becomes in a log record.

use super::event::Event;
use super::form::{Form, Mark};
use super::http_request;
use super::json::{Cursor, Malformed, RawStr, Token};
use super::text::Escaped;
use crate::event::Severity;
use alloc::borrow::Cow;
use alloc::string::{String, ToString as _};
use core::fmt::Write as _;
use std::collections::{HashMap, HashSet};

/// How deep values nest, an event's data itself included; what is deeper becomes its JSON, as text. Each level takes
/// three messages, or four levels of JSON, and collectors read no more than a hundred of those.
pub(super) const MAX_DEPTH: usize = 24;

/// Attributes of the record's own, and those that semantic conventions define.
const RESERVED: [&str; 8] = [
    "session.",
    "log.record.",
    "exception.",
    "tinkex.",
    "http.",
    "url.",
    "error.",
    "event.",
];

/// What stands before a member of the data that begins like one of [`RESERVED`].
const RENAMED: &str = "tinkex.data.";

/// Why an object could not be written.
enum Fault {
    Malformed,
    /// A key stands in an object twice. Attributes must not.
    Repeated,
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Appends the record of an event of this session.
pub(super) fn write_record<F: Form>(
    event: &Event<'_>,
    session: RawStr<'_>,
    out: &mut F,
) -> Result<(), Malformed> {
    with_unique_keys(out, |keys, out| {
        let record = out.record();
        write_fields(event, session, out)?;
        if let Some(data) = event.data {
            write_members(data, keys, Place::Record, out)?;
        }
        out.end_record(record);
        Ok(())
    })
}

/// Appends the members of an object as attributes of a resource that has those in `taken`.
pub(super) fn write_resource<F: Form>(
    data: &[u8],
    taken: &[&str],
    out: &mut F,
) -> Result<(), Malformed> {
    with_unique_keys(out, |keys, out| {
        write_members(data, keys, Place::Resource(taken), out)
    })
}

/// Appends one attribute of a resource.
pub(super) fn write_resource_attribute<F: Form>(
    name: &str,
    value: &str,
    out: &mut F,
) -> Result<(), Malformed> {
    let mut escaped = String::new();
    let _ = write!(escaped, "{}", Escaped(name));
    let mark = out.entry(false, "", RawStr::of_json(&escaped))?;
    out.text(value);
    out.end_entry(mark);
    Ok(())
}

/// Writes in the hope that no key is repeated, and if one is, once more with care.
fn with_unique_keys<F: Form>(
    out: &mut F,
    write: impl Fn(Keys, &mut F) -> Result<(), Fault>,
) -> Result<(), Malformed> {
    let start = out.bytes().len();
    let result = write(Keys::Checked, out).or_else(|fault| match fault {
        Fault::Repeated => {
            out.bytes().truncate(start);
            write(Keys::LastOfEach, out)
        }
        Fault::Malformed => Err(fault),
    });
    result.map_err(|_| {
        out.bytes().truncate(start);
        Malformed
    })
}

/// What is done about keys that an object has twice.
#[derive(Clone, Copy)]
enum Keys {
    /// They are a fault.
    Checked,
    /// The last counts, as to most readers of JSON.
    LastOfEach,
}

/// Everything but the event's data.
fn write_fields<F: Form>(
    event: &Event<'_>,
    session: RawStr<'_>,
    out: &mut F,
) -> Result<(), Malformed> {
    let severity = event.severity.unwrap_or_default();
    out.time(event.time);
    out.severity(severity_number(severity), severity.as_str());
    let name = match event.kind.map_or("", |kind| kind.text) {
        "SESSION_START" => RawStr::plain("session.start"),
        "SESSION_END" => RawStr::plain("session.end"),
        "UNHANDLED_EXCEPTION" => RawStr::plain("exception"),
        _ => event.name.or(event.kind).ok_or(Malformed)?,
    };
    out.event_name(name)?;
    let [trace_id, span_id] = event.data.map(trace_ids).transpose()?.unwrap_or_default();
    out.trace(trace_id, span_id);
    out.attributes();
    attribute(out, "session.id", |out| out.str(session))?;
    if let Some(id) = event.id {
        attribute(out, "log.record.uid", |out| out.str(id))?;
    }
    attribute(out, "tinkex.session.index", |out| {
        number(event.index, out);
        Ok(())
    })?;
    if let Some(seconds) = event.duration {
        attribute(out, "tinkex.session.duration", |out| {
            out.double(seconds);
            Ok(())
        })?;
    }
    for (name, text) in [
        ("exception.type", event.error_type),
        ("exception.message", event.error_message),
        ("exception.stacktrace", event.traceback),
    ] {
        if let Some(text) = text {
            attribute(out, name, |out| out.str(text))?;
        }
    }
    if let Some(data) = event.data {
        http_request::write_attributes(name.text, data, out)?;
    }
    Ok(())
}

/// Writes one attribute of the record's own.
pub(super) fn attribute<F: Form>(
    out: &mut F,
    name: &str,
    value: impl FnOnce(&mut F) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mark = out.entry(true, "", RawStr::plain(name))?;
    value(out)?;
    out.end_entry(mark);
    Ok(())
}

/// The ids of trace and span, if the data have them under these names, in the form that W3C gives them.
fn trace_ids(data: &[u8]) -> Result<[Option<&str>; 2], Malformed> {
    let mut ids = [None; 2];
    let mut cursor = Cursor::new(data);
    cursor.object()?;
    let mut is_first = true;
    while let Some(key) = cursor.key(is_first)? {
        is_first = false;
        let (slot, len) = match key.text {
            "trace_id" => (0, 32),
            "span_id" => (1, 16),
            _ => {
                cursor.value()?;
                continue;
            }
        };
        let value = cursor.value()?;
        let hex = str::from_utf8(value).ok().and_then(|text| {
            let text = text.strip_prefix('"')?.strip_suffix('"')?;
            let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            // All zeros mean that there is none.
            (text.len() == len && is_hex && text.bytes().any(|byte| byte != b'0')).then_some(text)
        });
        if let Some(id) = ids.get_mut(slot) {
            *id = hex;
        }
    }
    Ok(ids)
}

/// Writes the members of an object, each as an attribute of the record or the resource.
fn write_members<F: Form>(
    data: &[u8],
    keys: Keys,
    place: Place<'_>,
    out: &mut F,
) -> Result<(), Fault> {
    let mut cursor = Cursor::new(data);
    cursor.object()?;
    write_object(&mut cursor, keys, place, 1, out)
}

/// What the members of an object become.
#[derive(Clone, Copy)]
enum Place<'a> {
    Record,
    /// With the names of the attributes that it has.
    Resource(&'a [&'a str]),
    Map,
}

impl Place<'_> {
    /// Whether a member needs another name here.
    fn is_taken(&self, key: RawStr<'_>) -> Result<bool, Malformed> {
        Ok(match self {
            Self::Record => {
                let key = key.decoded()?;
                RESERVED.iter().any(|prefix| key.starts_with(prefix))
            }
            Self::Resource(taken) => taken.contains(&&*key.decoded()?),
            Self::Map => false,
        })
    }
}

/// Writes the members of an object, behind whose brace the cursor is.
fn write_object<F: Form>(
    cursor: &mut Cursor<'_>,
    keys: Keys,
    place: Place<'_>,
    depth: usize,
    out: &mut F,
) -> Result<(), Fault> {
    let mut seen = Seen::of(keys, *cursor)?;
    let mut at = 0;
    while let Some(key) = cursor.key(at == 0)? {
        let is_written = seen.is_written(key, at)?;
        at += 1;
        if !is_written || (!F::HAS_NULL && cursor.is_null()) {
            cursor.value()?;
            continue;
        }
        let prefix = if place.is_taken(key)? { RENAMED } else { "" };
        let mark = out.entry(matches!(place, Place::Record), prefix, key)?;
        write_value(cursor, keys, depth, out)?;
        out.end_entry(mark);
    }
    Ok(())
}

/// Writes the value that is next, inside `depth` others.
fn write_value<F: Form>(
    cursor: &mut Cursor<'_>,
    keys: Keys,
    depth: usize,
    out: &mut F,
) -> Result<(), Fault> {
    let before = *cursor;
    match cursor.token()? {
        Token::Null => out.null(),
        Token::Bool(value) => out.bool(value),
        Token::Number(digits) => write_number(digits, out),
        Token::Str(text) => out.str(text)?,
        Token::Object | Token::Array if depth >= MAX_DEPTH => {
            *cursor = before;
            let json = cursor.value()?;
            out.text(str::from_utf8(json).map_err(|_| Fault::Malformed)?);
        }
        Token::Object => {
            let map = out.map();
            write_object(cursor, keys, Place::Map, depth + 1, out)?;
            out.end_map(map);
        }
        Token::Array => {
            let array: Mark = out.array();
            let mut is_first = true;
            while cursor.element(is_first)? {
                is_first = false;
                if !F::HAS_NULL && cursor.is_null() {
                    cursor.value()?;
                    continue;
                }
                let element = out.element();
                write_value(cursor, keys, depth + 1, out)?;
                out.end_element(element);
            }
            out.end_array(array);
        }
    }
    Ok(())
}

/// Integers beyond 64 bits with a sign are text: every digit of them is kept.
fn write_number<F: Form>(digits: &str, out: &mut F) {
    let is_integer = !digits.contains(['.', 'e', 'E']);
    match (is_integer, digits.parse::<i64>(), digits.parse::<f64>()) {
        (true, Ok(value), _) => out.int(value),
        (false, _, Ok(value)) if value.is_finite() => out.double(value),
        _ => out.text(digits),
    }
}

/// Writes an unsigned number, in the same way.
fn number<F: Form>(value: u64, out: &mut F) {
    match i64::try_from(value) {
        Ok(value) => out.int(value),
        Err(_) => out.text(&value.to_string()),
    }
}

/// The keys of an object so far.
#[expect(
    clippy::large_enum_variant,
    reason = "on the stack, once for each of a few levels"
)]
enum Seen<'a> {
    Few(heapless::Vec<RawStr<'a>, 16>),
    Many(HashSet<Cow<'a, str>>),
    /// Where the last of each key stands among the members.
    Last(HashMap<Cow<'a, str>, usize>),
}

impl<'a> Seen<'a> {
    /// `cursor` is at the object's members.
    fn of(keys: Keys, mut cursor: Cursor<'a>) -> Result<Self, Malformed> {
        if matches!(keys, Keys::Checked) {
            return Ok(Self::Few(heapless::Vec::new()));
        }
        let mut last = HashMap::new();
        let mut at = 0;
        while let Some(key) = cursor.key(at == 0)? {
            cursor.value()?;
            last.insert(key.decoded()?, at);
            at += 1;
        }
        Ok(Self::Last(last))
    }

    /// Whether the member with this key, at this place, is to be written.
    fn is_written(&mut self, key: RawStr<'a>, at: usize) -> Result<bool, Fault> {
        let is_new = match self {
            Self::Last(last) => return Ok(last.get(&key.decoded()?) == Some(&at)),
            Self::Many(keys) => keys.insert(key.decoded()?),
            Self::Few(keys) => {
                let is_new = !keys.iter().any(|other| other.is_same(key));
                if is_new && keys.push(key).is_err() {
                    let decoded = keys.iter().chain([&key]).map(RawStr::decoded);
                    *self = Self::Many(decoded.collect::<Result<_, _>>()?);
                }
                is_new
            }
        };
        if is_new {
            Ok(true)
        } else {
            Err(Fault::Repeated)
        }
    }
}

/// As the data model of logs numbers them.
const fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Debug => 5,
        Severity::Info => 9,
        Severity::Warning => 13,
        Severity::Error => 17,
        Severity::Critical => 21,
    }
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::Protobuf;
    use super::super::text::Json;
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use serde_json::Value;

    /// The attributes of an event with this data, in the JSON encoding, by name.
    fn attributes(name: &str, data: &str) -> Vec<(String, String)> {
        let event = format!(
            r#"{{"event":"GENERIC_EVENT","event_name":"{name}","event_data":{data},"timestamp":"2026-01-01T00:00:00.000000Z"}}"#
        );
        let event = Event::read(&mut Cursor::new(event.as_bytes())).expect("an event");
        let mut json = Json::default();
        let session = RawStr::plain("s");
        write_record(&event, session, &mut json).expect("a record");
        let mut protobuf = Protobuf::default();
        write_record(&event, session, &mut protobuf).expect("a record");
        let text = json.0.strip_suffix(b",").expect("a comma");
        let record: Value = serde_json::from_slice(text).expect("JSON");
        let attributes = record["attributes"].as_array().expect("a list").iter();
        let attributes = attributes.map(|attribute| {
            let key = attribute["key"].as_str().expect("a text");
            (key.into(), attribute["value"].to_string())
        });
        // The session's id and the index.
        attributes.skip(2).collect()
    }

    fn value(data: &str) -> String {
        let mut all = attributes("a", &format!("{{\"a\":{data}}}"));
        all.pop().expect("an attribute").1
    }

    #[test]
    fn every_digit_of_a_number_is_kept() {
        assert_eq!(
            value("-9223372036854775808"),
            r#"{"intValue":"-9223372036854775808"}"#
        );
        assert_eq!(
            value("9223372036854775808"),
            r#"{"stringValue":"9223372036854775808"}"#
        );
        let large = "1".repeat(39);
        assert_eq!(value(&large), format!(r#"{{"stringValue":"{large}"}}"#));
        assert_eq!(value("1.0"), r#"{"doubleValue":1.0}"#);
        assert_eq!(value("-0.0"), r#"{"doubleValue":-0.0}"#);
        assert_eq!(value("5e-324"), r#"{"doubleValue":5e-324}"#);
        assert_eq!(value("1e999"), r#"{"stringValue":"1e999"}"#);
    }

    #[test]
    fn the_last_of_repeated_keys_counts_at_every_level() {
        let repeated = r#"{"a":1,"b":{"x":1,"\u0078":2},"a":[{"y":1,"z":2,"y":3}]}"#;
        let value = |text: &str| text.to_string();
        assert_eq!(
            attributes("a", repeated),
            [
                (
                    value("b"),
                    value(
                        r#"{"kvlistValue":{"values":[{"key":"\\u0078","value":{"intValue":"2"}}]}}"#
                    )
                    .replace(r"\\u0078", "x")
                ),
                (
                    value("a"),
                    value(
                        r#"{"arrayValue":{"values":[{"kvlistValue":{"values":[{"key":"z","value":{"intValue":"2"}},{"key":"y","value":{"intValue":"3"}}]}}]}}"#
                    )
                ),
            ]
        );
        let many: String = (0..100)
            .map(|at| format!("\"{}\":{at},", at % 50))
            .collect();
        let all = attributes("a", &format!("{{{}}}", many.trim_end_matches(',')));
        assert_eq!(all.len(), 50);
        assert_eq!(all[0], (value("0"), value(r#"{"intValue":"50"}"#)));
    }

    #[test]
    fn objects_with_repeated_keys_in_one_another_take_no_longer_than_others() {
        // Each level written twice would be two to the power of twenty.
        let data = (0..20).fold(String::from("1"), |inner, _| {
            format!("{{\"a\":{inner},\"a\":1}}")
        });
        assert_eq!(attributes("a", &data).len(), 1);
    }

    #[test]
    fn a_request_has_the_attributes_of_semantic_conventions() {
        let data = r#"{"measurements":{"duration":5},"metadata":{"method":"GET","path":"/a\"b","status":503,"result":"error","retry_count":2}}"#;
        let all = attributes("tinkex.http.request.stop", data);
        let text = |text: &str| format!(r#"{{"stringValue":"{text}"}}"#);
        for (name, value) in [
            ("http.request.method", text("GET")),
            ("url.path", text("/a\\\"b")),
            ("http.response.status_code", r#"{"intValue":"503"}"#.into()),
            ("http.request.resend_count", r#"{"intValue":"2"}"#.into()),
            ("error.type", text("503")),
        ] {
            assert!(all.contains(&(name.into(), value)), "{name}: {all:?}");
        }
        let data = r#"{"measurements":{},"metadata":{"method":"GET","path":"/","kind":"timeout","reason":"none"}}"#;
        let all = attributes("tinkex.http.request.exception", data);
        assert!(all.contains(&("error.type".into(), text("timeout"))));
        let of_program = attributes("a", r#"{"metadata":{"method":"GET"}}"#);
        assert_eq!(of_program.len(), 1);
    }

    #[test]
    fn ids_of_a_trace_are_fields_of_the_record_if_they_are_valid() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let data = format!(r#"{{"trace_id":"{trace}","span_id":"{span}"}}"#);
        assert_eq!(trace_ids(data.as_bytes()), Ok([Some(trace), Some(span)]));
        for (trace, span) in [
            ("", ""),
            (span, trace),
            (&*"0".repeat(32), &*"0".repeat(16)),
            ("x", "y"),
        ] {
            let data = format!(r#"{{"trace_id":"{trace}","span_id":"{span}"}}"#);
            assert_eq!(trace_ids(data.as_bytes()), Ok([None, None]), "{data}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused_and_leaves_nothing_behind() {
        let event = Event {
            data: Some(b"{\"a\":[1,"),
            name: Some(RawStr::plain("a")),
            ..Event::default()
        };
        let mut out = Protobuf::default();
        assert_eq!(
            write_record(&event, RawStr::plain("s"), &mut out),
            Err(Malformed)
        );
        assert!(out.0.is_empty());
    }
}
