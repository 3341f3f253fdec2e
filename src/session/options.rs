//! The options of a session, their defaults and their validation.

mod bounded;
mod file;
mod kinds;
mod list;
#[cfg(feature = "std")]
mod text;

use crate::engine::ring::HEADER;
use crate::engine::{EngineOptions, GiveUp, reserve};
use crate::event::limits::DataLimits;
use crate::event::severity::Severity;
use crate::time;
use core::fmt;
use core::time::Duration;

#[cfg(feature = "std")]
use super::switch::Switch;
#[cfg(has_arc)]
use crate::{bus::EventNames, text::Str};

/// The options of a session: how it queues, batches, sends and stops.
///
/// Each field has a setter of the same name on the [`Builder`](crate::session::Builder). Building a session with an
/// invalid combination fails with an [`OptionError`] that names the option.
///
/// Later versions may add options, so a struct expression must end in `..`:
///
/// ```
/// use core::time::Duration;
/// use tinkex_telemetry::Options;
///
/// let options = Options {
///     flush_interval: Duration::from_secs(2),
///     max_batch_size: 50,
///     ..Default::default()
/// };
/// ```
/// Options can be read from a file: the struct implements `Deserialize` and `Serialize`. Durations are texts such as
/// `"10s"`, `"250ms"` or `"1m30s"`, sizes are numbers of bytes or texts such as `"8MiB"`, and what is left out has its
/// default. `from_env` and `with_env` read them from variables. The [page on options](crate::docs::options) has examples.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// The queue is sent at most this long after its oldest event: the timer runs from the last batch on, or from the
    /// first event after an idle interval. Zero switches the timer off. Default 10 s.
    pub flush_interval: Duration,
    /// The queue is sent once this many events have arrived since the last flush. From 1 to `max_queue_size`. Default
    /// 100 events.
    ///
    /// In steady load the driver predicts when that will be, and looks at the queue by itself, so that no call has to
    /// wake it. It looks up to 10 ms late, and a call wakes it all the same if the events are a quarter more by then.
    pub flush_threshold: usize,
    /// Timeout of the wait for a fatal exception, whose call takes none. Default 30 s.
    pub flush_timeout: Duration,
    /// Timeout of the stop when a reporter is dropped. Default 5 s.
    pub drop_timeout: Duration,
    /// Timeout of one attempt, enforced by the session's clock whatever the HTTP client does. Above zero. Default 5 s.
    pub http_timeout: Duration,
    /// When a batch is given up that the backend does not take. Default [`GiveUp::AfterRetries`]; with
    /// [`GiveUp::WhenFull`] an outage costs no event as long as the queue has room.
    pub give_up: GiveUp,
    /// Attempts after the first, per batch. With [`GiveUp::WhenFull`] there is no such limit, and any value but the
    /// default is an error. Default 3.
    pub max_retries: u32,
    /// Delay before retry n (from 0) is this × 2ⁿ, plus up to a tenth of jitter. At most `retry_max_delay`.
    /// Default 1 s.
    pub retry_base_delay: Duration,
    /// Cap on every delay, a server's `Retry-After` included. Default 60 s.
    pub retry_max_delay: Duration,
    /// Events in the queue, those in flight included; further events are refused. One fatal exception and `SESSION_END`
    /// have room beyond the limit. At least 1. Default 10 000 events.
    pub max_queue_size: usize,
    /// The same limit in bytes: each event takes its JSON plus 12. Memory grows as needed; a reserve of
    /// `max_event_bytes` + 12 beyond the limit is for one fatal exception. With static memory its size decides instead.
    /// From `max_event_bytes` + 12 to `isize::MAX / 4`. Default 8 MiB.
    pub max_queue_bytes: usize,
    /// The reserve for errors: events of severity `ERROR` and `CRITICAL`, exceptions included, may go beyond
    /// `max_queue_size` and `max_queue_bytes` by one part in this many. 0 is no reserve. `None`, the default, is an
    /// eighth; with static memory it is none, and a reserve that is set is part of that memory.
    ///
    /// Automatic events and those of the `tracing` layer do not use it: a burst of them must not crowd out the
    /// application's own errors. Nor do user errors, which are warnings, and what the scrub hook makes milder.
    pub reserve: Option<u32>,
    /// Events per request. At least 1. Default 100.
    pub max_batch_size: usize,
    /// Bytes per request body. At least `max_event_bytes` and what surrounds the events. Default 1 MiB.
    pub max_batch_bytes: usize,
    /// The lowest severity that the session takes when it starts; milder events are refused, without a trace on the wire.
    /// [`Handle::set_min_severity`](crate::Handle::set_min_severity) changes it later, and says which events it holds
    /// for. Default `DEBUG`, the mildest.
    pub min_severity: Severity,
    /// The maximum JSON of an event in bytes. A larger event is refused; an exception's texts are cut to fit, and
    /// marked. From [`MIN_EVENT_BYTES`](Self::MIN_EVENT_BYTES) to [`MAX_EVENT_BYTES`](Self::MAX_EVENT_BYTES). Default
    /// 64 KiB; 1 KiB without `std`, where events are encoded on the stack up to that size and on the heap beyond it.
    /// Without `alloc` 1 KiB is also the maximum.
    pub max_event_bytes: usize,
    /// How deep objects and arrays in an event's data may nest, the data itself included. Deeper values become
    /// `… (cut)` and are not serialized; to cut them, the data is serialized a second time. `Some` and newtype structs
    /// are counted, too, by themselves: at most four times as many, and no fewer than 256. At least 1. Default 100,
    /// which every JSON reader takes; beyond about 120 many refuse the whole request. [`usize::MAX`] is no limit: a value
    /// that contains itself then overflows the stack. With a [scrub hook](crate::session::Builder::scrub) the limit is
    /// at most 120.
    pub max_data_depth: usize,
    /// The maximum length of each text in an event's data, keys included, in bytes of UTF-8. A longer one is cut and
    /// ends in `… (cut)`. At least 32; [`usize::MAX`], the default, is no limit.
    pub max_string_bytes: usize,
    /// The maximum number of fields of each object, and of elements of each array, in an event's data. The rest are
    /// left out, and one more at the end says how many. At least 1; [`usize::MAX`], the default, is no limit.
    ///
    /// An event that any of these three limits has cut counts as [`truncated`](crate::Stats::truncated). Setting
    /// `max_string_bytes` or `max_fields`, or a `max_data_depth` below 4, makes `log` about three quarters more
    /// expensive.
    pub max_fields: usize,
    /// Whether the session tells the backend what it has lost, and why. Once something is lost, an event named
    /// `tinkex.telemetry.report` says which indices are missing, right before `SESSION_END` and at most every five
    /// minutes before that. Where nothing is lost nothing is sent. Default true. The session then has 2 KiB for it, so
    /// no limit of the queue refuses it. Without an allocator or atomics there is no such report.
    #[cfg(has_arc)]
    pub loss_report: bool,
    /// Whether the session takes [`events`](Self::events) from its [bus](crate::session::Builder::bus), from start to
    /// stop: those with its own id as `session_id` in their metadata. Default true.
    #[cfg(has_arc)]
    pub attach_events: bool,
    /// Which events it takes from the bus. Default: the [automatic ones](EventNames::AUTOMATIC).
    #[cfg(has_arc)]
    pub events: EventNames,
    /// The id of its handler on the bus. Default: `tinkex-telemetry-` and the session's id, with a number appended if
    /// that is taken. If an id set here is taken, building fails with a [`BuildError`](crate::session::BuildError).
    #[cfg(has_arc)]
    pub handler_id: Option<Str>,
    /// Whether there is a session at all. With `None`, the default, the environment decides (any case, trimmed; empty
    /// counts as not set): `TINKER_TELEMETRY` set to `0`, `false`, `no` or `off` switches telemetry off, to `1`, `true`,
    /// `yes` or `on` switches it on, and any other word switches it off and is
    /// [reported](crate::diagnostic::DiagnosticKind::Setting). If it is not set, `DO_NOT_TRACK` switches telemetry off,
    /// unless it is `0`. Without `std`, `None` means on.
    pub enabled: Option<bool>,
    /// In place of `non_exhaustive`, which forbids a struct update outside the crate. It has no constructor there, so a
    /// value ends in `..Options::default()`.
    #[doc(hidden)]
    pub _later: Later,
}

