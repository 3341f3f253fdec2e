//! Sessions: building one, logging to it, waiting for it, ending it.
//!
//! A [`Builder`] starts a session; the [`Reporter`] owns it; [`Handle`]s are what an application passes around.

mod as_handle;
pub(crate) mod builder;
mod driven;
pub(crate) mod handle;
pub(crate) mod identity;
mod logging;
#[cfg(has_arc)]
pub(crate) mod on_bus;
pub(crate) mod options;
pub(crate) mod reporter;
#[cfg(feature = "std")]
mod scrubbing;
pub(crate) mod shared;
pub(crate) mod wait;

pub use crate::engine::AlreadyDriven;
pub use crate::sys::entropy::Entropy;
pub use as_handle::AsHandle;
pub use builder::{BuildError, Builder, Memory};
pub use driven::Driver;
pub use handle::Handle;
pub use identity::{IdentityError, SessionId};
pub use options::{OptionError, Options};
pub use reporter::Reporter;
pub use uuid::Uuid;
