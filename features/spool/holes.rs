//! Holes: which events of a run could not be read, so that copies of them are not taken for what was sent already.

use alloc::vec::Vec;

/// Ranges of indices, each with its first and its last one, in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Holes(Vec<(u64, u64)>);

impl Holes {
    /// How many ranges are kept apart.
    const MOST: usize = 256;

    pub(super) fn contains(&self, index: u64) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&index))
    }

    /// Enters what is missing between two indices, if anything is. An event that is entered although it was read costs
    /// no more than a repetition.
    pub(super) fn enter(&mut self, behind: Option<u64>, before: Option<u64>) {
        let first = behind.map_or(Some(0), |behind| behind.checked_add(1));
        let last = before.map_or(Some(u64::MAX), |before| before.checked_sub(1));
        if let (Some(first), Some(last)) = (first, last)
            && first <= last
        {
            self.add((first, last));
        }
    }

    pub(super) fn extend(&mut self, others: &mut Self) {
        for range in others.0.drain(..) {
            self.add(range);
        }
    }

    fn add(&mut self, range: (u64, u64)) {
        if self.0.len() < Self::MOST {
            self.0.push(range);
        } else if let Some(last) = self.0.last_mut() {
            *last = (last.0.min(range.0), last.1.max(range.1));
        }
    }

    /// A copy of this event is settled.
    pub(super) fn fill(&mut self, index: u64) {
        let Some(at) = self
            .0
            .iter()
            .position(|(first, last)| (*first..=*last).contains(&index))
        else {
            return;
        };
        let (first, last) = self.0.swap_remove(at);
        if first < index {
            self.add((first, index - 1));
        }
        if index < last {
            self.add((index + 1, last));
        }
    }

    /// Nothing behind this index is missing: it has not been read yet.
    pub(super) fn end_at(&mut self, last_index: u64) {
        self.0.retain_mut(|(first, last)| {
            *last = last_index.min(*last);
            first <= last
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(holes: &Holes) -> Vec<u64> {
        (0..100).filter(|index| holes.contains(*index)).collect()
    }

    #[test]
    fn what_lies_between_two_events_is_a_hole_until_it_is_filled() {
        let mut holes = Holes::default();
        holes.enter(Some(3), Some(4));
        holes.enter(None, Some(0));
        holes.enter(Some(u64::MAX), None);
        assert!(found(&holes).is_empty());
        holes.enter(None, Some(2));
        holes.enter(Some(4), Some(9));
        assert_eq!(found(&holes), [0, 1, 5, 6, 7, 8]);
        holes.fill(6);
        holes.fill(0);
        holes.fill(50);
        assert_eq!(found(&holes), [1, 5, 7, 8]);
        [1, 5, 7, 8].into_iter().for_each(|index| holes.fill(index));
        assert!(found(&holes).is_empty());
    }

    #[test]
    fn a_hole_at_the_end_goes_as_far_as_events_were_read() {
        let mut holes = Holes::default();
        holes.enter(Some(4), None);
        assert!(holes.contains(u64::MAX));
        holes.fill(5);
        holes.fill(7);
        holes.end_at(7);
        assert_eq!(found(&holes), [6]);
        holes.end_at(5);
        assert!(found(&holes).is_empty());
    }

    #[test]
    fn many_holes_take_no_more_memory_than_some() {
        let mut holes = Holes::default();
        for index in 0..10_000 {
            holes.enter(Some(10 * index), Some(10 * index + 2));
        }
        assert_eq!(holes.0.len(), Holes::MOST);
        assert!((0..10_000).all(|index| holes.contains(10 * index + 1)));
    }
}
