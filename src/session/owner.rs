//! What makes a value the owner of a session: dropping it stops the session.

use super::handle::Handle;
use super::wait::Wait;

/// The part of a [`Reporter`](super::Reporter) that stops its session. One type for every transport, clock and spawner.
pub(crate) struct Owner(Handle);

impl Owner {
    pub(crate) const fn new(handle: Handle) -> Self {
        Self(handle)
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let Some(session) = self.0.session() else {
            return;
        };
        let timeout = session.shared().drop_timeout();
        #[cfg(feature = "std")]
        if session.shared().waits_on_drop() {
            // Where blocking is not safe this fails, but the stop has begun.
            let _ = self.0.stop_blocking(timeout);
        } else {
            Wait::for_stop(session, timeout);
        }
        #[cfg(not(feature = "std"))]
        Wait::for_stop(session, timeout);
        let shared = session.shared();
        if shared.with(|engine| engine.is_unattended()) == Ok(true) {
            shared.report(session.now(), true);
        }
        #[cfg(feature = "std")]
        shared.disown();
    }
}
