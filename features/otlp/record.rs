//! A log record: what an event's own members become in it.

use super::event::{Event, nanos};
use super::form::Form;
use super::http_request;
use super::json::{Cursor, Malformed, RawStr};
use super::members::{Fault, Keys, Place, TraceIds, write_members, write_object};
use super::text::Escaped;
use crate::event::Severity;
use alloc::string::ToString as _;
use alloc::vec::Vec;

/// The name of the event that has the fields of the whole session.
const CONTEXT: &str = "session.context";

/// How the names of events begin that this crate makes itself.
const OWN: &str = "tinkex.";

/// What the records of a request have in common.
pub(super) struct Common {
    /// The attribute `session.id`, as it is written.
    session: Vec<u8>,
}

impl Common {
    /// Of a session with this id. `scratch` is empty.
    pub(super) fn new<F: Form>(session: RawStr<'_>, mut scratch: F) -> Result<Self, Malformed> {
        attribute(&mut scratch, "session.id", |out| out.str(session))?;
        let session = core::mem::take(scratch.bytes());
        Ok(Self { session })
    }
}

/// Appends the record of the event that is next. Returns the event's data, if they are the fields of the whole session.
pub(super) fn write_event<'a, F: Form>(
    cursor: &mut Cursor<'a>,
    common: &Common,
    out: &mut F,
) -> Result<Option<&'a str>, Malformed> {
    let (before, start) = (*cursor, out.bytes().len());
    if write_in_one_pass(cursor, common, out).is_some() {
        return Ok(None);
    }
    *cursor = before;
    out.bytes().truncate(start);
    let event = Event::read(cursor)?;
    write_record(&event, common, out)?;
    let is_context = event.name.is_some_and(|name| name.text == CONTEXT);
    Ok(event.data.filter(|_| is_context))
}

/// Writes a generic event that is laid out as this crate lays them out, as [`write_record`] does, but while it is read.
/// `None`, with a part of the record written, for an event that is not, that needs a second look at its data, or that
/// repeats a key.
fn write_in_one_pass<F: Form>(cursor: &mut Cursor<'_>, common: &Common, out: &mut F) -> Option<()> {
    let next = |cursor: &mut Cursor<'_>, text| cursor.take_text(text).then_some(());
    next(cursor, "{\"event_id\":\"")?;
    let id = cursor.rest_of_string().ok()?;
    next(cursor, ",\"event_session_index\":")?;
    let index = cursor.digits()?;
    next(cursor, ",\"event\":\"GENERIC_EVENT\",\"severity\":\"")?;
    let severity = match cursor.rest_of_string().ok()?.text {
        "DEBUG" => Severity::Debug,
        "INFO" => Severity::Info,
        "WARNING" => Severity::Warning,
        "ERROR" => Severity::Error,
        "CRITICAL" => Severity::Critical,
        _ => return None,
    };
    next(cursor, ",\"event_name\":\"")?;
    let name = cursor.rest_of_string().ok()?;
    if name.text.starts_with(OWN) || name.text == CONTEXT {
        return None;
    }
    next(cursor, ",\"event_data\":{")?;
    let record = out.record();
    write_head(severity, name, common, Some(id), index, out).ok()?;
    let mut ids = TraceIds::default();
    write_object(cursor, Keys::Checked, Place::Record(&mut ids), 1, out).ok()?;
    next(cursor, ",\"timestamp\":\"")?;
    let time = nanos(cursor.rest_of_string().ok()?.text)?;
    next(cursor, "}")?;
    write_tail(&ids, time, out);
    out.end_record(record);
    Some(())
}

/// Appends the record of an event.
pub(super) fn write_record<F: Form>(
    event: &Event<'_>,
    common: &Common,
    out: &mut F,
) -> Result<(), Malformed> {
    with_unique_keys(out, |keys, out| {
        let record = out.record();
        write_fields(event, common, out)?;
        let mut ids = TraceIds::default();
        if let Some(data) = event.data {
            write_members(data, keys, Place::Record(&mut ids), out)?;
        }
        write_tail(&ids, event.time, out);
        out.end_record(record);
        Ok(())
    })
}

