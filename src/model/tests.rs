//! The decoder against PyTorch and `transformers`: vectors that
//! `tests/parity/make_vectors.py` froze under `tests/parity/vectors`.

mod last_layer;
mod temperature;

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use super::*;
use crate::backend::{Draw, Drawn, Heads};
use crate::schema::Message;

const LAYOUTS: [&str; 3] = ["llama", "qwen2", "qwen3"];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/vectors")
}

/// What PyTorch computed for one layout.
struct Expected(Vec<u8>);

impl Expected {
    fn load(layout: &str) -> Self {
        Expected(std::fs::read(vectors().join(layout).join("expected.safetensors")).unwrap())
    }

    fn get(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

fn json(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(vectors().join(file)).unwrap()).unwrap()
}

/// The batch the vectors were made of.
fn batch() -> Batch {
    let spec = json("batch.json");
    let mut batch = Batch::new();
    for (tokens, first) in spec["sequences"].as_array().unwrap().iter().zip(spec["first_scored"].as_array().unwrap()) {
        let tokens: Vec<u32> = tokens.as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
        batch.push(&tokens, |i| i as u64 >= first.as_u64().unwrap());
    }
    batch
}

/// Largest difference, relative to the largest value.
fn difference(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let scale = theirs.iter().fold(1e-3f32, |a, x| a.max(x.abs()));
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance * scale, "{what} differs by {worst} at a scale of {scale}");
}

#[test]
fn logits_scores_and_gradients_are_pytorchs() {
    let batch = batch();
    for layout in LAYOUTS {
        let expected = Expected::load(layout);
        let model = Model::load(&vectors().join(layout)).unwrap();
        let (mut work, mut grads) = (model.workspace(), model.grads());
        let logits = model.logits(&mut work, &batch).unwrap();
        difference(&format!("{layout} logits"), &logits, &expected.get("logits"), 3e-6);
        let scores = model.forward(&mut work, &batch).unwrap();
        difference(&format!("{layout} logprobs"), &scores.logprobs, &expected.get("logprobs"), 3e-6);
        difference(&format!("{layout} entropies"), &scores.entropies, &expected.get("entropies"), 3e-6);
        let weight = expected.get("weight");
        let entropy: Vec<f32> = weight.iter().map(|w| 0.3 * w).collect();
        model.backward(&mut work, &batch, &weight, Some(&entropy), &mut grads).unwrap();
        for info in model.parameters() {
            let name = format!("grad.{}", info.name);
            difference(&format!("{layout} {name}"), &grads.get(info), &expected.get(&name), 1e-5);
        }
    }
}

#[test]
fn ten_adamw_steps_follow_pytorchs_losses() {
    let batch = batch();
    for layout in LAYOUTS {
        let mut model = Model::load(&vectors().join(layout)).unwrap();
        let (mut work, mut grads, mut moments) = (model.workspace(), model.grads(), model.moments());
        let mut losses = Vec::new();
        for step in 1..=11 {
            let scores = model.forward(&mut work, &batch).unwrap();
            losses.push(-scores.logprobs.iter().sum::<f32>() / batch.scored() as f32);
            grads.zero();
            let seed = vec![-1.0 / batch.scored() as f32; batch.scored()];
            model.backward(&mut work, &batch, &seed, None, &mut grads).unwrap();
            model.update(&grads, &mut moments, |info| {
                let weight_decay = if info.decays() { 0.1 } else { 0.0 };
                Update::AdamW(AdamW {
                    lr: 1e-2,
                    beta1: 0.9,
                    beta2: 0.95,
                    eps: 1e-8,
                    weight_decay,
                    step,
                    grad_scale: 1.0,
                })
            });
        }
        difference(&format!("{layout} losses"), &losses, &Expected::load(layout).get("losses"), 2e-5);
        assert!(losses[10] < 0.5 * losses[0], "ten steps must learn something: {losses:?}");
    }
}

