//~ `Mine` is no transport
//~ not a `Transport`
//~ whose one required method is `async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError>`
//~ one that is chosen when the program runs is a `BoxTransport::new(transport)`, or one of two in `Either`
use tinkex_telemetry::{Reporter, Thread};

struct Mine;

fn main() {
    drop(Reporter::builder("s").transport(Mine).runtime(Thread).start());
}
