//! What a collector keeps: sessions, their runs, and requests, within a bound on memory.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};
use std::collections::HashSet;

use super::super::wire::check::Mode;
use super::super::wire::checked::EventKind;
use super::super::wire::record::EventRecord;
use super::super::wire::violation::Violation;
use super::notice::Notice;
use super::record::SessionRecord;
use super::request::RequestRecord;
use super::script::Reply;
use super::state::{Batch, Rules};

#[derive(Default)]
pub(super) struct Ledger {
    /// The runs of each session, at least one.
    sessions: BTreeMap<String, Vec<Arc<SessionRecord>>>,
    requests: VecDeque<RequestRecord>,
    script: VecDeque<Reply>,
    always: Option<Reply>,
    /// Sessions with a request that was not kept.
    refused: HashSet<String>,
    /// Whether a request of an unknown session, which may be any of them, was not kept.
    has_refused_unknown: bool,
    /// The bytes of their ids.
    refused_bytes: usize,
    /// Of them, those that were forgotten: what they go on with may not be their first event.
    cut: HashSet<String>,
    budget: Budget,
    version: u64,
}

/// The memory of the records, estimated in bytes.
#[derive(Default)]
struct Budget {
    /// For sessions, and half as much for requests.
    max_sessions: Option<usize>,
    sessions: usize,
    requests: usize,
    /// Which session and run was changed when, oldest first.
    ages: BTreeMap<u64, (String, u32)>,
    clock: u64,
}

/// More refused sessions are not told apart: a stranger decides how many there are.
const MAX_REFUSED: usize = 10_000;
const MAX_REFUSED_BYTES: usize = 1 << 20;

/// What was kept of a request.
pub(super) struct Kept {
    pub(super) run: u32,
    pub(super) new: Vec<EventRecord>,
    pub(super) notices: Vec<Notice>,
}

impl Ledger {
    /// `max_memory`: for all that the collector keeps, of which half is for sessions and a quarter for requests.
    pub(super) fn new(max_memory: Option<usize>) -> Self {
        let mut ledger = Self::default();
        ledger.budget.max_sessions = max_memory.map(|max| max / 2);
        ledger
    }

    pub(super) fn append(&mut self, replies: impl IntoIterator<Item = Reply>) {
        self.script.extend(replies);
    }

    pub(super) fn set_always(&mut self, reply: Reply) {
        self.always = Some(reply);
    }

    /// Forgets the script, and the reply to all other requests.
    #[cfg(feature = "cli")]
    pub(super) fn clear_script(&mut self) {
        self.script.clear();
        self.always = None;
    }

    /// The reply to the next request, if it was set.
    pub(super) fn next_reply(&mut self) -> Option<Reply> {
        self.script.pop_front().or_else(|| self.always.clone())
    }

    /// Counts the changes: requests, and [`clear`](Self::clear).
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Forgets sessions and requests. Sessions that go on begin with what comes next.
    pub(super) fn clear(&mut self) {
        for session in core::mem::take(&mut self.sessions).into_keys() {
            self.record_forgotten(&session);
        }
        self.requests.clear();
        let max_sessions = self.budget.max_sessions;
        self.budget = Budget {
            max_sessions,
            ..Budget::default()
        };
        self.version += 1;
    }

    /// The latest run of a session.
    pub(super) fn session(&self, id: &str) -> Option<&Arc<SessionRecord>> {
        self.sessions.get(id)?.last()
    }

