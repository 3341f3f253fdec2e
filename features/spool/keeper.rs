//! The keeper: claims what others have left, reads what is to be sent next, and notes what is settled. It does the
//! forwarder's work on the disk, on a thread of its own.

use super::calendar::{Calendar, Watch};
use super::disk::{Disk, DiskFile, append_all};
use super::eviction;
use super::folder::{self, Claim, Directory, Folder};
use super::format::{self, Destination, SegmentId};
use super::notes;
use super::parcel::{Parcel, Source};
use super::refused::Refused;
use super::segment::{self, done_path, parse_file_name};
use super::state::{Run, RunKey, Segment, SessionName, Shared, Trouble};
use super::stats::SpoolStats;
use super::tidy;
use super::time;
use super::writer::OwnFolders;
use crate::sys::entropy::Random;
use crate::time::{Instant, Timestamp};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

/// A process that seems to have ended, without this being certain, may still append for so long.
const LAST_WRITE: Duration = Duration::from_secs(120);

/// How long a run that cannot be read waits.
const UNREADABLE: Duration = Duration::from_secs(60);

/// What the forwarder is to do next.
#[derive(Debug)]
pub(super) enum Next {
    Send(Box<Parcel>),
    /// Nothing until this time, or until something is written.
    Wait(Option<Instant>),
}

/// The keeper's own part.
pub(super) struct Keeper {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: Directory,
    pub(super) shared: Arc<Shared>,
    pub(super) to: Destination,
    pub(super) max_bytes: u64,
    pub(super) max_age: Duration,
    pub(super) random: Random,
    pub(super) folders: OwnFolders,
    claimed: Vec<Folder>,
    /// The file that says how far the segment being sent is settled.
    pub(super) done: Option<(SegmentId, Box<dyn DiskFile>)>,
    pub(super) refused: Refused,
    age: Calendar,
    watch: Watch,
    last: Option<SessionName>,
    has_other_destination: bool,
    /// Folders that were looked into and have nothing for this spool.
    passed: BTreeSet<PathBuf>,
}

