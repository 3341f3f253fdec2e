//! `tracing`: events, and spans that close, become events of a session; records of the `log` facade with them.

mod data;
mod filter;

use crate::sys::origin::{self, OwnWork};
use crate::{Handle, Severity, sys::panics};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use data::{EventData, Keeper, SpanData, Spans, Values};
pub use filter::TelemetryFilter;
use serde_json::{Map, Value};
use tracing_core::{Event, Level, LevelFilter, Metadata, Subscriber, span};
use tracing_log::NormalizeEvent;
use tracing_subscriber::filter::Filtered;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// A layer for `tracing-subscriber` that makes events of a session from what a program traces.
///
/// ```
/// use tinkex_telemetry::{Handle, TelemetryLayer};
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
/// Its name is the one that the macro was given (`info!(name: "cache.miss", …)`), else its target. Its data are
///
/// ```json
/// {"target": "my_app::cache", "spans": ["request", "lookup"], "fields": {"message": "not there", "key": 7}}
/// ```
///
/// with the spans it happened in, outermost first (the innermost 32, left out where there are none), and its fields with
/// their types: numbers and booleans as such, errors as text with their sources, what is recorded with `?` or `%` as
/// text. Nothing is allocated for it in the steady state. `TRACE` and `DEBUG` become [`Severity::Debug`], the others
/// what their names say. An event whose field panics is refused, and harms nothing else.
///
/// With [`span_closings`](Self::span_closings) a span that closes becomes an event with the span's own name, whose data
/// also have `busy_us` and `idle_us`: how long it was entered, and how long it was not, by the session's clock.
///
/// Records of the `log` facade, by way of `tracing_log::LogTracer`, count with their own target and level.
///
/// # What is left out
///
/// What telemetry itself brings about: sending it would bring about more. It is told by its origin, the first part of
/// its target ([`EXCLUDED`](Self::EXCLUDED)), on whatever thread it happens; and beyond that everything that happens on a
/// thread while it drives a session or makes a request for one, or while an event's own fields are being recorded. A
/// transport of your own that uses other crates or threads of its own needs [`exclude`](Self::exclude).
pub struct TelemetryLayer {
    handle: Handle,
    filter: TelemetryFilter,
    has_span_closings: bool,
    /// Whether the filter has been asked already.
    is_filtered: bool,
    /// Tells the layers of a subscriber apart.
    id: u64,
}

