//! Eviction: what goes when the spool is full or too old. The oldest goes first, and it is counted and said.

use super::disk::Disk;
use super::format::{self, Head, Line, SegmentId};
use super::notes;
use super::segment::{Chunk, LineReader, SegmentWriter, done_path, parse_file_name};
use super::state::{RunKey, Segment, Shared, State};
use super::stats::SpoolStats;
use crate::sys::entropy::Random;
use crate::time::Timestamp;
use alloc::borrow::ToOwned as _;
use alloc::vec::Vec;
use core::time::Duration;
use std::io;
use std::path::PathBuf;

/// A date before this one, the first of 2024, is that of a clock which was never set: it says nothing about age.
const BEGINNING: Timestamp = Timestamp::from_unix_micros(1_704_067_200_000_000);

/// Evicts the oldest segments until there is room for `need` more bytes, which `writing` will write.
pub(super) fn make_room(
    disk: &dyn Disk,
    shared: &Shared,
    max_bytes: u64,
    need: u64,
    writing: RunKey,
    must_sync: bool,
    random: &mut Random,
) -> io::Result<()> {
    loop {
        let state = shared.lock();
        if state.counts.bytes + need <= max_bytes {
            return Ok(());
        }
        let victim = state.oldest(Some(writing));
        drop(state);
        let Some(victim) = victim else {
            return Err(io::Error::other("the spool is full (max_bytes)"));
        };
        evict(disk, shared, victim, "max_bytes", must_sync, random)?;
    }
}

/// Evicts what is older than `max_age`, at most a quarter of the spool: a clock that jumps empties nothing at once.
pub(super) fn expire(
    disk: &dyn Disk,
    shared: &Shared,
    now: Timestamp,
    max_age: Duration,
    must_sync: bool,
    random: &mut Random,
) {
    let is_old = |at: Timestamp| at > BEGINNING && now.saturating_duration_since(at) > max_age;
    let state = shared.lock();
    let at_most = state.counts.bytes / 4;
    let candidates: Vec<_> = state
        .runs
        .iter()
        .filter(|(key, _)| is_old(Timestamp::from_unix_micros(key.folder.0)))
        .flat_map(|(key, run)| {
            let first = run.segments.front().map(|first| first.id);
            let closed = run.segments.iter().filter(|it| it.is_closed);
            closed.map(move |it| (*key, it.id, first == Some(it.id), it.path.clone(), it.len))
        })
        .filter(|(key, id, ..)| state.in_flight != Some((*key, *id)))
        .collect();
    drop(state);
    let mut evicted = 0;
    for (key, id, is_first, path, len) in candidates {
        // The later of the two ages counts: a file that was written a moment ago is not old.
        let is_old = disk.stat(&path).is_ok_and(|meta| is_old(meta.modified));
        if is_old && evicted + len <= at_most.max(len) {
            let victim = (key, id, is_first);
            // A disk that removes nothing is asked again at the next look.
            if evict(disk, shared, victim, "max_age", must_sync, random).is_err() {
                return;
            }
            evicted += len;
        }
    }
}

/// Removes a segment, whose events count as evicted. After an error it is where it was.
fn evict(
    disk: &dyn Disk,
    shared: &Shared,
    (key, id, is_first): (RunKey, SegmentId, bool),
    limit: &str,
    must_sync: bool,
    random: &mut Random,
) -> io::Result<()> {
    let Some((path, is_whole)) = shared.update(|state| begin(state, key, id)) else {
        return Ok(());
    };
    let beginning = (is_first && is_whole)
        .then(|| keep_beginning(disk, shared, (key, id), must_sync, random))
        .flatten();
    if let Err(error) = disk.remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        if let Some(beginning) = beginning {
            let _ = disk.remove_file(&beginning.path);
        }
        shared.update(|state| {
            let run = state.runs.get_mut(&key);
            if let Some(segment) = run.and_then(|run| run.segment(id)) {
                segment.is_leaving = false;
            }
        });
        return Err(error);
    }
    let _ = disk.remove_file(&done_path(&path));
    let orphan = beginning.as_ref().map(|segment| segment.path.clone());
    let events = shared.update(|state| {
        let run = state.runs.get_mut(&key);
        // Gone, if all was discarded meanwhile.
        let run = run.filter(|run| run.segments.iter().any(|it| it.id == id))?;
        let kept = match beginning {
            Some(beginning) => {
                let lines = beginning.lines;
                state.counts.bytes += beginning.len;
                run.segments.push_front(beginning);
                lines
            }
            None => 0,
        };
        let before = state.counts.evicted;
        state.counts.pending += kept;
        state.forget(key, id, |counts: &mut SpoolStats| &mut counts.evicted);
        // They are among those of the segment.
        state.counts.evicted -= kept;
        Some(state.counts.evicted - before)
    });
    let Some(events) = events else {
        if let Some(orphan) = orphan {
            let _ = disk.remove_file(&orphan);
        }
        return Ok(());
    };
    notes::say(
        log::Level::Warn,
        format_args!("Telemetry spool has reached {limit}, {events} of the oldest events dropped"),
    );
    Ok(())
}

