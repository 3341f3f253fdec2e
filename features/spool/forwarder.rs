//! The forwarder: sends what is on disk, one request at a time, and decides what an answer means for it.

use super::job::Job;
use super::keeper::{Keeper, Next};
use super::notes;
use super::pace::Pace;
use super::parcel::Parcel;
use super::state::{Shared, Trouble};
use super::stats::SpoolStats;
use super::time;
use super::worker::{Answer, Worker};
use crate::clock::Clock;
use crate::engine::retry;
use crate::sys::panics;
use crate::time::Instant;
use crate::transport::{
    Batch, BatchMeta, Body, Receipt, RetryAfter, SendError, SendErrorKind, Transport,
};
use alloc::sync::Arc;
use core::future::{Future as _, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;
use core::time::Duration;

/// How often the directory is looked through.
const LOOK: Duration = Duration::from_secs(60);

/// How often a paused destination is tried.
const PAUSE: Duration = Duration::from_secs(600);

/// After so many failures in a row the backend is said to be away.
const AWAY: u32 = 4;

/// An event on which the server fails is given up no earlier.
const FAILS_ALONE: Duration = Duration::from_secs(600);

/// A longer wait than this is not granted to a server.
const LONGEST_WAIT: Duration = Duration::from_secs(900);

/// How long requests may take, and how long the forwarder waits after a failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) http_timeout: Duration,
    pub(super) retry_base_delay: Duration,
    pub(super) retry_max_delay: Duration,
}

/// The forwarder's own part.
pub(super) struct Forwarder<T, C> {
    transport: T,
    clock: C,
    keeper: Worker<Keeper>,
    shared: Arc<Shared>,
    timing: Timing,
    random: crate::sys::entropy::Random,
    body: Body,
    /// Requests in a row without an answer that settles something.
    failures: u32,
    not_before: Option<Instant>,
    /// When the destination last took a batch.
    accepted_at: Option<Instant>,
    /// There is a backlog: requests are paced until it is gone.
    is_catching_up: bool,
    pace: Pace,
}

enum Event {
    Answer(Option<Next>),
    News,
    Time,
}

impl<T: Transport, C: Clock> Forwarder<T, C> {
    pub(super) fn new(
        transport: T,
        clock: C,
        keeper: Worker<Keeper>,
        shared: Arc<Shared>,
        timing: Timing,
        random: crate::sys::entropy::Random,
    ) -> Self {
        Self {
            transport,
            clock,
            keeper,
            shared,
            timing,
            random,
            body: Body::owned(),
            failures: 0,
            not_before: None,
            accepted_at: None,
            is_catching_up: true,
            pace: Pace::new(),
        }
    }

    /// Sends until the spool and its transports are dropped. What this logs reaches no session: a spool that stored what
    /// its own sending logs would have something to send forever.
    pub(super) async fn run(mut self) {
        let every = notes::every_session();
        let mut work = pin!(self.work());
        poll_fn(|context| {
            let _working = every.enter();
            work.as_mut().poll(context)
        })
        .await;
    }

    async fn work(&mut self) {
        let mut asked: Option<Answer<Next>> = None;
        let mut look_at = self.clock.now();
        let mut has_news = false;
        while self.shared.lock().users > 0 {
            let straight = self.shared.lock().straight.pop_front();
            if let Some(job) = straight {
                self.send_straight(&job).await;
                continue;
            }
            let now = self.clock.now();
            let is_free = self.not_before.is_none_or(|at| at <= now);
            if asked.is_none() && now >= look_at && look_at < Instant::END {
                let utc = self.clock.utc();
                look_at = now.checked_add(LOOK).unwrap_or(Instant::END);
                self.keeper.tell(move |keeper| keeper.look(now, utc));
            }
            if asked.is_none() && is_free {
                has_news = false;
                asked = Some(self.keeper.ask(move |keeper| keeper.next(now)));
            }
            // A time that has passed would be no wait, and this loop would not end before the answer is there.
            let until = match self.not_before {
                _ if asked.is_some() => Instant::END,
                Some(at) if !is_free => at.min(look_at),
                _ => look_at,
            };
            match wait(&self.clock, &self.shared, &mut asked, until).await {
                Event::Answer(Some(Next::Send(parcel))) => {
                    asked = None;
                    self.send(*parcel).await;
                }
                Event::Answer(Some(Next::Wait(at))) => {
                    asked = None;
                    // The answer may be older than that.
                    if has_news {
                        continue;
                    }
                    if self.shared.lock().counts.pending == 0 {
                        self.is_catching_up = false;
                    }
                    // Nothing to ask for before something happens.
                    let until = at.map_or(look_at, |at| at.min(look_at));
                    let _ = wait(&self.clock, &self.shared, &mut asked, until).await;
                }
                Event::Answer(None) => {
                    notes::say(log::Level::Warn, "Telemetry spool's keeper panicked");
                    asked = None;
                    self.not_before = time::after(now, self.timing.retry_max_delay);
                }
                Event::News => has_news = true,
                Event::Time => {}
            }
        }
        // Before the thread ends with its owner.
        self.keeper.tell(Keeper::finish);
    }

