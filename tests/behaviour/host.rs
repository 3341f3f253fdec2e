//! A host driven by the test: time stands still until the test advances it, the network replies as scripted, and every
//! poll is counted.

use crate::support::{DAY, SESSION};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::{Future, pending, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard};
use tinkex_telemetry::runtime::Clock;
use tinkex_telemetry::session::{Builder, Entropy, Uuid};
use tinkex_telemetry::time::{Instant, Timestamp};
use tinkex_telemetry::{Batch, Receipt, Reporter, SendError, Transport};

/// A clock that only `advance` moves.
#[derive(Clone, Default)]
pub(crate) struct ManualClock(Arc<Mutex<Time>>);

#[derive(Default)]
struct Time {
    now: u64,
    sleepers: BTreeMap<u64, (u64, Option<Waker>)>,
    timers: Timers,
}

/// Counts of timers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timers {
    pub(crate) created: u64,
    pub(crate) alive: usize,
    /// The most that were alive at once.
    pub(crate) peak: usize,
}

impl ManualClock {
    fn time(&self) -> MutexGuard<'_, Time> {
        self.0.lock().expect("nothing panics under this lock")
    }

    pub(crate) fn timers(&self) -> Timers {
        self.time().timers
    }

    pub(crate) fn advance(&self, by: Duration) {
        let now = self.time().now + by.as_micros() as u64;
        self.advance_to(now);
    }

    /// Advances to the next timer; `false` if there is none.
    pub(crate) fn advance_to_next(&self) -> bool {
        let is_waiting = |(at, waker): &(u64, Option<Waker>)| waker.as_ref().map(|_| *at);
        let next = self.time().sleepers.values().filter_map(is_waiting).min();
        if let Some(at) = next {
            self.advance_to(at);
        }
        next.is_some()
    }

    fn advance_to(&self, now: u64) {
        let mut time = self.time();
        time.now = time.now.max(now);
        let due = time.sleepers.values_mut().filter(|(at, _)| *at <= now);
        let wakers: Vec<_> = due.filter_map(|(_, waker)| waker.take()).collect();
        drop(time);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_micros(self.time().now)
    }

    fn utc(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_764_151_845_000_000 + self.time().now)
    }

    fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send {
        let mut time = self.time();
        let timers = &mut time.timers;
        timers.created += 1;
        timers.alive += 1;
        timers.peak = timers.peak.max(timers.alive);
        Sleep {
            clock: self.clone(),
            id: timers.created,
            at: at.as_micros(),
        }
    }
}

struct Sleep {
    clock: ManualClock,
    id: u64,
    at: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut time = self.clock.time();
        if time.now >= self.at {
            return Poll::Ready(());
        }
        let sleeper = (self.at, Some(context.waker().clone()));
        time.sleepers.insert(self.id, sleeper);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let mut time = self.clock.time();
        time.timers.alive -= 1;
        time.sleepers.remove(&self.id);
    }
}

/// The scripted reply to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The backend has it before the first poll ends.
    Accept,
    /// Two polls before the backend has it, two more before the response arrives.
    AcceptSlowly,
    /// The backend has it, but the response never arrives.
    Lost,
    /// The request hangs and never reaches the backend.
    Never,
    Fail,
    Refuse,
    TooLarge,
    PanicInCall,
    PanicInPoll,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Unheard,
    Received,
    /// Received, and the client knows.
    Acknowledged,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) key: Uuid,
    pub(crate) attempt: u32,
    /// Index and id of each event.
    pub(crate) events: Vec<(u64, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) reply: Reply,
    pub(crate) fate: Fate,
}

/// A scripted network and the backend behind it.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Mutex<Network>>);

struct Network {
    replies: VecDeque<Reply>,
    always: Reply,
    sent: Vec<Sent>,
}

impl Wire {
    /// Replies with `replies`, one per request, then with `always`.
    pub(crate) fn new(replies: impl IntoIterator<Item = Reply>, always: Reply) -> Self {
        Self(Arc::new(Mutex::new(Network {
            replies: replies.into_iter().collect(),
            always,
            sent: Vec::new(),
        })))
    }

