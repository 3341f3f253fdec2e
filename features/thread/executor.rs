//! The executor of the [`Thread`](super::Thread) runtime: one task, run by threads in the Leader/Followers pattern.
//!
//! The leader polls the task. A blocking call that the poll requests ([`run_on_leader`]) runs on the same thread, once
//! the poll has returned: the leader steps down, and a follower takes over if the task is woken before the call
//! returns. So a call that returns first costs no thread switch, which would cost more than the rest of a small
//! request, and a call that hangs holds nothing up. A leader that has nothing to do until a certain time sets an
//! [`Alarm`] and waits for it itself, which costs one thread switch instead of three.

use crate::sys::fork::Fork;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use core::cell::RefCell;
use core::future::Future;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::io;
use std::panic::catch_unwind;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Starts a thread that runs `task` to completion.
pub(super) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    Executor::new(task).add_follower()
}

/// A call that may block.
pub(crate) type Call = Box<dyn FnOnce() + Send>;

/// Runs `call` on the leader, which is the calling thread, once it has polled the task that `waker` wakes.
///
/// Returns the call if it cannot run here: on another thread, or under another waker (a nested executor may already be
/// blocked inside this poll).
pub(crate) fn run_on_leader(waker: &Waker, call: Call) -> Result<(), Call> {
    MEMBER.with_borrow_mut(|member| match member {
        Some(member) if member.call.is_none() && member.waker.will_wake(waker) => {
            // Where no thread can be started, the call's own timeouts are all the deadlines there are. No other thread
            // could make the call either.
            let _ = member.executor.ensure_follower();
            member.call = Some(call);
            Ok(())
        }
        _ => Err(call),
    })
}

/// The last step of a call: `wake` wakes its task, which resumes on the thread that made the call.
///
/// Any other wake-up during a call promotes a follower.
pub(crate) fn finish_call(wake: impl FnOnce()) {
    let set = |is_finishing| {
        MEMBER.with_borrow_mut(|member| {
            if let Some(member) = member {
                member.is_finishing = is_finishing;
            }
        });
    };
    set(true);
    wake();
    set(false);
}

/// Wakes the leader's task at this time, until it is dropped. A task has one at most.
pub(super) struct Alarm {
    executor: Weak<Executor>,
    id: u64,
}

/// Sets the alarm of the task that `waker` wakes, which the calling thread polls, in place of its own `old` one.
///
/// `None` if another one is set, if the leader is about to make a call, or on another thread or under another waker.
pub(super) fn set_alarm(waker: &Waker, at: Instant, old: Option<Alarm>) -> Option<Alarm> {
    MEMBER.with_borrow_mut(|member| match member {
        Some(member) if member.call.is_none() && member.waker.will_wake(waker) => {
            let executor = &member.executor;
            if executor.fork.is_forked() {
                return None;
            }
            let mut state = executor.state();
            let is_own = |id| old.as_ref().is_some_and(|old| old.id == id);
            if state.alarm.is_some_and(|(_, id)| !is_own(id)) {
                return None;
            }
            state.last_alarm += 1;
            let id = state.last_alarm;
            state.alarm = Some((at, id));
            drop(state);
            let executor = Arc::downgrade(executor);
            Some(Alarm { executor, id })
        }
        _ => None,
    })
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let executor = self.executor.upgrade();
        if let Some(executor) = executor.filter(|executor| !executor.fork.is_forked()) {
            let mut state = executor.state();
            state.alarm.take_if(|(_, id)| *id == self.id);
        }
    }
}

std::thread_local! {
    static MEMBER: RefCell<Option<Member>> = const { RefCell::new(None) };
}

