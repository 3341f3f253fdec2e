//! How do I use it with tokio? `.runtime(Tokio)` and an asynchronous client.
//!
//! `cargo run --example tokio --features tokio,reqwest,collector`

use core::time::Duration;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::{Config, Handle, HttpTransport, Reporter, Reqwest, Tokio, fields};

async fn work(telemetry: Handle, step: u32) {
    telemetry.log("train.step", fields! { step: step, loss: 0.5 });
    tokio::task::yield_now().await;
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // What `#[tokio::main]` does, without its macro.
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn core::error::Error>> {
    // A backend for this example; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;

    let telemetry = Reporter::builder("on-tokio")
        .transport(HttpTransport::new(config, Reqwest::new()?))
        .runtime(Tokio)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;

    let tasks: Vec<_> = (0..4)
        .map(|step| tokio::spawn(work(telemetry.handle(), step)))
        .collect();
    for task in tasks {
        task.await?;
    }

    // The runtime shuts down when `main` returns: without this `await`, events may be lost.
    let drain = telemetry.stop(Duration::from_secs(5)).await;
    println!("{} events delivered", drain.delivered);
    assert!(drain.all_delivered());
    Ok(())
}
