//! Client telemetry for Tinker-like backends.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

mod builder;
mod clock;
mod config;
mod diagnostic;
mod driver;
mod encode;
mod engine;
mod entropy;
mod exception;
mod fields;
mod handle;
mod lock;
#[cfg(feature = "std")]
mod park;
mod reporter;
mod retry;
mod ring;
mod scratch;
mod session;
mod severity;
mod shared;
mod spawner;
mod stats;
mod text;
mod time;
mod transport;
mod wait;

#[path = "../features/mod.rs"]
mod features;

pub use builder::{BuildError, Builder, Memory};
pub use clock::Clock;
pub use config::{OptionError, Options};
pub use diagnostic::{Diagnostic, DiagnosticKind};
pub use driver::Driver;
pub use engine::AlreadyDriven;
pub use entropy::Entropy;
pub use exception::{AnyError, Classify, Fault, StatusError};
#[allow(
    unused_imports,
    unreachable_pub,
    reason = "there may be no feature that is switched on"
)]
pub use features::*;
pub use fields::Fields;
pub use handle::Handle;
pub use reporter::Reporter;
pub use retry::RetryAfter;
pub use session::{IdentityError, SessionId, Str};
pub use severity::{ParseSeverityError, Severity};
pub use spawner::{Placement, Runtime, SpawnError, Spawner, WouldDeadlock};
pub use stats::{Drain, DropReason, Dropped, Refusal, Refused, Stats};
pub use time::{Instant, Timestamp};
pub use transport::{Batch, Receipt, SendError, SetupError, Transport};
pub use uuid::Uuid;

/// The twins of [`Transport`] and [`Spawner`] without `Send`.
///
/// They have a module of their own because both pairs in scope would make their methods ambiguous.
pub mod local {
    pub use crate::spawner::LocalSpawner;
    pub use crate::transport::LocalTransport;
}

#[doc(hidden)]
pub mod __private {
    pub use crate::fields::{Field, FieldList};
}
