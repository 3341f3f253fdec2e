//! Simulated servers with one stream, and the network before them: what fails is drawn from a seed.
//!
//! A connection that breaks behaves like a client that resumes: what is published on it then is kept, and delivered when
//! it is connected again, long after the session has dropped it.

use super::ack::StreamInfo;
use super::config::{Config, shown};
use super::network::{Arrival, Connection, Network};
use crate::runtime::Clock as _;
use crate::sim::SimClock;
use crate::time::Instant;
use crate::transport::SendError;
use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use async_nats::client::PublishErrorKind;
use async_nats::{HeaderMap, Message, ServerAddr, StatusCode, Subject};
use bytes::Bytes;
use core::future::{Future, pending, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// When what was published without a connection arrives.
const RESUMED: Duration = Duration::from_secs(20);

/// How long a message may be under way.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(100);

const MAX_PAYLOAD: usize = 2_500;
const MAX_MESSAGE: usize = 2_000;

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What the servers have, and what has happened.
pub(super) struct State {
    rng: Rng,
    pub(super) is_healed: bool,
    /// One message in so many meets a fault.
    calm: u64,
    /// The ids of the stream's messages. It recognizes duplicates for ever.
    pub(super) stored: BTreeSet<String>,
    /// Which message has arrived when, as often as it has.
    pub(super) arrivals: Vec<(String, Instant)>,
    /// What the client knows to be stored.
    acknowledged: BTreeSet<String>,
    /// The ids of the batch that is being sent, without the end of the session.
    pub(super) batch: Vec<String>,
    pub(super) end: Option<String>,
    /// The server that was asked last, if in vain.
    refused_by: Option<String>,
    /// Broken promises.
    pub(super) faults: Vec<String>,
    /// What has occurred, and how often.
    pub(super) seen: BTreeMap<&'static str, u32>,
}

impl State {
    fn draw(&mut self, bound: u64) -> u64 {
        if self.is_healed {
            u64::MAX
        } else {
            self.rng.below(bound)
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A message arrives at a server. Whether it is stored is another matter.
    fn arrive(&mut self, id: &str, at: Instant) {
        self.arrivals.push((id.to_owned(), at));
        if self.acknowledged.contains(id) {
            self.faults.push(format!(
                "{id} is published although it is known to be stored"
            ));
        }
        let is_missing = |id: &&String| !self.stored.contains(*id);
        if self.end.as_deref() == Some(id)
            && let Some(missing) = self.batch.iter().find(is_missing)
        {
            self.faults
                .push(format!("the end is published before {missing} is stored"));
        }
    }
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) clock: SimClock,
    state: Arc<Mutex<State>>,
}

impl World {
    pub(super) fn new(seed: u64, clock: SimClock) -> Self {
        let mut rng = Rng(seed);
        let calm = 10 + rng.below(400);
        let state = State {
            rng,
            is_healed: false,
            calm,
            stored: BTreeSet::new(),
            arrivals: Vec::new(),
            acknowledged: BTreeSet::new(),
            batch: Vec::new(),
            end: None,
            refused_by: None,
            faults: Vec::new(),
            seen: BTreeMap::new(),
        };
        Self {
            clock,
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after(&self, time: Duration) -> Instant {
        self.clock.now().checked_add(time).unwrap_or(Instant::END)
    }
}

impl Network for World {
    type Connection = SimConnection;
    type Deadline = Instant;

    async fn open(
        &self,
        _config: &Config,
        server: &ServerAddr,
        patience: Duration,
    ) -> Result<SimConnection, SendError> {
        let (draw, latency) = {
            let mut state = self.state();
            let server = shown(server);
            if state
                .refused_by
                .take()
                .is_some_and(|before| before == server)
            {
                state.faults.push(format!("{server} is asked again"));
            }
            let (draw, latency) = (state.draw(6), state.rng.below(30));
            if draw < 3 {
                state.refused_by = Some(server);
                state.note("no connection");
            }
            (draw, Duration::from_millis(latency))
        };
        match draw {
            0 => return pending().await,
            1 => self.clock.sleep_until(self.after(patience)).await,
            _ => self.clock.sleep_until(self.after(latency)).await,
        }
        if draw < 3 {
            return Err(SendError::retryable("cannot connect"));
        }
        Ok(SimConnection {
            world: self.clone(),
            is_connected: true,
            acks: VecDeque::new(),
        })
    }

    fn deadline(&self, patience: Duration) -> Instant {
        self.after(patience)
    }

    async fn until<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut late) = (pin!(work), pin!(self.clock.sleep_until(deadline)));
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => late.as_mut().poll(context).map(|()| None),
        })
        .await
    }
}

