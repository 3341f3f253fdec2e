//! A look at a spool's directory from outside: what it holds, without claiming, changing or believing anything. The
//! program's `ls`, `cat` and `send` are made of it.

use super::disk::{Disk as _, DiskFile, Kind, Meta, append_all};
use super::folder::{self, Directory, REJECTED};
pub(crate) use super::format::Destination;
use super::format::{self, Line, SegmentId};
use super::segment::{self, LineReader, done_path, parse_file_name};
use super::std_disk::{self, StdDisk};
use crate::time::Timestamp;
use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a directory holds.
#[derive(Debug)]
pub(crate) struct Look {
    /// Whether the directory was one of the folders below a spool.
    pub(crate) is_folder: bool,
    /// Whether other users can have changed it.
    pub(crate) is_safe: bool,
    /// In the order in which they were made.
    pub(crate) folders: Vec<Folder>,
    /// What is there and is none of a spool's, with the reason.
    pub(crate) strange: Vec<(PathBuf, &'static str)>,
}

/// The folder of one process.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) segments: Vec<Segment>,
}

/// Who sends what is in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The process lives.
    Alive,
    /// It has ended: the next spool in this directory.
    Ended,
    /// No one: a backend has refused these events.
    Rejected,
}

/// One file with events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) id: SegmentId,
    /// Whether it is this user's, and no other user can have changed it.
    pub(crate) is_safe: bool,
}

/// What a segment's head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) session: String,
    pub(crate) to: Destination,
    /// The fields before a request's events, as a JSON object.
    pub(crate) fields: String,
}

/// How much a segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Events that are intact, and how many of them are settled.
    pub(crate) events: u64,
    pub(crate) settled: u64,
    /// Events that cannot be read any more.
    pub(crate) damaged: u64,
    pub(crate) bytes: u64,
    /// It ends in the middle of a line, which was never confirmed.
    pub(crate) is_torn: bool,
}

/// A line of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    Head(Whose),
    Event { index: u64, json: &'a str },
    Damaged,
}

impl Look {
    /// Looks into a spool's directory, or into one of its folders.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let owner = own_user();
        let mut names = StdDisk.list(&path)?;
        names.sort();
        let meta = StdDisk.stat(&path)?;
        let mut look = Self {
            is_folder: names.iter().any(|name| parse_file_name(name).is_some()),
            is_safe: meta.mode.is_none_or(|mode| mode & 0o022 == 0)
                && (owner.is_none() || meta.owner == owner),
            folders: Vec::new(),
            strange: Vec::new(),
        };
        if look.is_folder {
            look.enter(&path, meta, owner);
            return Ok(look);
        }
        for name in names {
            let inner = path.join(&name);
            let is_folder = folder::is_name(&name) || name == REJECTED;
            match StdDisk.stat(&inner) {
                Ok(meta) if is_folder && meta.kind == Kind::Folder => {
                    look.enter(&inner, meta, owner)
                }
                Ok(_) if name == "README" || name.starts_with(".probe-") => {}
                Ok(_) => look
                    .strange
                    .push((inner, "is none of a spool's, and is left alone")),
                // Gone meanwhile.
                Err(_) => {}
            }
        }
        Ok(look)
    }

    fn enter(&mut self, path: &Path, meta: Meta, owner: Option<u32>) {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let Ok(mut names) = StdDisk.list(path) else {
            self.strange.push((path.to_owned(), "cannot be read"));
            return;
        };
        names.sort();
        let is_safe = self.is_safe && meta.is_safe(Kind::Folder, owner);
        let mut segments = Vec::new();
        for name in &names {
            let file = path.join(name);
            let Ok(meta) = StdDisk.stat(&file) else {
                continue;
            };
            let is_plain = meta.kind == Kind::File && meta.links <= 1;
            match parse_file_name(name) {
                Some((_, id)) if is_plain => segments.push(Segment {
                    is_safe: is_safe && meta.is_safe(Kind::File, owner),
                    path: file,
                    id,
                }),
                Some(_) => self
                    .strange
                    .push((file, "is a link or no file, and is not opened")),
                None if name.starts_with("lock") || name.ends_with(".done") => {}
                None => self
                    .strange
                    .push((file, "is none of a spool's, and is left alone")),
            }
        }
        let state = match name == REJECTED {
            true => State::Rejected,
            false if is_alive(path, &names, meta) => State::Alive,
            false => State::Ended,
        };
        self.folders.push(Folder {
            name,
            state,
            segments,
        });
    }
}

/// Whether the process of a folder lives, by its lock.
fn is_alive(path: &Path, names: &[String], meta: Meta) -> bool {
    let now = Timestamp::from(SystemTime::now());
    // A claimant's lock counts more than that of the process whose folder it was.
    let own = folder::salt(path).map(|salt| format!("lock-{salt}"));
    let own = own.filter(|own| names.contains(own));
    let opened = std_disk::open_any(&path.join(own.as_deref().unwrap_or("lock")));
    let (mut text, mut len, mut touched) = ([0; 1024], 0, meta.modified);
    if let Ok(mut file) = opened {
        len = super::disk::read_full(&mut *file, 0, &mut text).unwrap_or(0);
        touched = file.stat().map_or(touched, |meta| meta.modified);
    }
    folder::is_alive(text.get(..len).unwrap_or_default(), touched, now)
}