/// What later versions may add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later(());

impl Default for Options {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(10),
            flush_threshold: 100,
            flush_timeout: Duration::from_secs(30),
            drop_timeout: Duration::from_secs(5),
            http_timeout: Duration::from_secs(5),
            give_up: GiveUp::AfterRetries,
            max_retries: Self::DEFAULT_MAX_RETRIES,
            retry_base_delay: Duration::from_secs(1),
            retry_max_delay: Duration::from_secs(60),
            max_queue_size: 10_000,
            max_queue_bytes: 8 << 20,
            reserve: None,
            max_batch_size: 100,
            max_batch_bytes: 1 << 20,
            min_severity: Severity::Debug,
            max_event_bytes: if cfg!(feature = "std") {
                64 << 10
            } else {
                1 << 10
            },
            max_data_depth: 100,
            max_string_bytes: usize::MAX,
            max_fields: usize::MAX,
            #[cfg(has_arc)]
            loss_report: true,
            #[cfg(has_arc)]
            attach_events: true,
            #[cfg(has_arc)]
            events: EventNames::default(),
            #[cfg(has_arc)]
            handler_id: None,
            enabled: None,
            _later: Later(()),
        }
    }
}

impl Options {
    /// The smallest `max_event_bytes`, into which `SESSION_START` and `SESSION_END` always fit: 512 bytes.
    pub const MIN_EVENT_BYTES: usize = 512;

