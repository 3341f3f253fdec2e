//! embassy's executor, which sleeps while it is idle.
//!
//! Embassy's own executor for Cortex-M waits with `wfe`, which QEMU treats as a no-op: it would keep a core busy, and
//! idle time would take as long to simulate as work.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering};
use embassy_executor::{Spawner, raw};
use static_cell::StaticCell;

static IS_PENDING: AtomicBool = AtomicBool::new(false);

/// Called when a task has been woken.
// SAFETY: embassy-executor declares this function for programs to define.
#[unsafe(export_name = "__pender")]
fn pend(_context: *mut ()) {
    IS_PENDING.store(true, Ordering::Release);
}

/// Runs tasks forever; `start` spawns the first.
pub fn run(start: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(null_mut()));
    start(executor.spawner());
    loop {
        IS_PENDING.store(false, Ordering::Release);
        // SAFETY: only this loop polls it, and tasks cannot reach it.
        unsafe { executor.poll() };
        // A pending interrupt ends the sleep even while interrupts are masked.
        cortex_m::interrupt::free(|_| {
            if !IS_PENDING.load(Ordering::Acquire) {
                cortex_m::asm::wfi();
            }
        });
    }
}
