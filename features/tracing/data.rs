//! The data of an event or a span as JSON, written straight into the encoder.

use super::filter::LOG_TARGET;
use crate::event::encode::WriteJson;
use crate::event::exception::chain;
use crate::event::raw;
use crate::event::writer::{EventWriter, Failed};
use crate::time;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::error::Error;
use core::fmt;
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use tracing_core::field::{Field, FieldSet, Visit};
use tracing_core::{Event, span};

/// The maximum number of spans in an event: the innermost ones.
pub(super) const MAX_SPANS: usize = 32;

/// Spans, innermost first.
pub(super) type Spans = heapless::Vec<InSpan, MAX_SPANS>;

/// A span that something happened in.
pub(super) struct InSpan {
    pub(super) name: &'static str,
    /// Its name and its fields, as the JSON of an object.
    pub(super) json: Option<Arc<str>>,
}

impl Serialize for InSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.json {
            Some(json) => raw::Checked(json).serialize(serializer),
            None => SpanFields(self.name, &Map::new()).serialize(serializer),
        }
    }
}

/// A span's name and its fields as one object: a field called `name` becomes `name_`.
pub(super) struct SpanFields<'a>(pub(super) &'static str, pub(super) &'a Map<String, Value>);

impl Serialize for SpanFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.0)?;
        for (key, value) in self.1 {
            if key.strip_prefix("name").is_some_and(is_underscores) {
                map.serialize_entry(&format_args!("{key}_"), value)?;
            } else {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

fn is_underscores(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'_')
}

/// `event_data` of an event.
pub(super) struct EventData<'a> {
    pub(super) target: &'a str,
    pub(super) spans: &'a Spans,
    pub(super) event: &'a Event<'a>,
    pub(super) is_log: bool,
}

impl Serialize for EventData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write_origin(&mut map, self.target, self.spans)?;
        map.serialize_entry("fields", &Fields(self))?;
        map.end()
    }
}

/// `event_data` of a span that has closed.
pub(super) struct SpanData<'a> {
    pub(super) target: &'a str,
    pub(super) spans: &'a Spans,
    pub(super) fields: &'a Map<String, Value>,
    pub(super) busy_us: u64,
    pub(super) idle_us: u64,
    /// Whether recording a field panicked.
    pub(super) has_panicked: bool,
}

impl Serialize for SpanData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.has_panicked {
            return Err(S::Error::custom("a field of the span panicked"));
        }
        let mut map = serializer.serialize_map(None)?;
        write_origin(&mut map, self.target, self.spans)?;
        map.serialize_entry("fields", self.fields)?;
        map.serialize_entry("busy_us", &self.busy_us)?;
        map.serialize_entry("idle_us", &self.idle_us)?;
        map.end()
    }
}

fn write_origin<M: SerializeMap>(map: &mut M, target: &str, spans: &Spans) -> Result<(), M::Error> {
    map.serialize_entry("target", target)?;
    if !spans.is_empty() {
        map.serialize_entry("spans", &OutermostFirst(spans))?;
    }
    Ok(())
}

struct OutermostFirst<'a>(&'a Spans);

impl Serialize for OutermostFirst<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().rev())
    }
}

/// The fields of an event.
struct Fields<'a>(&'a EventData<'a>);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let map = serializer.serialize_map(None)?;
        self.0.record(map)?.end()
    }
}

/// The same JSON as [`Serialize`] writes, without serde's cost.
impl WriteJson for EventData<'_> {
    fn write_json(&self, out: &mut EventWriter<'_>) -> Result<(), Failed> {
        out.raw(b"{\"target\":");
        out.text(self.target)?;
        let mut before: &[u8] = b",\"spans\":[";
        for span in self.spans.iter().rev() {
            out.raw(before);
            if let Some(json) = &span.json {
                out.raw(json.as_bytes());
            } else {
                out.raw(b"{\"name\":");
                out.text(span.name)?;
                out.raw(b"}");
            }
            before = b",";
        }
        out.raw(if self.spans.is_empty() {
            b",\"fields\":"
        } else {
            b"],\"fields\":"
        });
        let fields = DirectObject { out, before: b'{' };
        let DirectObject { out, before } = self.record(fields)?;
        out.raw(if before == b'{' { b"{}}" } else { b"}}" });
        out.finish()
    }
}

impl EventData<'_> {
    fn record<O: Object>(&self, object: O) -> Result<O, O::Error> {
        let mut visitor = EventVisitor {
            object,
            result: Ok(()),
            seen: 0,
            fields: self.event.metadata().fields(),
            is_log: self.is_log,
        };
        self.event.record(&mut visitor);
        visitor.result.map(|()| visitor.object)
    }
}

/// The JSON object that an event's fields are written to.
trait Object {
    type Error;

    fn add(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Self::Error>;

    fn add_text(&mut self, key: &str, value: &str) -> Result<(), Self::Error> {
        self.add(key, value)
    }

    fn add_bool(&mut self, key: &str, value: bool) -> Result<(), Self::Error> {
        self.add(key, &value)
    }

    fn add_unsigned(&mut self, key: &str, value: u64) -> Result<(), Self::Error> {
        self.add(key, &value)
    }

    fn add_signed(&mut self, key: &str, value: i64) -> Result<(), Self::Error> {
        self.add(key, &value)
    }
}

impl<M: SerializeMap> Object for M {
    type Error = M::Error;

    fn add(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<(), M::Error> {
        self.serialize_entry(key, value)
    }
}

/// Writes straight into the encoder's buffer.
struct DirectObject<'a, 'b> {
    out: &'a mut EventWriter<'b>,
    /// The delimiter before the next key.
    before: u8,
}

impl DirectObject<'_, '_> {
    #[inline]
    fn key(&mut self, key: &str) -> Result<(), Failed> {
        let before = core::mem::replace(&mut self.before, b',');
        let output = &mut self.out.output;
        output.put_key(before, key).map_err(|_| Failed)
    }

