//! The cost of executing a bus event, compared in one run with `log` of the same data.
//!
//! `cargo bench -p benches --bench bus` prints nanoseconds and a ratio for each row: the median over many rounds
//! that interleave all rows. A bus without handlers is the cost for programs that do not use events.

mod nowhere;

use core::hint::black_box;
use core::pin::pin;
use core::time::Duration;
use std::time::Instant;
use tinkex_telemetry::bus::Bus;
use tinkex_telemetry::fields;
use tinkex_telemetry::http::HttpEvents;

const EVENTS: usize = 100;
const ROUNDS: usize = 4_000;

/// The event's data.
struct Data {
    duration: u64,
    method: &'static str,
    path: &'static str,
    status: u16,
    session: &'static str,
}

const DATA: Data = Data {
    duration: 1_234_567,
    method: "GET",
    path: "/a/path",
    status: 200,
    session: "bench",
};

fn execute(bus: &Bus) {
    let data = black_box(&DATA);
    black_box(bus).execute(
        "tinkex.http.request.stop",
        &[("duration", data.duration.into())],
        &[
            ("method", data.method.into()),
            ("path", data.path.into()),
            ("status", data.status.into()),
            ("session_id", data.session.into()),
        ],
    );
}

fn time(work: impl Fn()) -> Duration {
    let start = Instant::now();
    for _ in 0..EVENTS {
        work();
    }
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / EVENTS as f64
}

fn main() {
    let [idle, others, listening, session] = [(); 4].map(|()| Bus::new());
    let attached = others.attach("other", "another.event", |_| {});
    attached.expect("the id is free");
    let attached = listening.attach("one", "tinkex.http.request.stop", |event| {
        black_box(event);
    });
    attached.expect("the id is free");
    let (reporter, driver) = nowhere::session("bench")
        .bus(session.clone())
        .build()
        .expect("the defaults are valid");
    let mut driver = pin!(driver.run());
    let mut drain = || nowhere::drain(&reporter, driver.as_mut());
    let unheard = HttpEvents::on(&idle, "bench");
    let heard = HttpEvents::new(&reporter);

    let rows: [(&str, &dyn Fn()); 7] = [
        ("log(name, fields!), the same data", &|| {
            let data = black_box(&DATA);
            let measurements = fields! { duration: data.duration };
            let metadata = fields! { method: data.method, path: data.path, status: data.status };
            let data = fields! { measurements: measurements, metadata: metadata };
            assert!(reporter.log("tinkex.http.request.stop", data));
        }),
        ("execute, no handler", &|| execute(&idle)),
        ("execute, a handler for another event", &|| execute(&others)),
        ("execute, a handler that does nothing", &|| {
            execute(&listening);
        }),
        ("execute, a session", &|| execute(&session)),
        ("a request, no handler", &|| {
            black_box(&unheard).start("GET", "/a/path").stop(200);
        }),
        ("a request, a session (two events)", &|| {
            heard.start("GET", "/a/path").stop(200);
        }),
    ];
    let mut times: [Vec<Duration>; 7] = Default::default();
    for _ in 0..ROUNDS {
        for (row, times) in rows.iter().zip(&mut times) {
            times.push(time(row.1));
            drain();
        }
    }
    let medians = times.map(median);
    println!("events in total: {}", reporter.stats().accepted);
    for ((name, _), nanos) in rows.iter().zip(medians) {
        println!("{name:<40} {nanos:>7.1} ns   {:.2}", nanos / medians[0]);
    }
}
