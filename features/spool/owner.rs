//! Owners: which process a lock belongs to, and whether it is alive.

use super::disk::Disk;
use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use serde_json::Value;

/// The process that a lock belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Host, boot and the namespace of process ids. Empty where they are unknown.
    pub(crate) place: String,
    pub(crate) pid: u32,
    /// When the process started, as the operating system counts.
    pub(crate) start: String,
}

/// Whether a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    Ended,
    /// It belongs to another host or boot, or this system does not tell.
    Unknown,
}

impl Owner {
    pub(super) fn this_process() -> Self {
        let pid = std::process::id();
        Self {
            place: place(),
            pid,
            start: start_of(pid).unwrap_or_default(),
        }
    }

    pub(super) fn to_line(&self) -> String {
        let Self { place, pid, start } = self;
        format!(
            "{}\n",
            serde_json::json!({"host": place, "pid": pid, "start": start, "c": self.checksum()})
        )
    }

    /// A lock that is damaged must not name another process, which has ended.
    fn checksum(&self) -> String {
        let Self { place, pid, start } = self;
        let all = format!("{place}\n{pid}\n{start}");
        format!("{:08x}", crc32fast::hash(all.as_bytes()))
    }

    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(line).ok()?;
        let owner = Self {
            place: value["host"].as_str()?.to_owned(),
            pid: value["pid"].as_u64()?.try_into().ok()?,
            start: value["start"].as_str()?.to_owned(),
        };
        (value["c"].as_str()? == owner.checksum()).then_some(owner)
    }

    /// Whether it lives, as far as the process can tell that `disk` belongs to.
    pub(super) fn life(&self, disk: &dyn Disk) -> Life {
        let this = disk.this_process();
        if this.place.is_empty() || self.place != this.place || self.start.is_empty() {
            return Life::Unknown;
        }
        // What this process itself holds has been sorted out before.
        if self.pid != this.pid && disk.started(self.pid).as_ref() == Some(&self.start) {
            Life::Alive
        } else {
            Life::Ended
        }
    }
}

/// Host, boot and the namespace of process ids; empty where one is unknown.
fn place() -> String {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned());
    let (Ok(host), Ok(boot), Ok(namespace)) = (
        read("/proc/sys/kernel/hostname"),
        read("/proc/sys/kernel/random/boot_id"),
        std::fs::read_link("/proc/self/ns/pid"),
    ) else {
        return String::new();
    };
    format!("{host} {boot} {}", namespace.display())
}

/// When a process that lives has started; `None` if there is none, or no more than its remains.
pub(super) fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::std_disk::StdDisk;
    use super::*;

    #[test]
    fn a_lock_with_any_other_byte_names_no_one() {
        let line = Owner::this_process().to_line();
        for at in 0..line.len() - 1 {
            let mut damaged = line.clone().into_bytes();
            damaged[at] ^= 1;
            assert_eq!(Owner::parse(&damaged), None, "byte {at}");
        }
    }

    #[test]
    fn this_process_is_alive_to_others_and_one_that_never_was_is_not() {
        let owner = Owner::this_process();
        let read = Owner::parse(owner.to_line().as_bytes()).expect("it is its own form");
        assert_eq!((read.pid, &read.start), (owner.pid, &owner.start));
        if cfg!(target_os = "linux") {
            assert!(!owner.start.is_empty() && !owner.place.is_empty());
            let init = Owner {
                pid: 1,
                start: start_of(1).expect("there is one"),
                place: place(),
            };
            assert_eq!(init.life(&StdDisk), Life::Alive);
            let reused = Owner {
                start: "1".into(),
                ..init
            };
            assert_eq!(reused.life(&StdDisk), Life::Ended);
            let elsewhere = Owner {
                place: "other".into(),
                ..reused
            };
            assert_eq!(elsewhere.life(&StdDisk), Life::Unknown);
        }
    }
}
