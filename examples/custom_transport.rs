//! How do I send events somewhere else? With your own transport: here each event becomes a line of JSON on stdout.
//!
//! `cargo run --example custom_transport --features thread`

use core::time::Duration;
use std::io::{self, Write};
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport, fields};

/// Writes to a file, a pipe or stdout.
struct Lines<W>(W);

impl<W: Write + Send + 'static> Transport for Lines<W> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let mut lines = Vec::with_capacity(batch.body().len());
        for event in batch.events() {
            lines.extend_from_slice(event);
            lines.push(b'\n');
        }
        // The transport only classifies an error; the session decides what to do about it. Blocking is fine here: the
        // `Thread` runtime has a dedicated thread for it.
        let written = self.0.write_all(&lines).and_then(|()| self.0.flush());
        written.map_err(SendError::retryable)?;
        Ok(Receipt::delivered())
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let telemetry = Reporter::builder("custom-transport")
        .transport(Lines(io::stdout()))
        .runtime(Thread)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start()?;
    for step in 0..3 {
        telemetry.log("train.step", fields! { step: step, loss: 0.5 });
    }
    let drain = telemetry.stop_blocking(Duration::from_secs(5))?;
    eprintln!("{} events written", drain.delivered);
    Ok(())
}
