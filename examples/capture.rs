//! How do I report errors and panics without logging each one? Capture blocks, futures and tasks.
//!
//! `cargo run --example capture --features thread,ureq,collector`

use core::error::Error;
use core::num::ParseIntError;
use core::time::Duration;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::event::StatusError;
use tinkex_telemetry::{
    Config, Handle, HttpTransport, Reporter, Thread, Ureq, async_capture, capture,
};

/// `?` ends the block, and its result is returned unchanged.
fn batch_size(telemetry: &Handle, text: &str) -> Result<u32, ParseIntError> {
    capture!(reporter = telemetry, {
        let size: u32 = text.parse()?;
        Ok(size.max(1))
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    // A backend for this example; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;
    let telemetry = Reporter::builder("captured")
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;

    assert_eq!(batch_size(&telemetry, "32"), Ok(32));
    assert!(batch_size(&telemetry, "many").is_err());

    // A user error becomes a `user_error` event. `Handle::capture` does the same without a macro.
    let missing: Result<(), _> = telemetry.capture().run(|| Err(StatusError::new(404)));
    assert!(missing.is_err());

    // A panic continues with its own payload; here it ends a thread.
    let handle = telemetry.handle();
    let work = move || capture!(reporter = handle, { panic!("out of memory") });
    assert!(std::thread::spawn(work).join().is_err());

    // A task on the session's executor, which can be awaited anywhere; nested captures log once.
    let task = async_capture!(reporter = telemetry, { "x".parse::<u8>() });
    let executor = tokio::runtime::Builder::new_current_thread().build()?; // or any other
    assert!(executor.block_on(task)?.is_err());

    let drain = telemetry.stop_blocking(Duration::from_secs(5))?;
    assert!(drain.all_delivered());
    let session = collector.session("captured").ok_or("no events arrived")?;
    for event in session.events() {
        let (kind, json) = (event.kind().as_str(), event.value());
        println!(
            "{kind:<20} {} {}",
            json["error_message"], json["event_data"]
        );
    }
    Ok(())
}
