//! The faults of disks, machines and backends that a simulated spool meets, and their rates.

use super::rng::Rng;
use alloc::vec::Vec;
use core::fmt;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident $per_mille:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Fault {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Fault {
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];

            /// Its rate per 1000 in an average swarm.
            const fn average_rate(self) -> u16 {
                match self {
                    $(Self::$name => $per_mille,)*
                }
            }
        }
    };
}

faults! {
    // Drawn for each operation on the disk.
    /// An append writes a part of the bytes and fails; a power cut leaves a sector of zeros among what was not synced.
    TornWrite 15,
    /// A sync reports success and does nothing.
    LostSync 40,
    /// A sync fails, and the next one of the same file reports success for what is lost.
    FailingSync 80,
    /// A read fails once.
    ReadError 15,
    /// An operation takes up to five seconds.
    Slow 8,
    /// An operation takes up to ten minutes, in which the other threads of its process go on.
    Stalled 3,
    /// A process sleeps for an hour in the middle of an append.
    OwnerSleeps 6,
    /// Other threads and processes run between two operations.
    Preempted 60,
    /// The process is killed within an operation.
    Killed 2,
    // Drawn for each entry of a folder at a power cut.
    /// A file whose entry was not synced is gone.
    EntryLost 400,
    /// A file whose removal was not synced is there again.
    UnlinkUndone 400,
    // Steps of the plan.
    /// A bit of a file changes: of a segment, its heads included, a `.done` or a lock.
    BitFlip 300,
    /// 512 bytes of a file become zeros.
    ZeroedSector 300,
    /// Some sectors of a file cannot be read any more.
    BadSector 300,
    /// The disk is full, for up to an hour.
    Full 300,
    /// The disk is read-only, for up to an hour.
    ReadOnly 300,
    /// The spool's directory is removed, with all that is in it.
    DirectoryRemoved 150,
    /// The wall clock jumps: by minutes, by days, to 1970 or to 2038.
    WallJump 300,
    /// The power fails: what was not synced is lost, in part.
    PowerCut 200,
    /// A process is killed between two operations.
    Crash 300,
    /// Another process, on this host or another one, looks for folders to claim.
    Claimant 500,
    // The backend, drawn for each request.
    /// 503.
    Busy 60,
    /// The backend has the events, but its answer is lost.
    AnswerLost 40,
    /// No answer comes in time.
    NoAnswer 20,
    /// 500.
    Failed 20,
    /// 401, and so on for a while.
    Unauthorized 8,
    /// 413.
    TooLarge 20,
    // Drawn for each event.
    /// The backend answers 422 to each request that has it.
    InvalidEvent 6,
}

/// How often each fault occurs, per 1000.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Faults([u16; Fault::ALL.len()]);

impl Faults {
    pub(super) const fn none() -> Self {
        Self([0; Fault::ALL.len()])
    }

    /// Some faults at some rates: each seed lacks some, which would mask others.
    pub(super) fn swarm(rng: &mut Rng) -> Self {
        let mut faults = Self::none();
        let chance = 100 + rng.below(700) as u16;
        let scale = 2 + rng.below(25);
        for &fault in Fault::ALL {
            if rng.happens(chance) {
                let rate = u64::from(fault.average_rate()) * scale / 10;
                faults = faults.with(fault, rate.clamp(1, 700) as u16);
            }
        }
        // What a power cut does to a folder needs one.
        let of_cuts = [Fault::EntryLost, Fault::UnlinkUndone];
        if of_cuts.iter().any(|fault| faults.rate(*fault) > 0) {
            let rate = faults.rate(Fault::PowerCut);
            faults = faults.with(
                Fault::PowerCut,
                rate.max(2 * Fault::PowerCut.average_rate()),
            );
        }
        faults
    }

    #[must_use]
    pub(super) const fn with(mut self, fault: Fault, per_mille: u16) -> Self {
        self.0[fault as usize] = per_mille;
        self
    }

    pub(super) const fn rate(&self, fault: Fault) -> u16 {
        self.0[fault as usize]
    }

    pub(super) fn present(&self) -> Vec<Fault> {
        let faults = Fault::ALL.iter().copied();
        faults.filter(|fault| self.rate(*fault) > 0).collect()
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = self.present();
        let rates = present.iter().map(|fault| (fault, self.rate(*fault)));
        f.debug_map().entries(rates).finish()
    }
}
