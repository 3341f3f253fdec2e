//! Folders: the directory and what is checked before it is trusted, a process's own folder in it, and how the folder of
//! a process that has ended is claimed.

#[cfg(feature = "cli")]
use super::calendar;
use super::disk::{Disk, DiskFile, Kind, append_all, read_full};
use super::error::SpoolError;
use super::owner::{Life, Owner};
#[cfg(feature = "cli")]
use super::std_disk::StdDisk;
use crate::sys::entropy::Random;
use crate::sys::fork::PerProcess;
use crate::time::Timestamp;
use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What `README` in the directory says.
const README: &str = "Telemetry events of tinkex-telemetry that are still to be sent. The next program that opens this \
directory as its spool sends them, and so does: tinkex-telemetry send <this directory>\n";

/// The name of the folder for events that the backend has refused.
pub(super) const REJECTED: &str = "rejected";

/// The directory of a spool, checked.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// The user that this process's files belong to.
    pub(super) owner: Option<u32>,
    /// The directories whose entries must be durable for it to be so: the one around it, and those above that are new.
    parents: Vec<PathBuf>,
    is_durable: Arc<AtomicBool>,
}

impl Directory {
    /// Creates the directory if need be, and refuses one that another user could interfere with.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        random: &mut Random,
    ) -> Result<Self, SpoolError> {
        let failed = |error| SpoolError::disk(path, error);
        // Another process may have made it a moment ago.
        let mut parents: Vec<_> = path.parent().map(Path::to_owned).into_iter().collect();
        create_all(disk, path, &mut parents).map_err(failed)?;
        let meta = disk.stat(path).map_err(failed)?;
        let refused = |what| Err(SpoolError::unsafe_directory(path, what));
        if meta.kind != Kind::Folder {
            return refused("it is not a directory");
        }
        if meta.mode.is_some_and(|mode| mode & 0o022 != 0) {
            return refused("other users may write to it: chmod 700 it");
        }
        if let Some(parent) = path.parent() {
            let mode = disk.stat(parent).map_err(failed)?.mode.unwrap_or(0);
            if mode & 0o002 != 0 && mode & 0o1000 == 0 {
                return refused(
                    "other users may write to the directory around it, which has no sticky bit",
                );
            }
        }
        // Whose files this process makes is seen from one that it has made.
        let probe = path.join(format!(".probe-{:08x}", random.below(1 << 32)));
        let owner = disk.create(&probe).and_then(|file| file.stat());
        let _ = disk.remove_file(&probe);
        let owner = owner.map_err(failed)?.owner;
        if owner != meta.owner {
            return refused("it belongs to another user");
        }
        let readme = path.join("README");
        if disk.stat(&readme).is_err()
            && let Ok(mut file) = disk.create(&readme)
        {
            // Only an explanation: a full disk may do without.
            let _ = append_all(&mut *file, README.as_bytes());
        }
        Ok(Self {
            path: path.to_owned(),
            owner,
            parents,
            is_durable: Arc::default(),
        })
    }

    /// One that is known to be safe.
    #[cfg(feature = "cli")]
    pub(super) fn known(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            owner: None,
            parents: Vec::new(),
            is_durable: Arc::default(),
        }
    }

    /// It may be another one than before, which another process has made: its own entry is to be synced again.
    pub(super) fn doubt(&self) {
        self.is_durable.store(false, Ordering::Relaxed);
    }

    /// Makes its entries durable, and once its own.
    pub(super) fn sync(&self, disk: &dyn Disk) -> io::Result<()> {
        if !self.is_durable.load(Ordering::Relaxed) {
            for parent in &self.parents {
                match disk.sync_dir(parent) {
                    // It need not be this user's.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    synced => synced?,
                }
            }
            self.is_durable.store(true, Ordering::Relaxed);
        }
        disk.sync_dir(&self.path)
    }
}

/// Creates a directory and those around it, and notes in which ones.
fn create_all(disk: &dyn Disk, path: &Path, parents: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut created = disk.create_dir(path);
    if let Err(error) = &created
        && error.kind() == io::ErrorKind::NotFound
        && let Some(parent) = path.parent()
    {
        create_all(disk, parent, parents)?;
        created = disk.create_dir(path);
    }
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Ok(()) => {
            parents.extend(path.parent().map(Path::to_owned));
            Ok(())
        }
        failed => failed,
    }
}

/// The folder of one process, whose lock this process holds.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// When it was made, in microseconds since the epoch, and a number: folders are in this order.
    pub(super) order: (u64, u64),
    lock: Box<dyn DiskFile>,
    registered: Registered,
    /// Whether the process that made it is known to have ended: nothing is appended any more.
    pub(super) is_final: bool,
}

