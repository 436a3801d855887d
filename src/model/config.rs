//! `config.json` of Llama, Qwen2 and Qwen3 checkpoints.
//!
//! Only what the decoder needs is interpreted; every other key is kept and
//! written back, so that a saved model opens in `transformers` as the original did.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::json_object::{Keys, read_object};
use super::peft;
use super::rope::RopeScaling;
use crate::backend::Heads;
use crate::error::{Context, Error, Result};
use crate::store::hub_hint;

/// The checkpoint layouts the decoder covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RMSNorm, rotary embedding, SwiGLU, grouped queries (Touvron et al. 2023); biases only where `attention_bias`
    /// asks.
    Llama,
    /// Llama's layout, with biases on queries, keys and values (arXiv 2407.10671).
    Qwen2,
    /// Llama's layout, with an RMSNorm of each query and key head (arXiv 2505.09388).
    Qwen3,
}

impl Family {
    fn model_type(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
        }
    }

    fn architecture(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The family that a `config.json` names.
    fn read(keys: &Keys<'_>) -> Result<Family> {
        let architectures = keys.read("architectures", "a list", Value::as_array)?;
        let architecture = architectures.and_then(|names| names.first()).and_then(Value::as_str);
        let model_type = keys.text("model_type")?;
        let families = [Family::Llama, Family::Qwen2, Family::Qwen3];
        let found = match (architecture, model_type) {
            (Some(name), _) => families.into_iter().find(|f| f.architecture() == name),
            (None, Some(name)) => families.into_iter().find(|f| f.model_type() == name),
            (None, None) => None,
        };
        found.ok_or_else(|| {
            let name = architecture.or(model_type).unwrap_or("(none named)");
            Error::new(format!("architecture `{name}` is not supported"))
                .hint("supported: LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM")
        })
    }
}

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Names the layout in `config.json`.
    pub family: Family,
    /// Rows of embedding and head; may be more than the tokenizer has tokens.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the SwiGLU's gate.
    pub intermediate_size: usize,
    /// Decoder layers, at least 1.
    pub layers: usize,
    /// Query heads, key/value heads and their width; each key/value head serves query/kv query heads.
    pub heads: Heads,
    /// Most tokens of prompt and completion together.
    pub context: usize,
    /// ε of every RMSNorm, inside the root; positive, 1e-6 if the file does not say.
    pub norm_eps: f32,
    /// Base θ of the rotary frequencies; positive, 10,000 if the file does not say.
    pub rope_theta: f64,
    /// What is done to these frequencies for a longer context.
    pub rope_scaling: RopeScaling,
    /// The head is the embedding.
    pub tied: bool,
    /// Whether queries, keys and values have biases; Qwen2's always do.
    pub qkv_bias: bool,
    /// Whether attention's output projection has a bias.
    pub out_bias: bool,
    /// Whether each query and key head has an RMSNorm before the rotation, as Qwen3's do.
    pub qk_norm: bool,
    /// Tokens that end a turn, of `config.json` and `generation_config.json`.
    pub eos_token_ids: Vec<u32>,
    /// Every key of `config.json`.
    pub(super) raw: Map<String, Value>,
    /// Every key of `generation_config.json`.
    pub(super) generation: Option<Map<String, Value>>,
}

/// Positions that there is a table of angles for: 8 GiB of it with heads of 128.
const MOST_CONTEXT: usize = 1 << 24;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";

