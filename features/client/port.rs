//! HTTP client, clock and executor of a session, without their types.

use crate::features::http::{HttpClient, HttpError};
use crate::spawner::{Placement, Runtime, SpawnError};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use core::future::{Future, poll_fn};
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::task::Poll;
use http::{Request, Response};
use std::panic::catch_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A future in a box.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What calls need of the world.
pub(super) trait Port: Send + Sync {
    fn send(&self, request: Request<Bytes>) -> Boxed<'_, Result<Response<Bytes>, HttpError>>;
    fn now(&self) -> Instant;
    fn sleep_until(&self, at: Instant) -> Boxed<'_, ()>;
    fn spawn(&self, task: Boxed<'static, ()>) -> Result<(), SpawnError>;
    /// Whether tasks have threads of their own, so that blocking here stops none of them.
    fn is_dedicated(&self) -> bool;
}

/// A port over an HTTP client and a runtime.
pub(super) struct World<H, R> {
    clients: Clients<H>,
    runtime: R,
}

/// Clients that have nothing to do: each takes one request at a time.
struct Clients<H>(Mutex<Idle<H>>);

struct Idle<H> {
    first: H,
    idle: Vec<H>,
}

/// More that have nothing to do are not kept.
const MAX_IDLE: usize = 8;

impl<H: HttpClient + Clone> Clients<H> {
    fn with<T>(&self, work: impl FnOnce(&mut Idle<H>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let taken = self.with(|clients| clients.idle.pop());
        let mut client = taken.unwrap_or_else(|| self.with(|clients| clients.first.clone()));
        // One whose request is given up is not used again: it may still be at it.
        let answer = client.send(request).await;
        let superfluous = self.with(|clients| {
            if clients.idle.len() < MAX_IDLE {
                clients.idle.push(client);
                None
            } else {
                Some(client)
            }
        });
        drop(superfluous);
        answer
    }
}

impl<H, R> World<H, R> {
    pub(super) fn new(client: H, runtime: R) -> Self {
        let idle = Vec::new();
        Self {
            clients: Clients(Mutex::new(Idle {
                first: client,
                idle,
            })),
            runtime,
        }
    }
}

impl<H: HttpClient + Clone, R: Runtime> Port for World<H, R> {
    fn send(&self, request: Request<Bytes>) -> Boxed<'_, Result<Response<Bytes>, HttpError>> {
        Box::pin(self.clients.send(request))
    }

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn sleep_until(&self, at: Instant) -> Boxed<'_, ()> {
        Box::pin(self.runtime.sleep_until(at))
    }

    fn spawn(&self, task: Boxed<'static, ()>) -> Result<(), SpawnError> {
        self.runtime.spawn(task)
    }

    fn is_dedicated(&self) -> bool {
        self.runtime.placement() == Placement::Dedicated
    }
}

/// Runs `work`, but not longer than `end`, which is looked at second. `None`: it is not done.
pub(super) async fn until<T>(
    end: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let (mut end, mut work) = (pin!(end), pin!(work));
    poll_fn(|context| {
        if let Poll::Ready(value) = work.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        end.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Runs a future to its end, panic or not.
pub(super) async fn caught<F: Future>(future: F) -> thread::Result<F::Output> {
    let mut future = pin!(future);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}
