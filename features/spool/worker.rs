//! A worker: a thread that does what it is told, one thing after the other, for one that must not wait for a disk.

use super::changed::Changed;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

type Task<T> = Box<dyn FnOnce(&mut T) + Send>;

/// The thread's owner. Dropping it ends the thread once everything is done.
pub(super) struct Worker<T>(Arc<Queue<T>>);

struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Changed,
}

struct State<T> {
    tasks: VecDeque<Task<T>>,
    is_closed: bool,
}

impl<T: Send + 'static> Worker<T> {
    pub(super) fn start(name: &str, mut value: T) -> io::Result<Self> {
        let queue = Arc::new(Queue::new());
        let own = Arc::clone(&queue);
        thread::Builder::new().name(name.into()).spawn(move || {
            while let Some(task) = own.next() {
                // The reply is lost with a panic, and its waiter learns that.
                let _ = crate::sys::panics::catch(|| task(&mut value));
            }
        })?;
        Ok(Self(queue))
    }

    /// One without a thread: the caller does what it is told, step by step.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn by_hand(value: T) -> (Self, Steps<T>) {
        let queue = Arc::new(Queue::new());
        let steps = Steps {
            queue: Arc::clone(&queue),
            value,
        };
        (Self(queue), steps)
    }

    /// Tells the thread to do something.
    pub(super) fn tell(&self, task: impl FnOnce(&mut T) + Send + 'static) {
        self.0.push(task);
    }

    /// Asks for something. The answer is `None` if the thread has panicked over it.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Answer<R> {
        let (sender, slot) = answer();
        self.tell(move |value| {
            let answer = question(value);
            sender.send(Some(answer));
        });
        slot
    }

    /// One more that may tell it something, and does not keep it from ending.
    pub(super) fn teller(&self) -> Teller<T> {
        Teller(Arc::clone(&self.0))
    }
}

/// What a worker without a thread is told to do.
#[cfg(any(test, feature = "sim"))]
pub(super) struct Steps<T> {
    queue: Arc<Queue<T>>,
    value: T,
}

#[cfg(any(test, feature = "sim"))]
impl<T> Steps<T> {
    /// Does the next thing. Returns false if there is none.
    pub(super) fn step(&mut self) -> bool {
        let task = self.queue.lock().tasks.pop_front();
        let is_one = task.is_some();
        if let Some(task) = task {
            task(&mut self.value);
        }
        is_one
    }

    pub(super) fn is_over(&self) -> bool {
        let state = self.queue.lock();
        state.is_closed && state.tasks.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().tasks.is_empty()
    }

    /// Has this task woken when there is something to do.
    #[cfg(feature = "sim")]
    pub(super) fn register(&self, waker: &Waker) {
        self.queue.changed.register(waker);
    }
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self {
            state: Mutex::new(State {
                tasks: VecDeque::new(),
                is_closed: false,
            }),
            changed: Changed::default(),
        }
    }

    fn push(&self, task: impl FnOnce(&mut T) + Send + 'static) {
        self.lock().tasks.push_back(Box::new(task));
        self.changed.notify();
    }

    fn push_unless_closed(&self, task: impl FnOnce(&mut T) + Send + 'static) {
        let mut state = self.lock();
        if !state.is_closed {
            state.tasks.push_back(Box::new(task));
            drop(state);
            self.changed.notify();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Task<T>> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state);
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify();
    }
}

/// See [`Worker::teller`].
pub(super) struct Teller<T>(Arc<Queue<T>>);

impl<T> Teller<T> {
    /// Tells the thread to do something. Where it has ended, that is dropped.
    pub(super) fn tell(&self, task: impl FnOnce(&mut T) + Send + 'static) {
        self.0.push_unless_closed(task);
    }
}

impl<T> Clone for Teller<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// An answer, and what will give it.
pub(super) fn answer<R>() -> (Sender<R>, Answer<R>) {
    let slot = Arc::new(Mutex::new(Slot::Open(None)));
    (Sender(Arc::clone(&slot)), Answer(slot))
}

/// The answer to a question.
pub(super) struct Answer<R>(Arc<Mutex<Slot<R>>>);

enum Slot<R> {
    Open(Option<Waker>),
    Full(Option<R>),
}

/// Answers, in any case.
pub(super) struct Sender<R>(Arc<Mutex<Slot<R>>>);

impl<R> Sender<R> {
    pub(super) fn send(&self, answer: Option<R>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Slot::Open(waker) = &mut *slot {
            let waker = waker.take();
            *slot = Slot::Full(answer);
            drop(slot);
            if let Some(waker) = waker {
                crate::sys::panics::wake(waker);
            }
        }
    }
}

impl<R> Drop for Sender<R> {
    fn drop(&mut self) {
        self.send(None);
    }
}

impl<R> Future for Answer<R> {
    type Output = Option<R>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = match &mut *slot {
            Slot::Full(answer) => return Poll::Ready(answer.take()),
            Slot::Open(waker) => waker.replace(context.waker().clone()),
        };
        drop(slot);
        drop(old);
        Poll::Pending
    }
}