    /// All runs of all sessions.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Arc<SessionRecord>> {
        self.sessions.values().flatten()
    }

    pub(super) fn requests(&self) -> &VecDeque<RequestRecord> {
        &self.requests
    }

    pub(super) fn add_request(&mut self, request: RequestRecord) {
        self.version += 1;
        let budget = &mut self.budget;
        budget.requests += request.cost();
        self.requests.push_back(request);
        let Some(max) = budget.max_sessions.map(|max| max / 2) else {
            return;
        };
        while budget.requests > max
            && let Some(oldest) = self.requests.pop_front()
        {
            budget.requests -= oldest.cost();
        }
    }

    /// Returns the new events, or `None` if the reply does not keep any.
    pub(super) fn settle(
        &mut self,
        batch: Result<Batch, Violation>,
        keeps: bool,
        rules: &Rules,
    ) -> Result<Option<Kept>, Violation> {
        let batch = batch?;
        if keeps {
            self.keep(batch, rules).map(Some)
        } else {
            Ok(None)
        }
    }

    fn keep(&mut self, batch: Batch, rules: &Rules) -> Result<Kept, Violation> {
        let order = rules.order(self.has_refused_unknown || self.refused.contains(&batch.session));
        let is_lenient = rules.mode == Mode::Lenient;
        let runs = self.sessions.get_mut(&batch.session);
        let mut notices = Vec::new();
        let session = batch.session.clone();
        let found = runs.and_then(|runs| {
            let at = match is_lenient {
                true => run_of(runs, &batch)?,
                false => runs.len().checked_sub(1)?,
            };
            runs.get_mut(at)
        });
        let (new, run) = match found {
            // Copies the record only while a snapshot of it is alive.
            Some(record) => {
                let run = record.run();
                let new = Arc::make_mut(record).take(batch.sender, batch.events, order)?;
                (new, run)
            }
            None => {
                let run = self.session(&session).map_or(1, |last| last.run() + 1);
                let mut record = SessionRecord::new(&session, run);
                if self.cut.contains(&session) {
                    record.begins_with(&batch.events);
                }
                let new = record.take(batch.sender, batch.events, order)?;
                self.cut.remove(&session);
                if run > 1 {
                    let session = session.clone();
                    notices.push(Notice::NewRun { session, run });
                }
                let runs = self.sessions.entry(session.clone()).or_default();
                runs.push(Arc::new(record));
                (new, run)
            }
        };
        self.weigh(&session, run, &new);
        self.forget(&mut notices);
        Ok(Kept { run, new, notices })
    }

    /// Accounts for events that were kept.
    fn weigh(&mut self, session: &str, run: u32, new: &[EventRecord]) {
        if self.budget.max_sessions.is_none() {
            return;
        }
        let runs = self.sessions.get_mut(session);
        let Some(record) = runs.and_then(|runs| runs.iter_mut().find(|record| record.run() == run))
        else {
            return;
        };
        let added: usize = new.iter().map(EventRecord::cost).sum();
        let budget = &mut self.budget;
        budget.clock += 1;
        let record = Arc::make_mut(record);
        let is_new = record.cost == 0;
        let added = added
            + record.sender_grown()
            + if is_new {
                SessionRecord::COST + 3 * session.len()
            } else {
                0
            };
        record.cost += added;
        budget.sessions += added;
        budget.ages.remove(&record.changed);
        record.changed = budget.clock;
        budget.ages.insert(budget.clock, (session.to_owned(), run));
    }

    /// Forgets the sessions that were changed the longest ago, until the others are within the budget.
    fn forget(&mut self, notices: &mut Vec<Notice>) {
        let Some(max) = self.budget.max_sessions else {
            return;
        };
        while self.budget.sessions > max
            && let Some((_, (session, run))) = self.budget.ages.pop_first()
        {
            let Some(runs) = self.sessions.get_mut(&session) else {
                continue;
            };
            if let Some(at) = runs.iter().position(|record| record.run() == run) {
                let record = runs.remove(at);
                self.budget.sessions -= record.cost;
                let (session, events) = (session.clone(), record.len());
                notices.push(Notice::Forgotten { session, events });
            }
            if runs.is_empty() {
                self.sessions.remove(&session);
            }
            // It may go on, from its middle.
            self.record_forgotten(&session);
        }
    }

    /// Records that a request was not kept; `None` if its session is unknown.
    pub(super) fn record_refused(&mut self, session: Option<&str>) {
        match session {
            Some(session) if self.refused.contains(session) => {}
            Some(session)
                if self.refused.len() < MAX_REFUSED
                    && self.refused_bytes + session.len() <= MAX_REFUSED_BYTES =>
            {
                self.refused_bytes += session.len();
                self.refused.insert(session.to_owned());
            }
            _ => self.has_refused_unknown = true,
        }
    }

    fn record_forgotten(&mut self, session: &str) {
        self.record_refused(Some(session));
        if self.refused.contains(session) {
            self.cut.insert(session.to_owned());
        }
    }
}

/// The run that a request belongs to; `None` if it begins a new one.
fn run_of(runs: &[Arc<SessionRecord>], batch: &Batch) -> Option<usize> {
    let (Some(latest), Some(first)) = (runs.last(), batch.events.first()) else {
        return None;
    };
    let process = batch.sender.process_uuid();
    let is_of_process =
        |run: &Arc<SessionRecord>| process.is_some() && run.process_uuid() == process;
    let last = runs.len() - 1;
    // A repeated event belongs to the run that has it, and others to the run of their process.
    if let Some(at) = runs.iter().rposition(|run| run.has(first.id())) {
        return Some(at);
    }
    let is_other_process =
        process.is_some() && latest.process_uuid().is_some() && !is_of_process(latest);
    let begins = match first.kind() {
        EventKind::SessionStart => is_other_process || latest.has_index(0),
        // Its start was lost.
        _ => is_other_process && latest.has_index(first.index()) && !runs.iter().any(is_of_process),
    };
    if begins {
        return None;
    }
    Some(runs.iter().rposition(is_of_process).unwrap_or(last))
}