impl Config {
    /// A fresh model's config, in the Llama layout with tied embeddings.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn fresh(
        vocab_size: usize,
        hidden_size: usize,
        intermediate_size: usize,
        layers: usize,
        heads: Heads,
        context: usize,
        eos_token_ids: &[u32],
    ) -> Result<Self> {
        let family = Family::Llama;
        let eos = match eos_token_ids {
            [one] => json!(one),
            many => json!(many),
        };
        let raw = json!({
            "architectures": [family.architecture()],
            "model_type": family.model_type(),
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads.query,
            "num_key_value_heads": heads.kv,
            "head_dim": heads.dim,
            "max_position_embeddings": context,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": true,
            "bos_token_id": null,
            "eos_token_id": eos,
            "torch_dtype": "float32",
        });
        let Value::Object(raw) = raw else { unreachable!("the literal is an object") };
        Config::from_json(raw)
    }

    /// Reads `config.json` of a checkpoint folder, and the ends of turn of its
    /// `generation_config.json` if there is one.
    ///
    /// # Errors
    /// A file that cannot be read or is not JSON; an adapter and no model; an architecture, rope scaling,
    /// activation or option the decoder does not cover; sizes that do not fit together.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        if let Some(base) = peft::base_of(dir)? {
            return Err(adapter_alone(dir, base.as_deref()));
        }
        let raw = read_object(&path).map_err(|e| match hub_hint(&dir.to_string_lossy()) {
            Some(hint) if !dir.exists() => e.hint(hint),
            _ => e,
        })?;
        let mut config = Config::from_json(raw).map_err(|e| e.in_file(path.display()))?;
        let path = dir.join(GENERATION);
        if path.exists() {
            let generation = read_object(&path)?;
            let ends = Keys(&generation).token_ids("eos_token_id").map_err(|e| e.in_file(path.display()))?;
            for id in ends {
                if !config.eos_token_ids.contains(&id) {
                    config.eos_token_ids.push(id);
                }
            }
            config.generation = Some(generation);
        }
        Ok(config)
    }

    /// What `generation_config.json` says of a key, such as `temperature`.
    pub fn generation(&self, key: &str) -> Option<&Value> {
        self.generation.as_ref()?.get(key)
    }

    /// Puts the token that the model was trained to end with before the others that it stops at, in `config.json` and in
    /// `generation_config.json`: what samples from it reads the one or the other.
    pub(super) fn end_with(&mut self, id: u32) {
        for object in [Some(&mut self.raw), self.generation.as_mut()].into_iter().flatten() {
            let known = Keys(object).token_ids("eos_token_id").unwrap_or_default();
            if known.first() != Some(&id) {
                object.insert(
                    "eos_token_id".to_owned(),
                    match first(id, known).as_slice() {
                        [one] => json!(one),
                        many => json!(many),
                    },
                );
            }
        }
        self.eos_token_ids = first(id, std::mem::take(&mut self.eos_token_ids));
    }

    /// Writes `config.json` and `generation_config.json`; `untied` says that the head is beside the embedding.
    pub(super) fn save(&self, dir: &Path, dtype: &str, untied: bool) -> Result<()> {
        let mut raw = self.raw.clone();
        if untied {
            raw.insert("tie_word_embeddings".into(), false.into());
        }
        let key = if raw.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        raw.insert(key.into(), dtype.into());
        let generation = self.generation.clone().unwrap_or_else(|| {
            let ids = ["bos_token_id", "eos_token_id"];
            ids.into_iter().filter_map(|id| Some((id.to_owned(), raw.get(id)?.clone()))).collect()
        });
        for (file, object) in [(CONFIG, raw), (GENERATION, generation)] {
            let path = dir.join(file);
            let text = format!("{:#}\n", Value::Object(object));
            std::fs::write(&path, text).or_fail(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Interprets the keys of a `config.json`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_json(raw: Map<String, Value>) -> Result<Self> {
        let keys = Keys(&raw);
        let family = Family::read(&keys)?;
        let hidden_size = keys.size("hidden_size")?;
        let query = keys.size("num_attention_heads")?;
        let kv = match keys.0.get("num_key_value_heads") {
            None | Some(Value::Null) => query,
            Some(_) => keys.size("num_key_value_heads")?,
        };
        let dim = match keys.size_or("head_dim", 0)? {
            0 if hidden_size % query != 0 => {
                return Err(Error::new(format!("hidden_size {hidden_size} is not a multiple of {query} heads")));
            }
            0 => hidden_size / query,
            dim => dim,
        };
        if query % kv != 0 {
            return Err(Error::new(format!(
                "num_attention_heads {query} is not a multiple of num_key_value_heads {kv}"
            )));
        }
        if dim % 2 != 0 {
            return Err(Error::new(format!("head_dim {dim} is odd; rotary embedding needs pairs")));
        }
        let activation = keys.text("hidden_act")?.unwrap_or("silu");
        if activation != "silu" && activation != "swish" {
            return Err(Error::new(format!("hidden_act `{activation}` is not supported"))
                .hint("the decoder covers SwiGLU (silu) models"));
        }
        if keys.flag("use_sliding_window")? {
            return Err(Error::new("sliding-window attention is not supported")
                .hint("set use_sliding_window to false if the context is shorter than the window"));
        }
        if keys.flag("mlp_bias")? {
            return Err(Error::new("mlp_bias is not supported"));
        }
        if raw.contains_key("quantization_config") {
            return Err(Error::new("quantized checkpoints are not supported").hint("use the bf16, f16 or f32 weights"));
        }
        let (rope_theta, rope_scaling) = RopeScaling::from_json(&raw)?;
        let attention_bias = keys.flag("attention_bias")?;
        let config = Config {
            family,
            vocab_size: keys.size("vocab_size")?,
            hidden_size,
            intermediate_size: keys.size("intermediate_size")?,
            layers: keys.size("num_hidden_layers")?,
            heads: Heads { query, kv, dim },
            context: keys.size_or("max_position_embeddings", 2048)?,
            norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope_theta,
            rope_scaling,
            tied: keys.flag("tie_word_embeddings")?,
            qkv_bias: family == Family::Qwen2 || attention_bias,
            out_bias: family != Family::Qwen2 && attention_bias,
            qk_norm: family == Family::Qwen3,
            eos_token_ids: keys.token_ids("eos_token_id")?,
            raw,
            generation: None,
        };
        if config.context > MOST_CONTEXT {
            let message = format!("max_position_embeddings is {}; at most {MOST_CONTEXT} is covered", config.context);
            return Err(Error::new(message).in_field("max_position_embeddings"));
        }
        if config.norm_eps <= 0.0 || !config.norm_eps.is_finite() {
            return Err(Error::new("rms_norm_eps must be positive"));
        }
        Ok(config)
    }

    /// Weights of a model of this shape, and of what it has in every layer at least, without laying it out.
    pub(super) fn least_weights(&self) -> u128 {
        let [vocab, hidden, ff, layers] =
            [self.vocab_size, self.hidden_size, self.intermediate_size, self.layers].map(|size| size as u128);
        let Heads { query, kv, dim } = self.heads;
        let heads = 2 * (query as u128 + kv as u128) * dim as u128;
        vocab * hidden * if self.tied { 1 } else { 2 } + layers * hidden * (heads + 3 * ff)
    }

    /// Checks that another model can stand beside this one on the same batches and activations, and take its weights
    /// over: a reference beside its policy.
    ///
    /// # Errors
    /// Where it cannot, with the first size or part that differs.
    pub fn check_twin(&self, twin: &Config) -> Result<()> {
        let parts = |c: &Config| {
            [
                ("vocab_size", c.vocab_size),
                ("hidden_size", c.hidden_size),
                ("intermediate_size", c.intermediate_size),
                ("num_hidden_layers", c.layers),
                ("num_attention_heads", c.heads.query),
                ("num_key_value_heads", c.heads.kv),
                ("head_dim", c.heads.dim),
                ("tie_word_embeddings", usize::from(c.tied)),
                ("biases of queries, keys and values", usize::from(c.qkv_bias)),
                ("bias of attention's output", usize::from(c.out_bias)),
                ("query/key norm", usize::from(c.qk_norm)),
                // A longer context does no harm.
                ("max_position_embeddings", c.context.min(self.context)),
            ]
        };
        match parts(self).into_iter().zip(parts(twin)).find(|(ours, theirs)| ours != theirs) {
            Some(((part, ours), (_, theirs))) => {
                Err(Error::usage(format!("the two models differ in their shape ({part}: {ours} and {theirs})"))
                    .hint("a reference is another copy of the policy, or an earlier state of it"))
            }
            None => Ok(()),
        }
    }

    /// Every key of `config.json`, as read.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.raw
    }
}

/// An adapter where a model is wanted, and what to do with it.
fn adapter_alone(dir: &Path, base: Option<&str>) -> Error {
    let base = base.map_or("the model it was trained from".to_owned(), |base| format!("`{base}`"));
    let error = Error::new(format!("this is a PEFT adapter of {base} and no model: there is no {CONFIG}"))
        .in_file(dir.display());
    match dir.parent().map(|stage| stage.join("model")).filter(|model| model.join(CONFIG).exists()) {
        Some(merged) => error.hint(format!("take the model that it is folded into: {}", merged.display())),
        None => error.hint(
            "fold it into that model first, with PEFT in Python: `AutoPeftModelForCausalLM.from_pretrained(ADAPTER)`, then \
             `.merge_and_unload().save_pretrained(FOLDER)`, with the tokenizer's files beside it",
        ),
    }
}

/// The ids with this one before the others.
fn first(id: u32, ids: Vec<u32>) -> Vec<u32> {
    std::iter::once(id).chain(ids.into_iter().filter(|other| *other != id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(changes: Value) -> Result<Config> {
        let heads = Heads { query: 4, kv: 2, dim: 16 };
        let mut raw = Config::fresh(110, 64, 192, 2, heads, 256, &[1]).unwrap().raw;
        let Value::Object(changes) = changes else { panic!("an object") };
        raw.extend(changes);
        Config::from_json(raw)
    }

    #[test]
    fn families_differ_in_biases_and_norms() {
        let qwen2 = tiny(json!({"architectures": ["Qwen2ForCausalLM"]})).unwrap();
        assert!(qwen2.qkv_bias && !qwen2.out_bias && !qwen2.qk_norm);
        let qwen3 = tiny(json!({"architectures": ["Qwen3ForCausalLM"]})).unwrap();
        assert!(!qwen3.qkv_bias && qwen3.qk_norm);
        let llama = tiny(json!({"attention_bias": true, "eos_token_id": [5, 6]})).unwrap();
        assert!(llama.qkv_bias && llama.out_bias);
        assert_eq!(llama.eos_token_ids, [5, 6]);
    }

    #[test]
    fn the_token_a_model_was_trained_to_end_with_comes_first_in_both_files() {
        let mut config = tiny(json!({"eos_token_id": 5})).unwrap();
        let Value::Object(generation) = json!({"eos_token_id": [6, 5], "top_p": 0.8}) else { panic!("an object") };
        config.generation = Some(generation);
        config.eos_token_ids.push(6);
        let files = |config: &Config| {
            let dir = tempfile::tempdir().unwrap();
            config.save(dir.path(), "float32", false).unwrap();
            [CONFIG, GENERATION].map(|file| std::fs::read_to_string(dir.path().join(file)).unwrap())
        };
        let before = files(&config);
        let ends = |config: &Config| {
            files(config).map(|text| serde_json::from_str::<Value>(&text).unwrap()["eos_token_id"].clone())
        };
        let mut same = tiny(json!({"eos_token_id": 5})).unwrap();
        same.end_with(5);
        assert_eq!(ends(&same), [json!(5), json!(5)], "a single one stays a number");
        config.end_with(6);
        assert_eq!(ends(&config), [json!([6, 5]), json!([6, 5])]);
        assert_eq!(files(&config)[1], before[1], "what is right already keeps its bytes");
        config.end_with(9);
        assert_eq!(ends(&config), [json!([9, 6, 5]), json!([9, 6, 5])]);
        assert_eq!(config.eos_token_ids, [9, 6, 5]);
    }

    #[test]
    fn a_twin_is_of_the_same_shape_and_of_no_shorter_context() {
        let policy = tiny(json!({})).unwrap();
        let twin = |changes| policy.check_twin(&tiny(changes).unwrap()).map_err(|e| e.to_string());
        assert_eq!(twin(json!({"rope_theta": 5e5, "max_position_embeddings": 4096})), Ok(()));
        let message = twin(json!({"hidden_size": 128})).unwrap_err();
        assert!(message.contains("hidden_size: 64 and 128"), "{message}");
        // The same tensors, and other heads in them.
        assert!(twin(json!({"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8})).is_err());
        assert!(twin(json!({"max_position_embeddings": 128})).unwrap_err().contains("256 and 128"));
    }

    #[test]
    fn a_value_of_another_type_is_no_default() {
        for (changes, words) in [
            (json!({"rms_norm_eps": "1e-6"}), "`rms_norm_eps` must be a number, not \"1e-6\""),
            (json!({"rope_theta": "x"}), "`rope_theta` must be a number"),
            (json!({"rope_scaling": "linear"}), "`rope_scaling` must be a table"),
            (json!({"rope_scaling": {"rope_type": "linear", "factor": "4"}}), "`factor` must be a number"),
            (json!({"attention_bias": 1}), "`attention_bias` must be true or false, not 1"),
            (json!({"tie_word_embeddings": "true"}), "`tie_word_embeddings` must be true or false"),
            (json!({"hidden_act": 3}), "`hidden_act` must be a string"),
            (json!({"eos_token_id": "x"}), "`eos_token_id` must be a token's id, or a list of such"),
            (json!({"eos_token_id": [1, -2]}), "`eos_token_id` must be"),
            (json!({"architectures": "LlamaForCausalLM"}), "`architectures` must be a list"),
        ] {
            let error = tiny(changes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let absent = tiny(json!({"rms_norm_eps": null, "rope_theta": null, "attention_bias": null, "eos_token_id": null, "rope_scaling": null})).unwrap();
        assert_eq!((absent.norm_eps, absent.rope_theta, absent.qkv_bias), (1e-6, 1e4, false));
        assert_eq!(absent.eos_token_ids, [0u32; 0]);
    }

    #[test]
    fn what_is_not_covered_is_named() {
        for (changes, words) in [
            (json!({"architectures": ["MixtralForCausalLM"]}), "`MixtralForCausalLM` is not supported"),
            (json!({"hidden_act": "gelu"}), "`gelu`"),
            (json!({"num_key_value_heads": 3}), "not a multiple"),
            (json!({"num_key_value_heads": 0}), "`num_key_value_heads` is missing or 0"),
            (json!({"hidden_size": null}), "`hidden_size` is missing"),
            (json!({"hidden_size": "big"}), "must be a size"),
            (json!({"use_sliding_window": true}), "sliding-window"),
            (json!({"rope_scaling": {"rope_type": "longrope"}}), "longrope"),
            (json!({"head_dim": 15}), "odd"),
            (json!({"max_position_embeddings": 4_000_000_000u64}), "at most 16777216"),
        ] {
            let message = tiny(changes).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
