//! The event that all contestants log.

use core::hint::black_box;
use serde::Serialize;

pub(crate) const NAME: &str = "sampling.done";

#[derive(Clone, Copy, Serialize)]
pub(crate) struct Data {
    tokens: i64,
    cached: bool,
    model: &'static str,
}

/// About 240 bytes on the wire.
pub(crate) fn usual() -> Data {
    black_box(Data {
        tokens: 1_234_567,
        cached: true,
        model: "a model with 25 letters..",
    })
}

/// About 300 bytes on the wire.
pub(crate) fn large() -> Data {
    black_box(Data {
        tokens: 1_234_567,
        cached: true,
        model: "a model whose name has some eighty-five letters, so that its events are larger......",
    })
}
