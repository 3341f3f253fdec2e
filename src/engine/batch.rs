//! Batches: what goes into one, its attempts, its way out of the ring, its halves.

use super::stopping::End;
use super::{Engine, SendId, Step, earliest};
use crate::engine::ring::HEADER;
use crate::time::Instant;
use core::num::NonZero;
use uuid::Uuid;

/// Which events a batch has: those at the head of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) records: usize,
    /// With headers, as the ring counts.
    pub(super) ring_bytes: usize,
    /// Without headers, but with commas, as the wire counts.
    pub(super) json_bytes: usize,
    /// `SESSION_END` is its last event.
    pub(super) with_end: bool,
}

impl Shape {
    pub(super) const fn events(&self) -> u64 {
        self.records as u64 + self.with_end as u64
    }

    /// The JSON bytes with one more event.
    const fn with_event(&self, len: usize) -> usize {
        let comma = if self.events() > 0 { 1 } else { 0 };
        self.json_bytes + comma + len
    }
}

/// A batch that is not settled.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) shape: Shape,
    pub(super) key: Uuid,
    pub(super) attempt: u32,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Sending {
        id: SendId,
        deadline: Instant,
    },
    Retry {
        until: Instant,
        is_servers_wish: bool,
    },
}

impl InFlight {
    pub(super) fn is_sending(&self, send: SendId) -> bool {
        matches!(self.phase, Phase::Sending { id, .. } if id == send)
    }
}

/// A batch was too large: until `end`, batches have at most `cap` events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    cap: NonZero<u64>,
    end: u64,
}

/// One attempt at one batch, for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) id: SendId,
    pub(crate) key: Uuid,
    pub(crate) first_index: u64,
    pub(crate) events: usize,
    /// The JSON of the events and the commas between them.
    pub(crate) json_bytes: usize,
    pub(crate) attempt: u32,
}

impl Ticket {
    /// Where copying this batch begins.
    pub(crate) const fn cursor(&self) -> Cursor {
        Cursor {
            send: self.id,
            records: 0,
            ring_at: 0,
            left: 0,
            end_at: 0,
        }
    }
}

/// How far a batch has been copied.
#[derive(Debug)]
pub(crate) struct Cursor {
    send: SendId,
    /// Records begun, the place in the ring, and what is left there of the record that was begun last.
    records: usize,
    ring_at: usize,
    left: usize,
    /// The place in `SESSION_END`.
    end_at: usize,
}

impl Engine {
    /// Records looked at under one lock. Each may have to come from main memory, and all together should take less time
    /// than a waiting `log` spins.
    const FORM_STEP: usize = 8;

    /// Puts the next batch together, and sends it when it is complete.
    pub(super) fn form(&mut self, now: Instant) -> Step {
        let cap = self.batch_cap();
        let before_end = self.records_before_end();
        let mut shape = self.forming;
        for _ in 0..Self::FORM_STEP {
            let event = if shape.events() >= cap || shape.with_end {
                None
            } else if before_end == Some(shape.records as u64) {
                Some(self.end_json().len())
            } else {
                self.ring
                    .record(shape.ring_bytes)
                    .filter(|record| record.is_finished)
                    .map(|record| record.len)
            };
            match event.filter(|len| shape.with_event(*len) <= self.options.batch_budget) {
                None if shape.events() == 0 => return self.wait_for_event(),
                None => return self.send_formed(shape, now),
                Some(len) => {
                    shape.json_bytes = shape.with_event(len);
                    if before_end == Some(shape.records as u64) {
                        shape.with_end = true;
                    } else {
                        shape.records += 1;
                        shape.ring_bytes += HEADER + len;
                    }
                }
            }
        }
        self.forming = shape;
        Step::Again
    }

    /// The next event is still being written, by somebody whom the driver has interrupted.
    fn wait_for_event(&mut self) -> Step {
        self.is_held_up = true;
        Step::Wait(earliest([self.stop_deadline(), self.notices.due()]))
    }

    fn send_formed(&mut self, shape: Shape, now: Instant) -> Step {
        self.forming = Shape::default();
        #[cfg(feature = "alloc")]
        {
            self.idle_since = None;
        }
        if shape.events() == self.queued() {
            self.flush_at = None;
            self.fresh_bytes = 0;
            self.emptied_at = Some(now);
        }
        self.in_flight = Some(InFlight {
            shape,
            key: self.random.uuid(),
            attempt: 0,
            phase: Phase::Retry {
                until: now,
                is_servers_wish: false,
            },
        });
        self.begin_attempt(now)
    }

