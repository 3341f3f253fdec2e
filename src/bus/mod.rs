//! The event bus: subscribers attach handlers by event name; producers execute events.
//!
//! ```
//! # #[cfg(feature = "std")] {
//! use tinkex_telemetry::bus::Bus;
//!
//! let bus = Bus::global();
//! bus.attach("printer", "app.request.stop", |event| {
//!     println!("{} took {:?} ns", event.name(), event.measurements().u64("duration"));
//! })?;
//! bus.execute(
//!     "app.request.stop",
//!     &[("duration", 1_500.into())],
//!     &[("path", "/train".into())],
//! );
//! assert!(bus.detach("printer"));
//! # }
//! # Ok::<_, tinkex_telemetry::bus::AttachError>(())
//! ```
//!
//! Names are dotted words. Measurements hold what was measured, metadata what it was measured on. Both are borrowed, so
//! executing an event allocates nothing.

mod calls;
mod events;
mod logger;
mod queue_state;
pub(crate) mod value;

pub(crate) use calls::Calls;
pub use events::EventNames;
pub use queue_state::{QueueState, QueueStateChange, QueueStateObserver, QueueStateTracker};
pub use value::{Event, Pair, Value, Values};

use crate::sys::fork::Fork;
use crate::sys::lock::Lock;
use crate::sys::panics;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use calls::Sequences;
use core::fmt;
use core::panic::{RefUnwindSafe, UnwindSafe};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(feature = "std")]
use crate::sys::fork::PerProcess;

/// A request starts: measurement `system_time` (nanoseconds since the Unix epoch); metadata `method`, `path`, `call`,
/// `session_id`. `call` numbers the session's calls from 0: the one end of this request, a stop or an exception, has the
/// same.
pub const HTTP_REQUEST_START: &str = "tinkex.http.request.start";
/// A request got a response: measurement `duration` (nanoseconds); metadata `method`, `path`, `status`, `result` (`ok`
/// or `error`), `retry_count`, `call`, `session_id`, and `polls` where several polls are reported as one request.
pub const HTTP_REQUEST_STOP: &str = "tinkex.http.request.stop";
/// A request failed without a response, or was given up: measurement `duration` (nanoseconds); metadata `method`,
/// `path`, `kind`, `reason`, `call`, `session_id`, and `polls` where several polls are reported as one request.
pub const HTTP_REQUEST_EXCEPTION: &str = "tinkex.http.request.exception";
/// A request's queue state changed: measurement `queue_depth`, if the backend gives one; metadata `from`, `to`, `reason`,
/// `request_id`, `call` (the same in all changes of this request, in one sequence with HTTP requests), `session_id`.
pub const QUEUE_STATE_CHANGE: &str = "tinkex.queue.state_change";
/// A call of a client has been under way for long: measurements `age` (nanoseconds), `polls`; metadata `call`, `type`,
/// and where they are known `request_id`, `queue_state`, `queue_state_reason`, `last_response`; `session_id`.
pub const REQUEST_STALLED: &str = "tinkex.request.stalled";
/// A call that was reported as stalled has ended: the same, and the metadata `result` (`ok`, `error`, `cancelled` or
/// `closed`).
pub const REQUEST_STALL_ENDED: &str = "tinkex.request.stall_ended";
/// What a client's session has used so far: measurements `duration` (nanoseconds since its start), `prefilled`, `cached`,
/// `sampled`, `trained` (tokens), and `cost` if the program has given prices; metadata `session_id`.
pub const USAGE: &str = "tinkex.usage";
/// A handler panicked and was detached: metadata `handler_id`, `event`.
pub const HANDLER_FAILURE: &str = "tinkex.handler.failure";

/// An event bus: attaches handlers and executes events. Clones share the same bus.
///
/// With `std`, the process has a [`global`](Self::global) bus, to which sessions attach themselves; there may be any
/// number of others. Every method may be called from any thread, and from inside a handler.
///
/// A bus belongs to the process that created it: in the child of a `fork()` its handlers are not called and none can be
/// attached, but the child has a [`global`](Self::global) bus of its own.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

// Handlers run outside the lock, so a panic of one leaves the bus consistent.
impl UnwindSafe for Bus {}
impl RefUnwindSafe for Bus {}

struct Inner {
    /// The number of handlers, so that executing an event takes no lock while there are none.
    attached: AtomicUsize,
    /// In order of attachment. Replaced, never modified: handlers are called outside the lock.
    handlers: Lock<Handlers>,
    calls: Sequences,
    fork: Fork,
}

