//! What does a program that only uses the clients report? A complete tour, and the events it produces.
//!
//! `cargo run --example complete --features client,tokio,reqwest,collector`

use core::time::Duration;
use serde_json::{Value, json};
use tinkex_telemetry::client::{
    AdamParams, Datum, LoraConfig, LossFn, ModelInput, Prices, SamplingParams, ServiceClient,
};
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::{Config, Reqwest, Tokio, async_capture, capture, fields};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    // What `#[tokio::main]` does, without its macro.
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn core::error::Error>> {
    // A backend for this example, with a request that queues for a second; an application uses `Config::from_env()?`.
    let collector = Collector::start()?;
    let paused =
        json!({ "type": "try_again", "queue_state": "paused_capacity", "retry_after_ms": 1_000 });
    let backend = collector.backend();
    backend.script("retrieve_future", [Reply::json(&paused)]);
    let config = Config::new(&collector.url(), "any key")?;

    // The service: a session at the backend, with heartbeats and telemetry. A call counts as stalled after a minute;
    // here after a fifth of a second, to show one.
    let service = ServiceClient::builder(config)
        .http(Reqwest::new()?)
        .runtime(Tokio)
        .stall_after(Duration::from_millis(200))
        .stall_observer(|request| println!("{request}"))
        .price("small", Prices::per_million(0.1, 0.4, 0.4))
        // This is a demonstration: it sends, whatever the environment says.
        .telemetry(|telemetry| telemetry.enabled(true))
        .connect()
        .await?;

    let sampler = service.create_sampling_client("small").await?;
    let prompt = ModelInput::from_tokens([1, 2, 3]);
    let sampled = sampler.sample(prompt.clone(), 1, SamplingParams::new().max_tokens(8));
    println!("sampled: {:?}", sampled.await?.sequences);

    // Both are submitted, in this order, before the first completes.
    let training = service.create_training_client("small", LoraConfig::rank(8));
    let training = training.await?;
    let datum = Datum::new(prompt).input("target_tokens", vec![2_i64, 3, 4]);
    let gradients = training.forward_backward([datum], LossFn::CrossEntropy);
    let step = training.optim_step(AdamParams::learning_rate(1e-4));
    println!("trained: {:?}, {:?}", gradients.await?.metrics, step.await?);

    // The program's own events go into the same session.
    let telemetry = service.telemetry().ok_or("telemetry is disabled")?;
    let _ = capture!(reporter = telemetry, { "many".parse::<u32>() });
    let task = async_capture!(reporter = telemetry, { "0.5".parse::<f32>() });
    telemetry.log("tour.done", fields! { rate: task.await?? });

    println!("open: {:?}", service.open_requests());
    println!("used: {:?}", service.usage());
    assert!(service.close().await.all_delivered());
    let session = collector.session(service.session_id());
    for event in session.ok_or("no events arrived")?.events() {
        let value = event.value();
        let name = value.get("event_name").or(value.get("error_message"));
        let metadata = &value["event_data"]["metadata"];
        let mut known = ["path", "to", "result", "type"].iter();
        let what = known.find_map(|key| metadata.get(key));
        let [name, what] = [name, what].map(|text| text.and_then(Value::as_str));
        let (name, what) = (name.unwrap_or_default(), what.unwrap_or_default());
        println!("{} {name} {what}", event.kind().as_str());
    }
    Ok(())
}
