//! The pace of requests behind a backlog: slow at first, quicker as long as the backend takes them, and never all of its
//! time.

use crate::time::Instant;
use core::time::Duration;

/// The pause between two requests, while there is a backlog.
#[derive(Debug)]
pub(super) struct Pace {
    pause: Duration,
    /// The earliest time for the next request.
    next: Option<Instant>,
}

impl Pace {
    /// At the beginning, and after each failure: many senders may come back at once.
    pub(super) const SLOWEST: Duration = Duration::from_millis(100);

    /// Also for a backend that answers in no time.
    pub(super) const QUICKEST: Duration = Duration::from_millis(2);

    /// The pause is at least this part of the time that the request took, so that a backend which is slow, perhaps
    /// because it is busy, has time for others.
    const PART: u32 = 4;

    /// With each request that is accepted the pause becomes shorter by this part: from the slowest to the quickest pace
    /// in less than a second.
    const STEP: u32 = 8;

    pub(super) const fn new() -> Self {
        Self {
            pause: Self::SLOWEST,
            next: None,
        }
    }

    /// No request goes out before this time.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    /// A request that began then was accepted.
    pub(super) fn note_accepted(&mut self, began: Instant, now: Instant) {
        let least = now.saturating_duration_since(began) / Self::PART;
        let shorter = self.pause - self.pause / Self::STEP;
        self.pause = shorter.max(least).clamp(Self::QUICKEST, Self::SLOWEST);
        self.next = now.checked_add(self.pause);
    }

    /// The backend has answered, and not accepted it for what is in it: the pace stays.
    pub(super) fn note_answered(&mut self, now: Instant) {
        self.next = now.checked_add(self.pause);
    }

    /// The backend is away, or too busy.
    pub(super) fn note_failed(&mut self, now: Instant) {
        self.pause = Self::SLOWEST;
        self.note_answered(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends so many requests that take so long. Returns how long that takes, and the last pause.
    fn send(pace: &mut Pace, now: &mut Instant, requests: u32, took: Duration) -> Duration {
        let start = *now;
        for _ in 0..requests {
            *now = (*now).max(pace.next().unwrap_or(*now));
            let began = *now;
            *now = now.checked_add(took).expect("in range");
            pace.note_accepted(began, *now);
        }
        now.saturating_duration_since(start)
    }

    #[test]
    fn an_hour_at_a_hundred_events_a_second_takes_seconds_where_answers_come_at_once() {
        let (mut pace, mut now) = (Pace::new(), Instant::ORIGIN);
        let took = send(&mut pace, &mut now, 3_600, Duration::ZERO);
        assert!(took < Duration::from_secs(9), "{took:?}");
        assert_eq!(pace.pause, Pace::QUICKEST);
    }

    #[test]
    fn it_begins_slowly_and_is_slow_again_after_a_failure() {
        let (mut pace, mut now) = (Pace::new(), Instant::ORIGIN);
        let first = send(&mut pace, &mut now, 3, Duration::ZERO);
        assert!(first > Duration::from_millis(150), "{first:?}");
        let _ = send(&mut pace, &mut now, 100, Duration::ZERO);
        pace.note_failed(now);
        assert_eq!(pace.next(), now.checked_add(Pace::SLOWEST));
        let again = send(&mut pace, &mut now, 3, Duration::ZERO);
        assert!(again > Duration::from_millis(150), "{again:?}");
    }

    #[test]
    fn a_slow_backend_is_left_a_fifth_of_its_time_up_to_the_slowest_pace() {
        for (took, pause) in [(10, 2_500), (40, 10_000), (400, 100_000), (5_000, 100_000)] {
            let (mut pace, mut now) = (Pace::new(), Instant::ORIGIN);
            let _ = send(&mut pace, &mut now, 100, Duration::from_millis(took));
            assert_eq!(pace.pause, Duration::from_micros(pause), "{took} ms");
        }
    }

    #[test]
    fn what_is_refused_for_its_content_neither_speeds_it_up_nor_slows_it_down() {
        let (mut pace, mut now) = (Pace::new(), Instant::ORIGIN);
        let _ = send(&mut pace, &mut now, 100, Duration::ZERO);
        pace.note_answered(now);
        assert_eq!(pace.next(), now.checked_add(Pace::QUICKEST));
    }
}
