//! How do I use it with embassy? One task runs a pool of the sessions' drivers; here on the host.
//!
//! `cargo run -p example-embassy-host`

use core::time::Duration;
use embassy_executor::{Executor, Spawner};
use tinkex_telemetry::runtime::{Embassy, EmbassyPool};
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Transport, fields};

static POOL: EmbassyPool = EmbassyPool::new();

#[embassy_executor::task]
async fn telemetry() {
    POOL.run().await;
}

#[embassy_executor::task]
async fn application(spawner: Spawner) {
    let code = match run(spawner).await {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    // Embassy's executor never returns, so the program exits here.
    std::process::exit(code);
}

struct Stdout;

impl Transport for Stdout {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        println!("{}", String::from_utf8_lossy(batch.body()));
        Ok(Receipt::delivered())
    }
}

async fn run(spawner: Spawner) -> Result<(), Box<dyn core::error::Error>> {
    spawner.spawn(telemetry()?);
    let reporter = Reporter::builder("embassy-host")
        .transport(Stdout)
        .runtime(Embassy::on(&POOL))
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;
    reporter.log("app.started", fields! { version: "1.0.0" });
    let drain = reporter.stop(Duration::from_secs(5)).await;
    println!(
        "{} events delivered, {} lost",
        drain.delivered,
        drain.dropped + drain.remaining
    );
    Ok(())
}

fn main() {
    let executor: &'static mut Executor = Box::leak(Box::new(Executor::new()));
    executor.run(|spawner| spawner.spawn(application(spawner).expect("the task is spawned once")));
}
