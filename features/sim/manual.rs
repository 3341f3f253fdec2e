//! A transport whose sends the test completes one by one.

use crate::session::Uuid;
use crate::transport::{Batch, Receipt, SendError, Transport};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A [`Transport`] that hands each send to the test. It needs no clock and no executor, so it works under every
/// runtime, including tokio's paused time and embassy's mock driver. Clones share their sends.
///
/// ```
/// use tinkex_telemetry::sim::{ManualTransport, SimExecutor};
/// use tinkex_telemetry::{Receipt, Reporter, SendError};
///
/// let (mut executor, transport) = (SimExecutor::new(1), ManualTransport::new());
/// let reporter = Reporter::builder("s")
///     .transport(transport.clone())
///     .runtime(executor.spawner())
///     .enabled(true)
///     .start()?;
/// reporter.flush();
/// executor.run();
/// let send = transport.next().expect("it was flushed");
/// assert_eq!(send.event_count(), 1);
/// send.complete(Err(SendError::rejected("no")));
/// executor.run();
/// assert_eq!(reporter.stats().dropped.rejected, 1);
/// # Ok::<(), tinkex_telemetry::session::BuildError>(())
/// ```
#[derive(Clone, Default)]
pub struct ManualTransport(Arc<Mutex<VecDeque<PendingSend>>>);

/// A send that waits for its result. If it is dropped without one, only the session's timeout ends the send.
#[derive(Debug)]
pub struct PendingSend {
    body: Vec<u8>,
    events: usize,
    first_index: u64,
    attempt: u32,
    key: Uuid,
    slot: Arc<Slot>,
}

#[derive(Default)]
struct Slot(Mutex<Outcome>);

#[derive(Default)]
struct Outcome {
    result: Option<Result<Receipt, SendError>>,
    waker: Option<Waker>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot(..)")
    }
}

impl ManualTransport {
    /// A transport without pending sends.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the oldest pending send. Sends that have timed out are included; their result has no effect.
    #[must_use]
    pub fn next(&self) -> Option<PendingSend> {
        self.queue().pop_front()
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<PendingSend>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for ManualTransport {
    fn send(
        &mut self,
        batch: Batch<'_>,
    ) -> impl Future<Output = Result<Receipt, SendError>> + Send {
        let slot = Arc::new(Slot::default());
        self.queue().push_back(PendingSend {
            body: batch.body().to_vec(),
            events: batch.event_count(),
            first_index: batch.first_index(),
            attempt: batch.attempt(),
            key: batch.idempotency_key(),
            slot: Arc::clone(&slot),
        });
        poll_fn(move |context| {
            let mut state = slot.lock();
            match state.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    state.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

impl PendingSend {
    /// Completes the send with this result.
    pub fn complete(self, result: Result<Receipt, SendError>) {
        let mut state = self.slot.lock();
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The request body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The request body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The number of events.
    #[must_use]
    pub const fn event_count(&self) -> usize {
        self.events
    }

    /// `event_session_index` of the first event.
    #[must_use]
    pub const fn first_index(&self) -> u64 {
        self.first_index
    }

    /// The number of the attempt, from 0.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The batch's idempotency key.
    #[must_use]
    pub const fn idempotency_key(&self) -> Uuid {
        self.key
    }
}

impl fmt::Debug for ManualTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualTransport")
            .field("waiting", &self.queue().len())
            .finish()
    }
}
