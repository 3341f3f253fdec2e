//! The simulated disk of one process: the seam over [`Files`](super::files::Files), with faults.

use super::files::numbers;
use super::machine::{DiskFault, Machine, Simulation};
use crate::features::spool::disk::{Disk, DiskFile, Kind, Meta};
use crate::features::spool::owner::Owner;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

/// In microseconds.
const SECOND: u64 = 1_000_000;

pub(crate) struct ProcessDisk<S> {
    pub(crate) simulation: S,
    pub(crate) pid: u32,
    /// Tells the folders of this process from those of others in other simulations.
    pub(crate) holder: u64,
}

struct ProcessFile<S: Simulation> {
    simulation: S,
    pid: u32,
    id: u64,
    handle: u64,
    /// The last read has failed.
    has_failed: bool,
    /// No event is sent from it.
    is_rejected: bool,
    /// The folder that is its process's once it says so.
    lock_of: Option<(u64, PathBuf)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Read,
    Write,
    /// A write that comes in pieces.
    Append,
}

/// Begins an operation: time may pass, and others may run.
fn begin<S: Simulation>(
    simulation: &S,
    pid: u32,
    op: Op,
) -> io::Result<MutexGuard<'_, S::Machine>> {
    let dead = || io::Error::other("the process is dead");
    let mut core = simulation.machine();
    if core.is_dead(pid) {
        return Err(dead());
    }
    if core.happens(DiskFault::Killed) {
        core.kill(pid);
        return Err(dead());
    }
    let until = if op == Op::Append && core.happens(DiskFault::OwnerSleeps) {
        let until = core.now() + 3_600 * SECOND;
        core.sleep(pid, until);
        until
    } else if core.happens(DiskFault::Stalled) {
        core.now() + SECOND * (30 + core.rng().below(570))
    } else if core.happens(DiskFault::Slow) {
        core.now() + core.rng().below(5 * SECOND)
    } else {
        core.now()
    };
    let others = core.happens(DiskFault::Preempted);
    if until > core.now() || others {
        let steps = 1 + core.rng().below(6);
        drop(core);
        simulation.meanwhile(until, steps);
        core = simulation.machine();
        if core.is_dead(pid) {
            return Err(dead());
        }
    }
    if op != Op::Read && core.is_read_only() {
        return Err(io::ErrorKind::ReadOnlyFilesystem.into());
    }
    Ok(core)
}

impl<S: Simulation> ProcessDisk<S> {
    fn file(&self, core: &mut S::Machine, id: u64, path: &Path) -> ProcessFile<S> {
        ProcessFile {
            simulation: self.simulation.clone(),
            pid: self.pid,
            id,
            handle: core.next_handle(),
            has_failed: false,
            is_rejected: path.components().any(|it| it.as_os_str() == "rejected"),
            lock_of: None,
        }
    }

    fn begin(&self, op: Op) -> io::Result<MutexGuard<'_, S::Machine>> {
        begin(&self.simulation, self.pid, op)
    }
}

fn fail_if_full(core: &impl Machine) -> io::Result<()> {
    if core.is_full() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

impl<S: Simulation> Disk for ProcessDisk<S> {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut core = self.begin(Op::Write)?;
        fail_if_full(&*core)?;
        let now = core.utc();
        core.files().create(path, Kind::Folder, now)?;
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.begin(Op::Read)?.files().list(path)
    }

    fn stat(&self, path: &Path) -> io::Result<Meta> {
        let mut core = self.begin(Op::Read)?;
        let files = core.files();
        files.meta(files.find(path)?)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut core = self.begin(Op::Write)?;
        fail_if_full(&*core)?;
        let now = core.utc();
        let id = core.files().create(path, Kind::File, now)?;
        core.note(|| format!("{} creates {path:?}, file {id}", self.pid));
        let name = path.file_name().and_then(|it| it.to_str());
        let folder = path.parent().and_then(|it| core.files().find(it).ok());
        let mut file = self.file(&mut core, id, path);
        let is_lock = name.is_some_and(|name| name.starts_with("lock"));
        file.lock_of = folder
            .filter(|_| is_lock)
            .zip(path.parent().map(PathBuf::from));
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path, _append: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut core = self.begin(Op::Read)?;
        let id = core.files().find(path)?;
        if core.files().node(id)?.kind != Kind::File {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Box::new(self.file(&mut core, id, path)))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut core = self.begin(Op::Write)?;
        let now = core.utc();
        core.note(|| format!("{} removes {path:?}", self.pid));
        core.mix(6, u64::from(self.pid));
        let name = path.file_name().and_then(|it| it.to_str());
        if name.is_some_and(|name| name.starts_with("lock"))
            && let Some(folder) = path.parent().and_then(|it| core.files().find(it).ok())
        {
            // It gives the folder back: a claim's lock is its claimant's, the first one its owner's.
            let is_claim = name != Some("lock");
            let node = core.files().node(folder)?;
            node.holder = node
                .holder
                .filter(|holder| !is_claim && *holder != self.pid);
        }
        core.removes(path);
        core.files().remove(path, Kind::File, now)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut core = self.begin(Op::Write)?;
        let now = core.utc();
        core.files().remove(path, Kind::Folder, now)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut core = self.begin(Op::Write)?;
        let now = core.utc();
        let id = core.files().rename(from, to, now)?;
        core.note(|| format!("{} claims {from:?} as {to:?}", self.pid));
        core.claims(self.pid, id, to);
        core.files().node(id)?.holder = None;
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut core = self.begin(Op::Write)?;
        if core.happens(DiskFault::LostSync) {
            return core.files().pretend_to_sync_dir(path);
        }
        core.files().sync_dir(path)
    }

    fn holder(&self) -> u64 {
        self.holder
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(Path::new("/").join(path))
    }

    fn this_process(&self) -> Owner {
        self.simulation.machine().owner(self.pid)
    }

    fn started(&self, pid: u32) -> Option<String> {
        self.simulation.machine().started(self.pid, pid)
    }
}

