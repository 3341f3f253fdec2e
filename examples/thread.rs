//! How do I use it without an executor, and set options? With the `Thread` runtime and blocking calls.
//!
//! `cargo run --example thread --features thread,ureq,collector`

use core::time::Duration;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq, fields};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // A backend for this example; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;

    let telemetry = Reporter::builder("on-a-thread")
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .flush_interval(Duration::from_secs(2))
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;

    // Pass a handle to any code that logs.
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let telemetry = telemetry.handle();
            std::thread::spawn(move || telemetry.log("worker.ready", fields! { worker: worker }))
        })
        .collect();
    for worker in workers {
        assert!(worker.join().is_ok_and(|accepted| accepted));
    }

    let drain = telemetry.stop_blocking(Duration::from_secs(5))?;
    println!("{} events delivered", drain.delivered);
    assert!(drain.all_delivered());
    Ok(())
}
