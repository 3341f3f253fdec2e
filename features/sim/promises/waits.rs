//! What must hold for waits and wakes: whom a wait waits for, whom it holds, and how often anything wakes.

use super::super::app::AppSession;
use super::super::env::Env;
use super::super::reply::Reply;
use crate::driver::yield_now;
use crate::session::Options;
use crate::sometimes;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::{Context, Waker};
use core::time::Duration;

pub(super) async fn check(env: &Env, options: &Options) {
    let session = AppSession::open(env, options);
    session.drains_while_others_log().await;
    session.holds_only_the_latest_waker_of_a_wait().await;
    drop(session);

    let mut rare = options.clone();
    (rare.max_queue_size, rare.flush_threshold) = (100, 100);
    rare.max_queue_bytes = rare.max_queue_bytes.max(100_000);
    rare.max_batch_bytes = rare.max_batch_bytes.max(100_000);
    (rare.max_batch_size, rare.flush_interval) = (100, Duration::from_secs(10));
    AppSession::open(env, &rare).wakes_its_driver_rarely().await;
    rare.max_batch_size = 1;
    AppSession::open(env, &rare).yields_to_others().await;
}

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls a wait that is not over, under this waker.
fn poll(wait: &mut Pin<Box<impl Future>>, wakes: &Arc<Wakes>) {
    let waker = Waker::from(Arc::clone(wakes));
    let poll = wait.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll.is_pending(), "a wait is over before its time");
}

impl AppSession {
    /// A drain waits for what was accepted before it, not for what others log meanwhile.
    async fn drains_while_others_log(&self) {
        self.log(3);
        let is_over = Rc::new(Cell::new(false));
        let others = (self.env.clone(), self.handle.clone(), Rc::clone(&is_over));
        self.env.spawn(async move {
            let (env, handle, is_over) = others;
            while !is_over.get() {
                handle.log("meanwhile", ());
                env.advance(Duration::from_millis(5)).await;
            }
        });
        let (before, start) = (self.handle.stats(), self.env.now());
        let wait = self.handle.wait_until_drained(Duration::from_secs(20));
        let drain = wait.await;
        is_over.set(true);
        assert!(drain.all_delivered(), "a drain under load: {drain:?}");
        self.assert_prompt(start, before.queued + 1);
        sometimes!(
            self.handle.stats().accepted > before.accepted,
            "events are logged during a drain"
        );
        self.drains_at_once().await;
    }

    /// A wait that moves to another task wakes the new one and forgets the old one; one that is dropped, both.
    async fn holds_only_the_latest_waker_of_a_wait(&self) {
        let tasks: [Arc<Wakes>; 3] = Default::default();
        for long in [true, false] {
            self.env.server().always(Reply::stall());
            self.send_one();
            let timeout = Duration::from_millis(if long { 3_600_000 } else { 100 });
            let mut wait = Box::pin(self.handle.wait_until_drained(timeout));
            let mut given_up = Box::pin(self.handle.wait_until_drained(timeout));
            tasks.iter().for_each(|task| poll(&mut wait, task));
            poll(&mut given_up, &tasks[2]);
            let held = |task: &Arc<Wakes>| Arc::strong_count(task) - 1;
            assert!(
                held(&tasks[0]) + held(&tasks[1]) == 0,
                "a wait holds the waker of a task that it has left"
            );
            let of_both = held(&tasks[2]);
            drop(given_up);
            assert_eq!(
                2 * held(&tasks[2]),
                of_both,
                "a wait that is given up leaves a waker"
            );
            let before = tasks[2].0.load(Ordering::Relaxed);
            // One ends with its events, the other with its time.
            if long {
                self.env.heal();
                self.env.advance(self.options.http_timeout).await;
                self.drains_after_an_outage().await;
            } else {
                self.env.advance(timeout + Duration::from_millis(1)).await;
            }
            let woken = tasks[2].0.load(Ordering::Relaxed) - before;
            assert!(woken > 0, "a wait that has moved is not woken");
            drop(wait);
            self.env.heal();
            self.env.advance(self.options.http_timeout).await;
            self.drains_after_an_outage().await;
        }
    }

    /// Drains what an attempt that has failed left, if it is not dropped.
    async fn drains_after_an_outage(&self) {
        let bound = self.options.retry_max_delay + Duration::from_secs(60);
        let drain = self.handle.wait_until_drained(bound).await;
        assert!(drain.is_drained(), "a drain after an outage: {drain:?}");
    }

    /// Events that wait for the interval, or behind a batch in flight, do not wake the driver one by one.
    async fn wakes_its_driver_rarely(&self) {
        const EVENTS: u64 = 20;
        self.drains_at_once().await;
        let count = async || {
            let before = self.env.0.turns.get();
            for _ in 0..EVENTS {
                self.log(1);
                self.env.advance(Duration::from_millis(1)).await;
            }
            // One of these turns for each event is the scenario's own.
            (self.env.0.turns.get() - before).saturating_sub(EVENTS)
        };
        let idle = count().await;
        assert!(
            idle <= 6,
            "{EVENTS} events woke an idle driver {idle} times"
        );
        self.env.server().always(Reply::stall());
        self.handle.flush();
        self.env.advance(Duration::from_millis(30)).await;
        let sending = count().await;
        assert!(
            sending <= 6,
            "{EVENTS} events woke a driver that waits for a response {sending} times"
        );
        self.env.heal();
        self.env.advance(self.options.http_timeout).await;
        self.drains_after_an_outage().await;
    }

    /// A transport that is always ready does not keep the executor from its other tasks.
    async fn yields_to_others(&self) {
        /// What a driver may send in a turn, twice: it may have moved.
        const PER_TURN: u64 = 2 * 16;
        let server = |is_instant| self.env.0.world.state().server.is_instant = is_instant;
        server(true);
        self.log(99);
        self.handle.flush();
        let (turns, requests) = (self.env.0.turns.get(), self.requests());
        while self.handle.stats().queued > 0 {
            yield_now().await;
            let turns = self.env.0.turns.get() - turns;
            let sent = self.requests() - requests;
            assert!(sent <= PER_TURN * turns, "{sent} requests in {turns} turns");
        }
        server(false);
        self.env.advance(Duration::from_millis(1)).await;
    }
}
