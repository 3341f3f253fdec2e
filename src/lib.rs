//! Client telemetry for Tinker-like backends: bounded, batched, retried, and accounted for to the last event.
//!
//! ```no_run
//! # #[cfg(all(feature = "thread", feature = "ureq"))] {
//! use tinkex_telemetry::{Severity, fields};
//!
//! // A guard: what is left is sent when it is dropped.
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
//!     encode        JSON, at most max_event_bytes, in a buffer that is used again
//!     queue         takes its index and its id, or is refused and counted
//!  ─────────────────────────────────────────────────────────────────────────────
//!  driver                             one thread or one task for each session
//!     batch         when enough events are queued, old enough, or a flush is asked for
//!     send          Transport::send, one attempt against a deadline
//!       ├─ success                    delivered, or handed over
//!       ├─ worth another attempt      again, after a backoff or the server's Retry-After
//!       ├─ too large                  halved; a single event is dropped
//!       └─ refused for good           dropped
//!  ─────────────────────────────────────────────────────────────────────────────
//!  stats()          accepted = delivered + handed over + dropped + queued
//! ```
//!
//! The part in the middle is a state machine that does no I/O and reads no clock. A [`Transport`] carries batches, a
//! [`Clock`] tells the time, a [`Spawner`] runs the [`Driver`]; everything that touches a socket or an executor is an
//! adapter behind a feature.
//!
//! # Three ways to use it
//!
//! **In one line**, with the features `thread` and `ureq`: `init` above. It takes address and key from the environment,
//! gives the session a thread of its own, and works beside every executor.
//!
//! **With parts of your choice**, of this crate or of your own: [`Reporter::builder`], the [options](Options), a
//! transport, a runtime, [`start`](Builder::start). Here with the embedded backend of the feature `collector`:
//!
//! ```
//! # #[cfg(all(feature = "thread", feature = "ureq", feature = "collector"))] {
//! use core::time::Duration;
//! use tinkex_telemetry::collector::{Answer, Collector};
//! use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq, fields};
//!
//! let backend = Collector::start()?;
//! backend.script([Answer::status(503)]);
//!
//! let reporter = Reporter::builder("session-123")
//!     .transport(HttpTransport::new(Config::new(&backend.url(), "any key")?, Ureq::new()))
//!     .runtime(Thread)
//!     .retry_base_delay(Duration::from_millis(10))
//!     .enabled(true)
//!     .start()?;
//! let telemetry = reporter.handle(); // for everybody else: cheap to clone, without type parameters
//! assert!(telemetry.log("train.step", fields! { step: 1, loss: 0.5 }));
//!
//! let drain = reporter.stop_blocking(Duration::from_secs(5))?;
//! assert!(drain.all_delivered());
//! assert_eq!(backend.session("session-123").map(|session| session.len()), Some(3));
//! # }
//! # Ok::<_, Box<dyn core::error::Error>>(())
//! ```
//!
//! **With an executor that has no adapter**: [`build`](Builder::build) hands out the [`Driver`], and anything that runs a
//! future runs it. Without an allocator it is [`build_in`](Builder::build_in), in [`Memory`] that the program gives.
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
//! // `Thread` is only the clock here, and works everywhere.
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
//! They only add; any set of them builds together.
//!
//! | feature | what it adds |
//! |---|---|
//! | `std` | on by default: locks, the environment, blocking waits, backtraces |
//! | `alloc` | a queue that grows, shared handles; part of `std` |
//! | `thread` | the runtime `Thread`: a dedicated thread for each session, no executor needed |
//! | `tokio` | the runtime `Tokio`, both flavours and `LocalSet` |
//! | `smol` | the runtime `Smol`: its global executor, an `Executor` or a `LocalExecutor` |
//! | `async-std` | the runtime `AsyncStd`, for programs that have it: async-std is discontinued |
//! | `embassy` | the runtime `Embassy`, over `embassy-time`; time driver and tick rate are the program's |
//! | `http` | `HttpTransport`, the trait `HttpClient` for clients of your own, `Config` |
//! | `ureq` | the HTTP client `Ureq`, for every executor and for none; with `thread` also `init` |
//! | `reqwest` | the HTTP client `Reqwest`, for tokio |
//! | `surf` | the HTTP client `Surf`, over a `surf::Client` of the program's own (`https://` needs one of surf's TLS features): surf is unmaintained |
//! | `tracing` | `TelemetryLayer` for `tracing-subscriber`: events, spans that close and `log` records become events |
//! | `anyhow` | capture of `anyhow::Error` |
//! | `eyre` | capture of `eyre::Report` |
//! | `reqwest-middleware` | HTTP events of a reqwest client: `HttpEvents` is a middleware |
//! | `tower` | HTTP events of services, client or server: `HttpEvents` is a layer |
//! | `client` | `client`, the clients of the backend itself (`ServiceClient`, `SamplingClient`, `TrainingClient`), which report by themselves |
//! | `sim` | `sim`, a deterministic simulation of clock, executor, network, server and host, for tests |
//! | `collector` | `collector`, an embedded backend for tests and development, and the program `tinkex-collector` |
//!
//! # What is promised
//!
//! * [`log`](Handle::log) never waits for I/O, never panics, and in the steady state allocates nothing of its own. It
//!   says whether the event was accepted. What goes wrong in an event's data harms that event alone.
//! * Memory is bounded, in events and in bytes. A full queue refuses new events; one fatal exception and the session's
//!   end have a reserve that it cannot take away.
//! * The [ledger](Stats) balances at every instant, and each loss has a [reason](DropReason) or a [refusal](Refusal).
//! * Events leave in the order of their indices, in which an event that is lost before the session's end leaves a gap.
//! * An event's id and a batch's idempotency key stay the same over all attempts, so that what is sent twice is
//!   recognized.
//! * Every wait ends by its deadline, whatever server, transport and executor do, and at once when there is no driver.
//!
//! # What is not
//!
//! * The queue is in memory: what is in it when the process is killed or aborts is lost.
//! * `std::process::exit` and the end of `main` drop nothing that is in a `static` or belongs to another thread: call
//!   [`stop_blocking`](Handle::stop_blocking) before.
//! * On an executor, dropping a [`Reporter`] only asks for the end; await [`stop`](Handle::stop) where it matters.
//! * A session does not live on in the child of a `fork()`. There `log` says false, waits end at once, nothing is sent,
//!   and what was queued is left to the parent. Open a session of its own there.
//! * Delivery is at least once: an answer that gets lost makes the batch come again.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    all(feature = "alloc", not(has_arc)),
    allow(
        dead_code,
        reason = "without shared handles a session lives in memory that is given"
    )
)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

