//! Reads what `--keep` has written, whatever has become of it since.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::features::wire::json::{self, Object};

use super::keep;
use super::prelude::*;

/// A longer line is none of ours.
const MAX_LINE: u64 = 80 << 20;
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
    head: String,
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

/// Reads all files, in the order in which they were begun.
pub(super) fn read(folder: &Path, mut each: impl FnMut(&Portion)) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for file in files(folder)? {
        read_file(&file, &mut tally, &mut each)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    }
    Ok(tally)
}

/// The segments. A folder that is not there has none.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for inner in list(folder)? {
        if inner.is_dir() {
            let segments = list(&inner)?.into_iter();
            // Not a pipe or a link in its place.
            let is_segment = |path: &PathBuf| {
                path.extension().is_some_and(|end| end == "ndjson")
                    && fs::symlink_metadata(path).is_ok_and(|data| data.is_file())
            };
            files.extend(segments.filter(is_segment));
        }
    }
    Ok(files)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error| format!("cannot read {}: {error}", folder.display());
    let entries = fs::read_dir(folder).map_err(cannot)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(cannot)?;
    paths.sort();
    Ok(paths)
}

fn read_file(
    path: &Path,
    tally: &mut Tally,
    each: &mut impl FnMut(&Portion),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut id, mut portion) = (String::new(), None::<Portion>);
    loop {
        let mut line = Vec::new();
        let length = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        match parse(&line, &id) {
            Some(Line::Head {
                segment,
                session,
                head,
            }) => {
                give(&mut portion, each);
                id = segment;
                portion = Some(Portion {
                    session,
                    head,
                    events: Vec::new(),
                    bytes: 0,
                });
            }
            Some(Line::Event(json)) => match &mut portion {
                Some(current) => {
                    tally.events += 1;
                    current.bytes += json.len();
                    current.events.push(json);
                    if current.bytes > MAX_BATCH_BYTES || current.events.len() >= MAX_BATCH {
                        give(&mut portion, each);
                    }
                }
                None => tally.damaged += 1,
            },
            None => tally.damaged += 1,
        }
    }
    give(&mut portion, each);
    Ok(())
}

/// Gives the events of a portion away, and keeps its head.
fn give(portion: &mut Option<Portion>, each: &mut impl FnMut(&Portion)) {
    if let Some(portion) = portion
        && !portion.events.is_empty()
    {
        each(portion);
        portion.events.clear();
        portion.bytes = 0;
    }
}

pub(super) enum Line {
    Head {
        segment: String,
        session: String,
        head: String,
    },
    Event(String),
}

/// A line that is whole, by its checksum.
pub(super) fn parse(line: &[u8], id: &str) -> Option<Line> {
    let object = Object::read(core::str::from_utf8(line).ok()?).ok()?;
    let crc = u32::from_str_radix(&json::string(object.get("c")?)?, 16).ok()?;
    if object.get("tinkex").is_some() {
        let segment = json::string(object.get("segment")?)?.into_owned();
        let head = object.get("head")?.get();
        if keep::crc(&segment, 0, 0, head.as_bytes()) != crc {
            return None;
        }
        let session = serde_json::from_str::<Value>(head).ok()?["session_id"]
            .as_str()?
            .to_owned();
        let head = head.to_owned();
        return Some(Line::Head {
            segment,
            session,
            head,
        });
    }
    let number = |key| object.get(key)?.get().parse::<u64>().ok();
    let event = object.get("e")?.get();
    let found = keep::crc(id, number("n")?, number("i")?, event.as_bytes());
    (found == crc).then(|| Line::Event(event.to_owned()))
}