    fn network(&self) -> MutexGuard<'_, Network> {
        self.0.lock().expect("nothing panics under this lock")
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.network().sent.clone()
    }

    /// The names of the events that the backend has, in order of first arrival.
    pub(crate) fn received(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut ids: Vec<String> = Vec::new();
        for sent in self.sent() {
            let body: serde_json::Value = serde_json::from_slice(&sent.body).expect("JSON");
            for event in body["events"].as_array().expect("events") {
                let id = event["event_id"].as_str().expect("an id").to_owned();
                if sent.fate > Fate::Unheard && !ids.contains(&id) {
                    ids.push(id);
                    let name = event.get("event_name").unwrap_or(&event["event"]);
                    names.push(name.as_str().expect("a name").to_owned());
                }
            }
        }
        names
    }

    fn record(&self, batch: &Batch<'_>) -> (usize, Reply) {
        let event = |json: &[u8]| {
            let event: serde_json::Value = serde_json::from_slice(json).expect("JSON");
            let index = event["event_session_index"].as_u64().expect("an index");
            (index, event["event_id"].as_str().expect("an id").to_owned())
        };
        let mut network = self.network();
        let reply = network.replies.pop_front().unwrap_or(network.always);
        let sent = Sent {
            key: batch.idempotency_key(),
            attempt: batch.attempt(),
            events: batch.events().map(event).collect(),
            body: batch.body().to_vec(),
            reply,
            fate: Fate::Unheard,
        };
        assert_eq!(batch.session_id(), SESSION);
        assert_eq!(batch.event_count(), sent.events.len());
        assert_eq!(batch.first_index(), sent.events[0].0);
        network.sent.push(sent);
        (network.sent.len() - 1, reply)
    }

    fn mark(&self, request: usize, fate: Fate) {
        self.network().sent[request].fate = fate;
    }

    async fn respond(&self, request: usize, reply: Reply) -> Result<Receipt, SendError> {
        match reply {
            Reply::Accept => {}
            Reply::AcceptSlowly => {
                yield_now().await;
                yield_now().await;
                self.mark(request, Fate::Received);
                yield_now().await;
                yield_now().await;
            }
            Reply::Lost => {
                self.mark(request, Fate::Received);
                pending().await
            }
            Reply::Never => pending().await,
            Reply::Fail => return Err(SendError::retryable("503, says the wire")),
            Reply::Refuse => return Err(SendError::rejected("401, says the wire")),
            Reply::TooLarge => return Err(SendError::too_large("413, says the wire")),
            Reply::PanicInCall | Reply::PanicInPoll => quiet_panic(),
        }
        self.mark(request, Fate::Acknowledged);
        Ok(Receipt::delivered())
    }
}

impl Transport for Wire {
    // Not an `async fn`, so that it can panic before the future exists.
    fn send(
        &mut self,
        batch: Batch<'_>,
    ) -> impl Future<Output = Result<Receipt, SendError>> + Send {
        let (request, reply) = self.record(&batch);
        if let Reply::PanicInCall = reply {
            quiet_panic();
        }
        async move { self.respond(request, reply).await }
    }
}

/// A panic that the panic hook does not print.
pub(crate) fn quiet_panic() -> ! {
    resume_unwind(Box::new("a test panic"))
}

async fn yield_now() {
    let mut is_first = true;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if core::mem::take(&mut is_first) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
}

/// A future that is polled by hand.
pub(crate) struct Task<F> {
    future: Pin<Box<F>>,
    flag: Arc<Flag>,
    pub(crate) polls: usize,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<F: Future> Task<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            flag: Arc::new(Flag(AtomicBool::new(true))),
            polls: 0,
        }
    }

    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        self.polls += 1;
        self.flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.flag));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.flag.0.load(Ordering::SeqCst)
    }

    /// Polls until it waits for something from outside. Time stands still.
    pub(crate) fn settle(&mut self) -> Poll<F::Output> {
        for _ in 0..1_000_000 {
            if !self.is_woken() {
                return Poll::Pending;
            }
            if let Poll::Ready(output) = self.poll() {
                return Poll::Ready(output);
            }
        }
        panic!("it wakes itself for ever");
    }

    /// Polls at most `polls` times, and advances time whenever nothing else can happen; stops when no timer is left.
    pub(crate) fn run_for(&mut self, clock: &ManualClock, polls: usize) -> Poll<F::Output> {
        for _ in 0..polls {
            while !self.is_woken() {
                if !clock.advance_to_next() {
                    return Poll::Pending;
                }
            }
            if let Poll::Ready(output) = self.poll() {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self, clock: &ManualClock) -> F::Output {
        match self.run_for(clock, 100_000) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it does not end"),
        }
    }
}

/// A session on this host, identical in every run: no randomness, no environment.
pub(crate) fn session<T>(clock: &ManualClock, transport: T) -> Builder<T, ManualClock, ()> {
    Reporter::builder(SESSION)
        .transport(transport)
        .clock(clock.clone())
        .entropy(Entropy::new([7; 32]))
        .process_uuid(None)
        .platform("unix/linux")
        .sdk_version("0.1.0")
        .enabled(true)
        .drop_timeout(DAY)
}
