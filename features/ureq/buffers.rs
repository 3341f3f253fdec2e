//! The buffers of a connection, which grow with what they are used for.

use alloc::vec::Vec;

/// How much of a request is written at once, in bytes: a batch of the usual size, head included. A longer one is
/// written in pieces of this size or a little more.
pub(super) const WRITE: usize = 64 * 1024;

/// What ureq can always add to the output, in bytes. It expects a line of a head to fit.
const FREE_OUTPUT: usize = 16 * 1024;

/// The input's first size in bytes: a response to a batch.
const FIRST_INPUT: usize = 4 * 1024;

/// ureq puts a request into the output, from where it is written when there is enough of it.
#[derive(Debug)]
pub(super) struct Buffers {
    output: Vec<u8>,
    /// The beginning of the output that waits to be written.
    waiting: usize,
    input: Vec<u8>,
    /// The part of the input that is received and not consumed.
    start: usize,
    end: usize,
    max_input: usize,
    /// The last read left no room.
    was_filled: bool,
    /// ureq could use what it saw last; if not, it must see more.
    has_progress: bool,
}

impl Buffers {
    /// Empty ones. The head of a response must fit into `max_input` bytes.
    pub(super) fn new(max_input: usize) -> Self {
        Self {
            output: Vec::new(),
            waiting: 0,
            input: Vec::new(),
            start: 0,
            end: 0,
            max_input,
            was_filled: false,
            has_progress: false,
        }
    }

    /// What waits to be written.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.output[..self.waiting]
    }

    /// Adds the first `amount` bytes of `output()` to what waits.
    pub(super) fn add_waiting(&mut self, amount: usize) {
        self.waiting = (self.waiting + amount).min(self.output.len());
    }

    pub(super) fn clear_waiting(&mut self) {
        self.waiting = 0;
    }

    fn move_to_front(&mut self) {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    fn grow_input(&mut self) {
        let size = (2 * self.input.len()).max(FIRST_INPUT);
        self.input.resize(size.min(self.max_input), 0);
        self.was_filled = false;
    }
}

impl ureq::unversioned::transport::Buffers for Buffers {
    fn output(&mut self) -> &mut [u8] {
        let least = self.waiting + FREE_OUTPUT;
        if self.output.len() < least {
            self.output.resize(least, 0);
        }
        &mut self.output[self.waiting..]
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// Empty if the input is full and as long as it may be.
    fn input_append_buf(&mut self) -> &mut [u8] {
        self.move_to_front();
        if self.was_filled || self.end == self.input.len() {
            self.grow_input();
        }
        &mut self.input[self.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.end = (self.end + amount).min(self.input.len());
        self.was_filled = self.end == self.input.len();
    }

    fn input_consume(&mut self, amount: usize) {
        self.has_progress = amount > 0;
        self.start = (self.start + amount).min(self.end);
    }

    /// The first is room for a piece of a body that ureq encodes.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.move_to_front();
        if self.input.len() < self.end + FIRST_INPUT {
            self.input.resize(self.end + FIRST_INPUT, 0);
        }
        self.output();
        (
            &mut self.input[self.end..],
            &mut self.output[self.waiting..],
        )
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.has_progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::unversioned::transport::Buffers as _;

    const MAX_INPUT: usize = 10_000;

    fn receive(buffers: &mut Buffers, bytes: &[u8]) -> usize {
        let free = buffers.input_append_buf();
        let amount = free.len().min(bytes.len());
        free[..amount].copy_from_slice(&bytes[..amount]);
        buffers.input_appended(amount);
        amount
    }

    #[test]
    fn what_is_added_in_pieces_waits_in_order() {
        let mut buffers = Buffers::new(MAX_INPUT);
        let mut expected = Vec::new();
        for piece in 0..20 {
            let output = buffers.output();
            assert!(output.len() >= FREE_OUTPUT);
            output[..5_000].fill(piece);
            buffers.add_waiting(5_000);
            expected.extend_from_slice(&[piece; 5_000]);
        }
        assert_eq!(buffers.waiting(), expected);
        buffers.clear_waiting();
        assert_eq!(buffers.waiting(), b"");
    }

    #[test]
    fn the_input_keeps_what_is_not_consumed_and_grows_to_its_end_only() {
        let bytes: Vec<u8> = (0..=250).cycle().take(30_000).collect();
        let mut buffers = Buffers::new(MAX_INPUT);
        let mut received = 0;
        while buffers.input().len() < MAX_INPUT {
            received += receive(&mut buffers, &bytes[received..]);
            assert_eq!(buffers.input(), &bytes[..received]);
        }
        assert_eq!(receive(&mut buffers, b"more"), 0);
        let mut consumed = 0;
        while consumed < bytes.len() {
            let amount = buffers.input().len().min(777);
            buffers.input_consume(amount);
            consumed += amount;
            received += receive(&mut buffers, &bytes[received..]);
            assert_eq!(buffers.input(), &bytes[consumed..received]);
        }
    }

    #[test]
    fn a_short_response_leaves_the_input_small() {
        let mut buffers = Buffers::new(MAX_INPUT);
        for _ in 0..100 {
            receive(&mut buffers, &[b'x'; 300]);
            buffers.input_consume(300);
        }
        assert_eq!(buffers.input.len(), FIRST_INPUT);
        assert_eq!(buffers.output.len(), 0);
    }

    #[test]
    fn input_that_was_of_no_use_needs_more() {
        let mut buffers = Buffers::new(MAX_INPUT);
        receive(&mut buffers, b"half");
        buffers.input_consume(0);
        assert!(!buffers.can_use_input());
        buffers.input_consume(1);
        assert!(buffers.can_use_input());
        buffers.input_consume(3);
        assert!(!buffers.can_use_input());
    }

    #[test]
    fn a_body_that_is_encoded_has_room_behind_a_full_input() {
        let mut buffers = Buffers::new(MAX_INPUT);
        while receive(&mut buffers, &[b'x'; MAX_INPUT]) > 0 {}
        let (piece, output) = buffers.tmp_and_output();
        assert!(!piece.is_empty() && output.len() >= FREE_OUTPUT);
        assert_eq!(buffers.input(), [b'x'; MAX_INPUT]);
    }
}