/// The calling thread as a member of an executor.
struct Member {
    executor: Arc<Executor>,
    waker: Waker,
    /// Runs after this poll.
    call: Option<Call>,
    /// Whether its call is inside [`finish_call`].
    is_finishing: bool,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Executor {
    /// The process that runs the threads.
    fork: Fork,
    /// Locked by the leader alone.
    task: Mutex<Option<Task>>,
    state: Mutex<State>,
    /// Notified when a follower may become the leader, or end.
    promotion: Condvar,
}

struct State {
    woken: Woken,
    /// A thread is polling the task and will check `woken` afterwards.
    has_leader: bool,
    is_finished: bool,
    /// Threads that neither poll nor run a call.
    followers: usize,
    /// When the task must be polled again, and which alarm says so.
    alarm: Option<(Instant, u64)>,
    last_alarm: u64,
    /// When the first of the followers looks at the alarm.
    watched: Option<Instant>,
}

impl State {
    /// When to wake for the alarm, if no follower does.
    fn unwatched(&self) -> Option<Instant> {
        let (at, _) = self.alarm?;
        self.watched
            .is_none_or(|watched| at < watched)
            .then_some(at)
    }

    fn take_due_alarm(&mut self) {
        if self.alarm.is_some_and(|(at, _)| at <= Instant::now()) {
            self.alarm = None;
            self.woken = Woken::Yes;
        }
    }
}

/// Whether the task must be polled again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    No,
    /// By a call that is finishing: its own thread becomes the leader.
    ByCall,
    Yes,
}

impl Executor {
    /// The next leader, and one more to stand by while that one runs a call.
    const MAX_FOLLOWERS: usize = 2;

    fn new(task: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            fork: Fork::here(),
            task: Mutex::new(Some(Box::pin(task))),
            state: Mutex::new(State {
                woken: Woken::Yes,
                has_leader: false,
                is_finished: false,
                followers: 0,
                alarm: None,
                last_alarm: 0,
                watched: None,
            }),
            promotion: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_follower(self: &Arc<Self>) -> io::Result<()> {
        self.state().followers += 1;
        let executor = Arc::clone(self);
        let started = thread::Builder::new()
            .name("tinkex-telemetry".into())
            .spawn(move || executor.run());
        if started.is_err() {
            self.state().followers -= 1;
        }
        started.map(drop)
    }

    fn ensure_follower(self: &Arc<Self>) -> bool {
        let has_one = self.state().followers > 0;
        has_one || self.add_follower().is_ok()
    }

    /// The body of each thread.
    fn run(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        MEMBER.set(Some(Member {
            executor: Arc::clone(&self),
            waker: waker.clone(),
            call: None,
            is_finishing: false,
        }));
        let mut state = self.state();
        while self.follow(state) {
            let poll = self.poll(&waker);
            let call = MEMBER.with_borrow_mut(|member| member.as_mut()?.call.take());
            match poll {
                Poll::Pending => state = self.step_down(call),
                Poll::Ready(()) => break,
            }
        }
    }

    /// Waits to become the leader; `false` when this thread is no longer needed.
    fn follow(&self, mut state: MutexGuard<'_, State>) -> bool {
        loop {
            state.take_due_alarm();
            let is_leader = state.woken == Woken::Yes && !state.has_leader && !state.is_finished;
            if is_leader || state.is_finished || state.followers > Self::MAX_FOLLOWERS {
                state.followers -= 1;
                if is_leader {
                    state.woken = Woken::No;
                    state.has_leader = true;
                } else if state.unwatched().is_some() {
                    // Another one must watch it.
                    self.promotion.notify_one();
                }
                return is_leader;
            }
            state = self.wait(state);
        }
    }

    /// Waits for a promotion, or for the alarm if no other follower does.
    fn wait<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(at) = state.unwatched() else {
            let waited = self.promotion.wait(state);
            return waited.unwrap_or_else(PoisonError::into_inner);
        };
        state.watched = Some(at);
        let left = at.saturating_duration_since(Instant::now());
        let waited = self.promotion.wait_timeout(state, left);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.watched.take_if(|watched| *watched == at);
        state
    }

