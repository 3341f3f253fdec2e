//! The seam between the spool and its files: what it asks of a disk, so that another one can stand in for it.

use super::owner::{self, Owner};
use crate::time::Timestamp;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use std::io;
use std::path::{Path, PathBuf};

/// A file system, as far as the spool uses it. No method follows a link, and none waits for a FIFO.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Creates a folder that belongs to this user alone.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, in no order. Names that are not UTF-8 are left out.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// What is there.
    fn stat(&self, path: &Path) -> io::Result<Meta>;

    /// Creates a file that belongs to this user alone and must not exist yet, to append to it.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that passes [`Meta::is_safe`], to read it or, if asked, to append to it.
    fn open(&self, path: &Path, append: bool) -> io::Result<Box<dyn DiskFile>>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the entries of a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Who holds the folders of the process that uses the disk: another number for each process.
    fn holder(&self) -> u64 {
        std::process::id().into()
    }

    /// The path of a directory, whatever links lead to it and wherever the program goes.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        match path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path),
            path => path,
        }
    }

    /// The same, as a lock names it.
    fn this_process(&self) -> Owner {
        Owner::this_process()
    }

    /// When a process of this host that lives has started.
    fn started(&self, pid: u32) -> Option<String> {
        owner::start_of(pid)
    }
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    /// Appends some of the bytes, in one system call, and returns how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;

    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize>;

    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Makes the file's content durable.
    fn sync(&mut self) -> io::Result<()>;

    fn stat(&self) -> io::Result<Meta>;

    /// Takes the file's lock, which ends with the handle. `None` where the file system has no locks.
    fn try_lock(&self) -> Option<bool>;

    /// Sets the time of the last change to now.
    fn touch(&self) -> io::Result<()>;
}

/// What a path or a handle leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) len: u64,
    pub(crate) modified: Timestamp,
    /// Tells two files of one file system apart; always the same where there is no such number.
    pub(crate) identity: (u64, u64),
    /// The user it belongs to; `None` where users have no numbers.
    pub(crate) owner: Option<u32>,
    /// Permissions, as Unix has them.
    pub(crate) mode: Option<u32>,
    pub(crate) links: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A link, a FIFO, a device.
    Other,
}

impl Meta {
    /// Whether it is a file or a folder that no other user can have changed or made: the user's own (that of `owner`, if
    /// that is known), open to no one else, and a file under one name only.
    pub(crate) fn is_safe(&self, kind: Kind, owner: Option<u32>) -> bool {
        self.kind == kind
            && self.mode.is_none_or(|mode| mode & 0o077 == 0)
            && (owner.is_none() || self.owner.is_none() || self.owner == owner)
            && (kind == Kind::Folder || self.links <= 1)
    }
}

/// Reads up to `out.len()` bytes; fewer only at the end of the file.
pub(crate) fn read_full(file: &mut dyn DiskFile, at: u64, out: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < out.len() {
        match file.read_at(at + read as u64, &mut out[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Appends all bytes.
pub(crate) fn append_all(file: &mut dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
