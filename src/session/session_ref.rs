//! References to a session: with and without its clock's type, and weak.

use super::shared::{SessionCore, Shared};
use crate::clock::Clock;
use crate::event::context::Context;
use crate::time::{Instant, Timestamp};
use core::ops::Deref;

#[cfg(feature = "alloc")]
use super::spawning::BoxFuture;
#[cfg(feature = "alloc")]
use alloc::boxed::Box;
#[cfg(has_arc)]
use alloc::sync::{Arc, Weak};

/// A session without its clock's type, for handles.
pub(crate) trait AnySession: Send + Sync {
    fn shared(&self) -> &Shared;

    /// [`shared`](Self::shared), and the context of the handle that refers to it, in one call.
    fn parts(&self) -> (&Shared, Option<&Context>) {
        (self.shared(), None)
    }

    /// The session itself, if this is one with a context.
    fn base(&self) -> Option<&Session> {
        None
    }

    fn now(&self) -> Instant;
    fn utc(&self) -> Timestamp;
    #[cfg(feature = "alloc")]
    fn deadline(&self, at: Instant) -> BoxFuture<'_>;
}

impl<C: Clock> AnySession for SessionCore<C> {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn utc(&self) -> Timestamp {
        self.clock.utc()
    }

    #[cfg(feature = "alloc")]
    fn deadline(&self, at: Instant) -> BoxFuture<'_> {
        Box::pin(self.clock.deadline(at))
    }
}

/// A reference to a session without its clock's type.
#[derive(Clone)]
pub(crate) enum Session {
    Static(&'static dyn AnySession),
    #[cfg(has_arc)]
    Shared(Arc<dyn AnySession>),
}

impl Deref for Session {
    type Target = dyn AnySession;

    #[inline]
    fn deref(&self) -> &Self::Target {
        match self {
            Self::Static(session) => *session,
            #[cfg(has_arc)]
            Self::Shared(session) => &**session,
        }
    }
}

/// A session with its clock's type, for drivers and reporters.
pub(crate) enum SessionRef<C: 'static> {
    Static(&'static SessionCore<C>),
    #[cfg(has_arc)]
    Shared(Arc<SessionCore<C>>),
}

impl<C> Clone for SessionRef<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Static(core) => Self::Static(core),
            #[cfg(has_arc)]
            Self::Shared(core) => Self::Shared(Arc::clone(core)),
        }
    }
}

impl<C> Deref for SessionRef<C> {
    type Target = SessionCore<C>;

    fn deref(&self) -> &SessionCore<C> {
        match self {
            Self::Static(core) => core,
            #[cfg(has_arc)]
            Self::Shared(core) => core,
        }
    }
}

#[cfg(has_arc)]
impl<C: Clock> SessionRef<C> {
    /// A weak reference to this session.
    pub(crate) fn downgrade(&self) -> WeakSession {
        match self {
            Self::Static(core) => WeakSession::Static(*core),
            Self::Shared(core) => {
                let session: Arc<dyn AnySession> = Arc::<SessionCore<C>>::clone(core);
                WeakSession::Shared(Arc::downgrade(&session))
            }
        }
    }
}

/// A weak reference to a session.
#[cfg(has_arc)]
#[derive(Clone)]
pub(crate) enum WeakSession {
    Static(&'static dyn AnySession),
    Shared(Weak<dyn AnySession>),
}
