//! The queue's bytes: one ring of records, bounded by its capacity. It knows nothing of telemetry.
//!
//! A record is a header (`length u32, tag u64`, little-endian) and a payload. Offsets are counted from the oldest
//! record, so they stay right when the ring moves to a larger buffer. The length's highest bit says that the payload is
//! still being written.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// What a record takes besides its payload.
pub(crate) const HEADER: usize = 12;

/// The longest front of a record that is written in place.
#[cfg(any(test, feature = "std"))]
pub(crate) const MAX_FRONT: usize = 128;

/// In a record's length: the payload is not complete.
const UNFINISHED: u32 = 1 << 31;

/// The capacity a growing ring starts with and returns to.
#[cfg(feature = "alloc")]
const INITIAL: usize = 64 * 1024;

/// Where the bytes are.
pub(crate) enum Storage {
    /// As large as it is.
    Static(&'static mut [u8]),
    /// Starts small and doubles up to its limit. Bytes beyond `len` have never been touched, so they cost no memory.
    #[cfg(feature = "alloc")]
    Boxed { bytes: Vec<u8>, limit: usize },
}

impl Storage {
    #[cfg(feature = "alloc")]
    pub(crate) const fn growing(limit: usize) -> Self {
        Self::Boxed {
            bytes: Vec::new(),
            limit,
        }
    }

    /// Room for so much more than the limit of ordinary records. Static storage has been given it already.
    #[cfg_attr(not(feature = "alloc"), expect(unused_mut, unused_variables))]
    pub(crate) fn with_reserve(mut self, reserve: usize) -> Self {
        #[cfg(feature = "alloc")]
        if let Self::Boxed { limit, .. } = &mut self {
            *limit += reserve;
        }
        self
    }

    const fn capacity(&self) -> usize {
        match self {
            Self::Static(bytes) => bytes.len(),
            #[cfg(feature = "alloc")]
            Self::Boxed { bytes, .. } => bytes.capacity(),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            #[cfg(feature = "alloc")]
            Self::Boxed { bytes, .. } => bytes,
        }
    }

    /// These bytes, if they have been written before and lie in one piece.
    #[cfg(any(test, feature = "std"))]
    #[inline]
    fn touched(&mut self, at: usize, len: usize) -> Option<&mut [u8]> {
        match self {
            Self::Static(bytes) => bytes.get_mut(at..at + len),
            #[cfg(feature = "alloc")]
            Self::Boxed { bytes, .. } => bytes.get_mut(at..at + len),
        }
    }

    /// Makes bytes within the capacity ones that were touched; `at` is at most one past those touched so far.
    #[cfg(any(test, not(feature = "std")))]
    #[cfg_attr(not(feature = "alloc"), expect(unused_variables))]
    fn touch(&mut self, at: usize, len: usize) {
        match self {
            Self::Static(_) => {}
            #[cfg(feature = "alloc")]
            Self::Boxed { bytes, .. } => {
                let end = (at + len).min(bytes.capacity());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
            }
        }
    }

    /// Writes within the capacity; `at` is at most one past the bytes written so far.
    fn write(&mut self, at: usize, data: &[u8]) {
        match self {
            Self::Static(bytes) => {
                if let Some(space) = bytes.get_mut(at..at + data.len()) {
                    space.copy_from_slice(data);
                }
            }
            #[cfg(feature = "alloc")]
            Self::Boxed { bytes, .. } => {
                let over = (bytes.len() - at).min(data.len());
                bytes[at..at + over].copy_from_slice(&data[..over]);
                bytes.extend_from_slice(&data[over..]);
            }
        }
    }
}

/// There is no room for the record: the limit is reached, or there is no memory to grow.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) len: usize,
    pub(crate) tag: u64,
    pub(crate) is_finished: bool,
}

/// A record's place, while its payload is written in pieces.
#[derive(Debug)]
#[cfg(any(test, not(feature = "std")))]
pub(crate) struct Reserved {
    /// Where the record begins, counted in bytes since the ring was made.
    start: usize,
    written: usize,
}

pub(crate) struct Ring {
    storage: Storage,
    /// The storage's, which every position needs.
    capacity: usize,
    head: usize,
    used: usize,
    records: usize,
    /// The bytes of all records that are gone. It wraps around.
    #[cfg(any(test, not(feature = "std")))]
    gone: usize,
}

impl Ring {
    pub(crate) const fn new(storage: Storage) -> Self {
        Self {
            capacity: storage.capacity(),
            storage,
            head: 0,
            used: 0,
            records: 0,
            #[cfg(any(test, not(feature = "std")))]
            gone: 0,
        }
    }