#[test]
fn greedy_tokens_are_transformers() {
    for layout in LAYOUTS {
        let model = Model::load(&vectors().join(layout)).unwrap();
        let prompt: Vec<u32> = serde_json::from_value(json("batch.json")["sequences"][0].clone()).unwrap();
        let mut decoder = Decoder::new(Cpu::new(), &model, 2, 64, 8);
        let rows: Vec<Row> =
            prompt.iter().enumerate().map(|(i, &token)| Row { token, slot: 1, position: i as u32 }).collect();
        let (last, before) = rows.split_last().unwrap();
        model.prefill(&mut decoder, before);
        let greedy = Draw { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, index: 0 };
        let (mut row, mut tokens) = (*last, Vec::new());
        for _ in 0..16 {
            let mut drawn = [Drawn::default()];
            model.decode(&mut decoder, &[row], &[greedy], &mut drawn).unwrap();
            row = Row { token: drawn[0].token, position: row.position + 1, ..row };
            tokens.push(drawn[0].token);
        }
        let expected: Vec<u32> = Expected::load(layout).get("greedy").iter().map(|x| x.to_bits()).collect();
        assert_eq!(tokens, expected, "{layout}");
    }
}

#[test]
fn published_chat_templates_render_as_transformers_renders_them() {
    let cases = json("chat.json");
    for case in cases.as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let source = vectors().join(format!("../templates/{name}.jinja"));
        let template = chat_template::ChatTemplate::new(&std::fs::read_to_string(source).unwrap()).unwrap();
        let special: Vec<(String, String)> =
            case["special"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().into())).collect();
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let text = template.render(&messages, &special, case["generate"].as_bool().unwrap()).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap(), "{name} {messages:?}");
    }
    assert!(cases.as_array().unwrap().len() >= 40);
}

fn mini(threads: usize) -> Model {
    let config = Config::fresh(110, 64, 192, 2, Heads { query: 4, kv: 2, dim: 16 }, 256, &[1]).unwrap();
    Model::init_on(Cpu::with_threads(threads).unwrap(), config, 5)
}

fn corpus(sequences: u64) -> Batch {
    let mut batch = Batch::new();
    for i in 0..sequences {
        let tokens: Vec<u32> = (0..20 + i % 40).map(|t| ((t * t * (i + 3) + i) % 110) as u32).collect();
        batch.push(&tokens, |t| t > 5);
    }
    batch
}

#[test]
fn training_gives_the_same_bits_on_any_number_of_threads() {
    let batch = corpus(60);
    let train = |threads: usize| {
        let mut model = mini(threads);
        let (mut work, mut grads, mut moments) = (model.workspace(), model.grads(), model.moments());
        for step in 1..=3 {
            let scores = model.forward(&mut work, &batch).unwrap();
            grads.zero();
            model.backward(&mut work, &batch, &scores.logprobs, Some(&scores.entropies), &mut grads).unwrap();
            let grad_scale = 1.0 / grads.norm() as f32;
            model.update(&grads, &mut moments, |info| match info.kind {
                ParamKind::Matrix => Update::Muon(Muon {
                    lr: 1e-2,
                    momentum: 0.95,
                    nesterov: true,
                    weight_decay: 0.1,
                    iterations: 5,
                    grad_scale,
                }),
                _ => Update::AdamW(AdamW {
                    lr: 1e-3,
                    beta1: 0.9,
                    beta2: 0.95,
                    eps: 1e-8,
                    weight_decay: 0.0,
                    step,
                    grad_scale,
                }),
            });
        }
        model.digest()
    };
    let one = train(1);
    assert_eq!(train(2), one);
    assert_eq!(train(3), one);
}

#[test]
fn activations_made_again_give_the_bits_of_those_that_were_kept() {
    let batch = corpus(9);
    let mut raw = mini(1).config().raw().clone();
    raw.insert("architectures".into(), serde_json::json!(["Qwen3ForCausalLM"]));
    for model in [mini(2), Model::init(Config::from_json(raw).unwrap(), 5)] {
        let gradients = |mut work: Workspace<Cpu>| {
            let mut grads = model.grads();
            let scores = model.forward(&mut work, &batch).unwrap();
            model.backward(&mut work, &batch, &scores.logprobs, Some(&scores.entropies), &mut grads).unwrap();
            let bits = |info| grads.get(info).into_iter().map(f32::to_bits).collect::<Vec<_>>();
            model.parameters().iter().map(bits).collect::<Vec<_>>()
        };
        assert!(gradients(model.workspace()) == gradients(model.recomputing_workspace()), "the bits differ");
    }
}

