//! Client telemetry for Tinker-like backends: bounded, batched, retried, and accounted for to the last event.
//!
//! ```no_run
//! # #[cfg(all(feature = "thread", feature = "ureq"))] {
//! use tinkex_telemetry::{Severity, fields};
//!
//! // A guard: dropping it sends what is still queued.
//! let telemetry = tinkex_telemetry::init("session-123")?;
//! telemetry.log("app.started", fields! { version: "1.0.0", workers: 4 });
//! if let Err(error) = std::fs::read("weights.bin") {
//!     telemetry.log_exception(&error, Severity::Error);
//! }
//! # }
//! # Ok::<_, Box<dyn core::error::Error>>(())
//! ```
//!
//! # How an event travels
//!
//! ```text
//!  log(name, data)                    the caller's thread; nothing here waits
//!     encode        JSON, at most max_event_bytes, in a reused buffer
//!     queue         assigns index and id, or refuses and counts the event
//!  ─────────────────────────────────────────────────────────────────────────────
//!  driver                             one thread or one task per session
//!     batch         when enough events are queued, the oldest is old enough, or on flush
//!     send          Transport::send, one attempt with a deadline
//!       ├─ success                    delivered, or handed over
//!       ├─ retryable                  sent again, after a backoff or the server's Retry-After
//!       ├─ invalid or too large       halved until the events at fault stand alone, which are dropped
//!       └─ rejected                   dropped
//!  ─────────────────────────────────────────────────────────────────────────────
//!  stats()          accepted = delivered + handed over + dropped + queued
//! ```
//!
//! The core is a state machine that does no I/O and reads no clock. A [`Transport`] sends batches, a
//! [`Clock`](runtime::Clock) provides time, and a [`Spawner`](runtime::Spawner) runs the [`Driver`](session::Driver);
//! everything that touches a socket or an executor is an adapter behind a feature.
//!
//! # Three ways to use it
//!
//! **In one line**, with the features `thread` and `ureq`: `init` above. It takes the backend's address and key from
//! the environment, runs the session on a dedicated thread, and works with any executor.
//!
//! **With parts of your choice**, from this crate or your own: [`Reporter::builder`], the [options](Options), a
//! transport, a runtime, [`start`](session::Builder::start). Here with the embedded backend of the feature `collector`:
//!
//! ```
//! # #[cfg(all(feature = "thread", feature = "ureq", feature = "collector"))] {
//! use core::time::Duration;
//! use tinkex_telemetry::collector::{Collector, Reply};
//! use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq, fields};
//!
//! let backend = Collector::start()?;
//! backend.script([Reply::status(503)]);
//!
//! let reporter = Reporter::builder("session-123")
//!     .transport(HttpTransport::new(Config::new(&backend.url(), "any key")?, Ureq::new()))
//!     .runtime(Thread)
//!     .retry_base_delay(Duration::from_millis(10))
//!     .enabled(true)
//!     .start()?;
//! let telemetry = reporter.handle(); // to pass around: cheap to clone, no type parameters
//! assert!(telemetry.log("train.step", fields! { step: 1, loss: 0.5 }));
//!
//! let drain = reporter.stop_blocking(Duration::from_secs(5))?;
//! assert!(drain.all_delivered());
//! assert_eq!(backend.session("session-123").map(|session| session.len()), Some(3));
//! # }
//! # Ok::<_, Box<dyn core::error::Error>>(())
//! ```
//!
//! **With an executor that has no adapter**: [`build`](session::Builder::build) returns the
//! [`Driver`](session::Driver), whose [`run`](session::Driver::run) is a future for any executor. Without an allocator,
//! [`build_in`](session::Builder::build_in) does the same in static [`Memory`](session::Memory).
//!
//! ```
//! # #[cfg(feature = "thread")] {
//! use core::time::Duration;
//! use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport, fields};
//!
//! struct Stdout;
//!
//! impl Transport for Stdout {
//!     async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
//!         println!("{}", String::from_utf8_lossy(batch.body()));
//!         Ok(Receipt::delivered())
//!     }
//! }
//!
//! // `Thread` is only the clock here; it works on any executor.
//! let builder = Reporter::builder("session-123").transport(Stdout).clock(Thread);
//! let (telemetry, driver) = builder.enabled(true).build()?;
//!
//! let executor = tokio::runtime::Builder::new_current_thread().build()?; // or any other
//! executor.spawn(driver.run());
//! executor.block_on(async {
//!     telemetry.log("train.step", fields! { step: 1, loss: 0.5 });
//!     let drain = telemetry.stop(Duration::from_secs(5)).await;
//!     assert!(drain.all_delivered());
//! });
//! # }
//! # Ok::<_, Box<dyn core::error::Error>>(())
//! ```
//!
//! # Features
//!
//! Features are additive: any combination builds.
//!
//! | feature | what it adds |
//! |---|---|
//! | `std` | on by default: locks, the environment, blocking waits, backtraces |
//! | `alloc` | a queue that grows, shared handles; part of `std` |
//! | `thread` | the runtime `Thread`: a dedicated thread per session, no executor needed |
//! | `tokio` | the runtime `Tokio`, both flavours and `LocalSet` |
//! | `smol` | the runtime `Smol`: its global executor, an `Executor` or a `LocalExecutor` |
//! | `async-std` | the runtime `AsyncStd`: async-std is discontinued |
//! | `embassy` | the runtime `Embassy`, over `embassy-time` |
//! | `http` | `HttpTransport`, the trait `HttpClient` for your own clients, `Config` |
//! | `ureq` | the HTTP client `Ureq`, for any executor or none; with `thread` also `init` |
//! | `reqwest` | the HTTP client `Reqwest`, over a tokio runtime |
//! | `surf` | the HTTP client `Surf`, over the program's own `surf::Client`: surf is unmaintained |
//! | `otlp` | `otlp`, a transport that sends events as log records to an OpenTelemetry collector |
//! | `gzip` | compression of what `otlp` sends |
//! | `nats` | `nats`, a transport that stores events in a stream of NATS JetStream, on tokio |
//! | `tracing` | `TelemetryLayer` for `tracing-subscriber`: events, span closings and `log` records become events |
//! | `anyhow` | capture of `anyhow::Error` |
//! | `eyre` | capture of `eyre::Report` |
//! | `reqwest-middleware` | HTTP events for a reqwest client: `HttpEvents` as a middleware |
//! | `tower` | HTTP events for services, client or server: `HttpEvents` as a layer |
//! | `client` | `client`, clients of the backend's own API with built-in telemetry |
//! | `signal` | `signal`: stop before a signal ends the program |
//! | `spool` | `spool`, events on disk until they are sent, for outages and kills |
//! | `sim` | `sim`, a deterministic simulation of clock, executor, network, server and host, for tests |
//! | `collector` | `collector`, an embedded backend for tests and development |
//! | `cli` | the program `tinkex-telemetry` |
//!
//! # What is promised
//!
//! * [`log`](Handle::log) never waits for I/O, never panics, and in the steady state allocates nothing of its own. It
//!   returns whether the event was accepted. An error or panic in an event's data affects only that event:
//!   whatever its `Serialize` does, what is queued is JSON that every conforming reader takes, nested at most
//!   `max_data_depth` deep. Data, fields and texts that contain themselves are cut.
//! * An event that the backend refuses is dropped alone: the batch around it is halved until it stands alone.
//! * Memory is bounded, in events and in bytes. A full queue refuses new events; one fatal exception and `SESSION_END`
//!   always fit: their space is reserved, and errors have a [reserve](Options::reserve).
//! * The [ledger](Stats) always balances, and each loss has a [drop reason](stats::DropReason) or a
//!   [refusal](stats::Refusal).
//! * Events are sent in the order of their indices. An event lost before the session's end leaves a gap.
//! * An event's id and a batch's idempotency key stay the same across attempts, so that the backend can discard
//!   duplicates.
//! * Every wait returns by its deadline, whatever server, transport and executor do, even while the executor is blocked,
//!   and at once if there is no driver.
//! * What a session's own work logs does not reach it: a logger may forward every record to a session. It is refused as
//!   [`OwnWork`](stats::Refusal::OwnWork).
//!
//! # What is not promised
//!
//! * The queue is in memory: events still queued when the process is killed or aborts are lost. With the feature `spool`
//!   they are on disk as soon as their batch is.
//! * `std::process::exit` drops nothing, and the end of `main` drops no value in a `static` or on another thread: call
//!   [`stop_blocking`](Handle::stop_blocking) first.
//! * Where no other thread runs the driver, as on a current-thread executor, dropping a [`Reporter`] only requests a
//!   stop; await [`stop`](Handle::stop) where it matters.
//! * Whether a panic will be caught, or is the second of its thread and aborts, cannot be known in a panic hook
//!   (`std::thread::panicking` is true in each): the hook waits for delivery only on the thread of `main`, with
//!   `panic = "abort"`, and where [`PanicHook::timeout`](capture::PanicHook::timeout) asks for it.
//! * A session does not continue in the child of a `fork()`: `log` returns false, waits return at once, nothing is
//!   sent, and the parent sends what was queued. Start a new session in the child.
//! * Delivery is at least once: if a response is lost, the batch is sent again.
//! * A `Serialize`, `Debug` or `Display` that recurses without writing anything, or that ignores errors and goes on, is
//!   not stopped. `Some` and newtype structs are counted, although they write nothing; a type that passes the serializer
//!   on by itself is not seen. Without `std` the stack that a text takes is not bounded.
//! * `log` takes a lock, under which the queue may grow. In a signal handler it can hang forever, as anything that takes
//!   a lock or allocates; so it can in a global allocator that logs its own calls.
//! * Where a program has set `SIGPIPE` to its default action, as some do for pipes, writing to a TLS connection that the
//!   server has closed ends the process: Rust's own default, to ignore it, is needed.
//! * Without an allocator the waits of a [`Reporter`] act when they are first polled, not when they are called.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

