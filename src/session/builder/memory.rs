//! Where a session lives: in memory that the program gives, or on the heap.

use crate::engine::ring::{HEADER, Storage};
use crate::engine::{END_BYTES, EndSlot};
use crate::session::identity::{ID_BYTES, IdPlace};
use crate::session::options::Options;
use crate::session::shared::Core;

/// Memory for one session without an allocator: a queue and a buffer for one request's body, in bytes.
///
/// Put it into a `static`, with a cell that gives it out once as `&'static mut` (the `static_cell` crate has some).
pub struct Memory<C: 'static, const QUEUE: usize, const BATCH: usize> {
    pub(super) core: Place<C>,
    pub(super) queue: [u8; QUEUE],
    pub(super) batch: [u8; BATCH],
}

/// Where a session comes to be.
///
/// Not an `Option`: that may keep its `None` in a byte of the session's own, as a value other than zero, and the whole
/// memory would be an initialized variable, with a copy in the flash of a device.
#[repr(u8)]
#[expect(clippy::large_enum_variant, reason = "it is memory set aside")]
pub(super) enum Place<C> {
    Empty = 0,
    Taken(Core<C>) = 1,
}

impl<C> Place<C> {
    pub(super) fn insert(&mut self, core: Core<C>) -> &mut Core<C> {
        *self = Self::Taken(core);
        match self {
            Self::Taken(core) => core,
            Self::Empty => unreachable!("it was just taken"),
        }
    }
}

impl<C, const QUEUE: usize, const BATCH: usize> Memory<C, QUEUE, BATCH> {
    /// The least that works: two events of [`Options::MIN_EVENT_BYTES`], `SESSION_END` and an id.
    const LEAST_QUEUE: usize = 2 * (Options::MIN_EVENT_BYTES + HEADER) + Places::BESIDE;

    /// The least that works: an event of [`Options::MIN_EVENT_BYTES`] and the shortest head of a request.
    const LEAST_BATCH: usize = Options::MIN_EVENT_BYTES + 63;

    /// Memory that is not in use. Sizes that no session can live in do not compile; what a session with given options
    /// needs, [`Builder::build_in`](super::Builder::build_in) says.
    ///
    /// ```compile_fail
    /// # struct Clock;
    /// let queue_of_a_kibibyte = tinkex_telemetry::Memory::<Clock, 1024, 1024>::new();
    /// ```
    /// ```compile_fail
    /// # struct Clock;
    /// let batch_of_half_a_kibibyte = tinkex_telemetry::Memory::<Clock, 2048, 512>::new();
    /// ```
    /// ```
    /// # struct Clock;
    /// let smallest = tinkex_telemetry::Memory::<Clock, 1304, 575>::new();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        const {
            // The message is checked below: it cannot be put together here.
            assert!(
                QUEUE >= Self::LEAST_QUEUE,
                "the queue of a Memory needs at least 1304 bytes"
            );
            assert!(
                BATCH >= Self::LEAST_BATCH,
                "the batch buffer of a Memory needs at least 575 bytes"
            );
            assert!(Self::LEAST_QUEUE == 1304 && Self::LEAST_BATCH == 575);
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

/// Where a session keeps what does not fit into its own state.
pub(super) struct Places {
    pub(super) storage: Storage,
    pub(super) end_slot: EndSlot,
    pub(super) id: IdPlace,
}

impl Places {
    /// What `SESSION_END` and an id take of a queue that is given.
    pub(super) const BESIDE: usize = END_BYTES + ID_BYTES;

    #[cfg(has_arc)]
    pub(super) fn growing(max_queue_bytes: usize) -> Self {
        Self {
            storage: Storage::growing(max_queue_bytes),
            end_slot: EndSlot::new(),
            id: IdPlace,
        }
    }

    /// `queue` is large enough.
    pub(super) fn within(queue: &'static mut [u8]) -> Self {
        let (end, queue) = queue.split_at_mut(END_BYTES);
        let (id, queue) = queue.split_at_mut(ID_BYTES);
        #[cfg(feature = "alloc")]
        let _ = id;
        Self {
            storage: Storage::Static(queue),
            end_slot: EndSlot::within(end),
            #[cfg(feature = "alloc")]
            id: IdPlace,
            #[cfg(not(feature = "alloc"))]
            id,
        }
    }
}
