//! The operations of a simulated application.

use super::rng::Rng;
use crate::event::Severity;

/// An operation of a simulated application.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Logs this many events.
    Log(u32),
    /// Logs this many events through a handle with a context, and through one within it.
    LogInContext(u32),
    /// Logs an event with a text of this many bytes.
    LogText(u32),
    /// Logs data that cannot be encoded.
    LogUnencodable,
    /// Logs data whose `Serialize` panics.
    LogPanics,
    /// Logs data whose `Serialize` logs an event.
    LogNested,
    /// Logs more events than the queue holds.
    Burst,
    /// Logs an error.
    Exception,
    /// Logs a fatal error, which ends the session, and waits for its delivery.
    Fatal,
    /// Requests a flush.
    Flush,
    /// Waits this many milliseconds.
    Pass(u64),
    /// Waits until the queue has drained, at most this many milliseconds.
    Drain(u64),
    /// Starts such a wait and drops it after this many milliseconds.
    GiveUpDrain(u64),
    /// Stops the session within this many milliseconds.
    Stop(u64),
    /// Drops the reporter and opens another session.
    Reopen,
    /// Drops the driver at its current await.
    DropDriver,
    /// Heals all faults.
    Heal,
    /// Switches the session off, or on again.
    SetEnabled(bool),
    /// Sets the lowest severity that the session takes.
    SetMinSeverity(Severity),
    /// Discards what is queued.
    Discard,
    /// Switches the session off and discards what is queued.
    Withdraw,
}

impl Op {
    /// An operation that changes what the session takes.
    pub(super) fn draw_consent(rng: &mut Rng) -> Self {
        match rng.below(6) {
            0 => Self::SetEnabled(false),
            1 => Self::SetEnabled(true),
            2 => Self::SetMinSeverity(Severity::ALL[rng.below(5) as usize]),
            3 => Self::Withdraw,
            _ => Self::Discard,
        }
    }

    pub(super) fn draw(rng: &mut Rng) -> Self {
        let kind = rng.below(100);
        let millis = [0, 1, 50, 1_000, 11_000, 90_000][rng.below(6) as usize];
        let millis = millis + rng.below(millis / 2 + 2);
        match kind {
            0..30 => Self::Log(1 + rng.below(30) as u32),
            30..36 => Self::LogText(rng.below(5_000) as u32),
            36..38 => Self::LogUnencodable,
            38..40 => Self::LogPanics,
            40..42 => Self::LogNested,
            42..45 => Self::Burst,
            45..49 => Self::Exception,
            49..51 => Self::Fatal,
            51..57 => Self::Flush,
            57..80 => Self::Pass(millis),
            80..87 => Self::Drain(millis),
            87..90 => Self::GiveUpDrain(millis),
            90..92 => Self::Stop(millis),
            92..95 => Self::Reopen,
            95..98 => Self::DropDriver,
            _ => Self::Heal,
        }
    }
}
