//! The event bus: who is interested attaches a handler, and whoever has something to tell executes an event.
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
//! Names are dotted words. Measurements are what was measured, metadata says of what; both are borrowed, so that an
//! event allocates nothing.

mod events;
mod logger;
mod queue_state;
pub(crate) mod value;

pub use events::Events;
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
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(feature = "std")]
use crate::sys::fork::PerProcess;

/// A request begins: measurement `system_time` (nanoseconds since the Unix epoch); metadata `method`, `path`.
pub const HTTP_REQUEST_START: &str = "tinkex.http.request.start";
/// A request has its answer: measurement `duration` (nanoseconds); metadata `method`, `path`, `status`, `result` (`ok` or
/// `error`), `retry_count`.
pub const HTTP_REQUEST_STOP: &str = "tinkex.http.request.stop";
/// A request has no answer: measurement `duration` (nanoseconds); metadata `method`, `path`, `kind`, `reason`.
pub const HTTP_REQUEST_EXCEPTION: &str = "tinkex.http.request.exception";
/// A request waits in another way than before: measurement `queue_depth`; metadata `from`, `to`, `reason`, `request_id`.
pub const QUEUE_STATE_CHANGE: &str = "tinkex.queue.state_change";
/// A handler has panicked and was detached: metadata `handler_id`, `event`.
pub const HANDLER_FAILURE: &str = "tinkex.handler.failure";

/// Where handlers are attached and events executed. Clones are the same bus.
///
/// With `std` there is one for the process, [`global`](Self::global), to which sessions attach themselves; there may be
/// any number of others. Everything here may be called from any thread, and from inside a handler.
///
/// A bus belongs to the process that it was made in: in the child of a `fork()` its handlers are not called and none can
/// be attached, but the child has a [`global`](Self::global) bus of its own.
#[derive(Clone)]
pub struct Bus(Arc<Inner>);

struct Inner {
    /// How many handlers there are, so that nobody takes a lock to find none.
    attached: AtomicUsize,
    /// In the order in which they were attached. Never changed, only replaced: they are called without the lock.
    handlers: Lock<Handlers>,
    fork: Fork,
}

type Handlers = Arc<[Arc<Handler>]>;

/// An attached handler.
pub(crate) struct Handler {
    id: Box<str>,
    events: Box<[Box<str>]>,
    /// No longer once it is detached, also for those who still have it in hand.
    is_attached: AtomicBool,
    call: Box<dyn Fn(&Event<'_>) + Send + Sync>,
}

impl Bus {
    /// A bus without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            attached: AtomicUsize::new(0),
            handlers: Lock::new(Arc::new([])),
            fork: Fork::here(),
        }))
    }

    /// The process's own bus. In the child of a `fork()` a new one.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn global() -> &'static Self {
        static GLOBAL: PerProcess<Bus> = PerProcess::new();
        GLOBAL.get_or_init(Self::new)
    }

    /// Attaches a handler to one event.
    ///
    /// It is called by whoever executes the event, on that thread, and should not take long. One that executes its own
    /// event calls itself, without end unless it sees to that. Should it panic (with
    /// `std`), it is detached, reported through the `log` facade and as [`HANDLER_FAILURE`], and the others still run.
    ///
    /// # Errors
    /// When a handler with this id is attached, and in the child of a `fork()`.
    pub fn attach(
        &self,
        handler_id: &str,
        event: &str,
        handler: impl Fn(&Event<'_>) + Send + Sync + 'static,
    ) -> Result<(), AttachError> {
        self.attach_many(handler_id, [event], handler)
    }

    /// [`attach`](Self::attach) to each of several events.
    ///
    /// # Errors
    /// As there.
    pub fn attach_many<E: AsRef<str>>(
        &self,
        handler_id: &str,
        events: impl IntoIterator<Item = E>,
        handler: impl Fn(&Event<'_>) + Send + Sync + 'static,
    ) -> Result<(), AttachError> {
        self.add(HandlerId::Given(handler_id), events, Box::new(handler))
            .map(drop)
    }

    /// Detaches a handler. False when none with this id is attached.
    ///
    /// It is not called again, but on another thread a call that has begun may still be under way.
    pub fn detach(&self, handler_id: &str) -> bool {
        if self.0.fork.is_forked() {
            return false;
        }
        self.look(|handlers| {
            let handler = handlers.iter().find(|handler| *handler.id == *handler_id);
            handler.is_some_and(|handler| self.remove(handler))
        })
    }

    /// Tells the handlers of an event of it, in the order in which they were attached.
    ///
    /// Never panics and allocates nothing, as long as no handler does. When none is attached it costs the load of one
    /// word.
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

    /// Whether no handler is attached, to any event: what it takes to make one can be saved.
    #[inline]
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.attached.load(Ordering::Relaxed) == 0 || self.0.fork.is_forked()
    }

    /// The handlers that are attached, in the order in which they were.
    #[must_use]
    pub fn list(&self) -> Vec<Attached> {
        if self.is_idle() {
            return Vec::new();
        }
        let listed = |handler: &Arc<Handler>| Attached {
            handler_id: handler.id.as_ref().into(),
            events: handler.events.iter().map(|name| (**name).into()).collect(),
        };
        self.look(|handlers| handlers.iter().map(listed).collect())
    }

    /// Attaches a handler, and says which it is.
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
            // What is replaced holds nothing that is not in its place, too.
            *handlers = all;
            Ok(handler)
        });
        // One that is refused goes here, outside the lock.
        added.map_err(|(error, _)| error)
    }

    /// Detaches this very handler. False when somebody else has done it.
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
        // What the handler has captured goes with it, outside the lock, and may do as it likes.
        let _ = panics::catch(|| drop(before));
        true
    }

    /// Runs `work` with the handlers of now, without the lock.
    fn look<R>(&self, work: impl FnOnce(&[Arc<Handler>]) -> R) -> R {
        let handlers = self.0.handlers.with(|handlers| Arc::clone(handlers));
        let result = work(&handlers);
        // One that was detached meanwhile goes here.
        let _ = panics::catch(|| drop(handlers));
        result
    }

    fn call_handlers(&self, event: &Event<'_>) {
        if !self.0.fork.is_forked() {
            self.look(|handlers| self.call_each(handlers, event));
        }
    }

    fn call_each(&self, handlers: &[Arc<Handler>], event: &Event<'_>) {
        let mut failed = Vec::new();
        for handler in handlers.iter().filter(|handler| handler.wants(event)) {
            let called = panics::catch(|| (handler.call)(event));
            if called.is_none() && self.remove(handler) {
                report(handler, event);
                failed.push(handler);
            }
        }
        // Who fails at this one is only reported: it must end some time.
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
    fn wants(&self, event: &Event<'_>) -> bool {
        self.is_attached.load(Ordering::Relaxed)
            && self.events.iter().any(|name| **name == *event.name())
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// What a handler is called.
pub(crate) enum HandlerId<'a> {
    /// This and nothing else.
    Given(&'a str),
    /// This, or with a number behind it where there is one already.
    Like(&'a str),
}

/// The numbers begin where one is likely to be free.
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

/// A handler that is attached, as [`Bus::list`] tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attached {
    /// Its id.
    pub handler_id: String,
    /// The events that it is called for.
    pub events: Vec<String>,
}

/// Why a handler could not be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttachError {
    /// There is one with this id.
    AlreadyAttached(Box<str>),
    /// The bus belongs to the process whose `fork()` this one is the child of.
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

impl core::error::Error for AttachError {}
