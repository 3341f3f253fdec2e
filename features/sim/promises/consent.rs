//! What must hold exactly when consent is withdrawn, and when it is given again.

use super::super::app::{AppSession, indices_taken};
use super::super::env::Env;
use super::super::op::Op;
use super::super::reply::Reply;
use super::HOURS;
use crate::event::Severity;
use crate::session::Options;
use alloc::rc::Rc;
use core::cell::Cell;
use core::time::Duration;

pub(super) async fn check(env: &Env, options: &Options) {
    let open = || AppSession::open(env, options);
    open().leaves_nothing_of_an_attempt_under_way().await;
    open().ends_silently_while_it_is_off().await;
    open().sends_what_was_queued_before_it_was_off().await;
    open().goes_on_without_a_gap().await;
}

impl AppSession {
    fn id_of(&self) -> &str {
        self.handle.session_id().unwrap_or_default()
    }

    /// A wait that began before it ends at once, and no attempt follows.
    async fn leaves_nothing_of_an_attempt_under_way(mut self) {
        let _ = self.handle.wait_until_drained(HOURS).await;
        self.env.server().always(Reply::stall());
        self.log(2);
        let before = self.handle.stats();
        // In a task of its own, so that it has a waker by then.
        let ended = Rc::new(Cell::new(None));
        let waiter = (self.env.clone(), self.handle.clone(), Rc::clone(&ended));
        self.env.spawn(async move {
            let (env, handle, ended) = waiter;
            let drain = handle.wait_until_drained(HOURS).await;
            ended.set(Some((env.now(), drain)));
        });
        self.env.advance(Duration::from_millis(30)).await;
        let requests = self.env.server().requests(self.id_of());
        self.step(Op::Withdraw).await;
        let start = self.env.now();
        self.env.advance(Duration::from_millis(1)).await;
        let (at, drain) = ended.take().expect("a wait outlasts the withdrawal");
        assert_eq!(at, start, "the wait ends at once");
        assert_eq!(drain.dropped, before.queued, "{drain:?}");
        self.env.server().always(Reply::accept());
        self.env.advance(HOURS).await;
        assert_eq!(self.env.server().requests(self.id_of()), requests);
        self.env.heal();
    }

    async fn ends_silently_while_it_is_off(mut self) {
        self.log(1);
        self.step(Op::Withdraw).await;
        self.log(1);
        let (start, requests) = (self.env.now(), self.env.server().requests(self.id_of()));
        let drain = self.stop(HOURS).await;
        assert!(drain.is_drained() && self.env.now() == start, "{drain:?}");
        self.env.advance(Duration::from_secs(60)).await;
        let server = self.env.server();
        assert!(!server.has_ended(self.id_of()) && server.requests(self.id_of()) == requests);
        assert!(!self.handle.stats().driver_alive);
    }

    async fn sends_what_was_queued_before_it_was_off(mut self) {
        self.log(2);
        let queued = self.handle.stats().queued;
        self.step(Op::SetEnabled(false)).await;
        self.log(1);
        let drain = self.stop(HOURS).await;
        assert!(
            drain.all_delivered() && drain.delivered == queued,
            "{drain:?}"
        );
        assert!(!self.env.server().has_ended(self.id_of()));
    }

    /// What was refused meanwhile takes no index, and what is logged afterwards is sent.
    async fn goes_on_without_a_gap(mut self) {
        self.step(Op::Withdraw).await;
        let before = indices_taken(&self.handle.stats());
        self.log(3);
        self.step(Op::SetEnabled(true)).await;
        self.step(Op::SetMinSeverity(Severity::Error)).await;
        self.log(3);
        let error = std::io::Error::other("simulated, severe enough");
        assert!(self.handle.log_exception(&error, Severity::Error));
        let drain = self.stop(HOURS).await;
        assert!(drain.all_delivered() && drain.delivered == 2, "{drain:?}");
        let stats = self.handle.stats();
        assert_eq!(stats.refused.disabled, 3, "{stats:?}");
        assert_eq!(stats.refused.below_min_severity, 3, "{stats:?}");
        assert_eq!(indices_taken(&stats), before + 2, "{stats:?}");
    }
}
