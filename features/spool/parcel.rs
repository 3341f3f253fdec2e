//! Parcels: events that were read from a segment, as the request that will carry them.

use super::disk::Disk;
use super::format::{self, Line, SegmentId};
use super::holes::Holes;
use super::segment::LineReader;
use super::state::{Run, RunKey, Segment, SessionName};
use alloc::borrow::ToOwned as _;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::io;
use std::path::PathBuf;
use uuid::Uuid;

/// The most events in a request.
pub(super) const MOST_EVENTS: usize = 100;

/// The most bytes of a request, unless its only event is larger.
const MOST_BYTES: usize = 1 << 20;

/// Events of one run, in order, with what the transport is told about them.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) key: RunKey,
    pub(super) segment: SegmentId,
    pub(super) session: SessionName,
    pub(super) body: Vec<u8>,
    pub(super) list: (usize, usize),
    pub(super) events: usize,
    pub(super) first_index: u64,
    /// The index of the last event; without events, the run's last one.
    pub(super) last_index: Option<u64>,
    /// How many of the events are copies of ones in an earlier segment, which could not be read there.
    pub(super) copies: usize,
    /// Which of them fill holes, and the new holes that were found.
    pub(super) filled: Vec<u64>,
    pub(super) holes: Holes,
    /// Where the segment is read up to: bytes and events, those that were passed over included.
    pub(super) at: u64,
    pub(super) next: u64,
    /// The same for every attempt, also in another process.
    pub(super) idempotency_key: Uuid,
    pub(super) attempt: u32,
    pub(super) has_broken: bool,
}

/// What must be known to read the next parcel of a segment.
pub(super) struct Source {
    key: RunKey,
    session: SessionName,
    fields: Arc<[u8]>,
    path: PathBuf,
    id: SegmentId,
    at: u64,
    len: u64,
    next: u64,
    lines: u64,
    copies: u64,
    last_index: Option<u64>,
    holes: Holes,
    most_events: usize,
}

impl Source {
    pub(super) fn new(key: RunKey, run: &Run, segment: &Segment) -> Self {
        let trouble = &run.trouble;
        let repeat = trouble.repeat.map_or(MOST_EVENTS, |repeat| repeat.events);
        Self {
            key,
            session: Arc::clone(&run.session),
            fields: Arc::clone(&run.fields),
            path: segment.path.clone(),
            id: segment.id,
            at: segment.at,
            len: segment.len,
            next: segment.next,
            lines: segment.lines,
            copies: segment.copies,
            last_index: run.last_index,
            holes: run.holes.clone(),
            most_events: repeat.min(trouble.cap.unwrap_or(MOST_EVENTS)).max(1),
        }
    }

    pub(super) const fn id(&self) -> SegmentId {
        self.id
    }

    /// Reads the next events. There are none if all that is left is damaged, or was sent before.
    pub(super) fn read(self, disk: &dyn Disk) -> io::Result<Parcel> {
        let mut file = disk.open(&self.path, false)?;
        let mut reader = LineReader::new(&mut *file, self.at, self.len);
        let fields = self.fields.strip_suffix(b"}").unwrap_or(&self.fields);
        let mut body = fields.to_owned();
        body.extend(br#","events":["#);
        let start = body.len();
        let (mut at, mut next) = (self.at, self.next);
        let mut last_index = self.last_index;
        let (mut events, mut first_index, mut digest) = (0, 0, self.id.0);
        let (mut copies, mut filled, mut holes) = (0, Vec::new(), Holes::default());
        // What the index and the number of the next event must be above, and what the number should be.
        let mut highest = self.last_index;
        let mut expected = self.next;
        loop {
            let Some(line) = reader.next()? else {
                // Whatever was between the last event and the end is damaged.
                if expected < self.lines {
                    holes.enter(highest, None);
                }
                (at, next) = (self.len, self.lines);
                break;
            };
            if let Line::Event(event) = format::parse(self.id, line.bytes)
                && format::is_event(&event)
            {
                let is_new = highest.is_none_or(|highest| highest < event.index);
                let fills = self.holes.contains(event.index);
                if !is_new && !fills {
                    expected = expected.max(event.n + 1);
                    at = line.next;
                    continue;
                }
                let is_full = body.len() + event.json.len() > MOST_BYTES;
                if events > 0 && (events == self.most_events || is_full) {
                    break;
                }
                if event.n > expected {
                    holes.enter(highest, Some(event.index));
                }
                expected = expected.max(event.n + 1);
                if fills {
                    filled.push(event.index);
                }
                copies += usize::from(event.n < self.copies);
                highest = highest.max(Some(event.index));
                if events == 0 {
                    first_index = event.index;
                } else {
                    body.push(b',');
                }
                body.extend(event.json);
                events += 1;
                digest = mix(digest, event.n, event.index);
                last_index = Some(event.index);
                next = event.n + 1;
            }
            at = line.next;
        }
        let list = (start, body.len());
        body.extend(b"]}");
        Ok(Parcel {
            key: self.key,
            segment: self.id,
            session: self.session,
            body,
            list,
            events,
            first_index,
            last_index,
            copies,
            filled,
            holes,
            at,
            next: next.max(self.next),
            idempotency_key: key(self.id, digest),
            attempt: 0,
            has_broken: false,
        })
    }
}

/// A key that is the same whenever the same events of the same segment are sent, and no others: a line between them may
/// have been damaged since. It has the form of a random one.
fn key(segment: SegmentId, digest: u64) -> Uuid {
    // The segment's id is random; the digest is spread over the other half.
    let bytes = Uuid::from_u64_pair(segment.0, digest).into_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// The digest with another event of the segment.
const fn mix(digest: u64, n: u64, index: u64) -> u64 {
    let mut mixed = digest ^ n.rotate_left(32) ^ index;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_events_have_the_same_key_and_others_another() {
        let of = |segment: u64, lines: &[(u64, u64)]| {
            let digest = lines
                .iter()
                .fold(segment, |digest, (n, index)| mix(digest, *n, *index));
            key(SegmentId(segment), digest)
        };
        let lines: Vec<_> = (0..100).map(|n| (n, n + 7)).collect();
        let one = of(1 << 60, &lines);
        assert_eq!(one, of(1 << 60, &lines));
        assert_eq!(one.get_version_num(), 4);
        // The first half, the second, another segment, one line less, and that with another one behind.
        let less = [&lines[..50], &lines[51..]].concat();
        let more = [&less[..], &[(100, 107)]].concat();
        for other in [
            of(1 << 60, &lines[..50]),
            of(1 << 60, &lines[50..]),
            of(1, &lines),
            of(1 << 60, &less),
            of(1 << 60, &more),
        ] {
            assert_ne!(one, other);
        }
    }
}