/// Appends the members of an object as attributes of a resource that has those in `taken`.
pub(super) fn write_resource<F: Form>(
    data: &str,
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
    let escaped = Escaped(name).to_string();
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

/// Everything but the event's data and what follows them.
fn write_fields<F: Form>(event: &Event<'_>, common: &Common, out: &mut F) -> Result<(), Malformed> {
    let name = match event.kind.map_or("", |kind| kind.text) {
        "SESSION_START" => RawStr::plain("session.start"),
        "SESSION_END" => RawStr::plain("session.end"),
        "UNHANDLED_EXCEPTION" => RawStr::plain("exception"),
        _ => event.name.or(event.kind).ok_or(Malformed)?,
    };
    let severity = event.severity.unwrap_or_default();
    write_head(severity, name, common, event.id, event.index, out)?;
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

/// Writes what every record has before the attributes of its own.
#[inline]
fn write_head<F: Form>(
    severity: Severity,
    name: RawStr<'_>,
    common: &Common,
    id: Option<RawStr<'_>>,
    index: u64,
    out: &mut F,
) -> Result<(), Malformed> {
    out.severity(severity_number(severity), severity.as_str());
    out.event_name(name)?;
    out.attributes();
    out.bytes().extend_from_slice(&common.session);
    if let Some(id) = id {
        attribute(out, "log.record.uid", |out| out.str(id))?;
    }
    attribute(out, "tinkex.session.index", |out| {
        match i64::try_from(index) {
            Ok(index) => out.int(index),
            Err(_) => out.text(&index.to_string()),
        }
        Ok(())
    })
}

/// Writes what every record has behind its attributes: what the end of the event says.
fn write_tail<F: Form>(ids: &TraceIds<'_>, time: u64, out: &mut F) {
    out.end_attributes();
    out.trace(ids.trace, ids.span);
    out.time(time);
}

/// Writes one attribute of the record's own.
#[inline]
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
    use alloc::string::String;
    use arbtest::arbitrary::{self, Unstructured};
    use arbtest::arbtest;
    use serde_json::Value;

    /// Whether the event is written in one pass.
    fn in_one_pass<F: Form + Default>(event: &[u8], out: &mut F) -> bool {
        let common = Common::new(RawStr::plain("s"), F::default()).expect("an id");
        let mut cursor = Cursor::new(event);
        write_in_one_pass(&mut cursor, &common, out).is_some()
    }

    fn write_generally<F: Form + Default>(event: &[u8], out: &mut F) -> Result<(), Malformed> {
        let common = Common::new(RawStr::plain("s"), F::default()).expect("an id");
        let event = Event::read(&mut Cursor::new(event))?;
        write_record(&event, &common, out)
    }

    /// A record that was written, without the comma behind it.
    fn record(json: &Json) -> Value {
        let text = json.0.strip_suffix(b",").expect("a comma");
        serde_json::from_slice(text).expect("JSON")
    }

    /// The attributes of an event with this data, in the JSON encoding, by name.
    fn attributes(name: &str, data: &str) -> Vec<(String, String)> {
        let event = format!(
            r#"{{"event":"GENERIC_EVENT","event_name":"{name}","event_data":{data},"timestamp":"2026-01-01T00:00:00.000000Z"}}"#
        );
        let (event, mut json) = (event.as_bytes(), Json::default());
        write_generally(event, &mut json).expect("a record");
        write_generally(event, &mut Protobuf::default()).expect("a record");
        let record = record(&json);
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
        let ids = |data: &str| {
            let text = format!(
                r#"{{"event_id":"i","event_session_index":1,"event":"GENERIC_EVENT","severity":"INFO","event_name":"a","event_data":{data},"timestamp":"2026-01-01T00:00:00.000000Z"}}"#
            );
            let mut json = Json::default();
            assert!(in_one_pass(text.as_bytes(), &mut json));
            let record = record(&json);
            let mut generally = Json::default();
            write_generally(text.as_bytes(), &mut generally).expect("a record");
            assert_eq!(json.0, generally.0);
            [&record["traceId"], &record["spanId"]].map(|id| id.as_str().map(String::from))
        };
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let data = format!(r#"{{"trace_id":"{trace}","a":1,"span_id":"{span}"}}"#);
        assert_eq!(ids(&data), [Some(trace.into()), Some(span.into())]);
        for (trace, span) in [
            ("", ""),
            (span, trace),
            (&*"0".repeat(32), &*"0".repeat(16)),
            ("x", "y"),
        ] {
            let data = format!(r#"{{"trace_id":"{trace}","span_id":"{span}"}}"#);
            assert_eq!(ids(&data), [None, None], "{data}");
        }
        assert_eq!(ids(r#"{"trace_id":1,"span_id":{}}"#), [None, None]);
    }

    #[test]
    fn what_is_no_event_is_refused_and_leaves_nothing_behind() {
        let event = Event {
            data: Some("{\"a\":[1,"),
            name: Some(RawStr::plain("a")),
            ..Event::default()
        };
        let mut out = Protobuf::default();
        let common = Common::new(RawStr::plain("s"), Protobuf::default()).expect("an id");
        assert_eq!(write_record(&event, &common, &mut out), Err(Malformed));
        assert!(out.0.is_empty());
    }

    fn value_of(u: &mut Unstructured<'_>, depth: usize) -> arbitrary::Result<String> {
        let words = [
            "null",
            "true",
            "-1.5e-7",
            "18446744073709551615",
            "-3",
            "0",
            "\"\\\\\"",
            "\"a\\u0041\"",
        ];
        let is_nested = depth > 0 && u.ratio(1, 3)?;
        if !is_nested {
            let is_word = u.ratio(2, 3)?;
            let text: &str = if is_word { "" } else { u.arbitrary()? };
            return Ok(if is_word {
                String::from(*u.choose(&words)?)
            } else {
                Value::from(text).to_string()
            });
        }
        if u.arbitrary()? {
            return data_of(u, depth - 1);
        }
        let elements: Vec<_> = (0..u.int_in_range(0..=3)?)
            .map(|_| value_of(u, depth - 1))
            .collect::<arbitrary::Result<_>>()?;
        Ok(format!("[{}]", elements.join(",")))
    }

    fn data_of(u: &mut Unstructured<'_>, depth: usize) -> arbitrary::Result<String> {
        let keys = [
            "a",
            "b",
            "session.id",
            "\\u0073ession.id",
            "trace_id",
            "span_id",
            "é",
            "tinkex.x",
            "",
            "eventual",
        ];
        let members: Vec<_> = (0..u.int_in_range(0..=20)?)
            .map(|at| {
                let key = *u.choose(&keys)?;
                // Most keys are unique.
                let key = if u.ratio(1, 40)? {
                    key.into()
                } else {
                    format!("{key}{at}")
                };
                Ok(format!("\"{key}\":{}", value_of(u, depth)?))
            })
            .collect::<arbitrary::Result<_>>()?;
        Ok(format!("{{{}}}", members.join(",")))
    }

    #[test]
    fn an_event_read_in_one_pass_is_the_record_that_a_second_look_makes_of_it() {
        let mut in_one = 0;
        arbtest(|u| {
            let (data, name) = (data_of(u, 3)?, Value::from(u.arbitrary::<&str>()?));
            let severity = *u.choose(&Severity::ALL)?;
            let (index, micros) = (u.arbitrary::<u64>()?, u.int_in_range(0..=u64::MAX / 1_000)?);
            let time = crate::time::Timestamp::from_unix_micros(micros);
            let text = format!(
                r#"{{"event_id":"4c9e6f3a-0000-4000-8000-000000000000","event_session_index":{index},"event":"GENERIC_EVENT","severity":"{severity}","event_name":{name},"event_data":{data},"timestamp":"{time}"}}"#
            );
            let mut json = [Json::default(), Json::default()];
            let mut protobuf = [Protobuf::default(), Protobuf::default()];
            write_generally(text.as_bytes(), &mut json[0]).expect("a record");
            write_generally(text.as_bytes(), &mut protobuf[0]).expect("a record");
            if in_one_pass(text.as_bytes(), &mut json[1]) {
                in_one += 1;
                assert_eq!(json[0].0, json[1].0, "{text}");
                assert!(in_one_pass(text.as_bytes(), &mut protobuf[1]), "{text}");
                assert_eq!(protobuf[0].0, protobuf[1].0, "{text}");
            }
            Ok(())
        });
        assert!(in_one > 0);
    }

    #[test]
    fn an_event_with_a_layout_of_its_own_is_no_less_a_record() {
        let laid_out = r#"{"event_id":"i","event_session_index":7,"event":"GENERIC_EVENT","severity":"INFO","event_name":"a","event_data":{"b":1},"timestamp":"2026-01-01T00:00:00.000000Z"}"#;
        let mut expected = Protobuf::default();
        assert!(in_one_pass(laid_out.as_bytes(), &mut expected));
        for text in [
            r#" { "event_id" : "i", "event_session_index":7, "event":"GENERIC_EVENT", "severity":"INFO", "event_name":"a", "event_data": {"b" : 1 }, "timestamp":"2026-01-01T00:00:00.000000Z" } "#,
            r#"{"timestamp":"2026-01-01T00:00:00.000000Z","event_data":{"b":1},"event_name":"a","severity":"INFO","event":"GENERIC_EVENT","event_session_index":7,"event_id":"i"}"#,
            r#"{"event_id":"i","event_session_index":7,"event":"GENERIC_EVENT","severity":"INFO","event_name":"a","event_data":{"b":1},"timestamp":"2026-01-01T00:00:00.000000Z","later":[{}]}"#,
            r#"{"event_id":"i","event_session_index":7,"event":"GENERIC_EVENT","severity":"INFO","event_name":"a","event_data":{"b":2,"b":1},"timestamp":"2026-01-01T00:00:00.000000Z"}"#,
        ] {
            assert!(
                !in_one_pass(text.as_bytes(), &mut Protobuf::default()),
                "{text}"
            );
            let mut out = Protobuf::default();
            let common = Common::new(RawStr::plain("s"), Protobuf::default()).expect("an id");
            let mut cursor = Cursor::new(text.as_bytes());
            assert_eq!(write_event(&mut cursor, &common, &mut out), Ok(None));
            assert_eq!(out.0, expected.0, "{text}");
        }
        for broken in [
            "",
            "{",
            r#"{"event_id":"i""#,
            &laid_out[..laid_out.len() - 1],
            &laid_out.replace(":1}", ":1"),
        ] {
            let common = Common::new(RawStr::plain("s"), Protobuf::default()).expect("an id");
            let mut out = Protobuf::default();
            let mut cursor = Cursor::new(broken.as_bytes());
            assert_eq!(
                write_event(&mut cursor, &common, &mut out),
                Err(Malformed),
                "{broken}"
            );
            assert!(out.0.is_empty());
        }
    }

    #[test]
    fn only_the_context_of_the_session_is_kept_for_the_resource() {
        for (name, is_context) in [
            ("session.context", true),
            ("session.contexts", false),
            ("a", false),
        ] {
            let text = format!(
                r#"{{"event_id":"i","event_session_index":7,"event":"GENERIC_EVENT","severity":"INFO","event_name":"{name}","event_data":{{"b":1}},"timestamp":"2026-01-01T00:00:00.000000Z"}}"#
            );
            let common = Common::new(RawStr::plain("s"), Protobuf::default()).expect("an id");
            let context = write_event(
                &mut Cursor::new(text.as_bytes()),
                &common,
                &mut Protobuf::default(),
            );
            assert_eq!(context, Ok(is_context.then_some("{\"b\":1}")), "{name}");
        }
    }
}