impl Folder {
    /// Makes a folder for this process.
    pub(super) fn create(
        disk: &dyn Disk,
        directory: &Directory,
        now: Timestamp,
        random: &mut Random,
    ) -> io::Result<Self> {
        let (micros, salt) = (now.as_unix_micros(), random.below(1 << 32));
        let path = directory.path.join(format!("{micros:016}-{salt:08x}"));
        let registered = Registered::new(disk, &path);
        disk.create_dir(&path)?;
        let lock_path = path.join("lock");
        let lock = lock(disk, &lock_path).inspect_err(|_| {
            let _ = disk.remove_file(&lock_path);
            let _ = disk.remove_dir(&path);
        })?;
        Ok(Self {
            path,
            order: (micros, salt),
            lock,
            registered,
            is_final: true,
        })
    }

    /// Shows other hosts that this process lives.
    pub(super) fn touch(&self) {
        // At worst another host claims the folder, which is noticed.
        let _ = self.lock.touch();
    }

    /// Gives the folder back, with what is in it: the next claimant need not wait for this process.
    pub(super) fn release(&self, disk: &dyn Disk) {
        if let Some((_, salt)) = self
            .path
            .file_name()
            .and_then(|it| parse_name(it.to_str()?))
        {
            let _ = disk.remove_file(&self.path.join(format!("lock-{salt:08x}")));
        }
    }

    /// Removes the folder if nothing but its lock is left in it.
    pub(super) fn remove_if_empty(&self, disk: &dyn Disk) -> bool {
        let Ok(names) = disk.list(&self.path) else {
            return false;
        };
        if !names.iter().all(|name| name.starts_with("lock")) {
            return false;
        }
        for name in names {
            let _ = disk.remove_file(&self.path.join(name));
        }
        disk.remove_dir(&self.path).is_ok()
    }
}

fn lock(disk: &dyn Disk, path: &Path) -> io::Result<Box<dyn DiskFile>> {
    let mut file = disk.create(path)?;
    // Where there are no locks, what the file says decides.
    let _ = file.try_lock();
    append_all(&mut *file, disk.this_process().to_line().as_bytes())?;
    Ok(file)
}

/// What became of an attempt to claim a folder.
pub(super) enum Claim {
    Taken(Folder),
    /// This process holds it: the writer may have made it a moment ago.
    Own,
    /// Its owner is alive, or may be.
    Alive,
    /// It is not a process's folder, or not safe to read.
    Foreign,
}

/// Claims the folder of this name, if its owner has ended.
pub(super) fn claim(
    disk: &dyn Disk,
    directory: &Directory,
    name: &str,
    mut is_recent: impl FnMut(&Path, Timestamp) -> bool,
    random: &mut Random,
) -> io::Result<Claim> {
    let Some((micros, salt)) = parse_name(name) else {
        return Ok(Claim::Foreign);
    };
    let path = directory.path.join(name);
    if is_registered(disk, &path) {
        return Ok(Claim::Own);
    }
    let meta = disk.stat(&path)?;
    if !meta.is_safe(Kind::Folder, directory.owner) {
        return Ok(Claim::Foreign);
    }
    let own_lock = path.join(format!("lock-{salt:08x}"));
    let lock_path = match disk.stat(&own_lock) {
        Ok(_) => own_lock,
        Err(_) => path.join("lock"),
    };
    let mut is_final = false;
    // Held until the folder has its new name.
    let mut held = None;
    match disk.open(&lock_path, true) {
        Ok(mut file) => {
            let locked = file.try_lock();
            let mut text = [0; 1024];
            // One that cannot be read says no more than a damaged one.
            let len = read_full(&mut *file, 0, &mut text).unwrap_or(0);
            let owner = Owner::parse(text.get(..len).unwrap_or_default());
            if owner.is_none() && locked == Some(false) {
                // Damaged, and someone has it: its owner, or a child that will end, too.
                return Ok(Claim::Alive);
            }
            let state = owner.map_or(Life::Unknown, |owner| owner.life(disk));
            let touched = file.stat()?.modified;
            match state {
                Life::Alive => return Ok(Claim::Alive),
                Life::Ended => is_final = true,
                // The lock is the owner's until it ends, unless there are no locks or a child has inherited it.
                Life::Unknown if cfg!(not(target_os = "linux")) => match locked {
                    Some(true) => {}
                    Some(false) => return Ok(Claim::Alive),
                    None if is_recent(&path, touched) => return Ok(Claim::Alive),
                    None => {}
                },
                Life::Unknown if is_recent(&path, touched) => return Ok(Claim::Alive),
                Life::Unknown => {}
            }
            held = Some(file);
        }
        // Whoever makes a folder makes its lock at once.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if is_recent(&path, meta.modified) {
                return Ok(Claim::Alive);
            }
        }
        Err(_) => return Ok(Claim::Foreign),
    }
    take(disk, directory, &path, micros, random, is_final).map(|folder| {
        drop(held);
        folder.map_or(Claim::Alive, Claim::Taken)
    })
}

