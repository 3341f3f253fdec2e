//! Files in a spool's form for events that were received rather than logged: what `serve --keep` writes.

use super::folder::Folder;
use super::format::{Destination, Head, SegmentId};
use super::look;
use super::segment::{Chunk, SegmentWriter, size_for};
use super::std_disk::StdDisk;
use crate::sys::entropy::{Entropy, Random};
use crate::time::Timestamp;
use alloc::string::String;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// A process's folder.
pub(crate) struct Store {
    folder: Folder,
    random: Random,
    /// The number of the next file.
    next: u64,
}

/// One file with events of one run of a session.
pub(crate) struct StoredFile {
    writer: SegmentWriter,
    /// The fields before a request's events, as a JSON object.
    pub(crate) fields: String,
}

impl Store {
    /// Makes a folder of this process's own in a directory, which must exist.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        let entropy = Entropy::from_os().map_err(|_| io::Error::other("no random source"))?;
        let mut random = Random::new(entropy);
        let now = Timestamp::from(SystemTime::now());
        let folder = Folder::create(&StdDisk, &look::directory(directory), now, &mut random)?;
        Ok(Self {
            folder,
            random,
            next: 0,
        })
    }

    /// Begins another file.
    pub(crate) fn file(&mut self, fields: String) -> io::Result<StoredFile> {
        let id = SegmentId(self.random.below(u64::MAX));
        let writer = SegmentWriter::create(&StdDisk, &self.folder.path, self.next, id)?;
        self.next += 1;
        Ok(StoredFile { writer, fields })
    }

    /// Shows other hosts that this process lives.
    pub(crate) fn touch(&self) {
        self.folder.touch();
    }

    /// Leaves no folder behind without events.
    pub(crate) fn finish(&self) {
        self.folder.remove_if_empty(&StdDisk);
    }
}

impl StoredFile {
    /// Whether it is long enough: the next events go to another file.
    pub(crate) fn is_full(&self) -> bool {
        self.writer.len >= size_for(u64::MAX)
    }

    /// Appends all events or none. After an error the file has ended.
    pub(crate) fn append<'a>(
        &mut self,
        run: u64,
        events: impl Iterator<Item = (u64, &'a str)>,
    ) -> io::Result<()> {
        let head = Head {
            run,
            to: Destination::ANYWHERE,
            fields: self.fields.as_bytes(),
        };
        let mut chunk = Chunk::default();
        for (index, json) in events {
            self.writer.add(&mut chunk, index, json.as_bytes(), &head);
        }
        let written = self.writer.write(&StdDisk, &chunk);
        if written.is_err() && self.writer.len == 0 {
            // Nothing came of it.
            let _ = std::fs::remove_file(&self.writer.path);
        }
        written
    }

    /// Closes it until it is appended to again.
    pub(crate) fn rest(&mut self) {
        self.writer.rest();
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.writer.is_resting()
    }

    pub(crate) fn sync(&mut self) {
        // What is not durable against a power cut is there all the same.
        let _ = self.writer.sync(&StdDisk);
    }
}
