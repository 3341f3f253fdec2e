//! How do I use it with smol? `.runtime(Smol)`; or, as here, your own executor and a transport that is not `Send`.
//!
//! `cargo run --example smol --features smol`

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::cell::RefCell;
use core::time::Duration;
use smol::LocalExecutor;
use std::rc::Rc;
use tinkex_telemetry::local::LocalTransport;
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Smol, fields};

/// Shares what it receives with the rest of its thread.
struct Inbox(Rc<RefCell<Vec<String>>>);

impl LocalTransport for Inbox {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let events = batch.events();
        let texts = events.map(|event| String::from_utf8_lossy(event).into_owned());
        self.0.borrow_mut().extend(texts);
        Ok(Receipt::delivered())
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let executor = Rc::new(LocalExecutor::new());
    let inbox = Rc::default();

    let telemetry = Reporter::builder("on-smol")
        .transport(Inbox(Rc::clone(&inbox)))
        .clock(Smol)
        .spawner(Rc::clone(&executor))
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .start_local()?;

    smol::block_on(executor.run(async {
        telemetry.log("train.step", fields! { step: 1, loss: 0.5 });
        let drain = telemetry.stop(Duration::from_secs(5)).await;
        assert!(drain.all_delivered());
    }));
    for event in inbox.borrow().iter() {
        println!("{event}");
    }
    assert_eq!(inbox.borrow().len(), 3);
    Ok(())
}
