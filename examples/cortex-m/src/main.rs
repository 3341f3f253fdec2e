//! A reporter on a Cortex-M3 without an allocator: embassy's executor, two sessions, tasks and interrupts that log.
//!
//! `cargo run --release` in this folder runs it in `qemu-system-arm`; it prints every request and exits with success or
//! failure.
#![no_std]
#![no_main]

mod board;
mod storm;

use crate::board::{Irq, Semihosting, Slot, exit};
use cortex_m_rt::{entry, exception};
use embassy_executor::Spawner;
use scenario::{Printer, REPLIES, SessionMemory, executor, section, time};
use static_cell::ConstStaticCell;
use tinkex_telemetry::Handle;
use tinkex_telemetry::runtime::Embassy;
use tinkex_telemetry::session::{Driver, Memory};

/// The button interrupt's session.
static TELEMETRY: Slot = Slot::new();

#[entry]
fn main() -> ! {
    let Some(peripherals) = cortex_m::Peripherals::take() else {
        exit(Err("this is the first to take them"));
    };
    time::start(peripherals.SYST);
    storm::prepare();
    Irq::BUTTON.enable();
    executor::run(|spawner| match program(spawner) {
        Ok(task) => spawner.spawn(task),
        Err(_) => exit(Err("this is the first task")),
    })
}

#[embassy_executor::task]
async fn program(spawner: Spawner) {
    exit(sessions(spawner).await);
}

async fn sessions(spawner: Spawner) -> Result<(), &'static str> {
    static MEMORY: ConstStaticCell<SessionMemory> = ConstStaticCell::new(Memory::new());
    let transport = Printer::new(&Semihosting, REPLIES);
    let builder = scenario::session("scenario", 7, transport);
    let (reporter, driver) = builder
        .build_in(MEMORY.take())
        .map_err(|_| "the memory is large enough")?;
    spawner.spawn(drive(driver).map_err(|_| "there is room for the driver")?);
    spawner.spawn(sample(reporter.handle()).map_err(|_| "there is room for the sampler")?);
    TELEMETRY.set(reporter.handle());
    scenario::run(reporter, &Semihosting, || Irq::BUTTON.raise()).await?;
    storm::run(spawner).await?;
    let (longest, copy) = section::longest();
    let steps = format_args!("held {longest} copy {copy}\n");
    scenario::print(&Semihosting, steps);
    Ok(())
}

#[embassy_executor::task(pool_size = 2)]
async fn drive(driver: Driver<Printer<Semihosting>, Embassy>) {
    driver.run_local().await;
}

#[embassy_executor::task]
async fn sample(telemetry: Handle) {
    scenario::sample(telemetry).await;
}

#[exception]
fn SysTick() {
    time::step();
}

/// Handles all interrupts.
#[exception]
unsafe fn DefaultHandler(irq: i16) {
    match irq {
        0 => scenario::interrupted(&TELEMETRY.get()),
        19 => storm::interrupted(),
        _ => exit(Err("this interrupt was not enabled")),
    }
}
