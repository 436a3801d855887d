//! The adapter that a stage with `lora` leaves beside its model, for programs that load it over what training began with.

use std::collections::BTreeMap;
use std::path::Path;

use gristmill::model::{Batch, Model};
use safetensors::SafeTensors;
use serde_json::Value;

use super::{BASE, RUN, folder_with};
use crate::support::{digests, gristmill, manifest};

/// Tuned with an adapter on the base model's own corpus.
const TUNED: &str = r#"
[stages.tuned]
kind = "sft"
model = "base"
corpus = "base_text"
format = "text"
lora = { rank = 4, alpha = 8 }
training = { steps = 6, batch_size = 8, schedule = { learning_rate = 2e-2 } }
checkpoints = { every = 2, keep = 1 }
"#;

const ADAPTER: &str = "out/3_tuned/adapter";

fn config(folder: &Path, adapter: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(adapter).join("adapter_config.json")).unwrap()).unwrap()
}

fn logits(model: &Model) -> Vec<f32> {
    let mut batch = Batch::new();
    batch.push(&[3, 9, 4, 7, 5, 11, 6], |_| true);
    model.logits(&mut model.workspace(), &batch).unwrap()
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The base with the adapter added as PEFT does: W + (α/r) B A, matrix by matrix.
fn with_adapter(mut model: Model, folder: &Path) -> Model {
    let config = config(folder, ADAPTER);
    let scale = (config["lora_alpha"].as_f64().unwrap() / config["r"].as_f64().unwrap()) as f32;
    let bytes = std::fs::read(folder.join(ADAPTER).join("adapter_model.safetensors")).unwrap();
    let tensors: BTreeMap<String, Vec<f32>> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| {
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            (name.to_owned(), values)
        })
        .collect();
    let mut changed = 0;
    for info in model.parameters().to_vec() {
        let part = |part: &str| {
            let module = info.name.trim_end_matches(".weight");
            tensors.get(&format!("base_model.model.{module}.{part}.weight"))
        };
        let (Some(a), Some(b)) = (part("lora_A"), part("lora_B")) else { continue };
        let (rank, cols) = (a.len() / info.shape[1], info.shape[1]);
        let mut weights = model.get(&info);
        for (i, weight) in weights.iter_mut().enumerate() {
            let (row, col) = (i / cols, i % cols);
            *weight += scale * (0..rank).map(|k| b[row * rank + k] * a[k * cols + col]).sum::<f32>();
        }
        model.set(&info, &weights);
        changed += 1;
    }
    model.publish();
    assert_eq!(2 * changed, tensors.len(), "every tensor has its place");
    model
}

#[test]
fn the_base_with_the_adapter_is_the_model_that_is_left() {
    let folder = folder_with(&format!("{BASE}{TUNED}"));
    gristmill(folder.path(), RUN).succeeded();
    let at = |path: &str| folder.path().join(path);
    let base = Model::load(&at("out/2_base/model")).unwrap();
    let merged = logits(&Model::load(&at("out/3_tuned/model")).unwrap());
    let before = logits(&base);
    let after = logits(&with_adapter(base, folder.path()));
    assert!(furthest(&before, &merged) > 1e-2, "nothing was learned");
    assert!(furthest(&after, &merged) < 1e-4, "{} apart", furthest(&after, &merged));

    let named = config(folder.path(), ADAPTER);
    assert_eq!(named["base_model_name_or_path"], "../../2_base/model");
    let listed = manifest(&at("out/3_tuned"))["files"].to_string();
    for file in ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model/config.json"] {
        assert!(listed.contains(file), "{file}: {listed}");
    }
    let weights = at(ADAPTER).join("adapter_model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[1..]).unwrap();
    let said = gristmill(folder.path(), ["inspect", "--verify", "out"]);
    assert!(
        said.code == Some(1) && said.stdout.contains("3_tuned/adapter/adapter_model.safetensors"),
        "{}",
        said.story()
    );
    std::fs::write(&weights, whole).unwrap();

    // A model of another run is named as the table names it, down to the folder that PEFT can load.
    let args = ["sft", "--corpus", "out/1_base_text", "--model", "out/2_base", "--output", "alone"];
    let sets = ["-s", "format=text", "-s", "training.steps=1", "-s", "lora={ rank = 2 }"];
    gristmill(folder.path(), [&args[..], &sets].concat()).succeeded();
    assert_eq!(config(folder.path(), "alone/1_sft/adapter")["base_model_name_or_path"], "out/2_base/model");

    // An adapter in a model's place is told, with what to take instead.
    let refused = gristmill(folder.path(), ["chat", ADAPTER, "--prompt", "one"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("3_tuned/model"), "{}", refused.story());
}

/// A run that failed between model and adapter, since a file lay in the adapter's place.
fn died_between() -> tempfile::TempDir {
    let folder = folder_with(&format!("{BASE}{TUNED}"));
    let run = |more: &[&str]| gristmill(folder.path(), [&RUN[..], more].concat());
    run(&["--only", "base_text"]).succeeded();
    let stage = folder.path().join("out/3_tuned");
    std::fs::create_dir_all(&stage).unwrap();
    std::fs::write(stage.join("adapter"), "").unwrap();
    assert_eq!(run(&[]).code, Some(1));
    assert!(stage.join("model/model.safetensors").exists() && !stage.join("_manifest.json").exists());
    std::fs::remove_file(stage.join("adapter")).unwrap();
    folder
}

#[test]
fn a_stage_that_dies_between_model_and_adapter_ends_with_the_same_bytes() {
    let whole = folder_with(&format!("{BASE}{TUNED}"));
    gristmill(whole.path(), RUN).succeeded();
    let folder = died_between();
    let again = gristmill(folder.path(), RUN).succeeded();
    assert!(again.state_of("tuned").starts_with("will continue"), "{}", again.story());
    assert_eq!(digests(&folder.path().join("out")), digests(&whole.path().join("out")));
}

#[test]
fn whether_an_adapter_is_left_is_no_part_of_what_is_trained() {
    let folder = died_between();
    let run = |more: &[&str]| gristmill(folder.path(), [&RUN[..], more].concat());
    let stage = folder.path().join("out/3_tuned");
    // It dies once more, behind the adapter.
    std::fs::remove_file(stage.join("metrics.parquet")).unwrap();
    std::fs::create_dir(stage.join("metrics.parquet")).unwrap();
    assert_eq!(run(&[]).code, Some(1));
    assert!(stage.join("adapter/adapter_config.json").exists());
    std::fs::remove_dir(stage.join("metrics.parquet")).unwrap();
    let left = run(&["--set", "tuned.save_adapter=false"]).succeeded();
    assert!(left.state_of("tuned").starts_with("will continue"), "{}", left.story());
    assert!(!stage.join("adapter").exists(), "nobody wants it any more");
    assert!(!manifest(&stage)["files"].to_string().contains("adapter"));
    // What is finished stays as it is.
    assert!(run(&[]).succeeded().state_of("tuned").starts_with("cached"));
}
