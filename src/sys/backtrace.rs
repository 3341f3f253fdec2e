//! The stack of the calling thread as text, from the application's first frame on.

use alloc::format;
use alloc::string::String;
use std::backtrace::{Backtrace, BacktraceStatus};

/// The crates whose frames say nothing about a failure when they come first: those that capture the stack, raise the
/// panic or construct the error.
const MACHINERY: [&str; 8] = [
    "tinkex_telemetry",
    "std",
    "core",
    "alloc",
    "__rustc",
    "backtrace",
    "anyhow",
    "eyre",
];

/// The calling thread's stack, if `RUST_BACKTRACE` asks for one.
pub(crate) fn here() -> Option<String> {
    captured(&Backtrace::capture())
}

/// [`here`] in a panic hook: the stack of the code that panicked.
pub(crate) fn of_panic() -> Option<String> {
    let stack = text(&Backtrace::capture())?;
    // Other hooks may have called this one: their frames are above those of the standard library's panic.
    let is_panic = |frame: &Frame<'_>| {
        frame.symbol.starts_with("std::panicking::") || frame.place.contains("std/src/panicking.rs")
    };
    let start = frames(&stack).find(is_panic).map_or(0, |frame| frame.at);
    Some(from_application(&stack, start).into())
}

/// A stack that came with an error, if one was captured.
pub(crate) fn captured(stack: &Backtrace) -> Option<String> {
    text(stack).map(|text| from_application(&text, 0).into())
}

fn text(stack: &Backtrace) -> Option<String> {
    let is_captured = stack.status() == BacktraceStatus::Captured;
    is_captured.then(|| format!("{stack}"))
}

/// The frames from the application's first one on, beginning at `start`; all of them if none is the application's.
fn from_application(text: &str, start: usize) -> &str {
    let own_folder = frames(text).find_map(|frame| own_folder(frame.place));
    let is_applications = |frame: &Frame<'_>| {
        let is_own = own_folder.is_some_and(|folder| frame.place.starts_with(folder));
        frame.at >= start && !is_own && !frame.is_machinery()
    };
    let first = frames(text).find(is_applications);
    first.and_then(|frame| text.get(frame.at..)).unwrap_or(text)
}

/// The folder of this crate's sources, if `place` is in this file: the code that captures a stack is on it.
fn own_folder(place: &str) -> Option<&str> {
    let (file, _line) = place.split_once(".rs:")?;
    ["sys/backtrace", "sys\\backtrace"]
        .iter()
        .find_map(|name| file.strip_suffix(name))
        .filter(|folder| folder.ends_with(['/', '\\']))
}

/// A frame in the text of a [`Backtrace`].
struct Frame<'a> {
    /// Where its first line begins.
    at: usize,
    symbol: &'a str,
    /// File, line and column; empty if unknown.
    place: &'a str,
}

fn frames(text: &str) -> impl Iterator<Item = Frame<'_>> {
    let mut at = 0;
    let mut lines = text
        .split_inclusive('\n')
        .map(move |line| {
            let start = at;
            at += line.len();
            (start, line.trim())
        })
        .peekable();
    core::iter::from_fn(move || {
        loop {
            let (at, line) = lines.next()?;
            let Some((number, symbol)) = line.split_once(": ") else {
                continue;
            };
            if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let place = lines.peek().and_then(|(_, line)| line.strip_prefix("at "));
            return Some(Frame {
                at,
                symbol,
                place: place.unwrap_or_default(),
            });
        }
    })
}

impl Frame<'_> {
    /// Whether it belongs to [`MACHINERY`]: by its symbol, or by its place, since that of an inlined function may be
    /// its bare name.
    fn is_machinery(&self) -> bool {
        // As built by the Rust project, and as installed with the component rust-src.
        self.place.starts_with("/rustc/")
            || self.place.contains("lib/rustlib/src/rust/library/")
            || is_machinery(self.symbol)
    }
}

/// Whether a symbol belongs to [`MACHINERY`].
fn is_machinery(symbol: &str) -> bool {
    let path = owner(symbol);
    // Those of the standard library's symbols that are not mangled.
    path.starts_with("rust_")
        || path.starts_with("__rust")
        || MACHINERY.iter().any(|name| {
            let rest = path.strip_prefix(name);
            // The standard library's own crates also show their hash, as in `std[0123456789abcdef]::`.
            rest.is_some_and(|rest| rest.starts_with("::") || rest.starts_with('['))
        })
}