    #[inline]
    fn number(&mut self, value: u64) {
        let mut text = [0; 20];
        let len = value.checked_ilog10().unwrap_or(0) as usize + 1;
        let text = &mut text[..len];
        time::digits(text, value);
        self.out.raw(text);
    }
}

impl Object for DirectObject<'_, '_> {
    type Error = Failed;

    fn add(&mut self, key: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Failed> {
        self.key(key)?;
        self.out.value(value)
    }

    fn add_text(&mut self, key: &str, value: &str) -> Result<(), Failed> {
        self.key(key)?;
        self.out.text(value)
    }

    fn add_bool(&mut self, key: &str, value: bool) -> Result<(), Failed> {
        self.key(key)?;
        self.out.raw(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn add_unsigned(&mut self, key: &str, value: u64) -> Result<(), Failed> {
        self.key(key)?;
        self.number(value);
        Ok(())
    }

    fn add_signed(&mut self, key: &str, value: i64) -> Result<(), Failed> {
        self.key(key)?;
        if value < 0 {
            self.out.raw(b"-");
        }
        self.number(value.unsigned_abs());
        Ok(())
    }
}

/// Writes an event's fields as they are visited.
struct EventVisitor<O: Object> {
    object: O,
    result: Result<(), O::Error>,
    /// A Bloom filter of the names so far.
    seen: u64,
    fields: &'static FieldSet,
    is_log: bool,
}

impl<O: Object> EventVisitor<O> {
    #[inline]
    fn put(
        &mut self,
        field: &Field,
        write: impl FnOnce(&mut O, &'static str) -> Result<(), O::Error>,
    ) {
        let is_skipped = self.is_duplicate(field) || (self.is_log && is_log_metadata(field));
        if !is_skipped && self.result.is_ok() {
            self.result = write(&mut self.object, field.name());
        }
    }

    /// Whether an earlier field has the same name: an object's keys must be unique.
    #[inline]
    fn is_duplicate(&mut self, field: &Field) -> bool {
        let name = field.name().as_bytes();
        let ends = [name.first(), name.last()].map(|byte| byte.copied().unwrap_or(0));
        let hash = name.len() * 7 + usize::from(ends[0]) + usize::from(ends[1]) * 3;
        let bit = 1 << (hash % 64);
        let may_match = self.seen & bit != 0;
        self.seen |= bit;
        may_match && has_earlier_namesake(field, self.fields)
    }
}

#[cold]
fn has_earlier_namesake(field: &Field, fields: &FieldSet) -> bool {
    let mut earlier = fields.iter().take(field.index());
    earlier.any(|other| other.name() == field.name())
}

/// Whether this is one of the fields in which `tracing-log` carries a record's metadata.
fn is_log_metadata(field: &Field) -> bool {
    let name = field.name();
    name.strip_prefix(LOG_TARGET)
        .is_some_and(|rest| rest.starts_with('.'))
}

macro_rules! typed {
    ($($method:ident: $type:ty, $put:ident;)*) => {$(
        fn $method(&mut self, field: &Field, value: $type) {
            self.put(field, |object, name| object.$put(name, value));
        }
    )*};
}

impl<O: Object> Visit for EventVisitor<O> {
    typed! {
        record_i64: i64, add_signed;
        record_u64: u64, add_unsigned;
        record_str: &str, add_text;
        record_bool: bool, add_bool;
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, |object, name| object.add(name, &value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, |object, name| object.add(name, &value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, |object, name| object.add(name, &value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field, |object, name| {
            object.add(name, &AsDisplay(&OneLine(value)))
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, |object, name| object.add(name, &AsDebug(value)));
    }
}

/// Stores a span's fields. A later value replaces an earlier one.
pub(super) struct SpanVisitor<'a> {
    pub(super) fields: &'a mut Map<String, Value>,
    pub(super) max_text_bytes: usize,
}

impl SpanVisitor<'_> {
    fn store(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn store_text(&mut self, field: &Field, text: &dyn fmt::Display) {
        let text = crate::event::cut::Cut::new(text, self.max_text_bytes).to_string();
        self.store(field, text);
    }
}

macro_rules! stored {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(&mut self, field: &Field, value: $type) {
            self.store(field, value);
        }
    )*};
}

impl Visit for SpanVisitor<'_> {
    stored! {
        record_f64: f64,
        record_i64: i64,
        record_u64: u64,
        record_bool: bool,
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.store(field, value),
            Err(_) => self.store(field, value as f64),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.store(field, value),
            Err(_) => self.store(field, value as f64),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.store_text(field, &value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.store_text(field, &OneLine(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.store_text(field, &format_args!("{value:?}"));
    }
}

/// A span's values: those it was created with, or those recorded later.
pub(super) enum SpanValues<'a> {
    New(&'a span::Attributes<'a>),
    More(&'a span::Record<'a>),
}

impl SpanValues<'_> {
    pub(super) fn record(&self, visitor: &mut SpanVisitor<'_>) {
        match self {
            Self::New(attributes) => attributes.record(visitor),
            Self::More(record) => record.record(visitor),
        }
    }
}

struct AsDisplay<'a, D>(&'a D);

impl<D: fmt::Display> Serialize for AsDisplay<'_, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

struct AsDebug<'a>(&'a dyn fmt::Debug);

impl Serialize for AsDebug<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

/// An error's text and those of its sources, on one line.
struct OneLine<'a>(&'a (dyn Error + 'static));

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for error in chain(self.0) {
            write!(f, "{separator}{error}")?;
            separator = ": ";
        }
        Ok(())
    }
}
