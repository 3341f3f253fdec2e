//! The macros.

/// Runs a block, and logs it when it panics or comes to an `Err`.
///
/// What the block comes to is given back as it is: its value, its error, its panic. `?` inside the block ends the block,
/// as in a closure, so a block that uses it says at its end what it comes to: `Ok::<_, Error>(value)`.
///
/// Options come first, in any order: `reporter`, a [`Handle`](crate::Handle), a [`Reporter`](crate::Reporter) or an
/// `Option` of one (without it nothing is logged); `severity`, by default
/// [`Severity::Error`](crate::Severity::Error); `fatal`, by default `false`: a failure then ends the session, and is
/// waited for until it is sent, at most `flush_timeout`. With `async` before the block it is a future to be awaited in
/// place, and nothing is logged when that is dropped half way.
///
/// What is logged, and what it costs: [`Capture`](crate::capture::Capture), which is the same without macros.
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

/// Starts an `async` block as a task on the session's executor, and logs it when it panics or comes to an `Err`.
///
/// It becomes a [`Task`](crate::capture::Task) to be awaited, in which a panic goes on. The block is an `async move` one; the
/// options are those of [`capture!`](crate::capture). See [`Capture::spawn`](crate::capture::Capture::spawn).
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

/// Looks into a value of any type for an error.
#[doc(hidden)]
#[macro_export]
macro_rules! __inspect {
    () => {
        |value, found| {
            #[allow(unused_imports, reason = "one of them is needed")]
            use $crate::__private::{NoOutcome as _, SomeOutcome as _};
            (&$crate::__private::Probe(value)).error(found)
        }
    };
}
