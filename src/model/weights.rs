//! Weights in and out: safetensors, single or sharded, bf16, f16 or f32.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::{SafeTensors, TensorView, View};
use serde_json::{Map, Value, json};

use super::{Config, Model, ParamInfo};
use crate::backend::{Backend, Cpu};
use crate::error::{Context, Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Shards of a saved model are at most this long, as `transformers` cuts them.
const SHARD_BYTES: usize = 5_000_000_000;

/// The type weights are written as; they are f32 in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    Bf16,
    F16,
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
            Dtype::F16 => "float16",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }
}

impl Model<Cpu> {
    /// Loads a Hugging Face checkpoint folder on the CPU.
    ///
    /// # Errors
    /// As [`Model::load_on`].
    pub fn load(dir: &Path) -> Result<Self> {
        Model::load_on(Cpu::new(), dir)
    }
}

impl<B: Backend> Model<B> {
    /// Loads `config.json`, `generation_config.json` if there is one, and the
    /// safetensors of a checkpoint folder.
    ///
    /// # Errors
    /// A file that is missing or damaged; a config the decoder does not cover;
    /// tensors that are missing, unknown, of another shape or of a type that is
    /// no float; weights that are NaN or infinite.
    pub fn load_on(backend: B, dir: &Path) -> Result<Self> {
        let config = Config::load(dir)?;
        let mut model = Model::empty(backend, config);
        let files = weight_files(dir)?;
        let mut seen = BTreeMap::new();
        let infos = model.layout.infos.clone();
        let by_name: BTreeMap<&str, usize> = infos.iter().enumerate().map(|(i, info)| (&*info.name, i)).collect();
        for path in files {
            let file = File::open(&path).or_fail(|| format!("cannot open {}", path.display()))?;
            // SAFETY: the map is read-only; a checkpoint that another process rewrites while it is
            // read gives wrong weights, which no copy would prevent either.
            let map = unsafe { Mmap::map(&file) }.or_fail(|| format!("cannot read {}", path.display()))?;
            let tensors = SafeTensors::deserialize(&map)
                .or_fail(|| "damaged safetensors file".into())
                .map_err(|e| e.in_file(path.display()).hint("was the download or copy cut short?"))?;
            for (name, view) in tensors.iter() {
                let Some(&index) = by_name.get(name) else {
                    if ignored(name, model.config.tied) {
                        continue;
                    }
                    return Err(unknown(name, &by_name).in_file(path.display()));
                };
                if seen.insert(index, ()).is_some() {
                    return Err(Error::new(format!("tensor `{name}` is stored twice")).in_file(path.display()));
                }
                let values = read(&infos[index], &view).map_err(|e| e.in_file(path.display()))?;
                model.set(&infos[index], &values);
            }
        }
        let missing: Vec<_> = infos.iter().enumerate().filter(|(i, _)| !seen.contains_key(i)).collect();
        if let Some((_, first)) = missing.first() {
            let more = match missing.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            return Err(Error::new(format!("the checkpoint has no tensor `{}`{more}", first.name))
                .in_file(dir.display())
                .hint("config.json asks for it: is a shard missing, or is tie_word_embeddings wrong?"));
        }
        model.publish();
        Ok(model)
    }

