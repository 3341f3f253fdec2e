//! Tensors, and the data that a model is trained on.

use super::input::ModelInput;
use super::memory::{self, Exceeded};
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A tensor: numbers with a shape.
///
/// ```
/// use tinkex_telemetry::client::TensorData;
///
/// let targets = TensorData::from(vec![1_i64, 2, 3]);
/// assert_eq!(targets.shape(), [3]);
/// let weights = TensorData::from(vec![0.5_f32; 6]).shaped([2, 3])?;
/// assert_eq!(weights.floats().map(<[f32]>::len), Some(6));
/// # Ok::<_, tinkex_telemetry::client::ShapeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Wire")]
pub struct TensorData {
    numbers: Numbers,
    shape: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
enum Numbers {
    Int64(Vec<i64>),
    Float32(Vec<f32>),
}

/// A tensor as received, before its type is checked.
#[derive(Deserialize)]
struct Wire {
    data: Received,
    dtype: String,
    #[serde(default, deserialize_with = "memory::decode")]
    shape: Option<Vec<usize>>,
}

/// A number as received, before the tensor's type is known.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl Visitor<'_> for Reader {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or null")
            }

            fn visit_i64<E>(self, int: i64) -> Result<Number, E> {
                Ok(Number::Int(int))
            }

            fn visit_u64<E>(self, int: u64) -> Result<Number, E> {
                Ok(i64::try_from(int).map_or(Number::Float(int as f64), Number::Int))
            }

            fn visit_f64<E>(self, float: f64) -> Result<Number, E> {
                Ok(Number::Float(float))
            }

            /// JSON has no NaN; it is written as null.
            fn visit_unit<E>(self) -> Result<Number, E> {
                Ok(Number::Float(f64::NAN))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Numbers as received, before the tensor's type is known, in no more memory than they need: most results have more
/// bytes of them than of anything else.
#[derive(Debug, PartialEq)]
enum Received {
    /// Floats, and integers that are exact as such.
    Floats { floats: Vec<f32>, are_ints: bool },
    /// Integers, at least one of which is not exact as a float.
    Ints(Vec<i64>),
}

/// Up to this size integers are exact as `f32`.
const MAX_EXACT: u64 = 1 << 24;

impl Received {
    fn push(&mut self, number: Number) -> Result<(), Exceeded> {
        match (&mut *self, number) {
            (Self::Floats { floats, are_ints }, Number::Float(float)) => {
                *are_ints = false;
                memory::push(floats, float as f32)
            }
            (Self::Floats { floats, are_ints }, Number::Int(int))
                if !*are_ints || int.unsigned_abs() <= MAX_EXACT =>
            {
                memory::push(floats, int as f32)
            }
            (Self::Floats { floats, .. }, Number::Int(int)) => {
                let mut ints = converted(core::mem::take(floats), |float| float as i64)?;
                memory::push(&mut ints, int)?;
                *self = Self::Ints(ints);
                Ok(())
            }
            (Self::Ints(ints), Number::Int(int)) => memory::push(ints, int),
            (Self::Ints(ints), Number::Float(float)) => {
                let mut floats = converted(core::mem::take(ints), |int| int as f32)?;
                memory::push(&mut floats, float as f32)?;
                let are_ints = false;
                *self = Self::Floats { floats, are_ints };
                Ok(())
            }
        }
    }

    /// `None` if one is not an integer.
    fn into_ints(self) -> Result<Option<Vec<i64>>, Exceeded> {
        match self {
            Self::Floats {
                floats,
                are_ints: true,
            } => converted(floats, |float| float as i64).map(Some),
            Self::Floats { .. } => Ok(None),
            Self::Ints(ints) => Ok(Some(ints)),
        }
    }

    fn into_floats(self) -> Result<Vec<f32>, Exceeded> {
        match self {
            Self::Floats { floats, .. } => Ok(floats),
            Self::Ints(ints) => converted(ints, |int| int as f32),
        }
    }
}

/// Converts numbers. Meanwhile, both forms take memory.
fn converted<T: Copy, U>(numbers: Vec<T>, convert: impl Fn(T) -> U) -> Result<Vec<U>, Exceeded> {
    memory::take(numbers.len() * size_of::<U>())?;
    let converted = numbers.iter().copied().map(convert).collect();
    memory::give_back(numbers.capacity() * size_of::<T>());
    Ok(converted)
}

impl<'de> Deserialize<'de> for Received {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Received;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Received, A::Error> {
                let (floats, are_ints) = (Vec::new(), true);
                let mut received = Received::Floats { floats, are_ints };
                while let Some(number) = seq.next_element()? {
                    received.push(number).map_err(A::Error::custom)?;
                }
                match &mut received {
                    Received::Floats { floats, .. } => memory::shrink(floats),
                    Received::Ints(ints) => memory::shrink(ints),
                }
                Ok(received)
            }
        }

        deserializer.deserialize_seq(Reader)
    }
}

