//! What an event or a span has to tell, as JSON, written straight into the encoder.

use super::filter::LOG;
use crate::event::encode::WriteJson;
use crate::event::writer::{Failed, Scratch};
use alloc::string::{String, ToString};
use core::error::Error;
use core::fmt;
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use tracing_core::field::{Field, FieldSet, Visit};
use tracing_core::{Event, span};

/// How many spans an event tells of: the innermost ones.
pub(super) const MAX_SPANS: usize = 32;

/// Names of spans, the innermost first.
pub(super) type Spans = heapless::Vec<&'static str, MAX_SPANS>;

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
        begin(&mut map, self.target, self.spans)?;
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
    /// A field has panicked.
    pub(super) is_broken: bool,
}

impl Serialize for SpanData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.is_broken {
            return Err(S::Error::custom("a field of the span panicked"));
        }
        let mut map = serializer.serialize_map(None)?;
        begin(&mut map, self.target, self.spans)?;
        map.serialize_entry("fields", self.fields)?;
        map.serialize_entry("busy_us", &self.busy_us)?;
        map.serialize_entry("idle_us", &self.idle_us)?;
        map.end()
    }
}

fn begin<M: SerializeMap>(map: &mut M, target: &str, spans: &Spans) -> Result<(), M::Error> {
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

/// The same JSON, without what serde costs.
impl WriteJson for EventData<'_> {
    fn write_json(&self, out: &mut Scratch<'_>) -> Result<(), Failed> {
        out.raw(b"{\"target\":");
        out.text(self.target)?;
        let mut before: &[u8] = b",\"spans\":[";
        for name in self.spans.iter().rev() {
            out.raw(before);
            out.text(name)?;
            before = b",";
        }
        out.raw(if self.spans.is_empty() {
            b",\"fields\":"
        } else {
            b"],\"fields\":"
        });
        let fields = Direct { out, before: b'{' };
        let Direct { out, before } = self.record(fields)?;
        out.raw(if before == b'{' { b"{}}" } else { b"}}" });
        out.finish()
    }
}

impl EventData<'_> {
    fn record<O: Object>(&self, object: O) -> Result<O, O::Error> {
        let mut recorder = Recorder {
            object,
            result: Ok(()),
            seen: 0,
            all: self.event.metadata().fields(),
            is_log: self.is_log,
        };
        self.event.record(&mut recorder);
        recorder.result.map(|()| recorder.object)
    }
}

/// Where fields are written.
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

/// Straight into the encoder's buffer.
struct Direct<'a, 'b> {
    out: &'a mut Scratch<'b>,
    /// Of the next key.
    before: u8,
}

impl Direct<'_, '_> {
    #[inline]
    fn key(&mut self, key: &str) -> Result<(), Failed> {
        let before = core::mem::replace(&mut self.before, b',');
        self.out.key(before, key)
    }
}

impl Object for Direct<'_, '_> {
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
        self.out.number(value);
        Ok(())
    }

    fn add_signed(&mut self, key: &str, value: i64) -> Result<(), Failed> {
        self.key(key)?;
        if value < 0 {
            self.out.raw(b"-");
        }
        self.out.number(value.unsigned_abs());
        Ok(())
    }
}

/// Writes fields as they are visited.
struct Recorder<O: Object> {
    object: O,
    result: Result<(), O::Error>,
    /// Of the names so far, a bit each.
    seen: u64,
    all: &'static FieldSet,
    is_log: bool,
}

impl<O: Object> Recorder<O> {
    #[inline]
    fn put(
        &mut self,
        field: &Field,
        put: impl FnOnce(&mut O, &'static str) -> Result<(), O::Error>,
    ) {
        let is_unwanted = self.is_doubled(field) || (self.is_log && is_of_log(field));
        if !is_unwanted && self.result.is_ok() {
            self.result = put(&mut self.object, field.name());
        }
    }

    /// Whether an earlier field has the same name. An object must not have a key twice.
    #[inline]
    fn is_doubled(&mut self, field: &Field) -> bool {
        let name = field.name().as_bytes();
        let ends = [name.first(), name.last()].map(|byte| byte.copied().unwrap_or(0));
        let hash = name.len() * 7 + usize::from(ends[0]) + usize::from(ends[1]) * 3;
        let bit = 1 << (hash % 64);
        let may_be = self.seen & bit != 0;
        self.seen |= bit;
        may_be && is_among_earlier(field, self.all)
    }
}

#[cold]
fn is_among_earlier(field: &Field, all: &FieldSet) -> bool {
    let mut earlier = all.iter().take(field.index());
    earlier.any(|other| other.name() == field.name())
}

/// Whether it is one of those in which `tracing-log` keeps what belongs to the metadata.
fn is_of_log(field: &Field) -> bool {
    let name = field.name();
    name.strip_prefix(LOG)
        .is_some_and(|rest| rest.starts_with('.'))
}

macro_rules! typed {
    ($($method:ident: $type:ty, $put:ident;)*) => {$(
        fn $method(&mut self, field: &Field, value: $type) {
            self.put(field, |object, name| object.$put(name, value));
        }
    )*};
}

impl<O: Object> Visit for Recorder<O> {
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
            object.add(name, &Shown(&Chain(value)))
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, |object, name| object.add(name, &Debugged(value)));
    }
}

/// Keeps the fields of a span until it closes. A later value takes the place of an earlier one.
pub(super) struct Keeper<'a> {
    pub(super) fields: &'a mut Map<String, Value>,
    /// The bytes that a text may have.
    pub(super) room: usize,
}

impl Keeper<'_> {
    fn keep(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn keep_text(&mut self, field: &Field, text: &dyn fmt::Display) {
        let text = crate::event::encode::Cut::new(text, self.room).to_string();
        self.keep(field, text);
    }
}

macro_rules! kept {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(&mut self, field: &Field, value: $type) {
            self.keep(field, value);
        }
    )*};
}

impl Visit for Keeper<'_> {
    kept! {
        record_f64: f64,
        record_i64: i64,
        record_u64: u64,
        record_bool: bool,
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.keep(field, value),
            Err(_) => self.keep(field, value as f64),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match u64::try_from(value) {
            Ok(value) => self.keep(field, value),
            Err(_) => self.keep(field, value as f64),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep_text(field, &value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.keep_text(field, &Chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep_text(field, &format_args!("{value:?}"));
    }
}

/// The values of a span, wherever they come from.
pub(super) enum Values<'a> {
    New(&'a span::Attributes<'a>),
    More(&'a span::Record<'a>),
}

impl Values<'_> {
    pub(super) fn record(&self, keeper: &mut Keeper<'_>) {
        match self {
            Self::New(attributes) => attributes.record(keeper),
            Self::More(record) => record.record(keeper),
        }
    }
}

struct Shown<'a, D>(&'a D);

impl<D: fmt::Display> Serialize for Shown<'_, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

struct Debugged<'a>(&'a dyn fmt::Debug);

impl Serialize for Debugged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

/// An error with its sources, in one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Chains may be loops.
        const MAX: usize = 64;

        write!(f, "{}", self.0)?;
        let sources = core::iter::successors(self.0.source(), |&error| error.source());
        sources
            .take(MAX)
            .try_for_each(|source| write!(f, ": {source}"))
    }
}
