//! What a session promises, tested through the public API: over real sockets where they matter, in simulated time
//! elsewhere.
//!
//! Each known failure of telemetry clients has a test, named after the correct behaviour:
//!
//! | failure | test |
//! |---|---|
//! | 1. dropped batches are counted as delivered | `failures::dropped_events_are_never_counted_as_delivered` |
//! | 2. waiting for the drain never flushes | `failures::waiting_for_the_drain_flushes_the_queue` |
//! | 3. `log` waits for a retry's sleep | `failures::log_returns_while_the_next_attempt_is_minutes_away` |
//! | 4. a value that cannot be encoded kills the sender | `values::a_value_that_cannot_be_encoded_costs_only_its_own_event` |
//! | 5. a fatal error right after the start is not flushed | `failures::a_fatal_error_right_after_the_start_is_sent` |
//! | 6. a full queue drops `SESSION_END` | `failures::a_full_queue_has_room_for_the_fatal_error_and_the_end` |
//! | 7. one `SESSION_END` for each fatal error | `failures::twenty_fatal_errors_at_once_end_the_session_once` |
//! | 8. indices are inverted | `eight_threads_lose_duplicate_and_reorder_nothing` in `tests/stress.rs` |
//! | 9. permanent failures are retried | `failures::a_permanently_rejected_batch_is_sent_once` |
//! | 10. a new idempotency key for each retry | `retries_keep_the_idempotency_key_and_the_next_batch_gets_a_new_one` in `tests/http.rs`, `driver::a_driver_dropped_at_any_point_is_replaced_without_loss` |
//! | 11. each flush leaves a timer behind | `driver::threshold_flushes_leave_no_timer_behind` |
//! | 12. `log` returns true after the end | `failures::after_a_stop_log_returns_false_and_nothing_more_is_sent` |
//! | 13. after a fork, `log` returns true in the child and a fatal error blocks | `in_the_child_every_call_ends_at_once_and_only_the_parent_sends_its_events` in `tests/zoo/tests/fork/main.rs` |
//! | 14. the API key leaks | `secrets::the_api_key_is_in_one_header_and_nowhere_else` |
//! | 15. an outage delays the application's own error | `failures::an_outage_delays_neither_log_exception_nor_the_drop` |
//! | 16. JSON types arrive as strings | `values::json_types_arrive_unchanged` |
//! | 17. the traceback is the reporter's own stack | `failures::the_traceback_is_the_cause_chain_of_the_logged_error`, `exit::the_stack_in_a_traceback_belongs_to_the_failing_code` |
//! | 18. one client stops the session that all share | `failures::clients_come_and_go_and_the_session_stays` |
//! | 19. a value changed after `log` changes what is sent | `values::a_value_changed_after_log_is_sent_as_logged` |
//! | 20. a short program sends nothing | `exit::a_short_program_sends_everything_before_it_exits` |
#![cfg(all(
    // For serde's derive macros.
    feature = "client",
    feature = "collector",
    feature = "reqwest",
    feature = "thread",
    feature = "tokio",
    feature = "ureq"
))]

extern crate alloc;

mod consent;
mod console;
mod deadlines;
mod diagnostics;
mod driver;
mod exit;
mod failures;
mod full_queue;
mod hook;
mod hook_waits;
mod host;
mod memory;
mod owner;
mod refusals;
mod resilience;
mod scarcity;
mod scrub;
mod secrets;
mod support;
mod unwinding;
mod values;
