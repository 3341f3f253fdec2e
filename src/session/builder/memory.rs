//! The memory of a session: provided by the program, or on the heap.

use crate::engine::ring::{HEADER, Storage};
use crate::engine::{END_BYTES, EndSlot};
use crate::session::identity::{ID_BYTES, IdPlace};
use crate::session::options::Options;
use crate::session::place::Place;
use crate::session::shared::SessionCore;

/// Memory for one session without an allocator: `QUEUE` bytes for the queue and `BATCH` bytes for one request's body.
///
/// Put it into a `static`, in a cell that hands it out once as `&'static mut`, such as those of the `static_cell`
/// crate.
pub struct Memory<C: 'static, const QUEUE: usize, const BATCH: usize> {
    pub(super) core: Place<SessionCore<C>>,
    pub(super) queue: [u8; QUEUE],
    pub(super) batch: [u8; BATCH],
}

impl<C, const QUEUE: usize, const BATCH: usize> Memory<C, QUEUE, BATCH> {
    /// The minimum in bytes: two events of [`Options::MIN_EVENT_BYTES`], `SESSION_END` and an id.
    const MIN_QUEUE: usize = 2 * (Options::MIN_EVENT_BYTES + HEADER) + Places::OVERHEAD;

    /// The minimum in bytes: an event of [`Options::MIN_EVENT_BYTES`] and the shortest body around it.
    const MIN_BATCH: usize = Options::MIN_EVENT_BYTES + 63;

    /// Creates memory for a session. Sizes too small for any session do not compile;
    /// [`Builder::build_in`](super::Builder::build_in) says what a session with given options needs.
    ///
    /// ```compile_fail
    /// # struct Clock;
    /// let queue_of_a_kibibyte = tinkex_telemetry::session::Memory::<Clock, 1024, 1024>::new();
    /// ```
    /// ```compile_fail
    /// # struct Clock;
    /// let batch_of_half_a_kibibyte = tinkex_telemetry::session::Memory::<Clock, 2048, 512>::new();
    /// ```
    /// ```
    /// # struct Clock;
    /// let smallest = tinkex_telemetry::session::Memory::<Clock, 1304, 575>::new();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        const {
            // The messages cannot be formatted here, so the last assertion checks their numbers.
            assert!(
                QUEUE >= Self::MIN_QUEUE,
                "the queue of a Memory needs at least 1304 bytes"
            );
            assert!(
                BATCH >= Self::MIN_BATCH,
                "the batch buffer of a Memory needs at least 575 bytes"
            );
            assert!(Self::MIN_QUEUE == 1304 && Self::MIN_BATCH == 575);
        }
        Self {
            core: Place::Empty,
            queue: [0; QUEUE],
            batch: [0; BATCH],
        }
    }
}

impl<C, const QUEUE: usize, const BATCH: usize> Default for Memory<C, QUEUE, BATCH> {
    fn default() -> Self {
        Self::new()
    }
}

/// The memory that a session uses besides its own state.
pub(super) struct Places {
    pub(super) storage: Storage,
    pub(super) end_slot: EndSlot,
    pub(super) id: IdPlace,
}

impl Places {
    /// The bytes that `SESSION_END` and an id take from a queue's provided memory.
    pub(super) const OVERHEAD: usize = END_BYTES + ID_BYTES;

    #[cfg(has_arc)]
    pub(super) fn growing(max_queue_bytes: usize) -> Self {
        Self {
            storage: Storage::growing(max_queue_bytes),
            end_slot: EndSlot::new(),
            id: IdPlace,
        }
    }

    /// Divides `queue`, which must have at least [`OVERHEAD`](Self::OVERHEAD) bytes.
    pub(super) fn within(queue: &'static mut [u8]) -> Self {
        let (end, queue) = queue.split_at_mut(END_BYTES);
        let (id, queue) = queue.split_at_mut(ID_BYTES);
        #[cfg(feature = "alloc")]
        let _ = id;
        Self {
            storage: Storage::fixed(queue),
            end_slot: EndSlot::within(end),
            #[cfg(feature = "alloc")]
            id: IdPlace,
            #[cfg(not(feature = "alloc"))]
            id,
        }
    }
}
