//! How do errors and panics reach the backend without my telling it? Captured blocks, futures and tasks.
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

/// The block ends where `?` says so, and comes to what it comes to.
fn batch_size(telemetry: &Handle, text: &str) -> Result<u32, ParseIntError> {
    capture!(reporter = telemetry, {
        let size: u32 = text.parse()?;
        Ok(size.max(1))
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    // A backend for this example; an application has `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;
    let telemetry = Reporter::builder("captured")
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .start()?;

    assert_eq!(batch_size(&telemetry, "32"), Ok(32));
    assert!(batch_size(&telemetry, "many").is_err());

    // The caller's own fault is a `user_error`. Without a macro it is `Handle::capture`.
    let missing: Result<(), _> = telemetry.capture().run(|| Err(StatusError::new(404)));
    assert!(missing.is_err());

    // A panic goes on with its own payload; here it ends a thread.
    let handle = telemetry.handle();
    let work = move || capture!(reporter = handle, { panic!("out of memory") });
    assert!(std::thread::spawn(work).join().is_err());

    // A task on the session's executor, to be awaited anywhere; nested captures log once.
    let task = async_capture!(reporter = telemetry, { "x".parse::<u8>() });
    let executor = tokio::runtime::Builder::new_current_thread().build()?; // or any other
    assert!(executor.block_on(task)?.is_err());

    let drain = telemetry.stop_blocking(Duration::from_secs(5))?;
    assert!(drain.all_delivered());
    let session = collector.session("captured").ok_or("nothing has arrived")?;
    for event in session.events() {
        let (kind, json) = (event.kind().as_str(), event.value());
        println!(
            "{kind:<20} {} {}",
            json["error_message"], json["event_data"]
        );
    }
    Ok(())
}
