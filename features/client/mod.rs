//! Clients of the backend that report sessions, requests, errors and panics as telemetry without further code.
#![doc = ""]
#![doc = include_str!("guide.md")]

mod api;
mod block_on;
mod call;
mod error;
mod exchange_report;
mod heartbeat;
mod input;
#[cfg(feature = "signal")]
mod interrupt;
mod io;
mod kind;
mod memory;
mod open_calls;
mod output;
mod params;
mod pending;
mod poll;
mod poll_response;
mod progress;
mod queue_watch;
mod report;
mod sampling;
mod sequencer;
mod service;
mod session;
mod submission;
mod tensor;
mod training;
mod unwinding;
mod usage;

pub use error::{Category, ClientError, Result};
pub use input::{Chunk, ModelInput, SampleRequest, SamplingParams, Stop};
pub use open_calls::{CallEnd, OpenRequest};
pub use output::{
    ForwardBackward, LoadedWeights, ModelData, ModelInfo, OptimStep, Sampled, SavedWeights,
    Sequence, ServerCapabilities, StopReason, SupportedModel, TopTokens,
};
pub use params::{AdamParams, LoraConfig, Loss, NewModel};
pub use pending::Pending;
pub use sampling::{SamplingClient, SamplingModel};
pub use service::{ServiceBuilder, ServiceClient, TelemetryBuilder};
pub use session::EndReason;
pub use tensor::{Datum, LossFn, ShapeError, TensorData};
pub use training::TrainingClient;
pub use usage::{Prices, Tokens, Usage};