#[cfg(has_arc)]
#[cfg_attr(docsrs, doc(cfg(feature = "alloc")))]
pub mod bus;
pub mod capture;
mod clock;
pub mod diagnostic;
mod driver;
mod engine;
pub mod event;
pub mod session;
mod spawner;
pub mod stats;
mod sys;
mod text;
pub mod time;
pub mod transport;

// The adapters live next to the core, a file or folder per feature. One crate holds both because the adapters depend on
// the core and this crate re-exports them, and so that users get one version and one documentation. This is the only
// `#[path]`; `ci/layers` checks that nothing else in `src/` names the adapters.
#[path = "../features/mod.rs"]
mod features;

pub use event::Severity;
#[cfg(feature = "alloc")]
#[cfg_attr(docsrs, doc(cfg(feature = "alloc")))]
pub use session::Telemetry;
pub use session::{GiveUp, Handle, Options, Reporter};
pub use stats::{Drain, Stats};
pub use transport::{Batch, Receipt, SendError, Transport};

#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use capture::install_panic_hook;

#[cfg(feature = "async-std")]
#[cfg_attr(docsrs, doc(cfg(feature = "async-std")))]
pub use features::async_std::AsyncStd;
#[cfg(feature = "embassy")]
#[cfg_attr(docsrs, doc(cfg(feature = "embassy")))]
pub use features::embassy::Embassy;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use features::http::{Config, HttpTransport};
#[cfg(all(feature = "thread", feature = "ureq"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "thread", feature = "ureq"))))]
pub use features::init::{InitError, init};
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use features::reqwest::Reqwest;
#[cfg(feature = "smol")]
#[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
pub use features::smol::Smol;
#[cfg(feature = "surf")]
#[cfg_attr(docsrs, doc(cfg(feature = "surf")))]
pub use features::surf::Surf;
#[cfg(feature = "thread")]
#[cfg_attr(docsrs, doc(cfg(feature = "thread")))]
pub use features::thread::Thread;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use features::tokio::Tokio;
#[cfg(feature = "ureq")]
#[cfg_attr(docsrs, doc(cfg(feature = "ureq")))]
pub use features::ureq::Ureq;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub use features::cli;
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub use features::client;
#[cfg(feature = "collector")]
#[cfg_attr(docsrs, doc(cfg(feature = "collector")))]
pub use features::collector;
#[cfg(feature = "nats")]
#[cfg_attr(docsrs, doc(cfg(feature = "nats")))]
pub use features::nats;
#[cfg(feature = "otlp")]
#[cfg_attr(docsrs, doc(cfg(feature = "otlp")))]
pub use features::otlp;
#[cfg(feature = "signal")]
#[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
pub use features::signal;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub use features::sim;
#[cfg(feature = "spool")]
#[cfg_attr(docsrs, doc(cfg(feature = "spool")))]
pub use features::spool;
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use features::tracing;
#[cfg(any(feature = "collector", feature = "sim"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "collector", feature = "sim"))))]
pub use features::wire;

