//! A session that is switched off: counts refused events, with atomics, and still runs the application's tasks.

#[cfg(has_arc)]
pub(super) use counted::Off;
#[cfg(not(has_arc))]
pub(super) use uncounted::Off;

#[cfg(has_arc)]
mod counted {
    use crate::session::spawning::{AnySpawner, BoxFuture};
    use crate::spawner::SpawnError;
    use crate::stats::Stats;
    use alloc::boxed::Box;
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Clone)]
    pub(in crate::session) struct Off(Option<Arc<Disabled>>);

    struct Disabled {
        refused: AtomicUsize,
        spawner: Option<Box<dyn AnySpawner>>,
    }

    impl Off {
        /// No session: nothing is counted.
        pub(in crate::session) const fn new() -> Self {
            Self(None)
        }

        /// A session that was built while telemetry is switched off.
        pub(in crate::session) fn counting(spawner: Option<Box<dyn AnySpawner>>) -> Self {
            Self(Some(Arc::new(Disabled {
                refused: AtomicUsize::new(0),
                spawner,
            })))
        }

        pub(in crate::session) fn refuse(&self) {
            if let Some(disabled) = &self.0 {
                disabled.refused.fetch_add(1, Ordering::Relaxed);
            }
        }

        pub(in crate::session) fn stats(&self) -> Stats {
            let mut stats = Stats::default();
            if let Some(disabled) = &self.0 {
                stats.refused.disabled = disabled.refused.load(Ordering::Relaxed) as u64;
            }
            stats
        }

        pub(in crate::session) fn spawn(&self, task: BoxFuture<'static>) -> Result<(), SpawnError> {
            let spawner = self
                .0
                .as_ref()
                .and_then(|disabled| disabled.spawner.as_ref());
            match spawner {
                Some(spawner) => spawner.spawn(task),
                None => Err(SpawnError::new(
                    "telemetry is switched off, and there is no spawner",
                )),
            }
        }
    }
}

#[cfg(not(has_arc))]
mod uncounted {
    use crate::stats::Stats;

    #[derive(Clone)]
    pub(in crate::session) struct Off;

    impl Off {
        pub(in crate::session) const fn new() -> Self {
            Self
        }

        pub(in crate::session) fn refuse(&self) {}

        pub(in crate::session) fn stats(&self) -> Stats {
            Stats::default()
        }

        #[cfg(feature = "alloc")]
        pub(in crate::session) fn spawn(
            &self,
            _: crate::session::spawning::BoxFuture<'static>,
        ) -> Result<(), crate::spawner::SpawnError> {
            Err(crate::spawner::SpawnError::new(
                "telemetry is switched off, and there is no spawner",
            ))
        }
    }
}
