//! The writer: a thread that writes what sessions send, so that none of them waits for a disk.

mod discarding;
mod syncing;
#[cfg(all(test, feature = "thread"))]
mod tests;

use super::disk::Disk;
use super::eviction;
use super::folder::{Directory, Folder};
use super::format::{self, Destination, Head, SegmentId};
use super::job::Job;
use super::notes;
use super::queue::{Queue, Task};
use super::segment::{self, Chunk, SegmentWriter};
use super::state::{Run, RunKey, Segment, Shared};
use super::stats::SpoolStats;
use super::tidy;
use crate::sys::entropy::Random;
use crate::time::Timestamp;
use crate::transport::{Objects, Receipt, SendError};
use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::io;
use std::sync::{Mutex, PoisonError};

/// When what was written is made durable against the end of the operating system, too: a power cut, a crash.
///
/// What is written survives the end of the program in any case, also one by `kill -9`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sync {
    /// When the operating system pleases, usually within half a minute.
    Never,
    /// The last batch of a session, each batch that has an event of severity ERROR or CRITICAL, and each full segment,
    /// before its session is told that it is written.
    #[default]
    OnStop,
    /// The same, and everything else once in this period.
    Every(Duration),
}

/// The files that are open to append to, at most.
const MOST_OPEN: usize = 64;

/// The bytes that are written in one system call, at least, if there are more than that.
const CHUNK: usize = 64 << 10;

/// A segment of this size ends early once everything in it is settled.
const SMALL: u64 = 64 << 10;

/// What the writer must know.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) to: Destination,
    pub(super) sync: Sync,
    pub(super) max_bytes: u64,
}

/// The folders that this process writes to, for the one that keeps them alive.
pub(super) type OwnFolders = Arc<Mutex<Vec<Arc<Folder>>>>;

/// The writer's own part.
pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: Directory,
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Settings,
    pub(super) random: Random,
    pub(super) folders: OwnFolders,
    folder: Option<Arc<Folder>>,
    streams: BTreeMap<(u64, String), Stream>,
    runs: u64,
    segments: u64,
    chunk: Chunk,
}

/// The events of one session through one transport.
struct Stream {
    key: RunKey,
    fields: Arc<[u8]>,
    open: Option<SegmentWriter>,
    /// Events come in the order of their indices: what is not above this is written.
    last_index: Option<u64>,
    /// Its segment's entry in the folder has not been synced.
    is_entry_new: bool,
    /// Events whose sync has failed: they are written again, to another file.
    again: Vec<(u64, Vec<u8>)>,
}

/// Why a job was not written to its end.
enum Stopped {
    /// Its session has given it up.
    Cancelled,
    /// The folder is no longer where it was: another process has claimed or removed it.
    Moved,
    Disk(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        directory: Directory,
        shared: Arc<Shared>,
        settings: Settings,
        random: Random,
        folders: OwnFolders,
    ) -> Self {
        Self {
            disk,
            directory,
            shared,
            settings,
            random,
            folders,
            folder: None,
            streams: BTreeMap::new(),
            runs: 0,
            segments: 0,
            chunk: Chunk::default(),
        }
    }

    /// Does what is in the queue until that is closed.
    pub(super) fn run(mut self, queue: &Queue) {
        let period = match self.settings.sync {
            Sync::Every(period) => Some(period.max(Duration::from_millis(1))),
            Sync::Never | Sync::OnStop => None,
        };
        loop {
            let next = queue.next(period, || self.sync_all());
            match next {
                Some(task) => self.perform(&task),
                None => break,
            }
        }
        self.finish();
    }

    pub(super) fn perform(&mut self, task: &Task) {
        match task {
            Task::Write(job) => self.write(job),
            Task::End(transport) => self.end(*transport),
            Task::Discard(discard) => self.discard(discard),
        }
    }

    /// The queue is closed and empty.
    pub(super) fn finish(&mut self) {
        if self.settings.sync != Sync::Never {
            self.sync_all();
        }
        tidy::finish(&*self.disk, &self.shared, &self.folders);
    }

