use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport};

struct Nowhere;

impl Transport for Nowhere {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Ok(Receipt::delivered())
    }
}

fn main() {
    let builder = Reporter::builder("s").transport(Nowhere).runtime(Thread);
    drop(builder.start());
}