    const DEFAULT_MAX_RETRIES: u32 = 3;

    /// One part in this many of the queue's limits is the reserve for errors, unless the program chooses another.
    const DEFAULT_RESERVE: u32 = 8;

    /// The largest `max_event_bytes`: 64 MiB.
    pub const MAX_EVENT_BYTES: usize = 64 << 20;

    /// Whether telemetry is on, by the option or else the environment.
    #[cfg(feature = "std")]
    pub(crate) fn switch(&self) -> Switch {
        match self.enabled {
            Some(true) => Switch::On,
            Some(false) => Switch::Off,
            None => Switch::in_environment(),
        }
    }

    /// The engine's options, for request bodies that take `overhead` bytes besides their events.
    pub(crate) fn for_engine(&self, overhead: usize) -> EngineOptions {
        let micros = |duration| time::micros(duration).unwrap_or(u64::MAX);
        let is_patient = self.give_up == GiveUp::WhenFull;
        EngineOptions {
            flush_interval: micros(self.flush_interval),
            http_timeout: micros(self.http_timeout),
            retry_base_delay: micros(self.retry_base_delay),
            retry_max_delay: micros(self.retry_max_delay),
            flush_threshold: self.flush_threshold,
            max_queue_size: self.max_queue_size,
            max_queue_bytes: self.max_queue_bytes,
            max_batch_size: self.max_batch_size,
            batch_budget: self.max_batch_bytes - overhead,
            max_event_bytes: self.max_event_bytes,
            max_retries: if is_patient {
                u32::MAX
            } else {
                self.max_retries
            },
            is_patient,
            #[cfg(has_arc)]
            loss_report: self.loss_report,
            reserve: self.reserve_part(),
        }
    }

    const fn reserve_part(&self) -> u32 {
        match self.reserve {
            Some(one_in) => one_in,
            None => Self::DEFAULT_RESERVE,
        }
    }

