//! Captured tasks, which run on the session's executor.

use crate::spawner::SpawnError;
use crate::sys::lock::Lock;
use crate::sys::panics::wake;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::Completion;

/// The join handle of a task spawned by [`Capture::spawn`](super::Capture::spawn): a future of the task's result.
///
/// Awaiting it resumes a panic of the task, with the same payload. A task that no executor accepts (none is running,
/// the session has none, there is no reporter) runs inside this future, when awaited. Dropping the future detaches the
/// task; one that runs inside is dropped with it.
///
/// Resolves to an error if the executor shut down, or dropped the task, before the task completed.
#[must_use = "only awaiting a task returns its result or resumes its panic"]
pub struct Task<T>(Join<T, SendFuture<T>>);

/// A [`Task`] on a single-threaded executor.
#[must_use = "only awaiting a task returns its result or resumes its panic"]
pub struct LocalTask<T>(Join<T, LocalFuture<T>>);

/// A task's future, which never panics.
pub(super) type SendFuture<T> = Pin<Box<dyn Future<Output = Completion<T>> + Send>>;
/// [`SendFuture`] on one thread.
pub(super) type LocalFuture<T> = Pin<Box<dyn Future<Output = Completion<T>>>>;

struct Join<T, F> {
    state: Arc<Lock<State<T, F>>>,
    /// The future, if no executor runs it: then it is polled here.
    inline: Option<F>,
}

enum State<T, F> {
    /// With the executor, which has not polled it yet.
    Scheduled(F, Option<Waker>),
    /// Dropped by the executor before it was polled.
    Rejected(F),
    Running(Option<Waker>),
    Finished(Completion<T>),
    /// Dropped by the executor before it completed.
    Cancelled,
    Consumed,
}

impl<T: Send + 'static> Task<T> {
    /// Hands the future to `spawn`.
    pub(super) fn start(
        future: SendFuture<T>,
        spawn: impl FnOnce(crate::session::spawning::BoxFuture<'static>) -> Result<(), SpawnError>,
    ) -> Self {
        let state = Arc::new(Lock::new(State::Scheduled(future, None)));
        // If it cannot be spawned, the runner is dropped, and the task is `Rejected`.
        let _ = spawn(Box::pin(Runner(Arc::clone(&state)).run()));
        Self(Join {
            state,
            inline: None,
        })
    }
}

impl<T: 'static> LocalTask<T> {
    /// Hands the future to `spawn`.
    pub(super) fn start(
        future: LocalFuture<T>,
        spawn: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) -> Result<(), SpawnError>,
    ) -> Self {
        let state = Arc::new(Lock::new(State::Scheduled(future, None)));
        let _ = spawn(Box::pin(Runner(Arc::clone(&state)).run()));
        Self(Join {
            state,
            inline: None,
        })
    }
}

/// The executor's side of a task.
struct Runner<T, F: Future<Output = Completion<T>> + Unpin>(Arc<Lock<State<T, F>>>);

impl<T, F: Future<Output = Completion<T>> + Unpin> Runner<T, F> {
    async fn run(self) {
        let future = self.0.with(|state| match state {
            State::Scheduled(_, waker) => {
                let running = State::Running(waker.take());
                match core::mem::replace(state, running) {
                    State::Scheduled(future, _) => Some(future),
                    _ => None,
                }
            }
            _ => None,
        });
        if let Some(future) = future {
            let completion = future.await;
            self.change(|_| State::Finished(completion));
        }
    }

    fn change(&self, next: impl FnOnce(State<T, F>) -> State<T, F>) {
        let waker = self.0.with(|state| {
            let mut current = core::mem::replace(state, State::Consumed);
            let waker = match &mut current {
                State::Scheduled(_, waker) | State::Running(waker) => waker.take(),
                _ => None,
            };
            *state = next(current);
            waker
        });
        waker.into_iter().for_each(wake);
    }
}

impl<T, F: Future<Output = Completion<T>> + Unpin> Drop for Runner<T, F> {
    fn drop(&mut self) {
        self.change(|state| match state {
            State::Scheduled(future, _) => State::Rejected(future),
            State::Running(_) => State::Cancelled,
            other => other,
        });
    }
}

impl<T, F: Future<Output = Completion<T>> + Unpin> Join<T, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, SpawnError>> {
        if self.inline.is_none() {
            let waker = context.waker().clone();
            let mut old = None;
            let taken = self.state.with(|state| match state {
                State::Scheduled(_, slot) | State::Running(slot) => {
                    old = slot.replace(waker);
                    None
                }
                _ => Some(core::mem::replace(state, State::Consumed)),
            });
            drop(old);
            match taken {
                None => return Poll::Pending,
                Some(State::Finished(completion)) => {
                    return Poll::Ready(Ok(completion.resume()));
                }
                Some(State::Rejected(future)) => self.inline = Some(future),
                Some(_) => {
                    let reason = "the executor dropped the task before it completed";
                    return Poll::Ready(Err(SpawnError::new(reason)));
                }
            }
        }
        match &mut self.inline {
            Some(future) => Pin::new(future)
                .poll(context)
                .map(|completion| Ok(completion.resume())),
            None => Poll::Pending,
        }
    }

    fn is_finished(&self) -> bool {
        self.state.with(|state| {
            matches!(
                state,
                State::Finished(_) | State::Cancelled | State::Consumed
            )
        }) && self.inline.is_none()
    }
}

impl<T> Task<T> {
    /// Whether awaiting it would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> LocalTask<T> {
    /// Whether awaiting it would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, SpawnError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

impl<T> Future for LocalTask<T> {
    type Output = Result<T, SpawnError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

/// Only boxed futures are ever pinned.
impl<T, F> Unpin for Join<T, F> {}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("is_finished", &self.is_finished())
            .finish()
    }
}

impl<T> fmt::Debug for LocalTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTask")
            .field("is_finished", &self.is_finished())
            .finish()
    }
}
