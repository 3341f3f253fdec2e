//! Segments: files of lines. How one is appended to, read, and surveyed after its process has ended.

use super::disk::{Disk, DiskFile, append_all, read_full};
use super::format::{self, Event, Head, Line, SegmentId};
use super::holes::Holes;
use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use std::io;
use std::path::{Path, PathBuf};

/// The longest that a segment may become, unless its only event is longer.
const MAX_SEGMENT: u64 = 1 << 20;

/// How long a segment may become in a spool of this size: it must be possible to give up one and keep the others.
pub(super) fn size_for(max_bytes: u64) -> u64 {
    (max_bytes / 8).min(MAX_SEGMENT)
}

/// The head is repeated before the first event beyond this many bytes.
const FIRST_REPEAT: u64 = 1 << 10;

/// After that it is repeated every so many bytes.
const REPEAT: u64 = 64 << 10;

/// The most bytes of a line that are read: an event of `max_event_bytes`, and what is around it.
const MAX_LINE: usize = crate::session::Options::MAX_EVENT_BYTES + format::LINE_OVERHEAD;

/// How much is read from a file at a time.
const READ: usize = 64 << 10;

/// A disk's sector: what is lost where a file cannot be read.
const SECTOR: usize = 4 << 10;

pub(super) fn file_name(number: u64, id: SegmentId) -> alloc::string::String {
    format!("{number:010}-{id}.ndjson")
}

/// The number and the id in a segment's name.
pub(super) fn parse_file_name(name: &str) -> Option<(u64, SegmentId)> {
    let (number, id) = name.strip_suffix(".ndjson")?.split_once('-')?;
    let is_number = number.len() == 10 && number.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    Some((number.parse().ok()?, SegmentId::parse(id)?))
}

/// The file that says how far a segment is settled.
pub(super) fn done_path(segment: &Path) -> PathBuf {
    segment.with_extension("done")
}

/// A segment that this process appends to.
pub(super) struct SegmentWriter {
    pub(super) path: PathBuf,
    pub(super) id: SegmentId,
    /// `None` while other segments are written: there may be more of them than files that can be open.
    file: Option<Box<dyn DiskFile>>,
    identity: (u64, u64),
    /// The bytes and the events that are written.
    pub(super) len: u64,
    pub(super) lines: u64,
    next_head: u64,
    /// The bytes that have been synced.
    pub(super) synced: u64,
}

impl SegmentWriter {
    pub(super) fn create(
        disk: &dyn Disk,
        folder: &Path,
        number: u64,
        id: SegmentId,
    ) -> io::Result<Self> {
        let path = folder.join(file_name(number, id));
        let file = disk.create(&path)?;
        Ok(Self {
            identity: file.stat()?.identity,
            path,
            id,
            file: Some(file),
            len: 0,
            lines: 0,
            next_head: 0,
            synced: 0,
        })
    }

    /// Adds an event's line to `chunk`, which begins at the end of the file, behind a head if one is due.
    pub(super) fn add(&mut self, chunk: &mut Chunk, index: u64, json: &[u8], head: &Head<'_>) {
        let n = self.lines + chunk.lines;
        let at = self.len + chunk.bytes.len() as u64;
        if at == 0 || at >= self.next_head {
            format::write_head(&mut chunk.bytes, self.id, n, head);
            self.next_head = if at == 0 { FIRST_REPEAT } else { at + REPEAT };
        }
        format::write_event(&mut chunk.bytes, self.id, n, index, json);
        chunk.lines += 1;
        chunk.last_index = Some(index);
    }

    /// Whether the segment has room for an event of this many bytes behind `chunk`. An empty one has always.
    pub(super) fn has_room(&self, chunk: &Chunk, event: usize, max: u64) -> bool {
        let len = self.len + (chunk.bytes.len() + event + format::LINE_OVERHEAD) as u64;
        self.lines + chunk.lines == 0 || len <= max
    }

    /// Appends the lines. After an error nothing more may be appended: the file may end in the middle of a line.
    pub(super) fn write(&mut self, disk: &dyn Disk, chunk: &Chunk) -> io::Result<()> {
        let len = self.len;
        let file = self.open(disk)?;
        if let Err(error) = append_all(file, &chunk.bytes) {
            // So that what was not confirmed is not found there either. If this fails as well, a reader knows the lines
            // by their indices, which come again in the next segment.
            let _ = file.set_len(len);
            return Err(error);
        }
        self.len += chunk.bytes.len() as u64;
        self.lines += chunk.lines;
        Ok(())
    }

    /// Ends the segment with a head that shows how many events there are.
    pub(super) fn finish(&mut self, disk: &dyn Disk, head: &Head<'_>) {
        let mut chunk = Chunk::default();
        format::write_head(&mut chunk.bytes, self.id, self.lines, head);
        // Only damage to the last lines would be counted less exactly without it.
        let _ = self.write(disk, &chunk);
    }