    /// The memory that the queue may need beyond `max_queue_bytes`, for errors and for one fatal exception.
    pub(crate) const fn reserved_bytes(&self) -> usize {
        self.reserved(self.max_queue_bytes) + self.max_event_bytes + HEADER
    }

    /// The reserve for errors beyond a limit of the queue.
    pub(crate) const fn reserved(&self, limit: usize) -> usize {
        reserve(limit, self.reserve_part())
    }

    pub(crate) fn data_limits(&self) -> DataLimits {
        DataLimits {
            depth: self.max_data_depth,
            string_bytes: self.max_string_bytes,
            fields: self.max_fields,
        }
    }

    /// Validates each option by itself.
    fn check_each(&self) -> Result<(), OptionError> {
        let above_zero = [
            ("flush_threshold", self.flush_threshold > 0),
            ("http_timeout", !self.http_timeout.is_zero()),
            ("max_queue_size", self.max_queue_size > 0),
            ("max_batch_size", self.max_batch_size > 0),
            ("max_data_depth", self.max_data_depth > 0),
            ("max_fields", self.max_fields > 0),
        ];
        if let Some((option, _)) = above_zero.into_iter().find(|(_, holds)| !holds) {
            return Err(OptionError::new(option, Problem::Zero));
        }
        if self.max_event_bytes < Self::MIN_EVENT_BYTES {
            let too_low = Problem::Below(
                Self::MIN_EVENT_BYTES,
                "the smallest that holds a SESSION_END",
            );
            return Err(OptionError::new("max_event_bytes", too_low));
        }
        if self.max_event_bytes > Self::MAX_EVENT_BYTES {
            let too_high = Problem::Above(
                Self::MAX_EVENT_BYTES,
                "each thread that logs has a buffer of it",
            );
            return Err(OptionError::new("max_event_bytes", too_high));
        }
        #[cfg(not(feature = "alloc"))]
        if self.max_event_bytes > crate::event::writer::STACK {
            let too_high = Problem::Above(
                crate::event::writer::STACK,
                "events are encoded on the stack",
            );
            return Err(OptionError::new("max_event_bytes", too_high));
        }
        if self.max_string_bytes < DataLimits::MIN_STRING_BYTES {
            let too_low =
                Problem::Below(DataLimits::MIN_STRING_BYTES, "room for the mark of a cut");
            return Err(OptionError::new("max_string_bytes", too_low));
        }
        if self.max_queue_bytes > isize::MAX as usize / 4 {
            let too_high =
                Problem::Above(isize::MAX as usize / 4, "an eighth of the address space");
            return Err(OptionError::new("max_queue_bytes", too_high));
        }
        #[cfg(has_arc)]
        if let Some(name) = self.events.unknown() {
            return Err(OptionError::new(
                "events",
                Problem::UnknownEvent(name.clone()),
            ));
        }
        Ok(())
    }

    /// Validates the options, for request bodies that take `overhead` bytes besides their events.
    pub(crate) fn check(&self, overhead: usize) -> Result<(), OptionError> {
        self.check_each()?;
        if self.flush_threshold > self.max_queue_size {
            let too_high = Problem::Above(self.max_queue_size, "max_queue_size");
            return Err(OptionError::new("flush_threshold", too_high));
        }
        if self.give_up == GiveUp::WhenFull && self.max_retries != Self::DEFAULT_MAX_RETRIES {
            return Err(OptionError::new("max_retries", Problem::WithoutLimit));
        }
        if self.retry_base_delay > self.retry_max_delay {
            return Err(OptionError::new("retry_base_delay", Problem::AboveMaxDelay));
        }
        let event = self.max_event_bytes;
        let record = event.saturating_add(crate::engine::ring::HEADER);
        if self.max_queue_bytes < record {
            let too_low = Problem::Below(record, "max_event_bytes + 12");
            return Err(OptionError::new("max_queue_bytes", too_low));
        }
        let body = event.saturating_add(overhead);
        if self.max_batch_bytes < body {
            let too_low = Problem::Below(body, "max_event_bytes and the head of a request");
            return Err(OptionError::new("max_batch_bytes", too_low));
        }
        Ok(())
    }
}

