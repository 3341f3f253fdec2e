//~ `Mine` cannot be logged as an error
//~ implement `core::error::Error` for it, or log its text: `&error.to_string()`
use tinkex_telemetry::{Handle, Severity};

struct Mine;

fn main() {
    Handle::off().log_exception(&Mine, Severity::Error);
}
