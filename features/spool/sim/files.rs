//! The simulated file system: what processes see (the page cache) and what a power cut leaves, apart from each other.

use super::rng::Rng;
use crate::features::spool::disk::{Kind, Meta};
use crate::time::Timestamp;
use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) data: Vec<u8>,
    /// The data as it was written, before any fault.
    pub(crate) written: Vec<u8>,
    /// What a power cut leaves at least.
    durable: Vec<u8>,
    /// What a failed sync has lost: it is in the page cache and will never be on the disk.
    lost: Vec<Range<usize>>,
    /// What its processes may take for durable: syncs that did nothing are included, what failed ones have lost is not.
    promised: usize,
    promised_lost: Vec<Range<usize>>,
    /// Where the write began whose last piece was short, and from where on a failed write has left what no one counts.
    write_start: usize,
    uncounted: Option<usize>,
    /// The data may differ from what was written.
    pub(crate) is_damaged: bool,
    /// What cannot be read any more.
    pub(crate) bad: Vec<Range<u64>>,
    pub(crate) modified: Timestamp,
    /// The process and the handle that have the lock.
    pub(crate) locked: Option<(u32, u64)>,
    entries: BTreeMap<String, u64>,
    durable_entries: BTreeMap<String, u64>,
    /// See `promised`.
    promised_entries: BTreeMap<String, u64>,
    /// For a folder: the process that holds it.
    pub(crate) holder: Option<u32>,
}

/// What a power cut does to entries that were not synced, and to a torn write.
pub(crate) struct Cut<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) entry_lost: u16,
    pub(crate) unlink_undone: u16,
    pub(crate) torn: u16,
    /// A piece of some file, which a torn write may leave in another one.
    pub(crate) stale: Vec<u8>,
    /// How often each has happened.
    pub(crate) happened: [u32; 3],
}

pub(crate) struct Files {
    nodes: BTreeMap<u64, Node>,
    root: PathBuf,
    last: u64,
    /// How many files were removed whose removal a power cut may undo.
    pub(crate) removals: u64,
}

const ROOT: u64 = 0;

impl Files {
    pub(crate) fn new(root: PathBuf) -> Self {
        let mut files = Self {
            nodes: BTreeMap::new(),
            root,
            last: ROOT,
            removals: 0,
        };
        files.nodes.insert(
            ROOT,
            Node::new(Kind::Folder, Timestamp::from_unix_micros(0)),
        );
        files
    }

