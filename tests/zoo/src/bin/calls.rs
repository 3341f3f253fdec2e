//! Makes every call of the clients once with each option, against the backend at the URL that is the first argument.
//!
//! `ci/sdk` compares what is sent and received with the types of the public Python SDK.

use core::error::Error;
use tinkex_telemetry::client::{
    AdamParams, Datum, EndReason, LoraConfig, Loss, LossFn, ModelInput, NewModel, SampleRequest,
    SamplingModel, SamplingParams, ServiceClient, TrainingClient,
};
use tinkex_telemetry::{Config, Severity, Thread, Ureq, fields};

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args()
        .nth(1)
        .ok_or("the first argument is a URL")?;
    // Without the options that a call may leave out, and with them.
    session(&url, false)?;
    session(&url, true)
}

fn session(url: &str, has_options: bool) -> Result<(), Box<dyn Error>> {
    let mut builder = ServiceClient::builder(Config::new(url, "tml-any-key")?)
        .http(Ureq::new())
        .runtime(Thread)
        .telemetry(|telemetry| telemetry.enabled(true));
    if has_options {
        builder = builder
            .tags(["a", "b"])
            .user_metadata("who", "me")
            .project("p-1")
            .display_name("the run");
    }
    let service = builder.connect().wait()?;
    let _ = service.get_server_capabilities().wait()?;
    train(&service, has_options)?;
    let telemetry = service.telemetry().ok_or("telemetry is off")?;
    telemetry.log(
        "calls.done",
        fields! { nested: [1.5, f64::NAN], text: "ä\u{1f600}\n" },
    );
    telemetry.log("calls.empty", ());
    let failure = "x".parse::<u8>().err().ok_or("a number")?;
    telemetry.log_exception(&failure, Severity::Error);
    let reason = match has_options {
        true => EndReason::Interrupted,
        false => EndReason::Success,
    };
    let drain = smol::block_on(service.close_as(reason, "done"));
    if !drain.all_delivered() {
        return Err(format!("telemetry is missing: {drain:?}").into());
    }
    Ok(())
}

fn train(service: &ServiceClient, has_options: bool) -> Result<(), Box<dyn Error>> {
    let model = match has_options {
        false => NewModel::from(LoraConfig::default()),
        true => {
            let lora = LoraConfig::rank(8).seed(7).train_unembed(false);
            NewModel::from(lora).user_metadata("run", "7")
        }
    };
    let training = service.create_training_client("small", model).wait()?;
    let _ = training.get_info().wait()?;
    passes(&training, has_options)?;
    let saved = training.save_weights("one").wait()?;
    let _ = training.load_weights(&saved.path).wait()?;
    let _ = training.load_weights_with_optimizer(&saved.path).wait()?;
    let weights = training.save_weights_for_sampler("two").wait()?;
    let samplers = [
        training.create_sampling_client().wait()?,
        service.create_sampling_client("small").wait()?,
        service
            .create_sampling_client(SamplingModel::Path(weights.path))
            .wait()?,
    ];
    let prompt = ModelInput::from_tokens([1, 2]).and_tokens([3]);
    for sampler in &samplers {
        let mut params = vec![SamplingParams::new()];
        if has_options {
            let all = SamplingParams::new()
                .max_tokens(5)
                .seed(1)
                .temperature(0.5)
                .top_k(4)
                .top_p(0.9);
            params = vec![all.clone().stop(["\n", "end"]), all.stop_tokens([2, 3])];
        }
        for params in params {
            let request = SampleRequest::new(prompt.clone())
                .num_samples(2)
                .params(params);
            let request = match has_options {
                true => request.topk_prompt_logprobs(3),
                false => request,
            };
            let _ = sampler.sample_with(request).wait()?;
        }
        let _ = sampler.compute_logprobs(prompt.clone()).wait()?;
    }
    Ok(())
}

fn passes(training: &TrainingClient, has_options: bool) -> Result<(), Box<dyn Error>> {
    let datum = || {
        let input = ModelInput::from_tokens([1, 2, 3]);
        let datum = Datum::new(input).input("target_tokens", vec![2_i64, 3, 4]);
        match has_options {
            true => datum.input("weights", vec![0.5_f32, 0.25, 1.0]),
            false => datum,
        }
    };
    let mut losses = vec![Loss::from(LossFn::CrossEntropy)];
    if has_options {
        let others = [
            LossFn::ImportanceSampling,
            LossFn::Ppo,
            LossFn::Cispo,
            LossFn::Dro,
        ];
        losses.extend(others.map(Loss::from));
        losses.push(Loss::from(LossFn::Ppo).config("clip_low_threshold", 0.8));
    }
    for loss in losses {
        let gradients = training.forward_backward([datum(), datum()], loss.clone());
        let params = match has_options {
            true => AdamParams::learning_rate(1e-5)
                .betas(0.8, 0.9)
                .eps(1e-8)
                .weight_decay(0.1)
                .grad_clip_norm(1.0),
            false => AdamParams::default(),
        };
        let step = training.optim_step(params);
        let _ = (gradients.wait()?, step.wait()?);
        let _ = training.forward([datum()], loss).wait()?;
    }
    Ok(())
}
