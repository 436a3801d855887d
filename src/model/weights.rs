//! Weights in and out: safetensors, single or sharded, bf16, f16 or f32.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{TensorInfo, View};
use serde_json::{Map, Value, json};

use super::parameters::ParamKind;
use super::tensor_file::{TensorFile, write_tensors};
use super::{Config, Model, ParamInfo};
use crate::backend::{Backend, Cpu};
use crate::error::{Context, Error, Result};
use crate::words::words;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Shards of a saved model are at most this long, as `transformers` cuts them.
const SHARD_BYTES: usize = 5_000_000_000;
/// A head of its own.
const HEAD: &str = "lm_head.weight";

words! {
    /// The type weights are written as; they are f32 in memory.
    #[derive(Default)]
    pub enum Dtype {
        /// As they are in memory; the default.
        #[default]
        F32 = "float32",
        /// Half the bytes: f32's range with 8 bits of precision.
        Bf16 = "bfloat16",
        /// Half the bytes: 11 bits of precision up to 65,504; weights beyond that are refused.
        F16 = "float16",
    }
}

impl Dtype {
    fn round(self, weight: f32) -> f32 {
        match self {
            Dtype::F32 => weight,
            Dtype::Bf16 => half::bf16::from_f32(weight).to_f32(),
            Dtype::F16 => half::f16::from_f32(weight).to_f32(),
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
    /// no float; weights that are NaN or infinite; a device that is too small, or does not cover the shape.
    pub fn load_on(backend: B, dir: &Path) -> Result<Self> {
        let config = Config::load(dir)?;
        B::covers(config.heads, config.vocab_size).map_err(|e| e.in_file(dir.display()))?;
        let files = weight_files(dir)?;
        check_size(&config, &files).map_err(|e| e.in_file(dir.display()))?;
        let mut model = Model::empty(backend, config);
        let mut seen = BTreeMap::new();
        let infos = model.layout.infos.clone();
        let by_name: BTreeMap<&str, usize> = infos.iter().enumerate().map(|(i, info)| (&*info.name, i)).collect();
        let mut bytes = Vec::new();
        for path in files {
            let mut file = TensorFile::open(&path)?;
            for name in file.names() {
                let Some(&index) = by_name.get(&*name) else {
                    if ignored(&name, model.config.tied) {
                        continue;
                    }
                    return Err(unknown(&name, &by_name).in_file(path.display()));
                };
                if seen.insert(index, ()).is_some() {
                    return Err(Error::new(format!("tensor `{name}` is stored twice")).in_file(path.display()));
                }
                file.read(&name, &mut bytes)?;
                let stored = file.info(&name).expect("it was just read");
                let values = read(&infos[index], stored, &bytes).map_err(|e| e.in_file(path.display()))?;
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
        // Out of memory is said here, not at the first step.
        model.backend.finish().map_err(|e| e.context("loading the model"))?;
        Ok(model)
    }

    /// Rounds the weights to what a file of this type holds: the model is then the one that whoever loads it gets.
    ///
    /// # Errors
    /// A weight that the type has no room for.
    pub fn round_to(&mut self, dtype: Dtype) -> Result<()> {
        if dtype == Dtype::F32 {
            return Ok(());
        }
        for info in self.layout.infos.clone() {
            let values: Vec<f32> = self.get(&info).into_iter().map(|weight| dtype.round(weight)).collect();
            if !values.iter().all(|weight| weight.is_finite()) {
                return Err(Error::new(format!("`{}` holds weights beyond {}", info.name, dtype.as_str()))
                    .hint("write the model as `bfloat16`, or as `float32`"));
            }
            self.set(&info, &values);
        }
        self.publish();
        Ok(())
    }

    /// Writes config, generation config and weights as `transformers` reads them.
    /// Existing files of these names are replaced; the tokenizer's are its own to save.
    ///
    /// # Errors
    /// Where the folder cannot be written, or the device has failed: then nothing of these files is a model.
    pub fn save(&self, dir: &Path, dtype: Dtype) -> Result<()> {
        self.backend.finish()?;
        self.save_shards(dir, dtype, false, SHARD_BYTES)?;
        self.backend.finish()
    }

    /// The same with a head of its own: where the embedding is also the head, it is written a second
    /// time as `lm_head.weight`, and the config says that the two are not tied.
    ///
    /// For servers that load new weights while they run. They may keep a packed copy of the head,
    /// which only a tensor of its name replaces (vLLM on the CPU). A temperature ([`Model::set_temperature`]) is in the
    /// last norm that is written: a server asked for temperature 1 draws from π_T and reports its log-probabilities.
    ///
    /// # Errors
    /// As [`Model::save`].
    pub fn save_untied(&self, dir: &Path, dtype: Dtype) -> Result<()> {
        self.backend.finish()?;
        self.save_shards(dir, dtype, true, SHARD_BYTES)?;
        self.backend.finish()
    }

    fn save_shards(&self, dir: &Path, dtype: Dtype, for_servers: bool, shard_bytes: usize) -> Result<()> {
        std::fs::create_dir_all(dir).or_fail(|| format!("cannot make {}", dir.display()))?;
        let untie = for_servers && self.config.tied;
        let tempered = |info: &ParamInfo| for_servers && info.param == self.layout.final_norm;
        self.config.save(dir, dtype.as_str(), untie)?;
        let named = self.layout.infos.iter().map(|info| (info.name.as_str(), info));
        let embedding = self.layout.infos.iter().find(|info| info.kind == ParamKind::Embedding).filter(|_| untie);
        let tensors: Vec<_> = named.chain(embedding.map(|info| (HEAD, info))).collect();
        let total = tensors.iter().map(|(_, info)| info.len() * dtype.bytes()).sum::<usize>();
        let mut shards: Vec<Vec<(&str, &ParamInfo)>> = vec![Vec::new()];
        let mut bytes = 0;
        for (name, info) in tensors {
            let size = info.len() * dtype.bytes();
            if bytes + size > shard_bytes && bytes > 0 {
                shards.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            shards.last_mut().expect("never empty").push((name, info));
        }
        let count = shards.len();
        let mut map = Map::new();
        for (i, shard) in shards.into_iter().enumerate() {
            let file = match count {
                1 => SINGLE.to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            for (name, _) in &shard {
                map.insert((*name).to_owned(), json!(file));
            }
            let stored = |info| Stored { model: self, info, dtype, tempered: tempered(info) };
            let views = shard.into_iter().map(|(name, info)| (name, stored(info)));
            write_tensors(&dir.join(&file), views, &[("format", "pt")])?;
        }
        let index = dir.join(INDEX);
        if count > 1 {
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
    /// Whether it is written divided by the model's temperature.
    tempered: bool,
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
        let mut values = self.model.get(self.info);
        if self.tempered {
            values.iter_mut().for_each(|w| *w /= self.model.temperature());
        }
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

/// What there is room for, whatever the files hold: an error about their tensors tells more.
const ALWAYS_ROOM: u128 = 1 << 24;

/// Refuses a config that asks for far more weights than the files can hold, before there is no room for them.
fn check_size(config: &Config, files: &[PathBuf]) -> Result<()> {
    let mut bytes = 0u128;
    for file in files {
        bytes += u128::from(std::fs::metadata(file).or_fail(|| format!("cannot read {}", file.display()))?.len());
    }
    // No type that is read takes fewer than two bytes.
    let asked = config.least_weights();
    if asked > bytes.max(ALWAYS_ROOM) {
        let message = format!("config.json describes {asked} weights or more, in files of {bytes} bytes");
        return Err(Error::new(message).hint("config.json belongs to another model, or a file was cut short"));
    }
    Ok(())
}

/// Tensors that checkpoints carry and the decoder does not need.
fn ignored(name: &str, tied: bool) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (tied && name == HEAD)
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

fn read(info: &ParamInfo, stored: &TensorInfo, bytes: &[u8]) -> Result<Vec<f32>> {
    if stored.shape != info.shape {
        return Err(Error::new(format!(
            "tensor `{}` has shape {:?}; config.json asks for {:?}",
            info.name, stored.shape, info.shape
        )));
    }
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    let values: Vec<f32> = match stored.dtype {
        safetensors::Dtype::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
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
    use safetensors::tensor::TensorView;

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
            model.save_shards(dir.path(), Dtype::F32, false, shard_bytes).unwrap();
            let back = Model::load(dir.path()).unwrap();
            assert_eq!(back.digest(), model.digest());
            assert_eq!(back.config().raw(), model.config().raw());
            assert_eq!(dir.path().join(INDEX).exists(), shard_bytes == 600);
        }
    }

    #[test]
    fn a_head_of_its_own_is_the_embedding_under_its_name() {
        for shard_bytes in [usize::MAX, 600] {
            let (dir, model) = (tempfile::tempdir().unwrap(), tiny(true));
            model.save_shards(dir.path(), Dtype::F32, true, shard_bytes).unwrap();
            let back = Model::load(dir.path()).unwrap();
            assert!(!back.config().tied && model.config().tied);
            let tensor = |name: &str| back.get(back.parameters().iter().find(|info| info.name == name).unwrap());
            assert_eq!(tensor(HEAD), tensor("model.embed_tokens.weight"));
            let mut batch = super::super::Batch::new();
            batch.push(&[1, 5, 2, 9, 3], |_| true);
            let logprobs = |model: &Model| model.forward(&mut model.workspace(), &batch).unwrap().logprobs;
            assert_eq!(logprobs(&back), logprobs(&model), "the same model");
        }
        let (dir, other) = (tempfile::tempdir().unwrap(), tiny(false));
        other.save_untied(dir.path(), Dtype::F32).unwrap();
        assert_eq!(Model::load(dir.path()).unwrap().digest(), other.digest(), "a head that is there stays");
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
            assert_ne!(back.digest(), model.digest());
            let mut rounded = tiny(true);
            rounded.round_to(dtype).unwrap();
            assert_eq!(rounded.digest(), back.digest(), "rounded beforehand it is the model that is loaded");
        }
    }

    #[test]
    fn weights_that_a_type_cannot_hold_are_refused() {
        let mut model = tiny(true);
        let info = model.parameters()[0].clone();
        model.set(&info, &vec![1e6; info.len()]);
        assert!(model.round_to(Dtype::F16).unwrap_err().to_string().contains("weights beyond float16"));
        model.round_to(Dtype::Bf16).unwrap();
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

    #[test]
    fn sizes_that_no_memory_holds_are_an_error_and_not_an_abort() {
        let dir = tempfile::tempdir().unwrap();
        for (key, size) in [("vocab_size", 1u64 << 32), ("num_hidden_layers", 1 << 32), ("intermediate_size", 1 << 31)]
        {
            let model = tiny(true);
            model.save(dir.path(), Dtype::F32).unwrap();
            let mut raw = model.config().raw().clone();
            raw.insert(key.to_owned(), size.into());
            std::fs::write(dir.path().join("config.json"), Value::Object(raw).to_string()).unwrap();
            let error = Model::load(dir.path()).err().unwrap().to_string();
            assert!(error.contains("weights or more, in files of"), "{key}: {error}");
        }
    }
}
