//! The process's panic hook: set on top of the one that is there, again if another library has replaced it.

use crate::sys::lock::Lock;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};
use std::panic::{self, PanicHookInfo};
use std::thread;

type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync + 'static;

/// The hook that was set last.
static SET: Lock<Option<Identity>> = Lock::new(None);

/// By what a hook is recognized among others, none of which can be asked.
struct Identity {
    address: usize,
    /// Whether it still exists: another one may be at its address later.
    is_alive: Arc<AtomicBool>,
}

impl Identity {
    fn is(&self, hook: &Hook) -> bool {
        self.is_alive.load(Ordering::Relaxed) && self.address == address(hook)
    }
}

fn address(hook: &Hook) -> usize {
    core::ptr::from_ref(hook).cast::<()>().addr()
}

/// Tells its [`Identity`] when the hook is dropped.
struct Life(Arc<AtomicBool>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Makes `work` run at each panic, once, before the hook that is set now. Does nothing if it already does, or on a
/// panicking thread, which cannot set a hook.
pub(super) fn set(work: fn(&PanicHookInfo<'_>)) {
    if thread::panicking() {
        return;
    }
    SET.with(|set| {
        let previous = panic::take_hook();
        if set.as_ref().is_some_and(|identity| identity.is(&*previous)) {
            panic::set_hook(previous);
            return;
        }
        let is_alive = Arc::new(AtomicBool::new(true));
        let life = Life(Arc::clone(&is_alive));
        let hook: Box<Hook> = Box::new(move |info| {
            let _ = &life;
            run_once(info, work, &previous);
        });
        let address = address(&*hook);
        *set = Some(Identity { address, is_alive });
        panic::set_hook(hook);
    });
}

std::thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` and then `previous`, or only that if a hook that was set later, and has chained to this one, is doing so.
fn run_once(info: &PanicHookInfo<'_>, work: fn(&PanicHookInfo<'_>), previous: &Hook) {
    if IS_RUNNING.replace(true) {
        return previous(info);
    }
    work(info);
    previous(info);
    IS_RUNNING.set(false);
}