    async fn send(&mut self, parcel: Parcel) {
        if self.is_catching_up
            && let Some(at) = self.pace.next()
        {
            self.clock.sleep_until(at).await;
        }
        // Read before all that is on disk was discarded, or before another process took it over.
        if !self.shared.lock().may_send(&parcel) {
            return;
        }
        let began = self.clock.now();
        let meta = BatchMeta {
            session: &parcel.session,
            first_index: parcel.first_index,
            events: parcel.events,
            attempt: parcel.attempt,
            broke_while_sending: parcel.has_broken,
            is_last: false,
            time_left: self.timing.http_timeout,
            key: parcel.idempotency_key,
            list: parcel.list,
        };
        let result = attempt(
            &mut self.transport,
            &self.clock,
            &mut self.body,
            &parcel.body,
            &meta,
        )
        .await;
        let now = self.clock.now();
        match result {
            Ok(receipt) => {
                self.pace.note_accepted(began, now);
                self.note_accepted(now);
                let count = if receipt.handed_over {
                    handed_over
                } else {
                    delivered
                };
                self.keeper
                    .tell(move |keeper| keeper.settle(&parcel, count, now));
            }
            Err(error) => self.note_failed(parcel, error, now),
        }
    }

    fn note_accepted(&mut self, now: Instant) {
        self.accepted_at = Some(now);
        self.not_before = None;
        let failures = core::mem::take(&mut self.failures);
        let was_paused = self
            .shared
            .update(|state| core::mem::take(&mut state.counts.is_paused));
        if was_paused {
            notes::say(
                log::Level::Info,
                "Telemetry spool is accepted by the backend again",
            );
        } else if failures >= AWAY {
            let what = format_args!(
                "Telemetry backend is back ({failures} requests of the spool had failed)"
            );
            notes::say(log::Level::Info, what);
        }
    }

    fn note_failed(&mut self, parcel: Parcel, error: SendError, now: Instant) {
        let events = parcel.events;
        let base = self.timing.retry_max_delay;
        match error.kind {
            SendErrorKind::InvalidEvents | SendErrorKind::TooLarge => self.pace.note_answered(now),
            _ => self.pace.note_failed(now),
        }
        match error.kind {
            SendErrorKind::Retryable(after) => {
                self.back_off(after, &error, now);
                self.change(parcel, |trouble, parcel| trouble.repeat(parcel));
            }
            SendErrorKind::BrokeWhileSending => {
                self.back_off(None, &error, now);
                self.change(parcel, move |trouble, parcel| {
                    trouble.breaks += 1;
                    if events > 1 && trouble.breaks % AWAY == 0 {
                        trouble.halve(events);
                    } else {
                        trouble.repeat(parcel);
                    }
                });
            }
            SendErrorKind::Failed(after) => self.note_server_failed(parcel, after, &error, now),
            SendErrorKind::InvalidEvents | SendErrorKind::TooLarge if events > 1 => {
                // The server answers, and would answer the same to the others.
                self.failures = 0;
                let is_size = error.kind == SendErrorKind::TooLarge;
                self.change(parcel, move |trouble, _| {
                    let all = 2 * events.next_power_of_two().ilog2() + 8;
                    let allowance = trouble.allowance.unwrap_or(all);
                    if allowance == 0 && !is_size {
                        // The fault is the request's rather than an event's: what is left is tried later.
                        *trouble = Trouble {
                            not_before: time::after(now, base),
                            ..Trouble::default()
                        };
                        return;
                    }
                    trouble.allowance = Some(allowance.saturating_sub(1));
                    trouble.halve(events);
                });
            }
            SendErrorKind::InvalidEvents | SendErrorKind::TooLarge => {
                self.failures = 0;
                notes::say(
                    log::Level::Warn,
                    format_args!(
                        "Telemetry rejected by the backend: {error} (1 event, kept in the spool's folder `rejected`)"
                    ),
                );
                self.keeper.tell(move |keeper| keeper.reject(&parcel, now));
            }
            SendErrorKind::Rejected | SendErrorKind::Unauthorized => {
                self.not_before = time::after(now, PAUSE);
                self.is_catching_up = true;
                let was_paused = self
                    .shared
                    .update(|state| core::mem::replace(&mut state.counts.is_paused, true));
                if !was_paused {
                    notes::say(
                        log::Level::Warn,
                        format_args!(
                            "Telemetry spool is paused, everything is kept: the backend refuses this sender: {error}"
                        ),
                    );
                }
                self.change(parcel, |trouble, parcel| trouble.repeat(parcel));
            }
        }
    }