impl<S: Simulation> ProcessFile<S> {
    fn begin(&self, op: Op) -> io::Result<MutexGuard<'_, S::Machine>> {
        begin(&self.simulation, self.pid, op)
    }

    fn try_append(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut core = self.begin(Op::Append)?;
        if core.takes_nothing() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let now = core.utc();
        let is_full = core.is_full();
        let is_torn = core.happens(DiskFault::TornWrite);
        // In pieces now and then, as an operating system may: what comes between them is an operation of its own.
        let is_short = core.rate(DiskFault::OwnerSleeps) > 0 && core.rng().below(4) == 0;
        let len = if (is_full || is_torn || is_short) && bytes.len() > 1 {
            core.rng().below(bytes.len() as u64) as usize
        } else {
            bytes.len()
        };
        if is_torn || is_full && len == 0 {
            // Some of it is there all the same.
            core.files().node(self.id)?.append(&bytes[..len], now);
            return Err(if is_full {
                io::ErrorKind::StorageFull.into()
            } else {
                io::Error::other("the write failed")
            });
        }
        let len = len.max(1);
        core.note(|| {
            let numbers = numbers(&bytes[..len]);
            let (pid, id) = (self.pid, self.id);
            format!("{pid} appends {len} bytes to file {id}, events {numbers:?}")
        });
        core.mix(5, u64::from(crc32fast::hash(&bytes[..len])));
        let node = core.files().node(self.id)?;
        node.append(&bytes[..len], now);
        if len == bytes.len() {
            node.end_write();
        }
        core.writes(self.id, self.is_rejected, numbers(&bytes[..len]));
        let node = core.files().node(self.id)?;
        if node.is_damaged {
            // Behind a line feed that is gone, or a head: it is not there for one who reads the file.
            let intact = node.intact();
            let written = numbers(bytes).into_iter();
            let gone: Vec<_> = written.filter(|number| !intact.contains(number)).collect();
            core.writes_in_vain(gone);
        }
        if let Some((folder, path)) = &self.lock_of
            && len == bytes.len()
            && core.files().find(path).is_ok_and(|found| found == *folder)
        {
            core.files().node(*folder)?.holder = Some(self.pid);
        }
        Ok(len)
    }
}

impl<S: Simulation> DiskFile for ProcessFile<S> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let appended = self.try_append(bytes);
        if appended.is_err() {
            let mut core = self.simulation.machine();
            if let Ok(node) = core.files().node(self.id) {
                node.fail_write();
            }
        }
        appended
    }

    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut core = begin(&self.simulation, self.pid, Op::Read)?;
        let is_failing = core.happens(DiskFault::ReadError);
        let node = core.files().node(self.id)?;
        let from = usize::try_from(at)
            .unwrap_or(usize::MAX)
            .min(node.data.len());
        let len = out.len().min(node.data.len() - from);
        let is_bad = node.is_bad(&(at..at + len as u64));
        // Once: the same read works the next time.
        let is_again = core::mem::take(&mut self.has_failed);
        if is_bad || (is_failing && !is_again) {
            self.has_failed = true;
            return Err(io::Error::other("the disk cannot be read here"));
        }
        let node = core.files().node(self.id)?;
        out[..len].copy_from_slice(&node.data[from..from + len]);
        Ok(len)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut core = self.begin(Op::Write)?;
        let now = core.utc();
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        core.files().node(self.id)?.set_len(len, now);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut core = self.begin(Op::Write)?;
        if core.happens(DiskFault::LostSync) {
            core.files().node(self.id)?.pretend_to_sync();
            return Ok(());
        }
        if core.happens(DiskFault::FailingSync) {
            core.files().node(self.id)?.fail_sync();
            return Err(io::Error::other("the sync failed"));
        }
        core.note(|| format!("{} syncs file {}", self.pid, self.id));
        core.files().node(self.id)?.sync();
        Ok(())
    }

    fn stat(&self) -> io::Result<Meta> {
        self.begin(Op::Read)?.files().meta(self.id)
    }

    fn try_lock(&self) -> Option<bool> {
        let Ok(mut core) = self.begin(Op::Read) else {
            return None;
        };
        let holder = core.files().node(self.id).ok()?.locked;
        let is_free = holder.is_none_or(|(pid, handle)| handle == self.handle || core.is_dead(pid));
        if is_free {
            core.files().node(self.id).ok()?.locked = Some((self.pid, self.handle));
        }
        Some(is_free)
    }

    fn touch(&self) -> io::Result<()> {
        let mut core = self.begin(Op::Write)?;
        let now = core.utc();
        core.files().node(self.id)?.modified = now;
        Ok(())
    }
}

impl<S: Simulation> Drop for ProcessFile<S> {
    fn drop(&mut self) {
        let mut core = self.simulation.machine();
        // Who lets go of its lock holds the folder no longer, even if a read-only disk keeps the lock's file.
        if let Some((folder, _)) = &self.lock_of
            && let Ok(node) = core.files().node(*folder)
        {
            node.holder = node.holder.filter(|holder| *holder != self.pid);
        }
        if let Ok(node) = core.files().node(self.id)
            && node.locked == Some((self.pid, self.handle))
        {
            node.locked = None;
        }
    }
}
