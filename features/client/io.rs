//! HTTP client, clock and executor of a session, with their types erased.

use crate::features::http::{HttpClient, HttpError};
use crate::spawner::{Runtime, SpawnError};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;
use async_channel::{Receiver, Sender, bounded};
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
struct ClientPool<H> {
    idle: Mutex<Vec<H>>,
    /// Holds the client that others are cloned from, except while one is.
    prototype: (Sender<H>, Receiver<H>),
}

/// Idle clients beyond this number are dropped.
const MAX_IDLE: usize = 8;

/// The prototype, put back when dropped, even if cloning it panics.
struct Borrowed<'a, H>(Option<H>, &'a Sender<H>);

impl<H> Drop for Borrowed<'_, H> {
    fn drop(&mut self) {
        if let Some(prototype) = self.0.take() {
            let _ = self.1.try_send(prototype);
        }
    }
}

impl<H: HttpClient + Clone> ClientPool<H> {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<H>) -> T) -> T {
        work(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A clone of the prototype. Cloning is the user's code, so it runs under no lock.
    async fn fresh(&self) -> Result<H, HttpError> {
        let (back, prototype) = &self.prototype;
        let prototype = prototype.recv().await.ok();
        let borrowed = Borrowed(prototype, back);
        borrowed
            .0
            .clone()
            .ok_or_else(|| HttpError::new("the HTTP client is gone"))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut client = match self.with(Vec::pop) {
            Some(idle) => idle,
            None => self.fresh().await?,
        };
        // Cancelled here, the client is dropped rather than reused: it may still be busy with the request.
        let response = client.send(request).await;
        let surplus = self.with(|idle| {
            if idle.len() < MAX_IDLE {
                idle.push(client);
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

impl<H> ClientPool<H> {
    fn new(client: H) -> Self {
        let prototype = bounded(1);
        let _ = prototype.0.try_send(client);
        Self {
            idle: Mutex::default(),
            prototype,
        }
    }
}

impl<H, R> RuntimeIo<H, R> {
    pub(super) fn new(client: H, runtime: R) -> Self {
        Self {
            clients: ClientPool::new(client),
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

#[cfg(test)]
mod tests {
    use super::super::block_on::block_on;
    use super::*;
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicU32, Ordering};
    use core::time::Duration;
    use std::sync::OnceLock;
    use std::sync::mpsc;

    /// A client whose clones are made by sending another request.
    #[derive(Default)]
    struct Reentrant {
        pool: Arc<OnceLock<Arc<ClientPool<Reentrant>>>>,
        clones: Arc<AtomicU32>,
    }

    impl Clone for Reentrant {
        fn clone(&self) -> Self {
            let at = self.clones.fetch_add(1, Ordering::Relaxed);
            if at == 1 {
                // The second clone, made while the first one is idle again.
                let pool = self.pool.get().map(Arc::clone);
                let sent = block_on(pool.unwrap().send(Request::default()));
                assert!(sent.is_ok());
            }
            assert!(at < 3, "a clone that fails");
            Self {
                pool: Arc::clone(&self.pool),
                clones: Arc::clone(&self.clones),
            }
        }
    }

    impl HttpClient for Reentrant {
        async fn send(&mut self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            Ok(Response::new(Bytes::new()))
        }
    }

    #[test]
    fn a_client_is_cloned_under_no_lock_and_a_panic_loses_no_prototype() {
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            let client = Reentrant::default();
            let shared = Arc::clone(&client.pool);
            let pool = Arc::new(ClientPool::new(client));
            let _ = shared.set(Arc::clone(&pool));
            block_on(pool.send(Request::default())).unwrap();
            let first = pool.with(Vec::pop);
            // An idle client for the request that cloning makes.
            let clone = catch_unwind(AssertUnwindSafe(|| {
                block_on(async {
                    pool.with(|idle| idle.extend(first));
                    let fresh = pool.fresh().await;
                    fresh.is_ok()
                })
            }));
            let third = block_on(pool.fresh()).is_ok();
            let panicked = catch_unwind(AssertUnwindSafe(|| block_on(pool.fresh()).is_ok()));
            let is_kept = pool.prototype.1.len() == 1;
            let _ = done.send((
                clone.is_ok_and(|is_ok| is_ok),
                third,
                panicked.is_err(),
                is_kept,
            ));
        });
        // Under a lock, it would wait for itself for ever.
        let outcome = is_done.recv_timeout(Duration::from_secs(20));
        assert_eq!(outcome, Ok((true, true, true, true)));
    }
}
