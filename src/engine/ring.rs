//! The queue's memory: a bounded ring of records. It knows nothing about telemetry.
//!
//! A record is a header (`length u32, tag u64`, little-endian) and a payload. Offsets count from the oldest record, so
//! they stay valid when the ring moves to a larger buffer. The highest bit of the length is set while the payload is
//! still being written.

#[cfg(feature = "std")]
use super::groups::Groups;
pub(crate) use super::storage::{NoRoom, Storage};

/// The bytes that a record takes besides its payload.
pub(crate) const HEADER: usize = 12;

/// The maximum length of a payload's prefix in [`Ring::push`].
#[cfg(any(test, feature = "std"))]
pub(crate) const MAX_PREFIX: usize = 128;

/// A bit in a record's length: the payload is incomplete.
const UNFINISHED: u32 = 1 << 31;

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) len: usize,
    pub(crate) tag: u64,
    pub(crate) is_finished: bool,
}

/// A record whose payload is written in pieces.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// Where the record begins, in bytes since the ring was created.
    start: usize,
    written: usize,
}

pub(crate) struct Ring {
    storage: Storage,
    /// The storage's capacity, cached: every position needs it.
    capacity: usize,
    head: usize,
    used: usize,
    records: usize,
    /// The bytes of all records released so far. Wraps around.
    released: usize,
    /// Its records by batches.
    #[cfg(feature = "std")]
    groups: Groups,
}

impl Ring {
    pub(crate) fn new(storage: Storage) -> Self {
        Self {
            capacity: storage.capacity(),
            storage,
            head: 0,
            used: 0,
            records: 0,
            released: 0,
            #[cfg(feature = "std")]
            groups: Groups::default(),
        }
    }

    /// Counts its records by batches from now on.
    #[cfg(feature = "std")]
    pub(crate) fn grouped(mut self, groups: Groups) -> Self {
        self.groups = groups;
        self
    }

    #[cfg(feature = "std")]
    pub(crate) const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The first batch is sent: no other record joins it.
    #[cfg(feature = "std")]
    pub(crate) fn close_group(&mut self) {
        self.groups.close_front();
    }

    /// Bytes in use, headers included.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Whether its memory is of a fixed size.
    pub(crate) const fn is_fixed(&self) -> bool {
        self.storage.is_fixed()
    }

    pub(crate) const fn records(&self) -> usize {
        self.records
    }

