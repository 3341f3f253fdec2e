//! What the spool's tests share: a folder that is removed again, and events.

use super::disk::Disk as _;
use super::std_disk::StdDisk;
use alloc::format;
use alloc::string::String;
use core::sync::atomic::{AtomicU64, Ordering};
use std::path::{Path, PathBuf};

/// A folder for one test.
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("tinkex-spool-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        StdDisk.create_dir(&path).expect("a folder");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An event with this index and some data.
pub(super) fn event(index: u64, data: usize) -> String {
    let id = uuid::Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0000 + u128::from(index));
    let data = "x".repeat(data);
    format!(
        r#"{{"event_id":"{id}","event_session_index":{index},"event":"GENERIC_EVENT","event_name":"e","severity":"INFO","event_data":{{"x":"{data}"}}}}"#
    )
}
