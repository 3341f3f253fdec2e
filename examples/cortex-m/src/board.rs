//! The board: console, interrupts, timer and exit.

use core::cell::RefCell;
use core::panic::PanicInfo;
use core::time::Duration;
use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;
use cortex_m_semihosting::{debug, hio};
use critical_section::Mutex;
use scenario::Console;
use tinkex_telemetry::Handle;

/// Semihosting: QEMU's standard output, or a debugger's.
pub(crate) struct Semihosting;

impl Console for Semihosting {
    fn print(&self, bytes: &[u8]) {
        static OUT: Mutex<RefCell<Option<hio::HostStream>>> = Mutex::new(RefCell::new(None));
        critical_section::with(|section| {
            let mut out = OUT.borrow_ref_mut(section);
            if out.is_none() {
                *out = hio::hstdout().ok();
            }
            if let Some(out) = &mut *out {
                let _ = out.write_all(bytes);
            }
        });
    }
}

/// An interrupt of the board.
#[derive(Clone, Copy)]
pub(crate) struct Irq(u16);

impl Irq {
    pub(crate) const BUTTON: Self = Self(0);
    pub(crate) const TIMER: Self = Self(19);

    pub(crate) fn enable(self) {
        // SAFETY: no code relies on this interrupt being masked: shared state is behind critical sections.
        unsafe { NVIC::unmask(self) }
    }

    pub(crate) fn raise(self) {
        NVIC::pend(self);
        cortex_m::asm::isb();
    }
}

// SAFETY: the LM3S6965 has interrupts with these numbers.
unsafe impl InterruptNumber for Irq {
    fn number(self) -> u16 {
        self.0
    }
}

/// The board's first timer: a periodic interrupt.
pub(crate) struct Periodic;

impl Periodic {
    const BASE: usize = 0x4003_0000;

    fn write(register: usize, value: u32) {
        // SAFETY: registers of a timer that nothing else uses, and that has no access to memory.
        unsafe { core::ptr::write_volatile((Self::BASE + register) as *mut u32, value) }
    }

    /// Needs [`Irq::TIMER`] to be enabled.
    pub(crate) fn start(period: Duration) {
        const CLOCK_GATE: *mut u32 = 0x400f_e104 as *mut u32;
        // SAFETY: this only enables the timer's clock.
        unsafe { core::ptr::write_volatile(CLOCK_GATE, 1 << 16) }
        // 32 bits, periodic, at 12.5 MHz: 80 ns per tick.
        Self::write(0x00, 0);
        Self::write(0x04, 2);
        Self::write(0x28, period.as_nanos() as u32 / 80);
        Self::write(0x18, 1);
        Self::write(0x0c, 1);
    }

    pub(crate) fn acknowledge() {
        Self::write(0x24, 1);
    }

    pub(crate) fn stop() {
        Self::write(0x0c, 0);
    }
}

/// A handle for interrupts to find their session.
pub(crate) struct Slot(Mutex<RefCell<Handle>>);

impl Slot {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(RefCell::new(Handle::off())))
    }

    pub(crate) fn set(&self, telemetry: Handle) {
        critical_section::with(|section| self.0.replace(section, telemetry));
    }

    pub(crate) fn get(&self) -> Handle {
        critical_section::with(|section| self.0.borrow_ref(section).clone())
    }
}

/// Ends the run; QEMU exits with success or failure.
pub(crate) fn exit(result: Result<(), &str>) -> ! {
    let status = match result {
        Ok(()) => debug::EXIT_SUCCESS,
        Err(what) => {
            Semihosting.print(b"failed: not so: ");
            Semihosting.print(what.as_bytes());
            Semihosting.print(b"\n");
            debug::EXIT_FAILURE
        }
    };
    loop {
        debug::exit(status);
    }
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    use core::fmt::Write;
    if let Ok(mut out) = hio::hstdout() {
        let _ = writeln!(out, "failed: {info}");
    }
    exit(Err("there was no panic"))
}
