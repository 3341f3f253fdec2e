//! How do I use it with async-std and surf? `.runtime(AsyncStd)`, and the program's own client.
//!
//! `cargo run -p example-async-std`

use core::time::Duration;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::Surf;
use tinkex_telemetry::runtime::AsyncStd;
use tinkex_telemetry::{Config, HttpTransport, Reporter, fields};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // A backend for this example; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;

    async_std::task::block_on(async {
        let telemetry = Reporter::builder("on-async-std")
            .transport(HttpTransport::new(config, Surf::new(surf::Client::new)))
            .runtime(AsyncStd)
            // This is a demonstration: it sends, whatever the environment says.
            .enabled(true)
            .start()?;

        telemetry.log("train.step", fields! { step: 1, loss: 0.5 });

        // async-std does not wait for its tasks when `main` returns.
        let drain = telemetry.stop(Duration::from_secs(5)).await;
        println!("{} events delivered", drain.delivered);
        assert!(drain.all_delivered());
        Ok(())
    })
}