    /// Whether the file is still where it was made: another process may have claimed the folder.
    pub(super) fn is_in_place(&self, disk: &dyn Disk) -> bool {
        disk.stat(&self.path)
            .is_ok_and(|meta| meta.identity == self.identity)
    }

    pub(super) fn sync(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.synced < self.len {
            self.open(disk)?.sync()?;
            self.synced = self.len;
        }
        Ok(())
    }

    /// Closes the file until it is needed again.
    pub(super) fn rest(&mut self) {
        self.file = None;
    }

    pub(super) fn is_resting(&self) -> bool {
        self.file.is_none()
    }

    fn open(&mut self, disk: &dyn Disk) -> io::Result<&mut dyn DiskFile> {
        if self.file.is_none() {
            let file = disk.open(&self.path, true)?;
            let meta = file.stat()?;
            if meta.identity != self.identity || meta.len != self.len {
                return Err(io::Error::other(
                    "another file, or changed by another process",
                ));
            }
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => Ok(&mut **file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The events that have not been synced, with their indices.
    pub(super) fn unsynced(&mut self, disk: &dyn Disk) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let (id, synced, len) = (self.id, self.synced, self.len);
        let mut events = Vec::new();
        let mut reader = LineReader::new(self.open(disk)?, synced, len);
        while let Some(line) = reader.next()? {
            if let Line::Event(event) = format::parse(id, line.bytes) {
                events.push((event.index, event.json.to_owned()));
            }
        }
        Ok(events)
    }
}

/// Lines that will be written in one system call.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
    pub(super) last_index: Option<u64>,
}

impl Chunk {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lines = 0;
        self.last_index = None;
    }
}

/// Reads a file line by line, from one offset to another, with no more memory than the longest line needs.
pub(super) struct LineReader<'a> {
    file: &'a mut dyn DiskFile,
    /// What comes next in the file, and where to end.
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    /// The part of the buffer that is not read yet.
    start: usize,
    /// The line that is being read is too long to be one.
    is_too_long: bool,
}

/// One line, without its line feed.
pub(super) struct ReadLine<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the next one begins.
    pub(super) next: u64,
    /// Whether it ends with a line feed.
    pub(super) is_complete: bool,
}

impl<'a> LineReader<'a> {
    pub(super) fn new(file: &'a mut dyn DiskFile, at: u64, end: u64) -> Self {
        Self {
            file,
            at,
            end,
            buffer: Vec::new(),
            start: 0,
            is_too_long: false,
        }
    }

    #[allow(clippy::should_implement_trait, reason = "it lends its buffer")]
    pub(super) fn next(&mut self) -> io::Result<Option<ReadLine<'_>>> {
        let mut searched = self.start;
        loop {
            let found = self.buffer.get(searched..).unwrap_or_default();
            if let Some(len) = found.iter().position(|byte| *byte == b'\n') {
                let (start, end) = (self.start, searched + len);
                self.start = end + 1;
                let next = self.at - (self.buffer.len() - self.start) as u64;
                let is_too_long = core::mem::take(&mut self.is_too_long);
                let bytes = self.buffer.get(start..end).unwrap_or_default();
                return Ok(Some(ReadLine {
                    bytes: if is_too_long { &[] } else { bytes },
                    next,
                    is_complete: true,
                }));
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.len() > MAX_LINE {
                self.buffer.clear();
                self.is_too_long = true;
            }
            searched = self.buffer.len();
            if self.fill()? == 0 {
                let bytes = &self.buffer[self.start..];
                let is_rest = !bytes.is_empty() || self.is_too_long;
                self.start = self.buffer.len();
                self.is_too_long = false;
                return Ok(is_rest.then(|| ReadLine {
                    bytes: self.buffer.get(..searched).unwrap_or_default(),
                    next: self.at,
                    is_complete: false,
                }));
            }
        }
    }

    /// Reads more. What the disk cannot read becomes zeros, which no line survives.
    fn fill(&mut self) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = left.min(READ);
        let len = self.buffer.len();
        self.buffer.resize(len + wanted, 0);
        let space = self.buffer.get_mut(len..).unwrap_or_default();
        let read = match read_full(self.file, self.at, space) {
            Ok(read) => read,
            Err(_) => {
                let rest = SECTOR - (self.at % SECTOR as u64) as usize;
                let sector = wanted.min(rest);
                let space = space.get_mut(..sector).unwrap_or_default();
                match read_full(self.file, self.at, space) {
                    Ok(read) => read,
                    Err(_) => {
                        space.fill(0);
                        sector
                    }
                }
            }
        };
        self.buffer.truncate(len + read);
        self.at += read as u64;
        Ok(read)
    }
}

