//! embassy's time driver, on the processor's SysTick timer, with a resolution of 10 ms.

use core::cell::{Cell, RefCell};
use core::task::Waker;
use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use critical_section::Mutex;
use embassy_time_driver::{Driver, TICK_HZ};
use embassy_time_queue_utils::Queue;

/// The board's clock after a reset.
const HZ: u64 = 12_500_000;

const STEPS_PER_SECOND: u64 = 100;

struct Time {
    ticks: Mutex<Cell<u64>>,
    timers: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static TIME: Time = Time {
    ticks: Mutex::new(Cell::new(0)),
    timers: Mutex::new(RefCell::new(Queue::new())),
});

impl Driver for Time {
    fn now(&self) -> u64 {
        critical_section::with(|section| self.ticks.borrow(section).get())
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|section| {
            let mut timers = self.timers.borrow_ref_mut(section);
            timers.schedule_wake(at, waker);
            // A timer that is already due must not wait for the next step.
            timers.next_expiration(self.ticks.borrow(section).get());
        });
    }
}

/// Starts the clock.
pub fn start(mut timer: SYST) {
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload((HZ / STEPS_PER_SECOND - 1) as u32);
    timer.clear_current();
    timer.enable_counter();
    timer.enable_interrupt();
}

/// Advances time by one step; called by the exception `SysTick`.
pub fn step() {
    critical_section::with(|section| {
        let ticks = TIME.ticks.borrow(section);
        ticks.set(ticks.get() + TICK_HZ / STEPS_PER_SECOND);
        TIME.timers
            .borrow_ref_mut(section)
            .next_expiration(ticks.get());
    });
}
