//! `tracing`: events, closed spans and records of the `log` facade become events of a session.

mod data;
mod filter;

use crate::engine::Priority;
use crate::event::encode::{self, Heading};
use crate::event::{Severity, context, writer};
use crate::session::Handle;
use crate::session::shared::Shared;
use crate::sys::origin::{self, OwnWork};
use crate::sys::panics;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use data::{EventData, InSpan, SpanData, SpanFields, SpanValues, SpanVisitor, Spans};
pub use filter::TelemetryFilter;
use serde_json::{Map, Value};
use tracing_core::{Event, Level, LevelFilter, Metadata, Subscriber, span};
use tracing_log::NormalizeEvent;
use tracing_subscriber::filter::Filtered;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// A `tracing-subscriber` layer that logs what a program traces as events of a session.
///
/// ```
/// # use tracing_core as tracing;
/// use tinkex_telemetry::Handle;
/// use tinkex_telemetry::tracing::TelemetryLayer;
/// use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};
///
/// fn install(telemetry: &Handle) {
///     let layer = TelemetryLayer::new(telemetry.clone())
///         .level(tracing::Level::INFO)
///         .target("my_app::sampling", tracing::Level::DEBUG);
///     tracing_subscriber::registry().with(layer.filtered()).init();
/// }
/// ```
///
/// # What an event becomes
///
/// Its name is the one given to the macro (`info!(name: "cache.miss", …)`), else its target. Its data is
///
/// ```json
/// {"target": "my_app::cache", "spans": [{"name": "request", "request_id": 42}], "fields": {"message": "not there", "key": 7}}
/// ```
///
/// with the spans it happened in, outermost first (the innermost 32; omitted if there are none), and its fields with
/// their types: numbers and booleans as such, errors as text with their sources, values recorded with `?` or `%` as
/// text. In the steady state, an event allocates nothing. If the layer's handle has a [context](Handle::with), the data
/// have it as their member `context`.
///
/// A span's fields are encoded once, when it is created or a field is recorded later, which allocates. They travel with
/// each event in the span if the layer's level and targets select the span itself; a field called `name` becomes
/// `name_`. The spans of an event take at most a quarter of `max_event_bytes`: the fields of one span are cut to that, as
/// a handle's context is, and where several take more together the outer ones are without their fields, and the event
/// counts as [`truncated`](crate::Stats::truncated). `TRACE` and `DEBUG` become [`Severity::Debug`], the other
/// levels the severity of the same name. An event whose field panics is refused; the panic goes no further.
///
/// With [`span_closings`](Self::span_closings), a span that closes becomes an event with the span's name, whose data
/// also contains `busy_us` and `idle_us`: how long the span was entered and how long it was not, by the session's
/// clock.
///
/// Records of the `log` facade, bridged by `tracing_log::LogTracer`, are filtered and logged by their own target and
/// level.
///
/// # What is excluded
///
/// What telemetry itself causes: sending it would cause more. It is recognized by its origin, the first part of its
/// target ([`EXCLUDED`](Self::EXCLUDED)), on any thread. Excluded, too, is everything that happens on a thread while it
/// drives a session, makes a request for one, or records an event's fields. A custom transport that uses other crates,
/// or threads of its own, needs [`exclude`](Self::exclude).
pub struct TelemetryLayer {
    handle: Handle,
    filter: TelemetryFilter,
    has_span_closings: bool,
    /// Whether [`filtered`](Self::filtered) has installed the filter, so that events arrive filtered.
    is_filtered: bool,
    /// Distinguishes the layers of one subscriber.
    id: u64,
}