    /// Writes a batch and tells its session.
    pub(super) fn write(&mut self, job: &Job) {
        let before = self.shared.stats().stored;
        let mut result = self.try_write(job);
        if matches!(result, Err(Stopped::Moved | Stopped::Disk(_))) {
            // In a new folder, or at least to another file: it may be only this one that cannot grow.
            result = self.try_write(job);
        }
        let written = self.shared.stats().stored - before;
        let result = match result {
            Ok(()) => Ok(()),
            Err(Stopped::Cancelled) => {
                self.shared
                    .update(|state| state.note_late(job.transport, written));
                return;
            }
            Err(Stopped::Moved) => Err(io::Error::other("the spool's folder has gone")),
            Err(Stopped::Disk(error)) => Err(error),
        };
        let is_confirmed = result.is_ok();
        let now = self.shared.time.now();
        let returned = self.shared.update(|state| match &result {
            Ok(()) => state.disk.note_success(),
            Err(_) => {
                state.note_late(job.transport, written);
                state.disk.note_failure(now)
            }
        });
        match (&result, returned) {
            (Ok(()), true) => notes::say(log::Level::Info, "Telemetry spool's disk works again"),
            (Err(error), true) => notes::disk_failed(&self.directory.path, error),
            _ => {}
        }
        // Before the session knows it, so that its next batch cannot be counted first.
        let late = match is_confirmed {
            true => self.shared.update(|state| state.confirm(job.transport)),
            false => 0,
        };
        let is_known = job.finish(match result {
            Ok(()) => Ok(Receipt::handed_over()),
            Err(error) => Err(SendError::retryable(format_args!(
                "cannot write to the spool: {error}"
            ))),
        });
        if is_confirmed && !is_known {
            self.shared
                .update(|state| state.note_late(job.transport, late + written));
        }
    }

    fn try_write(&mut self, job: &Job) -> Result<(), Stopped> {
        let list = job.events();
        let stream_id = (job.transport, job.session.clone());
        if !self.streams.contains_key(&stream_id) {
            let stream = self.new_stream(job)?;
            self.streams.insert(stream_id.clone(), stream);
        }
        // Out of the map while it is written to, and back in any case.
        let Some(mut stream) = self.streams.remove(&stream_id) else {
            return Ok(());
        };
        let written = self.write_events(&mut stream, list, job);
        if matches!(written, Err(Stopped::Moved)) {
            self.abandon_folder();
            // A stream in the new folder, which does not know what was written in the old one.
            return Err(Stopped::Moved);
        }
        self.streams.insert(stream_id, stream);
        self.rest_some();
        written
    }

    fn write_events(&mut self, stream: &mut Stream, list: &[u8], job: &Job) -> Result<(), Stopped> {
        self.write_again(stream)?;
        self.end_if_settled(stream);
        let mut must_sync = job.is_last;
        let max_segment = segment::size_for(self.settings.max_bytes);
        self.chunk.clear();
        for (at, event) in Objects(list).enumerate() {
            let index = format::index_of(event).unwrap_or(job.first_index + at as u64);
            must_sync |= format::is_error(event);
            if stream.last_index.is_some_and(|last| index <= last) {
                continue;
            }
            let is_full = stream
                .open
                .as_ref()
                .is_some_and(|open| !open.has_room(&self.chunk, event.len(), max_segment));
            if is_full || self.chunk.bytes.len() >= CHUNK {
                self.flush(stream, Some(job), false)?;
            }
            if is_full {
                self.close(stream, true)?;
            }
            self.add(stream, index, event)?;
        }
        self.flush(stream, Some(job), false)?;
        if must_sync && self.settings.sync != Sync::Never {
            self.sync(stream)?;
        }
        Ok(())
    }

    fn add(&mut self, stream: &mut Stream, index: u64, event: &[u8]) -> Result<(), Stopped> {
        if stream.open.is_none() {
            self.open(stream)?;
        }
        let Stream {
            open, fields, key, ..
        } = stream;
        if let Some(open) = open {
            let head = Head {
                run: key.run,
                to: self.settings.to,
                fields,
            };
            open.add(&mut self.chunk, index, event, &head);
        }
        Ok(())
    }