    /// Appends a record. Its payload is `prefix_len` bytes (at most [`MAX_PREFIX`]), which `write_prefix` writes,
    /// followed by `rest`.
    #[cfg(any(test, feature = "std"))]
    #[inline]
    pub(crate) fn push(
        &mut self,
        tag: u64,
        prefix_len: usize,
        write_prefix: impl FnOnce(&mut [u8]),
        rest: &[u8],
    ) -> Result<(), NoRoom> {
        let len = prefix_len + rest.len();
        let size = HEADER + len;
        if self.capacity - self.used < size {
            self.grow(self.used + size)?;
        }
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&u32::try_from(len).map_err(|_| NoRoom)?.to_le_bytes());
        header[4..].copy_from_slice(&tag.to_le_bytes());
        let at = self.position(self.used);
        if let Some(space) = self.storage.touched(at, size) {
            // The usual case: memory that was touched before, without wrapping around.
            let (header_space, space) = space.split_at_mut(HEADER);
            let (prefix_space, rest_space) = space.split_at_mut(prefix_len);
            header_space.copy_from_slice(&header);
            write_prefix(prefix_space);
            rest_space.copy_from_slice(rest);
            self.used += size;
        } else {
            let mut prefix = [0; MAX_PREFIX];
            let prefix = prefix.get_mut(..prefix_len).ok_or(NoRoom)?;
            write_prefix(prefix);
            for piece in [&header[..], prefix, rest] {
                self.append(piece);
            }
        }
        self.records += 1;
        #[cfg(feature = "std")]
        self.groups.add(size);
        Ok(())
    }

    #[cfg(any(test, feature = "std"))]
    fn append(&mut self, data: &[u8]) {
        let at = self.position(self.used);
        let before_end = (self.capacity - at).min(data.len());
        self.storage.write(at, &data[..before_end]);
        if before_end < data.len() {
            self.storage.write(0, &data[before_end..]);
        }
        self.used += data.len();
    }

    /// The record that begins `offset` bytes after the start of the oldest one; `None` past the last.
    pub(crate) fn record(&self, offset: usize) -> Option<Record> {
        if offset >= self.used {
            return None;
        }
        let mut header = [0; HEADER];
        self.read(offset, &mut header);
        let [a, b, c, d, tag @ ..] = header;
        let len = u32::from_le_bytes([a, b, c, d]);
        Some(Record {
            len: (len & !UNFINISHED) as usize,
            tag: u64::from_le_bytes(tag),
            is_finished: len & UNFINISHED == 0,
        })
    }

    /// Copies bytes out, from `offset` bytes after the start of the oldest record.
    #[inline]
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) {
        let at = self.position(offset);
        match self.storage.bytes().get(at..at + out.len()) {
            // The usual case: no wrapping around.
            Some(piece) => out.copy_from_slice(piece),
            None => self.read_wrapped(at, out),
        }
    }

    /// Copies out bytes that wrap around the end of the buffer.
    #[cold]
    fn read_wrapped(&self, at: usize, out: &mut [u8]) {
        let bytes = self.storage.bytes();
        let before_end = (self.capacity - at).min(out.len());
        if let Some((first, second)) = out.split_at_mut_checked(before_end)
            && let Some(from) = bytes.get(at..at + first.len())
            && let Some(wrapped) = bytes.get(..second.len())
        {
            first.copy_from_slice(from);
            second.copy_from_slice(wrapped);
        }
    }

    /// Removes the oldest `records` records, `bytes` in all.
    pub(crate) fn release(&mut self, records: usize, bytes: usize) {
        self.records -= records;
        self.used -= bytes;
        self.released = self.released.wrapping_add(bytes);
        #[cfg(feature = "std")]
        if self.records == 0 {
            self.groups.clear();
        } else {
            self.groups.release(records, bytes);
        }
        // An empty ring starts over at the beginning, so that it touches little memory.
        self.head = if self.used == 0 {
            0
        } else {
            self.position(bytes)
        };
    }

    pub(crate) fn clear(&mut self) {
        self.release(self.records, self.used);
    }

    /// Whether [`shrink`](Self::shrink) would return memory.
    #[cfg(has_arc)]
    pub(crate) fn is_oversized(&self) -> bool {
        self.storage.is_oversized()
    }

    /// Returns the memory of an empty ring.
    #[cfg(has_arc)]
    pub(crate) fn shrink(&mut self) {
        if self.used == 0 {
            self.capacity = self.storage.shrink();
        }
    }

    fn position(&self, offset: usize) -> usize {
        let at = self.head + offset;
        if at < self.capacity {
            at
        } else {
            at - self.capacity
        }
    }

    /// Grows the storage to hold `needed` bytes in all, and moves the records to the beginning.
    fn grow(&mut self, needed: usize) -> Result<(), NoRoom> {
        self.capacity = self.storage.grow(self.head, self.used, needed)?;
        self.head = 0;
        Ok(())
    }
}

/// Records that are written in pieces, so that the caller can release its lock in between.
impl Ring {
    /// Appends an unfinished record with a payload of `len` bytes.
    pub(crate) fn reserve(&mut self, tag: u64, len: usize) -> Result<Reserved, NoRoom> {
        let size = HEADER + len;
        if self.capacity - self.used < size {
            self.grow(self.used + size)?;
        }
        let mut header = [0; HEADER];
        let len = u32::try_from(len).map_err(|_| NoRoom)?;
        header[..4].copy_from_slice(&(len | UNFINISHED).to_le_bytes());
        header[4..].copy_from_slice(&tag.to_le_bytes());
        let at = self.position(self.used);
        self.storage.touch(at, size);
        let start = self.released.wrapping_add(self.used);
        self.overwrite(self.used, &header);
        self.used += size;
        self.records += 1;
        #[cfg(feature = "std")]
        self.groups.add_unfinished();
        Ok(Reserved { start, written: 0 })
    }

