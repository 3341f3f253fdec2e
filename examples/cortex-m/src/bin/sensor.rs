//! A sensor, to measure code size: with the reporter and, with `--no-default-features`, without it.
//!
//! A task takes a sample twice a second and an interrupt handles a button; both write to a device, and to the backend.
//! It formats no text and panics without a message, so that the reporter's size includes all the code that it needs.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};
use cortex_m_rt::{entry, exception};
use cortex_m_semihosting::debug;
use embassy_executor::Spawner;
use embassy_time::Timer;
use scenario::{executor, time};

static PRESSED: AtomicU32 = AtomicU32::new(0);

#[entry]
fn main() -> ! {
    if let Some(peripherals) = cortex_m::Peripherals::take() {
        time::start(peripherals.SYST);
    }
    executor::run(start);
}

fn start(spawner: Spawner) {
    #[cfg(feature = "telemetry")]
    telemetry::start(spawner);
    if let Ok(task) = sample() {
        spawner.spawn(task);
    }
}

#[embassy_executor::task]
async fn sample() {
    for n in 0..100_u32 {
        let celsius = 20 + (n % 7) as i32;
        #[cfg(feature = "telemetry")]
        telemetry::sampled(n, celsius);
        write(&celsius.to_le_bytes());
        Timer::after_millis(500).await;
    }
    debug::exit(debug::EXIT_SUCCESS);
}

#[exception]
fn SysTick() {
    time::step();
}

#[exception]
unsafe fn DefaultHandler(_: i16) {
    let times = PRESSED.fetch_add(1, Ordering::Relaxed);
    #[cfg(feature = "telemetry")]
    telemetry::pressed(times);
    write(&times.to_le_bytes());
}

/// Stands for a radio or a serial line.
fn write(bytes: &[u8]) {
    static LAST: AtomicU32 = AtomicU32::new(0);
    for byte in bytes {
        LAST.store(u32::from(*byte), Ordering::Relaxed);
    }
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}

#[cfg(feature = "telemetry")]
mod telemetry {
    use core::cell::RefCell;
    use critical_section::Mutex;
    use embassy_executor::Spawner;
    use static_cell::ConstStaticCell;
    use tinkex_telemetry::local::LocalTransport;
    use tinkex_telemetry::runtime::Embassy;
    use tinkex_telemetry::session::{Driver, Entropy, Memory};
    use tinkex_telemetry::{Batch, Handle, Receipt, Reporter, SendError, Severity, fields};

    /// Keep in sync with `ci/embedded`.
    const QUEUE: usize = 8 * 1024;
    const BATCH: usize = 4 * 1024;

    static HANDLE: Mutex<RefCell<Handle>> = Mutex::new(RefCell::new(Handle::off()));

    struct Radio;

    impl LocalTransport for Radio {
        async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
            super::write(batch.body());
            embassy_futures::yield_now().await;
            Ok(Receipt::delivered())
        }
    }

    pub(crate) fn start(spawner: Spawner) {
        static MEMORY: ConstStaticCell<Memory<Embassy, QUEUE, BATCH>> =
            ConstStaticCell::new(Memory::new());
        let builder = Reporter::builder("sensor-1").transport(Radio);
        let builder = builder.clock(Embassy).entropy(Entropy::new([7; 32]));
        let Ok((reporter, driver)) = builder.build_in(MEMORY.take()) else {
            return;
        };
        if let Ok(task) = drive(driver) {
            spawner.spawn(task);
        }
        critical_section::with(|section| HANDLE.replace(section, reporter.handle()));
        // It runs until power-off.
        core::mem::forget(reporter);
    }

    #[embassy_executor::task]
    async fn drive(driver: Driver<Radio, Embassy>) {
        driver.run_local().await;
    }

    fn handle() -> Handle {
        critical_section::with(|section| HANDLE.borrow_ref(section).clone())
    }

    pub(crate) fn sampled(n: u32, celsius: i32) {
        log(&handle(), n, celsius);
    }

    pub(crate) fn pressed(times: u32) {
        handle().log_with("button", fields! { times: times }, Severity::Warning);
    }

    /// CI checks this function for paths to a panic.
    #[inline(never)]
    #[unsafe(no_mangle)]
    fn log(telemetry: &Handle, n: u32, celsius: i32) -> bool {
        telemetry.log("sample", fields! { n: n, celsius: celsius, place: "roof" })
    }
}
