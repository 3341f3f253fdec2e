//! One suite for every runtime with every HTTP client that works on it, against the scripted collector.
//!
//! Each line of `conformance!` below is a pair: it runs all cases, and has a row in the table printed at the end and in
//! docs/runtimes.md.

extern crate alloc;

mod cases;
mod session;
mod table;

use zoo::clients::{boxed, hyper, reqwest, reqwest_elsewhere, surf, ureq};

/// The tests of a pair: all cases.
macro_rules! pair {
    ($pair:expr, $under_test:ty, $client:expr) => {
        pair! { @ $pair, $under_test, $client;
            delivery::events_arrive_as_they_were_logged,
            delivery::events_from_many_threads_arrive_once_in_order_and_without_gaps,
            delivery::batches_have_at_most_a_hundred_events,
            delivery::reaching_the_threshold_triggers_a_send,
            delivery::the_interval_triggers_a_send,
            delivery::a_disabled_session_touches_nothing,
            delivery::a_thousand_sessions_run_side_by_side,
            collectors::a_collector_takes_what_a_session_has_logged,
            collectors::a_collector_that_is_overloaded_is_asked_again,
            faults::a_retry_keeps_the_idempotency_key,
            faults::a_retry_after_is_honoured,
            faults::a_batch_that_is_too_large_is_split,
            faults::a_permanent_refusal_drops_the_batch_and_nothing_behind_it,
            faults::an_invalid_event_is_dropped_alone,
            faults::a_stalled_server_costs_one_attempt_after_the_timeout,
            faults::a_late_response_is_not_attributed_to_the_next_attempt,
            faults::a_connection_that_breaks_anywhere_costs_one_attempt,
            faults::an_interim_response_is_not_taken_for_the_final_one,
            faults::the_rest_of_a_long_response_is_not_taken_for_the_next_one,
            faults::a_lost_response_leaves_recognizable_duplicates,
            ends::a_fatal_exception_is_sent_with_the_end,
            ends::a_drain_in_a_task_ends_when_everything_is_settled,
            ends::a_stop_in_a_task_ends_the_session,
            ends::a_stop_ends_at_its_deadline_even_if_the_server_never_responds,
            ends::a_dropped_reporter_still_sends_its_end,
            ends::blocking_waits_work_outside_and_never_hang_inside,
            ends::calls_on_an_ended_session_return_at_once,
            ends::shutting_down_the_runtime_ends_every_wait,
        }
    };
    (@ $pair:expr, $under_test:ty, $client:expr; $($group:ident::$case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                let case = crate::cases::$group::$case::<$under_test, _>;
                crate::table::record($pair, stringify!($case), || case($client));
            }
        )*
        pub(crate) const CASES: usize = [$(stringify!($case)),*].len();
    };
}

macro_rules! conformance {
    ($($name:ident: $under_test:ident, $client:ident, $runtime:literal, $http:literal;)*) => {
        $(
            mod $name {
                const PAIR: crate::table::Pair = crate::table::Pair { runtime: $runtime, http: $http };
                pair! { PAIR, zoo::runtimes::$under_test, crate::$client }
            }
        )*
        /// All pairs, each with the number of its cases.
        const PAIRS: &[(table::Pair, usize)] =
            &[$((table::Pair { runtime: $runtime, http: $http }, $name::CASES)),*];
    };
}

conformance! {
    thread_ureq: OnThreads, ureq, "`Thread`", "`Ureq`";
    thread_boxed: OnThreads, boxed, "`Thread`", "`BoxHttpClient` of a `Ureq`";
    thread_reqwest: OnThreads, reqwest_elsewhere, "`Thread`", "`Reqwest`, on tokio's handle";
    tokio_multi_thread_reqwest: TokioMultiThread, reqwest, "`Tokio`, multi-thread", "`Reqwest`";
    tokio_multi_thread_surf: TokioMultiThread, surf, "`Tokio`, multi-thread", "`Surf`";
    tokio_multi_thread_ureq: TokioMultiThread, ureq, "`Tokio`, multi-thread", "`Ureq`";
    tokio_current_thread_reqwest: TokioCurrentThread, reqwest, "`Tokio`, current-thread", "`Reqwest`";
    tokio_current_thread_ureq: TokioCurrentThread, ureq, "`Tokio`, current-thread", "`Ureq`";
    tokio_local_set_reqwest: TokioLocalSet, reqwest, "`Tokio`, `LocalSet`, not `Send`", "`Reqwest`";
    smol_reqwest: SmolGlobal, reqwest_elsewhere, "`Smol`, global executor", "`Reqwest`, on tokio's handle";
    smol_surf: SmolGlobal, surf, "`Smol`, global executor", "`Surf`";
    smol_ureq: SmolGlobal, ureq, "`Smol`, global executor", "`Ureq`";
    smol_hyper: SmolGlobal, hyper, "`Smol`, global executor", "hyper, a closure";
    smol_executor_hyper: SmolExecutor, hyper, "`Smol`, `Executor`", "hyper, a closure";
    smol_local_surf: SmolLocal, surf, "`Smol`, `LocalExecutor`, not `Send`", "`Surf`";
    async_std_surf: AsyncStdGlobal, surf, "`AsyncStd`", "`Surf`";
    async_std_ureq: AsyncStdGlobal, ureq, "`AsyncStd`", "`Ureq`";
    embassy_surf: OnEmbassy, surf, "`Embassy`, a pool", "`Surf`";
    embassy_ureq: OnEmbassy, ureq, "`Embassy`, a pool", "`Ureq`";
    block_on_ureq: AnyBlockOn, ureq, "`build()` and any `block_on`", "`Ureq`";
}