/// An invalid option or combination of options.
#[derive(Clone, PartialEq, Eq)]
pub struct OptionError {
    option: &'static str,
    problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Zero,
    Below(usize, &'static str),
    Above(usize, &'static str),
    AboveMaxDelay,
    WithoutLimit,
    NoRoomForContext,
    #[cfg(feature = "std")]
    Unencodable(crate::text::Reason),
    #[cfg(not(feature = "std"))]
    Unencodable,
    #[cfg(has_arc)]
    UnknownEvent(Str),
}

impl OptionError {
    const fn new(option: &'static str, problem: Problem) -> Self {
        Self { option, problem }
    }

    /// For a session's context that is too large.
    pub(super) const fn context_too_large(max: usize) -> Self {
        let too_long = Problem::Above(max, "bytes of JSON, half of max_event_bytes");
        Self::new("fields", too_long)
    }

    /// For a session's context that the queue has no room for.
    pub(super) const fn no_room_for_context() -> Self {
        Self::new("fields", Problem::NoRoomForContext)
    }

    /// For a session's context that cannot be encoded.
    pub(super) fn unencodable(reason: &crate::text::Reason) -> Self {
        #[cfg(feature = "std")]
        let problem = Problem::Unencodable(reason.clone());
        #[cfg(not(feature = "std"))]
        let (problem, _) = (Problem::Unencodable, reason);
        Self::new("fields", problem)
    }

    /// The name of the option to change.
    #[must_use]
    pub const fn option(&self) -> &'static str {
        self.option
    }

    /// The options that together cannot work, this one first; or this one alone.
    #[cfg(feature = "std")]
    pub(crate) fn options(&self) -> impl Iterator<Item = &'static str> {
        let other = match (self.option, &self.problem) {
            ("flush_threshold", Problem::Above(..)) => Some("max_queue_size"),
            ("max_queue_bytes" | "max_batch_bytes", Problem::Below(..)) => Some("max_event_bytes"),
            ("retry_base_delay", Problem::AboveMaxDelay) => Some("retry_max_delay"),
            ("max_retries", Problem::WithoutLimit) => Some("give_up"),
            _ => None,
        };
        core::iter::once(self.option).chain(other)
    }

    /// The minimum, if the value was below it.
    pub(crate) const fn min(&self) -> Option<usize> {
        match self.problem {
            Problem::Below(min, _) => Some(min),
            _ => None,
        }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the option {} ", self.option)?;
        match &self.problem {
            Problem::Zero => f.write_str("must be above zero"),
            Problem::Below(min, reason) => write!(f, "must be at least {min} ({reason})"),
            Problem::Above(max, reason) => write!(f, "must be at most {max} ({reason})"),
            Problem::WithoutLimit => f.write_str("must not be set with give_up WhenFull"),
            Problem::NoRoomForContext => f.write_str(
                "does not fit into the queue behind SESSION_START: raise max_queue_size or max_queue_bytes",
            ),
            #[cfg(feature = "std")]
            Problem::Unencodable(reason) => write!(f, "cannot be encoded: {reason}"),
            #[cfg(not(feature = "std"))]
            Problem::Unencodable => f.write_str("cannot be encoded"),
            Problem::AboveMaxDelay => f.write_str("must be at most retry_max_delay"),
            #[cfg(has_arc)]
            Problem::UnknownEvent(name) => {
                let name = crate::text::Text::<64>::new(name.escape_debug());
                write!(f, "names \"{name}\", and under \"tinkex.\" there are only")?;
                let mut separator = "";
                for known in EventNames::AUTOMATIC {
                    write!(f, "{separator} {known}")?;
                    separator = ",";
                }
                Ok(())
            }
        }
    }
}

crate::text::debug_with_causes!(OptionError);

