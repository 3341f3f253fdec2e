//! Critical sections for a single-core processor that record the longest.
//!
//! Real firmware uses `cortex-m`'s feature `critical-section-single-core`, which does the same without measuring.

use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m::peripheral::SYST;
use cortex_m::register::primask;
use critical_section::{Impl, RawRestoreState};

struct Watched;

critical_section::set_impl!(Watched);

/// The timer's count when the current section began. The timer counts down.
static BEGAN: AtomicU32 = AtomicU32::new(0);
static LONGEST: AtomicU32 = AtomicU32::new(0);

// SAFETY: interrupts are masked from the first acquire to its release, and there is no other core.
unsafe impl Impl for Watched {
    unsafe fn acquire() -> RawRestoreState {
        let is_outermost = primask::read().is_active();
        cortex_m::interrupt::disable();
        if is_outermost {
            BEGAN.store(SYST::get_current(), Ordering::Relaxed);
        }
        is_outermost
    }

    unsafe fn release(is_outermost: RawRestoreState) {
        if is_outermost {
            let held = since(BEGAN.load(Ordering::Relaxed));
            if held > LONGEST.load(Ordering::Relaxed) {
                LONGEST.store(held, Ordering::Relaxed);
            }
            // SAFETY: they were enabled before.
            unsafe { cortex_m::interrupt::enable() }
        }
    }
}

/// Timer ticks since `began`, of 80 ns each.
fn since(began: u32) -> u32 {
    let now = SYST::get_current();
    match began.checked_sub(now) {
        Some(steps) => steps,
        None => began + SYST::get_reload() + 1 - now,
    }
}

/// The durations of the longest section so far and of a copy of 256 bytes, in timer ticks of 80 ns.
pub fn longest() -> (u32, u32) {
    let mut to = [0; 256];
    let from = core::hint::black_box([1_u8; 256]);
    let began = SYST::get_current();
    core::hint::black_box(&mut to[..]).copy_from_slice(core::hint::black_box(&from[..]));
    (LONGEST.load(Ordering::Relaxed), since(began))
}