    /// Writes config, generation config and weights as `transformers` reads them.
    /// Existing files of these names are replaced; the tokenizer's are its own to save.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save(&self, dir: &Path, dtype: Dtype) -> Result<()> {
        self.save_shards(dir, dtype, SHARD_BYTES)
    }

    fn save_shards(&self, dir: &Path, dtype: Dtype, shard_bytes: usize) -> Result<()> {
        std::fs::create_dir_all(dir).or_fail(|| format!("cannot make {}", dir.display()))?;
        self.config.save(dir, dtype.name())?;
        let mut shards: Vec<Vec<&ParamInfo>> = vec![Vec::new()];
        let mut bytes = 0;
        for info in &self.layout.infos {
            let size = info.len() * dtype.bytes();
            if bytes + size > shard_bytes && bytes > 0 {
                shards.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            shards.last_mut().expect("never empty").push(info);
        }
        let count = shards.len();
        let mut map = Map::new();
        for (i, shard) in shards.into_iter().enumerate() {
            let file = match count {
                1 => SINGLE.to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            for info in &shard {
                map.insert(info.name.clone(), json!(file));
            }
            let views = shard.into_iter().map(|info| (info.name.as_str(), Stored { model: self, info, dtype }));
            let metadata = [("format".to_owned(), "pt".to_owned())].into();
            safetensors::serialize_to_file(views, Some(metadata), &dir.join(&file))
                .or_fail(|| format!("cannot write {}", dir.join(&file).display()))?;
        }
        let index = dir.join(INDEX);
        if count > 1 {
            let total = self.size() * dtype.bytes();
            let text = json!({"metadata": {"total_size": total}, "weight_map": map});
            std::fs::write(&index, format!("{text:#}\n")).or_fail(|| format!("cannot write {}", index.display()))?;
            let _ = std::fs::remove_file(dir.join(SINGLE));
        } else {
            let _ = std::fs::remove_file(&index);
        }
        Ok(())
    }

    /// BLAKE3 over names, shapes and f32 weights, in the order of [`Model::parameters`]:
    /// the same weights have the same digest whatever files they came from.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for info in &self.layout.infos {
            hasher.update(info.name.as_bytes());
            for size in &info.shape {
                hasher.update(&(*size as u64).to_le_bytes());
            }
            let values = self.get(info);
            hasher.update_rayon(bytemuck::cast_slice(&values));
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// A tensor that is converted only when it is written.
struct Stored<'a, B: Backend> {
    model: &'a Model<B>,
    info: &'a ParamInfo,
    dtype: Dtype,
}

impl<B: Backend> View for Stored<'_, B> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::Bf16 => safetensors::Dtype::BF16,
            Dtype::F16 => safetensors::Dtype::F16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.model.get(self.info);
        let bytes = match self.dtype {
            Dtype::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Dtype::Bf16 => values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
        };
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.info.len() * self.dtype.bytes()
    }
}

/// The folder's safetensors files, in order.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let index = dir.join(INDEX);
    if index.exists() {
        let text = std::fs::read_to_string(&index).or_fail(|| format!("cannot read {}", index.display()))?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| Error::new(format!("not JSON: {e}")).in_file(index.display()).at_line(e.line(), None))?;
        let map = value.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| Error::new("the index has no `weight_map`").in_file(index.display()))?;
        let mut files: Vec<&str> = map.values().filter_map(Value::as_str).collect();
        files.sort_unstable();
        files.dedup();
        let shards: Vec<PathBuf> = files.iter().map(|file| dir.join(file)).collect();
        return match shards.iter().find(|shard| !shard.exists()) {
            Some(shard) => Err(Error::new(format!("shard {} is missing", shard.display())).in_file(index.display())),
            None => Ok(shards),
        };
    }
    let single = dir.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let pickled = dir.join("pytorch_model.bin").exists() || dir.join("pytorch_model.bin.index.json").exists();
    let error = Error::new(format!("no {SINGLE} and no {INDEX}")).in_file(dir.display());
    Err(match pickled {
        true => error.hint("pickled weights (pytorch_model.bin) are not read: convert them to safetensors"),
        false => error.hint("a model is a folder with config.json, model.safetensors and tokenizer.json"),
    })
}

/// Tensors that checkpoints carry and the decoder does not need.
fn ignored(name: &str, tied: bool) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight")
}

fn unknown(name: &str, known: &BTreeMap<&str, usize>) -> Error {
    let near =
        known.keys().copied().max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
    let error = Error::new(format!("tensor `{name}` does not belong to the model config.json describes"));
    match near {
        Some(near) => error.hint(format!("the nearest name it has is `{near}`")),
        None => error,
    }
}

