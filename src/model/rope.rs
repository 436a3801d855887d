//! Rotary frequencies and the scalings of them that checkpoints ask for.

use serde_json::{Map, Value};

use super::json_object::Keys;
use crate::error::{Error, Result};

/// How a config stretches the rotary frequencies beyond the length the model was pretrained at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// θ^(−2i/dim), as published (Su et al. 2021).
    None,
    /// All frequencies divided by a factor.
    Linear {
        /// Above 0; 2 doubles the length.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided, short ones kept, a ramp between.
    Llama3 {
        /// What long wavelengths are divided by, above 0.
        factor: f64,
        /// `low_freq_factor`: wavelengths above original/low are divided whole.
        low: f64,
        /// `high_freq_factor`, above `low`: wavelengths below original/high are kept.
        high: f64,
        /// Positions the model was pretrained at.
        original: f64,
    },
}

impl RopeScaling {
    /// The base θ and the scaling of a `config.json`: `rope_theta` and `rope_scaling`,
    /// or `rope_parameters` as `transformers` 5 writes them.
    pub(super) fn from_json(raw: &Map<String, Value>) -> Result<(f64, Self)> {
        let keys = Keys(raw);
        let object = |key: &str| keys.read(key, "a table", Value::as_object);
        let scaling = object("rope_parameters")?.or(object("rope_scaling")?);
        let within = scaling.map(|scaling| Keys(scaling).number("rope_theta")).transpose()?.flatten();
        let theta = within.or(keys.number("rope_theta")?).unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 0.0) {
            return Err(Error::new(format!("rope_theta must be positive, not {theta}")).in_field("rope_theta"));
        }
        let Some(scaling) = scaling else { return Ok((theta, RopeScaling::None)) };
        let kind = match scaling.get("rope_type").or(scaling.get("type")) {
            Some(kind) => kind.as_str(),
            // The base alone stretches nothing.
            None => scaling.keys().all(|key| key == "rope_theta").then_some("default"),
        };
        let kind = kind.ok_or_else(|| {
            Error::new("the rope scaling does not say of which type it is")
                .in_field("rope_scaling")
                .hint("add `rope_type`: default, linear, dynamic or llama3")
        })?;
        let need = |key: &str| match Keys(scaling).number(key)? {
            Some(value) if value.is_finite() && value > 0.0 => Ok(value),
            _ => Err(Error::new(format!("rope scaling `{kind}` needs a positive `{key}`")).in_field("rope_scaling")),
        };
        let scaling = match kind {
            // Within the model's context, which we never leave, dynamic NTK changes nothing.
            "default" | "dynamic" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: need("factor")? },
            "llama3" => {
                let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
                if low >= high {
                    return Err(Error::new("rope scaling `llama3` needs low_freq_factor below high_freq_factor"));
                }
                let original = need("original_max_position_embeddings")?;
                RopeScaling::Llama3 { factor: need("factor")?, low, high, original }
            }
            other => {
                return Err(Error::new(format!("rope scaling `{other}` is not supported"))
                    .in_field("rope_scaling")
                    .hint("supported: default, linear, dynamic (within the context), llama3"));
            }
        };
        Ok((theta, scaling))
    }

    /// The dim/2 frequencies in radians per position, rounded to f32 as `transformers` does.
    fn frequencies(self, theta: f64, dim: usize) -> Vec<f32> {
        let plain = (0..dim / 2).map(|i| 1.0 / f64::from(theta.powf(2.0 * i as f64 / dim as f64) as f32));
        plain
            .map(|f| match self {
                RopeScaling::None => f as f32,
                RopeScaling::Linear { factor } => (f / factor) as f32,
                RopeScaling::Llama3 { factor, low, high, original } => {
                    let wavelength = std::f64::consts::TAU / f;
                    let scaled = if wavelength > original / low {
                        f / factor
                    } else if wavelength < original / high {
                        f
                    } else {
                        let smooth = (original / wavelength - low) / (high - low);
                        (1.0 - smooth) * f / factor + smooth * f
                    };
                    scaled as f32
                }
            })
            .collect()
    }

    /// `[positions, dim]`: dim/2 cosines, then dim/2 sines, of every position.
    ///
    /// The angle is rounded to f32 before the cosine, as `transformers` does: at
    /// position 30,000 that rounding is worth 1e-3 and must be the same.
    pub(super) fn table(self, theta: f64, dim: usize, positions: usize) -> Vec<f32> {
        let frequencies = self.frequencies(theta, dim);
        let mut table = Vec::with_capacity(positions * dim);
        for position in 0..positions {
            let angle = |f: &f32| f64::from(position as f32 * f);
            table.extend(frequencies.iter().map(|f| angle(f).cos() as f32));
            table.extend(frequencies.iter().map(|f| angle(f).sin() as f32));
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_short_wavelengths_and_stretches_long_ones() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let (plain, scaled) = (RopeScaling::None.frequencies(5e5, 128), scaling.frequencies(5e5, 128));
        assert_eq!(plain[0], scaled[0]);
        assert_eq!(plain[63] / 8.0, scaled[63]);
        assert!(plain.iter().zip(&scaled).all(|(p, s)| s <= p && *s >= p / 8.001));
    }

    #[test]
    fn a_scaling_of_no_type_is_no_scaling_to_ignore() {
        let read = |raw: Value| RopeScaling::from_json(raw.as_object().unwrap());
        for raw in
            [serde_json::json!({"rope_scaling": {"factor": 4.0}}), serde_json::json!({"rope_scaling": {"type": 4}})]
        {
            assert!(read(raw).unwrap_err().to_string().contains("of which type"));
        }
        assert_eq!(
            read(serde_json::json!({"rope_parameters": {"rope_theta": 5.0}})).unwrap(),
            (5.0, RopeScaling::None)
        );
    }

    #[test]
    fn transformers_5_keeps_theta_with_the_scaling() {
        let raw = serde_json::json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}});
        let (theta, scaling) = RopeScaling::from_json(raw.as_object().unwrap()).unwrap();
        assert_eq!((theta, scaling), (1e6, RopeScaling::None));
    }
}
