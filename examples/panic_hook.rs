//! How do I report panics that nothing captures? With a hook for all threads, in addition to existing ones.
//!
//! `cargo run --example panic_hook --features thread,ureq,collector`

use core::error::Error;
use core::time::Duration;
use tinkex_telemetry::capture::PanicHook;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::{
    Config, HttpTransport, Reporter, Severity, Thread, Ureq, install_panic_hook,
};

fn main() -> Result<(), Box<dyn Error>> {
    // A backend for this example; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let config = Config::new(&collector.url(), "any key")?;
    let telemetry = Reporter::builder("panics")
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;

    let hook = install_panic_hook(&telemetry);
    let worker = std::thread::Builder::new().name("worker".into());
    let worker = worker.spawn(|| panic!("the disk is gone"))?;
    assert!(worker.join().is_err());
    hook.remove();

    // With options: the panicking thread waits at most 500 ms for the event to be sent.
    let hook = PanicHook::new(&telemetry)
        .severity(Severity::Critical)
        .timeout(Duration::from_millis(500))
        .install();
    assert!(
        std::thread::spawn(|| panic!("so is the other"))
            .join()
            .is_err()
    );
    hook.remove();

    assert!(
        telemetry
            .stop_blocking(Duration::from_secs(5))?
            .all_delivered()
    );
    let session = collector.session("panics").ok_or("no events arrived")?;
    for event in session.events() {
        let (kind, json) = (event.kind().as_str(), event.value());
        println!("{kind:<20} {} {}", event.severity(), json["traceback"]);
    }
    Ok(())
}
