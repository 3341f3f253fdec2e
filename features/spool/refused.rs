//! The folder `rejected`: single events that the server refuses, and files without an intact head, for a person to look
//! at.

use super::disk::{Disk, Kind, append_all, read_full};
use super::folder::{Directory, REJECTED};
use super::format::{Destination, Head, SegmentId};
use super::segment::{Chunk, SegmentWriter};
use crate::sys::entropy::Random;
use alloc::borrow::ToOwned as _;
use alloc::vec::Vec;
use std::io;
use std::path::{Path, PathBuf};

/// Writes to the folder. The files have the form of segments.
#[derive(Default)]
pub(super) struct Refused {
    /// What was durable where it was must be so here, too.
    pub(super) must_sync: bool,
    /// The open file, and the fields before a request's events that its heads have.
    open: Option<(SegmentWriter, Vec<u8>)>,
}

impl Refused {
    /// Keeps an event. `fields` is the body of its request up to the event.
    #[allow(clippy::too_many_arguments, reason = "named at the one call")]
    pub(super) fn keep(
        &mut self,
        disk: &dyn Disk,
        directory: &Directory,
        to: Destination,
        fields: &[u8],
        index: u64,
        event: &[u8],
        max_bytes: u64,
        random: &mut Random,
    ) -> io::Result<()> {
        let mut own = fields
            .strip_suffix(br#","events":["#)
            .unwrap_or(fields)
            .to_owned();
        own.push(b'}');
        let folder = folder(disk, directory)?;
        let mut chunk = Chunk::default();
        let size = super::segment::size_for(max_bytes);
        if let Some((open, fields)) = &self.open
            && (*fields != own || !open.has_room(&chunk, event.len(), size))
        {
            self.open = None;
        }
        if self.open.is_none() {
            make_room(disk, &folder, max_bytes)?;
            let id = SegmentId(random.below(u64::MAX));
            let number = next_number(disk, &folder)?;
            self.open = Some((SegmentWriter::create(disk, &folder, number, id)?, own));
        }
        let Some((open, fields)) = &mut self.open else {
            return Ok(());
        };
        let head = Head { run: 0, to, fields };
        open.add(&mut chunk, index, event, &head);
        let mut written = open.write(disk, &chunk);
        if self.must_sync && written.is_ok() {
            written = open
                .sync(disk)
                .and_then(|()| disk.sync_dir(&folder))
                .and_then(|()| directory.sync(disk));
        }
        if written.is_err() {
            self.open = None;
        }
        written
    }

    /// Removes everything. Returns whether nothing is left.
    pub(super) fn discard(&mut self, disk: &dyn Disk, directory: &Directory) -> bool {
        self.open = None;
        let path = directory.path.join(REJECTED);
        match disk.stat(&path) {
            Err(error) => return error.kind() == io::ErrorKind::NotFound,
            // Not this spool's.
            Ok(meta) if !meta.is_safe(Kind::Folder, directory.owner) => return true,
            Ok(_) => {}
        }
        let Ok(names) = files(disk, &path) else {
            return false;
        };
        let mut is_all = true;
        for name in names {
            is_all &= disk.remove_file(&path.join(name)).is_ok();
        }
        is_all
    }

    /// Keeps a copy of a file as it is.
    pub(super) fn keep_file(
        &mut self,
        disk: &dyn Disk,
        directory: &Directory,
        path: &Path,
    ) -> io::Result<()> {
        let folder = folder(disk, directory)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut from = disk.open(path, false)?;
        let mut to = disk.create(&folder.join(name))?;
        let mut buffer = alloc::vec![0; 64 << 10];
        let mut at = 0;
        loop {
            let read = read_full(&mut *from, at, &mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            append_all(&mut *to, buffer.get(..read).unwrap_or_default())?;
            at += read as u64;
        }
    }
}

fn folder(disk: &dyn Disk, directory: &Directory) -> io::Result<PathBuf> {
    let path = directory.path.join(REJECTED);
    match disk.create_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    if !disk.stat(&path)?.is_safe(Kind::Folder, directory.owner) {
        return Err(io::Error::other(
            "`rejected` is not a folder of this user's alone",
        ));
    }
    Ok(path)
}

/// The files in the folder, in the order in which they go.
fn files(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<alloc::string::String>> {
    let mut names = disk.list(folder)?;
    names.sort();
    Ok(names)
}

fn next_number(disk: &dyn Disk, folder: &Path) -> io::Result<u64> {
    let names = files(disk, folder)?;
    let numbers = names
        .iter()
        .filter_map(|name| super::segment::parse_file_name(name));
    Ok(numbers.map(|(number, _)| number + 1).max().unwrap_or(0))
}

/// Removes the oldest files until the others have less than `max_bytes`.
fn make_room(disk: &dyn Disk, folder: &Path, max_bytes: u64) -> io::Result<()> {
    let files = files(disk, folder)?;
    let len = |name: &alloc::string::String| disk.stat(&folder.join(name)).map_or(0, |it| it.len);
    let mut total: u64 = files.iter().map(len).sum();
    for name in &files {
        if total < max_bytes {
            break;
        }
        total -= len(name);
        disk.remove_file(&folder.join(name))?;
    }
    Ok(())
}
