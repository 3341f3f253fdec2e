//! A disk for tests, which fails, hangs or lies as it is told.

use super::disk::{Disk, DiskFile, Meta};
use super::std_disk::StdDisk;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex};

/// A disk that fails, hangs or lies as it is told.
#[derive(Default)]
pub(super) struct BadDisk {
    /// Writes fail, with nothing or with half of it written.
    pub(super) is_full: AtomicBool,
    /// The next syncs fail.
    pub(super) bad_syncs: AtomicU64,
    /// How many writes wait.
    stalled: AtomicU64,
    /// What other threads do before each look at a file.
    pub(super) before_stat: Mutex<Option<Box<dyn Fn() + Send>>>,
    /// Writes wait until this is false.
    pub(super) is_stalled: Arc<(Mutex<bool>, Condvar)>,
}

impl BadDisk {
    /// Waits until a write does not go on.
    #[cfg(feature = "sim")]
    pub(super) fn wait_until_stalled(&self) {
        while !(*self.is_stalled.0.lock().expect("no panic")
            && self.stalled.load(Ordering::SeqCst) > 0)
        {
            std::thread::yield_now();
        }
    }

    pub(super) fn stall(&self, is_stalled: bool) {
        *self.is_stalled.0.lock().expect("no panic") = is_stalled;
        self.is_stalled.1.notify_all();
    }
}

/// See [`BadDisk`].
pub(super) struct Faulty(pub(super) Arc<BadDisk>);

struct FaultyFile(Box<dyn DiskFile>, Arc<BadDisk>);

impl Disk for Faulty {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        StdDisk.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        StdDisk.list(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Meta> {
        if let Some(before) = &*self.0.before_stat.lock().expect("no panic") {
            before();
        }
        StdDisk.stat(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = StdDisk.create(path)?;
        Ok(Box::new(FaultyFile(file, Arc::clone(&self.0))))
    }

    fn open(&self, path: &Path, append: bool) -> io::Result<Box<dyn DiskFile>> {
        let file = StdDisk.open(path, append)?;
        Ok(Box::new(FaultyFile(file, Arc::clone(&self.0))))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        StdDisk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        StdDisk.remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdDisk.rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        StdDisk.sync_dir(path)
    }
}

impl DiskFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (lock, changed) = &*self.1.is_stalled;
        let stalled = lock.lock().expect("no panic");
        self.1.stalled.fetch_add(1, Ordering::SeqCst);
        drop(changed.wait_while(stalled, |is_stalled| *is_stalled));
        self.1.stalled.fetch_sub(1, Ordering::SeqCst);
        if self.1.is_full.load(Ordering::SeqCst) && bytes.len() > 100 {
            if bytes.len() > 1000 {
                return self.0.append(&bytes[..bytes.len() / 2]);
            }
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.append(bytes)
    }

    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(at, out)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        let take = |left: u64| left.checked_sub(1);
        let bad = &self.1.bad_syncs;
        if bad
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_ok()
        {
            return Err(io::Error::other("the test's sync"));
        }
        self.0.sync()
    }

    fn stat(&self) -> io::Result<Meta> {
        self.0.stat()
    }

    fn try_lock(&self) -> Option<bool> {
        self.0.try_lock()
    }

    fn touch(&self) -> io::Result<()> {
        self.0.touch()
    }
}
