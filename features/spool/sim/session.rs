//! A session, as far as a spool sees one: it sends batches through the spool's transport, one at a time, and tries again.

use super::book::Event;
use super::faults::Fault;
use super::world::{Core, SECOND, World};
use crate::features::spool::transport::SpoolTransport;
use crate::features::spool::writer::Sync;
use crate::transport::{Batch, BatchMeta, Body, Receipt, SendError, SendErrorKind, Transport};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use uuid::Uuid;

/// How long a session waits for its transport.
const TIMEOUT: u64 = 30 * SECOND;

pub(super) struct Session {
    world: World,
    /// Its place in the order in which sessions were opened.
    number: u64,
    id: String,
    to: usize,
    sync: Sync,
    next_index: u64,
    queue: VecDeque<u64>,
    transport: Lent,
    batch: Option<Pending>,
    attempt: Option<Attempt>,
    /// Events in a batch.
    pub(super) most: usize,
    cap: Option<usize>,
    next_at: u64,
    stop_at: Option<u64>,
    is_patient: bool,
    pub(super) is_over: bool,
}

type Lent = Rc<RefCell<Option<SpoolTransport>>>;

struct Pending {
    events: Vec<u64>,
    attempt: u32,
    key: Uuid,
    is_last: bool,
}

struct Attempt {
    future: Pin<Box<dyn Future<Output = Result<Receipt, SendError>>>>,
    deadline: u64,
}

/// Gives the transport back when an attempt ends, or is dropped.
struct Back(Lent, Option<SpoolTransport>);

impl Drop for Back {
    fn drop(&mut self) {
        *self.0.borrow_mut() = self.1.take();
    }
}

impl Session {
    pub(super) fn open(
        world: &World,
        number: u64,
        id: String,
        to: usize,
        sync: Sync,
        transport: SpoolTransport,
    ) -> Self {
        let mut core = world.lock();
        let most = core.rng.pick(&[1, 7, 100]);
        let is_patient = core.rng.below(3) > 0;
        drop(core);
        let mut session = Self {
            world: world.clone(),
            number,
            id,
            to,
            sync,
            next_index: 0,
            queue: VecDeque::new(),
            transport: Rc::new(RefCell::new(Some(transport))),
            batch: None,
            attempt: None,
            most,
            cap: None,
            next_at: 0,
            stop_at: None,
            is_patient,
            is_over: false,
        };
        session.log("SESSION_START", 10, false);
        session
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop_at.is_some()
    }

    /// Logs an event with so many bytes of data.
    pub(super) fn log(&mut self, kind: &str, data: usize, is_error: bool) {
        let mut core = self.world.lock();
        let at = core.book.events.len() as u64;
        let index = self.next_index;
        let severity = if is_error { "ERROR" } else { "INFO" };
        let data = "x".repeat(data);
        let json = format!(
            r#"{{"event_id":"01970000-0000-7000-8000-{at:012x}","event_session_index":{index},"event":"{kind}","event_name":"e","severity":"{severity}","event_data":{{"x":"{data}"}}}}"#
        );
        let is_invalid = kind == "GENERIC_EVENT" && core.happens(Fault::InvalidEvent);
        core.book.events.push(Event {
            json,
            to: self.to,
            session: self.number,
            index,
            is_confirmed: false,
            is_durable: false,
            is_damaged: false,
            is_excused: false,
            is_invalid,
            was_refused: false,
            received: 0,
        });
        self.next_index += 1;
        self.queue.push_back(at);
        self.next_at = self.next_at.max(core.now + SECOND / 10);
    }

    /// Sends what is queued and ends, within a time.
    pub(super) fn stop(&mut self, within: u64) {
        if self.stop_at.is_none() {
            self.log("SESSION_END", 10, false);
            let now = self.world.lock().now;
            self.stop_at = Some(now + within);
            self.next_at = now;
        }
    }

    /// When something is to be done although no one wakes it.
    pub(super) fn due(&self) -> Option<u64> {
        if self.is_over {
            return None;
        }
        let own = match &self.attempt {
            Some(attempt) => Some(attempt.deadline),
            None if self.batch.is_some() || !self.queue.is_empty() || self.stop_at.is_some() => {
                Some(self.next_at)
            }
            None => None,
        };
        own.into_iter().chain(self.stop_at).min()
    }

    pub(super) fn step(&mut self, waker: &Waker) {
        let now = self.world.lock().now;
        if let Some(attempt) = &mut self.attempt {
            let polled = attempt
                .future
                .as_mut()
                .poll(&mut Context::from_waker(waker));
            let is_late = now >= attempt.deadline || self.stop_at.is_some_and(|at| now >= at);
            match polled {
                Poll::Ready(result) => {
                    self.attempt = None;
                    self.settle(result, now);
                }
                Poll::Pending if is_late => {
                    self.attempt = None;
                    self.settle(Err(SendError::retryable("no answer in time")), now);
                }
                Poll::Pending => return,
            }
        }
        if self.stop_at.is_some_and(|at| now >= at)
            || (self.is_stopping() && self.queue.is_empty() && self.batch.is_none())
        {
            self.end();
            return;
        }
        if now >= self.next_at {
            self.begin(waker);
        }
    }

    /// Ends, whatever is left.
    fn end(&mut self) {
        let left = self.batch.take().map_or(0, |batch| batch.events.len());
        self.world.lock().book.unknown += left as u64;
        self.queue.clear();
        self.transport.borrow_mut().take();
        self.is_over = true;
    }

    /// Its process has ended.
    pub(super) fn abandon(&mut self) {
        self.attempt = None;
        self.end();
    }

