//! What the spool's parts share: the ledger, and which events are where on disk.

use super::format::SegmentId;
use super::holes::Holes;
use super::job::Job;
use super::parcel::{MOST_EVENTS, Parcel};
use super::stats::{Left, SpoolStats};
use super::time::{StdTime, Time};
use crate::sys::panics;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;
use core::task::Waker;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// A run: the events of one session in one folder. In the order of folders, then of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunKey {
    pub(super) folder: (u64, u64),
    pub(super) run: u64,
}

/// The state, behind its lock. No disk is waited for under it.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) time: Box<dyn Time>,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(Box::new(StdTime))
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) counts: SpoolStats,
    pub(super) runs: BTreeMap<RunKey, Run>,
    /// What is being sent: it must not be evicted.
    pub(super) in_flight: Option<(RunKey, SegmentId)>,
    /// The folders of processes that had ended have been looked for.
    pub(super) has_looked: bool,
    /// Batches that go straight to the forwarder, because the disk fails.
    pub(super) straight: VecDeque<Arc<Job>>,
    pub(super) disk: DiskHealth,
    /// How many discards have begun, and the number of the last one that has removed everything.
    pub(super) discards: (u64, u64),
    /// Events that were written, and whose session does not know that yet, by transport. See [`SpoolStats::late`].
    unconfirmed: BTreeMap<u64, u64>,
    /// How many of the two threads have ended.
    pub(super) ended: usize,
    /// How many handles and transports there are.
    pub(super) users: usize,
    /// Something has changed since the forwarder looked.
    has_news: bool,
    forwarder: Option<Waker>,
    waiters: BTreeMap<u64, Waker>,
    last_waiter: u64,
}

/// How the disk has fared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskHealth {
    /// Writes in a row that failed.
    pub(super) failures: u32,
    /// Batches go straight until then.
    pub(super) straight_until: Option<Instant>,
}

impl DiskHealth {
    /// After so many failures batches go straight.
    const MOST: u32 = 3;
    /// For so long, then the disk is tried again.
    const PERIOD: Duration = Duration::from_secs(60);

    /// Counts a failure. Returns whether it is the one after which batches go straight.
    pub(super) fn note_failure(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= Self::MOST {
            self.straight_until = now.checked_add(Self::PERIOD);
        }
        self.failures == Self::MOST
    }

    /// Notes a success. Returns whether batches went straight before.
    pub(super) fn note_success(&mut self) -> bool {
        let was_bad = self.failures >= Self::MOST;
        *self = Self::default();
        was_bad
    }

    pub(super) fn is_bad(&self, now: Instant) -> bool {
        self.straight_until.is_some_and(|until| now < until)
    }
}

/// See [`RunKey`].
pub(super) struct Run {
    pub(super) session: Arc<str>,
    /// The fields before a request's events, as a JSON object.
    pub(super) fields: Arc<[u8]>,
    pub(super) segments: VecDeque<Segment>,
    /// A session of this process goes on writing.
    pub(super) is_open: bool,
    /// A process that had ended has left it.
    pub(super) is_recovered: bool,
    /// The index of the last event that was read and is settled, or was passed over.
    pub(super) last_index: Option<u64>,
    /// What could not be read, although something behind it was. Of these events copies are sent, if there are any.
    pub(super) holes: Holes,
    /// How many events are missing in what was settled before the run was recovered.
    pub(super) missing: u64,
    pub(super) trouble: Trouble,
}

impl Run {
    pub(super) fn new(session: &str, fields: &[u8]) -> Self {
        Self {
            session: session.into(),
            fields: fields.into(),
            segments: VecDeque::new(),
            is_open: false,
            is_recovered: false,
            last_index: None,
            holes: Holes::default(),
            missing: 0,
            trouble: Trouble::default(),
        }
    }

    pub(super) fn pending(&self) -> u64 {
        self.segments.iter().map(Segment::pending).sum()
    }

    pub(super) fn segment(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.segments.iter_mut().find(|segment| segment.id == id)
    }

    /// Notes that the first events of this segment, which was found, are copies of ones in the segment before it.
    pub(super) fn note_copies(&mut self, id: SegmentId) {
        let before = self.segments.iter_mut().take_while(|it| it.id != id);
        // One without events is a failed attempt at the same copies.
        if let Some(original) = before.filter(|it| it.lines > 0).last() {
            original.is_copied = true;
        }
    }