/// The user that this process's files belong to, where that can be told without making one.
fn own_user() -> Option<u32> {
    StdDisk.stat(Path::new("/proc/self")).ok()?.owner
}

/// A segment that is read.
pub(crate) struct Reader {
    file: Box<dyn DiskFile>,
    id: SegmentId,
    /// The first intact head: any copy serves.
    pub(crate) whose: Option<Whose>,
    /// Up to here it is read, in bytes.
    pub(crate) at: u64,
}

impl Reader {
    /// Opens a segment, whichever user owns it: a plain file only.
    pub(crate) fn open(segment: &Segment) -> io::Result<Self> {
        let mut reader = Self {
            file: std_disk::open_any(&segment.path)?,
            id: segment.id,
            whose: None,
            at: 0,
        };
        let mut whose = None;
        reader.read(|found| {
            if let Found::Head(head) = found {
                whose = Some(head);
            }
            whose.is_none()
        })?;
        (reader.whose, reader.at) = (whose, 0);
        Ok(reader)
    }

    /// Gives the complete lines to `each`, until that returns false. Returns whether the file ends with one.
    pub(crate) fn read(&mut self, mut each: impl FnMut(Found<'_>) -> bool) -> io::Result<bool> {
        let end = self.file.stat()?.len;
        let mut lines = LineReader::new(&mut *self.file, self.at, end);
        while let Some(line) = lines.next()? {
            if !line.is_complete {
                return Ok(false);
            }
            self.at = line.next;
            if !each(found(format::parse(self.id, line.bytes))) {
                break;
            }
        }
        Ok(true)
    }

    /// Counts what there is.
    pub(crate) fn tally(&mut self, segment: &Segment) -> io::Result<Tally> {
        let end = self.file.stat()?.len;
        let settled = settled(segment);
        let mut tally = Tally {
            bytes: end,
            ..Tally::default()
        };
        let (mut lines, mut trailing) = (0, 0);
        let mut reader = LineReader::new(&mut *self.file, 0, end);
        while let Some(line) = reader.next()? {
            if !line.is_complete {
                tally.is_torn = true;
                break;
            }
            match format::parse(self.id, line.bytes) {
                Line::Head { n, .. } => (lines, trailing) = (lines.max(n), 0),
                Line::Event(event) => {
                    (lines, trailing) = (lines.max(event.n.saturating_add(1)), 0);
                    tally.events += 1;
                    if settled.contains(&event.index) {
                        tally.settled = tally.events;
                    }
                }
                Line::Damaged => trailing += u64::from(!format::looks_like_head(line.bytes)),
            }
        }
        tally.damaged = (lines + trailing).saturating_sub(tally.events);
        Ok(tally)
    }
}

fn found(line: Line<'_>) -> Found<'_> {
    match line {
        Line::Head { head, .. } => {
            let fields = core::str::from_utf8(head.fields).ok();
            let session = format::session_id(head.fields);
            match (fields, session) {
                (Some(fields), Some(session)) => Found::Head(Whose {
                    session,
                    to: head.to,
                    fields: fields.to_owned(),
                }),
                _ => Found::Damaged,
            }
        }
        Line::Event(event) => match core::str::from_utf8(event.json) {
            Ok(json) => Found::Event {
                index: event.index,
                json,
            },
            Err(_) => Found::Damaged,
        },
        Line::Damaged => Found::Damaged,
    }
}

/// Reads lines without the name of their file, which the first head makes up for.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    id: Option<SegmentId>,
}

impl Lines {
    pub(crate) fn parse<'a>(&mut self, line: &'a [u8]) -> Found<'a> {
        let id = format::segment_of_head(line);
        if let Some(id) = id
            && let head @ Found::Head(_) = found(format::parse(id, line))
        {
            self.id = Some(id);
            return head;
        }
        match self.id {
            Some(id) => found(format::parse(id, line)),
            None => Found::Damaged,
        }
    }
}

/// The indices up to which a segment is settled, as far as its notes are intact.
fn settled(segment: &Segment) -> alloc::collections::BTreeSet<u64> {
    match std_disk::open_any(&done_path(&segment.path)) {
        Ok(mut file) => segment::settled_in(&mut *file, segment.id),
        Err(_) => alloc::collections::BTreeSet::new(),
    }
}

impl Segment {
    /// The index up to which it is settled.
    pub(crate) fn settled(&self) -> Option<u64> {
        settled(self).last().copied()
    }

    /// Notes that its events are settled up to this index.
    pub(crate) fn settle(&self, index: u64) -> io::Result<()> {
        let path = done_path(&self.path);
        let mut file = match StdDisk.open(&path, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => StdDisk.create(&path)?,
            opened => opened?,
        };
        let mut line = Vec::new();
        format::write_settled(&mut line, self.id, index);
        append_all(&mut *file, &line)?;
        // A process that lives may have removed its segment meanwhile, and would find its folder not empty.
        if StdDisk.stat(&self.path).is_err() {
            let _ = StdDisk.remove_file(&path);
        }
        Ok(())
    }

    /// Removes it, and its notes.
    pub(crate) fn remove(&self) -> io::Result<()> {
        StdDisk.remove_file(&self.path)?;
        let _ = StdDisk.remove_file(&done_path(&self.path));
        Ok(())
    }
}

/// A spool's directory that no other user can interfere with, as [`Directory::open`] checks it; made by `serve --keep`.
pub(super) fn directory(path: &Path) -> Directory {
    Directory::known(path)
}