impl TelemetryLayer {
    /// The crates whose events and records never become telemetry: this one, and what transports are made of.
    pub const EXCLUDED: &'static [&'static str] = filter::ORIGINS;

    /// A layer for a session: everything of level INFO and above. It does not keep the session alive.
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

    /// Up to which level events and spans are taken. Default: INFO.
    #[must_use]
    pub fn level(mut self, level: impl Into<LevelFilter>) -> Self {
        self.filter.set_level(level.into());
        self
    }

    /// Another level for a target and its modules. The longest that fits counts.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>, level: impl Into<LevelFilter>) -> Self {
        self.filter.set_target(target.into(), level.into());
        self
    }

    /// Leaves out a target and its modules, as what a transport of the application's own brings about.
    #[must_use]
    pub fn exclude(mut self, target: impl Into<String>) -> Self {
        self.filter.exclude(target.into());
        self
    }

    /// Whether spans that close become events, too. Default: no. Their fields are kept until then, which allocates.
    #[must_use]
    pub const fn span_closings(mut self, has_span_closings: bool) -> Self {
        self.has_span_closings = has_span_closings;
        self
    }

    /// The layer with what it selects as its own per-layer filter: what it does not want then costs the program next
    /// to nothing, unless another layer wants it. Without it, the layer looks at everything that other layers see.
    #[must_use]
    pub fn filtered<S>(mut self) -> Filtered<Self, TelemetryFilter, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut filter = self.filter.clone();
        if !self.handle.is_enabled() {
            filter.set_off();
        }
        self.is_filtered = true;
        self.with_filter(filter)
    }

    /// Whether anything at all is to be logged now.
    fn is_listening(&self) -> bool {
        self.handle.is_enabled() && !origin::is_own()
    }

    /// Whether a span is to be told of when it closes.
    fn follows(&self, metadata: &Metadata<'_>) -> bool {
        self.has_span_closings
            && self.is_listening()
            && self.filter.admits(*metadata.level(), metadata.target())
    }

    /// The session's monotonic time, in microseconds.
    fn now(&self) -> u64 {
        self.handle.sink().map_or(0, |sink| sink.now().as_micros())
    }

    /// The longest text that is worth keeping.
    fn room(&self) -> usize {
        let sink = self.handle.sink();
        sink.map_or(0, |sink| sink.shared().max_event_bytes)
    }

    /// Keeps the values of a span. The application's own `Debug` must not take it down from here.
    fn keep(&self, span: &mut Followed, values: &Values<'_>) {
        let _own = OwnWork::enter();
        let mut keeper = Keeper {
            fields: &mut span.fields,
            room: self.room(),
        };
        if panics::catch(|| values.record(&mut keeper)).is_none() {
            span.is_broken = true;
        }
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
            filter::LOG => event.normalized_metadata(),
            _ => None,
        };
        let target = normalized
            .as_ref()
            .map_or(metadata.target(), |metadata| metadata.target());
        let level = *metadata.level();
        let is_log = normalized.is_some();
        // Its own filter has let everything pass that comes here, but what `log` hides.
        if (!self.is_filtered || is_log) && !self.filter.admits(level, target) {
            return;
        }
        let mut spans = Spans::new();
        collect_names(context.event_span(event), &mut spans);
        let data = EventData {
            target,
            spans: &spans,
            event,
            is_log,
        };
        // A name of the macro's own making tells the file and the line.
        let name = match metadata.name() {
            name if is_log || name.starts_with("event ") => target,
            name => name,
        };
        let _own = OwnWork::enter();
        // Refused or not, it is counted.
        if let Some(sink) = self.handle.sink() {
            let shared = sink.shared();
            let _ = shared.log_written(|| sink.utc(), name, &data, severity(level));
        }
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        if !self.follows(attributes.metadata()) {
            return;
        }
        let Some(span) = context.span(id) else {
            return;
        };
        let mut followed = Followed::new(self.id, self.now());
        self.keep(&mut followed, &Values::New(attributes));
        let mut extensions = span.extensions_mut();
        if let Some(FollowedBy(all)) = extensions.get_mut() {
            all.push(followed);
        } else {
            extensions.insert(FollowedBy(Vec::from([followed])));
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if !self.has_span_closings {
            return;
        }
        let Some(span) = context.span(id) else {
            return;
        };
        let mut is_followed = false;
        with_followed(&span, self.id, |_| is_followed = true);
        if !is_followed {
            return;
        }
        // Not under the lock: a `Debug` may look at the same span.
        let mut more = Followed::new(self.id, 0);
        self.keep(&mut more, &Values::More(values));
        with_followed(&span, self.id, |followed| {
            followed.fields.append(&mut more.fields);
            followed.is_broken |= more.is_broken;
        });
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        if self.has_span_closings
            && let Some(span) = context.span(id)
        {
            with_followed(&span, self.id, |followed| followed.enter(self.now()));
        }
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        if self.has_span_closings
            && let Some(span) = context.span(id)
        {
            with_followed(&span, self.id, |followed| followed.exit(self.now()));
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
        with_followed(&span, self.id, |followed| {
            followed.settle(self.now());
            taken = Some(core::mem::replace(followed, Followed::new(self.id, 0)));
        });
        let Some(followed) = taken else {
            return;
        };
        let mut spans = Spans::new();
        collect_names(span.parent(), &mut spans);
        let metadata = span.metadata();
        let data = SpanData {
            target: metadata.target(),
            spans: &spans,
            fields: &followed.fields,
            busy_us: followed.busy,
            idle_us: followed.idle,
            is_broken: followed.is_broken,
        };
        let _own = OwnWork::enter();
        let level = severity(*metadata.level());
        self.handle.log_with(metadata.name(), &data, level);
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

/// The names of a span and of those around it. They are not handed back: to copy them costs more than to find them.
fn collect_names<'a, R: LookupSpan<'a>>(innermost: Option<SpanRef<'a, R>>, names: &mut Spans) {
    let mut next = innermost;
    while let Some(span) = next
        && names.push(span.name()).is_ok()
    {
        next = span.parent();
    }
}

/// What the layers of a subscriber keep of a span.
struct FollowedBy(Vec<Followed>);

/// A span that is told of when it closes.
struct Followed {
    layer: u64,
    fields: Map<String, Value>,
    is_broken: bool,
    busy: u64,
    idle: u64,
    /// Up to when it is counted.
    since: u64,
    /// How often it is entered and not exited, by all threads.
    entered: u32,
}

impl Followed {
    fn new(layer: u64, now: u64) -> Self {
        Self {
            layer,
            fields: Map::new(),
            is_broken: false,
            busy: 0,
            idle: 0,
            since: now,
            entered: 0,
        }
    }

    fn settle(&mut self, now: u64) {
        let passed = now.saturating_sub(self.since);
        if self.entered > 0 {
            self.busy += passed;
        } else {
            self.idle += passed;
        }
        self.since = now;
    }

    fn enter(&mut self, now: u64) {
        self.settle(now);
        self.entered += 1;
    }

    fn exit(&mut self, now: u64) {
        self.settle(now);
        self.entered = self.entered.saturating_sub(1);
    }
}

fn with_followed<'a, R: LookupSpan<'a>>(
    span: &SpanRef<'a, R>,
    layer: u64,
    work: impl FnOnce(&mut Followed),
) {
    let mut extensions = span.extensions_mut();
    if let Some(FollowedBy(all)) = extensions.get_mut()
        && let Some(followed) = all.iter_mut().find(|followed| followed.layer == layer)
    {
        work(followed);
    }
}
