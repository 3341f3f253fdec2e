//! Sessions: building, logging, waiting and stopping.
//!
//! A [`Builder`] starts a session, the [`Reporter`] owns it, and applications pass [`Handle`]s around.

mod as_handle;
pub(crate) mod builder;
mod context;
#[cfg(feature = "std")]
mod current;
mod driven;
mod gate;
pub(crate) mod handle;
mod host;
pub(crate) mod identity;
#[cfg(feature = "std")]
mod live;
mod logging;
#[cfg(feature = "std")]
mod losses;
mod off;
#[cfg(has_arc)]
pub(crate) mod on_bus;
pub(crate) mod options;
mod owner;
mod place;
pub(crate) mod reporter;
mod reporting;
#[cfg(feature = "std")]
mod scrubbing;
mod session_ref;
pub(crate) mod shared;
#[cfg(feature = "alloc")]
pub(crate) mod spawning;
#[cfg(feature = "std")]
pub(crate) mod switch;
#[cfg(feature = "alloc")]
mod telemetry;
pub(crate) mod wait;
#[cfg(feature = "alloc")]
mod waits;

pub use crate::engine::{AlreadyDriven, GiveUp};
pub use crate::sys::entropy::Entropy;
pub use crate::text::Str;
pub use as_handle::AsHandle;
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use builder::VariableError;
pub use builder::{BuildError, Builder, Memory};
pub use context::ContextBuffer;
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use current::{Entered, Scope};
pub use driven::Driver;
pub use handle::Handle;
pub use identity::{IdentityError, SessionId};
pub use options::{OptionError, Options};
pub use reporter::Reporter;
#[cfg(feature = "alloc")]
#[cfg_attr(docsrs, doc(cfg(feature = "alloc")))]
pub use telemetry::Telemetry;
pub use uuid::Uuid;