    /// The server has failed on this request. It may be the events, so others get their turn.
    fn note_server_failed(
        &mut self,
        parcel: Parcel,
        after: Option<RetryAfter>,
        error: &SendError,
        now: Instant,
    ) {
        self.back_off(after, error, now);
        let delay = |n| self.timing.delay(n);
        let delays = [
            delay(0),
            delay(1),
            delay(2),
            delay(3),
            delay(4),
            delay(5),
            delay(6),
        ];
        let accepted_at = self.accepted_at;
        self.keeper.tell(move |keeper| {
            let mut is_hopeless = false;
            keeper.change(&parcel, |trouble| {
                trouble.failed += 1;
                if parcel.events > 1 && trouble.failed >= Trouble::PATIENCE {
                    trouble.halve(parcel.events);
                } else {
                    trouble.repeat(&parcel);
                }
                if parcel.events == 1 {
                    let since = *trouble.alone_since.get_or_insert(now);
                    trouble.alone += 1;
                    is_hopeless = trouble.alone >= Trouble::PATIENCE
                        && now.saturating_duration_since(since) >= FAILS_ALONE
                        && accepted_at.is_some_and(|at| at > since);
                }
                let n = trouble.failed.max(trouble.alone).saturating_sub(1) as usize;
                let delay = delays.get(n).or(delays.last()).copied().unwrap_or_default();
                trouble.not_before = time::after(now, delay);
            });
            if is_hopeless {
                notes::say(
                    log::Level::Warn,
                    "Telemetry backend fails on an event again and again, it is kept in the spool's folder `rejected`",
                );
                keeper.reject(&parcel, now);
            }
        });
    }

    fn change(&self, parcel: Parcel, change: impl FnOnce(&mut Trouble, &Parcel) + Send + 'static) {
        self.keeper
            .tell(move |keeper| keeper.change(&parcel, |trouble| change(trouble, &parcel)));
    }

    /// Waits before the next request, longer after each failure.
    fn back_off(&mut self, after: Option<RetryAfter>, error: &SendError, now: Instant) {
        let n = self.failures;
        self.failures = self.failures.saturating_add(1);
        self.is_catching_up = true;
        let micros = |duration| crate::time::micros(duration).unwrap_or(u64::MAX);
        let random = &mut self.random;
        let own = retry::backoff(
            micros(self.timing.retry_base_delay),
            micros(self.timing.retry_max_delay),
            n,
            true,
            |bound| random.below(bound),
        );
        let asked = after.map_or(Duration::ZERO, |after| after.delay(self.clock.utc()));
        let delay = Duration::from_micros(own).max(asked.min(LONGEST_WAIT));
        self.not_before = time::after(now, delay);
        if self.failures == AWAY {
            notes::say(
                log::Level::Warn,
                format_args!(
                    "Telemetry backend is away, the spool keeps everything and will keep trying: {error}"
                ),
            );
        }
    }

