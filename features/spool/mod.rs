//! The spool: events on disk before they are sent, so that an outage, a kill or the end of a job costs none.

#[cfg(all(test, feature = "thread"))]
mod bad_disk;
mod builder;
#[cfg(feature = "sim")]
pub(crate) mod by_hand;
mod calendar;
mod changed;
mod discard;
pub(crate) mod disk;
mod error;
mod eviction;
mod folder;
mod format;
mod forwarder;
mod holes;
pub(crate) mod host;
mod inner;
mod job;
mod keeper;
#[cfg(feature = "cli")]
pub(crate) mod look;
mod notes;
pub(crate) mod owner;
mod pace;
mod parcel;
mod queue;
mod refused;
mod segment;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod sim;
mod state;
mod stats;
mod std_disk;
#[cfg(feature = "cli")]
pub(crate) mod store;
#[cfg(test)]
mod testing;
#[cfg(all(test, feature = "thread"))]
mod tests;
mod tidy;
pub(crate) mod time;
mod transport;
mod worker;
mod writer;

pub use builder::SpoolBuilder;
pub use error::SpoolError;
pub use stats::{Left, SpoolStats};
pub use transport::SpoolTransport;
pub use writer::Sync;

use crate::spawner::WouldDeadlock;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use inner::{Boxed, Inner};
use std::path::{Path, PathBuf};

/// Events on disk, and what sends them.
///
/// A session with [the spool's transport](Self::transport) hands its batches over as soon as they are written; a
/// forwarder behind it sends them, as long as that takes. What is written survives the end of the process, also one by
/// `kill -9`: the next spool in the same directory claims what ended processes have left and sends it, with the same event
/// ids. One spool serves all sessions of a process, and any number of processes share a directory.
///
/// Dropping it leaves on disk what is still to be sent; [`wait_until_delivered`](Self::wait_until_delivered) first where
/// there is time.
pub struct Spool {
    inner: Arc<Inner>,
}

/// Sends what is on disk: a future to run on any executor, which ends when the spool and its transports are dropped.
#[must_use = "nothing is sent unless it runs"]
pub struct SpoolForwarder(Boxed);

impl Spool {
    /// Begins a spool in this directory, which is created with mode 0700 if it does not exist.
    pub fn builder(directory: impl Into<PathBuf>) -> SpoolBuilder {
        SpoolBuilder::new(directory.into())
    }

    fn new(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        Self { inner }
    }

    /// A transport for one session, for [`Builder::transport`](crate::session::Builder::transport).
    #[must_use]
    pub fn transport(&self) -> SpoolTransport {
        SpoolTransport::new(&self.inner)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// A snapshot of the spool's ledger. In the child of a `fork()`, where the spool is the parent's, all is zero.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        if self.inner.fork.is_forked() {
            return SpoolStats::default();
        }
        let mut stats = self.inner.shared.stats();
        stats.stalled = self.inner.queue.stalled();
        stats
    }

    /// Waits until nothing is left to send, at most `timeout`, and says what remains. It does not wait for what others
    /// send: events for another destination, the folders of living processes; nor while the backend refuses this sender.
    /// [`Duration::MAX`] means no deadline. Dropping the future cancels only the wait.
    pub fn wait_until_delivered(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Left> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        let deadline = time::after((inner.runtime.now)(), timeout);
        inner.wait(deadline)
    }

    /// Discards what is on disk, for a consent that is withdrawn: the events of this process and those that ended processes
    /// have left, and the folder `rejected`. From the call on no further request is sent with any of them; the one under
    /// way ends as it may. Switch its sessions off first ([`set_enabled`](crate::Handle::set_enabled),
    /// [`discard`](crate::Handle::discard)): what they write later is a spool's as ever.
    ///
    /// The events count as [`discarded`](SpoolStats::discarded). The future is ready when their files are
    /// removed, or after `timeout`, and says what is left: `pending` is 0 unless the disk hangs or fails, and then nothing
    /// of it is sent by this process either, until another call succeeds. Dropping the future cancels only the wait.
    ///
    /// Left alone are events for another destination and the folders of processes that live, which discard theirs
    /// themselves.
    pub fn discard(&self, timeout: Duration) -> impl Future<Output = Left> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        let deadline = time::after((inner.runtime.now)(), timeout);
        let done = inner.begin_discard();
        inner.discarded(done, deadline)
    }

    /// [`discard`](Self::discard), blocking the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`] on a thread where the runtime forbids it. The events are discarded in any case.
    pub fn discard_blocking(&self, timeout: Duration) -> Result<Left, WouldDeadlock> {
        let done = self.inner.begin_discard();
        self.inner.discarded_blocking(done, timeout)
    }

    /// [`wait_until_delivered`](Self::wait_until_delivered), blocking the calling thread.
    ///
    /// # Errors
    /// [`WouldDeadlock`] on a thread where waiting would keep the forwarder from running.
    pub fn wait_until_delivered_blocking(&self, timeout: Duration) -> Result<Left, WouldDeadlock> {
        self.inner.wait_blocking(timeout)
    }
}

impl Spool {
    /// Drops it and waits, for a moment at most, until its threads have left nothing behind that need not be there: the
    /// program may be about to end.
    #[cfg(all(feature = "thread", feature = "ureq"))]
    pub(crate) fn close(self) {
        // In a forked child the threads are the parent's.
        if self.inner.fork.is_forked() {
            return;
        }
        const MOMENT: Duration = Duration::from_millis(500);
        let inner = Arc::clone(&self.inner);
        drop(self);
        let until = std::time::Instant::now() + MOMENT;
        let has_ended = || inner.shared.lock().ended >= 2;
        while inner.is_on && !has_ended() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // In a forked child the spool is the parent's, and so are its locks.
        if self.inner.fork.is_forked() {
            return;
        }
        let pending = self.inner.shared.stats().pending;
        if pending > 0 && !self.inner.is_simulated {
            notes::left(pending, &self.inner.path);
        }
        self.inner.leave();
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool")
            .field("path", &self.inner.path)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Future for SpoolForwarder {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for SpoolForwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoolForwarder").finish_non_exhaustive()
    }
}
