//! A session that ends as interrupted when the program is.

use super::block_on::block_on;
use super::service::ServiceClient;
use super::session::EndReason;
use crate::features::signal::{SignalGuard, interrupt, on_signals};
use alloc::string::ToString;
use alloc::sync::Arc;
use core::time::Duration;
use std::io;

impl ServiceClient {
    /// Ends the session on a signal, before that takes its effect; see [`signal`](crate::signal).
    ///
    /// The session logs a `session.interrupted`. Open calls fail with [`ClientError::Closed`](super::ClientError), the
    /// backend learns that the program was [interrupted](EndReason::Interrupted), and the remaining telemetry is sent;
    /// all of it within `grace`. The guard does not keep the session open.
    ///
    /// # Errors
    /// As [`stop_on_signals`](crate::signal::stop_on_signals).
    #[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
    pub fn stop_on_signals(&self, grace: Duration) -> io::Result<SignalGuard> {
        let session = Arc::downgrade(self.session());
        on_signals(move |signal| {
            if let Some(session) = session.upgrade() {
                interrupt(session.handle(), signal);
                let reason = EndReason::Interrupted;
                let _ = block_on(session.close(reason, signal.to_string(), grace));
            }
        })
    }
}
