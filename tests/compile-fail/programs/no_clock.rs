//~ `()` is no clock
//~ or with `.clock(…)`: `Thread` is one for any executor
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Transport};

struct Nowhere;

impl Transport for Nowhere {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Ok(Receipt::delivered())
    }
}

fn main() {
    drop(Reporter::builder("s").transport(Nowhere).build());
}
