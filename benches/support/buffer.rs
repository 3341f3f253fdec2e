//! A client by hand as a good programmer writes it for speed: `serde_json` on the calling thread, straight into the body
//! behind a mutex, and a thread that swaps full bodies for empty ones and posts them with ureq, without timeouts. The
//! thread is woken only if it waits. No limits, no retries, no deadlines, no ledger.

use crate::by_hand::{PREFIX, Poster, SUFFIX, Sent, Writer};
use crate::event::Data;
use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

/// The client.
pub struct Buffer {
    shared: Arc<Shared>,
    batch: usize,
}

/// The same encoding into a body that is thrown away: what a `log` costs that sends nothing.
pub struct Discard {
    writer: Writer,
    body: Vec<u8>,
    pending: usize,
    batch: usize,
}

impl Discard {
    /// Throws away bodies of `batch` events.
    #[must_use]
    pub const fn new(batch: usize) -> Self {
        Self {
            writer: Writer::new(),
            body: Vec::new(),
            pending: 0,
            batch,
        }
    }

    /// Encodes an event.
    #[inline]
    pub fn log(&mut self, data: Data) {
        self.writer.append(SystemTime::now(), data, &mut self.body);
        self.pending += 1;
        if self.pending == self.batch {
            self.body.clear();
            self.pending = 0;
        }
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    writer: Writer,
    body: Vec<u8>,
    /// The events in `body`.
    pending: usize,
    /// Each with the number of its events.
    full: VecDeque<(Vec<u8>, usize)>,
    empty: Vec<Vec<u8>>,
    thread_waits: bool,
    flush: Option<SyncSender<Sent>>,
    is_over: bool,
}

impl Buffer {
    /// Posts each time that `batch` events have arrived.
    #[must_use]
    pub fn start(url: &str, batch: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                writer: Writer::new(),
                body: Vec::new(),
                pending: 0,
                full: VecDeque::new(),
                empty: Vec::new(),
                thread_waits: false,
                flush: None,
                is_over: false,
            }),
            changed: Condvar::new(),
        });
        let (poster, theirs) = (Poster::new(url, None), Arc::clone(&shared));
        thread::spawn(move || theirs.run(poster));
        Self { shared, batch }
    }

    /// Encodes an event into the body.
    #[inline]
    pub fn log(&self, data: Data) {
        let at = SystemTime::now();
        let mut state = self.shared.state();
        let State {
            writer,
            body,
            pending,
            ..
        } = &mut *state;
        if *pending == 0 {
            body.extend_from_slice(PREFIX);
        } else {
            body.push(b',');
        }
        writer.append(at, data, body);
        *pending += 1;
        if *pending < self.batch {
            return;
        }
        state.close();
        self.shared.notify(state);
    }

    /// Waits until everything has been sent.
    #[must_use]
    pub fn drain(&self) -> Sent {
        let (done, wait) = sync_channel(1);
        let mut state = self.shared.state();
        state.flush = Some(done);
        self.shared.notify(state);
        wait.recv().expect("the thread is running")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_over = true;
        self.shared.notify(state);
    }
}

impl State {
    /// Ends the body and begins another.
    fn close(&mut self) {
        self.body.extend_from_slice(SUFFIX);
        let len = self.body.len();
        let next = self.empty.pop();
        // Bodies differ by a few digits.
        let next = next.unwrap_or_else(|| Vec::with_capacity(len + len / 16));
        let body = core::mem::replace(&mut self.body, next);
        self.full.push_back((body, self.pending));
        self.pending = 0;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, mut state: MutexGuard<'_, State>) {
        let waits = core::mem::take(&mut state.thread_waits);
        drop(state);
        if waits {
            self.changed.notify_one();
        }
    }

    fn run(&self, mut poster: Poster) {
        let mut state = self.state();
        loop {
            if let Some((mut body, events)) = state.full.pop_front() {
                drop(state);
                poster.post(&body, events);
                body.clear();
                state = self.state();
                state.empty.push(body);
            } else if state.flush.is_some() && state.pending > 0 {
                state.close();
            } else if let Some(done) = state.flush.take() {
                let _ = done.send(poster.sent);
            } else if state.is_over {
                return;
            } else {
                state.thread_waits = true;
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
