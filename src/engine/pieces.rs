//! Events that enter the queue in pieces, so that interrupts wait for no more than one piece.
//!
//! An event has its place from the first on, and is accepted; what comes behind it waits for it. Where nobody can be
//! interrupted while he logs, the driver never sees such an event.

use super::{Engine, Priority};
use crate::engine::ring::Reserved;
use crate::event::encode::EventPrefix;
use crate::stats::Refusal;
use core::task::Waker;

impl Engine {
    /// Takes an event whose JSON behind id and index has this length. Front and body are to be
    /// [written](Self::fill) next. The waker, if any, is to be woken.
    pub(crate) fn reserve(
        &mut self,
        body_len: usize,
        priority: Priority<'_>,
    ) -> (Result<(Reserved, EventPrefix), Refusal>, Option<Waker>) {
        self.take(body_len, priority, |ring, front| {
            let reserved = ring.reserve(front.index, front.len() + body_len)?;
            Ok((reserved, front))
        })
    }

    /// Writes the next piece.
    pub(crate) fn fill(&mut self, event: &mut Reserved, piece: &[u8]) {
        self.ring.fill(event, piece);
    }

    /// Nothing is left to be written. The waker, if any, is to be woken.
    pub(crate) fn finish(&mut self, event: &Reserved) -> Option<Waker> {
        self.ring.finish(event);
        let was_awaited = core::mem::take(&mut self.awaits_writer);
        if was_awaited {
            self.driver.wake()
        } else {
            None
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
            let (reserved, front) = reserved.expect("there is room");
            let mut json = alloc::vec![0; front.len()];
            front.write(&mut json);
            json.extend_from_slice(body.as_bytes());
            let pieces = json.chunks(256).rev().map(Vec::from).collect();
            Self { reserved, pieces }
        }

        /// Writes a piece, if there is one left.
        fn write(&mut self, harness: &mut Harness) -> bool {
            let piece = self.pieces.pop();
            let is_some = piece.is_some();
            harness
                .engine
                .fill(&mut self.reserved, &piece.unwrap_or_default());
            is_some
        }

        fn end(mut self, harness: &mut Harness) -> Option<Waker> {
            while self.write(harness) {}
            harness.engine.finish(&self.reserved)
        }
    }

    #[test]
    fn an_interrupt_logs_while_an_event_is_written_and_both_are_sent_in_order() {
        let mut harness = Harness::new(|_| {});
        for _ in 0..200 {
            let mut outer = Event::begin(&mut harness, "thread");
            outer.write(&mut harness);
            let mut inner = Event::begin(&mut harness, "interrupt");
            inner.write(&mut harness);
            harness.log("another");
            inner.end(&mut harness);
            outer.end(&mut harness);
            harness.engine.request_flush();
            assert_eq!(
                harness.deliver().names(),
                ["thread", "interrupt", "another"]
            );
        }
        let stats = harness.engine.stats();
        assert_eq!((stats.accepted, stats.delivered), (600, 600));
    }

    #[test]
    fn an_unfinished_event_holds_up_what_is_behind_it_and_wakes_the_driver_when_it_is_finished() {
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
        harness.engine.request_flush();
        assert_eq!(harness.deliver().names(), ["before"]);
        assert_eq!(harness.poll(), Step::Wait(None));
        assert!(harness.engine.park(Arc::clone(&woken).into()).is_ok());
        event
            .end(&mut harness)
            .expect("the driver waits for it")
            .wake();
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(harness.deliver().names(), ["unfinished", "behind"]);
    }

    #[test]
    fn what_is_unfinished_at_a_stops_deadline_is_dropped_and_what_comes_late_is_not_written() {
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