impl TryFrom<Wire> for TensorData {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        let exceeded = |exceeded: Exceeded| format!("{exceeded}");
        let tensor = match &*wire.dtype {
            "int64" => {
                let ints = wire.data.into_ints().map_err(exceeded)?;
                Self::from(ints.ok_or("an int64 tensor has numbers that are not integers")?)
            }
            "float32" => Self::from(wire.data.into_floats().map_err(exceeded)?),
            other => return Err(format!("unknown dtype {other:?}")),
        };
        match wire.shape {
            Some(shape) => tensor.shaped(shape).map_err(|error| format!("{error}")),
            None => Ok(tensor),
        }
    }
}

impl Serialize for TensorData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("TensorData", 3)?;
        match &self.numbers {
            Numbers::Int64(ints) => fields.serialize_field("data", ints)?,
            Numbers::Float32(floats) => fields.serialize_field("data", floats)?,
        }
        fields.serialize_field("dtype", self.dtype())?;
        fields.serialize_field("shape", &self.shape)?;
        fields.end()
    }
}

/// A shape that does not match the number of elements.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShapeError {
    /// The requested shape.
    pub shape: Vec<usize>,
    /// The number of elements.
    pub len: usize,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} numbers do not fit the shape {:?}",
            self.len, self.shape
        )
    }
}

crate::text::debug_with_causes!(ShapeError);

impl core::error::Error for ShapeError {}

impl TensorData {
    /// Changes the shape.
    ///
    /// # Errors
    /// If the shape has more or fewer elements.
    pub fn shaped(mut self, shape: impl Into<Vec<usize>>) -> Result<Self, ShapeError> {
        let (shape, len) = (shape.into(), self.len());
        let wanted = shape
            .iter()
            .try_fold(1_usize, |product, side| product.checked_mul(*side));
        if wanted != Some(len) {
            return Err(ShapeError { shape, len });
        }
        self.shape = shape;
        Ok(self)
    }

    /// The shape: the length of each dimension, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The name of the element type: `int64` or `float32`.
    #[must_use]
    pub const fn dtype(&self) -> &'static str {
        match self.numbers {
            Numbers::Int64(_) => "int64",
            Numbers::Float32(_) => "float32",
        }
    }

    /// The numbers, if they are integers.
    #[must_use]
    pub fn ints(&self) -> Option<&[i64]> {
        match &self.numbers {
            Numbers::Int64(ints) => Some(ints),
            Numbers::Float32(_) => None,
        }
    }

    /// The numbers, if they are floats. A `null` from the backend is NaN.
    #[must_use]
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.numbers {
            Numbers::Int64(_) => None,
            Numbers::Float32(floats) => Some(floats),
        }
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.numbers {
            Numbers::Int64(ints) => ints.len(),
            Numbers::Float32(floats) => floats.len(),
        }
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor of one dimension.
impl From<Vec<i64>> for TensorData {
    fn from(ints: Vec<i64>) -> Self {
        Self {
            shape: Vec::from([ints.len()]),
            numbers: Numbers::Int64(ints),
        }
    }
}

/// A tensor of one dimension.
impl From<Vec<f32>> for TensorData {
    fn from(floats: Vec<f32>) -> Self {
        Self {
            shape: Vec::from([floats.len()]),
            numbers: Numbers::Float32(floats),
        }
    }
}

/// One training example: the input of the model and the inputs of the loss function.
///
/// ```
/// use tinkex_telemetry::client::{Datum, ModelInput};
///
/// let datum = Datum::new(ModelInput::from_tokens([1, 2, 3]))
///     .input("target_tokens", vec![2_i64, 3, 4])
///     .input("weights", vec![0.0_f32, 1.0, 1.0]);
/// assert_eq!(datum.loss_fn_inputs.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Datum {
    /// The input of the model.
    pub model_input: ModelInput,
    /// The inputs of the loss function, by name.
    pub loss_fn_inputs: BTreeMap<String, TensorData>,
}

impl Datum {
    /// An example without inputs for the loss function.
    #[must_use]
    pub const fn new(model_input: ModelInput) -> Self {
        Self {
            model_input,
            loss_fn_inputs: BTreeMap::new(),
        }
    }

    /// Adds an input for the loss function.
    #[must_use]
    pub fn input(mut self, name: impl Into<String>, tensor: impl Into<TensorData>) -> Self {
        self.loss_fn_inputs.insert(name.into(), tensor.into());
        self
    }
}

/// A loss function of the backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossFn {
    /// `cross_entropy`.
    CrossEntropy,
    /// `importance_sampling`.
    ImportanceSampling,
    /// `ppo`.
    Ppo,
    /// `cispo`.
    Cispo,
    /// `dro`.
    Dro,
    /// Any other, by its name.
    Named(String),
}

impl LossFn {
    const KNOWN: [Self; 5] = [
        Self::CrossEntropy,
        Self::ImportanceSampling,
        Self::Ppo,
        Self::Cispo,
        Self::Dro,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::CrossEntropy => "cross_entropy",
            Self::ImportanceSampling => "importance_sampling",
            Self::Ppo => "ppo",
            Self::Cispo => "cispo",
            Self::Dro => "dro",
            Self::Named(name) => name,
        }
    }
}

