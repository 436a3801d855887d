//! Adapters as PEFT writes them, for programs that load them beside the weights they were trained from.
//!
//! Ours may be of several matrices at once (query, key and value; gate and up), which share their A and have their rows
//! of B. PEFT knows each matrix by its name: each gets a copy of A and its own rows of B, which is the same product.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::tensor::TensorView;
use serde_json::json;

use super::Model;
use super::json_object::{Keys, read_object};
use super::tensor_file::write_tensors;
use crate::backend::Backend;
use crate::error::{Context, Error, Result};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// What a folder's adapter calls the model that it belongs to, if it says; `None` where the folder is no adapter, or a model too.
///
/// # Errors
/// The adapter's config cannot be read.
pub(super) fn base_of(dir: &Path) -> Result<Option<Option<String>>> {
    let path = dir.join(CONFIG);
    if dir.join("config.json").exists() || !path.exists() {
        return Ok(None);
    }
    let config = read_object(&path)?;
    let base = Keys(&config).text("base_model_name_or_path").map_err(|e| e.in_file(path.display()))?;
    Ok(Some(base.map(str::to_owned)))
}

impl<B: Backend> Model<B> {
    /// Writes the adapters to a folder, in f32: `adapter_config.json` and `adapter_model.safetensors`
    /// with `base_model.model.NAME.lora_A.weight` `[r, in]` and `.lora_B.weight` `[out, r]`.
    ///
    /// They belong to the weights that the model had before it was trained; `base` is what the config calls these.
    ///
    /// # Errors
    /// The model has no adapters, the folder cannot be written, or the device has failed.
    pub fn save_adapters(&self, dir: &Path, base: Option<&str>) -> Result<()> {
        let Some(lora) = &self.lora else {
            return Err(Error::usage("the model has no adapters to save").hint("train it with `lora = { rank = … }`"));
        };
        std::fs::create_dir_all(dir).or_fail(|| format!("cannot make {}", dir.display()))?;
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        let mut targets = BTreeSet::new();
        for info in &self.layout.infos {
            let Some(place) = lora.places[info.param] else { continue };
            let adapter = &lora.adapters[place];
            let (rank, cols) = (adapter.rank, adapter.shape.1);
            let rows = info.range.start / cols..info.range.end / cols;
            let module = info.name.trim_end_matches(".weight");
            targets.insert(module.rsplit('.').next().unwrap_or(module));
            let name = |part: &str| format!("base_model.model.{module}.{part}.weight");
            tensors.push((name("lora_A"), vec![rank, cols], self.backend.get_f32(&adapter.a, 0..rank * cols)));
            let b = self.backend.get_f32(&adapter.b, rows.start * rank..rows.end * rank);
            tensors.push((name("lora_B"), vec![rows.len(), rank], b));
        }
        let first = lora.adapters.first();
        let (rank, scale) = first.map_or((0, 0.0), |adapter| (adapter.rank, adapter.scale));
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": rank,
            // α/r times r: exact for the ranks in use, which are powers of two.
            "lora_alpha": f64::from(scale) * rank as f64,
            "target_modules": targets,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "use_rslora": false,
            "use_dora": false,
            "modules_to_save": null,
            "base_model_name_or_path": base,
        });
        let path = dir.join(CONFIG);
        std::fs::write(&path, format!("{config:#}\n")).or_fail(|| format!("cannot write {}", path.display()))?;
        let views = tensors.iter().map(|(name, shape, values)| {
            let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
            (name.as_str(), view.expect("as many values as the shape says"))
        });
        write_tensors(&dir.join(TENSORS), views, &[("format", "pt")])?;
        self.backend.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use safetensors::SafeTensors;

    use super::*;
    use crate::backend::Heads;
    use crate::model::{Config, LoraConfig};

    #[test]
    fn a_weight_is_the_first_one_and_the_product_that_peft_makes_of_the_files() {
        let config = Config::fresh(11, 8, 12, 2, Heads { query: 2, kv: 1, dim: 4 }, 32, &[1]).unwrap();
        let before = Model::init(config.clone(), 7);
        let mut model = Model::init(config, 7).with_lora(LoraConfig { rank: 4, alpha: 12.0 }, 3).unwrap();
        let places: Vec<_> = model.adapters().to_vec();
        let fill = |i: usize, info: &crate::model::ParamInfo| -> Vec<f32> {
            (0..info.len()).map(|k| ((i * 31 + k * 7) % 13) as f32 / 13.0 - 0.4).collect()
        };
        let values: Vec<Vec<f32>> = places.iter().enumerate().map(|(i, info)| fill(i, info)).collect();
        for (info, values) in places.iter().zip(&values) {
            model.set_adapter(info, values);
        }
        let dir = tempfile::tempdir().unwrap();
        model.save_adapters(dir.path(), Some("models/base")).unwrap();

        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.path().join(CONFIG)).unwrap()).unwrap();
        assert_eq!((config["r"].as_u64(), config["lora_alpha"].as_f64()), (Some(4), Some(12.0)));
        assert_eq!(config["base_model_name_or_path"], "models/base");
        let targets = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"];
        assert_eq!(config["target_modules"], json!(targets));
        let bytes = std::fs::read(dir.path().join(TENSORS)).unwrap();
        let read: BTreeMap<String, (Vec<usize>, Vec<f32>)> = SafeTensors::deserialize(&bytes)
            .unwrap()
            .iter()
            .map(|(name, view)| {
                let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                (name.to_owned(), (view.shape().to_vec(), values))
            })
            .collect();
        assert_eq!(read.len(), 2 * 2 * targets.len());
        // The backend's own folding of the same adapters, matrix by matrix.
        let stored = before.params.iter().map(|p| before.backend.get_f32(&p.value, 0..p.rows * p.cols));
        let mut folded: Vec<Vec<f32>> = stored.collect();
        let lora = model.lora.as_ref().unwrap();
        for (param, place) in lora.places.iter().enumerate() {
            let Some(place) = place else { continue };
            let mut value = model.backend.f32(folded[param].len());
            model.backend.put_f32(&mut value, 0, &folded[param]);
            model.backend.adapter_merge(&mut value, &lora.adapters[*place], 1.0);
            folded[param] = model.backend.get_f32(&value, 0..folded[param].len());
        }
        for info in before.parameters().iter().filter(|info| lora.places[info.param].is_some()) {
            let module = info.name.trim_end_matches(".weight");
            let (a_shape, a) = &read[&format!("base_model.model.{module}.lora_A.weight")];
            let (b_shape, b) = &read[&format!("base_model.model.{module}.lora_B.weight")];
            assert_eq!((a_shape[1], b_shape[0]), (info.shape[1], info.shape[0]), "{module}");
            let first = before.get(info);
            for row in 0..info.shape[0] {
                for col in 0..info.shape[1] {
                    let product: f32 = (0..4).map(|k| b[row * 4 + k] * a[k * info.shape[1] + col]).sum();
                    let peft = first[row * info.shape[1] + col] + 3.0 * product;
                    let ours = folded[info.param][info.range.start + row * info.shape[1] + col];
                    assert!((peft - ours).abs() < 1e-5, "{module} [{row}, {col}]: {peft} and {ours}");
                }
            }
        }
    }

    #[test]
    fn an_adapter_in_a_models_place_is_told_with_its_base_and_what_to_do() {
        let stage = tempfile::tempdir().unwrap();
        let adapter = stage.path().join("adapter");
        let config = Config::fresh(11, 8, 12, 1, Heads { query: 2, kv: 1, dim: 4 }, 32, &[1]).unwrap();
        let model = Model::init(config, 7).with_lora(LoraConfig::default(), 3).unwrap();
        model.save_adapters(&adapter, Some("Qwen/Qwen2.5-0.5B")).unwrap();
        let told = || Model::load(&adapter).err().unwrap().render(false);
        assert!(told().contains("a PEFT adapter of `Qwen/Qwen2.5-0.5B` and no model"), "{}", told());
        assert!(told().contains("merge_and_unload()"), "{}", told());
        model.save(&stage.path().join("model"), crate::model::Dtype::F32).unwrap();
        assert!(told().contains("folded into: ") && !told().contains("merge_and_unload"), "{}", told());
        // A folder that is both is a model.
        model.save(&adapter, crate::model::Dtype::F32).unwrap();
        Model::load(&adapter).unwrap();
        std::fs::remove_file(adapter.join("config.json")).unwrap();
        std::fs::write(adapter.join(CONFIG), r#"{"base_model_name_or_path": 3}"#).unwrap();
        assert!(told().contains("must be a string, not 3"), "{}", told());
    }

    #[test]
    fn a_model_without_adapters_says_so() {
        let config = Config::fresh(11, 8, 12, 1, Heads { query: 2, kv: 1, dim: 4 }, 32, &[1]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let error = Model::init(config, 7).save_adapters(dir.path(), None).unwrap_err().render(false);
        assert!(error.contains("no adapters"), "{error}");
    }
}
