"""A round with the public Python SDK `tinker`, of whatever version is installed, against the backend at TINKER_BASE_URL.

Trains, samples, saves, loads and logs. Exits with 1 if a result is not what a backend must give.
"""

import asyncio
import math
import sys

import tinker
from tinker import types


def check(condition, *what):
    if not condition:
        sys.exit(f"not as expected: {what}")


def datum(count):
    tokens = list(range(1, count + 1))
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens),
        loss_fn_inputs={
            "target_tokens": types.TensorData(data=tokens, dtype="int64", shape=[count]),
            "weights": types.TensorData(data=[0.5] * count, dtype="float32", shape=[count]),
        },
    )


async def train(service):
    training = await service.create_lora_training_client_async(base_model="small", rank=8)
    info = await training.get_info_async()
    check(info.model_data.model_name, info)
    backward = await training.forward_backward_async([datum(3), datum(5)], "cross_entropy")
    step = await training.optim_step_async(types.AdamParams(learning_rate=1e-4))
    result = await backward.result_async()
    check(len(result.loss_fn_outputs) == 2, result)
    for output in result.loss_fn_outputs:
        logprobs = output["logprobs"]
        check(logprobs.dtype == "float32" and list(logprobs.shape) == [len(logprobs.data)], logprobs)
        check(all(math.isfinite(value) for value in logprobs.data), logprobs)
    check("loss:sum" in result.metrics, result.metrics)
    await step.result_async()
    forward = await (await training.forward_async([datum(2)], "cross_entropy")).result_async()
    check(len(forward.loss_fn_outputs) == 1, forward)
    saved = await (await training.save_state_async("one")).result_async()
    check(saved.path.startswith("tinker://"), saved)
    await (await training.load_state_async(saved.path)).result_async()
    loaded = await service.create_training_client_from_state_async(saved.path)
    await (await loaded.optim_step_async(types.AdamParams())).result_async()
    weights = await (await training.save_weights_for_sampler_async("two")).result_async()
    check(weights.path.startswith("tinker://"), weights)
    return weights.path, await training.save_weights_and_get_sampling_client_async("three")


async def sample(sampler):
    prompt = types.ModelInput.from_ints([1, 2, 3])
    result = await sampler.sample_async(
        prompt=prompt,
        num_samples=2,
        sampling_params=types.SamplingParams(max_tokens=5, temperature=0.5),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=2,
    )
    check(len(result.sequences) == 2, result)
    for sequence in result.sequences:
        tokens, logprobs = list(sequence.tokens), list(sequence.logprobs)
        check(tokens == [1, 2, 3, 4, 5] and logprobs == [-0.5] * 5, tokens, logprobs)
        check(sequence.stop_reason == "length", sequence)
    check(list(result.prompt_logprobs) == [None, -0.25, -0.25], result)
    top = [None if one is None else [tuple(pair) for pair in one] for one in result.topk_prompt_logprobs]
    check(top == [None] + [[(1, -0.25), (2, -0.25)]] * 2, top)
    logprobs = await sampler.compute_logprobs_async(prompt)
    check(list(logprobs) == [None, -0.25, -0.25], logprobs)


async def main(service):
    capabilities = await service.get_server_capabilities_async()
    names = [model.model_name for model in capabilities.supported_models]
    check("small" in names, names)
    path, sampler = await train(service)
    await sample(sampler)
    await sample(service.create_sampling_client(model_path=path))
    await sample(service.create_sampling_client(base_model="small"))


service = tinker.ServiceClient()
asyncio.run(main(service))
telemetry = service.get_telemetry()
check(telemetry is not None, "telemetry is off")
check(telemetry.log("sdk.round", {"nested": {"list": [1, None, "ä"]}}), "log")
check(telemetry.log_exception_sync(ValueError("a failure of the round")), "log_exception")
# Logs the end of the session too, and waits until everything is sent.
check(telemetry.log_fatal_exception_sync(ValueError("the end of the round")), "log_fatal_exception")
if hasattr(service, "close"):
    service.close("success", detail="the round").result(60)
print(f"tinker {tinker.__version__}: trained, sampled and logged", flush=True)