/// HTTP: the transport for the backend's wire format, the HTTP clients it uses, and events for an application's own
/// requests.
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http {
    pub use crate::features::http::{
        BoxHttpClient, Config, ConfigError, ConfigProblem, HttpCall, HttpClient, HttpError,
        HttpEvents, HttpTransport, MAX_RESPONSE_BYTES, Observed, ResponseBounds, RetryCount,
    };
    // An `HttpClient` needs both, in the versions that this crate uses.
    #[cfg(feature = "reqwest")]
    #[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
    pub use crate::features::reqwest::{Reqwest, ReqwestBuilder};
    #[cfg(feature = "surf")]
    #[cfg_attr(docsrs, doc(cfg(feature = "surf")))]
    pub use crate::features::surf::Surf;
    #[cfg(feature = "tower")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    pub use crate::features::tower::{ObservedBody, ObservedFuture};
    #[cfg(feature = "ureq")]
    #[cfg_attr(docsrs, doc(cfg(feature = "ureq")))]
    pub use crate::features::ureq::{Ureq, UreqBuilder};
    #[doc(no_inline)]
    pub use ::{bytes, http};
}

/// Runtimes: the clock and executor a session runs on, and the traits to implement your own.
pub mod runtime {
    pub use crate::clock::Clock;
    #[cfg(feature = "async-std")]
    #[cfg_attr(docsrs, doc(cfg(feature = "async-std")))]
    pub use crate::features::async_std::AsyncStd;
    #[cfg(feature = "embassy")]
    #[cfg_attr(docsrs, doc(cfg(feature = "embassy")))]
    pub use crate::features::embassy::Embassy;
    #[cfg(all(feature = "alloc", feature = "embassy"))]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "alloc", feature = "embassy"))))]
    pub use crate::features::embassy::EmbassyPool;
    #[cfg(feature = "smol")]
    #[cfg_attr(docsrs, doc(cfg(feature = "smol")))]
    pub use crate::features::smol::Smol;
    #[cfg(feature = "thread")]
    #[cfg_attr(docsrs, doc(cfg(feature = "thread")))]
    pub use crate::features::thread::Thread;
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub use crate::features::tokio::Tokio;
    pub use crate::spawner::{Placement, Runtime, SpawnError, Spawner, WouldDeadlock};
}