/// The path that says which crate a symbol belongs to. For `<Type as Trait>::method` that is the type's, or the trait's
/// if the type has none, as a type parameter or a primitive type.
fn owner(symbol: &str) -> &str {
    let Some(inner) = symbol.strip_prefix('<').filter(|_| symbol != "<unknown>") else {
        return symbol;
    };
    let (implementer, interface) = halves(inner);
    let implementer = implementer.trim_start_matches(['&', '(', '[', '*']);
    let implementer = ["mut ", "const ", "dyn "]
        .iter()
        .fold(implementer, |path, word| {
            path.strip_prefix(word).unwrap_or(path)
        });
    match interface {
        _ if implementer.starts_with('<') => owner(implementer),
        _ if is_function(implementer) => "core::",
        _ if implementer.contains("::") => implementer,
        Some(interface) => interface,
        // A method of a primitive type.
        None => "core::",
    }
}

/// Whether a type is a pointer to a function, which only the standard library implements anything for.
fn is_function(path: &str) -> bool {
    ["fn(", "extern ", "unsafe ", "for<"]
        .iter()
        .any(|start| path.starts_with(start))
}

/// The type and the trait of `Type as Trait>::method` or `Type>::method`.
fn halves(inner: &str) -> (&str, Option<&str>) {
    let (mut depth, mut before) = (0_u32, ' ');
    for (at, character) in inner.char_indices() {
        let (head, tail) = inner.split_at(at);
        match character {
            '<' => depth += 1,
            '>' if before == '-' => {}
            '>' if depth == 0 => return (head, None),
            '>' => depth -= 1,
            ' ' if depth == 0 => {
                if let Some(interface) = tail.strip_prefix(" as ") {
                    return (head, Some(interface));
                }
            }
            _ => {}
        }
        before = character;
    }
    (inner, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_belongs_to_the_crate_whose_code_it_is() {
        for machinery in [
            "std::backtrace::Backtrace::create",
            "std[0123456789abcdef]::panicking::panic_with_hook",
            "__rustc[0123456789abcdef]::rust_begin_unwind",
            "rust_begin_unwind",
            "core::option::Option<T>::unwrap",
            "core::ops::function::FnOnce::call_once{{vtable.shim}}",
            "tinkex_telemetry::session::handle::Handle::log_exception",
            "<alloc::boxed::Box<F,A> as core::ops::function::Fn<Args>>::call",
            "<core::result::Result<T, app::Failed>>::unwrap",
            "<T as core::convert::Into<U>>::into",
            "<&T as core::fmt::Debug>::fmt",
            "<[T]>::sort",
            "<str>::parse",
            "<fn(app::A) -> app::B as core::ops::function::Fn<Args>>::call",
            "anyhow::error::<impl anyhow::Error>::msg",
        ] {
            assert!(is_machinery(machinery), "{machinery}");
        }
        for application in [
            "app::main",
            "app::main::{{closure}}",
            "standard::library",
            "core_app::run",
            "<app::Weights as core::fmt::Display>::fmt",
            "<app::Weights>::load",
            "<&mut app::Weights as core::iter::Iterator>::next",
            "<dyn app::Model as app::Run>::run",
            "<F as app::Handler>::call",
            "<<app::A as app::B>::C as core::fmt::Debug>::fmt",
            "main",
            "<unknown>",
        ] {
            assert!(!is_machinery(application), "{application}");
        }
    }

    const STACK: &str = "   0: std::backtrace::Backtrace::create
             at /rustc/0/library/std/src/backtrace.rs:1:2
   1: here
             at ./src/sys/backtrace.rs:1:2
   2: log_exception
             at ./src/session/handle.rs:1:2
   3: app::main::{{closure}}
   4: call_once<(), app::Closure>
             at /home/.rustup/lib/rustlib/src/rust/library/core/src/ops/function.rs:1:2
";

    #[test]
    fn the_text_begins_with_the_applications_first_frame() {
        let trimmed = from_application(STACK, 0);
        assert!(trimmed.starts_with("   3: app::main"), "{trimmed}");
        assert!(trimmed.ends_with("function.rs:1:2\n"), "{trimmed}");
        let inlined = STACK.replace(
            "app::main::{{closure}}\n",
            "{closure#0}\n             at ./app/src/main.rs:1:2\n",
        );
        assert!(from_application(&inlined, 0).starts_with("   3: {closure#0}"));
    }

    #[test]
    fn a_stack_without_a_frame_of_the_application_is_shown_whole() {
        let machinery = STACK.replace("app::main", "core::main");
        for text in [&machinery, "", "not a stack\n", "   0: \n"] {
            assert_eq!(from_application(text, 0), text);
        }
    }
}