    /// Bytes in use, headers included.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    pub(crate) const fn records(&self) -> usize {
        self.records
    }

    /// Appends a record whose payload is `front_len` bytes that `write_front` writes, followed by `back`.
    #[cfg(any(test, feature = "std"))]
    #[inline]
    pub(crate) fn push(
        &mut self,
        tag: u64,
        front_len: usize,
        write_front: impl FnOnce(&mut [u8]),
        back: &[u8],
    ) -> Result<(), NoRoom> {
        let len = front_len + back.len();
        let size = HEADER + len;
        if self.capacity - self.used < size {
            self.grow(self.used + size)?;
        }
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&u32::try_from(len).map_err(|_| NoRoom)?.to_le_bytes());
        header[4..].copy_from_slice(&tag.to_le_bytes());
        let at = self.position(self.used);
        if let Some(space) = self.storage.touched(at, size) {
            // The usual case: memory that was used before, and in one piece.
            let (header_space, space) = space.split_at_mut(HEADER);
            let (front_space, back_space) = space.split_at_mut(front_len);
            header_space.copy_from_slice(&header);
            write_front(front_space);
            back_space.copy_from_slice(back);
            self.used += size;
        } else {
            let mut front = [0; MAX_FRONT];
            let front = front.get_mut(..front_len).ok_or(NoRoom)?;
            write_front(front);
            for piece in [&header[..], front, back] {
                self.append(piece);
            }
        }
        self.records += 1;
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

    /// The record that begins `offset` bytes behind the oldest one; `None` at the end.
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

    /// Copies bytes out, from `offset` bytes behind the start of the oldest record.
    #[inline]
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) {
        let at = self.position(offset);
        match self.storage.bytes().get(at..at + out.len()) {
            // The usual case: in one piece.
            Some(piece) => out.copy_from_slice(piece),
            None => self.read_around(at, out),
        }
    }

    /// Copies bytes out that go on at the buffer's beginning.
    #[cold]
    fn read_around(&self, at: usize, out: &mut [u8]) {
        let bytes = self.storage.bytes();
        let before_end = (self.capacity - at).min(out.len());
        if let Some((first, second)) = out.split_at_mut_checked(before_end)
            && let Some(from) = bytes.get(at..at + first.len())
            && let Some(around) = bytes.get(..second.len())
        {
            first.copy_from_slice(from);
            second.copy_from_slice(around);
        }
    }

    /// Forgets the oldest records: `records` of them, `bytes` in all.
    pub(crate) fn release(&mut self, records: usize, bytes: usize) {
        self.records -= records;
        self.used -= bytes;
        #[cfg(any(test, not(feature = "std")))]
        {
            self.gone = self.gone.wrapping_add(bytes);
        }
        // An empty ring starts over at its beginning, which keeps the memory it touches small.
        self.head = if self.used == 0 {
            0
        } else {
            self.position(bytes)
        };
    }

    pub(crate) fn clear(&mut self) {
        self.release(self.records, self.used);
    }

    /// Whether [`shrink`](Self::shrink) would give memory back.
    #[cfg(feature = "alloc")]
    pub(crate) fn is_oversized(&self) -> bool {
        match &self.storage {
            Storage::Static(_) => false,
            Storage::Boxed { bytes, .. } => bytes.capacity() > INITIAL,
        }
    }

    /// Gives the memory of an empty ring back.
    #[cfg(feature = "alloc")]
    pub(crate) fn shrink(&mut self) {
        if self.used == 0
            && let Storage::Boxed { bytes, .. } = &mut self.storage
        {
            *bytes = Vec::new();
            self.capacity = 0;
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

    #[cfg(not(feature = "alloc"))]
    fn grow(&mut self, _needed: usize) -> Result<(), NoRoom> {
        Err(NoRoom)
    }

    /// Doubles the capacity until `needed` bytes fit, and lays the records out anew from the start.
    #[cfg(feature = "alloc")]
    fn grow(&mut self, needed: usize) -> Result<(), NoRoom> {
        let Storage::Boxed { bytes, limit } = &mut self.storage else {
            return Err(NoRoom);
        };
        if needed > *limit {
            return Err(NoRoom);
        }
        let capacity = needed
            .checked_next_power_of_two()
            .unwrap_or(*limit)
            .max(bytes.capacity().saturating_mul(2))
            .max(INITIAL)
            .min(*limit);
        let mut larger = Vec::new();
        larger.try_reserve_exact(capacity).map_err(|_| NoRoom)?;
        let before_end = (bytes.capacity() - self.head).min(self.used);
        larger.extend_from_slice(&bytes[self.head..self.head + before_end]);
        larger.extend_from_slice(&bytes[..self.used - before_end]);
        self.capacity = larger.capacity();
        *bytes = larger;
        self.head = 0;
        Ok(())
    }
}

/// Records that are written in pieces: what is locked meanwhile is free between them.
#[cfg(any(test, not(feature = "std")))]
impl Ring {
    /// Appends a record that is to have a payload of `len` bytes.
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
        let start = self.gone.wrapping_add(self.used);
        self.overwrite(self.used, &header);
        self.used += size;
        self.records += 1;
        Ok(Reserved { start, written: 0 })
    }

    /// Writes the next piece of its payload, if it is still there.
    pub(crate) fn fill(&mut self, reserved: &mut Reserved, piece: &[u8]) {
        if let Some(offset) = self.offset(reserved) {
            self.overwrite(offset + HEADER + reserved.written, piece);
            reserved.written += piece.len();
        }
    }

    /// Its payload is complete.
    pub(crate) fn finish(&mut self, reserved: &Reserved) {
        if let Some(offset) = self.offset(reserved)
            && let Some(record) = self.record(offset)
        {
            self.overwrite(offset, &(record.len as u32).to_le_bytes());
        }
    }

    /// Where it is now; `None` when the ring was cleared meanwhile.
    fn offset(&self, reserved: &Reserved) -> Option<usize> {
        let offset = reserved.start.wrapping_sub(self.gone);
        (offset < self.used).then_some(offset)
    }

    /// Writes to bytes that were touched before.
    fn overwrite(&mut self, offset: usize, data: &[u8]) {
        let at = self.position(offset);
        let before_end = (self.capacity - at).min(data.len());
        if let Some((first, second)) = data.split_at_checked(before_end) {
            self.storage.write(at, first);
            self.storage.write(0, second);
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use proptest::prelude::*;

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
        /// In pieces of so many bytes.
        Reserve(Vec<u8>, usize),
        Release(usize),
        Shrink,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (prop::collection::vec(any::<u8>(), 0..90), 0..90usize)
                .prop_map(|(payload, split)| Op::Push(payload, split)),
            4 => (prop::collection::vec(any::<u8>(), 0..90), 1..90usize)
                .prop_map(|(payload, piece)| Op::Reserve(payload, piece)),
            2 => (0..6usize).prop_map(Op::Release),
            1 => Just(Op::Shrink),
        ]
    }

    fn agrees_with_a_plain_queue(mut ring: Ring, limit: usize, ops: Vec<Op>) {
        let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let size = |model: &VecDeque<(u64, Vec<u8>)>| -> usize {
            model
                .iter()
                .map(|(_, payload)| HEADER + payload.len())
                .sum()
        };
        for (tag, op) in (0..).zip(ops) {
            match op {
                Op::Push(payload, split) => {
                    let (front, back) = payload.split_at(split.min(payload.len()));
                    let fits = size(&model) + HEADER + payload.len() <= limit;
                    let write = |out: &mut [u8]| out.copy_from_slice(front);
                    assert_eq!(ring.push(tag, front.len(), write, back).is_ok(), fits);
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
                    let gone: VecDeque<_> = model.drain(..records.min(model.len())).collect();
                    ring.release(gone.len(), size(&gone));
                }
                Op::Shrink => ring.shrink(),
            }
            assert_eq!(ring.used(), size(&model));
            assert_eq!(ring.records(), model.len());
            assert_eq!(payloads(&ring), Vec::from(model.clone()));
        }
    }

    proptest! {
        #[test]
        fn a_static_ring_is_a_queue_within_its_bounds(
            ops in prop::collection::vec(op(), 1..80),
            len in 0..400usize,
        ) {
            let storage = Storage::Static(Box::leak(vec![0; len].into_boxed_slice()));
            agrees_with_a_plain_queue(Ring::new(storage), len, ops);
        }

        #[test]
        fn a_growing_ring_is_a_queue_within_its_limit(
            ops in prop::collection::vec(op(), 1..80),
            limit in 0..2000usize,
        ) {
            agrees_with_a_plain_queue(Ring::new(Storage::growing(limit)), limit, ops);
        }
    }

    #[test]
    fn a_growing_ring_holds_what_reaches_its_limit_to_the_byte() {
        let mut ring = Ring::new(Storage::growing(2 * (HEADER + 10)));
        assert_eq!(ring.push(0, 0, |_| {}, &[1; 10]), Ok(()));
        assert_eq!(ring.push(1, 0, |_| {}, &[2; 10]), Ok(()));
        assert_eq!(ring.push(2, 0, |_| {}, &[]), Err(NoRoom));
        assert_eq!(ring.used(), 2 * (HEADER + 10));
    }

    #[test]
    fn what_goes_on_at_the_beginning_is_in_one_piece_when_the_ring_has_grown() {
        let mut ring = Ring::new(Storage::growing(10 * INITIAL));
        let payload = |tag: u64| vec![tag as u8; 1_000];
        let mut model = VecDeque::new();
        // Full, then a part of it gone, then full again beyond its end.
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
    fn a_ring_grows_by_doubling_and_gives_its_memory_back_when_empty() {
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
