//! Reads what `--keep` has written, whatever has become of it since.

use std::path::Path;

use crate::features::spool::look::{Found, Look, Reader, State};

use super::prelude::*;

/// Of events that are given at once.
const MAX_BATCH_BYTES: usize = 4 << 20;
const MAX_BATCH: usize = 1_000;

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) events: u64,
    /// Lines that are damaged, or belong to no session.
    pub(super) damaged: u64,
}

/// Some events of one run, as the body of a request to the telemetry endpoint.
pub(super) struct Portion {
    pub(super) session: String,
    /// The rest of the body: who sent them.
    pub(super) head: String,
    pub(super) events: Vec<String>,
    bytes: usize,
}

impl Portion {
    /// The body with all events, or one alone.
    pub(super) fn body(&self, only: Option<usize>) -> String {
        let events = match only {
            Some(at) => self.events.get(at).cloned().unwrap_or_default(),
            None => self.events.join(","),
        };
        let head = self.head.trim_end_matches('}');
        format!("{head},\"events\":[{events}]}}")
    }
}

/// Reads all files, in the order in which they were begun. A folder that is not there has none.
pub(super) fn read(folder: &Path, mut each: impl FnMut(&Portion)) -> Result<Tally, String> {
    let mut tally = Tally::default();
    if !folder.exists() {
        return Ok(tally);
    }
    let cannot = |path: &Path, error| format!("cannot read {}: {error}", path.display());
    let look = Look::new(folder).map_err(|error| cannot(folder, error))?;
    let kept = look
        .folders
        .iter()
        .filter(|folder| folder.state != State::Rejected);
    for segment in kept.flat_map(|folder| &folder.segments) {
        let mut reader = Reader::open(segment).map_err(|error| cannot(&segment.path, error))?;
        let mut portion = reader.whose.as_ref().map(|whose| Portion {
            session: whose.session.clone(),
            head: whose.fields.clone(),
            events: Vec::new(),
            bytes: 0,
        });
        let read = reader.read(|found| {
            match (found, &mut portion) {
                (Found::Event { json, .. }, Some(portion)) => {
                    tally.events += 1;
                    portion.bytes += json.len();
                    portion.events.push(json.to_owned());
                    if portion.bytes > MAX_BATCH_BYTES || portion.events.len() >= MAX_BATCH {
                        give(portion, &mut each);
                    }
                }
                (Found::Head(_), _) => {}
                (Found::Event { .. }, None) | (Found::Damaged, _) => tally.damaged += 1,
            }
            true
        });
        if let Some(portion) = &mut portion {
            give(portion, &mut each);
        }
        let is_whole = read.map_err(|error| cannot(&segment.path, error))?;
        tally.damaged += u64::from(!is_whole);
    }
    Ok(tally)
}

/// Gives the events of a portion away, and keeps its head.
fn give(portion: &mut Portion, each: &mut impl FnMut(&Portion)) {
    if !portion.events.is_empty() {
        each(portion);
        portion.events.clear();
        portion.bytes = 0;
    }
}
