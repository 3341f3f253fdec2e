//! embassy's executor, asleep while there is nothing to do.
//!
//! The one that embassy has for the processor waits with `wfe`, which QEMU takes for nothing: it would burn a core, and
//! the time in which the firmware does nothing would take as long as the time in which it works.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering};
use embassy_executor::{Spawner, raw};
use static_cell::StaticCell;

static IS_PENDING: AtomicBool = AtomicBool::new(false);

/// A task has been woken, by whomever.
// SAFETY: embassy-executor declares this function, and leaves it to programs.
#[unsafe(export_name = "__pender")]
fn pend(_context: *mut ()) {
    IS_PENDING.store(true, Ordering::Release);
}

/// Runs tasks for ever; `start` starts the first.
pub fn run(start: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(null_mut()));
    start(executor.spawner());
    loop {
        IS_PENDING.store(false, Ordering::Release);
        // SAFETY: this is the only place that polls it, and no task gets here.
        unsafe { executor.poll() };
        // An interrupt that comes now still ends the sleep.
        cortex_m::interrupt::free(|_| {
            if !IS_PENDING.load(Ordering::Acquire) {
                cortex_m::asm::wfi();
            }
        });
    }
}