impl From<&str> for LossFn {
    fn from(name: &str) -> Self {
        let mut known = Self::KNOWN.into_iter();
        known
            .find(|known| known.as_str() == name)
            .unwrap_or_else(|| Self::Named(name.to_owned()))
    }
}

impl fmt::Display for LossFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for LossFn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for LossFn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_tensor_round_trips_as_data_dtype_and_shape() {
        let ints = TensorData::from(vec![1_i64, -2]);
        let form = json!({ "data": [1, -2], "dtype": "int64", "shape": [2] });
        assert_eq!(to_value(&ints).unwrap(), form);
        assert_eq!(from_value::<TensorData>(form).unwrap(), ints);
        let floats = TensorData::from(vec![0.5_f32, 2.0]);
        let form = json!({ "data": [0.5, 2], "dtype": "float32", "shape": [2] });
        assert_eq!(from_value::<TensorData>(form).unwrap(), floats);
    }

    #[test]
    fn nan_is_null_in_json() {
        let floats = TensorData::from(vec![f32::NAN, 1.0]);
        let form = to_value(&floats).unwrap();
        assert_eq!(form["data"], json!([null, 1.0]));
        let back: TensorData = from_value(form).unwrap();
        assert!(back.floats().unwrap()[0].is_nan());
    }

    #[test]
    fn a_tensor_that_contradicts_itself_is_rejected() {
        for wrong in [
            json!({ "data": [1.5], "dtype": "int64", "shape": [1] }),
            json!({ "data": [1], "dtype": "int64", "shape": [2] }),
            json!({ "data": [1], "dtype": "of tomorrow", "shape": [1] }),
            json!({ "data": ["1"], "dtype": "float32", "shape": [1] }),
        ] {
            assert!(from_value::<TensorData>(wrong).is_err());
        }
        let bare = json!({ "data": [1, 2], "dtype": "int64" });
        assert_eq!(from_value::<TensorData>(bare).unwrap().shape(), [2]);
    }

    #[test]
    fn a_shape_must_fit_the_number_of_elements() {
        let six = || TensorData::from(vec![0_i64; 6]);
        assert_eq!(six().shaped([2, 3]).unwrap().shape(), [2, 3]);
        for wrong in [vec![2, 2], vec![], vec![7], vec![usize::MAX, 2]] {
            assert!(six().shaped(wrong).is_err());
        }
        let error = six().shaped([4]).unwrap_err();
        assert_eq!(error.to_string(), "6 numbers do not fit the shape [4]");
        assert!(TensorData::from(vec![1.5_f32]).shaped([]).is_ok());
    }

    #[test]
    fn a_loss_function_is_written_as_its_name_known_or_not() {
        for loss in LossFn::KNOWN {
            assert_eq!(LossFn::from(loss.as_str()), loss);
        }
        let form = json!("of_tomorrow");
        let loss: LossFn = from_value(form.clone()).unwrap();
        assert_eq!(loss, LossFn::Named("of_tomorrow".into()));
        assert_eq!(to_value(&loss).unwrap(), form);
    }

    #[test]
    fn numbers_are_exact_in_every_mixture_and_take_little_room() {
        let read = |data: &str, dtype: &str| {
            let text = format!(r#"{{"data":{data},"dtype":"{dtype}"}}"#);
            serde_json::from_str::<TensorData>(&text)
        };
        let big = 1_i64 << 24;
        let ints = [0, 1, -7, big, -big, big + 1, i64::MAX, i64::MIN, 3, big + 3];
        for end in 0..=ints.len() {
            for begin in 0..=end {
                let some = &ints[begin..end];
                let text = serde_json::to_string(some).unwrap();
                let tensor = read(&text, "int64").unwrap();
                assert_eq!(tensor.ints(), Some(some));
                let floats: Vec<_> = some.iter().map(|int| *int as f32).collect();
                assert_eq!(read(&text, "float32").unwrap().floats(), Some(&*floats));
            }
        }
        for (text, floats) in [
            ("[16777217,0.5,3]", [16_777_217.0, 0.5, 3.0]),
            ("[0.5,16777217,3]", [0.5, 16_777_217.0, 3.0]),
            ("[1,2,0.5]", [1.0, 2.0, 0.5]),
        ] {
            assert_eq!(read(text, "float32").unwrap().floats(), Some(&floats[..]));
            assert!(read(text, "int64").is_err(), "{text}");
        }
        let mut received = Received::Floats {
            floats: Vec::new(),
            are_ints: true,
        };
        (0..1_000_000).for_each(|_| received.push(Number::Float(0.5)).expect("no bound"));
        let floats = received.into_floats().expect("no bound");
        assert!(
            floats.capacity() <= floats.len() * 5 / 4 + 16,
            "{}",
            floats.capacity()
        );
    }
}
