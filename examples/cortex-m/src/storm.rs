//! A second session: an interrupt logs, wherever the thread, which logs and sends, happens to be.

use crate::board::{Irq, Periodic, Semihosting, Slot};
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use embassy_executor::Spawner;
use embassy_futures::yield_now;
use scenario::{Printer, SessionMemory, ensure, print_ledger};
use static_cell::ConstStaticCell;
use tinkex_telemetry::fields;
use tinkex_telemetry::session::Memory;

/// How many events of each of them are to be accepted.
const EVENTS: u32 = 200;

static TELEMETRY: Slot = Slot::new();
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

pub(crate) async fn run(spawner: Spawner) -> Result<(), &'static str> {
    static MEMORY: ConstStaticCell<SessionMemory> = ConstStaticCell::new(Memory::new());
    let builder = scenario::session("storm", 8, Printer::new(&Semihosting, &[]));
    let (reporter, driver) = builder
        .build_in(MEMORY.take())
        .map_err(|_| "the memory is large enough")?;
    spawner.spawn(crate::drive(driver).map_err(|_| "there is room for the driver")?);
    TELEMETRY.set(reporter.handle());
    // Some 11 000 instructions, and no divisor of anything.
    Periodic::start(Duration::from_nanos(87_120));
    let text = [b'x'; 640];
    let text = core::str::from_utf8(&text).unwrap_or_default();
    let mut n = 0;
    while n < EVENTS || INTERRUPTS.load(Ordering::Relaxed) < EVENTS {
        // Short ones, and those that are copied in up to four pieces.
        let text = &text[..n as usize * 37 % text.len()];
        n += u32::from(reporter.log("thread", fields! { n: n, text: text }));
        yield_now().await;
    }
    let drain = reporter.stop(Duration::from_secs(10)).await;
    ensure(drain.all_delivered(), "the storm is delivered")?;
    print_ledger(&Semihosting, &reporter.stats());
    Ok(())
}

/// The timer's interrupt.
pub(crate) fn interrupted() {
    Periodic::acknowledge();
    let n = INTERRUPTS.load(Ordering::Relaxed);
    if n == EVENTS {
        Periodic::stop();
    } else if TELEMETRY.get().log("interrupt", fields! { n: n }) {
        INTERRUPTS.store(n + 1, Ordering::Relaxed);
    }
}

/// So that the timer's interrupt comes here.
pub(crate) fn prepare() {
    Irq::TIMER.enable();
}
