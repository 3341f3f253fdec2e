//! Clients of the backend itself, which report what they do without being asked.
#![doc = ""]
#![doc = include_str!("guide.md")]

mod block_on;
mod error;
mod heartbeat;
mod input;
mod link;
mod output;
mod pending;
mod plain;
mod poll;
mod port;
mod queue;
mod report;
mod sampling;
mod service;
mod session;
mod tensor;
mod train;
mod training;
mod turns;
mod verdict;

pub use error::{Category, ClientError, Result};
pub use input::{Chunk, ModelInput, SampleRequest, SamplingParams, Stop};
pub use output::{
    ForwardBackward, LoadedWeights, ModelData, ModelInfo, OptimStep, Sampled, SavedWeights,
    Sequence, ServerCapabilities, StopReason, SupportedModel, TopTokens,
};
pub use pending::Pending;
pub use sampling::{SamplingClient, SamplingModel};
pub use service::{ServiceBuilder, ServiceClient, TelemetryBuilder};
pub use session::EndReason;
pub use tensor::{Datum, LossFn, ShapeError, TensorData};
pub use train::{AdamParams, LoraConfig, Loss, NewModel};
pub use training::TrainingClient;