/// Has a segment's run wait while its file is removed. Returns the file, and whether nothing of it is sent or a copy.
fn begin(state: &mut State, key: RunKey, id: SegmentId) -> Option<(PathBuf, bool)> {
    // Chosen a moment ago; meanwhile it may be on its way to the server, or what it has copies of.
    if state.in_flight == Some((key, id)) {
        return None;
    }
    let run = state.runs.get_mut(&key)?;
    if !run.expendable().any(|segment| segment.id == id) {
        return None;
    }
    // Another thread may be about it.
    let segment = run.segment(id).filter(|it| !it.is_leaving)?;
    segment.is_leaving = true;
    let is_whole = segment.next == 0 && segment.copies == 0;
    Some((segment.path.clone(), is_whole))
}

/// Writes the session's start and context, if the segment begins with them, to a segment of their own: without them the
/// server would not know what the rest belongs to.
fn keep_beginning(
    disk: &dyn Disk,
    shared: &Shared,
    (key, id): (RunKey, SegmentId),
    must_sync: bool,
    random: &mut Random,
) -> Option<Segment> {
    let state = shared.lock();
    let run = state.runs.get(&key)?;
    let segment = run
        .segments
        .front()
        .filter(|it| it.id == id && it.next == 0)?;
    let (path, len) = (segment.path.clone(), segment.len);
    drop(state);
    let (number, _) = parse_file_name(path.file_name()?.to_str()?)?;
    let mut file = disk.open(&path, false).ok()?;
    let mut reader = LineReader::new(&mut *file, 0, len);
    let mut head = None;
    let mut events = Vec::new();
    while let Ok(Some(line)) = reader.next() {
        match format::parse(id, line.bytes) {
            Line::Head { head: found, .. } => {
                head.get_or_insert((found.to, found.fields.to_owned()));
            }
            Line::Event(event) if is_beginning(event.json) => {
                events.push((event.index, event.json.to_owned()));
            }
            Line::Event(_) => break,
            Line::Damaged => {}
        }
    }
    let (to, fields) = head?;
    if events.is_empty() {
        return None;
    }
    let head = Head {
        run: key.run,
        to,
        fields: &fields,
    };
    let mut write = || {
        let id = SegmentId(random.below(u64::MAX));
        let mut writer = SegmentWriter::create(disk, path.parent()?, number, id).ok()?;
        let mut chunk = Chunk::default();
        for (index, event) in &events {
            writer.add(&mut chunk, *index, event, &head);
        }
        writer.write(disk, &chunk).ok()?;
        // Where it was it may have been durable.
        let is_synced = !must_sync || writer.sync(disk).is_ok();
        Some((writer, is_synced))
    };
    let (mut kept, is_synced) = write()?;
    if !is_synced && let Some((mut again, is_synced)) = write() {
        // To another file: a second sync of the same one would report success for what is lost. If that fails as well, it
        // is no reason to drop it.
        if is_synced {
            core::mem::swap(&mut kept, &mut again);
        }
        let _ = disk.remove_file(&again.path);
    }
    if must_sync {
        let _ = disk.sync_dir(path.parent()?);
    }
    Some(Segment {
        len: kept.len,
        lines: kept.lines,
        is_closed: true,
        is_beginning: true,
        ..Segment::new(kept.path, kept.id)
    })
}

fn is_beginning(event: &[u8]) -> bool {
    [
        &br#""event":"SESSION_START""#[..],
        br#""event_name":"session.context""#,
    ]
    .iter()
    .any(|needle| event.windows(needle.len()).any(|part| part == *needle))
}

#[cfg(test)]
mod tests {
    use super::super::state::Run;
    use super::*;

    const KEY: RunKey = RunKey {
        folder: (1, 1),
        run: 0,
    };

    /// A run with these segments, each of ten events, of which so many are copies.
    fn run(copies: &[u64]) -> Run {
        let mut run = Run::new("s", b"{}");
        for (id, copies) in (0..).zip(copies) {
            run.segments.push_back(Segment {
                lines: 10,
                is_closed: true,
                copies: *copies,
                ..Segment::new(PathBuf::new(), SegmentId(id))
            });
            if *copies > 0 {
                run.note_copies(SegmentId(id));
            }
        }
        run
    }

    fn oldest(state: &State) -> Option<u64> {
        state.oldest(None).map(|(_, id, _)| id.0)
    }

    #[test]
    fn copies_of_what_is_on_its_way_are_not_evicted_before_it() {
        let mut state = State::default();
        state.runs.insert(KEY, run(&[0, 10, 3, 0]));
        assert_eq!(oldest(&state), Some(0), "the oldest first");
        // Its sync has failed, and the copies may be all that is durable, or the copies of those.
        state.in_flight = Some((KEY, SegmentId(0)));
        assert_eq!(oldest(&state), Some(3));
        // When it is sent, they are of no use; those behind them may be.
        let run = state.runs.get_mut(&KEY).expect("the run");
        run.segments.pop_front();
        assert_eq!(oldest(&state), Some(1));
    }

    #[test]
    fn copies_of_what_was_evicted_may_go_although_another_segment_is_on_its_way() {
        let mut state = State::default();
        let mut run = run(&[0, 0, 10]);
        let removed = run.segments.remove(1).map(|it| it.is_copied);
        assert_eq!(removed, Some(true));
        state.runs.insert(KEY, run);
        state.in_flight = Some((KEY, SegmentId(0)));
        assert_eq!(oldest(&state), Some(2));
    }
}
