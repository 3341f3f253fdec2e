//! The event that all contestants log.

use core::hint::black_box;
use serde::Serialize;

/// Its name.
pub const NAME: &str = "sampling.done";

/// Its data: three fields.
#[derive(Clone, Copy, Serialize)]
pub struct Data {
    /// An integer.
    pub tokens: i64,
    /// A flag.
    pub cached: bool,
    /// A text.
    pub model: &'static str,
}

/// About 240 bytes on the wire.
#[inline]
#[must_use]
pub fn usual() -> Data {
    black_box(Data {
        tokens: 1_234_567,
        cached: true,
        model: "a model with 25 letters..",
    })
}

/// About 300 bytes on the wire.
#[inline]
#[must_use]
pub fn large() -> Data {
    black_box(Data {
        tokens: 1_234_567,
        cached: true,
        model: "a model whose name has some eighty-five letters, so that its events are larger......",
    })
}
