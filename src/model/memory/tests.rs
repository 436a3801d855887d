use super::*;
use crate::backend::{Cpu, Cuda, Heads};
use serde_json::json;

/// Qwen2.5 of a size: hidden, feed-forward, layers, heads, vocabulary, tied.
fn qwen(hidden: usize, ff: usize, layers: usize, heads: Heads, vocab: usize, tied: bool) -> Config {
    let mut raw = Config::fresh(vocab, hidden, ff, layers, heads, 4096, &[1]).unwrap().raw;
    raw.insert("architectures".into(), json!(["Qwen2ForCausalLM"]));
    raw.insert("tie_word_embeddings".into(), json!(tied));
    Config::from_json(raw).unwrap()
}

fn small() -> Config {
    qwen(896, 4864, 24, Heads { query: 14, kv: 2, dim: 64 }, 151_936, true)
}

fn large() -> Config {
    qwen(3584, 18_944, 28, Heads { query: 28, kv: 4, dim: 128 }, 152_064, false)
}

const TRAINING: Load = Load {
    rows: 16_384,
    longest: 0,
    longest_possible: 0,
    recompute: false,
    trains: true,
    muon: false,
    lora: None,
    offload: false,
    reference: false,
    decoding: None,
    devices: 1,
};

#[test]
fn published_sizes_of_models_are_counted() {
    let medium = qwen(1536, 8960, 28, Heads { query: 12, kv: 2, dim: 128 }, 151_936, true);
    for (config, published) in [(small(), 494_032_768), (medium, 1_543_714_304), (large(), 7_615_616_512)] {
        let found = estimate::<Cuda>(&config, &TRAINING);
        assert_eq!(found.gradients, 4 * published);
        assert_eq!(found.optimizer, 8 * published);
        // Masters, and bf16 of all but norms and biases; then the rotary angles.
        let angles = 4 * (config.context * config.heads.dim) as u64;
        let rounded = (found.parameters - angles - 4 * published) as f64 / (2 * published) as f64;
        assert!((0.9995..=1.0).contains(&rounded), "{rounded}");
    }
}

#[test]
fn activations_are_linear_in_the_tokens_and_recomputing_keeps_a_layers_input_only() {
    let of = |rows, recompute| estimate::<Cuda>(&small(), &Load { rows, recompute, ..TRAINING });
    assert_eq!(of(2048, false).activations, 2 * of(1024, false).activations);
    // Per token and layer: input, three norms' rows, qkv, attention's output, gate, up and their product.
    let layer = 2 * (4 * 896 + 1152 + 896 + 3 * 4864) + 4 * (2 + 14);
    assert_eq!(of(1, false).activations, 24 * layer + 24 + 10 * 896);
    assert_eq!(of(1, true).activations, layer + 23 * 2 * 896 + 24 + 10 * 896);
    assert!(of(16_384, true).workspace < 2 << 30);
}

#[test]
fn micro_batches_of_a_tiny_model_stay_in_the_caches() {
    let tiny = qwen(64, 192, 2, Heads { query: 4, kv: 2, dim: 16 }, 110, true);
    assert!((150..300).contains(&cached_rows::<Cpu>(&tiny)), "{}", cached_rows::<Cpu>(&tiny));
    assert_eq!(cached_rows::<Cpu>(&small()), usize::MAX);
    assert_eq!(cached_rows::<Cuda>(&tiny), usize::MAX);
}