    /// The most events the next batch may have.
    fn batch_cap(&mut self) -> u64 {
        let settled = self.ledger.settled();
        self.split = self.split.filter(|split| split.end > settled);
        match self.split {
            Some(split) => split.cap.get().min(split.end - settled),
            None => self.options.max_batch_size as u64,
        }
    }

    /// How many records stand in the queue before `SESSION_END`, if it is queued.
    fn records_before_end(&self) -> Option<u64> {
        match &self.end {
            End::Queued { position, .. } => Some(position - self.ledger.settled()),
            End::Open | End::Settled => None,
        }
    }

    pub(super) fn begin_attempt(&mut self, now: Instant) -> Step {
        let Some(in_flight) = &mut self.in_flight else {
            return Step::Again;
        };
        let id = SendId(self.next_send);
        self.next_send = self.next_send.wrapping_add(1);
        let deadline = now.after(self.options.http_timeout);
        in_flight.phase = Phase::Sending {
            id,
            deadline: deadline.unwrap_or(Instant::END),
        };
        Step::Send(Ticket {
            id,
            key: in_flight.key,
            first_index: match self.ring.record(0) {
                Some(record) if in_flight.shape.records > 0 => record.tag,
                _ => self.end.index(),
            },
            events: in_flight.shape.events() as usize,
            json_bytes: in_flight.shape.json_bytes,
            attempt: in_flight.attempt,
        })
    }

    /// When the attempt under way must end: its own timeout, or a stop's deadline, which may come up meanwhile.
    pub(crate) fn send_deadline(&self) -> Option<Instant> {
        let in_flight = self.in_flight.as_ref()?;
        let Phase::Sending { deadline, .. } = in_flight.phase else {
            return None;
        };
        earliest([Some(deadline), self.stop_deadline()])
    }

    /// Copies the next piece of a batch's events, as much of it as `out` holds. Zero at the end, and when the batch is
    /// no longer in flight.
    pub(crate) fn copy(&self, at: &mut Cursor, out: &mut [u8]) -> usize {
        let Some(in_flight) = self.in_flight.as_ref().filter(|f| f.is_sending(at.send)) else {
            return 0;
        };
        let mut written = 0;
        while written < out.len() {
            let out = &mut out[written..];
            let step = if at.left > 0 {
                self.copy_record(at, out)
            } else if at.records < in_flight.shape.records {
                self.begin_record(at, out)
            } else if in_flight.shape.with_end {
                self.copy_end(at, out)
            } else {
                0
            };
            if step == 0 && at.left == 0 && at.records == in_flight.shape.records {
                break;
            }
            written += step;
        }
        written
    }

    fn copy_record(&self, at: &mut Cursor, out: &mut [u8]) -> usize {
        let len = at.left.min(out.len());
        self.ring.read(at.ring_at, &mut out[..len]);
        at.ring_at += len;
        at.left -= len;
        len
    }

    /// Steps over a record's header and copies what fits; all but the first record bring a comma.
    fn begin_record(&self, at: &mut Cursor, out: &mut [u8]) -> usize {
        if let Some(record) = self.ring.record(at.ring_at) {
            at.left = record.len;
        }
        at.ring_at += HEADER;
        at.records += 1;
        let comma = comma(at.records > 1, out);
        comma + self.copy_record(at, &mut out[comma..])
    }

    fn copy_end(&self, at: &mut Cursor, out: &mut [u8]) -> usize {
        let json = self.end_json();
        if at.end_at == 0 && at.records > 0 {
            at.end_at = 1;
            return comma(true, out);
        }
        let from = at.end_at - usize::from(at.records > 0);
        let len = (json.len() - from).min(out.len());
        out[..len].copy_from_slice(&json[from..from + len]);
        at.end_at += len;
        len
    }

    /// The batch was too large: it goes back to the queue, to be sent in halves.
    pub(super) fn split(&mut self, shape: &Shape) {
        let end = self
            .split
            .map_or(self.ledger.settled() + shape.events(), |split| split.end);
        let half = NonZero::new(shape.events().div_ceil(2)).unwrap_or(NonZero::<u64>::MIN);
        self.split = Some(Split { cap: half, end });
        // Whatever made the batch due has been answered by it; its pieces are due for that very reason.
        self.flush_target.0 = self.flush_target.0.max(end);
    }
}

fn comma(is_wanted: bool, out: &mut [u8]) -> usize {
    match out.first_mut() {
        Some(byte) if is_wanted => {
            *byte = b',';
            1
        }
        _ => 0,
    }
}