type Handlers = Arc<[Arc<Handler>]>;

/// An attached handler.
pub(crate) struct Handler {
    id: Box<str>,
    events: Box<[Box<str>]>,
    /// Cleared on detach, for callers that still hold a snapshot with this handler in it.
    is_attached: AtomicBool,
    call: Box<dyn Fn(&Event<'_>) + Send + Sync>,
}

impl Bus {
    /// Creates a bus without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            attached: AtomicUsize::new(0),
            handlers: Lock::new(Arc::new([])),
            calls: Sequences::new(),
            fork: Fork::here(),
        }))
    }

    /// The process-wide bus. The child of a `fork()` gets a new one.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn global() -> &'static Self {
        static GLOBAL: PerProcess<Bus> = PerProcess::new();
        GLOBAL.get_or_init(Self::new)
    }

    /// Attaches a handler to one event.
    ///
    /// The handler runs on the thread that executes the event and should return quickly. A handler that executes its
    /// own event recurses, and must bound that itself. A handler that panics (with `std`) is detached and reported
    /// through the `log` facade and as [`HANDLER_FAILURE`]; the other handlers still run.
    ///
    /// # Errors
    /// When a handler with this id is already attached, and in the child of a `fork()`.
    pub fn attach(
        &self,
        handler_id: &str,
        event: &str,
        handler: impl Fn(&Event<'_>) + Send + Sync + 'static,
    ) -> Result<(), AttachError> {
        self.attach_many(handler_id, [event], handler)
    }

    /// Attaches one handler to several events; see [`attach`](Self::attach).
    ///
    /// # Errors
    /// See [`attach`](Self::attach).
    pub fn attach_many<E: AsRef<str>>(
        &self,
        handler_id: &str,
        events: impl IntoIterator<Item = E>,
        handler: impl Fn(&Event<'_>) + Send + Sync + 'static,
    ) -> Result<(), AttachError> {
        self.add(HandlerId::Given(handler_id), events, Box::new(handler))
            .map(drop)
    }

    /// Detaches a handler. Returns false if none with this id is attached, and in the child of a `fork()`.
    ///
    /// The handler is not called again, but a call that has already begun on another thread may still be running.
    pub fn detach(&self, handler_id: &str) -> bool {
        if self.0.fork.is_forked() {
            return false;
        }
        self.with_handlers(|handlers| {
            let handler = handlers.iter().find(|handler| *handler.id == *handler_id);
            handler.is_some_and(|handler| self.remove(handler))
        })
    }

    /// Calls the handlers attached to an event, in order of attachment.
    ///
    /// Never panics and allocates nothing, as long as no handler does. Without handlers it costs one atomic load.
    #[inline]
    pub fn execute<'a>(
        &self,
        event: &'a str,
        measurements: &'a [Pair<'a>],
        metadata: &'a [Pair<'a>],
    ) {
        if self.0.attached.load(Ordering::Relaxed) > 0 {
            self.call_handlers(&Event::new(event, measurements, metadata));
        }
    }

    /// Whether no handler is attached to any event, so that preparing one would be wasted work.
    #[inline]
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.attached.load(Ordering::Relaxed) == 0 || self.0.fork.is_forked()
    }

    /// The attached handlers, in order of attachment; none in the child of a `fork()`.
    #[must_use]
    pub fn list(&self) -> Vec<Attached> {
        if self.is_idle() {
            return Vec::new();
        }
        let listed = |handler: &Arc<Handler>| Attached {
            handler_id: handler.id.as_ref().into(),
            events: handler.events.iter().map(|name| (**name).into()).collect(),
        };
        self.with_handlers(|handlers| handlers.iter().map(listed).collect())
    }

    /// Attaches a handler and returns it.
    pub(crate) fn add<E: AsRef<str>>(
        &self,
        id: HandlerId<'_>,
        events: impl IntoIterator<Item = E>,
        call: Box<dyn Fn(&Event<'_>) + Send + Sync>,
    ) -> Result<Arc<Handler>, AttachError> {
        if self.0.fork.is_forked() {
            return Err(AttachError::Forked);
        }
        let events = events.into_iter().map(|name| name.as_ref().into());
        let events: Box<[_]> = events.collect();
        let added = self.0.handlers.with(|handlers| {
            let is_taken = |id: &str| handlers.iter().any(|handler| *handler.id == *id);
            let id: Box<str> = match id {
                HandlerId::Given(id) if is_taken(id) => {
                    return Err((AttachError::AlreadyAttached(id.into()), call));
                }
                HandlerId::Given(id) => id.into(),
                HandlerId::Like(stem) => free_id(stem, handlers.len() + 1, is_taken),
            };
            let handler = Arc::new(Handler {
                id,
                events,
                is_attached: AtomicBool::new(true),
                call,
            });
            let all = handlers.iter().chain([&handler]).cloned();
            let all: Handlers = all.collect();
            self.0.attached.store(all.len(), Ordering::Relaxed);
            // Dropping the old list under the lock runs no destructor: the new one holds every handler in it.
            *handlers = all;
            Ok(handler)
        });
        // A refused handler is dropped here, outside the lock.
        added.map_err(|(error, _)| error)
    }

    /// Detaches exactly this handler. Returns false if it was already detached.
    pub(crate) fn remove(&self, handler: &Arc<Handler>) -> bool {
        if self.0.fork.is_forked() || !handler.is_attached.swap(false, Ordering::Relaxed) {
            return false;
        }
        let before = self.0.handlers.with(|handlers| {
            let others = handlers.iter().filter(|other| !Arc::ptr_eq(other, handler));
            let others: Handlers = others.cloned().collect();
            self.0.attached.store(others.len(), Ordering::Relaxed);
            core::mem::replace(handlers, others)
        });
        // Drops what the handler captured outside the lock: it is user code.
        let _ = panics::contain(|| drop(before));
        true
    }

    /// Runs `work` on a snapshot of the handlers, outside the lock.
    fn with_handlers<R>(&self, work: impl FnOnce(&[Arc<Handler>]) -> R) -> R {
        let handlers = self.0.handlers.with(|handlers| Arc::clone(handlers));
        let result = work(&handlers);
        // A handler that was detached meanwhile is dropped here.
        let _ = panics::contain(|| drop(handlers));
        result
    }

    fn call_handlers(&self, event: &Event<'_>) {
        if !self.0.fork.is_forked() {
            self.with_handlers(|handlers| self.call_each(handlers, event));
        }
    }

    fn call_each(&self, handlers: &[Arc<Handler>], event: &Event<'_>) {
        let mut failed = Vec::new();
        for handler in handlers.iter().filter(|handler| handler.handles(event)) {
            let called = panics::contain(|| (handler.call)(event));
            if called.is_none() && self.remove(handler) {
                report(handler, event);
                failed.push(handler);
            }
        }
        // A failure while handling a failure is only logged, so that this cannot recurse.
        if event.name() != HANDLER_FAILURE {
            for handler in failed {
                let metadata = [
                    ("handler_id", Value::Str(&handler.id)),
                    ("event", Value::Str(event.name())),
                ];
                self.execute(HANDLER_FAILURE, &[], &metadata);
            }
        }
    }
}