    /// Writes what has been collected. Copies are not counted as stored.
    fn flush(
        &mut self,
        stream: &mut Stream,
        job: Option<&Job>,
        are_copies: bool,
    ) -> Result<(), Stopped> {
        let (Some(open), false) = (&mut stream.open, self.chunk.bytes.is_empty()) else {
            return Ok(());
        };
        if job.is_some_and(Job::is_cancelled) {
            self.chunk.clear();
            return Err(Stopped::Cancelled);
        }
        let len = self.chunk.bytes.len() as u64;
        eviction::make_room(
            &*self.disk,
            &self.shared,
            self.settings.max_bytes,
            len,
            stream.key,
            self.settings.sync != Sync::Never,
            &mut self.random,
        )?;
        let id = open.id;
        let written = open.write(&*self.disk, &self.chunk);
        let lines = self.chunk.lines;
        let last_index = self.chunk.last_index;
        self.chunk.clear();
        // Asked before the segment is closed: the keeper removes one that is, if all of it is settled.
        let is_gone = !open.is_in_place(&*self.disk);
        if written.is_ok() && is_gone {
            return Err(Stopped::Moved);
        }
        self.shared.update(|state| {
            let Some(run) = state.runs.get_mut(&stream.key) else {
                return;
            };
            let Some(segment) = run.segment(id) else {
                return;
            };
            if written.is_err() {
                segment.is_closed = true;
                return;
            }
            segment.len += len;
            segment.lines += lines;
            state.counts.bytes += len;
            if are_copies {
                segment.copies = segment.lines;
                state.counts.duplicates += lines;
            } else {
                state.counts.stored += lines;
                state.counts.pending += lines;
            }
        });
        match written {
            Ok(()) => {
                stream.last_index = stream.last_index.max(last_index);
                Ok(())
            }
            Err(error) => {
                // What is there already is the session's: no later sync comes by here.
                if !is_gone && self.settings.sync != Sync::Never && open.sync(&*self.disk).is_err()
                {
                    let unsynced = open.unsynced(&*self.disk).unwrap_or_default();
                    stream.again.extend(unsynced);
                    self.shared.update(|state| {
                        close_segment(state.runs.get_mut(&stream.key), id, 0, true)
                    });
                }
                stream.open = None;
                Err(if is_gone {
                    Stopped::Moved
                } else {
                    error.into()
                })
            }
        }
    }

    /// Ends the open segment without another word, since its file has failed. What is to be kept of it is written again.
    fn abandon(&mut self, stream: &mut Stream) {
        if let Some(open) = stream.open.take() {
            self.shared
                .update(|state| close_segment(state.runs.get_mut(&stream.key), open.id, 0, true));
        }
    }

    /// Ends the open segment.
    fn close(&mut self, stream: &mut Stream, must_sync: bool) -> Result<(), Stopped> {
        if must_sync && self.settings.sync != Sync::Never {
            self.sync(stream)?;
        }
        let Some(mut open) = stream.open.take() else {
            return Ok(());
        };
        let before = open.len;
        let head = Head {
            run: stream.key.run,
            to: self.settings.to,
            fields: &stream.fields,
        };
        open.finish(&*self.disk, &head);
        let more = open.len - before;
        self.shared.update(|state| {
            close_segment(state.runs.get_mut(&stream.key), open.id, more, false);
            state.counts.bytes += more;
        });
        Ok(())
    }

    /// Ends a segment of which everything is settled, so that it can be removed, and forgets one that was.
    fn end_if_settled(&mut self, stream: &mut Stream) {
        let Some(id) = stream.open.as_ref().map(|open| open.id) else {
            return;
        };
        let state = self.shared.lock();
        let run = state.runs.get(&stream.key);
        let segment = run.and_then(|run| run.segments.iter().find(|it| it.id == id));
        let (is_gone, is_settled) = match segment {
            None => (true, false),
            Some(segment) => {
                // Copies may still be needed.
                let is_read = segment.pending() == 0 && segment.next >= segment.copies;
                (segment.is_closed, is_read && segment.len >= SMALL)
            }
        };
        drop(state);
        if is_gone {
            stream.open = None;
        } else if is_settled {
            // At worst the segment lives a little longer.
            let _ = self.close(stream, false);
        }
    }

