//! How much memory a response takes: the peak of the whole process, which is therefore one of its own for each stack.
#![cfg(target_os = "linux")]

use crate::runtimes::{Site, SmolSurf, Stack, ThreadUreq, TokioReqwest, site};
use std::process::Command;
use tinkex_telemetry::client::{AdamParams, SamplingParams};
use tinkex_telemetry::collector::Reply;

const STACK: &str = "TINKEX_TEST_MEMORY_OF";
const MIB: usize = 1 << 20;
const LARGE: usize = 19 * MIB;

#[test]
fn a_large_result_takes_at_most_twice_its_size_and_other_responses_a_mebibyte() {
    for stack in ["reqwest", "ureq", "surf"] {
        let program = std::env::current_exe().expect("this program");
        let output = Command::new(program)
            .args([
                "memory::child_receives_large_responses",
                "--exact",
                "--nocapture",
            ])
            .env(STACK, stack)
            // The figures are those of one arena: others' free memory is no one's need.
            .env("MALLOC_ARENA_MAX", "1")
            // Large pieces are returned when they are freed: else a result could hide in the memory of the last one.
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            // A stack in an event would cost the debug information that it takes.
            .env_remove("RUST_BACKTRACE")
            .env_remove("RUST_LIB_BACKTRACE")
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{stack}: {output:?}");
        for line in text.lines().filter(|line| line.starts_with("peak")) {
            println!("{stack}: {line}");
        }
    }
}

#[test]
fn child_receives_large_responses() {
    match std::env::var(STACK).as_deref() {
        Ok("reqwest") => receive::<TokioReqwest>(),
        Ok("ureq") => receive::<ThreadUreq>(),
        Ok("surf") => receive::<SmolSurf>(),
        _ => {}
    }
}

fn receive<W: Stack>() {
    let site = site::<W>();
    let sampler = site.sampler();
    let sample = || site.wait(sampler.sample(vec![1], 1, SamplingParams::new()));
    // Whatever is allocated once.
    sample().expect("a result");
    let long = bytes::Bytes::from(vec![b' '; LARGE]);
    let (refused, peak) = refused_call(&site, &long);
    println!("peak of a refused response: {:.2} MiB", mib(peak));
    assert!(refused.contains("longer than 1 MiB"), "{refused}");
    assert!(peak < 6 * MIB, "{peak}");
    // Of the kinds whose result is small.
    let training = site.trainer();
    site.backend
        .script("retrieve_future", [Reply::status(200).body(long.clone())]);
    let (refused, peak) = measured(|| site.wait(training.optim_step(AdamParams::default())));
    let refused = refused.expect_err("it is too long").to_string();
    println!("peak of a refused result: {:.2} MiB", mib(peak));
    assert!(refused.contains("longer than 1 MiB"), "{refused}");
    assert!(peak < 6 * MIB, "{peak}");
    drop(long);

    for (name, large, problem) in large_results() {
        let len = large.len();
        site.backend
            .script("retrieve_future", [Reply::status(200).body(large.clone())]);
        let (sampled, peak) = measured(sample);
        // The backend's own copy was there before, and must be there until now.
        drop(large);
        println!(
            "peak of {name}: {:.2} times its size",
            peak as f64 / len as f64
        );
        match (sampled, problem) {
            (Ok(sampled), None) => assert!(sampled.sequences[0].tokens.len() > 500_000),
            (Err(error), Some(problem)) => {
                let error = error.to_string();
                assert!(error.contains(problem), "{name}: {error}");
            }
            (sampled, _) => panic!("{name}: {:?}", sampled.map(drop)),
        }
        // A little for what the rest of the process allocates meanwhile.
        assert!(peak <= 2 * len + MIB / 2, "{name}: {peak} of {len}");
    }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / MIB as f64
}

fn refused_call<W: Stack>(site: &Site<W>, body: &bytes::Bytes) -> (String, usize) {
    let reply = Reply::status(200).body(body.clone());
    site.backend.script("get_server_capabilities", [reply]);
    let (refused, peak) = measured(|| site.wait(site.service.get_server_capabilities()));
    (refused.expect_err("it is too long").to_string(), peak)
}

/// Responses of 19 MiB to a sample: a good one, and some whose values would take many times their size. With each, what
/// the error says.
fn large_results() -> Vec<(&'static str, bytes::Bytes, Option<&'static str>)> {
    let filled = |before: &str, piece: &str, after: &str| -> bytes::Bytes {
        let pieces = piece.repeat(LARGE / piece.len());
        format!("{before}{}{after}", pieces.trim_end_matches(',')).into()
    };
    let (memory, text) = (Some("take more memory"), Some("a text longer than 64 KiB"));
    let depth = Some("nested deeper than 128");
    Vec::from([
        ("a result", large_result(), None),
        (
            "short tokens",
            filled(r#"{"sequences":[{"tokens":["#, "0,", "]}]}"),
            memory,
        ),
        (
            "empty sequences",
            filled(r#"{"sequences":["#, r#"{"tokens":[]},"#, "]}"),
            memory,
        ),
        (
            "empty positions",
            filled(r#"{"sequences":[],"topk_prompt_logprobs":["#, "[],", "]}"),
            memory,
        ),
        ("a long text", filled(r#"{"error":"\n"#, "a", r#""}"#), text),
        ("a long key", filled(r#"{"\n"#, "a", r#"":1}"#), text),
        ("deep nesting", filled(r#"{"result":"#, "[", ""), depth),
    ])
}

/// A sample of many tokens, as JSON.
fn large_result() -> bytes::Bytes {
    let mut body = String::with_capacity(LARGE + 100);
    body.push_str(r#"{"sequences":[{"stop_reason":"length","tokens":[1"#);
    while body.len() < LARGE / 3 {
        body.push_str(",128000");
    }
    body.push_str(r#"],"logprobs":[-1"#);
    while body.len() < LARGE {
        body.push_str(",-1.2345678");
    }
    body.push_str("]}]}");
    body.into()
}

/// Runs `work`. Returns by how much the peak of the process's memory exceeded what it had before, in bytes.
fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    // Resets the peak. Where that is not allowed, the one so far is what counts as before.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = peak();
    let result = work();
    (result, peak() - before)
}

fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("a figure")
        .trim()
        .parse::<usize>()
        .expect("a number")
        * 1024
}