impl Handler {
    fn handles(&self, event: &Event<'_>) -> bool {
        self.is_attached.load(Ordering::Relaxed)
            && self.events.iter().any(|name| **name == *event.name())
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// How a new handler's id is chosen.
pub(crate) enum HandlerId<'a> {
    /// Exactly this.
    Given(&'a str),
    /// This, with a number appended if it is taken.
    Like(&'a str),
}

/// `stem`, or `stem-n` with the first free `n` starting at `number`, which is usually free.
fn free_id(stem: &str, number: usize, is_taken: impl Fn(&str) -> bool) -> Box<str> {
    if !is_taken(stem) {
        return stem.into();
    }
    let mut numbered = (number..).map(|number| format!("{stem}-{number}"));
    let free = numbered.find(|id| !is_taken(id)).unwrap_or_default();
    free.into()
}

#[cold]
fn report(handler: &Handler, event: &Event<'_>) {
    let report = || {
        log::error!(
            target: "tinkex_telemetry",
            "the handler {:?} panicked at the event {:?} and was detached",
            handler.id,
            event.name()
        );
    };
    let _ = panics::catch(report);
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("attached", &self.0.attached.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// An attached handler, as listed by [`Bus::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// The handler's id.
    pub handler_id: String,
    /// The names of the events it handles.
    pub events: Vec<String>,
}

/// The reason a handler could not be attached.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// A handler with this id is already attached.
    AlreadyAttached(Box<str>),
    /// The bus belongs to the parent of this forked process.
    Forked,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyAttached(id) => write!(f, "a handler with the id {id:?} is attached"),
            Self::Forked => f.write_str("the bus is the parent process's"),
        }
    }
}

crate::text::debug_with_causes!(AttachError);

impl core::error::Error for AttachError {}