    /// Sends a batch that could not be stored, in one attempt, and tells its session.
    async fn send_straight(&mut self, job: &Job) {
        if job.is_cancelled() {
            return;
        }
        let is_free = self.not_before.is_none_or(|at| at <= self.clock.now());
        if !is_free {
            job.finish(Err(SendError::retryable(
                "the backend is away, and the spool cannot be written to",
            )));
            return;
        }
        let meta = BatchMeta {
            session: &job.session,
            first_index: job.first_index,
            events: job.events,
            attempt: job.attempt,
            broke_while_sending: false,
            is_last: job.is_last,
            time_left: self.timing.http_timeout,
            key: job.key,
            list: job.list,
        };
        let result = attempt(
            &mut self.transport,
            &self.clock,
            &mut self.body,
            &job.body,
            &meta,
        )
        .await;
        let now = self.clock.now();
        match &result {
            Ok(_) => {
                self.note_accepted(now);
                self.shared
                    .update(|state| state.counts.straight += job.events as u64);
            }
            Err(error) if error.is_retryable() => self.back_off(None, error, now),
            Err(_) => {}
        }
        // A session looks for the event at fault among those that it holds, which a spool's must not do.
        let result = result.map_err(|error| match error.kind {
            SendErrorKind::Failed(_) | SendErrorKind::BrokeWhileSending => {
                SendError::retryable(&error)
            }
            _ => error,
        });
        job.finish(result);
    }
}

impl Timing {
    /// The delay before retry `n`, without jitter.
    fn delay(&self, n: u32) -> Duration {
        let doubled = self.retry_base_delay.saturating_mul(1 << n.min(16));
        doubled.min(self.retry_max_delay)
    }
}

fn delivered(counts: &mut SpoolStats) -> &mut u64 {
    &mut counts.delivered
}

fn handed_over(counts: &mut SpoolStats) -> &mut u64 {
    &mut counts.handed_over
}

/// Waits for an answer, for news or for a time.
async fn wait<C: Clock>(
    clock: &C,
    shared: &Shared,
    asked: &mut Option<Answer<Next>>,
    until: Instant,
) -> Event {
    let mut timer = pin!(clock.sleep_until(until));
    poll_fn(|context| {
        if let Some(answer) = asked
            && let Poll::Ready(answer) = Pin::new(answer).poll(context)
        {
            return Poll::Ready(Event::Answer(answer));
        }
        if shared.has_news(context.waker()) {
            return Poll::Ready(Event::News);
        }
        if until == Instant::END {
            return Poll::Pending;
        }
        timer.as_mut().poll(context).map(|()| Event::Time)
    })
    .await
}

/// Makes one attempt, within its time.
async fn attempt<T: Transport, C: Clock>(
    transport: &mut T,
    clock: &C,
    body: &mut Body,
    bytes: &[u8],
    meta: &BatchMeta<'_>,
) -> Result<Receipt, SendError> {
    let Some(space) = body.prepare(bytes.len()) else {
        return Err(SendError::retryable("no memory for the request's body"));
    };
    space.copy_from_slice(bytes);
    let deadline = clock.now().checked_add(meta.time_left);
    let mut timer = pin!(async {
        match deadline {
            Some(deadline) => clock.sleep_until(deadline).await,
            None => core::future::pending().await,
        }
    });
    let batch = Batch { body, head: meta };
    let panicked = || SendError::retryable("the transport panicked");
    let sending = panics::catch(|| transport.send(batch)).ok_or_else(panicked)?;
    let mut sending = pin!(Some(sending));
    let result = poll_fn(|context| {
        let polled = panics::catch(|| match sending.as_mut().as_pin_mut() {
            Some(sending) => sending.poll(context),
            None => Poll::Pending,
        });
        match polled {
            Some(Poll::Ready(result)) => return Poll::Ready(result),
            Some(Poll::Pending) => {}
            None => return Poll::Ready(Err(panicked())),
        }
        let late = || Err(SendError::retryable("no response in time"));
        timer.as_mut().poll(context).map(|()| late())
    })
    .await;
    // Its destructor is the transport's code, too.
    let _ = panics::catch(|| sending.set(None));
    result
}
