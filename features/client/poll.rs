//! What follows each poll for a result: decided without I/O.

use super::api::{MAX_BYTES, MAX_SMALL_BYTES};
use super::call::backoff;
use super::error::Category;
use super::memory;
use super::poll_response::{PollResponse, classify};
use crate::bus::QueueState;
use alloc::borrow::Cow;
use alloc::string::String;
use core::time::Duration;

/// The wait where the backend asks for none, so that it is not polled in a busy loop.
const MIN_WAIT: Duration = Duration::from_millis(100);
/// The longest wait that the backend's own responses can cause: nothing else would tell that it is there again.
const MAX_WAIT: Duration = Duration::from_secs(5 * 60);
/// The longest wait after responses that come at once and ask for none; with a wait of their own, one second.
const MAX_QUICK_WAIT: Duration = Duration::from_secs(10);
/// A response that took this long was held back until there was something to report.
const HELD: Duration = Duration::from_secs(1);
/// The number of malformed responses in a row that are retried.
const MAX_MALFORMED: u32 = 3;

/// The polls for one request's result.
pub(super) struct Poll {
    /// How much of a response is read, in bytes.
    max_bytes: usize,
    /// The number of polls so far.
    iteration: u32,
    /// Polls without a usable response, in a row.
    failures: u32,
    /// Malformed responses in a row.
    malformed: u32,
    /// Responses so far that report the request as queued, but not paused.
    queued: u32,
    /// Responses in a row that came at once and said to poll again.
    quick: u32,
    /// Whether the last response was held back.
    is_held: bool,
    /// Whether the last response was one of these.
    is_quick: bool,
    allow_metadata_only: Option<bool>,
}

