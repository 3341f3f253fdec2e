//! What a spool and its transports share.

use super::host::Witness;
use super::keeper::Keeper;
use super::queue::Queue;
use super::state::Shared;
use super::stats::Left;
use super::worker::Teller;
use crate::spawner::WouldDeadlock;
use crate::sys::fork::Fork;
use crate::sys::park::Parker;
use crate::time::Instant;
use crate::transport::SetupError;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::AtomicU64;
use core::task::{Context, Poll};
use core::time::Duration;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread::ThreadId;

/// A future without its type.
pub(super) type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The parts of a runtime that the waits need, without its type.
pub(super) struct Runtime {
    pub(super) now: Box<dyn Fn() -> Instant + Send + Sync>,
    pub(super) sleep: Box<dyn Fn(Instant) -> Boxed + Send + Sync>,
    pub(super) block: Block,
}

/// Blocks in the way that an executor requires; see [`Spawner::block_in_place`](crate::runtime::Spawner).
pub(super) type Block =
    Box<dyn Fn(bool, &mut dyn FnMut()) -> Result<(), WouldDeadlock> + Send + Sync>;

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    /// `None` where the spool is off.
    pub(super) keeper: Option<Teller<Keeper>>,
    pub(super) path: PathBuf,
    pub(super) destination: Option<String>,
    pub(super) warning: Option<SetupError>,
    pub(super) fork: Fork,
    pub(super) is_on: bool,
    pub(super) runtime: Runtime,
    pub(super) is_simulated: bool,
    pub(super) transports: AtomicU64,
    /// See [`Host::witness`](super::host::Host::witness).
    pub(super) witness: Option<Arc<dyn Witness>>,
    /// The thread that the forwarder was last polled on.
    pub(super) forwarder: Arc<Mutex<Option<ThreadId>>>,
}

impl Inner {
    /// A handle or a transport is dropped. With the last one the threads end, when they have done what they were told.
    pub(super) fn leave(&self) {
        let is_last = self.shared.update(|state| {
            state.users -= 1;
            state.users == 0
        });
        if is_last {
            self.queue.close();
        }
    }

    /// Waits until nothing is left to send.
    pub(super) async fn wait(self: Arc<Self>, deadline: Option<Instant>) -> Left {
        if !self.is_on || self.fork.is_forked() {
            return Left::default();
        }
        let mut timer = deadline.map(|at| (self.runtime.sleep)(at));
        let mut waiter = Waiter {
            inner: &self,
            id: None,
        };
        poll_fn(|context| waiter.poll(context, timer.as_mut())).await
    }

    /// The same, on the calling thread.
    pub(super) fn wait_blocking(&self, timeout: Duration) -> Result<Left, WouldDeadlock> {
        if !self.is_on || self.fork.is_forked() {
            return Ok(Left::default());
        }
        let mut waiter = Waiter {
            inner: self,
            id: None,
        };
        let (parker, waker) = Parker::current();
        if let Some(left) = self.shared.poll_left(&mut waiter.id, &waker) {
            return Ok(left);
        }
        let forwarder = self.forwarder.lock().map_or(None, |it| *it);
        let is_here = forwarder == Some(std::thread::current().id());
        let until = std::time::Instant::now().checked_add(timeout);
        let mut left = self.shared.left();
        (self.runtime.block)(is_here, &mut || {
            loop {
                if let Some(none) = self.shared.poll_left(&mut waiter.id, &waker) {
                    left = none;
                    return;
                }
                if until.is_some_and(|until| until <= std::time::Instant::now()) {
                    left = self.shared.left();
                    return;
                }
                parker.park(until);
            }
        })?;
        Ok(left)
    }
}

/// A registered wait, until it is dropped.
struct Waiter<'a> {
    inner: &'a Inner,
    id: Option<u64>,
}

impl Waiter<'_> {
    fn poll(&mut self, context: &mut Context<'_>, timer: Option<&mut Boxed>) -> Poll<Left> {
        if let Some(left) = self.inner.shared.poll_left(&mut self.id, context.waker()) {
            return Poll::Ready(left);
        }
        match timer {
            Some(timer) => timer
                .as_mut()
                .poll(context)
                .map(|()| self.inner.shared.left()),
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.shared.forget_waiter(id);
        }
    }
}
