//! The owner of a running session.

#[cfg(any(not(feature = "alloc"), has_arc))]
use crate::clock::Clock;
use crate::session::handle::Handle;
use crate::session::shared::CoreRef;
use crate::session::wait::Wait;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

#[cfg(has_arc)]
use crate::{engine::AlreadyDriven, session::driven::Driver, transport::Body};
#[cfg(not(feature = "alloc"))]
use crate::{event::exception::AnyError, event::severity::Severity, stats::Drain};
#[cfg(not(feature = "alloc"))]
use core::{pin::pin, time::Duration};

/// A running session: transport `T`, clock `C`, spawner `S`. It derefs to its [`Handle`], which has the operations.
///
/// Dropping it stops the session. Where the driver has a thread of its own
/// ([`Placement::Dedicated`](crate::Placement::Dedicated)) the drop waits until everything is settled, at most
/// `drop_timeout`. On an executor it only asks; the driver does the rest while its executor lives, within
/// `drop_timeout`: await [`stop`](Handle::stop) first where it matters. In the child of a `fork()` it does nothing.
pub struct Reporter<T = (), C: 'static = (), S = ()> {
    handle: Handle,
    core: Option<CoreRef<C>>,
    parts: PhantomData<fn() -> (T, S)>,
}

impl<T, C, S> Reporter<T, C, S> {
    pub(crate) fn new(handle: Handle, core: Option<CoreRef<C>>) -> Self {
        Self {
            handle,
            core,
            parts: PhantomData,
        }
    }

    /// A handle for everybody else. It does not keep the session alive.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

#[cfg(has_arc)]
impl<T, C> Reporter<T, C, ()> {
    /// The same session, with its spawner's type in its own.
    pub(crate) fn with_spawner<S>(mut self) -> Reporter<T, C, S> {
        let handle = core::mem::replace(&mut self.handle, Handle::off());
        Reporter::new(handle, self.core.take())
    }
}

#[cfg(has_arc)]
impl<T, C: Clock, S> Reporter<T, C, S> {
    /// A driver for a session whose driver is gone, to carry on where that one left off: with a batch in flight, its
    /// next attempt has the same idempotency key. The transport need not be of the same kind.
    ///
    /// When telemetry is switched off, a driver that has nothing to do.
    ///
    /// # Errors
    /// [`AlreadyDriven`] when the session has a driver; and always in the child of a `fork()`, where the driver is the
    /// parent's, and what is queued is the parent's to send.
    pub fn new_driver<U>(&self, transport: U) -> Result<Driver<U, C>, AlreadyDriven> {
        if let Some(core) = &self.core {
            let attached = core.shared.with(|engine| engine.attach());
            attached.unwrap_or(Err(AlreadyDriven))?;
            #[cfg(feature = "std")]
            core.shared.forget_driver_thread();
        }
        Ok(Driver::new(self.core.clone(), transport, Body::owned()))
    }
}

/// Waits, where no timer can be boxed. See the operations of the same names on `Handle` with `alloc`.
#[cfg(not(feature = "alloc"))]
impl<T, C: Clock, S> Reporter<T, C, S> {
    /// Asks for a flush; waits until everything accepted before has been settled, at most `timeout`.
    pub async fn wait_until_drained(&self, timeout: Duration) -> Drain {
        let wait = self.sink().map(|sink| Wait::for_flush(sink, timeout));
        self.finish(wait).await
    }

    /// Ends the session, and waits until all is settled, at most `timeout`.
    pub async fn stop(&self, timeout: Duration) -> Drain {
        let wait = self.sink().map(|sink| Wait::for_stop(sink, timeout));
        self.finish(wait).await
    }

    /// Logs an error that ends the session, and waits until it is settled, at most `flush_timeout`.
    pub async fn log_fatal_exception<E: AnyError + ?Sized>(
        &self,
        error: &E,
        severity: Severity,
    ) -> Drain {
        let wait = self.begin_fatal(error, severity);
        self.finish(wait).await
    }

    async fn finish(&self, wait: Option<Wait>) -> Drain {
        let (Some(core), Some(sink), Some(wait)) = (&self.core, self.sink(), &wait) else {
            return Drain::default();
        };
        let timer = pin!(async {
            match wait.deadline {
                Some(deadline) => core.clock.sleep_until(deadline).await,
                None => core::future::pending().await,
            }
        });
        wait.wait(sink, timer).await
    }
}

impl<T, C, S> Deref for Reporter<T, C, S> {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl<T, C, S> Drop for Reporter<T, C, S> {
    fn drop(&mut self) {
        let Some(sink) = self.handle.sink() else {
            return;
        };
        let timeout = sink.shared().drop_timeout();
        #[cfg(feature = "std")]
        if sink.shared().has_dedicated_thread() {
            // On the driver's own thread it is only asked for.
            let _ = self.handle.stop_blocking(timeout);
            return;
        }
        Wait::for_stop(sink, timeout);
    }
}

impl<T, C, S> fmt::Debug for Reporter<T, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("session_id", &self.session_id())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