    /// The segments that may be given up, in order. Not one with copies of what is still to be sent from a segment
    /// before it: only they may be durable.
    pub(super) fn expendable(&self) -> impl Iterator<Item = &Segment> {
        let mut has_original = false;
        self.segments.iter().filter(move |it| {
            let is_needed = has_original && it.next < it.copies;
            if it.copies > 0 {
                has_original = false;
            }
            let is_open = it.pending() > 0 || is_needed;
            has_original |= it.is_copied && is_open && !it.is_beginning;
            !is_needed
        })
    }

    /// Expects so many events, which could not be read in a segment, among the copies behind it. Returns how many of them
    /// may be there: all or none.
    fn expect_copies(&mut self, segment: SegmentId, lost: u64) -> u64 {
        let mut behind = self.segments.iter_mut().skip_while(|it| it.id != segment);
        behind.next();
        match behind.find(|it| it.next < it.copies) {
            Some(copy) => {
                copy.expected += lost;
                lost
            }
            None => 0,
        }
    }
}

/// One file of a run.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) id: SegmentId,
    /// The bytes and the events that may be read.
    pub(super) len: u64,
    pub(super) lines: u64,
    /// Nothing more is appended.
    pub(super) is_closed: bool,
    /// What has been read and is settled: bytes and events.
    pub(super) at: u64,
    pub(super) next: u64,
    /// The first events are copies of ones in an earlier segment.
    pub(super) copies: u64,
    /// So many events that could not be read where they were are expected among those.
    pub(super) expected: u64,
    /// Some of its events have copies in a later segment: a sync of them has failed.
    pub(super) is_copied: bool,
    /// Its file is being removed to make room: nothing of its run is sent meanwhile.
    pub(super) is_leaving: bool,
    /// The beginning of a run that was evicted: the session's start and context.
    pub(super) is_beginning: bool,
    /// The file must not be removed before, since a process that seems to have ended might still append to it.
    pub(super) keep_until: Option<Instant>,
}

impl Segment {
    pub(super) fn new(path: PathBuf, id: SegmentId) -> Self {
        Self {
            path,
            id,
            len: 0,
            lines: 0,
            is_closed: false,
            at: 0,
            next: 0,
            copies: 0,
            expected: 0,
            is_copied: false,
            is_leaving: false,
            is_beginning: false,
            keep_until: None,
        }
    }

    /// The events that are still to be settled.
    pub(super) fn pending(&self) -> u64 {
        self.new_lines() + self.expected
    }

    /// The same without what is expected among copies.
    fn new_lines(&self) -> u64 {
        self.lines.saturating_sub(self.next.max(self.copies))
    }
}

/// What has gone wrong with a run's next events.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    /// No attempt before this time.
    pub(super) not_before: Option<Instant>,
    /// The attempt that is to be repeated with the same events, and so the same key.
    pub(super) repeat: Option<Repeat>,
    /// Events in the next request, at most.
    pub(super) cap: Option<usize>,
    /// How many more requests may be refused in this pass before one is accepted.
    pub(super) allowance: Option<u32>,
    /// The server has failed on these events so many times.
    pub(super) failed: u32,
    /// And on the first of them alone, since then.
    pub(super) alone: u32,
    pub(super) alone_since: Option<Instant>,
    /// Attempts that broke while they were being sent.
    pub(super) breaks: u32,
}

impl Trouble {
    /// A server that fails on a batch so often is asked about half of it, and from then on at each failure.
    pub(super) const PATIENCE: u32 = 8;

    /// The events at the front are settled: the pieces may grow again.
    pub(super) fn note_settled(&mut self) {
        let cap = self.cap.map(|cap| cap * 2).filter(|cap| *cap < MOST_EVENTS);
        *self = Self {
            cap,
            // In the rest of a batch there may be more of the same kind.
            failed: if cap.is_some() {
                self.failed.min(Self::PATIENCE)
            } else {
                0
            },
            ..Self::default()
        };
    }

    /// The same events are to be tried again, with the same key.
    pub(super) fn repeat(&mut self, parcel: &Parcel) {
        self.repeat = Some(Repeat {
            events: parcel.events,
            key: parcel.idempotency_key,
            attempt: parcel.attempt.saturating_add(1),
        });
    }

