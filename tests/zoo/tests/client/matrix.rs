//! A short round of the clients on each runtime with each HTTP client that works on it: the pairs of the conformance suite
//! whose runtimes can start tasks from any thread.

use crate::runtimes::{KEY, data_of, names, try_again};
use serde_json::json;
use std::sync::mpsc::channel;
use std::time::Duration;
use tinkex_telemetry::client::{
    AdamParams, Datum, EndReason, LoraConfig, LossFn, ModelInput, SamplingParams, ServiceClient,
    Usage,
};
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::{HttpClient, Surf};
use tinkex_telemetry::runtime::Runtime;
use tinkex_telemetry::transport::Either;
use tinkex_telemetry::{Config, Ureq};
use zoo::clients::{hyper, reqwest, reqwest_elsewhere, surf, ureq};
use zoo::runtimes::ClientRuntime;

/// Longer than a round takes on a busy machine.
const BOUND: Duration = Duration::from_secs(120);

/// Trains and samples, with a call that stalls. Returns the session's id and its usage.
async fn round(
    url: String,
    http: impl HttpClient + Clone,
    runtime: impl Runtime,
) -> (String, Usage) {
    let service = ServiceClient::builder(Config::new(&url, KEY).unwrap())
        .http(http)
        .runtime(runtime)
        .close_timeout(BOUND)
        .connect_timeout(BOUND)
        .stall_after(Duration::from_millis(20))
        .telemetry(|telemetry| telemetry.enabled(true).http_timeout(BOUND))
        .connect();
    let service = service.await.expect("the service connects");
    let training = service.create_training_client("small", LoraConfig::rank(8));
    let training = training.await.expect("the model is created");
    let data = [
        Datum::new(ModelInput::from_tokens([1, 2, 3])).input("target_tokens", vec![2_i64, 3, 4])
    ];
    let gradients = training.forward_backward(data, LossFn::CrossEntropy);
    let step = training.optim_step(AdamParams::default());
    gradients.await.expect("the gradients are computed");
    step.await.expect("the step is taken");
    let sampler = training.create_sampling_client().await;
    let sampler = sampler.expect("the sampler is created");
    let params = SamplingParams::new().max_tokens(2);
    let sampled = sampler.sample(vec![1, 2], 1, params).await;
    assert_eq!(sampled.expect("it is sampled").sequences[0].tokens, [1, 2]);
    assert_eq!(service.open_requests(), []);
    let usage = service.usage();
    let drain = service.close_as(EndReason::Success, "the round").await;
    assert!(drain.all_delivered(), "{drain:?}");
    (service.session_id().to_owned(), usage)
}

fn run<W: ClientRuntime + Send + Sync, H: HttpClient + Clone>(http: fn() -> H) {
    let collector = Collector::start().unwrap();
    // The model's creation waits for longer than a call may take unseen.
    let paused = json!({ "queue_state_reason": "no room", "retry_after_ms": 60 });
    let replies = (0..2).map(|_| try_again("paused_capacity", &paused));
    collector.backend().script("retrieve_future", replies);
    let runtime: &'static W = Box::leak(Box::new(W::new()));
    let (sender, receiver) = channel();
    let url = collector.url();
    runtime.spawn(Box::pin(async move {
        // In the task: a client of tokio's, and a runtime that is bound, need their executor.
        let _ = sender.send(round(url, http(), runtime.value()).await);
    }));
    let (session, usage) = receiver.recv_timeout(BOUND).expect("the round ends");
    let tokens = usage.tokens;
    assert_eq!(
        (tokens.trained, tokens.prefilled, tokens.sampled),
        (3, 2, 2)
    );

    assert_eq!(collector.violations(), []);
    let finish = &collector.backend().calls_of("finish")[0];
    let reason = json!({ "reason": { "type": "success" }, "detail": "the round" });
    assert_eq!(*finish.body(), reason);
    let session = collector.session(&session).unwrap();
    let names = names(&session);
    assert_eq!(names.first().map(String::as_str), Some("SESSION_START"));
    assert_eq!(names.last().map(String::as_str), Some("SESSION_END"));
    assert_eq!(data_of(&session, "tinkex.usage").len(), 1);
    let stalled = data_of(&session, "tinkex.request.stalled");
    let ended = data_of(&session, "tinkex.request.stall_ended");
    let calls = |data: &[serde_json::Value]| {
        let mut calls: Vec<_> = data
            .iter()
            .map(|data| data["metadata"]["call"].as_u64())
            .collect();
        calls.sort_unstable();
        calls.dedup();
        calls
    };
    assert!(!stalled.is_empty(), "{names:?}");
    assert_eq!(calls(&stalled), calls(&ended));
    assert_eq!(ended.len(), calls(&ended).len());
}

/// A client that is chosen when the program runs.
fn either() -> impl HttpClient + Clone {
    Either::<Surf, Ureq>::Right(ureq())
}

macro_rules! rounds {
    ($($name:ident: $under_test:ident, $client:ident;)*) => {
        $(
            #[test]
            fn $name() {
                run::<zoo::runtimes::$under_test, _>($client);
            }
        )*
    };
}

rounds! {
    a_round_on_threads_with_ureq: OnThreads, ureq;
    a_round_on_threads_with_either_client: OnThreads, either;
    a_round_on_threads_with_reqwest: OnThreads, reqwest_elsewhere;
    a_round_on_tokio_with_reqwest: TokioMultiThread, reqwest;
    a_round_on_tokio_with_surf: TokioMultiThread, surf;
    a_round_on_tokio_with_ureq: TokioMultiThread, ureq;
    a_round_on_one_thread_of_tokio_with_reqwest: TokioCurrentThread, reqwest;
    a_round_on_one_thread_of_tokio_with_ureq: TokioCurrentThread, ureq;
    a_round_on_smol_with_reqwest: SmolGlobal, reqwest_elsewhere;
    a_round_on_smol_with_surf: SmolGlobal, surf;
    a_round_on_smol_with_ureq: SmolGlobal, ureq;
    a_round_on_smol_with_hyper: SmolGlobal, hyper;
    a_round_on_an_executor_of_smol_with_hyper: SmolExecutor, hyper;
    a_round_on_async_std_with_surf: AsyncStdGlobal, surf;
    a_round_on_async_std_with_ureq: AsyncStdGlobal, ureq;
    a_round_on_embassy_with_surf: OnEmbassy, surf;
    a_round_on_embassy_with_ureq: OnEmbassy, ureq;
}