impl core::error::Error for OptionError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Options::default().check(300), Ok(()));
    }

    #[test]
    fn every_invalid_combination_names_its_option() {
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.check(300).map_err(|error| error.option())
        };
        assert_eq!(with(|o| o.flush_threshold = 0), Err("flush_threshold"));
        assert_eq!(
            with(|o| o.http_timeout = Duration::ZERO),
            Err("http_timeout")
        );
        assert_eq!(with(|o| o.max_queue_size = 0), Err("max_queue_size"));
        assert_eq!(with(|o| o.max_queue_size = 99), Err("flush_threshold"));
        assert_eq!(with(|o| o.max_batch_size = 0), Err("max_batch_size"));
        assert_eq!(with(|o| o.max_data_depth = 0), Err("max_data_depth"));
        assert_eq!(with(|o| o.max_string_bytes = 31), Err("max_string_bytes"));
        assert_eq!(with(|o| o.max_fields = 0), Err("max_fields"));
        assert_eq!(with(|o| o.max_batch_bytes = 0), Err("max_batch_bytes"));
        assert_eq!(with(|o| o.max_event_bytes = 511), Err("max_event_bytes"));
        assert_eq!(
            with(|o| o.max_event_bytes = 2 << 20),
            Err("max_batch_bytes")
        );
        assert_eq!(
            with(|o| o.max_event_bytes = usize::MAX),
            Err("max_event_bytes")
        );
        assert_eq!(
            with(|o| o.max_batch_bytes = (64 << 10) + 299),
            Err("max_batch_bytes")
        );
        assert_eq!(with(|o| o.max_batch_bytes = (64 << 10) + 300), Ok(()));
        assert_eq!(
            with(|o| o.max_queue_bytes = (64 << 10) + 11),
            Err("max_queue_bytes")
        );
        assert_eq!(with(|o| o.max_queue_bytes = (64 << 10) + 12), Ok(()));
        assert_eq!(
            with(|o| o.max_queue_bytes = usize::MAX),
            Err("max_queue_bytes")
        );
        assert_eq!(
            with(|o| o.retry_base_delay = Duration::from_secs(61)),
            Err("retry_base_delay")
        );
    }

    #[test]
    fn a_number_of_retries_and_no_end_of_them_exclude_each_other() {
        let mut options = Options {
            give_up: GiveUp::WhenFull,
            ..Options::default()
        };
        assert_eq!(options.check(300), Ok(()));
        options.max_retries = 8;
        assert_eq!(
            options.check(300).map_err(|error| error.to_string()),
            Err("the option max_retries must not be set with give_up WhenFull".into())
        );
    }

    #[test]
    fn an_error_says_what_to_change() {
        let options = Options {
            flush_threshold: 20_000,
            ..Options::default()
        };
        assert_eq!(
            options.check(0).map_err(|error| error.to_string()),
            Err("the option flush_threshold must be at most 10000 (max_queue_size)".into())
        );
    }

    #[cfg(has_arc)]
    #[test]
    fn an_event_that_this_crate_does_not_have_is_named_with_those_that_it_has() {
        let with = |names: &[&'static str]| {
            let options = Options {
                events: names.iter().copied().collect(),
                ..Options::default()
            };
            options.check(300).map_err(|error| error.to_string())
        };
        for name in [
            "tinkex.http.request.stopp",
            "tinkex.http.request",
            "tinkex.",
            "tinkex.*",
            "tinkex.http.request.stop ",
            "tinkex.HTTP.request.stop",
        ] {
            let error = with(&["mine", name]).expect_err(name);
            let begin = alloc::format!("the option events names \"{name}\"");
            assert!(error.starts_with(&begin), "{error}");
            let is_listed = |known: &str| error.contains(known);
            assert!(EventNames::AUTOMATIC.into_iter().all(is_listed), "{error}");
        }
        assert_eq!(with(&EventNames::AUTOMATIC), Ok(()));
        assert_eq!(
            with(&["app.started", "tinkexa", "tinkex", "Tinkex.x", ""]),
            Ok(())
        );
    }
}