    fn begin(&mut self, waker: &Waker) {
        if self.batch.is_none() {
            let len = self
                .most
                .min(self.cap.unwrap_or(self.most))
                .min(self.queue.len());
            if len == 0 {
                return;
            }
            let events: Vec<_> = self.queue.drain(..len).collect();
            let key = self.world.lock().rng.seeded().uuid();
            self.batch = Some(Pending {
                events,
                attempt: 0,
                key,
                is_last: false,
            });
        }
        let is_last = self.is_stopping() && self.queue.is_empty();
        let Some(batch) = &mut self.batch else {
            return;
        };
        batch.is_last = is_last;
        let mut core = self.world.lock();
        let mut body = format!(
            r#"{{"session_id":"{}","platform":"sim/1","sdk_version":"0","process_uuid":"{}"}}"#,
            self.id,
            Uuid::from_u128(u128::from(self.number))
        );
        body.pop();
        body.push_str(r#","events":["#);
        let start = body.len();
        let mut first_index = None;
        for number in &batch.events {
            if let Some(event) = core.book.event(*number) {
                if first_index.is_some() {
                    body.push(',');
                }
                first_index.get_or_insert(event.index);
                body.push_str(&event.json);
            }
        }
        let list = (start, body.len());
        body.push_str("]}");
        let deadline = core.now + TIMEOUT;
        drop(core);
        let transport = self.transport.borrow_mut().take();
        let lent = Back(Rc::clone(&self.transport), transport);
        let (events, attempt, key) = (batch.events.len(), batch.attempt, batch.key);
        let id = self.id.clone();
        let send = async move {
            let mut lent = lent;
            let mut sent = Body::owned();
            if let Some(space) = sent.prepare(body.len()) {
                space.copy_from_slice(body.as_bytes());
            }
            let meta = BatchMeta {
                session: &id,
                first_index: first_index.unwrap_or(0),
                events,
                attempt,
                broke_while_sending: false,
                is_last,
                time_left: Duration::from_micros(TIMEOUT),
                key,
                list,
            };
            let batch = Batch {
                body: &mut sent,
                head: &meta,
            };
            match &mut lent.1 {
                Some(transport) => transport.send(batch).await,
                None => Err(SendError::retryable("no transport")),
            }
        };
        let mut future: Pin<Box<dyn Future<Output = _>>> = Box::pin(send);
        match future.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(result) => {
                drop(future);
                let now = self.world.lock().now;
                self.settle(result, now);
            }
            Poll::Pending => self.attempt = Some(Attempt { future, deadline }),
        }
    }

    /// Its events are said to be synced: a power cut must not lose them.
    fn check_synced(&self, core: &mut Core, batch: &[u64]) {
        let promised = core.files.promised();
        // Those before are in files that were synced when they were full, or failed, unless another process
        // has them, or they were evicted where they were synced and have copies that were not.
        let is_whole = core.book.removed.is_empty()
            && !core.book.has_happened(&[
                Fault::OwnerSleeps,
                Fault::Stalled,
                Fault::WallJump,
                Fault::DirectoryRemoved,
            ]);
        let mut at_risk = None;
        let mut events = core::mem::take(&mut core.book.events);
        let book = &core.book;
        for (number, event) in (0_u64..).zip(&mut events) {
            if event.session != self.number || !event.is_missing() {
                continue;
            }
            event.is_durable = promised.contains(&number);
            let must_be = (is_whole || batch.contains(&number))
                && !book.removed.contains(&number)
                && !event.is_damaged;
            if must_be && !event.is_durable && !book.may_be_unsynced(event) {
                at_risk = Some(number);
            }
        }
        core.book.events = events;
        if let Some(number) = at_risk {
            core.fail(|| format!("event {number} is said to be synced, and is not"));
        }
    }

    fn settle(&mut self, result: Result<Receipt, SendError>, now: u64) {
        let Some(mut batch) = self.batch.take() else {
            return;
        };
        let mut core = self.world.lock();
        match result {
            Ok(receipt) if receipt.handed_over => {
                core.mix(4, self.number);
                let has_error = batch.events.iter().any(|number| {
                    core.book
                        .event(*number)
                        .is_some_and(|it| it.json.contains("\"ERROR\""))
                });
                let is_synced = self.sync != Sync::Never && (batch.is_last || has_error);
                for number in &batch.events {
                    core.book.confirm(*number, false);
                }
                if is_synced {
                    self.check_synced(&mut core, &batch.events);
                }
                core.note(|| {
                    format!(
                        "session {} has {} events on disk",
                        self.id,
                        batch.events.len()
                    )
                });
                self.cap = None;
                self.next_at = now;
            }
            Ok(_) => {
                for number in &batch.events {
                    let is_there = core.book.event(*number).is_some_and(|it| it.received > 0);
                    if !is_there {
                        core.fail(|| format!("event {number} is said to be delivered, and is not"));
                    }
                }
                self.cap = None;
                self.next_at = now;
            }
            Err(error) => {
                core.note(|| format!("session {} fails: {error}", self.id));
                let is_size = matches!(
                    error.kind,
                    SendErrorKind::TooLarge | SendErrorKind::InvalidEvents
                );
                if is_size && batch.events.len() > 1 {
                    self.cap = Some(batch.events.len() / 2);
                    for number in batch.events.drain(..).rev() {
                        self.queue.push_front(number);
                    }
                    self.next_at = now;
                    return;
                }
                let is_over = !error.is_retryable() || (!self.is_patient && batch.attempt >= 3);
                if is_over {
                    core.book.unknown += batch.events.len() as u64;
                    self.next_at = now;
                    return;
                }
                batch.attempt += 1;
                self.next_at = now + SECOND * (1 << batch.attempt.min(5));
                self.batch = Some(batch);
            }
        }
    }
}