#[cfg(has_arc)]
#[cfg_attr(docsrs, doc(cfg(feature = "alloc")))]
pub mod bus;
mod capture;
mod clock;
mod diagnostic;
mod driver;
mod engine;
mod event;
mod session;
mod spawner;
mod stats;
mod sys;
mod text;
mod time;
mod transport;

#[path = "../features/mod.rs"]
mod features;

/// Pages that are about more than one item.
pub mod docs {
    // Its code is compiled, and run, by `tests/embedded`.
    #[cfg_attr(not(doctest), doc = include_str!("../docs/bare-metal.md"))]
    pub mod bare_metal {}
}

#[cfg(has_arc)]
#[cfg_attr(docsrs, doc(cfg(feature = "alloc")))]
pub use bus::{Bus, QueueState, QueueStateChange, QueueStateObserver, QueueStateTracker};
pub use capture::{Capture, Outcome};
#[cfg(has_arc)]
pub use capture::{LocalTask, Task};
#[cfg(feature = "std")]
pub use capture::{PanicHook, install_panic_hook};
pub use clock::Clock;
pub use diagnostic::{Diagnostic, DiagnosticKind};
pub use engine::retry::RetryAfter;
pub use event::{AnyError, Classify, Fault, Fields, ParseSeverityError, Severity, StatusError};
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use event::{Draft, UserFault, Verdict};
#[allow(
    unused_imports,
    unreachable_pub,
    reason = "there may be no feature that is switched on"
)]
pub use features::*;
pub use session::{
    AlreadyDriven, AsHandle, BuildError, Builder, Driver, Entropy, Handle, IdentityError, Memory,
    OptionError, Options, Reporter, SessionId, Uuid,
};
pub use spawner::{Placement, Runtime, SpawnError, Spawner, WouldDeadlock};
pub use stats::{Drain, DropReason, Dropped, Refusal, Refused, Stats};
pub use text::Str;
pub use time::{Instant, Timestamp};
pub use transport::{Batch, Receipt, SendError, SetupError, Transport};

/// The twins of [`Transport`] and [`Spawner`] without `Send`.
///
/// They have a module of their own because both pairs in scope would make their methods ambiguous.
pub mod local {
    pub use crate::spawner::LocalSpawner;
    pub use crate::transport::LocalTransport;
}

#[doc(hidden)]
pub mod __private {
    pub use crate::capture::{ByBox, ByError, ByNever, Found, NoOutcome, Probe, SomeOutcome};
    pub use crate::event::exception::Stack;
    pub use crate::event::fields::{Field, FieldList};
}
