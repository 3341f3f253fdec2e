//! What the operating system counts for this process.

use core::time::Duration;
use std::fs;
use std::process;
use std::thread;

/// The unit of `/proc` on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all threads so far, including finished ones; zero where there is no `/proc`.
#[must_use]
pub fn time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, a name in parentheses, may contain spaces; user and system time are fields 14 and 15.
    let ticks: u32 = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2))
        .into_iter()
        .flatten()
        .filter_map(|field| field.parse::<u32>().ok())
        .sum();
    TICK * ticks
}

/// The time that the calling thread has run so far; zero where there is no `/proc`.
#[must_use]
pub fn time_of_this_thread() -> Duration {
    // The count is brought up to date when the scheduler is called.
    thread::yield_now();
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat
        .split_whitespace()
        .next()
        .and_then(|it| it.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// How often the threads other than the main one have gone to sleep so far, which is how often something woke them;
/// zero where there is no `/proc`.
#[must_use]
pub fn sleeps_of_other_threads() -> u64 {
    let main = process::id().to_string();
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    threads
        .flatten()
        .filter(|thread| thread.file_name().to_str() != Some(&main))
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .filter_map(|status| {
            let mut lines = status.lines();
            let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            count.trim().parse::<u64>().ok()
        })
        .sum()
}

/// How often this process has called `write` or one of its kind so far, sockets not included; zero where there is no
/// `/proc`.
#[must_use]
pub fn write_calls() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("syscw:"));
    line.and_then(|count| count.trim().parse().ok())
        .unwrap_or_default()
}

/// A line of this process's status, in KiB: `VmRSS:`, the memory that it has, or `VmHWM:`, the most that it had. Zero
/// where there is no `/proc`.
#[must_use]
pub fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|it| it.strip_prefix(line));
    let mut words = value.unwrap_or_default().split_whitespace();
    words
        .next()
        .and_then(|it| it.parse().ok())
        .unwrap_or_default()
}
