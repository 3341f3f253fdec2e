//! The parts of a session that need an operating system: the scrub hook, threads and forks.

#[cfg(feature = "std")]
pub(crate) use with_std::Host;
#[cfg(not(feature = "std"))]
pub(crate) use without_std::Host;

#[cfg(feature = "std")]
mod with_std {
    use crate::event::scrub::Scrub;
    use crate::session::losses::Losses;
    use crate::session::reporting::Reporting;
    use crate::sys::lock::Lock;
    use crate::sys::own_work::OwnWork;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{self, ThreadId};

    pub(crate) struct Host {
        pub(crate) scrub: Option<Scrub>,
        /// Whether events enter the queue in pieces, as on bare metal. Set by simulations only.
        pub(crate) pushes_in_pieces: bool,
        pub(crate) own_work: OwnWork,
        pub(crate) reporting: Reporting,
        pub(crate) losses: Losses,
        /// Events refused in children of a fork.
        refused_forked: AtomicUsize,
        /// The thread that polled the driver last.
        driver_thread: Lock<Option<ThreadId>>,
        /// How many events had been sent when a panic last waited in vain.
        sent_at_vain_wait: Lock<Option<u64>>,
    }

    impl Host {
        pub(crate) fn new() -> Self {
            Self {
                scrub: None,
                pushes_in_pieces: false,
                own_work: OwnWork::new(),
                reporting: Reporting::new(),
                losses: Losses::new(),
                refused_forked: AtomicUsize::new(0),
                driver_thread: Lock::new(None),
                sent_at_vain_wait: Lock::new(None),
            }
        }

        pub(crate) const fn has_scrub(&self) -> bool {
            self.scrub.is_some()
        }

        pub(crate) fn count_forked(&self) {
            self.refused_forked.fetch_add(1, Ordering::Relaxed);
        }

        pub(crate) fn refused_forked(&self) -> u64 {
            self.refused_forked.load(Ordering::Relaxed) as u64
        }

        pub(crate) fn note_driver_thread(&self) {
            let current = thread::current().id();
            self.driver_thread.with(|thread| *thread = Some(current));
        }

        pub(crate) fn forget_driver_thread(&self) {
            self.driver_thread.with(|thread| *thread = None);
        }

        /// Records that a panic has waited in vain.
        pub(crate) fn note_vain_wait(&self, sent: u64) {
            self.sent_at_vain_wait.with(|at| *at = Some(sent));
        }

        /// Whether a panic has waited in vain, and nothing has been sent since.
        pub(crate) fn is_vain(&self, sent: u64) -> bool {
            self.sent_at_vain_wait.with(|at| *at == Some(sent))
        }

        pub(crate) fn is_driven_here(&self) -> bool {
            let current = thread::current().id();
            self.driver_thread.with(|thread| *thread == Some(current))
        }
    }
}

#[cfg(not(feature = "std"))]
mod without_std {
    /// Empty: without `std` nothing blocks, forks or scrubs.
    pub(crate) struct Host;

    impl Host {
        pub(crate) const fn new() -> Self {
            Self
        }

        pub(crate) const fn has_scrub(&self) -> bool {
            false
        }

        pub(crate) fn count_forked(&self) {}

        pub(crate) fn refused_forked(&self) -> u64 {
            0
        }

        pub(crate) fn note_driver_thread(&self) {}

        #[cfg(has_arc)]
        pub(crate) fn forget_driver_thread(&self) {}
    }
}