    /// Half of the events are to be tried.
    pub(super) fn halve(&mut self, events: usize) {
        self.repeat = None;
        self.cap = Some(events.div_ceil(2));
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    pub(super) events: usize,
    pub(super) key: Uuid,
    pub(super) attempt: u32,
}

impl Shared {
    pub(super) fn new(time: Box<dyn Time>) -> Self {
        Self {
            state: Mutex::default(),
            time,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes whom that may concern.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = change(&mut state);
        state.has_news = true;
        state.check();
        let wakers = state.take_wakers();
        drop(state);
        for waker in wakers {
            panics::wake(waker);
        }
        result
    }

    /// The ledger.
    pub(super) fn stats(&self) -> SpoolStats {
        self.lock().counts
    }

    /// Registers a waiter's waker and says what is left; `None` while there is more to wait for.
    pub(super) fn poll_left(&self, waiter: &mut Option<u64>, waker: &Waker) -> Option<Left> {
        let mut state = self.lock();
        let is_over = state.has_looked && (state.counts.pending == 0 || state.counts.is_paused);
        if is_over {
            return Some(state.left());
        }
        let id = *waiter.get_or_insert_with(|| {
            state.last_waiter += 1;
            state.last_waiter
        });
        let old = state.waiters.insert(id, waker.clone());
        drop(state);
        drop(old);
        None
    }

    pub(super) fn left(&self) -> Left {
        self.lock().left()
    }

    pub(super) fn forget_waiter(&self, id: u64) {
        let old = self.lock().waiters.remove(&id);
        drop(old);
    }

    /// Whether something has changed since the last call; if not, registers the forwarder's waker.
    pub(super) fn has_news(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if mem::take(&mut state.has_news) {
            return true;
        }
        let old = state.forwarder.replace(waker.clone());
        drop(state);
        drop(old);
        false
    }
}

impl State {
    fn left(&self) -> Left {
        Left {
            pending: self.counts.pending,
            is_paused: self.counts.is_paused,
            elsewhere: self.counts.elsewhere,
            others: self.counts.others,
        }
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        let mut wakers: Vec<_> = self.forwarder.take().into_iter().collect();
        let is_over = self.has_looked && (self.counts.pending == 0 || self.counts.is_paused);
        if is_over {
            wakers.extend(mem::take(&mut self.waiters).into_values());
        }
        wakers
    }

    /// The invariants, in debug builds.
    fn check(&self) {
        debug_assert!(self.counts.is_balanced(), "{:?}", self.counts);
        debug_assert_eq!(
            self.counts.pending,
            self.runs.values().map(Run::pending).sum::<u64>(),
            "what is pending is what is on disk"
        );
    }

    /// Whether events with this session's id are on disk.
    pub(super) fn has_pending(&self, session: &str) -> bool {
        let mut runs = self.runs.values();
        runs.any(|run| &*run.session == session && run.pending() > 0)
    }

    /// Removes a segment from the books; its events count as `because` says. Its file is the caller's business.
    pub(super) fn forget(
        &mut self,
        key: RunKey,
        id: SegmentId,
        because: fn(&mut SpoolStats) -> &mut u64,
    ) -> Option<Segment> {
        let run = self.runs.get_mut(&key)?;
        let at = run.segments.iter().position(|segment| segment.id == id)?;
        let segment = run.segments.remove(at)?;
        if at == 0 {
            run.trouble.repeat = None;
        }
        let pending = segment.pending();
        self.counts.pending -= pending;
        *because(&mut self.counts) += pending;
        self.counts.bytes = self.counts.bytes.saturating_sub(segment.len);
        self.drop_if_done(key);
        Some(segment)
    }

    /// Whether these events are still to be sent. If not, they are no longer in flight.
    pub(super) fn may_send(&mut self, parcel: &Parcel) -> bool {
        let is_there = self
            .runs
            .get_mut(&parcel.key)
            .is_some_and(|run| run.segment(parcel.segment).is_some());
        let may_send = is_there && !self.is_discarding();
        if !may_send {
            self.in_flight = None;
        }
        may_send
    }

    /// Nothing on disk may be sent: a discard is under way, or could not remove everything.
    pub(super) const fn is_discarding(&self) -> bool {
        self.discards.1 < self.discards.0
    }