    /// Polls the task. A panic ends the task, as it would end a dedicated thread.
    fn poll(&self, waker: &Waker) -> Poll<()> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = task.as_mut() else {
            return Poll::Ready(());
        };
        let mut context = Context::from_waker(waker);
        let poll = catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(&mut context)));
        // The task forked, and this is the child's only thread: a lock that another thread held stays locked forever.
        if self.fork.is_forked() {
            return Poll::Ready(());
        }
        if let Ok(Poll::Pending) = poll {
            return Poll::Pending;
        }
        self.state().is_finished = true;
        self.promotion.notify_all();
        // The task is dropped outside the lock, since its destructor may do anything.
        let finished = task.take();
        drop(task);
        drop(finished);
        Poll::Ready(())
    }

    /// Gives up leadership, runs the task's call if there is one, and becomes a follower.
    fn step_down(&self, call: Option<Call>) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.has_leader = false;
        if let Some(call) = call {
            let needs_follower = state.woken == Woken::Yes || state.unwatched().is_some();
            drop(state);
            if needs_follower {
                self.promotion.notify_one();
            }
            // A panic drops what the call holds; that is how its task learns of it.
            let _ = catch_unwind(AssertUnwindSafe(call));
            state = self.state();
            if state.woken == Woken::ByCall {
                state.woken = Woken::Yes;
            }
        }
        state.followers += 1;
        state
    }

    /// Whether the calling thread is a member of this executor, inside [`finish_call`].
    fn is_finishing_here(&self) -> bool {
        let is_finishing = |member: &RefCell<Option<Member>>| {
            member.try_borrow().is_ok_and(|member| {
                member.as_ref().is_some_and(|member| {
                    member.is_finishing && core::ptr::eq(&*member.executor, self)
                })
            })
        };
        MEMBER.try_with(is_finishing).unwrap_or(false)
    }
}