pub(super) struct SimConnection {
    world: World,
    is_connected: bool,
    acks: VecDeque<Ack>,
}

/// An acknowledgement that is under way.
struct Ack {
    at: Instant,
    reply: String,
    /// Of the message, if it is stored.
    id: Option<String>,
    payload: &'static str,
    status: Option<StatusCode>,
}

const FULL: &str = r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"EVENTS","seq":0}"#;
const TOO_LARGE: &str = r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"}}"#;
const STORED: &str = r#"{"stream":"EVENTS","seq":1}"#;

impl Connection for SimConnection {
    fn is_connected(&self) -> bool {
        self.is_connected
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    fn last_error(&self) -> Option<String> {
        None
    }

    fn inbox(&self) -> &str {
        "_INBOX.x"
    }

    async fn stream_info(&self, _stream: &str, _patience: Duration) -> StreamInfo {
        let mut state = self.world.state();
        match state.draw(4) {
            0 => {
                state.note("no stream");
                StreamInfo::Missing
            }
            1 => StreamInfo::Unknown,
            _ => StreamInfo::Window(Duration::from_secs(3_600)),
        }
    }

    async fn publish(
        &mut self,
        _subject: Subject,
        reply: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), PublishErrorKind> {
        let (draw, under_way) = {
            let mut state = self.world.state();
            let (calm, under_way) = (state.calm, state.rng.below(100));
            (state.draw(calm), Duration::from_millis(under_way))
        };
        let now = self.world.clock.now();
        if draw == 0 {
            // The client's queue is full for a while.
            self.world
                .clock
                .sleep_until(self.world.after(UNDER_WAY))
                .await;
        }
        let id = headers.get(async_nats::header::NATS_MESSAGE_ID);
        let id = id.map(|id| id.as_str().to_owned()).unwrap_or_default();
        let mut state = self.world.state();
        if !self.is_connected {
            state.note("resumed");
            let at = now.checked_add(RESUMED).unwrap_or(now);
            state.arrive(&id, at);
            state.stored.insert(id);
            return Ok(());
        }
        if payload.len() > MAX_PAYLOAD {
            return Err(PublishErrorKind::MaxPayloadExceeded);
        }
        let at = now.checked_add(under_way).unwrap_or(now);
        let mut ack = Ack {
            at: at.checked_add(under_way).unwrap_or(at),
            reply,
            id: None,
            payload: STORED,
            status: None,
        };
        // Acknowledgements come in the order of the messages.
        if let Some(last) = self.acks.back() {
            ack.at = ack.at.max(last.at);
        }
        if draw == 1 || draw == 2 {
            state.note("broken");
            self.is_connected = false;
            self.acks.truncate(state.rng.below(4) as usize);
            if draw == 2 {
                state.arrive(&id, at);
                state.stored.insert(id);
            }
            return Ok(());
        }
        state.arrive(&id, at);
        if payload.len() > MAX_MESSAGE {
            state.note("too large for the stream");
            ack.payload = TOO_LARGE;
        } else if draw == 3 {
            state.note("full");
            ack.payload = FULL;
        } else if draw == 4 {
            state.note("no responders");
            (ack.payload, ack.status) = ("", Some(StatusCode::NO_RESPONDERS));
        } else if draw == 5 {
            state.note("not stored, and silence");
            return Ok(());
        } else {
            state.stored.insert(id.clone());
            if draw == 6 {
                state.note("stored, and silence");
                return Ok(());
            }
            ack.id = Some(id);
        }
        drop(state);
        self.acks.push_back(ack);
        Ok(())
    }

    async fn next(&mut self) -> Arrival {
        let look = self.world.after(Duration::from_millis(50));
        let due = self.acks.front().map_or(look, |ack| ack.at.min(look));
        self.world.clock.sleep_until(due).await;
        let now = self.world.clock.now();
        let has_arrived = self.acks.front().is_some_and(|ack| ack.at <= now);
        let Some(ack) = has_arrived.then(|| self.acks.pop_front()).flatten() else {
            let is_over = !self.is_connected && self.acks.is_empty();
            return if is_over {
                Arrival::Ended
            } else {
                Arrival::Nothing
            };
        };
        self.world.state().acknowledged.extend(ack.id);
        Arrival::Message(Message {
            subject: ack.reply.into(),
            reply: None,
            payload: ack.payload.into(),
            headers: None,
            status: ack.status,
            description: None,
            length: ack.payload.len(),
        })
    }
}
