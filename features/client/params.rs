//! The parameters of a new model and of its training.

use super::tensor::LossFn;
use alloc::collections::BTreeMap;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// The configuration of a LoRA adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LoraConfig {
    /// The rank. Default: 32.
    pub rank: u32,
    /// The random seed, for reproducible initial weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether the unembedding is trained. Default: true.
    pub train_unembed: bool,
    /// Whether the MLP layers are trained. Default: true.
    pub train_mlp: bool,
    /// Whether the attention layers are trained. Default: true.
    pub train_attn: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 32,
            seed: None,
            train_unembed: true,
            train_mlp: true,
            train_attn: true,
        }
    }
}

impl LoraConfig {
    /// A configuration with this rank, else with the defaults.
    #[must_use]
    pub fn rank(rank: u32) -> Self {
        Self {
            rank,
            ..Self::default()
        }
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets [`train_unembed`](Self::train_unembed).
    #[must_use]
    pub fn train_unembed(mut self, train: bool) -> Self {
        self.train_unembed = train;
        self
    }

    /// Sets [`train_mlp`](Self::train_mlp).
    #[must_use]
    pub fn train_mlp(mut self, train: bool) -> Self {
        self.train_mlp = train;
        self
    }

    /// Sets [`train_attn`](Self::train_attn).
    #[must_use]
    pub fn train_attn(mut self, train: bool) -> Self {
        self.train_attn = train;
        self
    }
}

/// A model to create: its adapter and its metadata.
///
/// ```
/// use tinkex_telemetry::client::{LoraConfig, NewModel};
///
/// let model = NewModel::from(LoraConfig::rank(8)).user_metadata("run", "7");
/// # drop(model);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewModel {
    /// The adapter.
    pub lora: LoraConfig,
    /// The metadata.
    pub user_metadata: BTreeMap<String, String>,
}

impl NewModel {
    /// Adds an entry to the metadata.
    #[must_use]
    pub fn user_metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_metadata.insert(name.into(), value.into());
        self
    }
}

impl From<LoraConfig> for NewModel {
    fn from(lora: LoraConfig) -> Self {
        Self {
            lora,
            user_metadata: BTreeMap::new(),
        }
    }
}

/// The parameters of a step of the Adam optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AdamParams {
    /// The learning rate. Default: 0.0001.
    pub learning_rate: f64,
    /// The decay rate of the mean gradient. Default: 0.9.
    pub beta1: f64,
    /// The decay rate of the mean squared gradient. Default: 0.95.
    pub beta2: f64,
    /// The term that keeps the denominator above zero. Default: 1e-12.
    pub eps: f64,
    /// The weight decay. Default: left to the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// The norm to which gradients are clipped. Default: left to the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_clip_norm: Option<f64>,
}

impl Default for AdamParams {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-12,
            weight_decay: None,
            grad_clip_norm: None,
        }
    }
}

impl AdamParams {
    /// Parameters with this learning rate, else with the defaults.
    #[must_use]
    pub fn learning_rate(learning_rate: f64) -> Self {
        Self {
            learning_rate,
            ..Self::default()
        }
    }

    /// Sets [`beta1`](Self::beta1) and [`beta2`](Self::beta2).
    #[must_use]
    pub fn betas(mut self, beta1: f64, beta2: f64) -> Self {
        (self.beta1, self.beta2) = (beta1, beta2);
        self
    }

    /// Sets [`eps`](Self::eps).
    #[must_use]
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Sets [`weight_decay`](Self::weight_decay).
    #[must_use]
    pub fn weight_decay(mut self, weight_decay: f64) -> Self {
        self.weight_decay = Some(weight_decay);
        self
    }

    /// Sets [`grad_clip_norm`](Self::grad_clip_norm).
    #[must_use]
    pub fn grad_clip_norm(mut self, norm: f64) -> Self {
        self.grad_clip_norm = Some(norm);
        self
    }
}

/// A loss function with its configuration.
///
/// ```
/// use tinkex_telemetry::client::{Loss, LossFn};
///
/// let loss = Loss::from(LossFn::Ppo).config("clip_low_threshold", 0.8);
/// # drop(loss);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Loss {
    /// The function.
    pub function: LossFn,
    /// The configuration, by name.
    pub config: BTreeMap<String, f64>,
}

impl Loss {
    /// Adds an entry to the configuration.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: f64) -> Self {
        self.config.insert(name.into(), value);
        self
    }
}

impl From<LossFn> for Loss {
    fn from(function: LossFn) -> Self {
        Self {
            function,
            config: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn an_adapter_has_defaults_and_omits_unset_options() {
        let form =
            json!({ "rank": 8, "train_unembed": true, "train_mlp": true, "train_attn": true });
        assert_eq!(to_value(LoraConfig::rank(8)).unwrap(), form);
        let all = LoraConfig::rank(4)
            .seed(9)
            .train_unembed(false)
            .train_attn(false);
        let form = json!({
            "rank": 4, "seed": 9, "train_unembed": false, "train_mlp": true, "train_attn": false,
        });
        assert_eq!(to_value(&all).unwrap(), form);
        assert_eq!(from_value::<LoraConfig>(form).unwrap(), all);
    }

    #[test]
    fn a_step_has_defaults_and_omits_unset_options() {
        let form = json!({ "learning_rate": 0.5, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12 });
        assert_eq!(to_value(AdamParams::learning_rate(0.5)).unwrap(), form);
        let all = AdamParams::default()
            .betas(0.1, 0.2)
            .eps(0.25)
            .weight_decay(0.75)
            .grad_clip_norm(1.0);
        let form = json!({
            "learning_rate": 1e-4, "beta1": 0.1, "beta2": 0.2, "eps": 0.25,
            "weight_decay": 0.75, "grad_clip_norm": 1.0,
        });
        assert_eq!(to_value(&all).unwrap(), form);
        assert_eq!(from_value::<AdamParams>(form).unwrap(), all);
    }
}