    /// Writes the next piece of the payload, if the record is still there.
    pub(crate) fn fill(&mut self, reserved: &mut Reserved, piece: &[u8]) {
        if let Some(offset) = self.offset(reserved) {
            self.overwrite(offset + HEADER + reserved.written, piece);
            reserved.written += piece.len();
        }
    }

    /// Marks the record as finished.
    pub(crate) fn finish(&mut self, reserved: &Reserved) {
        if let Some(offset) = self.offset(reserved)
            && let Some(record) = self.record(offset)
        {
            self.overwrite(offset, &(record.len as u32).to_le_bytes());
        }
    }

    /// The record's current offset; `None` if the ring was cleared meanwhile.
    fn offset(&self, reserved: &Reserved) -> Option<usize> {
        let offset = reserved.start.wrapping_sub(self.released);
        (offset < self.used).then_some(offset)
    }

    /// Writes over bytes that were touched before.
    fn overwrite(&mut self, offset: usize, data: &[u8]) {
        let at = self.position(offset);
        let before_end = (self.capacity - at).min(data.len());
        if let Some((first, second)) = data.split_at_checked(before_end) {
            self.storage.write(at, first);
            self.storage.write(0, second);
        }
    }
}

#[cfg(all(test, has_arc))]
mod tests {
    use super::super::storage::INITIAL;
    use super::*;
    use alloc::boxed::Box;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use alloc::vec::Vec;
    use arbtest::arbitrary::{self, Unstructured};
    use arbtest::arbtest;

    fn payloads(ring: &Ring) -> Vec<(u64, Vec<u8>)> {
        let (mut offset, mut found) = (0, Vec::new());
        while let Some(record) = ring.record(offset) {
            let mut payload = vec![0; record.len];
            ring.read(offset + HEADER, &mut payload);
            found.push((record.tag, payload));
            offset += HEADER + record.len;
        }
        found
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push(Vec<u8>, usize),
        /// The payload, and the size of the pieces.
        Reserve(Vec<u8>, usize),
        Release(usize),
        Shrink,
    }

    fn op(u: &mut Unstructured<'_>) -> arbitrary::Result<Op> {
        let kind = u.int_in_range(0..=10)?;
        Ok(match kind {
            0..=7 => {
                let len = u.int_in_range(0..=89)?.min(u.len());
                let payload = u.bytes(len)?.to_vec();
                if kind < 4 {
                    Op::Push(payload, u.int_in_range(0..=89)?)
                } else {
                    Op::Reserve(payload, u.int_in_range(1..=89)?)
                }
            }
            8..=9 => Op::Release(u.int_in_range(0..=5)?),
            _ => Op::Shrink,
        })
    }

    fn matches_a_plain_queue(
        mut ring: Ring,
        limit: usize,
        u: &mut Unstructured<'_>,
    ) -> arbitrary::Result<()> {
        let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let size = |model: &VecDeque<(u64, Vec<u8>)>| -> usize {
            model
                .iter()
                .map(|(_, payload)| HEADER + payload.len())
                .sum()
        };
        let mut tags = 0..;
        while !u.is_empty() {
            let tag = tags.next().expect("the range is infinite");
            match op(u)? {
                Op::Push(payload, split) => {
                    let (prefix, rest) = payload.split_at(split.min(payload.len()));
                    let fits = size(&model) + HEADER + payload.len() <= limit;
                    let write = |out: &mut [u8]| out.copy_from_slice(prefix);
                    assert_eq!(ring.push(tag, prefix.len(), write, rest).is_ok(), fits);
                    if fits {
                        model.push_back((tag, payload));
                    }
                }
                Op::Reserve(payload, piece) => {
                    let fits = size(&model) + HEADER + payload.len() <= limit;
                    let reserved = ring.reserve(tag, payload.len());
                    assert_eq!(reserved.is_ok(), fits);
                    if let Ok(mut reserved) = reserved {
                        let offset = size(&model);
                        for piece in payload.chunks(piece) {
                            assert!(ring.record(offset).is_some_and(|it| !it.is_finished));
                            ring.fill(&mut reserved, piece);
                        }
                        ring.finish(&reserved);
                        assert!(ring.record(offset).is_some_and(|it| it.is_finished));
                        model.push_back((tag, payload));
                    }
                }
                Op::Release(records) => {
                    let oldest: VecDeque<_> = model.drain(..records.min(model.len())).collect();
                    ring.release(oldest.len(), size(&oldest));
                }
                Op::Shrink => ring.shrink(),
            }
            assert_eq!(ring.used(), size(&model));
            assert_eq!(ring.records(), model.len());
            assert_eq!(payloads(&ring), Vec::from(model.clone()));
        }
        Ok(())
    }

