//! Sends every kind of event, and values that collectors stumble over, to the collector at this base URL, in both
//! encodings, plain and compressed. Fails if the collector refuses any of them.

use core::error::Error;
use core::time::Duration;
use tinkex_telemetry::event::serde_json::{Value, json};
use tinkex_telemetry::http::HttpEvents;
use tinkex_telemetry::otlp::{OtlpConfig, OtlpTransport, Protocol};
use tinkex_telemetry::session::SessionId;
use tinkex_telemetry::{Reporter, Severity, Thread, Ureq};

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: poison URL")?;
    let mut failures = 0;
    for protocol in [Protocol::HttpProtobuf, Protocol::HttpJson] {
        for is_compressed in [false, true] {
            let config = OtlpConfig::new(&url)?.protocol(protocol);
            let config = if is_compressed { config.gzip() } else { config };
            let refused = send_all(&config)?;
            println!(
                "{protocol:?}, compressed: {is_compressed}: {} refused",
                refused.len()
            );
            for what in &refused {
                println!("  refused: {what}");
            }
            failures += refused.len();
        }
    }
    if failures > 0 {
        return Err(format!("{failures} sessions lost events").into());
    }
    Ok(())
}

/// Each value is sent in a session of its own. Returns those of which something was refused.
fn send_all(config: &OtlpConfig) -> Result<Vec<&'static str>, Box<dyn Error>> {
    let nested = |is_array: bool| {
        (0..64).fold(json!(1), |value, _| {
            if is_array {
                json!([value])
            } else {
                json!({ "a": value })
            }
        })
    };
    let poison: [(&str, Value); 12] = [
        ("nothing", json!({})),
        ("null", json!({ "a": null, "b": 1 })),
        ("null in an array", json!({ "a": [1, null, 2] })),
        ("u64::MAX", json!({ "a": u64::MAX })),
        ("i64::MIN", json!({ "a": i64::MIN })),
        ("64 objects in one another", json!({ "a": nested(false) })),
        ("64 arrays in one another", json!({ "a": nested(true) })),
        ("U+0000", json!({ "a\u{0}": "b\u{0}" })),
        ("64 KiB", json!({ "a": "x".repeat(64 * 1024 - 300) })),
        ("empty", json!({ "": "", "a": {}, "b": [] })),
        (
            "extreme floats",
            json!({ "a": f64::MAX, "b": 5e-324, "c": -0.0 }),
        ),
        (
            "names of its own",
            json!({ "session.id": 1, "http.x": {}, "service.name": "x" }),
        ),
    ];
    let mut refused = Vec::new();
    for (what, data) in poison {
        let transport = OtlpTransport::new(config.clone(), Ureq::new());
        let builder = Reporter::builder(SessionId::random()).transport(transport);
        let telemetry = builder
            .enabled(true)
            .max_retries(0)
            .runtime(Thread)
            .start()?;
        let severities = [
            Severity::Debug,
            Severity::Info,
            Severity::Warning,
            Severity::Critical,
        ];
        let mut is_accepted = severities
            .into_iter()
            .all(|severity| telemetry.log_with("poison", &data, severity));
        is_accepted &= telemetry.log_exception("a wrong value", Severity::Error);
        let requests = HttpEvents::new(&telemetry);
        requests.start("GET", "/weights").stop(503);
        requests
            .start("GET", "/weights")
            .exception("timeout", "no response in time");
        let handle = telemetry.handle();
        let _ = telemetry.stop_blocking(Duration::from_secs(30))?;
        let stats = handle.stats();
        if !is_accepted || stats.handed_over != stats.accepted {
            println!("{stats:?}");
            refused.push(what);
        }
    }
    Ok(refused)
}
