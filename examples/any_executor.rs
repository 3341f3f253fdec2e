//! How do I run it on an executor that has no adapter? `build()` returns the driver, whose `run` is an ordinary future.
//!
//! `cargo run --example any_executor --features thread`

#![allow(clippy::std_instead_of_alloc, reason = "a program, not a library")]

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::sync::Arc;
use std::task::Wake;
use std::thread;
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport, fields};

struct Stdout;

impl Transport for Stdout {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        println!("{}", String::from_utf8_lossy(batch.body()));
        Ok(Receipt::delivered())
    }
}

/// A minimal executor: runs one future on the calling thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // `Thread` is only the clock here: it works on any executor.
    let (telemetry, driver) = Reporter::builder("any-executor")
        .transport(Stdout)
        .clock(Thread)
        // This is a demonstration: it sends, whatever the environment says.
        .enabled(true)
        .build()?;
    let executor = thread::spawn(move || block_on(driver.run()));

    telemetry.log("app.started", fields! { version: "1.0.0" });
    let drain = block_on(telemetry.stop(Duration::from_secs(5)));
    println!(
        "{} events delivered, {} lost",
        drain.delivered,
        drain.dropped + drain.remaining
    );
    executor.join().expect("the driver does not panic");
    Ok(())
}