    /// About 80 steps.
    const STEPS: u32 = 3_000;

    #[test]
    fn a_static_ring_is_a_bounded_queue() {
        arbtest(|u| {
            let len = u.int_in_range(0..=399)?;
            let storage = Storage::fixed(Box::leak(vec![0; len].into_boxed_slice()));
            matches_a_plain_queue(Ring::new(storage), len, u)
        })
        .size_max(STEPS)
        .budget_ms(500);
    }

    #[test]
    fn a_growing_ring_is_a_queue_bounded_by_its_limit() {
        arbtest(|u| {
            let limit = u.int_in_range(0..=1_999)?;
            matches_a_plain_queue(Ring::new(Storage::growing(limit)), limit, u)
        })
        .size_max(STEPS)
        .budget_ms(500);
    }

    #[test]
    fn a_growing_ring_can_be_filled_to_the_last_byte() {
        let mut ring = Ring::new(Storage::growing(2 * (HEADER + 10)));
        assert_eq!(ring.push(0, 0, |_| {}, &[1; 10]), Ok(()));
        assert_eq!(ring.push(1, 0, |_| {}, &[2; 10]), Ok(()));
        assert_eq!(ring.push(2, 0, |_| {}, &[]), Err(NoRoom));
        assert_eq!(ring.used(), 2 * (HEADER + 10));
    }

    #[test]
    fn growing_unwraps_records_that_wrapped_around() {
        let mut ring = Ring::new(Storage::growing(10 * INITIAL));
        let payload = |tag: u64| vec![tag as u8; 1_000];
        let mut model = VecDeque::new();
        // Fill it, release a part, then fill it again so that it wraps around.
        let fill = |ring: &mut Ring, model: &mut VecDeque<_>, tags: core::ops::Range<u64>| {
            for tag in tags {
                assert_eq!(ring.push(tag, 0, |_| {}, &payload(tag)), Ok(()));
                model.push_back((tag, payload(tag)));
            }
        };
        fill(&mut ring, &mut model, 0..64);
        assert_eq!(ring.storage.capacity(), INITIAL);
        ring.release(40, 40 * (1_000 + HEADER));
        model.drain(..40);
        fill(&mut ring, &mut model, 64..100);
        assert_eq!(ring.storage.capacity(), INITIAL);
        fill(&mut ring, &mut model, 100..110);
        assert_eq!(ring.storage.capacity(), 2 * INITIAL);
        assert_eq!(payloads(&ring), Vec::from(model));
    }

    #[test]
    fn a_ring_grows_by_doubling_and_returns_its_memory_when_empty() {
        let mut ring = Ring::new(Storage::growing(300_000));
        let payload = [7; 1_000];
        let mut pushed = 0;
        while ring.push(pushed, 0, |_| {}, &payload).is_ok() {
            pushed += 1;
        }
        assert_eq!(pushed, 300_000 / (1_000 + HEADER as u64));
        assert!(ring.is_oversized());
        ring.shrink();
        assert_eq!(payloads(&ring).len() as u64, pushed);
        ring.clear();
        ring.shrink();
        assert!(!ring.is_oversized());
        assert_eq!(ring.push(0, 0, |_| {}, &payload), Ok(()));
        assert_eq!(ring.storage.capacity(), INITIAL);
    }
}
