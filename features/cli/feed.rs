//! What has happened, in order, for any number of readers, none of which can hold up the others or the collector.

use alloc::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::item::Item;
use super::prelude::*;

/// The items, within a bound on their memory: the oldest go first.
pub(super) struct Feed {
    /// Distinguishes this feed's positions from those of another process.
    pub(super) epoch: String,
    items: Mutex<Items>,
    next: watch::Sender<u64>,
}

struct Items {
    /// The position of the first one.
    first: u64,
    items: VecDeque<Arc<Item>>,
    cost: usize,
    max_cost: usize,
}

/// Some items, from a position on.
pub(super) struct Portion {
    pub(super) items: Vec<Arc<Item>>,
    /// The position of the first one.
    pub(super) first: u64,
    /// How many before it are not there any more.
    pub(super) missed: u64,
}

impl Feed {
    pub(super) fn new(epoch: String, max_cost: usize) -> Self {
        Self {
            epoch,
            items: Mutex::new(Items {
                first: 0,
                items: VecDeque::new(),
                cost: 0,
                max_cost,
            }),
            next: watch::Sender::new(0),
        }
    }

    fn items(&self) -> MutexGuard<'_, Items> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, item: Arc<Item>) {
        let mut items = self.items();
        if matches!(*item, Item::Clear) {
            items.first += items.items.len() as u64;
            items.items.clear();
            items.cost = 0;
        }
        items.cost += item.cost();
        items.items.push_back(item);
        while items.cost > items.max_cost
            && let Some(oldest) = items.items.pop_front()
        {
            items.first += 1;
            items.cost -= oldest.cost();
        }
        let next = items.first + items.items.len() as u64;
        drop(items);
        // Another push may have been faster.
        self.next.send_if_modified(|seen| {
            let is_news = next > *seen;
            *seen = next.max(*seen);
            is_news
        });
    }

    /// At most `max` items from this position on.
    pub(super) fn read(&self, from: u64, max: usize) -> Portion {
        let items = self.items();
        let first = from.max(items.first);
        let skipped = usize::try_from(first - items.first).unwrap_or(usize::MAX);
        Portion {
            items: items
                .items
                .iter()
                .skip(skipped)
                .take(max)
                .cloned()
                .collect(),
            first,
            missed: first - from.min(first),
        }
    }

    /// The position after the last item, whose changes can be waited for.
    pub(super) fn next(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Arc<Item> {
        Arc::new(Item::said("test", None, text.to_owned()))
    }

    #[test]
    fn a_reader_is_told_how_much_it_missed() {
        let feed = Feed::new(String::new(), 1_000);
        for n in 0..100 {
            feed.push(said(&n.to_string()));
        }
        let portion = feed.read(10, 2);
        assert_eq!(
            (portion.first, portion.missed, portion.items.len()),
            (93, 83, 2)
        );
        assert_eq!(feed.read(95, 10).missed, 0);
        assert_eq!(feed.read(100, 10).items.len(), 0);
        assert_eq!(*feed.next().borrow(), 100);
    }

    #[test]
    fn after_a_clear_nothing_of_before_is_left() {
        let feed = Feed::new(String::new(), 1_000);
        feed.push(said("before"));
        feed.push(Arc::new(Item::Clear));
        feed.push(said("after"));
        let portion = feed.read(0, 10);
        assert_eq!((portion.first, portion.items.len()), (1, 2));
        assert!(matches!(*portion.items[0], Item::Clear));
    }
}
