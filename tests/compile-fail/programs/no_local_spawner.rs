//~ `()` is no spawner of local tasks
//~ its one method is `spawn_local`
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport};

struct Nowhere;

impl Transport for Nowhere {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Ok(Receipt::delivered())
    }
}

fn main() {
    drop(Reporter::builder("s").transport(Nowhere).clock(Thread).start_local());
}