/// Gives the folder its new name, which only one claimant can, and a new lock.
fn take(
    disk: &dyn Disk,
    directory: &Directory,
    path: &Path,
    micros: u64,
    random: &mut Random,
    is_final: bool,
) -> io::Result<Option<Folder>> {
    let salt = random.below(1 << 32);
    // A folder with open files cannot be renamed on Windows: there the lock alone decides.
    let new = if cfg!(windows) {
        path.to_owned()
    } else {
        directory.path.join(format!("{micros:016}-{salt:08x}"))
    };
    let registered = Registered::new(disk, &new);
    if new != path && disk.rename(path, &new).is_err() {
        return Ok(None);
    }
    let lock_path = new.join(format!("lock-{salt:08x}"));
    let lock = lock(disk, &lock_path)?;
    Ok(Some(Folder {
        path: new,
        order: (micros, salt),
        lock,
        registered,
        is_final,
    }))
}

/// The time and the number in a folder's name.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (micros, salt) = name.split_once('-')?;
    let is_name = micros.len() == 16
        && micros.bytes().all(|byte| byte.is_ascii_digit())
        && salt.len() == 8
        && salt
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_name {
        return None;
    }
    Some((micros.parse().ok()?, u64::from_str_radix(salt, 16).ok()?))
}

/// The folders that this process holds, by path: its own locks do not keep it out. A forked child holds none of them, and
/// never takes a lock that another thread may have held at the fork.
static HELD: PerProcess<Mutex<Vec<Held>>> = PerProcess::new();

fn held() -> MutexGuard<'static, Vec<Held>> {
    let held = HELD.get_or_init(Mutex::default);
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which process holds which folder.
type Held = (u64, PathBuf);

/// An entry in [`HELD`].
struct Registered(u64, PathBuf);

impl Registered {
    fn new(disk: &dyn Disk, path: &Path) -> Self {
        let holder = disk.holder();
        held().push((holder, path.to_owned()));
        Self(holder, path.to_owned())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut held = held();
        let is_this = |(holder, path): &Held| *path == self.1 && *holder == self.0;
        if let Some(at) = held.iter().position(is_this) {
            held.swap_remove(at);
        }
    }
}

/// Whether this process holds a folder in this directory.
#[cfg(test)]
pub(super) fn holds_any(directory: &Path) -> bool {
    held().iter().any(|(_, path)| path.starts_with(directory))
}

fn is_registered(disk: &dyn Disk, path: &Path) -> bool {
    let this = disk.holder();
    held()
        .iter()
        .any(|(holder, other)| other == path && *holder == this)
}

impl core::fmt::Debug for Folder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Folder").field(&self.registered.1).finish()
    }
}

/// Whether a folder has a name that a spool gives.
#[cfg(feature = "cli")]
pub(super) fn is_name(name: &str) -> bool {
    parse_name(name).is_some()
}

/// The last part of a folder's name, which its claimant's lock has, too.
#[cfg(feature = "cli")]
pub(super) fn salt(path: &Path) -> Option<&str> {
    Some(path.file_name()?.to_str()?.split_once('-')?.1)
}

/// Whether the process of a folder lives, or may, as far as its lock tells, which was touched at this time.
#[cfg(feature = "cli")]
pub(super) fn is_alive(lock: &[u8], touched: Timestamp, now: Timestamp) -> bool {
    match Owner::parse(lock).map_or(Life::Unknown, |owner| owner.life(&StdDisk)) {
        Life::Alive => true,
        Life::Ended => false,
        Life::Unknown => now.saturating_duration_since(touched) < calendar::STALE,
    }
}

#[cfg(test)]
mod tests {
    use super::super::std_disk::StdDisk;
    use super::super::testing::Place;
    use super::*;
    use crate::sys::entropy::Entropy;

    #[test]
    fn a_folder_that_this_process_holds_is_no_other_processs() {
        let place = Place::new();
        let mut random = Random::new(Entropy::new([1; 32]));
        let directory = Directory::open(&StdDisk, place.path(), &mut random).expect("a directory");
        let now = Timestamp::from_unix_micros(1_764_153_045_123_456);
        let folder = Folder::create(&StdDisk, &directory, now, &mut random).expect("a folder");
        let name = folder.path.file_name().and_then(|it| it.to_str());
        let name = name.expect("a name").to_owned();
        let mut claim = || claim(&StdDisk, &directory, &name, |_, _| true, &mut random);
        assert!(matches!(claim(), Ok(Claim::Own)));
        drop(folder);
        if cfg!(target_os = "linux") {
            assert!(matches!(claim(), Ok(Claim::Taken(_))));
        }
    }

    #[test]
    fn only_names_of_folders_are_names_of_folders() {
        assert_eq!(
            parse_name("1764153045123456-0000001e"),
            Some((1_764_153_045_123_456, 30))
        );
        for bad in [
            "rejected",
            "1764153045123456-1e",
            "..",
            "176415304512345x-0000001e",
            "+764153045123456-0000001e",
        ] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