impl TelemetryLayer {
    /// The crates whose events and records never become telemetry: this one, and those that transports use.
    pub const EXCLUDED: &'static [&'static str] = crate::features::origins::ORIGINS;

    /// A layer that logs everything of level INFO and above to a session. It does not keep the session alive.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self {
            handle,
            filter: TelemetryFilter::new(),
            has_span_closings: false,
            is_filtered: false,
            id: IDS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Sets the most verbose level of events and spans that are logged. Default: INFO.
    #[must_use]
    pub fn level(mut self, level: impl Into<LevelFilter>) -> Self {
        self.filter.set_level(level.into());
        self
    }

    /// Sets the level of a target and its modules. The longest matching target counts.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>, level: impl Into<LevelFilter>) -> Self {
        self.filter.set_target(target.into(), level.into());
        self
    }

    /// Excludes a target and its modules, such as the crates of a custom transport.
    #[must_use]
    pub fn exclude(mut self, target: impl Into<String>) -> Self {
        self.filter.exclude(target.into());
        self
    }

    /// Sets whether spans that close become events, too. Default: no. Their fields are stored until then, which
    /// allocates.
    #[must_use]
    pub const fn span_closings(mut self, has_span_closings: bool) -> Self {
        self.has_span_closings = has_span_closings;
        self
    }

    /// The layer with its selection as a per-layer filter: what it does not select costs next to nothing, unless
    /// another layer selects it. Without this, the layer examines everything that other layers see.
    #[must_use]
    pub fn filtered<S>(mut self) -> Filtered<Self, TelemetryFilter, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut filter = self.filter.clone();
        if !self.handle.has_session() {
            filter.set_off();
        }
        self.is_filtered = true;
        self.with_filter(filter)
    }

    /// Whether anything may be logged now, on this thread.
    fn is_listening(&self) -> bool {
        self.handle.is_enabled() && !origin::is_own()
    }

    /// Whether a new span will be logged when it closes, or has fields that events in it carry.
    fn tracks(&self, metadata: &Metadata<'_>) -> bool {
        (self.has_span_closings || !metadata.fields().is_empty())
            && self.is_listening()
            && self.filter.admits(*metadata.level(), metadata.target())
    }

    /// The session's monotonic time, in microseconds.
    fn now(&self) -> u64 {
        self.handle
            .session()
            .map_or(0, |session| session.now().as_micros())
    }

    /// The longest text of a field worth storing.
    fn max_text_bytes(&self) -> usize {
        let session = self.handle.session();
        session.map_or(0, |session| session.shared().max_event_bytes)
    }

    /// Stores a span's values. A `Debug` that panics must not unwind into the application.
    fn record(&self, span: &mut TrackedSpan, values: &SpanValues<'_>) {
        let _own = OwnWork::enter();
        let mut visitor = SpanVisitor {
            fields: &mut span.fields,
            max_text_bytes: self.max_text_bytes(),
        };
        if panics::catch(|| values.record(&mut visitor)).is_none() {
            span.has_panicked = true;
        }
    }

    /// Encodes a span's fields for the events in it. Returns whether they were cut.
    fn encode(&self, name: &'static str, span: &mut TrackedSpan) -> bool {
        span.json = None;
        let Some(session) = self.handle.session().filter(|_| !span.fields.is_empty()) else {
            return false;
        };
        let shared = session.shared();
        let encoded = encode_span(shared, &SpanFields(name, &span.fields));
        let is_cut = encoded.as_ref().is_none_or(|(_, is_cut)| *is_cut);
        span.json = encoded.map(|(json, _)| json);
        is_cut
    }

    fn report_cut(&self, name: &str) {
        if let Some(session) = self.handle.session() {
            let shared = session.shared();
            shared.report_context(format_args!("the fields of the span {name:?} are cut"));
        }
    }

    /// Collects a span and its ancestors. Returns whether fields were left out. Returning the spans would cost more in
    /// copying than finding them does.
    fn collect<'a, R: LookupSpan<'a>>(
        &self,
        innermost: Option<SpanRef<'a, R>>,
        spans: &mut Spans,
    ) -> bool {
        let session = self.handle.session();
        let mut room = session.map_or(0, |session| session.shared().max_context_bytes());
        let mut is_cut = false;
        let mut next = innermost;
        while let Some(span) = next {
            let mut json = None;
            if !span.metadata().fields().is_empty() {
                let extensions = span.extensions();
                let tracked = extensions.get().and_then(|TrackedSpans(all)| {
                    all.iter().find(|tracked| tracked.layer == self.id)
                });
                json = tracked.and_then(|tracked| tracked.json.clone());
            }
            if let Some(text) = &json {
                match room.checked_sub(text.len()) {
                    Some(rest) => room = rest,
                    None => {
                        is_cut = true;
                        room = 0;
                        json = None;
                    }
                }
            }
            let name = span.name();
            if spans.push(InSpan { name, json }).is_err() {
                break;
            }
            next = span.parent();
        }
        is_cut
    }
}