/// What follows a poll.
#[derive(Debug, PartialEq)]
pub(super) enum Next<'a> {
    /// Poll again after this wait.
    PollAgain(Duration),
    /// Report the queue state, then poll again after `wait`.
    Queued {
        state: QueueState,
        reason: Option<Cow<'a, str>>,
        queue_depth: Option<u64>,
        wait: Duration,
    },
    /// The request is done; this is its result, as JSON.
    Done(&'a [u8]),
    /// The request has failed.
    Failed { category: Category, message: String },
    /// The backend has lost the request: submit it again.
    Resubmit,
    /// Fail with the status of the response.
    Refused,
    /// Fail with an invalid response, for this reason.
    Invalid(&'static str),
}

impl Poll {
    pub(super) const fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            iteration: 0,
            failures: 0,
            malformed: 0,
            queued: 0,
            quick: 0,
            is_held: false,
            is_quick: false,
            allow_metadata_only: None,
        }
    }

    /// The value of `X-Tinker-Request-Iteration`.
    pub(super) const fn iteration(&self) -> u32 {
        self.iteration
    }

    /// The number of polls in a row without a usable response, which the next one retries.
    pub(super) const fn retries(&self) -> u32 {
        self.failures
    }

    /// The field of the same name in the next poll.
    pub(super) const fn allow_metadata_only(&self) -> Option<bool> {
        self.allow_metadata_only
    }

    /// Records a poll without a response. Returns the wait before the next one.
    pub(super) fn no_response(&mut self) -> Duration {
        self.iteration = self.iteration.wrapping_add(1);
        self.failures += 1;
        backoff(self.failures - 1)
    }

    /// Records how long the response to the next [`next`](Self::next) took.
    pub(super) fn took(&mut self, duration: Duration) {
        self.is_held = duration >= HELD;
        if self.is_held {
            self.quick = 0;
        }
    }

    /// Whether the last response came at once and said only to poll again: such polls are reported as one request.
    pub(super) const fn is_quick(&self) -> bool {
        self.is_quick
    }

    /// The shortest wait before the next poll: doubled with each response that comes at once.
    fn quick_wait(&mut self, max: Duration) -> Duration {
        let doubled = MIN_WAIT.saturating_mul(1 << self.quick.min(16));
        self.quick = self.quick.saturating_add(1);
        doubled.min(max)
    }

    /// Records the response to a poll, and decides what follows.
    pub(super) fn next<'a>(&mut self, status: u16, body: &'a [u8]) -> Next<'a> {
        self.iteration = self.iteration.wrapping_add(1);
        self.is_quick = false;
        if matches!(status, 200..300 | 400 | 408)
            && let Err(reason) = self.check(body)
        {
            return Next::Invalid(reason);
        }
        match classify(status, body) {
            PollResponse::Done(result) => Next::Done(result),
            PollResponse::TryAgain {
                state,
                reason,
                retry_after,
                queue_depth,
            } => {
                self.understood();
                let own_wait = self.queue_wait(state);
                let floor = self.quick_wait(backoff(0));
                Next::Queued {
                    state,
                    reason,
                    queue_depth,
                    wait: retry_after.unwrap_or(own_wait).clamp(floor, MAX_WAIT),
                }
            }
            PollResponse::Pending => {
                self.understood();
                Next::PollAgain(self.quick_wait(MAX_QUICK_WAIT))
            }
            PollResponse::MetadataOnly => {
                self.understood();
                self.allow_metadata_only = Some(false);
                Next::PollAgain(self.quick_wait(MAX_QUICK_WAIT))
            }
            PollResponse::Failed { category, message } => Next::Failed { category, message },
            PollResponse::Expired => Next::Resubmit,
            PollResponse::Unavailable | PollResponse::Busy => {
                self.failures += 1;
                Next::PollAgain(backoff(self.failures - 1))
            }
            PollResponse::Malformed => self.malformed(status),
            PollResponse::Refused => Next::Refused,
        }
    }

    fn understood(&mut self) {
        (self.failures, self.malformed) = (0, 0);
        self.is_quick = !self.is_held;
    }

    fn queue_wait(&mut self, state: QueueState) -> Duration {
        match state {
            QueueState::PausedCapacity | QueueState::PausedRateLimit => backoff(0),
            _ => {
                self.queued += 1;
                backoff(self.queued - 1)
            }
        }
    }

    /// Refuses a response that is as long as what is read of it, or that would be copied while it is read.
    fn check(&self, body: &[u8]) -> Result<(), &'static str> {
        match body.len() {
            MAX_BYTES.. => Err("it is longer than 64 MiB"),
            MAX_SMALL_BYTES.. if self.max_bytes == MAX_SMALL_BYTES => {
                Err("it is longer than 1 MiB")
            }
            _ => memory::check(body),
        }
    }

    fn malformed(&mut self, status: u16) -> Next<'static> {
        if self.malformed < MAX_MALFORMED {
            self.malformed += 1;
            return Next::PollAgain(backoff(self.malformed - 1));
        }
        match status {
            400 => Next::Refused,
            _ => Next::Invalid("it is not a JSON object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use QueueState::{Active, PausedCapacity, PausedRateLimit, Unknown};
    use alloc::format;
    use alloc::vec;
    use alloc::vec::Vec;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn queued(state: QueueState, reason: Option<&'static str>, wait: Duration) -> Next<'static> {
        Next::Queued {
            state,
            reason: reason.map(Into::into),
            queue_depth: None,
            wait,
        }
    }

    fn failed(category: Category) -> Next<'static> {
        Next::Failed {
            category,
            message: "no".into(),
        }
    }

    /// The waits after `n` polls with the same response.
    fn waits(poll: &mut Poll, status: u16, body: &str, n: usize) -> Vec<u64> {
        let wait = |_| match poll.next(status, body.as_bytes()) {
            Next::PollAgain(wait) | Next::Queued { wait, .. } => wait.as_secs(),
            end => panic!("{end:?}"),
        };
        (0..n).map(wait).collect()
    }

    const QUEUED: &str = r#"{"type":"try_again","queue_state":"active"}"#;
    const PENDING: &str = r#"{"status":"pending"}"#;

    #[test]
    fn each_response_is_followed_by_its_row_of_the_table() {
        let bare = r#"{"type": "sample", "sequences": []}"#;
        let wrapped = r#"{"status":"completed","result":{"path": 1}}"#;
        let capacity = r#"{"type":"try_again","queue_state":"paused_capacity",
            "queue_state_reason":"no room"}"#;
        let rate = r#"{"type":"try_again","queue_state":"paused_rate_limit","retry_after_ms":250}"#;
        let at_once = r#"{"type":"try_again","queue_state":"of tomorrow","retry_after_ms":0}"#;
        let metadata = r#"{"status":"complete_metadata","response_payload_size":7}"#;
        let nested = r#"{"status":"failed","error":{"category":"user","message":"no"}}"#;
        let again = || Next::PollAgain(seconds(1));
        let rows = [
            (200, bare, Next::Done(bare.as_bytes())),
            (200, wrapped, Next::Done(br#"{"path": 1}"#)),
            (200, QUEUED, queued(Active, None, seconds(1))),
            (408, QUEUED, queued(Active, None, seconds(1))),
            (
                200,
                capacity,
                queued(PausedCapacity, Some("no room"), seconds(1)),
            ),
            (
                408,
                rate,
                queued(PausedRateLimit, None, Duration::from_millis(250)),
            ),
            (200, at_once, queued(Unknown, None, MIN_WAIT)),
            (200, PENDING, Next::PollAgain(MIN_WAIT)),
            (200, metadata, Next::PollAgain(MIN_WAIT)),
            (
                200,
                r#"{"error":"no","category":"user"}"#,
                failed(Category::User),
            ),
            (
                200,
                r#"{"error":"no","category":"server"}"#,
                failed(Category::Server),
            ),
            (
                200,
                r#"{"error":"no","category":"unknown"}"#,
                failed(Category::Unknown),
            ),
            (200, nested, failed(Category::User)),
            (410, "", Next::Resubmit),
            (408, "", again()),
            (408, PENDING, again()),
            (500, bare, again()),
            (599, "", again()),
            (429, "", again()),
            (400, "", again()),
            (200, "nonsense", again()),
            (401, "", Next::Refused),
            (404, "", Next::Refused),
            (307, "", Next::Refused),
        ];
        for (status, body, expected) in rows {
            let mut poll = Poll::new(MAX_BYTES);
            let next = poll.next(status, body.as_bytes());
            assert_eq!(next, expected, "{status} {body}");
            assert_eq!(poll.iteration(), 1);
            let asks_for_all = body == metadata;
            assert_eq!(poll.allow_metadata_only(), asks_for_all.then_some(false));
        }
    }

    #[test]
    fn every_status_without_a_body_is_followed_by_its_row() {
        for status in 0..=u16::MAX {
            let expected = match status {
                200..300 | 400 | 408 | 429 | 500.. => Next::PollAgain(seconds(1)),
                410 => Next::Resubmit,
                _ => Next::Refused,
            };
            assert_eq!(Poll::new(MAX_BYTES).next(status, b""), expected, "{status}");
        }
    }

    #[test]
    fn waits_double_up_to_half_a_minute_but_not_in_a_pause() {
        let doubling = [1, 2, 4, 8, 16, 30, 30];
        for (status, body) in [(429, ""), (408, ""), (503, ""), (200, QUEUED)] {
            assert_eq!(waits(&mut Poll::new(MAX_BYTES), status, body, 7), doubling);
        }
        let mut poll = Poll::new(MAX_BYTES);
        let lost = [(); 7].map(|()| poll.no_response().as_secs());
        assert_eq!((lost, poll.retries(), poll.iteration()), (doubling, 7, 7));
        for state in ["paused_capacity", "paused_rate_limit"] {
            let paused = format!(r#"{{"type":"try_again","queue_state":"{state}"}}"#);
            assert_eq!(waits(&mut Poll::new(MAX_BYTES), 200, &paused, 3), [1, 1, 1]);
        }
    }

    #[test]
    fn a_usable_response_resets_the_failures_but_not_the_waits_in_the_queue() {
        let mut poll = Poll::new(MAX_BYTES);
        assert_eq!(waits(&mut poll, 200, QUEUED, 2), [1, 2]);
        assert_eq!(waits(&mut poll, 503, "", 2), [1, 2]);
        assert_eq!(poll.no_response(), seconds(4));
        assert_eq!(waits(&mut poll, 400, "", 2), [1, 2]);
        // A malformed response is no success: both counts go on.
        assert_eq!(poll.retries(), 3);
        assert_eq!(waits(&mut poll, 503, "", 1), [8]);
        assert_eq!(waits(&mut poll, 200, PENDING, 1), [0]);
        assert_eq!(poll.retries(), 0);
        assert_eq!(waits(&mut poll, 503, "", 1), [1]);
        assert_eq!(waits(&mut poll, 400, "", 3), [1, 2, 4]);
        // A wait that the backend sets counts as one.
        let timed = r#"{"type":"try_again","queue_state":"active","retry_after_ms":5000}"#;
        assert_eq!(waits(&mut poll, 200, timed, 1), [5]);
        assert_eq!(waits(&mut poll, 200, QUEUED, 2), [8, 16]);
    }

    #[test]
    fn responses_that_come_at_once_for_ever_are_polled_ever_more_slowly() {
        let at_once = r#"{"type":"try_again","queue_state":"active","retry_after_ms":0}"#;
        let metadata = r#"{"status":"complete_metadata"}"#;
        for (body, max_polls) in [(PENDING, 16), (metadata, 16), (at_once, 66)] {
            let mut poll = Poll::new(MAX_BYTES);
            let (mut time, mut polls) = (Duration::ZERO, 0);
            while time < seconds(60) {
                poll.took(Duration::from_millis(1));
                let (Next::PollAgain(wait) | Next::Queued { wait, .. }) =
                    poll.next(200, body.as_bytes())
                else {
                    panic!("{body}");
                };
                assert!(wait >= MIN_WAIT && wait <= MAX_QUICK_WAIT);
                time += wait;
                polls += 1;
            }
            assert!(polls <= max_polls, "{polls} polls in a minute for {body}");
        }
        // One that the backend holds back is followed by the next at once.
        let mut poll = Poll::new(MAX_BYTES);
        for _ in 0..10 {
            poll.took(seconds(30));
            assert_eq!(
                poll.next(200, PENDING.as_bytes()),
                Next::PollAgain(MIN_WAIT)
            );
        }
    }

    #[test]
    fn the_backend_cannot_ask_for_a_wait_without_end() {
        for wait in ["300001", "1e15", "1e300"] {
            let body = format!(
                r#"{{"type":"try_again","queue_state":"paused_capacity","retry_after_ms":{wait}}}"#
            );
            let next = Poll::new(MAX_BYTES).next(200, body.as_bytes());
            assert_eq!(next, queued(PausedCapacity, None, MAX_WAIT), "{wait}");
        }
    }

    #[test]
    fn the_fourth_malformed_response_in_a_row_is_final() {
        let no_object = Next::Invalid("it is not a JSON object");
        for (last, expected) in [(400, Next::Refused), (200, no_object)] {
            let mut poll = Poll::new(MAX_BYTES);
            assert_eq!(waits(&mut poll, 200, "nonsense", 2), [1, 2]);
            assert_eq!(waits(&mut poll, 400, "", 1), [4]);
            assert_eq!(poll.next(last, b"[]"), expected);
        }
        for (max_bytes, problem) in [
            (MAX_BYTES, "it is longer than 64 MiB"),
            (MAX_SMALL_BYTES, "it is longer than 1 MiB"),
        ] {
            let long = vec![0; max_bytes];
            for status in [200, 400, 408] {
                let next = Poll::new(max_bytes).next(status, &long);
                assert_eq!(next, Next::Invalid(problem), "{status}");
            }
            let next = Poll::new(max_bytes).next(503, &long);
            assert_eq!(next, Next::PollAgain(seconds(1)));
        }
    }
}
