//! The reporter, which owns a session.

#[cfg(any(not(feature = "alloc"), has_arc))]
use crate::clock::Clock;
use crate::session::handle::Handle;
use crate::session::owner::Owner;
use crate::session::session_ref::SessionRef;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::panic::{RefUnwindSafe, UnwindSafe};

#[cfg(feature = "alloc")]
use crate::session::telemetry::Telemetry;
#[cfg(has_arc)]
use crate::{engine::AlreadyDriven, session::driven::Driver, transport::Body};
#[cfg(not(feature = "alloc"))]
use crate::{
    event::exception::Loggable, event::severity::Severity, session::wait::Wait, stats::Drain,
};
#[cfg(not(feature = "alloc"))]
use core::{pin::pin, time::Duration};

/// The owner of a session with transport `T`, clock `C` and spawner `S`. It derefs to its [`Handle`], which has the
/// operations. With `alloc`, [`into_telemetry`](Self::into_telemetry) makes it an owner without parameters.
///
/// Dropping it stops the session. Where other threads run the driver (the runtime `Thread`, tokio's multi-thread runtime,
/// smol and async-std outside their own threads; see [`waits_on_drop`](crate::runtime::Spawner::waits_on_drop)), the drop
/// waits until everything is settled, at most `drop_timeout`. Elsewhere it only begins the stop, which the driver
/// completes within `drop_timeout` if the executor keeps running: await [`stop`](Handle::stop) first where that matters.
/// In the child of a `fork()` the drop does nothing.
#[must_use = "dropping it stops the session"]
pub struct Reporter<T, C: 'static, S> {
    owner: Owner,
    /// For waits where no timer can be boxed, and for new drivers.
    #[cfg(any(not(feature = "alloc"), has_arc))]
    core: Option<SessionRef<C>>,
    types: Types<T, C, S>,
}

/// A session names its parts and owns none of them here.
type Types<T, C, S> = PhantomData<fn() -> (T, C, S)>;

impl<T, C, S> Reporter<T, C, S> {
    pub(crate) fn new(handle: Handle, core: Option<SessionRef<C>>) -> Self {
        #[cfg(not(any(not(feature = "alloc"), has_arc)))]
        drop(core);
        Self {
            owner: Owner::new(handle),
            #[cfg(any(not(feature = "alloc"), has_arc))]
            core,
            types: PhantomData,
        }
    }

    /// Returns a handle to pass around. It does not keep the session alive.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.owner.handle().clone()
    }

    /// The same owner without parameters, for a field, an argument or a `static`, and one type for every transport and
    /// runtime. It stops the session when it is dropped, as this one does.
    ///
    /// Only [`new_driver`](Self::new_driver) needs the parameters.
    #[cfg(feature = "alloc")]
    #[must_use = "dropping the owner stops the session"]
    pub fn into_telemetry(self) -> Telemetry {
        Telemetry::new(self.owner)
    }
}

#[cfg(has_arc)]
impl<T, C> Reporter<T, C, ()> {
    /// Adds the spawner's type.
    pub(crate) fn with_spawner<S>(self) -> Reporter<T, C, S> {
        Reporter {
            owner: self.owner,
            core: self.core,
            types: PhantomData,
        }
    }
}

#[cfg(has_arc)]
impl<T, C: Clock, S> Reporter<T, C, S> {
    /// Creates a driver for a session whose driver was dropped. It continues where the previous one stopped: a batch in
    /// flight is retried with the same idempotency key. The transport may be of another type.
    ///
    /// If telemetry is switched off, the driver has nothing to do.
    ///
    /// # Errors
    /// [`AlreadyDriven`] when the session has a driver, and always in the child of a `fork()`: the parent's driver
    /// sends what is queued.
    pub fn new_driver<U>(&self, transport: U) -> Result<Driver<U, C>, AlreadyDriven> {
        if let Some(core) = &self.core {
            let attached = core.shared.with(|engine| engine.attach());
            attached.unwrap_or(Err(AlreadyDriven))?;
            core.shared.forget_driver_thread();
        }
        Ok(Driver::new(self.core.clone(), transport, Body::owned()))
    }
}

/// Waits without an allocator, where timers cannot be boxed. With `alloc`, `Handle` has methods of the same names.
///
/// Unlike those, each acts when its future is first polled. From then on the future may be dropped, which cancels only
/// the wait.
#[cfg(not(feature = "alloc"))]
impl<T, C: Clock, S> Reporter<T, C, S> {
    /// Requests a flush and waits until everything accepted before the call is settled, at most `timeout`.
    pub async fn wait_until_drained(&self, timeout: Duration) -> Drain {
        let wait = self
            .session()
            .map(|session| Wait::for_flush(session, timeout));
        self.finish(wait).await
    }

    /// Stops the session and waits until everything is settled, at most `timeout`; what is left then is dropped.
    pub async fn stop(&self, timeout: Duration) -> Drain {
        let wait = self
            .session()
            .map(|session| Wait::for_stop(session, timeout));
        self.finish(wait).await
    }

    /// Logs an error that ends the session and waits until it is settled, at most `flush_timeout`.
    pub async fn log_fatal_exception<E: Loggable<By> + ?Sized, By>(
        &self,
        error: &E,
        severity: Severity,
    ) -> Drain {
        let wait = self.begin_fatal(&error.any(), severity);
        self.finish(wait).await
    }

    async fn finish(&self, wait: Option<Wait>) -> Drain {
        let (Some(core), Some(session), Some(wait)) = (&self.core, self.session(), &wait) else {
            return Drain::default();
        };
        let timer = pin!(async {
            match wait.deadline {
                Some(deadline) => core.clock.deadline(deadline).await,
                None => core::future::pending().await,
            }
        });
        wait.wait(session, timer).await
    }
}

impl<T, C, S> Deref for Reporter<T, C, S> {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        self.owner.handle()
    }
}

// As for its handle. A clock is only read.
impl<T, C, S> UnwindSafe for Reporter<T, C, S> {}
impl<T, C, S> RefUnwindSafe for Reporter<T, C, S> {}

impl<T, C, S> fmt::Debug for Reporter<T, C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("session_id", &self.session_id())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
