"""Compares a recording of the clients' calls with the types of the installed Python SDK `tinker`.

Argument: the recording. Each request must be one that the SDK's types accept, and each response one that they read. Exits
with 1 at the first that is not, and if a call is missing from the recording.
"""

import dataclasses
import importlib
import json
import sys

import tinker
from tinker import types

# Keys that the clients send only if the program asks for them, or unless it asks for them not to be sent. These versions
# refuse them; without them the request must be accepted.
OPTIONAL = {
    "0.6.3": {
        "create_session": ["project_id", "display_name"],
        "optim_step": ["adam_params.weight_decay", "adam_params.grad_clip_norm"],
        "telemetry": ["process_uuid"],
    },
    "0.38.0": {},
}[tinker.__version__]


def internal(module, name):
    """A type that is not exported, or in older versions nowhere."""
    for package in ("tinker.types._pydantic_types", "tinker.types"):
        try:
            return getattr(importlib.import_module(f"{package}.{module}"), name)
        except (ImportError, AttributeError):
            continue
    sys.exit(f"tinker {tinker.__version__} has no {name}")


PassInput = internal("forward_backward_input", "ForwardBackwardInput")


def is_model(kind):
    return hasattr(kind, "model_validate_json")


def a_pass(name, kind):
    """Newer versions write a pass in protobuf, from a dataclass; the input that it holds has a type still."""

    def accept(body):
        if is_model(kind):
            kind.model_validate_json(json.dumps(body), strict=True)
            return
        fields = {field.name for field in dataclasses.fields(kind)}
        if set(body) - fields:
            raise ValueError(f"unknown keys: {set(body) - fields}")
        PassInput.model_validate_json(json.dumps(body[name]), strict=True)

    return accept


def strictly(kind):
    return lambda body: kind.model_validate_json(json.dumps(body), strict=True)


REQUESTS = {
    "create_session": strictly(types.CreateSessionRequest),
    "create_sampling_session": strictly(types.CreateSamplingSessionRequest),
    "asample": strictly(types.SampleRequest),
    "create_model": strictly(types.CreateModelRequest),
    "get_info": strictly(types.GetInfoRequest),
    "forward_backward": a_pass("forward_backward_input", types.ForwardBackwardRequest),
    "forward": a_pass("forward_input", types.ForwardRequest),
    "optim_step": strictly(types.OptimStepRequest),
    "save_weights": strictly(types.SaveWeightsRequest),
    "save_weights_for_sampler": strictly(types.SaveWeightsForSamplerRequest),
    "load_weights": strictly(types.LoadWeightsRequest),
    "retrieve_future": strictly(types.FutureRetrieveRequest),
    "telemetry": strictly(internal("telemetry_send_request", "TelemetrySendRequest")),
    # Without a type.
    "get_server_capabilities": lambda body: None,
    "finish": lambda body: None,
}

accepted = strictly(internal("shared.untyped_api_future", "UntypedAPIFuture"))
RESPONSES = {
    "create_session": strictly(types.CreateSessionResponse),
    "create_sampling_session": strictly(types.CreateSamplingSessionResponse),
    "get_info": strictly(types.GetInfoResponse),
    "get_server_capabilities": strictly(types.GetServerCapabilitiesResponse),
    "telemetry": strictly(internal("telemetry_response", "TelemetryResponse")),
    "finish": lambda body: None,
    **{
        call: accepted
        for call in (
            "asample", "create_model", "forward_backward", "forward", "optim_step", "save_weights",
            "save_weights_for_sampler", "load_weights",
        )
    },
}
saved_for_sampler = internal("save_weights_for_sampler_response", "SaveWeightsForSamplerResponseInternal")
RESULTS = {
    "Sample": types.SampleResponse,
    "ForwardBackward": types.ForwardBackwardOutput,
    "Forward": types.ForwardBackwardOutput,
    "CreateModel": types.CreateModelResponse,
    "OptimStep": types.OptimStepResponse,
    "SaveWeights": types.SaveWeightsResponse,
    "SaveWeightsForSampler": saved_for_sampler,
    "LoadWeights": types.LoadWeightsResponse,
}


def without(body, paths):
    for path in paths:
        *outer, last = path.split(".")
        holder = body
        for key in outer:
            holder = holder[key]
        holder.pop(last, None)
    return body


def main(path):
    requests, results, in_protobuf = {}, {}, {}
    with open(path) as lines:
        for line in lines:
            exchange = json.loads(line)
            name = exchange["path"].rsplit("/", 1)[-1]
            if name == "session_heartbeat":
                continue
            response = exchange["response"]
            if name not in REQUESTS or response["reply"] != 200:
                sys.exit(f"{name} got {response}")
            body = json.loads(exchange["body"]) if exchange.get("body") else {}
            answer = json.loads(response["body"])
            kind = exchange["headers"].get("x-tinker-request-type")
            try:
                REQUESTS[name](without(body, OPTIONAL.get(name, [])))
                if kind is None:
                    RESPONSES[name](answer)
                elif is_model(RESULTS[kind]):
                    strictly(RESULTS[kind])(answer)
                    results[kind] = results.get(kind, 0) + 1
                else:
                    # This version reads it in protobuf alone, which `sdk_round.py` has it do.
                    in_protobuf[kind] = in_protobuf.get(kind, 0) + 1
            except ValueError as problem:
                sys.exit(f"tinker {tinker.__version__}: {name} {kind or ''}: {problem}\n{body}\n{answer}")
            requests[name] = requests.get(name, 0) + 1
    for what, seen, wanted in (("call", requests, REQUESTS), ("result", {**results, **in_protobuf}, RESULTS)):
        missing = set(wanted) - set(seen)
        if missing:
            sys.exit(f"the recording has no {what} {missing}")
    # What a poll may bring instead of a result.
    waiting = {"type": "try_again", "request_id": "r", "queue_state": "paused_capacity", "retry_after_ms": 5}
    strictly(internal("try_again_response", "TryAgainResponse"))(waiting)
    # The category is an enumeration, which strict JSON would not take from a text in every version.
    for category in ("unknown", "server", "user"):
        types.RequestFailedResponse.model_validate_json(json.dumps({"error": "no", "category": category}))
    print(
        f"tinker {tinker.__version__}: {sum(requests.values())} requests of {len(requests)} calls accepted, "
        f"{sum(results.values())} results of {len(results)} kinds read"
        + (f"; in protobuf alone: {', '.join(sorted(in_protobuf))}" if in_protobuf else "")
    )


main(sys.argv[1])