#[test]
fn what_does_not_fit_is_told_what_would() {
    let of = |config: &Config, load: &Load, gib: u64| check::<Cuda>(config, load, gib << 30);
    assert!(of(&small(), &TRAINING, 40).is_ok());
    let said = format!("{:?}", of(&small(), &TRAINING, 16).unwrap_err());
    let rows: usize =
        said.split("tokens_per_microbatch = ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(of(&small(), &Load { rows, ..TRAINING }, 16).is_ok());
    assert!(of(&small(), &Load { rows: rows + 64, ..TRAINING }, 16).is_err());
    assert!(said.contains("recompute = true would fit up to"), "{said}");
    // Beside weights and optimizer state, activations and workspace are what must fit.
    assert!(check_batch::<Cuda>(&small(), &TRAINING, 18 << 30).is_ok());
    let said = format!("{:?}", check_batch::<Cuda>(&small(), &TRAINING, 8 << 30).unwrap_err());
    assert!(said.contains("tokens_per_microbatch = ") && said.contains("recompute = true"), "{said}");
    // 16 bytes a parameter and 2 more are beyond 80 GB, whatever the batch.
    let said = format!("{:?}", of(&large(), &TRAINING, 80).unwrap_err());
    assert!(said.contains("no micro-batch would fit") && said.contains("lora = { rank = 16 }"), "{said}");
    assert!(of(&large(), &Load { recompute: true, ..TRAINING }, 141).is_ok());
    // With adapters, 7B models train on 80 GB: weights in f32 and bf16, and little else.
    assert!(of(&large(), &Load { recompute: true, lora: Some(64), rows: 8192, ..TRAINING }, 74).is_ok());
}

#[test]
fn a_row_that_is_longer_than_the_micro_batch_is_counted_whole() {
    let of = |rows, longest| estimate::<Cuda>(&small(), &Load { rows, longest, ..TRAINING });
    assert_eq!(of(1024, 9000), of(9000, 0));
    assert_eq!(of(9000, 1024), of(9000, 0));
    let room = of(4096, 0).total();
    let said = |longest| {
        let load = Load { rows: 16_384, longest, recompute: true, ..TRAINING };
        let room = estimate::<Cuda>(&small(), &Load { rows: 4096, longest: 0, ..load }).total();
        format!("{:?}", check::<Cuda>(&small(), &load, room).unwrap_err())
    };
    assert!(said(4000).contains("tokens_per_microbatch = 4096 would fit"), "{}", said(4000));
    let long = said(32_768);
    assert!(long.contains("micro-batches of 32768 tokens need"), "{long}");
    assert!(long.contains("rows of 32768 tokens are not cut: leave out those of more than 4096"), "{long}");
    assert!(!long.contains("tokens_per_microbatch"), "no budget makes the row shorter: {long}");
    let keeping = Load { rows: 1024, longest: 5000, ..TRAINING };
    let hint = format!("{:?}", check::<Cuda>(&small(), &keeping, room).unwrap_err());
    assert!(hint.contains("recompute = true would fit up to"), "{hint}");
}

#[test]
fn devices_share_the_optimizer_state_and_nothing_else() {
    let of = |devices| estimate::<Cuda>(&large(), &Load { devices, ..TRAINING });
    let one = of(1);
    assert_eq!(of(0), one);
    for devices in [2, 4, 8] {
        let several = of(devices);
        assert_eq!(Estimate { optimizer: one.optimizer, ..several }, one);
        let share = one.optimizer as f64 / devices as f64;
        assert!((1.0..1.15).contains(&(several.optimizer as f64 / share)), "{devices}: {several}");
    }
}

#[test]
fn the_cpu_has_wider_activations_and_the_same_masters() {
    let (cpu, cuda) = (estimate::<Cpu>(&small(), &TRAINING), estimate::<Cuda>(&small(), &TRAINING));
    assert_eq!((cpu.gradients, cpu.optimizer), (cuda.gradients, cuda.optimizer));
    assert!(cpu.activations > cuda.activations * 19 / 10 && cpu.activations < cuda.activations * 2);
    let offloaded = Load { offload: true, ..TRAINING };
    let (here, there) = (estimate::<Cpu>(&small(), &offloaded), estimate::<Cuda>(&small(), &offloaded));
    assert_eq!(here, cpu, "the CPU's memory is the host's");
    assert_eq!((there.optimizer, there.host, there.total()), (0, cuda.optimizer, cuda.total() - cuda.optimizer));
    assert!(there.to_string().ends_with("; and 3.68 GiB of the host's for the optimizer"), "{there}");
    assert_eq!(
        cuda.to_string(),
        "24.1 GiB: parameters 2.76 GiB, gradients 1.84 GiB, optimizer 3.68 GiB, activations 15.0 GiB, \
         workspace 842 MiB"
    );
}

#[test]
fn a_cache_holds_a_sequence_at_least_and_every_sequence_at_most() {
    let of = |cache_bytes| {
        let limits = Limits { batch: Some(256), cache_bytes: Some(cache_bytes), prefill: Some(512) };
        estimate::<Cuda>(&small(), &Load { decoding: Some(limits), ..TRAINING })
    };
    // 24 layers of 2 · 2 heads of 64, 2 bytes.
    let sequence = small().context * 24 * 256 * 2;
    assert_eq!(of(1).kv_cache, sequence as u64);
    assert_eq!(of(1 << 30).kv_cache, 1 << 30);
    assert_eq!(of(1 << 50).kv_cache, 256 * sequence as u64);
    let alone = estimate::<Cuda>(&small(), &TRAINING);
    let step = of(1).workspace - alone.workspace;
    assert!(step > 256 * 151_936 * 4, "the logits of 256 rows");
    let none =
        Load { decoding: Some(Limits { batch: Some(8), cache_bytes: Some(1), prefill: Some(8) }), ..Load::default() };
    let said = format!("{:?}", check::<Cuda>(&large(), &none, 8 << 30).unwrap_err());
    assert!(said.contains("decoding needs") && said.contains("smaller model or KV cache"), "{said}");
}

#[test]
fn what_an_engine_is_not_told_follows_from_what_is_left() {
    let of = |limits: Limits, left| limits.within::<Cuda>(&large(), left);
    let open = Limits::default();
    let ample = of(open, Some(100 << 30));
    assert_eq!((ample.batch, ample.prefill), (1024, 1024));
    assert!((85 << 30..90 << 30).contains(&ample.cache_bytes) && ample.cache_bytes.is_multiple_of(256 << 20));
    let short = of(open, Some(4 << 30));
    assert_eq!((short.batch, short.prefill), (256, 512));
    assert!((2 << 30..4 << 30).contains(&short.cache_bytes), "{short:?}");
    assert_eq!(of(open, Some(0)).cache_bytes, of(Limits { cache_bytes: Some(1), ..open }, None).cache_bytes);
    // As it is where the device does not tell: the CPU's.
    let cpu = open.within::<Cpu>(&small(), None);
    assert_eq!((cpu.batch, cpu.prefill, cpu.cache_bytes), (256, 512, 1 << 30));
    let told = Limits { batch: Some(7), cache_bytes: Some(1 << 30), prefill: Some(33) };
    let found = of(told, Some(100 << 30));
    assert_eq!((found.batch, found.cache_bytes, found.prefill), (7, 1 << 30, 33));
}

#[test]
fn the_sum_of_an_engine_and_a_trainer_fits_whatever_is_free() {
    let load = Load { decoding: Some(Limits::default()), recompute: true, ..TRAINING };
    let least = estimate_within::<Cuda>(&small(), &load, Some(0)).total();
    for free in [least, least + (1 << 30), 2 * least, 141 << 30] {
        let found = check::<Cuda>(&small(), &load, free).unwrap();
        assert!(found.total() <= free, "{found} of {}", size(free));
    }
    assert!(check::<Cuda>(&small(), &load, least - 1).is_err());
}

#[test]
fn logits_are_kept_in_a_quarter_of_what_is_left() {
    let alone = estimate::<Cuda>(&small(), &TRAINING);
    assert_eq!(alone.logits, 0, "nothing is known of what is left");
    let of = |left: u64| estimate_within::<Cuda>(&small(), &TRAINING, Some(alone.total() + left)).logits;
    let all = 4 * 16_384 * 151_936;
    assert_eq!([of(0), of(4 << 30), of(4 * all), of(400 << 30)], [0, 1 << 30, all, all]);
    let scoring = Load { trains: false, ..TRAINING };
    assert_eq!(estimate_within::<Cuda>(&small(), &scoring, Some(1 << 40)).logits, 0, "no backward pass follows");
    // An engine's least comes first, and what it was told to take.
    let told = Limits { batch: Some(256), cache_bytes: Some(8 << 30), prefill: Some(64) };
    let sampling = Load { decoding: Some(told), ..TRAINING };
    let of = |left: u64| estimate_within::<Cuda>(&small(), &sampling, Some(alone.total() + left)).logits;
    assert_eq!(of(8 << 30), 0);
    assert!((700 << 20..1 << 30).contains(&of(12 << 30)), "{}", of(12 << 30));
}
