//! The current session: the innermost that a thread has entered, else the global one.

use super::handle::Handle;
use crate::sys::fork::PerProcess;
use crate::sys::lock::Lock;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::future::Future;
use core::marker::PhantomData;
use core::pin::Pin;
use core::task::{Context, Poll};

/// # The current session
///
/// For code that is passed no handle: [`capture!`](macro@crate::capture) and
/// [`async_capture!`](crate::async_capture) without `reporter` log to it.
///
/// ```
/// # fn example(telemetry: &tinkex_telemetry::Handle) {
/// use tinkex_telemetry::{Handle, capture};
///
/// fn parse(text: &str) -> Option<u32> {
///     capture!({ text.parse::<u32>() }).ok() // logs to the current session
/// }
///
/// let _entered = telemetry.enter();
/// assert_eq!(Handle::current().session_id(), telemetry.session_id());
/// parse("not a number");
/// # }
/// # example(&tinkex_telemetry::Handle::off());
/// ```
impl Handle {
    /// Returns the current session's handle: that of the innermost session which this thread has
    /// [entered](Self::enter) or whose [scope](Self::scope) it runs, else the [global](Self::make_global) one, else one
    /// that is [off](Self::off).
    ///
    /// The child of a `fork()` begins without a current session: those that its parent entered or made global do not
    /// count in it, but a handle that is off stays entered.
    ///
    /// Never panics, not even while a thread's local values are destroyed; the sessions that the thread has entered do
    /// not count then. Costs a clone of a handle and, for the global session, a lock.
    #[must_use]
    pub fn current() -> Self {
        Self::entered().or_else(Self::global).unwrap_or_default()
    }

    /// Makes this session the current one of the calling thread, until the guard is dropped.
    ///
    /// Guards may be dropped in any order: the current session is the one that was entered last among those whose
    /// guards live. A handle that is [off](Self::off) may be entered as well: nothing is logged within. In asynchronous
    /// code use [`scope`](Self::scope), since a task may change its thread at each await; the guard is not `Send`.
    ///
    /// ```
    /// # fn example(outer: &tinkex_telemetry::Handle, inner: &tinkex_telemetry::Handle) {
    /// use tinkex_telemetry::Handle;
    ///
    /// let of_outer = outer.enter();
    /// let of_inner = inner.enter();
    /// drop(of_outer);
    /// assert_eq!(Handle::current().session_id(), inner.session_id());
    /// drop(of_inner);
    /// # }
    /// ```
    ///
    /// ```compile_fail
    /// fn needs_send(_: impl Send) {}
    /// needs_send(tinkex_telemetry::Handle::off().enter());
    /// ```
    pub fn enter(&self) -> Entered {
        Entered {
            id: push(self.clone()),
            not_send: PhantomData,
        }
    }

    /// Makes this session the current one while the future is polled, and while it is dropped.
    ///
    /// Scopes nest, and the future may move between threads. What was current is so again after each poll, also after
    /// one that panics. A task that the future spawns is not in the scope, unless it is wrapped in one itself or spawned by
    /// [`async_capture!`](crate::async_capture) without `reporter`. Takes one allocation.
    ///
    /// ```
    /// # async fn example(telemetry: tinkex_telemetry::Handle) {
    /// use tinkex_telemetry::Handle;
    ///
    /// let of_request = telemetry.clone();
    /// of_request
    ///     .scope(async {
    ///         Handle::current().log("request.started", ());
    ///     })
    ///     .await;
    /// # }
    /// ```
    ///
    /// # Panics
    /// Polling it panics if polling the future does.
    ///
    /// # Cancel safety
    /// Dropping it drops the future.
    pub fn scope<F: Future>(&self, future: F) -> Scope<F> {
        Scope {
            handle: self.clone(),
            future: Some(Box::pin(future)),
        }
    }

