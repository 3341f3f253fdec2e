//~ `()` is no transport
//~ an HTTP client becomes one by `HttpTransport::new(config, client)`
use tinkex_telemetry::{Reporter, Thread};

fn main() {
    drop(Reporter::builder("s").runtime(Thread).start());
}
