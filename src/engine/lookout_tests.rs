//! When a `log` call wakes the driver, and when the driver looks by itself.

use super::Step;
use super::testing::Harness;
use crate::session::options::Options;
use crate::time::Instant;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use core::task::Waker;
use core::time::Duration;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A driver whose requests take no time, beside callers at chosen times.
struct Load {
    harness: Harness,
    wakes: Arc<Wakes>,
    /// When the parked driver's timer fires.
    timer: Option<Instant>,
    /// How late that is noticed.
    lateness: Duration,
    /// The polls that found nothing to send, after a timer.
    looks: u32,
    /// How often it stays awake instead.
    yields: u32,
    /// The events of each batch.
    batches: Vec<usize>,
}

impl Load {
    fn new(change: impl FnOnce(&mut Options)) -> Self {
        let mut load = Self {
            harness: Harness::new(change),
            wakes: Arc::default(),
            timer: None,
            lateness: Duration::ZERO,
            looks: 0,
            yields: 0,
            batches: Vec::new(),
        };
        load.drive();
        load
    }

    /// Polls until the driver sleeps.
    fn drive(&mut self) {
        loop {
            match self.harness.poll() {
                Step::Send(attempt) => {
                    let sent = self.harness.read(attempt, 4096);
                    self.batches.push(sent.events.len());
                    self.harness.settle(&sent, super::SendOutcome::Delivered);
                }
                Step::Wait(until) => {
                    let waker = Waker::from(Arc::clone(&self.wakes));
                    let parked = self.harness.engine.park(waker);
                    if self.harness.wake(parked) {
                        self.timer = until;
                        return;
                    }
                }
                Step::Yield => {
                    self.yields += 1;
                    self.harness.now = self.harness.after(Duration::from_micros(1));
                }
                step => panic!("{step:?}"),
            }
        }
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, time: Duration) {
        let end = self.harness.after(time);
        while let Some(at) = self.timer
            && let Some(at) = at.checked_add(self.lateness)
            && at <= end
        {
            self.harness.now = at.max(self.harness.now);
            let before = self.batches.len();
            self.drive();
            self.looks += u32::from(self.batches.len() == before);
        }
        self.harness.now = end.max(self.harness.now);
    }

    fn log(&mut self) {
        let before = self.wakes.0.load(Ordering::Relaxed);
        let body = r#","event":"GENERIC_EVENT","event_name":"e","event_data":{}}"#;
        let pushed = self
            .harness
            .engine
            .push(body.as_bytes(), super::Priority::Ordinary);
        assert_eq!(self.harness.wake(pushed), Ok(()));
        if self.wakes.0.load(Ordering::Relaxed) > before {
            self.drive();
        }
    }

    /// Logs bursts of `size` events, one every `period`. Returns the calls that have woken the driver, and its looks.
    fn steady(&mut self, bursts: usize, size: usize, period: Duration) -> (u32, u32) {
        let wakes = self.wakes.0.load(Ordering::Relaxed);
        let looks = self.looks;
        for _ in 0..bursts {
            (0..size).for_each(|_| self.log());
            self.pass(period);
        }
        let woken = self.wakes.0.load(Ordering::Relaxed) - wakes;
        (woken, self.looks - looks)
    }
}

#[test]
fn a_cold_session_sends_its_hundredth_event_at_once() {
    let mut load = Load::new(|_| {});
    (0..99).for_each(|_| load.log());
    load.pass(SECOND);
    assert!(load.batches.is_empty());
    load.log();
    assert_eq!(load.batches, [100]);
    // Of these calls the first woke the driver, to arm its timer, and the last.
    assert_eq!(load.wakes.0.load(Ordering::Relaxed), 2);
}

#[test]
fn in_steady_load_no_call_wakes_the_driver() {
    // Two events in the time of a near look are few enough for it to miss now and then.
    for (micros, lateness, missed) in [
        (300, 150, 0),
        (500, 60, 0),
        (1_000, 100, 0),
        (2_000, 0, 0),
        (5_000, 200, 10),
    ] {
        let mut load = Load::new(|_| {});
        load.lateness = Duration::from_micros(lateness);
        let period = Duration::from_micros(micros);
        load.steady(400, 1, period);
        load.batches.clear();
        let (wakes, looks) = load.steady(10_000, 1, period);
        assert!(wakes <= missed, "every {micros} µs: {wakes} wakes");
        let batches = load.batches.len() as u32;
        assert!(looks <= 4 * batches, "{looks} looks for {batches} batches");
        // The flush interval sends some, too.
        let is_interval = |size: &&usize| **size < 100;
        let intervals = 1 + period.as_micros() as usize * 10_000 / 10_000_000;
        assert!(load.batches.iter().filter(is_interval).count() <= intervals);
        assert!(load.batches.iter().all(|size| *size <= 125));
    }
}

