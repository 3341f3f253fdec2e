//! The simulated disk, as a scenario sees it.

use super::world::World;
use crate::clock::Clock as _;
use crate::features::spool::disk::Kind;
use crate::features::spool::sim::damage::Damage;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::task::Waker;
use core::time::Duration;
use std::path::{Path, PathBuf};

/// The simulated disk, which [`Env::spool`](super::Env::spool) uses. It tells what was written from what was
/// synced: [`Env::crash`](super::Env::crash) loses nothing that was written,
/// [`Env::power_cut`](super::Env::power_cut) part of what was not synced.
///
/// The faults here last until they are taken back, or until [`Env::heal`](super::Env::heal); damage remains. Those that
/// hit single operations are drawn from the seed, such as [`Fault::TornWrite`](super::Fault::TornWrite).
#[derive(Clone)]
pub struct SimDisk(pub(super) Arc<World>);

impl SimDisk {
    /// Sets whether the disk is full: nothing can be written or created.
    pub fn set_full(&self, is_full: bool) {
        let mut state = self.0.state();
        state.server.may_repeat |= is_full;
        state.drive().is_full = is_full;
    }

    /// Sets whether the disk is read-only: writes, syncs, creations, removals, renames fail.
    pub fn set_read_only(&self, is_read_only: bool) {
        let mut state = self.0.state();
        state.server.may_repeat |= is_read_only;
        state.drive().is_read_only = is_read_only;
    }

    /// The disk hangs: whatever a spool does next on it waits until this time has passed. A new call replaces the
    /// last: `ZERO` ends it.
    pub fn stall(&self, duration: Duration) {
        let mut state = self.0.state();
        state.server.may_repeat = true;
        let now = state.clock.now().as_micros();
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let drive = state.drive();
        drive.hangs_until = now.saturating_add(micros);
        let waiting = core::mem::take(&mut drive.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Changes one bit of a file that the seed picks, and returns its path; `None` if there is no file.
    pub fn flip_bit(&self) -> Option<PathBuf> {
        self.damage(Damage::BitFlip)
    }

    /// Zeros up to 512 bytes of a file that the seed picks, and returns its path; `None` if there is no file.
    pub fn zero_sector(&self) -> Option<PathBuf> {
        self.damage(Damage::ZeroedSector)
    }

    /// Makes up to 4096 bytes of some file, by seed, unreadable, and returns its path; `None` if there is no file.
    pub fn lose_sector(&self) -> Option<PathBuf> {
        self.damage(Damage::BadSector)
    }

    /// Removes a directory with all that is in it, if it is there.
    pub fn remove_dir(&self, path: impl AsRef<Path>) {
        let mut state = self.0.state();
        state.server.may_repeat = true;
        let path = absolute(path.as_ref());
        state.drive().destroy(|files| files.remove_all(&path));
    }

    /// The paths of all files, in order.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut state = self.0.state();
        let paths = state.drive().paths();
        paths.into_iter().map(|(path, _)| path).collect()
    }

    /// A file's bytes, even unreadable ones; `None` if there is none.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let mut state = self.0.state();
        let files = &mut state.drive().files;
        let id = files.find(&absolute(path.as_ref())).ok()?;
        let node = files.node(id).ok()?;
        (node.kind == Kind::File).then(|| node.data.clone())
    }

    fn damage(&self, damage: Damage) -> Option<PathBuf> {
        let mut state = self.0.state();
        state.server.may_repeat = true;
        state.drive().damage(damage)
    }
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk")
            .field("files", &self.files())
            .finish_non_exhaustive()
    }
}
