//! The list of options, for what treats all of them alike.

use super::{Later, Options};
use core::fmt;

/// Calls a macro with the names of all options, in the order of the struct.
macro_rules! each_option {
    ($call:ident) => {
        $call! {
            flush_interval,
            flush_threshold,
            flush_timeout,
            drop_timeout,
            http_timeout,
            give_up,
            max_retries,
            retry_base_delay,
            retry_max_delay,
            max_queue_size,
            max_queue_bytes,
            reserve,
            max_batch_size,
            max_batch_bytes,
            min_severity,
            max_event_bytes,
            max_data_depth,
            max_string_bytes,
            max_fields,
            #[cfg(has_arc)]
            attach_events,
            #[cfg(has_arc)]
            events,
            #[cfg(has_arc)]
            handler_id,
            enabled,
        }
    };
}

macro_rules! debug {
    ($($(#[$when:meta])* $name:ident,)*) => {
        /// All options: those that a derived `Debug` would show, without the field that only keeps the struct open.
        impl fmt::Debug for Options {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Without `..`: an option that the list lacks does not compile.
                let Self { $($(#[$when])* $name,)* _later: Later(()) } = self;
                let mut shown = f.debug_struct("Options");
                $($(#[$when])* shown.field(stringify!($name), $name);)*
                shown.finish()
            }
        }
    };
}

each_option!(debug);