#[test]
fn in_steady_bursts_few_calls_wake_the_driver() {
    for lateness in [0, 50, 100] {
        let mut load = Load::new(|_| {});
        load.lateness = Duration::from_micros(lateness);
        let period = Duration::from_micros(300);
        load.steady(10, 100, period);
        let (wakes, _) = load.steady(1_000, 100, period);
        assert!(
            wakes <= 50,
            "{wakes} wakes in 1 000 bursts, {lateness} µs late"
        );
    }
}

#[test]
fn at_ten_events_a_second_the_driver_does_not_look() {
    let mut load = Load::new(|options| options.flush_interval = 60 * SECOND);
    load.steady(300, 1, 100 * MILLI);
    let (wakes, looks) = load.steady(1_000, 1, 100 * MILLI);
    assert_eq!(looks, 0);
    assert_eq!(wakes, 10, "one for each hundred events");
}

#[test]
fn a_rate_that_doubles_wakes_the_driver_but_once() {
    let mut load = Load::new(|_| {});
    load.steady(1_000, 1, 2 * MILLI);
    let (wakes, _) = load.steady(1_000, 1, MILLI);
    assert!(wakes <= 2, "{wakes} wakes");
    let (wakes, _) = load.steady(1_000, 1, MILLI);
    assert_eq!(wakes, 0);
    // Half the rate needs none: the driver looks once more.
    let (wakes, _) = load.steady(1_000, 1, 2 * MILLI);
    assert!(wakes <= 1, "{wakes} wakes");
}

#[test]
fn a_burst_before_a_look_goes_a_quarter_beyond_the_threshold_at_most() {
    let mut load = Load::new(|_| {});
    load.steady(1_095, 1, MILLI);
    load.batches.clear();
    (0..200).for_each(|_| load.log());
    assert!(load.batches[0] <= 125, "{:?}", load.batches);
    load.pass(10 * MILLI);
    assert!(load.harness.engine.stats().queued < 100);
}

#[test]
fn a_small_queue_is_emptied_before_it_refuses_an_event() {
    let mut load = Load::new(|options| {
        (options.flush_threshold, options.max_queue_size) = (100, 104);
        options.reserve = None;
    });
    load.steady(2_095, 1, MILLI);
    // All of them find room, although the driver would not look for some time.
    (0..300).for_each(|_| load.log());
    assert_eq!(load.harness.engine.stats().refused.total(), 0);
}

#[test]
fn a_pause_costs_a_bounded_number_of_looks_and_the_interval_holds() {
    let mut load = Load::new(|_| {});
    load.steady(1_050, 1, MILLI);
    load.looks = 0;
    load.batches.clear();
    load.pass(9 * SECOND);
    assert!(load.batches.is_empty());
    load.pass(SECOND);
    assert_eq!(load.batches.len(), 1, "the flush interval");
    load.pass(3_600 * SECOND);
    assert!(load.looks <= 10, "{} looks", load.looks);
}

#[test]
fn after_an_idle_time_one_event_wakes_the_driver() {
    let mut load = Load::new(|_| {});
    let (wakes, _) = load.steady(10, 1, 60 * SECOND);
    assert_eq!((wakes, load.batches.len()), (10, 10));
    // Every nine seconds the timer still runs, of which each batch leaves one behind.
    let (wakes, _) = load.steady(100, 1, 9 * SECOND);
    assert!(wakes <= 1, "{wakes} wakes");
}

#[test]
fn an_interval_of_zero_keeps_no_timer() {
    let mut load = Load::new(|options| options.flush_interval = Duration::ZERO);
    (0..100).for_each(|_| load.log());
    load.pass(SECOND);
    assert_eq!(load.timer, None);
    let (wakes, _) = load.steady(10_000, 1, MILLI);
    assert!(wakes <= 2, "{wakes} wakes");
}

