//! HTTP client, clock and executor of a session, with their types erased.

use crate::features::http::{HttpClient, HttpError};
use crate::spawner::{Runtime, SpawnError};
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

/// A boxed future.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All the I/O that calls need.
pub(super) trait Io: Send + Sync {
    fn send(&self, request: Request<Bytes>) -> Boxed<'_, Result<Response<Bytes>, HttpError>>;
    fn now(&self) -> Instant;
    fn sleep_until(&self, at: Instant) -> Boxed<'_, ()>;
    fn spawn(&self, task: Boxed<'static, ()>) -> Result<(), SpawnError>;
    /// Runs `wait`, which blocks the calling thread until tasks have made progress, unless that could keep them from it.
    fn block_in_place(&self, wait: &mut dyn FnMut());
}

/// [`Io`] over an HTTP client and a runtime.
pub(super) struct RuntimeIo<H, R> {
    clients: ClientPool<H>,
    runtime: R,
}

/// Idle clones of the HTTP client: each takes one request at a time.
struct ClientPool<H>(Mutex<Clients<H>>);

struct Clients<H> {
    prototype: H,
    idle: Vec<H>,
}

/// Idle clients beyond this number are dropped.
const MAX_IDLE: usize = 8;

impl<H: HttpClient + Clone> ClientPool<H> {
    fn with<T>(&self, work: impl FnOnce(&mut Clients<H>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let idle = self.with(|clients| clients.idle.pop());
        let mut client = idle.unwrap_or_else(|| self.with(|clients| clients.prototype.clone()));
        // Cancelled here, the client is dropped rather than reused: it may still be busy with the request.
        let response = client.send(request).await;
        let surplus = self.with(|clients| {
            if clients.idle.len() < MAX_IDLE {
                clients.idle.push(client);
                None
            } else {
                Some(client)
            }
        });
        // Outside the lock.
        drop(surplus);
        response
    }
}

impl<H, R> RuntimeIo<H, R> {
    pub(super) fn new(client: H, runtime: R) -> Self {
        let clients = Clients {
            prototype: client,
            idle: Vec::new(),
        };
        Self {
            clients: ClientPool(Mutex::new(clients)),
            runtime,
        }
    }
}

impl<H: HttpClient + Clone, R: Runtime> Io for RuntimeIo<H, R> {
    fn send(&self, request: Request<Bytes>) -> Boxed<'_, Result<Response<Bytes>, HttpError>> {
        Box::pin(self.clients.send(request))
    }

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn sleep_until(&self, at: Instant) -> Boxed<'_, ()> {
        Box::pin(self.runtime.deadline(at))
    }

    fn spawn(&self, task: Boxed<'static, ()>) -> Result<(), SpawnError> {
        self.runtime.spawn(task)
    }

    fn block_in_place(&self, wait: &mut dyn FnMut()) {
        if self.runtime.waits_on_drop() {
            // Where blocking is not safe this fails, but the task has begun.
            let _ = self.runtime.block_in_place(false, wait);
        }
    }
}

/// Runs `work` until `deadline` completes; `None` if that happens first. When both are ready, `work` wins.
pub(super) async fn with_deadline<T>(
    deadline: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let (mut deadline, mut work) = (pin!(deadline), pin!(work));
    poll_fn(|context| {
        if let Poll::Ready(value) = work.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        deadline.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Runs a future and catches its panic.
pub(super) async fn catch_panic<F: Future>(future: F) -> thread::Result<F::Output> {
    let mut future = pin!(future);
    poll_fn(
        |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}