/// scale · bᵀ dw and scale · dw aᵀ, term by term.
fn low_rank(dw: &[f32], a: &[f32], b: &[f32], (out, input): (usize, usize), scale: f32) -> [Vec<f32>; 2] {
    let rank = a.len() / input;
    let da = |i: usize| (0..out).map(|k| scale * b[k * rank + i / input] * dw[k * input + i % input]).sum();
    let db = |i: usize| (0..input).map(|k| scale * a[i % rank * input + k] * dw[i / rank * input + k]).sum();
    [(0..rank * input).map(da).collect(), (0..out * rank).map(db).collect()]
}

#[test]
fn adapters_learn_by_the_weights_gradient_and_leave_the_rest_alone() {
    let batch = corpus(9);
    let config = LoraConfig { rank: 3, alpha: 6.0 };
    let mut model = mini(2).with_lora(config, 1).unwrap();
    let before = mini(2);
    let (mut work, mut grads, mut moments) = (model.workspace(), model.grads(), model.moments());
    let seeds = vec![-1.0 / batch.scored() as f32; batch.scored()];
    let mut losses = Vec::new();
    for step in 1..=12 {
        // A model without adapters and with the same weights has the gradients that theirs come from.
        let mut plain = mini(2);
        for info in plain.parameters().to_vec() {
            plain.set(&info, &model.get(&info));
        }
        plain.publish();
        let (mut plain_work, mut plain_grads) = (plain.workspace(), plain.grads());
        let scores = plain.forward(&mut plain_work, &batch).unwrap();
        assert_eq!(model.forward(&mut work, &batch).unwrap(), scores, "adapters are in the weights");
        losses.push(-scores.logprobs.iter().sum::<f32>() / batch.scored() as f32);
        plain.backward(&mut plain_work, &batch, &seeds, None, &mut plain_grads).unwrap();
        grads.zero();
        model.backward(&mut work, &batch, &seeds, None, &mut grads).unwrap();
        let infos = model.trained().to_vec();
        let down = |part: &str| infos.iter().find(|i| i.name == format!("model.layers.1.mlp.down_proj.{part}.weight"));
        let (a, b) = (down("lora_A").unwrap(), down("lora_B").unwrap());
        let matrix = plain.parameters().iter().find(|i| i.name == "model.layers.1.mlp.down_proj.weight").unwrap();
        let shape = (matrix.shape[0], matrix.shape[1]);
        let want = low_rank(&plain_grads.get(matrix), &model.get_adapter(a), &model.get_adapter(b), shape, 2.0);
        difference("da", &grads.get(a), &want[0], 1e-5);
        difference("db", &grads.get(b), &want[1], 1e-5);
        let rule = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, step, grad_scale: 1.0 };
        model.update(&grads, &mut moments, |_| Update::AdamW(rule));
    }
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
    for (info, now) in before.parameters().iter().map(|info| (info, model.get(info))) {
        assert_eq!(before.get(info) != now, info.kind == ParamKind::Matrix, "{}", info.name);
    }
    assert!(mini(1).with_lora(LoraConfig { rank: 0, alpha: 1.0 }, 1).is_err());
}

#[test]
fn a_used_workspace_scores_as_a_fresh_one() {
    let model = mini(2);
    let mut used = model.workspace();
    model.forward(&mut used, &corpus(50)).unwrap();
    let small = corpus(3);
    assert_eq!(model.forward(&mut used, &small).unwrap(), model.forward(&mut model.workspace(), &small).unwrap());
}

#[test]
fn a_sequence_scores_the_same_whatever_it_is_packed_with() {
    let model = mini(2);
    let together = corpus(30);
    let all = model.forward(&mut model.workspace(), &together).unwrap().logprobs;
    let mut apart = Vec::new();
    for i in 0..30 {
        let mut one = Batch::new();
        let tokens: Vec<u32> = (0..20 + i % 40).map(|t| ((t * t * (i + 3) + i) % 110) as u32).collect();
        one.push(&tokens, |t| t > 5);
        apart.extend(model.forward(&mut model.workspace(), &one).unwrap().logprobs);
    }
    assert_eq!(all, apart);
}