impl Keeper {
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of a spool, named at the one call"
    )]
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        directory: Directory,
        shared: Arc<Shared>,
        to: Destination,
        max_bytes: u64,
        max_age: Duration,
        random: Random,
        folders: OwnFolders,
    ) -> Self {
        Self {
            disk,
            directory,
            shared,
            to,
            max_bytes,
            max_age,
            random,
            folders,
            claimed: Vec::new(),
            done: None,
            refused: Refused::default(),
            age: Calendar::default(),
            watch: Watch::default(),
            last: None,
            has_other_destination: false,
            passed: BTreeSet::new(),
        }
    }

    /// Keeps this process's folders alive, claims those of processes that have ended, and lets go what is too old.
    pub(super) fn look(&mut self, now: Instant, utc: Timestamp) {
        let own = {
            let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            folders.clone()
        };
        own.iter().for_each(|folder| folder.touch());
        self.claimed.iter().for_each(Folder::touch);
        let names = match self.disk.list(&self.directory.path) {
            Ok(names) => names.into_iter().collect::<BTreeSet<_>>(),
            Err(error) => {
                notes::say_error(
                    log::Level::Warn,
                    "Telemetry spool cannot be looked through",
                    &error,
                );
                BTreeSet::new()
            }
        };
        let held = |name: &str| {
            let path = self.directory.path.join(name);
            self.passed.contains(&path)
                || own.iter().any(|folder| folder.path == path)
                || self.claimed.iter().any(|folder| folder.path == path)
        };
        let names: Vec<_> = names.into_iter().filter(|name| !held(name)).collect();
        let mut others = 0;
        for name in names {
            let watch = &mut self.watch;
            let is_recent =
                |path: &Path, touched: Timestamp| watch.is_recent(path, touched, now, utc);
            let claim = folder::claim(
                &*self.disk,
                &self.directory,
                &name,
                is_recent,
                &mut self.random,
            );
            match claim {
                Ok(Claim::Taken(folder)) => self.survey(folder, now),
                Ok(Claim::Alive) => others += 1,
                Ok(Claim::Own | Claim::Foreign) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    notes::say_error(
                        log::Level::Warn,
                        "Telemetry spool cannot claim a folder",
                        &error,
                    );
                }
            }
        }
        if let Some(today) = self.age.look(now, utc, self.max_age) {
            let (shared, max_age) = (&self.shared, self.max_age);
            let must_sync = self.refused.must_sync;
            eviction::expire(
                &*self.disk,
                shared,
                today,
                max_age,
                must_sync,
                &mut self.random,
            );
        }
        self.tidy(now);
        self.shared.update(|state| {
            state.counts.others = others;
            state.has_looked = true;
        });
    }

    /// Enters what a folder holds into the books.
    fn survey(&mut self, folder: Folder, now: Instant) {
        let Ok(names) = self.disk.list(&folder.path) else {
            return;
        };
        let mut files: Vec<_> = names
            .iter()
            .filter_map(|name| Some((parse_file_name(name)?, folder.path.join(name))))
            .collect();
        files.sort();
        let keep_until = if folder.is_final {
            None
        } else {
            now.checked_add(LAST_WRITE)
        };
        let mut last_indices = BTreeMap::new();
        let mut found = 0;
        for ((_, id), path) in files {
            match self.survey_segment(&folder, &path, id, keep_until, &mut last_indices) {
                Ok(events) => found += events,
                Err(error) => {
                    notes::say_error(
                        log::Level::Warn,
                        "Telemetry spool passes over a file",
                        &error,
                    );
                }
            }
        }
        if found > 0 {
            notes::say(
                log::Level::Info,
                format_args!(
                    "Telemetry spool has found {found} events of a process that has ended"
                ),
            );
        }
        self.claimed.push(folder);
    }

    fn survey_segment(
        &mut self,
        folder: &Folder,
        path: &Path,
        id: SegmentId,
        keep_until: Option<Instant>,
        last_indices: &mut BTreeMap<u64, u64>,
    ) -> io::Result<u64> {
        let owner = self.directory.owner;
        let meta = self.disk.stat(path)?;
        if !meta.is_safe(super::disk::Kind::File, owner) {
            return Err(io::Error::other(
                "it is not a plain file of this user's alone",
            ));
        }
        let mut survey =
            segment::survey(&*self.disk, path, id, |run| last_indices.get(&run).copied())?;
        let known = survey.head.as_ref().and_then(|(run, to, fields)| {
            format::session_id(fields).map(|session| (*run, *to, fields, session))
        });
        let Some((run, to, fields, session)) = known else {
            return self.give_up_on(path, &survey);
        };
        if to != self.to {
            self.shared.update(|state| state.counts.elsewhere += 1);
            if !core::mem::replace(&mut self.has_other_destination, true) {
                notes::say(
                    log::Level::Warn,
                    format_args!(
                        "Telemetry spool {:?} also has events for another destination, which are left alone",
                        self.directory.path
                    ),
                );
            }
            return Ok(0);
        }
        if let Some(last) = survey.last_index {
            last_indices.insert(run, last);
        }
        let mut segment = Segment {
            len: survey.len,
            lines: survey.lines,
            is_closed: true,
            at: survey.settled_at,
            next: survey.settled,
            copies: survey.copies,
            keep_until,
            ..Segment::new(path.into(), id)
        };
        let key = RunKey {
            folder: folder.order,
            run,
        };
        let pending = self.shared.update(|state| {
            state.counts.bytes += segment.len;
            state.counts.duplicates += survey.copies.saturating_sub(survey.settled);
            let run = state.runs.entry(key).or_insert_with(|| Run {
                is_recovered: true,
                ..Run::new(&session, fields)
            });
            if segment.next < segment.copies {
                segment.expected = core::mem::take(&mut run.missing);
            }
            run.missing += survey.missing;
            run.holes.extend(&mut survey.holes);
            run.last_index = run.last_index.max(survey.settled_index);
            let (pending, has_copies) = (segment.pending(), segment.copies > 0);
            run.segments.push_back(segment);
            if has_copies {
                run.note_copies(id);
            }
            state.counts.recovered += pending;
            state.counts.pending += pending;
            pending
        });
        Ok(pending)
    }

    /// A segment without an intact head: no one can tell where its events belong. They are kept for a person.
    fn give_up_on(&mut self, path: &Path, survey: &segment::Survey) -> io::Result<u64> {
        let lines = survey.lines;
        if lines > 0 {
            self.refused.keep_file(&*self.disk, &self.directory, path)?;
            notes::say(
                log::Level::Warn,
                format_args!(
                    "Telemetry spool cannot read whose {lines} events are, they are in {:?}",
                    folder::REJECTED
                ),
            );
        }
        self.disk.remove_file(path)?;
        self.shared.update(|state| {
            state.counts.recovered += lines;
            state.counts.unreadable += lines;
        });
        Ok(0)
    }

    /// Chooses and reads what is to be sent next: the oldest events of the session that comes after the last one.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        loop {
            let (source, until) = self.choose(now);
            let Some((key, source)) = source else {
                return Next::Wait(until);
            };
            let id = source.id();
            match source.read(&*self.disk) {
                Ok(parcel) if parcel.events > 0 => {
                    self.last = Some(Arc::clone(&parcel.session));
                    return Next::Send(Box::new(self.with_attempt(parcel)));
                }
                Ok(parcel) => {
                    self.pass_over(&parcel);
                    self.tidy(now);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.shared.update(|state| {
                        state.in_flight = None;
                        state.lose(key, id);
                    });
                }
                Err(error) => {
                    notes::say_error(log::Level::Warn, "Telemetry spool cannot be read", &error);
                    self.shared.update(|state| {
                        state.in_flight = None;
                        if let Some(run) = state.runs.get_mut(&key) {
                            run.trouble.not_before = time::after(now, UNREADABLE);
                        }
                    });
                }
            }
        }
    }

    /// The next source, or when there may be one.
    fn choose(&self, now: Instant) -> (Option<(RunKey, Source)>, Option<Instant>) {
        let mut state = self.shared.lock();
        let state = &mut *state;
        if state.is_discarding() {
            return (None, None);
        }
        {
            let mut until: Option<Instant> = None;
            let mut best: Option<(bool, RunKey, SegmentId)> = None;
            let mut best_session: Option<&SessionName> = None;
            let mut seen = BTreeSet::new();
            for (key, run) in &state.runs {
                let Some(segment) = run.segments.iter().find(|segment| segment.pending() > 0)
                else {
                    continue;
                };
                // The runs of one session go one after the other.
                if !seen.insert(&*run.session) || run.segments.iter().any(|it| it.is_leaving) {
                    continue;
                }
                if let Some(not_before) = run.trouble.not_before.filter(|at| *at > now) {
                    until = Some(until.map_or(not_before, |until| until.min(not_before)));
                    continue;
                }
                let is_after = self.last.as_ref().is_none_or(|last| run.session > *last);
                let is_better = best.is_none_or(|(best_after, ..)| {
                    (is_after, core::cmp::Reverse(&run.session))
                        > (
                            best_after,
                            core::cmp::Reverse(best_session.unwrap_or(&run.session)),
                        )
                });
                if is_better {
                    best = Some((is_after, *key, segment.id));
                    best_session = Some(&run.session);
                }
            }
            let Some((_, key, id)) = best else {
                return (None, until);
            };
            let source = state.runs.get(&key).and_then(|run| {
                let segment = run.segments.iter().find(|segment| segment.id == id)?;
                Some((key, Source::new(key, run, segment)))
            });
            state.in_flight = Some((key, id));
            (source, until)
        }
    }

    /// Counts the attempt at these events.
    fn with_attempt(&self, mut parcel: Parcel) -> Parcel {
        let state = self.shared.lock();
        let trouble = state.runs.get(&parcel.key).map(|run| &run.trouble);
        if let Some(trouble) = trouble {
            parcel.has_broken = trouble.breaks > 0;
            if let Some(repeat) = trouble.repeat
                && repeat.key == parcel.idempotency_key
            {
                parcel.attempt = repeat.attempt;
            }
        }
        parcel
    }

    /// Notes what was read without finding an event to send.
    fn pass_over(&mut self, parcel: &Parcel) {
        self.shared.update(|state| {
            state.in_flight = None;
            state.note_read(parcel, |counts: &mut SpoolStats| &mut counts.unreadable);
        });
    }

    /// Notes that the events are settled, as `count` says, on disk and in the books.
    pub(super) fn settle(
        &mut self,
        parcel: &Parcel,
        count: fn(&mut SpoolStats) -> &mut u64,
        now: Instant,
    ) {
        let is_noted = self.note_done(parcel);
        self.shared.update(|state| {
            state.in_flight = None;
            if let Some(run) = state.runs.get_mut(&parcel.key) {
                run.trouble.note_settled();
            }
            state.note_read(parcel, count);
        });
        if let Err(error) = is_noted {
            notes::say_error(
                log::Level::Warn,
                "Telemetry spool cannot note what is sent, which may be sent again",
                &error,
            );
        }
        self.tidy(now);
    }

    /// Notes on disk that the events are settled, unless the whole segment is and will be removed.
    fn note_done(&mut self, parcel: &Parcel) -> io::Result<()> {
        let state = self.shared.lock();
        let run = state.runs.get(&parcel.key);
        let segment = run.and_then(|run| run.segments.iter().find(|it| it.id == parcel.segment));
        let Some(segment) = segment else {
            return Ok(());
        };
        let is_all = segment.is_closed && parcel.at >= segment.len && segment.keep_until.is_none();
        let path = done_path(&segment.path);
        drop(state);
        let (Some(last_index), false) = (parcel.last_index, is_all) else {
            return Ok(());
        };
        let mut file = match self.done.take() {
            Some((id, file)) if id == parcel.segment => file,
            _ => match self.disk.open(&path, true) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(&path)?,
                opened => opened?,
            },
        };
        let mut line = Vec::new();
        format::write_settled(&mut line, parcel.segment, last_index);
        append_all(&mut *file, &line)?;
        self.done = Some((parcel.segment, file));
        Ok(())
    }

    /// Keeps a single event that the server refuses, before it counts as settled.
    pub(super) fn reject(&mut self, parcel: &Parcel, now: Instant) {
        // Discarded while it was under way.
        if !self.shared.lock().may_send(parcel) {
            return;
        }
        let event = parcel
            .body
            .get(parcel.list.0..parcel.list.1)
            .unwrap_or_default();
        let fields = parcel.body.get(..parcel.list.0).unwrap_or_default();
        let kept = self.refused.keep(
            &*self.disk,
            &self.directory,
            self.to,
            fields,
            parcel.first_index,
            event,
            self.max_bytes / 4,
            &mut self.random,
        );
        match kept {
            Ok(()) => self.settle(parcel, |counts: &mut SpoolStats| &mut counts.rejected, now),
            Err(error) => {
                notes::say_error(
                    log::Level::Warn,
                    "Telemetry spool cannot keep a refused event",
                    &error,
                );
                self.postpone(parcel, time::after(now, UNREADABLE));
            }
        }
    }

    /// Leaves the events for later.
    pub(super) fn postpone(&self, parcel: &Parcel, not_before: Option<Instant>) {
        self.change(parcel, |trouble| trouble.not_before = not_before);
    }

    /// Changes how the run goes on after a failed attempt.
    pub(super) fn change(&self, parcel: &Parcel, change: impl FnOnce(&mut Trouble)) {
        self.shared.update(|state| {
            state.in_flight = None;
            if let Some(run) = state.runs.get_mut(&parcel.key) {
                change(&mut run.trouble);
            }
        });
    }

    /// Removes segments of which everything is settled, and lets go of folders that have nothing for this spool.
    pub(super) fn tidy(&mut self, now: Instant) {
        for settled in tidy::settled(&self.shared, Some(now)) {
            // What was appended meanwhile belongs to the run.
            let has_grown = settled.may_have_grown
                && self
                    .disk
                    .stat(&settled.path)
                    .is_ok_and(|meta| meta.len > settled.len);
            if has_grown && self.read_again(settled.key, settled.id, &settled.path) {
                continue;
            }
            if self.done.as_ref().is_some_and(|(of, _)| *of == settled.id) {
                self.done = None;
            }
            tidy::remove(&*self.disk, &self.shared, &settled);
        }
        if self.claimed.is_empty() {
            return;
        }
        let state = self.shared.lock();
        let busy: BTreeSet<_> = state.runs.keys().map(|key| key.folder).collect();
        drop(state);
        let (disk, passed) = (&*self.disk, &mut self.passed);
        self.claimed.retain(|folder| {
            let is_busy = busy.contains(&folder.order);
            if !is_busy && !folder.remove_if_empty(disk) {
                // What is left is for another destination, or nothing that this spool reads.
                folder.release(disk);
                passed.insert(folder.path.clone());
            }
            is_busy
        });
    }

    /// Looks at a segment that has grown since it was claimed. Returns whether there is something to send.
    fn read_again(&self, key: RunKey, id: SegmentId, path: &Path) -> bool {
        let Ok(survey) = segment::survey(&*self.disk, path, id, |_| None) else {
            return false;
        };
        self.shared.update(|state| {
            let Some(segment) = state.runs.get_mut(&key).and_then(|run| run.segment(id)) else {
                return false;
            };
            let (before, len) = (segment.pending(), segment.len);
            segment.lines = segment.lines.max(survey.lines);
            segment.len = segment.len.max(survey.len);
            let more = segment.pending() - before;
            state.counts.bytes += segment.len - len;
            state.counts.recovered += more;
            state.counts.pending += more;
            more > 0
        })
    }

    /// Leaves nothing behind if there is nothing to send.
    pub(super) fn finish(&mut self) {
        self.done = None;
        tidy::finish(&*self.disk, &self.shared, &self.folders);
    }
}
