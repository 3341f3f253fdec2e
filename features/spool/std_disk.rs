//! The disk that the standard library reaches.

use super::disk::{Disk, DiskFile, Kind, Meta};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;

/// The operating system's files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StdDisk;

struct StdFile(File);

impl Disk for StdDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        #[cfg_attr(not(unix), allow(unused_mut))]
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn stat(&self, path: &Path) -> io::Result<Meta> {
        fs::symlink_metadata(path).map(|meta| meta_of(&meta))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(StdFile(options.open(path)?)))
    }

    fn open(&self, path: &Path, append: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).append(append);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags::NO_LINK_NO_WAIT);
        let before = self.stat(path)?;
        if !before.is_safe(Kind::File, None) {
            return Err(unsafe_file());
        }
        let file = options.open(path)?;
        let after = meta_of(&file.metadata()?);
        // Not what was looked at: something was put in its place meanwhile.
        if after.identity != before.identity || !after.is_safe(Kind::File, before.owner) {
            return Err(unsafe_file());
        }
        Ok(Box::new(StdFile(file)))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // Elsewhere a folder cannot be opened as a file, and its entries are as durable as they get.
        if cfg!(unix) {
            File::open(path)?.sync_all()
        } else {
            Ok(())
        }
    }
}

/// Opens a plain file to read it, whichever user owns it: nothing in it is trusted.
#[cfg(feature = "cli")]
pub(super) fn open_any(path: &Path) -> io::Result<Box<dyn DiskFile>> {
    let refused = || io::Error::other("not a plain file");
    let is_plain = |meta: &Meta| meta.kind == Kind::File;
    let before = StdDisk.stat(path)?;
    if !is_plain(&before) {
        return Err(refused());
    }
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags::NO_LINK_NO_WAIT);
    let file = options.open(path)?;
    let after = meta_of(&file.metadata()?);
    if after.identity != before.identity || !is_plain(&after) {
        return Err(refused());
    }
    Ok(Box::new(StdFile(file)))
}

fn unsafe_file() -> io::Error {
    io::Error::other("not a plain file that belongs to this user alone")
}

impl DiskFile for StdFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        return std::os::unix::fs::FileExt::read_at(&self.0, out, at);
        #[cfg(not(unix))]
        {
            use std::io::{Read as _, Seek as _};
            self.0.seek(io::SeekFrom::Start(at))?;
            self.0.read(out)
        }
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn stat(&self) -> io::Result<Meta> {
        self.0.metadata().map(|meta| meta_of(&meta))
    }

    fn try_lock(&self) -> Option<bool> {
        match self.0.try_lock() {
            Ok(()) => Some(true),
            Err(TryLockError::WouldBlock) => Some(false),
            Err(TryLockError::Error(_)) => None,
        }
    }

    fn touch(&self) -> io::Result<()> {
        self.0.set_modified(std::time::SystemTime::now())
    }
}

fn meta_of(meta: &fs::Metadata) -> Meta {
    let kind = meta.file_type();
    #[cfg(unix)]
    let (identity, owner, mode, links) = {
        use std::os::unix::fs::MetadataExt as _;
        (
            (meta.dev(), meta.ino()),
            Some(meta.uid()),
            Some(meta.mode() & 0o7777),
            meta.nlink(),
        )
    };
    #[cfg(not(unix))]
    let (identity, owner, mode, links) = ((0, 0), None, None, 1);
    Meta {
        kind: if kind.is_file() {
            Kind::File
        } else if kind.is_dir() {
            Kind::Folder
        } else {
            Kind::Other
        },
        len: meta.len(),
        modified: meta
            .modified()
            .map(Into::into)
            .unwrap_or(crate::time::Timestamp::MAX),
        identity,
        owner,
        mode,
        links,
    }
}

/// Flags of `open` that the standard library does not name. Where they are not known here, the checks before and after
/// opening remain.
#[cfg(unix)]
mod flags {
    #[cfg(all(
        any(target_os = "linux", target_os = "android"),
        any(
            target_arch = "x86",
            target_arch = "x86_64",
            target_arch = "riscv64",
            target_arch = "s390x",
            target_arch = "loongarch64"
        )
    ))]
    pub(super) const NO_LINK_NO_WAIT: i32 = 0o400_000 | 0o4_000;
    #[cfg(all(
        any(target_os = "linux", target_os = "android"),
        any(
            target_arch = "arm",
            target_arch = "aarch64",
            target_arch = "powerpc",
            target_arch = "powerpc64"
        )
    ))]
    pub(super) const NO_LINK_NO_WAIT: i32 = 0o100_000 | 0o4_000;
    #[cfg(any(
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd"
    ))]
    pub(super) const NO_LINK_NO_WAIT: i32 = 0x100 | 0x4;
    #[cfg(not(any(
        all(
            any(target_os = "linux", target_os = "android"),
            any(
                target_arch = "x86",
                target_arch = "x86_64",
                target_arch = "riscv64",
                target_arch = "s390x",
                target_arch = "loongarch64",
                target_arch = "arm",
                target_arch = "aarch64",
                target_arch = "powerpc",
                target_arch = "powerpc64"
            )
        ),
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd"
    )))]
    pub(super) const NO_LINK_NO_WAIT: i32 = 0;
}
