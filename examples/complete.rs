//! What does a program report that only uses the clients? A complete tour, and what the telemetry side has of it.
//!
//! `cargo run --example complete --features client,tokio,reqwest,collector`

use serde_json::json;
use tinkex_telemetry::client::{
    AdamParams, Datum, LoraConfig, LossFn, ModelInput, SamplingParams, ServiceClient,
};
use tinkex_telemetry::collector::{Answer, Collector};
use tinkex_telemetry::{Config, Reqwest, Tokio, async_capture, capture, fields};

#[tokio::main]
async fn main() -> Result<(), Box<dyn core::error::Error>> {
    // A backend for this example, with a queue in it; an application has `Config::from_env()?`.
    let collector = Collector::start()?;
    let waits =
        json!({ "type": "try_again", "queue_state": "paused_capacity", "retry_after_ms": 50 });
    let polls = [Answer::json(&waits)];
    collector.backend().script("retrieve_future", polls);
    let config = Config::new(&collector.url(), "any key")?;

    // The service: a session at the backend, with a heartbeat and with telemetry.
    let service = ServiceClient::builder(config)
        .http(Reqwest::new()?)
        .runtime(Tokio)
        .tags(["complete"]);
    let service = service.connect().await?;

    let sampler = service.create_sampling_client("small").await?;
    let prompt = ModelInput::from_tokens([1, 2, 3]);
    let sampled = sampler.sample(prompt.clone(), 1, SamplingParams::new().max_tokens(8));
    println!("sampled {:?}", sampled.await?.sequences[0].tokens);

    // Both are submitted, in this order, before the first is done.
    let training = service.create_training_client("small", LoraConfig::rank(8));
    let training = training.await?;
    let datum = Datum::new(prompt).input("target_tokens", vec![2_i64, 3, 4]);
    let gradients = training.forward_backward([datum], LossFn::CrossEntropy);
    let step = training.optim_step(AdamParams::learning_rate(1e-4));
    println!("trained: {:?}", gradients.await?.metrics);
    step.await?;

    // Events of the program's own go into the same session.
    let telemetry = service.telemetry();
    let _ = capture!(reporter = telemetry, { "many".parse::<u32>() });
    let task = async_capture!(reporter = telemetry, { "0.5".parse::<f32>() });
    if let Some(telemetry) = &telemetry {
        telemetry.log("tour.done", fields! { rate: task.await?? });
    }

    assert!(service.close().await.all_delivered());
    let session = collector.session(service.session_id());
    for event in session.ok_or("nothing came")?.events() {
        let (value, none) = (event.value(), json!(""));
        let name = value.get("event_name").or(value.get("error_message"));
        let metadata = &value["event_data"]["metadata"];
        let what = metadata.get("path").or(metadata.get("to"));
        let (name, what) = (name.unwrap_or(&none), what.unwrap_or(&none));
        println!("{} {name} {what}", event.kind().as_str());
    }
    Ok(())
}