/// What a segment holds that another process has left.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The first intact head, with the fields before a request's events.
    pub(super) head: Option<(u64, format::Destination, Vec<u8>)>,
    /// The bytes up to the end of the last complete line.
    pub(super) len: u64,
    /// The events it had, those that are unreadable now included.
    pub(super) lines: u64,
    /// Up to here it is settled: bytes, events, and the index of the last one.
    pub(super) settled_at: u64,
    pub(super) settled: u64,
    pub(super) settled_index: Option<u64>,
    /// What is missing before that: how many events, and which indices they may have had.
    pub(super) missing: u64,
    pub(super) holes: Holes,
    /// How many events behind that have indices which an earlier segment had: they were written twice.
    pub(super) copies: u64,
    pub(super) last_index: Option<u64>,
}

/// Reads a segment to its end and counts its events. `before` is the last index in the run's earlier segments.
pub(super) fn survey(
    disk: &dyn Disk,
    path: &Path,
    id: SegmentId,
    before: impl Fn(u64) -> Option<u64>,
) -> io::Result<Survey> {
    let settled = settled_indices(disk, &done_path(path), id);
    let mut file = disk.open(path, false)?;
    let end = file.stat()?.len;
    let mut survey = Survey::default();
    let mut known_before = None;
    // Complete lines without sense, since the last one with a number.
    let mut damaged = 0;
    // What is missing between the last event that is settled and the one that is read.
    let (mut expected, mut missing, mut holes) = (0, 0, Holes::default());
    let mut reader = LineReader::new(&mut *file, 0, end);
    while let Some(line) = reader.next()? {
        if !line.is_complete {
            break;
        }
        survey.len = line.next;
        match format::parse(id, line.bytes) {
            Line::Head { n, head } => {
                survey.lines = survey.lines.max(n);
                damaged = 0;
                if survey.head.is_none() {
                    known_before = before(head.run);
                    survey.head = Some((head.run, head.to, head.fields.to_owned()));
                }
            }
            Line::Event(Event { n, index, .. }) => {
                survey.lines = survey.lines.max(n + 1);
                damaged = 0;
                if n > expected {
                    missing += n - expected;
                    holes.enter(survey.last_index, Some(index));
                }
                expected = expected.max(n + 1);
                survey.last_index = survey.last_index.max(Some(index));
                if known_before.is_some_and(|last| index <= last) {
                    survey.copies = survey.copies.max(n + 1);
                }
                if settled.contains(&index) {
                    survey.settled_at = line.next;
                    survey.settled = n + 1;
                    survey.settled_index = Some(index);
                    survey.missing += core::mem::take(&mut missing);
                    survey.holes.extend(&mut holes);
                }
            }
            Line::Damaged => damaged += u64::from(!format::looks_like_head(line.bytes)),
        }
    }
    survey.lines += damaged;
    Ok(survey)
}

/// The indices in a `.done` file whose lines are intact. None of them is believed unless the segment has such a line.
fn settled_indices(disk: &dyn Disk, path: &Path, id: SegmentId) -> BTreeSet<u64> {
    match disk.open(path, false) {
        Ok(mut file) => settled_in(&mut *file, id),
        Err(_) => BTreeSet::new(),
    }
}