impl<S> Layer<S> for TelemetryLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !self.is_listening() {
            return;
        }
        let metadata = event.metadata();
        let normalized = match metadata.target() {
            filter::LOG_TARGET => event.normalized_metadata(),
            _ => None,
        };
        let target = normalized
            .as_ref()
            .map_or(metadata.target(), |metadata| metadata.target());
        let level = *metadata.level();
        let is_log = normalized.is_some();
        // The layer's own filter has not seen a log record's real target.
        if (!self.is_filtered || is_log) && !self.filter.admits(level, target) {
            return;
        }
        let mut spans = Spans::new();
        let is_cut = self.collect(context.event_span(event), &mut spans);
        let data = EventData {
            target,
            spans: &spans,
            event,
            is_log,
        };
        // The macro's default name is file and line.
        let name = match metadata.name() {
            name if is_log || name.starts_with("event ") => target,
            name => name,
        };
        let _own = OwnWork::enter();
        // Refusals are counted, so the result does not matter here.
        if let Some(session) = self.handle.session() {
            let (shared, context) = session.parts();
            let heading = Heading {
                name,
                severity: severity(level),
                context,
                is_cut,
            };
            let (at, encode) = (|| session.utc(), encode::generic_written);
            let _ = shared.log_with(at, heading, data, Priority::Ordinary, encode);
        }
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        if !self.tracks(attributes.metadata()) {
            return;
        }
        let Some(span) = context.span(id) else {
            return;
        };
        let mut tracked = TrackedSpan::new(self.id, self.now());
        self.record(&mut tracked, &SpanValues::New(attributes));
        if self.encode(span.name(), &mut tracked) {
            self.report_cut(span.name());
        }
        let mut extensions = span.extensions_mut();
        if let Some(TrackedSpans(all)) = extensions.get_mut() {
            all.push(tracked);
        } else {
            extensions.insert(TrackedSpans(Vec::from([tracked])));
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut is_tracked = false;
        with_tracked(&span, self.id, |_| is_tracked = true);
        if !is_tracked {
            return;
        }
        // Outside the extensions' lock: a `Debug` may access the same span.
        let mut more = TrackedSpan::new(self.id, 0);
        self.record(&mut more, &SpanValues::More(values));
        let mut is_cut = false;
        with_tracked(&span, self.id, |tracked| {
            tracked.fields.append(&mut more.fields);
            tracked.has_panicked |= more.has_panicked;
            is_cut = self.encode(span.name(), tracked);
        });
        if is_cut {
            self.report_cut(span.name());
        }
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        if self.has_span_closings
            && let Some(span) = context.span(id)
        {
            with_tracked(&span, self.id, |tracked| tracked.enter(self.now()));
        }
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        if self.has_span_closings
            && let Some(span) = context.span(id)
        {
            with_tracked(&span, self.id, |tracked| tracked.exit(self.now()));
        }
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        if !self.has_span_closings || !self.is_listening() {
            return;
        }
        let Some(span) = context.span(&id) else {
            return;
        };
        let mut taken = None;
        with_tracked(&span, self.id, |tracked| {
            tracked.update_times(self.now());
            taken = Some(core::mem::replace(tracked, TrackedSpan::new(self.id, 0)));
        });
        let Some(tracked) = taken else {
            return;
        };
        let mut spans = Spans::new();
        let is_cut = self.collect(span.parent(), &mut spans);
        let metadata = span.metadata();
        let data = SpanData {
            target: metadata.target(),
            spans: &spans,
            fields: &tracked.fields,
            busy_us: tracked.busy_us,
            idle_us: tracked.idle_us,
            has_panicked: tracked.has_panicked,
        };
        let _own = OwnWork::enter();
        if let Some(session) = self.handle.session() {
            let (shared, context) = session.parts();
            let heading = Heading {
                name: metadata.name(),
                severity: severity(*metadata.level()),
                context,
                is_cut,
            };
            let _ = shared.log(|| session.utc(), heading, &data, Priority::Ordinary);
        }
    }
}

impl fmt::Debug for TelemetryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryLayer")
            .field("handle", &self.handle)
            .field("filter", &self.filter)
            .field("has_span_closings", &self.has_span_closings)
            .finish_non_exhaustive()
    }
}

const fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warning,
        Level::INFO => Severity::Info,
        _ => Severity::Debug,
    }
}

/// The span extension: one entry for each telemetry layer of the subscriber.
struct TrackedSpans(Vec<TrackedSpan>);

/// What a layer stores of a span until the span closes.
struct TrackedSpan {
    layer: u64,
    fields: Map<String, Value>,
    /// Its name and its fields, for the events in it.
    json: Option<Arc<str>>,
    has_panicked: bool,
    busy_us: u64,
    idle_us: u64,
    /// When the times were last updated, in microseconds.
    updated_at: u64,
    /// Entries without an exit so far, on all threads.
    entered: u32,
}

impl TrackedSpan {
    fn new(layer: u64, now: u64) -> Self {
        Self {
            layer,
            fields: Map::new(),
            json: None,
            has_panicked: false,
            busy_us: 0,
            idle_us: 0,
            updated_at: now,
            entered: 0,
        }
    }

    fn update_times(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.updated_at);
        if self.entered > 0 {
            self.busy_us += elapsed;
        } else {
            self.idle_us += elapsed;
        }
        self.updated_at = now;
    }

    fn enter(&mut self, now: u64) {
        self.update_times(now);
        self.entered += 1;
    }

    fn exit(&mut self, now: u64) {
        self.update_times(now);
        self.entered = self.entered.saturating_sub(1);
    }
}

fn with_tracked<'a, R: LookupSpan<'a>>(
    span: &SpanRef<'a, R>,
    layer: u64,
    work: impl FnOnce(&mut TrackedSpan),
) {
    let mut extensions = span.extensions_mut();
    if let Some(TrackedSpans(all)) = extensions.get_mut()
        && let Some(tracked) = all.iter_mut().find(|tracked| tracked.layer == layer)
    {
        work(tracked);
    }
}

/// Encodes what the events in a span carry, in as many bytes as a context may take. Returns whether it was cut; `None`
/// if it cannot be encoded at all.
fn encode_span(shared: &Shared, fields: &SpanFields<'_>) -> Option<(Arc<str>, bool)> {
    let (limits, room) = (shared.context_limits(), shared.max_context_bytes());
    writer::with(shared.max_event_bytes, |out| {
        let is_cut = context::encode_within(out, fields, &limits, room).ok()?;
        let json = core::str::from_utf8(out.bytes()).ok()?;
        Some((json.into(), is_cut))
    })
}
