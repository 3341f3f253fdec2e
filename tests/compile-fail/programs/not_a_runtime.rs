//~ `Mine` is no runtime
//~ use `Thread`, `Tokio`, `Smol` or `Embassy`, each behind the feature of its name
use tinkex_telemetry::Reporter;

struct Mine;

fn main() {
    drop(Reporter::builder("s").runtime(Mine));
}
