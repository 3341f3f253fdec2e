//! Captured tasks: started on the session's executor, awaited by the application.

use crate::engine::wake;
use crate::spawner::SpawnError;
use crate::sys::lock::Lock;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use super::Ended;

/// A task that capture has started: a future for what it comes to.
///
/// A panic in the task goes on in whoever awaits it, with its own payload. Dropping it lets the task run on by itself.
/// A task that no executor wants to start (none is there, the session has none, telemetry has no reporter at all) runs
/// in here, when it is awaited.
///
/// It is an error when the executor was shut down, or dropped the task, before it came to its end.
#[must_use = "a task's result, and its panic, are for whoever awaits it"]
pub struct Task<T>(Join<T, SendFuture<T>>);

/// A [`Task`] on an executor of one thread.
#[must_use = "a task's result, and its panic, are for whoever awaits it"]
pub struct LocalTask<T>(Join<T, LocalFuture<T>>);

/// What a task runs: it never panics.
pub(super) type SendFuture<T> = Pin<Box<dyn Future<Output = Ended<T>> + Send>>;
/// The same on one thread.
pub(super) type LocalFuture<T> = Pin<Box<dyn Future<Output = Ended<T>>>>;

struct Join<T, F> {
    state: Arc<Lock<State<T, F>>>,
    /// What no executor has started.
    here: Option<F>,
}

enum State<T, F> {
    /// The executor has it, and has not begun.
    Given(F, Option<Waker>),
    /// The executor has dropped it unbegun.
    Orphan(F),
    Running(Option<Waker>),
    Ended(Ended<T>),
    Lost,
    Taken,
}

impl<T: Send + 'static> Task<T> {
    /// Has `spawn` start it.
    pub(super) fn start(
        future: SendFuture<T>,
        spawn: impl FnOnce(crate::session::shared::BoxFuture<'static>) -> Result<(), SpawnError>,
    ) -> Self {
        let state = Arc::new(Lock::new(State::Given(future, None)));
        // A task that cannot be started is dropped, and is an orphan then.
        let _ = spawn(Box::pin(Runner(Arc::clone(&state)).run()));
        Self(Join { state, here: None })
    }
}

impl<T: 'static> LocalTask<T> {
    /// Has `spawn` start it.
    pub(super) fn start(
        future: LocalFuture<T>,
        spawn: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) -> Result<(), SpawnError>,
    ) -> Self {
        let state = Arc::new(Lock::new(State::Given(future, None)));
        let _ = spawn(Box::pin(Runner(Arc::clone(&state)).run()));
        Self(Join { state, here: None })
    }
}

/// The executor's end of a task.
struct Runner<T, F: Future<Output = Ended<T>> + Unpin>(Arc<Lock<State<T, F>>>);

impl<T, F: Future<Output = Ended<T>> + Unpin> Runner<T, F> {
    async fn run(self) {
        let begun = self.0.with(|state| match state {
            State::Given(_, waker) => {
                let running = State::Running(waker.take());
                match core::mem::replace(state, running) {
                    State::Given(future, _) => Some(future),
                    _ => None,
                }
            }
            _ => None,
        });
        if let Some(future) = begun {
            let ended = future.await;
            self.change(|_| State::Ended(ended));
        }
    }

    fn change(&self, next: impl FnOnce(State<T, F>) -> State<T, F>) {
        let waker = self.0.with(|state| {
            let mut now = core::mem::replace(state, State::Taken);
            let waker = match &mut now {
                State::Given(_, waker) | State::Running(waker) => waker.take(),
                _ => None,
            };
            *state = next(now);
            waker
        });
        waker.into_iter().for_each(wake);
    }
}

impl<T, F: Future<Output = Ended<T>> + Unpin> Drop for Runner<T, F> {
    fn drop(&mut self) {
        self.change(|state| match state {
            State::Given(future, _) => State::Orphan(future),
            State::Running(_) => State::Lost,
            ended => ended,
        });
    }
}

impl<T, F: Future<Output = Ended<T>> + Unpin> Join<T, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, SpawnError>> {
        if self.here.is_none() {
            let waker = context.waker().clone();
            let mut old = None;
            let taken = self.state.with(|state| match state {
                State::Given(_, slot) | State::Running(slot) => {
                    old = slot.replace(waker);
                    None
                }
                _ => Some(core::mem::replace(state, State::Taken)),
            });
            drop(old);
            match taken {
                None => return Poll::Pending,
                Some(State::Ended(ended)) => return Poll::Ready(Ok(ended.resume())),
                Some(State::Orphan(future)) => self.here = Some(future),
                Some(_) => {
                    let why = "the executor dropped the task before it ended";
                    return Poll::Ready(Err(SpawnError::new(why)));
                }
            }
        }
        match &mut self.here {
            Some(future) => Pin::new(future)
                .poll(context)
                .map(|ended| Ok(ended.resume())),
            None => Poll::Pending,
        }
    }

    fn is_finished(&self) -> bool {
        self.state
            .with(|state| matches!(state, State::Ended(_) | State::Lost | State::Taken))
            && self.here.is_none()
    }
}

impl<T> Task<T> {
    /// Whether awaiting it would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> LocalTask<T> {
    /// Whether awaiting it would not wait.
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

/// Nothing in it is ever pinned but what is in a box.
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
