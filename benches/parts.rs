//! A prototype: a queue with a part for each thread, beside one queue behind one lock. Nothing of it is in the crate.
//!
//! `cargo bench -p benches --bench parts` prints nanoseconds per event for 1, 2 and 8 threads that log 10 000 events each
//! while a driver takes them out in batches of 100, in the order of their indices. With parts, a thread locks only its own
//! one and draws the index from a counter that all share; the driver merges the parts. Neither has limits, a ledger,
//! flushes or wake-ups: the rest of a call is the same for both, and so this compares what a queue with parts could save at
//! best.

use benches::cpu;
use benches::event;
use benches::figures::median;
use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

const ROUNDS: usize = 40;
const EVENTS: u64 = 10_000;
const THREADS: [usize; 3] = [1, 2, 8];
const BATCH: usize = 100;
/// What the driver copies under a lock, as in the crate.
const PIECE: usize = 2048;
/// Room for all events of a round in one ring.
const CAPACITY: usize = 32 << 20;

fn main() {
    println!(
        "{:<36}{:>10}{:>10}{:>10}{:>12}{:>10}",
        "ns per event, medians", "a thread", "its CPU", "together", "the driver", "behind"
    );
    let mut rows = THREADS.map(|threads| (threads, Row::default(), Row::default()));
    for round in 0..=ROUNDS {
        for (threads, one, parts) in &mut rows {
            one.round(*threads, &Queue::new(1), round > 0);
            parts.round(*threads, &Queue::new(*threads), round > 0);
        }
    }
    for (threads, one, parts) in rows {
        one.print(&format!("one queue, threads: {threads}"));
        parts.print(&format!("a part for each, threads: {threads}"));
    }
    println!("behind: events that wait in the driver for one with a lower index, at most");
}

/// Two cache lines, which some processors fetch in pairs.
#[repr(align(128))]
struct Apart<T>(T);

/// The events of one thread, or of all.
struct Ring {
    bytes: Vec<u8>,
    head: usize,
    used: usize,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        let mut bytes = vec![0; capacity];
        // The memory is there before it is measured.
        bytes.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        Self {
            bytes,
            head: 0,
            used: 0,
        }
    }

    fn push(&mut self, data: &[u8]) {
        let at = (self.head + self.used) % self.bytes.len();
        let first = data.len().min(self.bytes.len() - at);
        self.bytes[at..at + first].copy_from_slice(&data[..first]);
        self.bytes[..data.len() - first].copy_from_slice(&data[first..]);
        self.used += data.len();
        assert!(
            self.used <= self.bytes.len(),
            "the driver is too far behind"
        );
    }

    fn pop(&mut self, out: &mut Vec<u8>, most: usize) {
        let len = self.used.min(most);
        let first = len.min(self.bytes.len() - self.head);
        out.extend_from_slice(&self.bytes[self.head..self.head + first]);
        out.extend_from_slice(&self.bytes[..len - first]);
        self.head = (self.head + len) % self.bytes.len();
        self.used -= len;
        if self.used == 0 {
            self.head = 0;
        }
    }
}

struct Queue {
    parts: Vec<Apart<Mutex<Ring>>>,
    next: Apart<AtomicU64>,
    /// What a limit in bytes would need.
    used: Apart<AtomicUsize>,
}

fn lock(part: &Apart<Mutex<Ring>>) -> MutexGuard<'_, Ring> {
    part.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn new(parts: usize) -> Self {
        let ring = || Apart(Mutex::new(Ring::new(CAPACITY / parts)));
        Self {
            parts: (0..parts).map(|_| ring()).collect(),
            next: Apart(AtomicU64::new(0)),
            used: Apart(AtomicUsize::new(0)),
        }
    }

    /// Queues an event: eight bytes for its index, four for its length, and its JSON, all of which the caller has
    /// prepared but the index.
    fn push(&self, part: usize, record: &mut [u8]) {
        let mut ring = lock(&self.parts[part % self.parts.len()]);
        // Under the lock, so that the indices in each part go up.
        let index = self.next.0.fetch_add(1, Ordering::Relaxed);
        record[..8].copy_from_slice(&index.to_le_bytes());
        ring.push(record);
        drop(ring);
        self.used.0.fetch_add(record.len(), Ordering::Relaxed);
    }
}

/// What the driver has taken out of a part.
#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    at: usize,
}

