//! A spool in front of a collector: what it cannot take now is on disk, and goes to it later.

use core::time::Duration;
use otlp::Collector;
use tinkex_telemetry::otlp::{OtlpConfig, OtlpTransport};
use tinkex_telemetry::session::SessionId;
use tinkex_telemetry::spool::Spool;
use tinkex_telemetry::{Reporter, Thread, fields};

const BOUND: Duration = Duration::from_secs(60);

#[test]
fn events_wait_on_disk_until_the_collector_takes_them() {
    let name = format!("tinkex-otlp-spool-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    let collector = Collector::answering(&[(503, b""), (429, b""), (200, b"")]);
    let config = OtlpConfig::new("http://127.0.0.1:4318").expect("a valid URL");
    let spool = Spool::builder(&folder)
        .transport(OtlpTransport::new(config, collector.clone()))
        .runtime(Thread)
        .retry_base_delay(Duration::from_millis(1))
        .enabled(true)
        .start()
        .expect("the spool starts");
    let reporter = Reporter::builder(SessionId::random())
        .transport(spool.transport())
        .enabled(true)
        .runtime(Thread)
        .start()
        .expect("the session starts");
    for step in 0..8 {
        assert!(reporter.log("step", fields! { step: step }));
    }
    let handle = reporter.handle();
    let stopped = reporter.stop_blocking(BOUND);
    assert!(stopped.is_ok_and(|drain| drain.all_safe()));
    assert_eq!(handle.stats().handed_over, 10);
    let left = spool.wait_until_delivered_blocking(BOUND);
    let left = left.expect("no executor waits here");
    assert!(left.is_empty(), "{left:?}");
    let stats = spool.stats();
    assert_eq!(
        (stats.handed_over, stats.delivered, stats.rejected),
        (10, 0, 0)
    );
    let requests = collector.requests();
    assert!(requests.len() >= 3);
    // What was refused is sent again, byte for byte.
    assert_eq!(requests[0].body(), requests[1].body());
    assert_eq!(requests[1].body(), requests[2].body());
    drop(spool);
    let _ = std::fs::remove_dir_all(&folder);
}
