//! The simulator finds what is wrong, the same every time, and finds nothing wrong with the crate.
#![cfg(feature = "sim")]

use tinkex_telemetry::sim::Sim;

#[test]
fn a_sweep_of_all_faults_finds_nothing() {
    let report = Sim::sweep(0..2_000).jobs(2).shrink().run_workload();
    println!("{report}");
    report.assert_ok();
    println!("{:?}", report.never_reached());
}