#[test]
fn misuse_and_sick_weights_are_errors() {
    let mut model = mini(1);
    let (mut work, mut grads, batch) = (model.workspace(), model.grads(), corpus(2));
    let g = vec![1.0; batch.scored()];
    let message = model.backward(&mut work, &batch, &g, None, &mut grads).unwrap_err().to_string();
    assert!(message.contains("forward pass"), "{message}");
    model.forward(&mut work, &batch).unwrap();
    let message = model.backward(&mut work, &batch, &g[1..], None, &mut grads).unwrap_err().to_string();
    assert!(message.contains("loss derivatives"), "{message}");
    let info = model.parameters()[3].clone();
    let mut values = model.get(&info);
    values[0] = f32::NAN;
    model.set(&info, &values);
    model.publish();
    let error = model.forward(&mut work, &batch).unwrap_err();
    assert!(error.render(false).contains("NaN"), "{error}");
}

#[test]
fn a_fresh_model_depends_on_its_seed_alone() {
    assert_eq!(mini(1).digest(), mini(2).digest());
    let config = mini(1).config().clone();
    assert_ne!(Model::init(config, 6).digest(), mini(1).digest());
    // Near-uniform predictions at the start.
    let model = mini(1);
    let batch = corpus(5);
    let scores = model.forward(&mut model.workspace(), &batch).unwrap();
    let mean = scores.logprobs.iter().sum::<f32>() / batch.scored() as f32;
    assert!((mean + 110f32.ln()).abs() < 0.2, "{mean}");
}

/// The process's largest resident memory so far, in bytes; `None` where the system does not tell.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Takes about 12 GB of memory, 1 GB of disk and some minutes: `cargo test --release -- --ignored half_a_billion`.
#[test]
#[ignore = "12 GB of memory and minutes of work"]
fn half_a_billion_weights_load_generate_and_take_a_step() {
    let raw = serde_json::json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151_936, "hidden_size": 896,
        "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": true,
        "hidden_act": "silu", "eos_token_id": 151_645,
    });
    let dir = tempfile::tempdir().unwrap();
    let config = Config::from_json(raw.as_object().unwrap().clone()).unwrap();
    Model::init(config, 1).save(dir.path(), Dtype::Bf16).unwrap();
    let start = std::time::Instant::now();
    let mut model = Model::load(dir.path()).unwrap();
    assert_eq!(model.size(), 494_032_768);
    println!("loaded in {:.1} s", start.elapsed().as_secs_f64());

    let mut decoder = Decoder::new(Cpu::new(), &model, 1, 64, 32);
    let prompt: Vec<Row> = (0..31).map(|i| Row { token: i * 4000, slot: 0, position: i }).collect();
    model.prefill(&mut decoder, &prompt);
    let draw = Draw { temperature: 1.0, top_k: 0, top_p: 0.95, min_p: 0.0, seed: 3, index: 0 };
    let (mut drawn, mut tokens, mut logprobs) = ([Drawn::default()], vec![7], Vec::new());
    let start = std::time::Instant::now();
    for i in 0..8 {
        let row = Row { token: tokens[i], slot: 0, position: 31 + i as u32 };
        model.decode(&mut decoder, &[row], &[Draw { index: i as u64, ..draw }], &mut drawn).unwrap();
        tokens.push(drawn[0].token);
        logprobs.push(drawn[0].logprob);
    }
    println!("decoded {:.2} tokens/s", 8.0 / start.elapsed().as_secs_f64());
    drop(decoder);

    let mut batch = Batch::new();
    let prompt: Vec<u32> = prompt.iter().map(|row| row.token).chain([7]).collect();
    batch.push_completion(&prompt, &tokens[1..]);
    let (mut work, mut grads, mut moments) = (model.workspace(), model.grads(), model.moments());
    let start = std::time::Instant::now();
    let before = model.forward(&mut work, &batch).unwrap().logprobs;
    assert_eq!(before, logprobs, "the sampler's log-probabilities are the trainer's");
    model.backward(&mut work, &batch, &[-1.0; 8], None, &mut grads).unwrap();
    let rule = AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, step: 1, grad_scale: 1.0 };
    model.update(&grads, &mut moments, |_| Update::AdamW(rule));
    println!("step in {:.1} s", start.elapsed().as_secs_f64());
    let after = model.forward(&mut work, &batch).unwrap().logprobs;
    assert!(after.iter().sum::<f32>() > before.iter().sum::<f32>(), "a step towards the tokens");
    if let Some(bytes) = peak_memory() {
        println!("peak memory {:.1} GiB", bytes as f64 / f64::from(1 << 30));
        assert!(bytes < 16 << 30);
    }
}
