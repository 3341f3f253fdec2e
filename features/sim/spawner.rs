//! Spawning and waking tasks of a simulated executor.

use super::SimClock;
use crate::clock::Clock;
use crate::local::LocalSpawner;
use crate::spawner::{Runtime, SpawnError, Spawner};
use crate::time::{Instant, Timestamp};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) type SendTask = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(super) type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

/// Groups the tasks of one session.
pub(super) type Tag = u32;

/// Spawns tasks on a [`SimExecutor`](super::SimExecutor), and provides its clock: a [`Runtime`]. Clones share the
/// executor.
#[derive(Clone)]
pub struct SimSpawner {
    inbox: Arc<Inbox>,
    clock: SimClock,
    tag: Tag,
}

/// Spawned and woken tasks, from any thread.
#[derive(Default)]
pub(super) struct Inbox {
    incoming: Mutex<Incoming>,
    /// Whether the inbox may be non-empty. Written under its lock only.
    may_have_work: AtomicBool,
}

#[derive(Default)]
pub(super) struct Incoming {
    pub(super) spawned: Vec<(Tag, SendTask)>,
    /// Each task that has been woken, once.
    pub(super) ready: Vec<usize>,
    pub(super) is_closed: bool,
}

impl Inbox {
    pub(super) fn lock(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(super) fn may_have_work(&self) -> bool {
        self.may_have_work.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_may_have_work(&self, _lock: &mut Incoming, may_have_work: bool) {
        self.may_have_work.store(may_have_work, Ordering::Relaxed);
    }
}

/// The target of a task's waker: puts the task on the ready list.
pub(super) struct Signal {
    task: usize,
    /// Whether the task is on the ready list. Written under the inbox's lock only.
    is_ready: AtomicBool,
    /// The task has moved, so this wakes nothing. Written under the inbox's lock only.
    is_retired: AtomicBool,
    inbox: Arc<Inbox>,
}

impl Signal {
    pub(super) const fn new(task: usize, inbox: Arc<Inbox>) -> Self {
        Self {
            task,
            is_ready: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            inbox,
        }
    }

    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// The task has moved: from now on only its new waker wakes it.
    pub(super) fn retire(&self) {
        let mut inbox = self.inbox.lock();
        self.is_retired.store(true, Ordering::Relaxed);
        if self.is_ready() {
            inbox.ready.retain(|&ready| ready != self.task);
            self.clear(&mut inbox);
        }
    }

    /// The executor has taken the task off the ready list.
    #[inline]
    pub(super) fn clear(&self, _lock: &mut Incoming) {
        self.is_ready.store(false, Ordering::Relaxed);
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut inbox = self.inbox.lock();
        if !self.is_ready() && !self.is_retired.load(Ordering::Relaxed) {
            self.is_ready.store(true, Ordering::Relaxed);
            inbox.ready.push(self.task);
            self.inbox.set_may_have_work(&mut inbox, true);
        }
    }
}

impl SimSpawner {
    pub(super) fn new(clock: SimClock) -> Self {
        Self {
            inbox: Arc::default(),
            clock,
            tag: 0,
        }
    }

    pub(super) fn tagged(&self, tag: Tag) -> Self {
        Self {
            tag,
            ..self.clone()
        }
    }

    #[inline]
    pub(super) const fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    #[inline]
    pub(super) const fn clock_ref(&self) -> &SimClock {
        &self.clock
    }

    /// The executor's clock.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.clock.clone()
    }
}

impl Spawner for SimSpawner {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), SpawnError> {
        let mut inbox = self.inbox.lock();
        if inbox.is_closed {
            return Err(SpawnError::new("the simulated executor is gone"));
        }
        inbox.spawned.push((self.tag, Box::pin(task)));
        self.inbox.set_may_have_work(&mut inbox, true);
        Ok(())
    }
}

impl Clock for SimSpawner {
    fn is_simulated(&self) -> bool {
        true
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn utc(&self) -> Timestamp {
        self.clock.utc()
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        self.clock.sleep_until(at)
    }
}

impl Runtime for SimSpawner {}

/// Spawns tasks that are not `Send` on the executor's own thread.
#[derive(Clone)]
pub struct SimLocalSpawner(pub(super) Rc<RefCell<Vec<LocalTask>>>);

impl LocalSpawner for SimLocalSpawner {
    fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> Result<(), SpawnError> {
        self.0.borrow_mut().push(Box::pin(task));
        Ok(())
    }
}

impl fmt::Debug for SimSpawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSpawner")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SimLocalSpawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLocalSpawner").finish_non_exhaustive()
    }
}