/// The same, of an open file.
pub(super) fn settled_in(file: &mut dyn DiskFile, id: SegmentId) -> BTreeSet<u64> {
    /// More are never needed: the last ones count.
    const MOST: usize = 8 << 10;
    let mut indices = BTreeSet::new();
    let end = file.stat().map_or(0, |meta| meta.len);
    let mut reader = LineReader::new(file, end.saturating_sub(1 << 20), end);
    while let Ok(Some(line)) = reader.next() {
        if line.is_complete {
            indices.extend(format::parse_settled(id, line.bytes));
        }
        if indices.len() > MOST {
            indices.pop_first();
        }
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::super::std_disk::StdDisk;
    use super::super::testing::{Place, event};
    use super::*;
    use format::Destination;

    const ID: SegmentId = SegmentId(7);
    const FIELDS: &[u8] = br#"{"session_id":"s","platform":"a/b","sdk_version":"1"}"#;

    fn head() -> Head<'static> {
        Head {
            run: 0,
            to: Destination::of("test"),
            fields: FIELDS,
        }
    }

    /// A segment of `events` events, in its bytes.
    fn segment(place: &Place, events: u64) -> (PathBuf, Vec<u8>) {
        let mut writer = SegmentWriter::create(&StdDisk, place.path(), 0, ID).expect("a segment");
        let mut chunk = Chunk::default();
        for index in 0..events {
            writer.add(&mut chunk, index, event(index, 40).as_bytes(), &head());
        }
        writer.write(&StdDisk, &chunk).expect("it is written");
        let bytes = std::fs::read(&writer.path).expect("it is there");
        (writer.path, bytes)
    }

    /// The events that a reader finds, and how many lines the survey counts.
    fn read(path: &Path) -> (Vec<u64>, Survey) {
        let survey = survey(&StdDisk, path, ID, |_| None).expect("a survey");
        let mut file = StdDisk.open(path, false).expect("a file");
        let mut reader = LineReader::new(&mut *file, 0, survey.len);
        let mut found = Vec::new();
        while let Some(line) = reader.next().expect("a line") {
            if let Line::Event(read) = format::parse(ID, line.bytes) {
                assert_eq!(
                    read.json,
                    event(read.index, 40).as_bytes(),
                    "silently wrong"
                );
                found.push(read.index);
            }
        }
        (found, survey)
    }

    #[test]
    fn a_name_has_number_and_id() {
        let name = file_name(12, ID);
        assert_eq!(name, "0000000012-0000000000000007.ndjson");
        assert_eq!(parse_file_name(&name), Some((12, ID)));
        assert_eq!(parse_file_name("0000000012.ndjson"), None);
        assert_eq!(parse_file_name("0000000012-0000000000000007.done"), None);
    }

    #[test]
    fn what_was_written_is_read_and_the_head_comes_again() {
        let place = Place::new();
        let (path, bytes) = segment(&place, 2000);
        let (found, survey) = read(&path);
        assert!(found.into_iter().eq(0..2000));
        assert_eq!((survey.lines, survey.len), (2000, bytes.len() as u64));
        let heads = bytes.split(|byte| *byte == b'\n');
        let heads = heads
            .filter(|line| line.starts_with(b"{\"tinkex\""))
            .count();
        let expected = 2 + (bytes.len() - 1024) / (64 << 10);
        assert!(
            (expected - 1..=expected + 1).contains(&heads),
            "{heads} heads"
        );
    }

    #[test]
    fn a_torn_tail_costs_the_tail_and_counts_nowhere() {
        let place = Place::new();
        let (path, bytes) = segment(&place, 20);
        for len in (0..bytes.len()).rev().step_by(7) {
            std::fs::write(&path, &bytes[..len]).expect("it is written");
            let (found, survey) = read(&path);
            let whole = bytes[..len].split(|byte| *byte == b'\n').count() - 1;
            assert!(whole >= found.len() && found.iter().copied().eq(0..found.len() as u64));
            assert_eq!(survey.lines, found.len() as u64, "at {len}");
        }
    }

    #[test]
    fn flips_and_zeroed_sectors_are_counted_and_never_believed() {
        let place = Place::new();
        let (path, bytes) = segment(&place, 200);
        arbtest::arbtest(|u| {
            let mut damaged = bytes.clone();
            let is_flip = u.arbitrary::<bool>()?;
            if is_flip {
                let bit = u.int_in_range(0..=bytes.len() * 8 - 1)?;
                damaged[bit / 8] ^= 1 << (bit % 8);
            } else {
                let sector = u.int_in_range(0..=bytes.len() / 512 - 1)?;
                damaged[sector * 512..][..512].fill(0);
            }
            std::fs::write(&path, &damaged).expect("it is written");
            let (found, survey) = read(&path);
            let lost = 200 - found.len() as u64;
            assert!(lost <= if is_flip { 2 } else { 5 }, "{lost} lost");
            assert!(survey.head.is_some());
            // Only damage to the last line feeds can hide how many there were.
            assert!(survey.lines <= 200 && survey.lines + 4 >= 200);
            Ok(())
        })
        .budget_ms(1500);
    }

    #[test]
    fn done_is_believed_only_for_a_line_of_the_segment() {
        let place = Place::new();
        let (path, _) = segment(&place, 10);
        let mut done = Vec::new();
        format::write_settled(&mut done, ID, 4);
        format::write_settled(&mut done, ID, 99);
        done.extend(b"{\"i\":9,\"c\":\"00000000\"}\n{\"i\":8");
        let mut file = StdDisk.create(&done_path(&path)).expect("a file");
        append_all(&mut *file, &done).expect("it is written");
        let (_, survey) = read(&path);
        assert_eq!((survey.settled, survey.settled_index), (5, Some(4)));
    }

    #[test]
    fn events_that_were_written_twice_are_known_by_their_indices() {
        let place = Place::new();
        let (path, _) = segment(&place, 10);
        let survey = survey(&StdDisk, &path, ID, |run| (run == 0).then_some(3)).expect("a survey");
        assert_eq!((survey.copies, survey.last_index), (4, Some(9)));
    }
}