/// Targets of the crates whose records telemetry itself causes, for loggers that forward records to a session.
pub mod targets {
    pub use crate::features::origins::{ORIGINS, is_transport};
}

/// Transports and spawners without `Send`, for bare metal and single-threaded executors.
///
/// A separate module because importing both a trait and its local counterpart makes their methods ambiguous.
pub mod local {
    pub use crate::spawner::LocalSpawner;
    pub use crate::transport::LocalTransport;
}

/// Pages about more than one item.
pub mod docs {
    /// Declares pages. Pages link to one another by label, and Markdown takes a label's first definition: the ones here
    /// lead to modules in rustdoc, those in the file to files elsewhere. `tests/zoo` and `tests/embedded` compile the
    /// pages' code.
    macro_rules! page {
        ($($name:ident: $file:expr,)*) => {$(
            #[cfg_attr(
                not(doctest),
                doc = "[architecture]: architecture",
                doc = "[bare-metal]: bare_metal",
                doc = "[capture]: capture",
                doc = "[delivery]: delivery",
                doc = "[dependencies]: dependencies",
                doc = "[options]: options",
                doc = "[performance]: performance",
                doc = "[runtimes]: runtimes",
                doc = "[spool]: spool",
                doc = "[testing]: testing",
                doc = "[queries]: queries",
                doc = "[tool]: tool",
                doc = "",
                doc = include_str!($file)
            )]
            pub mod $name {}
        )*};
    }

    page! {
        architecture: "../docs/architecture.md",
        bare_metal: "../docs/bare-metal.md",
        capture: "../docs/capture.md",
        delivery: "../docs/delivery.md",
        dependencies: "../docs/dependencies.md",
        options: "../docs/options.md",
        performance: "../docs/performance.md",
        runtimes: "../docs/runtimes.md",
        scale: "../docs/scale.md",
        spool: "../docs/spool.md",
        testing: "../docs/testing.md",
        queries: "../docs/queries.md",
        // docs/tool.md without its pictures: see `build.rs`.
        tool: concat!(env!("OUT_DIR"), "/tool.md"),
    }
}

#[doc(hidden)]
pub mod __private {
    pub use crate::capture::outcome::{ByNever, NoOutcome, OnError, Probe, SomeOutcome};
    pub use crate::event::exception::{ByBox, ByError, ByText, Stack};
    pub use crate::event::fields::{Field, FieldList, is_among, without_raw_prefix};
}