impl Taken {
    /// The next whole record's index and bytes.
    fn front(&self) -> Option<(u64, &[u8])> {
        let rest = self.bytes.get(self.at..)?;
        let (index, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let json = rest.get(..u32::from_le_bytes(*len) as usize)?;
        Some((u64::from_le_bytes(*index), json))
    }

    fn refill(&mut self, part: &Apart<Mutex<Ring>>) -> bool {
        self.bytes.drain(..self.at);
        self.at = 0;
        let before = self.bytes.len();
        lock(part).pop(&mut self.bytes, PIECE);
        self.bytes.len() > before
    }
}

/// Takes all events out in the order of their indices. Returns its CPU time, and how many were waiting at most.
fn drive(queue: &Queue, total: u64, is_over: &AtomicBool) -> (Duration, u64) {
    let begin = cpu::time_of_this_thread();
    let mut taken: Vec<Taken> = queue.parts.iter().map(|_| Taken::default()).collect();
    let (mut next, mut batch, mut events, mut behind) = (0, Vec::new(), 0, 0);
    while next < total {
        let mut is_new = false;
        // Only what is empty here: a thread that is ahead of the others waits in its own part.
        for (taken, part) in taken.iter_mut().zip(&queue.parts) {
            if taken.front().is_none() {
                is_new |= taken.refill(part);
            }
        }
        // From the part that has the next one, as many as it has.
        while let Some(from) = taken
            .iter_mut()
            .find(|taken| taken.front().is_some_and(|(index, _)| index == next))
        {
            while let Some((index, json)) = from.front()
                && index == next
            {
                batch.extend_from_slice(json);
                let len = json.len() + 12;
                from.at += len;
                queue.used.0.fetch_sub(len, Ordering::Relaxed);
                next += 1;
                events += 1;
                if events == BATCH {
                    black_box(&batch);
                    batch.clear();
                    events = 0;
                }
            }
        }
        let waiting = taken.iter().map(|taken| taken.bytes.len() - taken.at);
        behind = behind.max(waiting.sum::<usize>() as u64 / 250);
        if !is_new {
            if is_over.load(Ordering::Relaxed) && next < total {
                continue;
            }
            thread::yield_now();
        }
    }
    black_box(&batch);
    (cpu::time_of_this_thread().saturating_sub(begin), behind)
}

#[derive(Default)]
struct Row {
    each: Vec<f64>,
    cpu: Vec<f64>,
    together: Vec<f64>,
    driver: Vec<f64>,
    behind: u64,
}

impl Row {
    fn round(&mut self, threads: usize, queue: &Queue, counts: bool) {
        let (arrived, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let total = threads as u64 * EVENTS;
        let stream = |part: usize| {
            let mut record = Vec::new();
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < threads {
                thread::yield_now();
            }
            let (start, cpu) = (Instant::now(), cpu::time_of_this_thread());
            for _ in 0..EVENTS {
                record.clear();
                record.extend_from_slice(&[0; 12]);
                let _ = record.write_all(br#"{"event_id":"0197a0b1-c2d3-7e4f-8a9b-0c1d2e3f4a5b","event_session_index":1234567,"event":"GENERIC_EVENT","severity":"INFO","event_name":"sampling.done","event_data":"#);
                let _ = serde_json::to_writer(&mut record, &event::usual());
                let _ = record.write_all(br#","timestamp":"2025-11-27T04:16:13.123456Z"}"#);
                let len = (record.len() - 12) as u32;
                record[8..12].copy_from_slice(&len.to_le_bytes());
                queue.push(part, &mut record);
            }
            let end = Instant::now();
            let cpu = cpu::time_of_this_thread().saturating_sub(cpu);
            (start, end, cpu.as_nanos() as f64 / EVENTS as f64)
        };
        let (all, (driver, behind)) = thread::scope(|scope| {
            let driver = scope.spawn(|| drive(queue, total, &is_over));
            let threads: Vec<_> = (0..threads)
                .map(|part| scope.spawn(move || stream(part)))
                .collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            let all: Vec<_> = ended.map(|all| all.expect("the thread ends")).collect();
            is_over.store(true, Ordering::Relaxed);
            (all, driver.join().expect("the driver ends"))
        });
        assert_eq!(queue.used.0.load(Ordering::Relaxed), 0, "all are taken");
        if !counts {
            return;
        }
        let first = all.iter().map(|(start, ..)| *start).min();
        let last = all.iter().map(|(_, end, _)| *end).max();
        let took = first.zip(last).map(|(first, last)| last - first);
        self.together
            .push(took.unwrap_or_default().as_nanos() as f64 / total as f64);
        self.each.extend(
            all.iter()
                .map(|(start, end, _)| (*end - *start).as_nanos() as f64 / EVENTS as f64),
        );
        self.cpu.extend(all.iter().map(|(.., cpu)| *cpu));
        self.driver.push(driver.as_nanos() as f64 / total as f64);
        self.behind = self.behind.max(behind);
    }

    fn print(self, title: &str) {
        let [each, cpu, together, driver] =
            [self.each, self.cpu, self.together, self.driver].map(median);
        println!(
            "{title:<36}{each:>10.0}{cpu:>10.0}{together:>10.0}{driver:>12.0}{:>10}",
            self.behind
        );
    }
}
