//! The kinds of requests whose result is polled for.

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

    /// The path, relative to `/api/v1/`.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Sample => "asample",
            other => other.name(),
        }
    }
}
