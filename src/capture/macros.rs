//! The capture macros.

/// Runs a block, and logs its panic or its `Err`.
///
/// The block's value, error or panic is passed on unchanged. `?` inside the block leaves the block, as in a closure, so
/// a block that uses it has to name its type at the end: `Ok::<_, Error>(value)`.
///
/// Options come first, in any order: `reporter`, a [`Handle`](crate::Handle), a [`Reporter`](crate::Reporter) or an
/// `Option` of one, by default (with `std`) the [current session](crate::capture::Capture::new), whereas `None` logs nothing; `severity`,
/// by default [`Severity::Error`](crate::Severity::Error); `fatal`, by default `false`: whether a failure ends the
/// session, and waits until it is sent, at most `flush_timeout`. `async` before the block makes it a future to await in
/// place; dropping that halfway logs nothing.
///
/// See [`Capture`](crate::capture::Capture), the same without macros, for what is logged and what it costs.
///
/// ```
/// # fn example(telemetry: &tinkex_telemetry::Handle) -> Result<(), std::num::ParseIntError> {
/// use tinkex_telemetry::{Severity, capture};
///
/// let batch: usize = capture!(reporter = telemetry, { "32".parse() })?;
/// let lower = capture!(reporter = telemetry, severity = Severity::Warning, {
///     let first: usize = "1".parse()?;
///     Ok::<_, std::num::ParseIntError>(first.min(batch))
/// })?;
/// assert_eq!(lower, 1);
/// # Ok(())
/// # }
/// # example(&tinkex_telemetry::Handle::off());
/// ```
#[macro_export]
macro_rules! capture {
    ($($options_and_block:tt)+) => {
        $crate::__capture!([$crate::capture::Capture::new()] $($options_and_block)+)
    };
}

/// Spawns an `async move` block as a task on the session's executor, and logs its panic or its `Err`.
///
/// Returns a [`Task`](crate::capture::Task); awaiting it resumes the panic. The options are those of
/// [`capture!`](macro@crate::capture). See [`Capture::spawn`](crate::capture::Capture::spawn).
///
/// ```
/// # async fn example(telemetry: &tinkex_telemetry::Handle) -> Result<(), Box<dyn std::error::Error>> {
/// let task = tinkex_telemetry::async_capture!(reporter = telemetry, { "32".parse::<usize>() });
/// let batch = task.await??;
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! async_capture {
    ($($options_and_block:tt)+) => {
        $crate::__async_capture!([$crate::capture::Capture::new()] $($options_and_block)+)
    };
}

/// [`async_capture!`](crate::async_capture) for futures that are not `Send`. The first option is `spawner`, a reference
/// to a [`LocalSpawner`](crate::local::LocalSpawner).
#[macro_export]
macro_rules! async_capture_local {
    (spawner = $spawner:expr, $($options_and_block:tt)+) => {
        $crate::__async_capture_local!([$crate::capture::Capture::new()] $spawner, $($options_and_block)+)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __capture {
    ([$capture:expr] reporter = $reporter:expr, $($rest:tt)+) => {
        $crate::__capture!([$capture.reporter(&$reporter)] $($rest)+)
    };
    ([$capture:expr] $option:ident = $value:expr, $($rest:tt)+) => {
        $crate::__capture!([$capture.$option($value)] $($rest)+)
    };
    ([$capture:expr] async move $block:block) => {
        $capture.future_with(async move $block, $crate::__inspect!())
    };
    ([$capture:expr] async $block:block) => {
        $capture.future_with(async $block, $crate::__inspect!())
    };
    ([$capture:expr] $block:block) => {
        $capture.run_with(|| $block, $crate::__inspect!())
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __async_capture {
    ([$capture:expr] reporter = $reporter:expr, $($rest:tt)+) => {
        $crate::__async_capture!([$capture.reporter(&$reporter)] $($rest)+)
    };
    ([$capture:expr] $option:ident = $value:expr, $($rest:tt)+) => {
        $crate::__async_capture!([$capture.$option($value)] $($rest)+)
    };
    ([$capture:expr] $block:block) => {
        $capture.spawn_with(async move $block, $crate::__inspect!())
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __async_capture_local {
    ([$capture:expr] $spawner:expr, reporter = $reporter:expr, $($rest:tt)+) => {
        $crate::__async_capture_local!([$capture.reporter(&$reporter)] $spawner, $($rest)+)
    };
    ([$capture:expr] $spawner:expr, $option:ident = $value:expr, $($rest:tt)+) => {
        $crate::__async_capture_local!([$capture.$option($value)] $spawner, $($rest)+)
    };
    ([$capture:expr] $spawner:expr, $block:block) => {
        $capture.spawn_local_with($spawner, async move $block, $crate::__inspect!())
    };
}

/// Finds the error in a value of any type, by autoref specialization: see `Probe`.
#[doc(hidden)]
#[macro_export]
macro_rules! __inspect {
    () => {
        |value, on_error| {
            #[allow(unused_imports, reason = "each use needs only one of them")]
            use $crate::__private::{NoOutcome as _, SomeOutcome as _};
            (&$crate::__private::Probe(value)).error(on_error)
        }
    };
}
