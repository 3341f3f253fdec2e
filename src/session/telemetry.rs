//! The owner of a session without type parameters.

use super::handle::Handle;
use super::owner::Owner;
use super::reporter::Reporter;
use core::fmt;
use core::ops::Deref;
use core::panic::{RefUnwindSafe, UnwindSafe};

/// The owner of a session, of one type for every transport, clock and executor. It derefs to its [`Handle`], which has
/// the operations.
///
/// Dropping it stops the session, as dropping a [`Reporter`] does: where other threads run the driver it waits until
/// everything is settled, at most `drop_timeout`; elsewhere it only begins the stop, so await [`stop`](Handle::stop)
/// first where that matters. In the child of a `fork()` it does nothing.
///
/// The function `init` returns it, and [`Reporter::into_telemetry`] makes one of any reporter, so that a program can
/// choose its runtime and its transport when it runs:
///
/// ```
/// # #[cfg(all(feature = "thread", feature = "tokio"))] {
/// use core::time::Duration;
/// use tinkex_telemetry::session::BuildError;
/// use tinkex_telemetry::{
///     Batch, Receipt, Reporter, SendError, Telemetry, Thread, Tokio, Transport, fields,
/// };
///
/// struct Nowhere;
///
/// impl Transport for Nowhere {
///     async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
///         Ok(Receipt::delivered())
///     }
/// }
///
/// fn start(is_on_tokio: bool) -> Result<Telemetry, BuildError> {
///     let builder = Reporter::builder("session-123").transport(Nowhere);
///     Ok(if is_on_tokio {
///         builder.runtime(Tokio).start()?.into_telemetry()
///     } else {
///         builder.runtime(Thread).start()?.into_telemetry()
///     })
/// }
///
/// async fn train(telemetry: &Telemetry) {
///     telemetry.log("train.step", fields! { step: 1, loss: 0.5 });
///     telemetry.wait_until_drained(Duration::from_secs(5)).await;
/// }
///
/// # let executor = tokio::runtime::Builder::new_current_thread().build()?;
/// # executor.block_on(async {
/// let telemetry = start(false)?;
/// train(&telemetry).await;
/// # Ok::<_, BuildError>(())
/// # })?;
/// # }
/// # Ok::<_, Box<dyn core::error::Error>>(())
/// ```
#[must_use = "dropping it stops the session"]
pub struct Telemetry {
    owner: Owner,
    /// Dropped once the session has ended: the fields are dropped in their order.
    #[cfg(feature = "std")]
    kept: Kept,
}

/// For example what the session's transport hands over to.
#[cfg(feature = "std")]
type Kept = Option<alloc::boxed::Box<dyn core::any::Any + Send + Sync>>;

impl Telemetry {
    pub(super) const fn new(owner: Owner) -> Self {
        Self {
            owner,
            #[cfg(feature = "std")]
            kept: None,
        }
    }

    /// Keeps a value, and drops it after the session has been stopped.
    #[cfg(feature = "std")]
    #[doc(hidden)]
    pub fn keeping(mut self, value: impl core::any::Any + Send + Sync) -> Self {
        self.kept = Some(alloc::boxed::Box::new(value));
        self
    }

    /// The value that it [keeps](Self::keeping), if it is of this type.
    #[cfg(feature = "std")]
    #[doc(hidden)]
    #[must_use]
    pub fn kept<T: core::any::Any>(&self) -> Option<&T> {
        self.kept.as_ref()?.downcast_ref()
    }

    /// Returns a handle to pass around. It does not keep the session alive.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.owner.handle().clone()
    }
}

/// [`Reporter::into_telemetry`].
impl<T, C, S> From<Reporter<T, C, S>> for Telemetry {
    fn from(reporter: Reporter<T, C, S>) -> Self {
        reporter.into_telemetry()
    }
}

impl Deref for Telemetry {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        self.owner.handle()
    }
}

// As for its handle.
impl UnwindSafe for Telemetry {}
impl RefUnwindSafe for Telemetry {}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("session_id", &self.session_id())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