    pub(crate) fn node(&mut self, id: u64) -> io::Result<&mut Node> {
        self.nodes
            .get_mut(&id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn find(&self, path: &Path) -> io::Result<u64> {
        let below = path.strip_prefix(&self.root);
        let below = below.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        let mut at = ROOT;
        for part in below {
            let found = self
                .nodes
                .get(&at)
                .and_then(|node| node.entries.get(text(part)));
            at = *found.ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(crate) fn meta(&self, id: u64) -> io::Result<Meta> {
        let node = self.nodes.get(&id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Meta {
            kind: node.kind,
            len: node.data.len() as u64,
            modified: node.modified,
            identity: (1, id),
            owner: Some(1000),
            mode: Some(if node.kind == Kind::Folder {
                0o700
            } else {
                0o600
            }),
            links: 1,
        })
    }

    /// A process that holds folders has died.
    pub(crate) fn forget_holder(&mut self, pid: u32) {
        for node in self.nodes.values_mut() {
            node.holder = node.holder.filter(|holder| *holder != pid);
        }
    }

    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        let name = path.file_name().map(text).unwrap_or_default();
        Ok((self.find(parent)?, name.to_owned()))
    }

    pub(crate) fn create(&mut self, path: &Path, kind: Kind, now: Timestamp) -> io::Result<u64> {
        let (parent, name) = self.parent(path)?;
        let id = self.last + 1;
        let folder = self.node(parent)?;
        if folder.entries.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        folder.entries.insert(name, id);
        folder.modified = now;
        self.last = id;
        self.nodes.insert(id, Node::new(kind, now));
        Ok(id)
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let id = self.find(path)?;
        let node = self.nodes.get(&id).ok_or(io::ErrorKind::NotFound)?;
        if node.kind != Kind::Folder {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(node.entries.keys().cloned().collect())
    }

    pub(crate) fn remove(&mut self, path: &Path, kind: Kind, now: Timestamp) -> io::Result<()> {
        let id = self.find(path)?;
        let node = self.node(id)?;
        if node.kind != kind {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !node.entries.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (parent, name) = self.parent(path)?;
        let folder = self.node(parent)?;
        folder.entries.remove(&name);
        folder.modified = now;
        let may_come_back = folder.durable_entries.contains_key(&name);
        self.removals += u64::from(may_come_back);
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path, now: Timestamp) -> io::Result<u64> {
        let id = self.find(from)?;
        let (old_parent, old) = self.parent(from)?;
        let (new_parent, new) = self.parent(to)?;
        if self.node(new_parent)?.entries.contains_key(&new) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.node(old_parent)?.entries.remove(&old);
        let folder = self.node(new_parent)?;
        folder.entries.insert(new, id);
        folder.modified = now;
        Ok(id)
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        let node = self.node(id)?;
        node.durable_entries.clone_from(&node.entries);
        node.promised_entries.clone_from(&node.entries);
        Ok(())
    }

    /// A sync of a folder that does nothing.
    pub(crate) fn pretend_to_sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find(path)?;
        let node = self.node(id)?;
        node.promised_entries.clone_from(&node.entries);
        Ok(())
    }

    /// Removes a folder and all below.
    pub(crate) fn remove_all(&mut self, path: &Path) {
        let Ok((parent, name)) = self.parent(path) else {
            return;
        };
        if let Ok(folder) = self.node(parent) {
            folder.entries.remove(&name);
            folder.durable_entries.remove(&name);
            folder.promised_entries.remove(&name);
        }
    }

    /// The files below a folder, by path.
    pub(crate) fn below(&self, path: &Path) -> BTreeMap<PathBuf, u64> {
        let mut found = BTreeMap::new();
        let mut open = Vec::new();
        open.extend(self.find(path).map(|id| (path.to_owned(), id)));
        while let Some((path, id)) = open.pop() {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            match node.kind {
                Kind::Folder => {
                    open.extend(node.entries.iter().map(|(name, id)| (path.join(name), *id)))
                }
                _ => drop(found.insert(path, id)),
            }
        }
        found
    }

    /// Whether a file is below a folder, under any name.
    #[cfg(test)]
    pub(crate) fn is_below(&self, path: &Path, id: u64) -> bool {
        self.below(path).into_values().any(|other| other == id)
    }

    /// The events whose lines are as they were written, and readable, in segments below a folder that have such a head.
    pub(crate) fn intact(&self, path: &Path) -> BTreeSet<u64> {
        let lines = self.intact_lines(path);
        lines.into_iter().map(|(_, number)| number).collect()
    }

    /// The same, each with its file.
    pub(crate) fn intact_lines(&self, path: &Path) -> BTreeSet<(u64, u64)> {
        let mut found = BTreeSet::new();
        for (path, id) in self.below(path) {
            let is_segment = path.extension().is_some_and(|it| it == "ndjson");
            if let Some(node) = self.nodes.get(&id).filter(|_| is_segment) {
                found.extend(node.intact().into_iter().map(|number| (id, number)));
            }
        }
        found
    }

    /// The events that the processes may take for durable: those which would be left after a power cut at its worst, had
    /// each sync done what it said.
    pub(crate) fn promised(&self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut open = alloc::vec![ROOT];
        while let Some(id) = open.pop() {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            for (name, id) in &node.promised_entries {
                match self.nodes.get(id) {
                    Some(node) if node.kind == Kind::Folder => open.push(*id),
                    Some(node) if name.ends_with(".ndjson") => found.extend(node.promised()),
                    _ => {}
                }
            }
        }
        found
    }

    /// The power fails.
    pub(crate) fn power_cut(&mut self, cut: &mut Cut<'_>) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        let other = cut.rng.pick(&ids);
        let from = self.nodes.get(&other).map_or(&[][..], |node| &node.data);
        let start = cut.rng.below(from.len() as u64 + 1) as usize;
        let stale = from[start..(start + 2048).min(from.len())].to_vec();
        for id in ids {
            // What was in a place before is of another file.
            cut.stale.clone_from(&stale);
            if id == other {
                cut.stale.clear();
            }
            if let Some(node) = self.nodes.get_mut(&id) {
                node.power_cut(cut);
            }
        }
    }
}

impl Node {
    fn new(kind: Kind, now: Timestamp) -> Self {
        Self {
            kind,
            data: Vec::new(),
            written: Vec::new(),
            durable: Vec::new(),
            lost: Vec::new(),
            promised: 0,
            promised_lost: Vec::new(),
            write_start: 0,
            uncounted: None,
            is_damaged: false,
            bad: Vec::new(),
            modified: now,
            locked: None,
            entries: BTreeMap::new(),
            durable_entries: BTreeMap::new(),
            promised_entries: BTreeMap::new(),
            holder: None,
        }
    }

    pub(crate) fn append(&mut self, bytes: &[u8], now: Timestamp) {
        // The last sector is written anew, elsewhere; what was in it is gone.
        let last = (self.data.len() / 4096 * 4096) as u64;
        for bad in self.bad.extract_if(.., |bad| bad.end > last) {
            let range = bad.start as usize..(bad.end as usize).min(self.data.len());
            self.data[range].fill(0);
            self.is_damaged = true;
        }
        self.data.extend(bytes);
        self.written.extend(bytes);
        self.modified = now;
    }

    pub(crate) fn set_len(&mut self, len: usize, now: Timestamp) {
        self.data.truncate(len);
        self.written.truncate(len);
        self.durable.truncate(len);
        self.promised = self.promised.min(len);
        self.write_start = self.write_start.min(len);
        self.uncounted = self.uncounted.filter(|from| *from < len);
        self.modified = now;
    }

    /// An append is complete.
    pub(crate) fn end_write(&mut self) {
        self.write_start = self.data.len();
    }

    /// An append has failed: what is there of it, earlier pieces included, is not counted by the one who appends.
    pub(crate) fn fail_write(&mut self) {
        let from = self.write_start;
        if from < self.data.len() {
            self.uncounted = Some(self.uncounted.map_or(from, |other| other.min(from)));
        }
    }

    pub(crate) fn sync(&mut self) {
        let from = self.durable.len();
        self.durable.extend(&self.data[from..]);
        for lost in &self.lost {
            let range = lost.start.min(self.durable.len())..lost.end.min(self.durable.len());
            self.durable[range].fill(0);
        }
        self.pretend_to_sync();
    }

    /// A sync that does nothing.
    pub(crate) fn pretend_to_sync(&mut self) {
        self.promised = self.data.len();
    }

    /// A sync fails: the operating system forgets that it has something to write.
    pub(crate) fn fail_sync(&mut self) {
        self.lost.push(self.durable.len()..self.data.len());
        self.promised_lost.push(self.promised..self.data.len());
    }

    pub(crate) fn is_bad(&self, range: &Range<u64>) -> bool {
        self.bad
            .iter()
            .any(|bad| bad.start < range.end && range.start < bad.end)
    }

    /// The events that one who reads the file finds and counts.
    pub(crate) fn intact(&self) -> BTreeSet<u64> {
        let counted = self.uncounted.unwrap_or(usize::MAX);
        self.events(|line| line.end <= counted)
    }

    /// The events whose lines are as this file's process has written them. Those of another file, which a power cut may
    /// leave in it, are none of its own.
    #[cfg(test)]
    pub(crate) fn own(&self) -> BTreeSet<u64> {
        let sound = self.sound_lines();
        sound.filter_map(|(_, line)| number(line)).collect()
    }

    fn promised(&self) -> BTreeSet<u64> {
        self.events(|line| {
            let mut lost = self.promised_lost.iter();
            line.end <= self.promised && !lost.any(|it| it.start < line.end && line.start < it.end)
        })
    }

    /// The events in those sound lines that the condition admits, if there is such a head, too.
    fn events(&self, is_counted: impl Fn(Range<usize>) -> bool) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut has_head = false;
        for (range, line) in self.sound_lines() {
            // A line feed that is missing before it joins it with the one before.
            let with_feed = range.start.saturating_sub(1) as u64..range.end as u64;
            if self.is_bad(&with_feed) || !is_counted(range) {
                continue;
            }
            if line.starts_with(b"{\"tinkex\"") {
                has_head = true;
            } else if let Some(number) = number(line) {
                found.insert(number);
            }
        }
        if !has_head {
            found.clear();
        }
        found
    }

    /// The whole lines that are as they were written, the line feed before each included.
    fn sound_lines(&self) -> impl Iterator<Item = (Range<usize>, &[u8])> {
        let mut start = 0;
        let lines = self.written.split_inclusive(|byte| *byte == b'\n');
        let lines = lines.map(move |line| {
            let range = start..start + line.len();
            start = range.end;
            (range, line)
        });
        lines.filter(|(range, line)| {
            let range = range.start.saturating_sub(1)..range.end;
            line.ends_with(b"\n") && self.data.get(range.clone()) == self.written.get(range)
        })
    }

    fn power_cut(&mut self, cut: &mut Cut<'_>) {
        self.locked = None;
        if self.kind == Kind::Folder {
            return self.cut_entries(cut);
        }
        let synced = self.durable.len();
        let more = (self.data.len() - synced) as u64;
        let kept = synced + cut.rng.below(more + 1) as usize;
        let mut left = self.durable.clone();
        left.extend(&self.data[synced..kept]);
        for lost in &self.lost {
            let range = lost.start.min(left.len())..lost.end.min(left.len());
            left[range].fill(0);
        }
        if kept > synced && cut.rng.happens(cut.torn) {
            let from = synced + cut.rng.below((kept - synced) as u64) as usize;
            // Zeros, or what was in that place before.
            let stale = match cut.rng.below(2) {
                0 => &[0; 512][..],
                _ => &cut.stale,
            };
            let len = stale.len().min(kept - from);
            left[from..from + len].copy_from_slice(&stale[..len]);
            cut.happened[2] += 1;
        }
        // From now on this is what there is.
        self.written.truncate(left.len());
        self.is_damaged |= self.written != left;
        self.data.clone_from(&left);
        self.durable = left;
        self.lost.clear();
        self.promised = self.data.len();
        self.promised_lost.clear();
        self.uncounted = None;
        self.end_write();
    }

    fn cut_entries(&mut self, cut: &mut Cut<'_>) {
        let names = |entries: &BTreeMap<String, u64>| -> BTreeMap<u64, String> {
            entries
                .iter()
                .map(|(name, id)| (*id, name.clone()))
                .collect()
        };
        let (now, synced) = (names(&self.entries), names(&self.durable_entries));
        let ids: BTreeSet<_> = now.keys().chain(synced.keys()).copied().collect();
        let mut left = BTreeMap::new();
        for id in ids {
            let name = match (now.get(&id), synced.get(&id)) {
                (Some(new), Some(old)) if new != old => {
                    Some(if cut.rng.happens(500) { new } else { old })
                }
                (Some(new), None) => {
                    let is_lost = cut.rng.happens(cut.entry_lost);
                    cut.happened[0] += u32::from(is_lost);
                    (!is_lost).then_some(new)
                }
                (None, Some(old)) => {
                    let is_undone = cut.rng.happens(cut.unlink_undone);
                    cut.happened[1] += u32::from(is_undone);
                    is_undone.then_some(old)
                }
                (new, _) => new,
            };
            if let Some(name) = name {
                left.insert(name.clone(), id);
            }
        }
        self.entries.clone_from(&left);
        self.promised_entries.clone_from(&left);
        self.durable_entries = left;
    }
}

/// The number of the event in a line: what is random in its id.
pub(crate) fn number(line: &[u8]) -> Option<u64> {
    const ID: &[u8] = br#""event_id":""#;
    let at = memchr(line, ID)? + ID.len();
    let id = Uuid::try_parse_ascii(line.get(at..at + 36)?).ok()?;
    Some(id.as_u64_pair().1 & (u64::MAX >> 2))
}

/// The numbers of the events in a text.
pub(crate) fn numbers(text: &[u8]) -> Vec<u64> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(number).collect()
}

fn memchr(text: &[u8], needle: &[u8]) -> Option<usize> {
    // An event's id is near the beginning of its line.
    let text = text.get(..text.len().min(160))?;
    text.windows(needle.len()).position(|part| part == needle)
}

fn text(part: &OsStr) -> &str {
    part.to_str().unwrap_or_default()
}