fn read(info: &ParamInfo, view: &TensorView) -> Result<Vec<f32>> {
    if view.shape() != info.shape {
        return Err(Error::new(format!(
            "tensor `{}` has shape {:?}; config.json asks for {:?}",
            info.name,
            view.shape(),
            info.shape
        )));
    }
    let pairs = || view.data().chunks_exact(2).map(|b| [b[0], b[1]]);
    let values: Vec<f32> = match view.dtype() {
        safetensors::Dtype::F32 => {
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        safetensors::Dtype::BF16 => pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        safetensors::Dtype::F16 => pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
        other => {
            return Err(Error::new(format!("tensor `{}` is {other:?}; only F32, BF16 and F16 are read", info.name)));
        }
    };
    if let Some(i) = values.iter().position(|x| !x.is_finite()) {
        return Err(Error::new(format!("tensor `{}` holds {} at element {i}", info.name, values[i]))
            .hint("the checkpoint was saved from a run that had diverged"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Heads;

    fn tiny(tied: bool) -> Model {
        let mut raw = Config::fresh(11, 8, 12, 2, Heads { query: 2, kv: 1, dim: 4 }, 32, &[1]).unwrap().raw;
        raw["tie_word_embeddings"] = json!(tied);
        Model::init(Config::from_json(raw).unwrap(), 7)
    }

    #[test]
    fn a_saved_model_comes_back_to_the_bit_whole_or_in_shards() {
        for (tied, shard_bytes) in [(true, usize::MAX), (false, 600)] {
            let (dir, model) = (tempfile::tempdir().unwrap(), tiny(tied));
            model.save_shards(dir.path(), Dtype::F32, shard_bytes).unwrap();
            let back = Model::load(dir.path()).unwrap();
            assert_eq!(back.digest(), model.digest());
            assert_eq!(back.config().raw(), model.config().raw());
            assert_eq!(dir.path().join(INDEX).exists(), shard_bytes == 600);
        }
    }

    #[test]
    fn half_precision_rounds_and_nothing_else() {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            let (dir, model) = (tempfile::tempdir().unwrap(), tiny(true));
            model.save(dir.path(), dtype).unwrap();
            let back = Model::load(dir.path()).unwrap();
            for info in model.parameters() {
                for (a, b) in model.get(info).iter().zip(back.get(info)) {
                    assert!((a - b).abs() <= a.abs() * 0.004 + 1e-7, "{a} {b}");
                }
            }
        }
    }

    /// Saves a model, changes its tensors, and says how loading fails.
    fn fault(change: impl Fn(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> String {
        let (dir, model) = (tempfile::tempdir().unwrap(), tiny(true));
        model.save(dir.path(), Dtype::F32).unwrap();
        let mut tensors: BTreeMap<_, _> =
            model.parameters().iter().map(|info| (info.name.clone(), (info.shape.clone(), model.get(info)))).collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, (shape, values))| {
            (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), bytemuck::cast_slice(values)).unwrap())
        });
        safetensors::serialize_to_file(views, None, &dir.path().join(SINGLE)).unwrap();
        Model::load(dir.path()).err().expect("loading fails").render(false)
    }

    #[test]
    fn faulty_checkpoints_are_named() {
        let norm = "model.norm.weight".to_owned();
        assert!(fault(|t| drop(t.remove(&norm))).contains("has no tensor `model.norm.weight`"));
        let extra = fault(|t| drop(t.insert("model.norm.wait".into(), (vec![1], vec![0.0]))));
        assert!(
            extra.contains("`model.norm.wait` does not belong") && extra.contains("`model.norm.weight`"),
            "{extra}"
        );
        assert!(fault(|t| *t.get_mut(&norm).unwrap() = (vec![4], vec![0.0; 4])).contains("shape [4]"));
        assert!(fault(|t| t.get_mut(&norm).unwrap().1[3] = f32::NAN).contains("holds NaN at element 3"));
        let dir = tempfile::tempdir().unwrap();
        assert!(Model::load(dir.path()).err().unwrap().to_string().contains("config.json"));
        tiny(true).save(dir.path(), Dtype::F32).unwrap();
        std::fs::write(dir.path().join(SINGLE), b"junk").unwrap();
        assert!(Model::load(dir.path()).err().unwrap().to_string().contains("damaged"));
    }
}
