//! What a loss report says, and whether it agrees with the events that a backend has.

use super::json::Object;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use serde_json::{Map, Value};

const NAME: &str = "tinkex.telemetry.report";

/// The maximum number of runs in a report; of further losses there are only counts.
const MAX_RUNS: usize = 16;

/// A report that is no longer than this, in bytes, has room for one more run whatever the limit on an event.
const ROOM: usize = 512 - 100;

/// The reasons for which an event is refused: it is never sent. One that was dropped may have arrived, where the response
/// was lost.
const REFUSED: [&str; 6] = [
    "queue_full",
    "event_too_large",
    "unencodable",
    "scrub_panicked",
    "scrubbed",
    "own_work",
];

/// The losses of a session, as its report says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Losses {
    /// In increasing order of their first index.
    runs: Vec<Run>,
    /// How many indices are missing in all.
    total: u64,
    refused: Map<String, Value>,
    dropped: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    indices: RangeInclusive<u64>,
    /// How many of them are lost: fewer where a batch was taken in part, of which it is not known which.
    count: u64,
    is_refused: bool,
}

impl Run {
    fn is_part(&self) -> bool {
        self.count < len(*self.indices.start(), *self.indices.end())
    }
}

/// How many indices there are from one to another, which is not lower.
const fn len(first: u64, last: u64) -> u64 {
    (last - first).saturating_add(1)
}

/// Whether an event is a loss report.
pub(crate) fn is_report(json: &str) -> bool {
    // Most events are told apart without parsing them.
    json.contains(NAME)
        && Object::read(json).is_ok_and(|event| {
            let name = event.get("event_name");
            name.is_some_and(|name| name.get().trim_matches('"') == NAME)
        })
}

impl Losses {
    /// Reads a loss report; `None` for another event. `Err` says what is wrong with the data.
    pub(crate) fn read(json: &str) -> Option<Result<Self, &'static str>> {
        if !is_report(json) {
            return None;
        }
        let event = Object::read(json).ok()?;
        let data = serde_json::from_str(event.get("event_data")?.get()).ok()?;
        let has_room = json.len() <= ROOM;
        Some(Self::of_data(data, has_room))
    }

    fn of_data(mut data: Map<String, Value>, has_room: bool) -> Result<Self, &'static str> {
        let mut counts = |key| match data.remove(key) {
            Some(Value::Object(counts)) if counts.values().all(Value::is_u64) => Ok(counts),
            _ => Err("must have counts by reason in refused and dropped"),
        };
        let (refused, dropped) = (counts("refused")?, counts("dropped")?);
        let mut has_number = |key| data.remove(key).is_some_and(|value| value.is_u64());
        if !has_number("truncated") || !has_number("retried") {
            return Err("must have numbers in truncated and retried");
        }
        let Some(Value::Array(listed)) = data.remove("lost") else {
            return Err("must have an array in lost");
        };
        let mut left = refused.clone();
        left.extend(dropped.clone());
        let total = sum(&left);
        let mut runs: Vec<Run> = Vec::with_capacity(listed.len().min(MAX_RUNS));
        for run in &listed {
            let index = |key: &str| run[key].as_u64();
            let (Some(first), Some(last)) = (index("first"), index("last")) else {
                return Err("must have runs with the first and the last index in lost");
            };
            if first > last {
                return Err("must have runs in increasing order in lost");
            }
            let reason = run["reason"].as_str().unwrap_or_default();
            let all = len(first, last);
            let count = match run.get("count") {
                None => all,
                // Only of a batch that a backend has taken in part it is not known which events were rejected.
                Some(count) => match count.as_u64() {
                    Some(count) if (1..all).contains(&count) && reason == "rejected" => count,
                    _ => return Err("must have a count only where a part of a run was rejected"),
                },
            };
            let counted = left.get(reason).and_then(Value::as_u64).unwrap_or(0);
            let Some(rest) = counted.checked_sub(count) else {
                return Err("lists more losses than it counts");
            };
            left.insert(reason.into(), rest.into());
            let run = Run {
                indices: first..=last,
                count,
                is_refused: REFUSED.contains(&reason),
            };
            if !runs.iter().all(|before| can_follow(before, &run)) {
                return Err("must have runs in increasing order in lost");
            }
            runs.push(run);
        }
        if runs.len() > MAX_RUNS {
            return Err("must have at most 16 runs in lost");
        }
        if runs.len() < MAX_RUNS && has_room && sum(&left) > 0 {
            return Err("counts losses that it does not list, although there is room");
        }
        Ok(Self {
            runs,
            total,
            refused,
            dropped,
        })
    }

    /// How many indices are missing in all.
    #[cfg(feature = "sim")]
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// How many events were lost for this reason.
    #[cfg(feature = "sim")]
    pub(crate) fn count(&self, reason: &str) -> u64 {
        let count = self
            .refused
            .get(reason)
            .or_else(|| self.dropped.get(reason));
        count.and_then(Value::as_u64).unwrap_or(0)
    }

    /// Whether all missing indices are listed.
    #[cfg(feature = "sim")]
    pub(crate) fn is_complete(&self) -> bool {
        self.listed() == self.total
    }

    fn listed(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Whether a run has this index.
    pub(crate) fn lists(&self, index: u64) -> bool {
        self.runs.iter().any(|run| run.indices.contains(&index))
    }

    /// The indices of which all were lost, and whether their events were refused and so never sent.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (RangeInclusive<u64>, bool)> {
        let runs = self.runs.iter().filter(|run| !run.is_part());
        runs.map(|run| (run.indices.clone(), run.is_refused))
    }

    /// Whether these gaps among the events, in increasing order, are more than the report tells of.
    pub(crate) fn leaves_unexplained(&self, gaps: &[RangeInclusive<u64>]) -> bool {
        // How many of these are missing that are in no run of which all were lost.
        let unlisted = |indices: &RangeInclusive<u64>| {
            let runs = self.runs();
            let listed: u64 = runs.map(|(run, _)| overlap(&run, indices)).sum();
            overlap(indices, indices) - listed
        };
        let missing = gaps.iter().map(&unlisted).fold(0, u64::saturating_add);
        let parts = self.runs.iter().filter(|run| run.is_part());
        let explained: u64 = parts
            .map(|part| {
                let within = gaps.iter().filter_map(|gap| common(gap, &part.indices));
                let missing = within.map(|gap| unlisted(&gap));
                part.count.min(missing.fold(0, u64::saturating_add))
            })
            .sum();
        missing - explained > self.total - self.listed()
    }
}