/// What a driver does beside a caller that never rests.
enum Busy {
    Sends(super::testing::Sent, Instant),
    Sleeps(Option<Instant>),
    IsAwake,
}

/// Logs two events each microsecond, which is more than any timer can follow, beside requests that take 30 µs. At each
/// of `pauses` the caller rests for as many microseconds. Returns how often a call has woken the driver.
fn flat_out(load: &mut Load, pauses: &[u64]) -> u32 {
    let before = load.wakes.0.load(Ordering::Relaxed);
    let woken = |load: &Load| load.wakes.0.load(Ordering::Relaxed);
    let body = r#","event":"GENERIC_EVENT","event_name":"e","event_data":{}}"#;
    let mut driver = Busy::Sleeps(load.timer);
    for pause in pauses {
        let begin = load.harness.now;
        let (rests_until, end) = (*pause, *pause + 1_000);
        loop {
            let past = load.harness.now.saturating_duration_since(begin);
            let past = past.as_micros() as u64;
            if past >= end {
                break;
            }
            let before = woken(load);
            for _ in 0..2 * u32::from(past >= rests_until) {
                let pushed = load
                    .harness
                    .engine
                    .push(body.as_bytes(), super::Priority::Ordinary);
                assert_eq!(load.harness.wake(pushed), Ok(()));
            }
            driver = match driver {
                Busy::Sends(sent, until) if until <= load.harness.now => {
                    load.harness.settle(&sent, super::SendOutcome::Delivered);
                    Busy::IsAwake
                }
                Busy::Sleeps(_) if woken(load) > before => Busy::IsAwake,
                Busy::Sleeps(Some(at))
                    if at.checked_add(load.lateness) <= Some(load.harness.now) =>
                {
                    Busy::IsAwake
                }
                Busy::IsAwake => match load.harness.poll() {
                    Step::Send(attempt) => {
                        let sent = load.harness.read(attempt, 4096);
                        load.batches.push(sent.events.len());
                        Busy::Sends(sent, load.harness.after(Duration::from_micros(30)))
                    }
                    Step::Wait(until) => {
                        let waker = Waker::from(Arc::clone(&load.wakes));
                        let parked = load.harness.engine.park(waker);
                        match load.harness.wake(parked) {
                            true => Busy::Sleeps(until),
                            false => Busy::IsAwake,
                        }
                    }
                    Step::Yield => {
                        load.yields += 1;
                        Busy::IsAwake
                    }
                    step => panic!("{step:?}"),
                },
                other => other,
            };
            load.harness.now = load.harness.after(Duration::from_micros(1));
        }
    }
    let wakes = woken(load) - before;
    if let Busy::Sends(sent, _) = driver {
        load.harness.settle(&sent, super::SendOutcome::Delivered);
    }
    load.drive();
    wakes
}

#[test]
fn flat_out_almost_no_call_wakes_the_driver() {
    let mut load = Load::new(|_| {});
    load.lateness = Duration::from_micros(60);
    load.steady(1_000, 1, MILLI);
    // The driver learns the rate from the first batches.
    flat_out(&mut load, &[0; 10]);
    load.batches.clear();
    // A caller that loses its processor finds a driver that has sent everything.
    let pauses: Vec<u64> = (0..200).map(|at| at * 7 % 150).collect();
    let wakes = flat_out(&mut load, &pauses);
    assert!(wakes <= 2, "{wakes} wakes in 400 000 calls");
    assert!(load.batches.iter().all(|size| *size <= 125));
    assert!(load.yields > 0, "it slept");
}

#[test]
fn a_driver_stays_awake_for_a_short_time_only() {
    let mut load = Load::new(|_| {});
    load.lateness = Duration::from_micros(60);
    load.steady(1_000, 1, MILLI);
    flat_out(&mut load, &[0; 10]);
    let wakes = flat_out(&mut load, &[5_000; 20]);
    assert!(wakes <= 2 * 20, "{wakes} wakes in 20 pauses");
    load.yields = 0;
    load.pass(SECOND);
    assert!(load.yields <= 200, "it stays awake for {} µs", load.yields);
    // A program that goes on slowly sees nothing of that.
    load.steady(3_000, 1, MILLI);
    load.yields = 0;
    load.steady(1_000, 1, MILLI);
    assert_eq!(load.yields, 0);
}
