//~ `u8` holds no error that capture could report
//~ use `run_plain`, `future_plain` or `spawn_plain`
use tinkex_telemetry::capture::Capture;

fn main() {
    Capture::new().run(|| 5_u8);
}
