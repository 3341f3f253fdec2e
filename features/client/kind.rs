//! The kinds of requests whose result is polled for.

use super::api::{MAX_BYTES, MAX_SMALL_BYTES};

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Sample,
    CreateModel,
    Forward,
    ForwardBackward,
    OptimStep,
    SaveWeights,
    SaveWeightsForSampler,
    LoadWeights,
}

impl RequestKind {
    /// The value of `X-Tinker-Request-Type`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sample => "Sample",
            Self::CreateModel => "CreateModel",
            Self::Forward => "Forward",
            Self::ForwardBackward => "ForwardBackward",
            Self::OptimStep => "OptimStep",
            Self::SaveWeights => "SaveWeights",
            Self::SaveWeightsForSampler => "SaveWeightsForSampler",
            Self::LoadWeights => "LoadWeights",
        }
    }

    /// The name of the call in errors.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::CreateModel => "create_model",
            Self::Forward => "forward",
            Self::ForwardBackward => "forward_backward",
            Self::OptimStep => "optim_step",
            Self::SaveWeights => "save_weights",
            Self::SaveWeightsForSampler => "save_weights_for_sampler",
            Self::LoadWeights => "load_weights",
        }
    }

    /// How much of its result is read, in bytes: only those with tokens or tensors are large.
    pub(super) const fn max_bytes(self) -> usize {
        match self {
            Self::Sample | Self::Forward | Self::ForwardBackward => MAX_BYTES,
            _ => MAX_SMALL_BYTES,
        }
    }

    /// The path, relative to `/api/v1/`.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Sample => "asample",
            other => other.name(),
        }
    }
}