/// Whether a run may be listed after another: it begins behind it, or lies in one of which only a part was lost.
fn can_follow(before: &Run, run: &Run) -> bool {
    let is_behind = before.indices.end() < run.indices.start();
    let is_within =
        before.indices.start() < run.indices.start() && run.indices.end() < before.indices.end();
    is_behind || before.is_part() && !run.is_part() && is_within
}

/// The indices that both have.
fn common(a: &RangeInclusive<u64>, b: &RangeInclusive<u64>) -> Option<RangeInclusive<u64>> {
    let (first, last) = (*a.start().max(b.start()), *a.end().min(b.end()));
    (first <= last).then_some(first..=last)
}

/// How many indices both have.
fn overlap(a: &RangeInclusive<u64>, b: &RangeInclusive<u64>) -> u64 {
    common(a, b).map_or(0, |both| len(*both.start(), *both.end()))
}

fn sum(counts: &Map<String, Value>) -> u64 {
    let counts = counts.values().filter_map(Value::as_u64);
    counts.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use serde_json::json;

    fn read(data: &Value) -> Result<Losses, &'static str> {
        let event = json!({"event": "GENERIC_EVENT", "event_name": NAME, "event_data": data});
        Losses::read(&event.to_string()).expect("a report")
    }

    fn data(lost: &Value, refused: &Value, dropped: &Value) -> Value {
        json!({"lost": lost, "refused": refused, "dropped": dropped, "truncated": 0, "retried": 2})
    }

    fn part(first: u64, last: u64, reason: &str, count: u64) -> Value {
        json!({"first": first, "last": last, "reason": reason, "count": count})
    }

    fn run(first: u64, last: u64, reason: &str) -> Value {
        json!({"first": first, "last": last, "reason": reason})
    }

    #[test]
    fn a_report_explains_the_gaps_that_it_lists_and_as_many_others_as_it_counts() {
        let lost = json!([run(3, 4, "queue_full"), run(7, 9, "rejected")]);
        let losses = read(&data(
            &lost,
            &json!({"queue_full": 2}),
            &json!({"rejected": 3}),
        ))
        .expect("valid");
        assert!(!losses.leaves_unexplained(&[]));
        assert!(!losses.leaves_unexplained(&[3..=4, 7..=9]));
        assert!(!losses.leaves_unexplained(&[4..=4]), "the others arrived");
        for gaps in [&[2..=4][..], &[3..=4, 6..=6], &[0..=u64::MAX]] {
            assert!(losses.leaves_unexplained(gaps), "{gaps:?}");
        }
        let lost: Vec<_> = (0..16).map(|n| run(2 * n, 2 * n, "queue_full")).collect();
        let losses = read(&data(&json!(lost), &json!({"queue_full": 18}), &json!({})));
        let losses = losses.expect("there is no room for more");
        assert!(!losses.leaves_unexplained(&[0..=0, 40..=40, 50..=50]));
        assert!(losses.leaves_unexplained(&[40..=42]));
    }

    #[test]
    fn a_report_that_contradicts_itself_is_wrong() {
        let (one, none) = (json!({"queue_full": 1}), json!({}));
        let listed = |lost: Value, refused: &Value| data(&lost, refused, &none);
        assert!(read(&listed(json!([run(1, 1, "queue_full")]), &one)).is_ok());
        for wrong in [
            listed(json!([run(1, 2, "queue_full")]), &one),
            listed(json!([run(1, 1, "rejected")]), &one),
            listed(json!([run(2, 1, "queue_full")]), &one),
            listed(json!([run(0, u64::MAX, "queue_full")]), &one),
            listed(json!([{"first": 1}]), &one),
            listed(json!([]), &one),
            listed(json!([part(1, 2, "queue_full", 1)]), &one),
            data(&json!([]), &none, &json!({"rejected": 1})),
            listed(json!([]), &json!({"queue_full": -1})),
            data(&json!([]), &none, &json!(3)),
            json!({"lost": [], "refused": {}, "dropped": {}}),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
        let two = json!([run(3, 3, "queue_full"), run(1, 1, "queue_full")]);
        assert!(read(&listed(two, &json!({"queue_full": 2}))).is_err());
        let many: Vec<_> = (0..17).map(|n| run(2 * n, 2 * n, "queue_full")).collect();
        assert!(read(&listed(json!(many), &json!({"queue_full": 17}))).is_err());
    }

    #[test]
    fn a_batch_that_was_taken_in_part_explains_as_many_gaps_in_it_as_were_rejected() {
        let two = json!({"rejected": 2});
        let lost = json!([part(10, 19, "rejected", 2), run(15, 15, "queue_full")]);
        let losses = read(&data(&lost, &json!({"queue_full": 1}), &two)).expect("valid");
        assert!(losses.lists(12) && losses.lists(15) && !losses.lists(20));
        assert!(losses.runs().eq([(15..=15, true)]));
        for gaps in [
            &[][..],
            &[11..=12, 15..=15],
            &[10..=10, 19..=19],
            &[14..=16],
        ] {
            assert!(!losses.leaves_unexplained(gaps), "{gaps:?}");
        }
        for gaps in [
            &[9..=9][..],
            &[11..=13],
            &[13..=16],
            &[18..=20],
            &[0..=u64::MAX],
        ] {
            assert!(losses.leaves_unexplained(gaps), "{gaps:?}");
        }
        for count in [0, 2, 3, u64::MAX] {
            let lost = json!([part(10, 11, "rejected", count)]);
            let counts = json!({ "rejected": count });
            assert!(read(&data(&lost, &json!({}), &counts)).is_err(), "{count}");
        }
        for lost in [
            json!([part(10, 19, "rejected", 1), part(15, 17, "rejected", 1)]),
            json!([part(10, 19, "rejected", 1), run(19, 19, "rejected")]),
            json!([run(10, 10, "rejected"), part(10, 19, "rejected", 1)]),
        ] {
            assert!(read(&data(&lost, &json!({}), &two)).is_err(), "{lost}");
        }
    }

    #[test]
    fn other_events_are_no_reports() {
        for name in ["tinkex.telemetry.reports", "x"] {
            let event = json!({"event_name": name, "event_data": {"x": NAME}});
            assert!(Losses::read(&event.to_string()).is_none());
        }
    }
}
