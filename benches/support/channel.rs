//! A client by hand that is easy to write: `serde_json` on the calling thread, a channel of one message per event, a
//! thread that posts with ureq. No limits, no retries, no deadlines, no ledger.

use crate::by_hand::{PREFIX, Poster, SUFFIX, Sent, Writer};
use crate::event::Data;
use core::time::Duration;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::SystemTime;

enum Message {
    Event(Vec<u8>),
    Flush(SyncSender<Sent>),
}

/// The client; its thread ends after it.
pub struct Channel {
    messages: Sender<Message>,
    writer: Writer,
}

impl Channel {
    /// Posts each time that `batch` events have arrived, with ureq's global timeout if there is one.
    #[must_use]
    pub fn start(url: &str, batch: usize, timeout: Option<Duration>) -> Self {
        let (messages, receiver) = channel();
        let mut thread = Thread {
            poster: Poster::new(url, timeout),
            body: Vec::new(),
            pending: 0,
        };
        thread::spawn(move || thread.run(&receiver, batch));
        Self {
            messages,
            writer: Writer::new(),
        }
    }

    /// Encodes an event and sends it to the thread.
    pub fn log(&mut self, data: Data) {
        let mut json = Vec::with_capacity(128);
        self.writer.append(SystemTime::now(), data, &mut json);
        self.messages
            .send(Message::Event(json))
            .expect("the thread is running");
    }

    /// Waits until everything has been sent.
    #[must_use]
    pub fn drain(&self) -> Sent {
        let (done, wait) = sync_channel(1);
        self.messages
            .send(Message::Flush(done))
            .expect("the thread is running");
        wait.recv().expect("the thread is running")
    }
}

struct Thread {
    poster: Poster,
    body: Vec<u8>,
    pending: usize,
}

impl Thread {
    fn run(&mut self, messages: &Receiver<Message>, batch: usize) {
        while let Ok(message) = messages.recv() {
            match message {
                Message::Event(json) => {
                    self.append(&json);
                    if self.pending == batch {
                        self.post();
                    }
                }
                Message::Flush(done) => {
                    if self.pending > 0 {
                        self.post();
                    }
                    let _ = done.send(self.poster.sent);
                }
            }
        }
    }

    fn append(&mut self, json: &[u8]) {
        if self.pending == 0 {
            self.body.clear();
            self.body.extend_from_slice(PREFIX);
        } else {
            self.body.push(b',');
        }
        self.body.extend_from_slice(json);
        self.pending += 1;
    }

    fn post(&mut self) {
        self.body.extend_from_slice(SUFFIX);
        self.poster.post(&self.body, self.pending);
        self.pending = 0;
    }
}