    /// Notes that a segment was read as far as the parcel says, whose events count as `because` says. What could not be
    /// read is looked for in the copies behind it.
    pub(super) fn note_read(&mut self, parcel: &Parcel, because: fn(&mut SpoolStats) -> &mut u64) {
        let Some(run) = self.runs.get_mut(&parcel.key) else {
            return;
        };
        run.holes.extend(&mut parcel.holes.clone());
        for index in &parcel.filled {
            run.holes.fill(*index);
        }
        if parcel.events > 0 {
            run.last_index = run.last_index.max(parcel.last_index);
            if let Some(last) = run.last_index {
                run.holes.end_at(last);
            }
        }
        let Some(segment) = run.segment(parcel.segment) else {
            return;
        };
        let (lines, expected) = (segment.new_lines(), segment.expected);
        (segment.at, segment.next) = (parcel.at, parcel.next);
        let lines = lines - segment.new_lines();
        let events = parcel.events as u64;
        let found = (parcel.copies as u64).max(events.saturating_sub(lines));
        segment.expected = expected.saturating_sub(found);
        if segment.next >= segment.copies {
            segment.expected = 0;
        }
        let passed = lines + expected - segment.expected;
        let lost = passed.saturating_sub(events);
        let elsewhere = match lost {
            0 => 0,
            lost => run.expect_copies(parcel.segment, lost),
        };
        let counts = &mut self.counts;
        counts.pending = counts.pending + elsewhere - passed;
        *because(counts) += events;
        counts.unreadable += lost - elsewhere;
        // Copies of what was taken for lost for good, or sent by another process.
        let more = events.saturating_sub(passed);
        let known = more.min(counts.unreadable);
        counts.unreadable -= known;
        counts.stored += more - known;
    }

    /// Removes a segment whose file is gone from the books.
    pub(super) fn lose(&mut self, key: RunKey, id: SegmentId) {
        let Some(run) = self.runs.get_mut(&key) else {
            return;
        };
        run.holes.enter(run.last_index, None);
        let lost = run.segment(id).map_or(0, |segment| segment.pending());
        let elsewhere = run.expect_copies(id, lost);
        self.forget(key, id, |counts: &mut SpoolStats| &mut counts.unreadable);
        self.counts.unreadable -= elsewhere;
        self.counts.pending += elsewhere;
    }

    /// Notes that events of this transport were written for an attempt that no one waits for any more.
    pub(super) fn note_late(&mut self, transport: u64, events: u64) {
        if events > 0 {
            *self.unconfirmed.entry(transport).or_default() += events;
            self.counts.late += events;
        }
    }

    /// Notes that the session of this transport knows of all that is written. Returns how much of it was late.
    pub(super) fn confirm(&mut self, transport: u64) -> u64 {
        let late = self.unconfirmed.remove(&transport).unwrap_or(0);
        self.counts.late -= late;
        late
    }

    /// Removes a run that has nothing more to send.
    pub(super) fn drop_if_done(&mut self, key: RunKey) {
        if let Some(run) = self.runs.get(&key)
            && !run.is_open
            && run.segments.is_empty()
        {
            self.runs.remove(&key);
        }
    }

    /// The segment that is to go first when there is no room: the oldest of the oldest run, those that other processes
    /// have left before this one's own. Neither one that is being sent nor one that `writing` appends to.
    pub(super) fn oldest(&self, writing: Option<RunKey>) -> Option<(RunKey, SegmentId, bool)> {
        let of = |is_recovered: bool| {
            let runs = self.runs.iter();
            let mut segments = runs
                .filter(move |(_, run)| run.is_recovered == is_recovered)
                .flat_map(|(key, run)| run.expendable().map(move |it| (*key, it)));
            let found = segments.find(|(key, segment)| {
                self.in_flight != Some((*key, segment.id))
                    && !segment.is_beginning
                    && !segment.is_leaving
                    && (segment.is_closed || writing != Some(*key))
            });
            found.map(|(key, segment)| {
                let run = self.runs.get(&key);
                let first = run.and_then(|run| run.segments.front());
                (
                    key,
                    segment.id,
                    first.is_some_and(|first| first.id == segment.id),
                )
            })
        };
        of(true).or_else(|| of(false))
    }
}

/// The names of the sessions, for round robin.
pub(super) type SessionName = Arc<str>;
