//! How do I send events to two places, and what does a loss in one of them mean? Here the first place decides: what it
//! takes is delivered, what it refuses is retried or dropped. The second has copies, and what it lacks is counted apart.
//!
//! `cargo run --example two_places --features thread`

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use core::time::Duration;
use tinkex_telemetry::transport::BoxTransport;
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Thread, Transport, fields};

/// Sends each batch to both. One that takes the body, as `HttpTransport` does, must come last, as the copy.
struct Tee<T> {
    decides: T,
    copy: BoxTransport, // chosen when the program runs
}

static NOT_COPIED: AtomicUsize = AtomicUsize::new(0);

impl<T: Transport> Transport for Tee<T> {
    async fn send(&mut self, mut batch: Batch<'_>) -> Result<Receipt, SendError> {
        // An error ends the attempt before anything is copied, so that a retry copies nothing twice.
        let receipt = self.decides.send(batch.reborrow()).await?;
        let events = batch.event_count();
        if let Err(error) = self.copy.send(batch).await {
            println!("{events} events are not copied: {error}");
            NOT_COPIED.fetch_add(events, Relaxed);
        }
        // To have both decide, return that error: both get the batch again, and the first knows it by its ids and key.
        Ok(receipt)
    }
}

/// Counts the events that it takes. The attempt of this number fails.
struct Place(&'static AtomicUsize, usize);

impl Transport for Place {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let attempt = self.1;
        self.1 = attempt.wrapping_sub(1);
        if attempt == 1 {
            return Err(SendError::retryable("out of reach"));
        }
        self.0.fetch_add(batch.event_count(), Relaxed);
        Ok(Receipt::delivered())
    }
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    static FIRST: AtomicUsize = AtomicUsize::new(0);
    static SECOND: AtomicUsize = AtomicUsize::new(0);
    let (decides, copy) = (Place(&FIRST, 1), BoxTransport::new(Place(&SECOND, 2)));
    let telemetry = Reporter::builder("two-places")
        .transport(Tee { decides, copy })
        .runtime(Thread)
        .retry_base_delay(Duration::from_millis(10))
        .max_batch_size(4)
        .enabled(true) // a demonstration sends, whatever the environment says
        .start()?;
    for step in 0..10 {
        telemetry.log("train.step", fields! { step: step });
    }
    let drain = telemetry.stop_blocking(Duration::from_secs(5))?;
    assert!(drain.all_delivered());

    let stats = telemetry.stats();
    let (first, second) = (FIRST.load(Relaxed), SECOND.load(Relaxed));
    let missing = NOT_COPIED.load(Relaxed);
    println!("delivered {} of {}", stats.delivered, stats.accepted);
    println!("the first place has {first}, the second {second} and lacks {missing}");
    // Nothing is lost: the first attempt at the first place has failed, and was repeated.
    assert_eq!((first, stats.dropped.total()), (12, 0));
    assert_eq!(second + missing, first);
    Ok(())
}
