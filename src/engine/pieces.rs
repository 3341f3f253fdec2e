//! Events that enter the queue in pieces, so that interrupts wait for no more than one piece.
//!
//! An event has its place from the first on, and is accepted; what comes behind it waits for it. Where nobody can be
//! interrupted while he logs, the driver never sees such an event.

use super::{Engine, Kind};
use crate::engine::ring::Reserved;
use crate::event::encode::Front;
use crate::stats::Refusal;
use core::task::Waker;

impl Engine {
    /// Takes an event whose JSON behind id and index has this length. Front and body are to be
    /// [written](Self::fill) next. The waker, if any, is to be woken.
    pub(crate) fn reserve(
        &mut self,
        body_len: usize,
        kind: Kind<'_>,
    ) -> (Result<(Reserved, Front), Refusal>, Option<Waker>) {
        self.take(body_len, kind, |ring, front| {
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
        let was_held_up = core::mem::take(&mut self.is_held_up);
        if was_held_up {
            self.driver.wake()
        } else {
            None
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::super::testing::World;
    use super::super::{Kind, Step};
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
        fn begin(world: &mut World, name: &str) -> Self {
            let text = "x".repeat(700);
            let body = alloc::format!(
                r#","event":"GENERIC_EVENT","event_name":"{name}","event_data":{{"text":"{text}"}}}}"#
            );
            let (reserved, _) = world.engine.reserve(body.len(), Kind::Ordinary);
            let (reserved, front) = reserved.expect("there is room");
            let mut json = alloc::vec![0; front.len()];
            front.write(&mut json);
            json.extend_from_slice(body.as_bytes());
            let pieces = json.chunks(256).rev().map(Vec::from).collect();
            Self { reserved, pieces }
        }

        /// Writes a piece, if there is one left.
        fn write(&mut self, world: &mut World) -> bool {
            let piece = self.pieces.pop();
            let is_some = piece.is_some();
            world
                .engine
                .fill(&mut self.reserved, &piece.unwrap_or_default());
            is_some
        }

        fn end(mut self, world: &mut World) -> Option<Waker> {
            while self.write(world) {}
            world.engine.finish(&self.reserved)
        }
    }

    #[test]
    fn an_interrupt_logs_while_an_event_is_written_and_both_are_sent_in_order() {
        let mut world = World::new(|_| {});
        for _ in 0..200 {
            let mut outer = Event::begin(&mut world, "thread");
            outer.write(&mut world);
            let mut inner = Event::begin(&mut world, "interrupt");
            inner.write(&mut world);
            world.log("another");
            inner.end(&mut world);
            outer.end(&mut world);
            world.engine.request_flush();
            assert_eq!(world.deliver().names(), ["thread", "interrupt", "another"]);
        }
        let stats = world.engine.stats();
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

        let mut world = World::new(|_| {});
        world.log("before");
        let event = Event::begin(&mut world, "unfinished");
        world.log("behind");
        world.engine.request_flush();
        assert_eq!(world.deliver().names(), ["before"]);
        assert_eq!(world.poll(), Step::Wait(None));
        assert!(world.engine.park(Arc::clone(&woken).into()).is_ok());
        event
            .end(&mut world)
            .expect("the driver waits for it")
            .wake();
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(world.deliver().names(), ["unfinished", "behind"]);
    }

    #[test]
    fn what_is_unfinished_at_a_stops_deadline_is_dropped_and_what_comes_late_is_not_written() {
        let mut world = World::new(|_| {});
        let mut event = Event::begin(&mut world, "unfinished");
        event.write(&mut world);
        world.stop(LONG);
        assert_eq!(world.poll(), Step::Wait(Some(world.after(LONG))));
        world.advance(LONG);
        assert_eq!(world.poll(), Step::Done);
        assert!(event.end(&mut world).is_none());
        let stats = world.engine.stats();
        assert_eq!(
            (stats.accepted, stats.dropped.shutdown, stats.queued),
            (2, 2, 0)
        );
    }
}
