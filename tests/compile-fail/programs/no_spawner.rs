//~ `()` is no spawner
//~ without one, `Builder::build` returns the driver to run on any executor
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport};

struct Nowhere;

impl Transport for Nowhere {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Ok(Receipt::delivered())
    }
}

fn main() {
    drop(Reporter::builder("s").transport(Nowhere).clock(Thread).start());
}
