//! Events that enter the queue in pieces, so that an interrupt never waits for the copy of a whole event.
//!
//! An event is accepted and has its place as soon as it is reserved; the events behind it wait until it is finished.
//! Where logging cannot be interrupted, the driver never sees an unfinished event.

use super::{Engine, Priority, Wakers};
use crate::engine::ring::Reserved;
use crate::event::encode::EventPrefix;
use crate::stats::Refusal;

impl Engine {
    /// Takes an event whose JSON after id and index is `body_len` bytes long. [Write](Self::fill) the returned prefix
    /// and the body next.
    pub(crate) fn reserve(
        &mut self,
        body_len: usize,
        priority: Priority<'_>,
    ) -> (Result<(Reserved, EventPrefix), Refusal>, Wakers) {
        self.take(body_len, priority, |ring, prefix| {
            let reserved = ring.reserve(prefix.index, prefix.len() + body_len)?;
            Ok((reserved, prefix))
        })
    }

    /// Writes the next piece of a reserved event.
    pub(crate) fn fill(&mut self, event: &mut Reserved, piece: &[u8]) {
        self.ring.fill(event, piece);
    }

    /// Finishes a reserved event, and wakes the driver if it waits for a writer.
    pub(crate) fn finish(&mut self, event: &Reserved) -> Wakers {
        self.ring.finish(event);
        let was_awaited = core::mem::take(&mut self.awaits_writer);
        if was_awaited {
            self.driver.wake()
        } else {
            Wakers::default()
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::super::testing::Harness;
    use super::super::{Priority, Step};
    use super::*;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicBool, Ordering};
    use core::time::Duration;

    const LONG: Duration = Duration::from_secs(3600);

    /// An event whose pieces are written one by one.
    struct Event {
        reserved: Reserved,
        pieces: Vec<Vec<u8>>,
    }

    impl Event {
        fn begin(harness: &mut Harness, name: &str) -> Self {
            let text = "x".repeat(700);
            let body = alloc::format!(
                r#","event":"GENERIC_EVENT","event_name":"{name}","event_data":{{"text":"{text}"}}}}"#
            );
            let (reserved, _) = harness.engine.reserve(body.len(), Priority::Ordinary);
            let (reserved, prefix) = reserved.expect("there is room");
            let mut json = alloc::vec![0; prefix.len()];
            prefix.write(&mut json);
            json.extend_from_slice(body.as_bytes());
            let pieces = json.chunks(256).rev().map(Vec::from).collect();
            Self { reserved, pieces }
        }

        /// Writes the next piece, if any is left.
        fn write(&mut self, harness: &mut Harness) -> bool {
            let piece = self.pieces.pop();
            let is_some = piece.is_some();
            harness
                .engine
                .fill(&mut self.reserved, &piece.unwrap_or_default());
            is_some
        }

        fn end(mut self, harness: &mut Harness) -> Wakers {
            while self.write(harness) {}
            harness.engine.finish(&self.reserved)
        }
    }

    #[test]
    fn an_event_logged_from_an_interrupt_follows_the_interrupted_one() {
        let mut harness = Harness::new(|_| {});
        for _ in 0..200 {
            let mut outer = Event::begin(&mut harness, "thread");
            outer.write(&mut harness);
            let mut inner = Event::begin(&mut harness, "interrupt");
            inner.write(&mut harness);
            harness.log("another");
            let changed = inner.end(&mut harness);
            harness.wake(changed);
            let changed = outer.end(&mut harness);
            harness.wake(changed);
            harness.flush();
            assert_eq!(
                harness.deliver().names(),
                ["thread", "interrupt", "another"]
            );
        }
        let stats = harness.engine.stats();
        assert_eq!((stats.accepted, stats.delivered), (600, 600));
    }

    #[test]
    fn an_unfinished_event_delays_later_ones_and_wakes_the_driver_when_finished() {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let woken = Arc::new(Woken(AtomicBool::new(false)));

        let mut harness = Harness::new(|_| {});
        harness.log("before");
        let event = Event::begin(&mut harness, "unfinished");
        harness.log("behind");
        harness.flush();
        assert_eq!(harness.deliver().names(), ["before"]);
        assert_eq!(harness.poll(), Step::Wait(None));
        let parked = harness.engine.park(Arc::clone(&woken).into());
        assert!(harness.wake(parked));
        let finished = event.end(&mut harness);
        harness.wake(finished);
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(harness.deliver().names(), ["unfinished", "behind"]);
    }

    #[test]
    fn an_event_unfinished_at_the_deadline_of_a_stop_is_dropped() {
        let mut harness = Harness::new(|_| {});
        let mut event = Event::begin(&mut harness, "unfinished");
        event.write(&mut harness);
        harness.stop(LONG);
        assert_eq!(harness.poll(), Step::Wait(Some(harness.after(LONG))));
        harness.advance(LONG);
        assert_eq!(harness.poll(), Step::Done);
        assert!(event.end(&mut harness).is_none());
        let stats = harness.engine.stats();
        assert_eq!(
            (stats.accepted, stats.dropped.shutdown, stats.queued),
            (2, 2, 0)
        );
    }
}