    /// Makes this session the global one: the current session of every thread that has entered none. Returns the handle
    /// that was global before, if any.
    ///
    /// A second call replaces the first one's session. The end of a session changes nothing: its handle stays global and
    /// refuses events as [`SessionEnded`](crate::stats::Refusal::SessionEnded), until another takes its place;
    /// [`Handle::off`] takes it for good. Like every handle, the global one does not keep its session running: the session
    /// stops when its owner is dropped.
    ///
    /// ```
    /// # fn example(telemetry: &tinkex_telemetry::Handle) {
    /// use tinkex_telemetry::Handle;
    ///
    /// let before = telemetry.make_global();
    /// Handle::current().log("app.started", ());
    /// // Put back what was global, or nothing:
    /// before.unwrap_or_default().make_global();
    /// # }
    /// # example(&tinkex_telemetry::Handle::off());
    /// ```
    pub fn make_global(&self) -> Option<Self> {
        let next = self.clone();
        global().with(|slot| slot.replace(next))
    }

    /// The handle of the innermost session that this thread has entered.
    pub(crate) fn entered() -> Option<Self> {
        let innermost = |stack: &RefCell<Stack>| {
            let stack = stack.try_borrow().ok()?;
            let mut handles = stack.entries.iter().rev().map(|(_, handle)| handle);
            handles.find(|handle| !handle.is_forked()).cloned()
        };
        STACK.try_with(innermost).ok()?
    }

    fn global() -> Option<Self> {
        global().with(|slot| slot.clone())
    }

    fn is_forked(&self) -> bool {
        self.session()
            .is_some_and(|session| session.shared().is_forked())
    }
}

/// A guard for the calling thread: while it lives, the session is current. See [`Handle::enter`].
#[derive(Debug)]
#[must_use = "the session is current until the guard is dropped"]
pub struct Entered {
    id: Option<u64>,
    /// It stands for an entry of its thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // Outside the borrow: this may be the last handle, and dropping a session runs the program's code.
            drop(remove(id));
        }
    }
}

/// The future of [`Handle::scope`].
#[must_use = "a scope does nothing unless it is awaited"]
pub struct Scope<F> {
    handle: Handle,
    /// Boxed, so that it can be dropped within the scope. `None` only in the middle of a drop.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.handle.enter();
        match &mut self.future {
            Some(future) => future.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Scope<F> {
    fn drop(&mut self) {
        let _entered = self.handle.enter();
        drop(self.future.take());
    }
}

impl<F> fmt::Debug for Scope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

std::thread_local! {
    static STACK: RefCell<Stack> = const {
        RefCell::new(Stack {
            entries: Vec::new(),
            last_id: 0,
        })
    };
}

/// The sessions that a thread has entered, the innermost last. No handle is dropped while it is borrowed.
struct Stack {
    entries: Vec<(u64, Handle)>,
    last_id: u64,
}

/// Adds an entry. `None` if the thread's local values are being destroyed: then there is nothing to remove, either.
fn push(handle: Handle) -> Option<u64> {
    let push = |stack: &RefCell<Stack>| {
        let mut stack = stack.try_borrow_mut().ok()?;
        let id = stack.last_id + 1;
        stack.last_id = id;
        stack.entries.push((id, handle));
        Some(id)
    };
    STACK.try_with(push).ok()?
}

fn remove(id: u64) -> Option<Handle> {
    let remove = |stack: &RefCell<Stack>| {
        let mut stack = stack.try_borrow_mut().ok()?;
        let at = stack.entries.iter().rposition(|(other, _)| *other == id)?;
        Some(stack.entries.remove(at).1)
    };
    STACK.try_with(remove).ok()?
}

/// The child of a fork has none until it makes one: its parent's lock may be held for good.
fn global() -> &'static Lock<Option<Handle>> {
    static GLOBAL: PerProcess<Lock<Option<Handle>>> = PerProcess::new();
    GLOBAL.get_or_init(|| Lock::new(None))
}