impl Wake for Executor {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.fork.is_forked() {
            return;
        }
        let is_finishing = self.is_finishing_here();
        let mut state = self.state();
        let promotes = match (state.woken, state.has_leader) {
            (Woken::No, false) if is_finishing => {
                state.woken = Woken::ByCall;
                false
            }
            (Woken::ByCall, _) if is_finishing => false,
            (before, has_leader) => {
                state.woken = Woken::Yes;
                before != Woken::Yes && !has_leader
            }
        };
        drop(state);
        if promotes {
            self.promotion.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::poll_fn;
    use core::time::Duration;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
    use std::thread::ThreadId;
    use std::time::Instant;

    /// Longer than any of these tests takes.
    const BOUND: Duration = Duration::from_secs(20);

    /// Requests a call, and is ready at the next poll.
    async fn request(call: impl FnOnce() + Send + 'static) {
        let mut call: Option<Call> = Some(Box::new(call));
        poll_fn(|context| match call.take() {
            Some(call) => {
                assert!(run_on_leader(context.waker(), call).is_ok());
                Poll::Pending
            }
            None => Poll::Ready(()),
        })
        .await;
    }

    async fn waker() -> Waker {
        poll_fn(|context| Poll::Ready(context.waker().clone())).await
    }

    fn run<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Receiver<T> {
        let (sender, receiver) = channel();
        let task = async move {
            let _ = sender.send(task.await);
        };
        spawn(task).expect("a thread");
        receiver
    }

    /// Waits for other threads, which need no more than to be scheduled.
    fn wait_until(is_reached: impl Fn() -> bool) {
        let started = Instant::now();
        while !is_reached() {
            assert!(started.elapsed() < BOUND, "not reached in time");
            thread::yield_now();
        }
    }

    fn this_thread() -> ThreadId {
        thread::current().id()
    }

    #[test]
    fn a_call_that_returns_in_time_switches_no_threads() {
        let result = run(async {
            let mut switches = 0;
            for _ in 0..1_000 {
                let (before, waker) = (this_thread(), waker().await);
                let (sender, receiver) = channel();
                request(move || {
                    let _ = sender.send(this_thread());
                    finish_call(|| waker.wake());
                })
                .await;
                assert_eq!(receiver.recv_timeout(BOUND), Ok(before));
                switches += usize::from(this_thread() != before);
            }
            switches
        });
        assert_eq!(result.recv_timeout(BOUND), Ok(0));
    }

    const CALLS: usize = 5;

    /// Makes calls that hang until the other end of `hanging` is dropped, and gives up each at the next wake-up.
    async fn hang(hanging: Receiver<()>) {
        let hanging = Arc::new(Mutex::new(hanging));
        for _ in 0..CALLS {
            let (hanging, waker) = (Arc::clone(&hanging), waker().await);
            request(move || {
                // From another thread, like a deadline.
                thread::spawn(move || waker.wake());
                let _ = hanging.lock().map(|hanging| hanging.recv());
            })
            .await;
        }
    }

    /// The number of references to its executor that a follower holds.
    fn references_per_thread() -> usize {
        let executor = Executor::new(core::future::pending());
        executor.add_follower().expect("a thread");
        wait_until(|| executor.state().woken == Woken::No && executor.state().followers >= 1);
        Arc::strong_count(&executor) - 1
    }

    #[test]
    fn hanging_calls_hold_nothing_up_and_their_threads_end_with_them() {
        let (end, hanging) = channel();
        let (sender, receiver) = channel();
        let executor = Executor::new(async move {
            hang(hanging).await;
            let _ = sender.send(());
            core::future::pending().await
        });
        executor.add_follower().expect("a thread");
        assert_eq!(receiver.recv_timeout(BOUND), Ok(()));
        drop(end);
        let references = 1 + Executor::MAX_FOLLOWERS * references_per_thread();
        wait_until(|| Arc::strong_count(&executor) == references);
        assert_eq!(executor.state().followers, Executor::MAX_FOLLOWERS);
    }

    #[test]
    fn a_call_that_wakes_its_task_before_it_returns_holds_nothing_up() {
        let (end, hanging) = channel::<()>();
        let result = run(async move {
            let waker = waker().await;
            request(move || {
                waker.wake();
                let _ = hanging.recv();
            })
            .await;
        });
        assert_eq!(result.recv_timeout(BOUND), Ok(()));
        drop(end);
    }

    #[test]
    fn only_threads_with_hanging_calls_outlive_the_task() {
        let (end, hanging) = channel();
        let executor = Executor::new(hang(hanging));
        executor.add_follower().expect("a thread");
        let hanging = CALLS * references_per_thread();
        wait_until(|| Arc::strong_count(&executor) == 1 + hanging);
        drop(end);
        wait_until(|| Arc::strong_count(&executor) == 1);
    }

    #[test]
    fn a_task_that_panics_is_dropped() {
        let result: Receiver<()> = run(async { panic!("the test's panic") });
        let result = result.recv_timeout(BOUND);
        assert_eq!(result, Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_call_that_panics_does_not_end_its_task() {
        struct WakesWhenDropped(Waker);
        impl Drop for WakesWhenDropped {
            fn drop(&mut self) {
                self.0.wake_by_ref();
            }
        }
        let result = run(async {
            let waking = WakesWhenDropped(waker().await);
            request(move || {
                let _waking = waking;
                panic!("the test's panic");
            })
            .await;
        });
        assert_eq!(result.recv_timeout(BOUND), Ok(()));
    }

    #[test]
    fn a_call_from_another_thread_or_under_another_waker_is_returned() {
        assert!(run_on_leader(Waker::noop(), Box::new(|| ())).is_err());
        let result = run(async { run_on_leader(Waker::noop(), Box::new(|| ())).is_err() });
        assert_eq!(result.recv_timeout(BOUND), Ok(true));
    }
}