    /// Ends the streams of a transport that is dropped.
    fn end(&mut self, transport: u64) {
        let ended: Vec<_> = self
            .streams
            .keys()
            .filter(|(of, _)| *of == transport)
            .cloned()
            .collect();
        for name in ended {
            let Some(mut stream) = self.streams.remove(&name) else {
                continue;
            };
            if self.close(&mut stream, true).is_err() {
                self.abandon(&mut stream);
            }
            self.shared.update(|state| {
                if let Some(run) = state.runs.get_mut(&stream.key) {
                    run.is_open = false;
                    state.drop_if_done(stream.key);
                }
            });
        }
    }

    fn new_stream(&mut self, job: &Job) -> io::Result<Stream> {
        let folder = self.folder()?;
        let key = RunKey {
            folder: folder.order,
            run: self.runs,
        };
        self.runs += 1;
        let mut fields = job.fields().to_owned();
        fields.push(b'}');
        let fields: Arc<[u8]> = fields.into();
        self.shared.update(|state| {
            let run = Run {
                is_open: true,
                ..Run::new(&job.session, &fields)
            };
            state.runs.insert(key, run);
        });
        Ok(Stream {
            key,
            fields,
            open: None,
            last_index: None,
            is_entry_new: true,
            again: Vec::new(),
        })
    }

    fn open(&mut self, stream: &mut Stream) -> Result<(), Stopped> {
        let folder = self.folder()?;
        let id = SegmentId(self.random.below(u64::MAX));
        let number = self.segments;
        let open = match SegmentWriter::create(&*self.disk, &folder.path, number, id) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Stopped::Moved),
            Err(error) => return Err(error.into()),
        };
        self.segments += 1;
        self.shared.update(|state| {
            if let Some(run) = state.runs.get_mut(&stream.key) {
                run.segments.push_back(Segment::new(open.path.clone(), id));
            }
        });
        stream.open = Some(open);
        stream.is_entry_new = true;
        Ok(())
    }

    fn folder(&mut self) -> io::Result<Arc<Folder>> {
        if let Some(folder) = &self.folder {
            return Ok(Arc::clone(folder));
        }
        let now = self.shared.time.utc();
        let folder = match self.make_folder(now) {
            // The whole directory has been removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = &self.directory.path;
                self.directory = Directory::open(&*self.disk, path, &mut self.random)
                    .map_err(io::Error::other)?;
                self.make_folder(now)?
            }
            made => made?,
        };
        let folder = Arc::new(folder);
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.push(Arc::clone(&folder));
        drop(folders);
        self.folder = Some(Arc::clone(&folder));
        Ok(folder)
    }

    fn make_folder(&mut self, now: Timestamp) -> io::Result<Folder> {
        self.directory.doubt();
        Folder::create(&*self.disk, &self.directory, now, &mut self.random)
    }

    /// Goes on in a new folder. The events in the old one are their new owner's.
    fn abandon_folder(&mut self) {
        let Some(folder) = self.folder.take() else {
            return;
        };
        self.streams.clear();
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.retain(|other| !Arc::ptr_eq(other, &folder));
        drop(folders);
        self.shared.update(|state| {
            let keys: Vec<_> = state
                .runs
                .keys()
                .filter(|key| key.folder == folder.order)
                .copied()
                .collect();
            for key in keys {
                let ids: Vec<_> = state.runs[&key].segments.iter().map(|it| it.id).collect();
                for id in ids {
                    state.forget(key, id, |counts: &mut SpoolStats| &mut counts.unreadable);
                }
                state.runs.remove(&key);
            }
        });
    }

    /// Closes files until not too many are open.
    fn rest_some(&mut self) {
        let open = self.streams.values_mut().filter_map(|it| it.open.as_mut());
        let mut open: Vec<_> = open.filter(|open| !open.is_resting()).collect();
        if open.len() > MOST_OPEN {
            for segment in &mut open {
                segment.rest();
            }
        }
    }
}

fn close_segment(run: Option<&mut Run>, id: SegmentId, more: u64, is_copied: bool) {
    if let Some(segment) = run.and_then(|run| run.segment(id)) {
        segment.is_closed = true;
        segment.is_copied |= is_copied;
        segment.len += more;
    }
}
