//! Why clients may cross `catch_unwind`: a panic leaves all of them consistent.
//!
//! The program's own code that they run is the HTTP client and the runtime. Both run under no lock. A client in which a
//! request panics is dropped with it, not reused; the panic of a submission resumes in its call, and the next request's
//! turn comes all the same; a heartbeat counts it as a missing response. Everything else they share is atomic counters,
//! channels, and the session's [`Handle`](crate::Handle), which is unwind safe itself.

use super::{Pending, SamplingClient, ServiceClient, TrainingClient};
use core::panic::{RefUnwindSafe, UnwindSafe};

impl UnwindSafe for ServiceClient {}
impl RefUnwindSafe for ServiceClient {}

impl UnwindSafe for SamplingClient {}
impl RefUnwindSafe for SamplingClient {}

impl UnwindSafe for TrainingClient {}
impl RefUnwindSafe for TrainingClient {}

// A call that has panicked is over: its future is not polled again.
impl<T> UnwindSafe for Pending<T> {}
impl<T> RefUnwindSafe for Pending<T> {}
