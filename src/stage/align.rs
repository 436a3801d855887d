//! `align`: preference optimisation (DPO, IPO), plain or worst group first.
//!
//! The group-robust objective (arXiv 2405.20304) weighs groups of pairs by their losses. With
//! `held_out` pairs, the stage measures each group's loss and accuracy at the end, against the
//! same reference, and leaves them in `groups.parquet` and among its figures.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use serde::Deserialize;

use super::training::{
    CheckpointConfig, Drops, NewModel, Policy, PolicyConfig, Reply, Session, longest_row, reply_tokens, tell_closed,
    write_table,
};
use super::{FIGURES, Input, Materials, Models, Stage, StageContext, StageOutcome};
use crate::backend::{Backend, Opened};
use crate::error::{Error, Result};
use crate::model::memory::{Limits, Load};
use crate::model::{Config, Model, Tokenizer};
use crate::recipe::StageTable;
use crate::schema::{DatasetKind, FinishReason, Preference as PreferenceRow};
use crate::store::FileInfo;
use crate::train::objective::{LossInputs, Preference};
use crate::train::{Group, Pair, PreferenceTrainer, PreferenceTrainerConfig, Sequence, pack};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlignTable {
    /// A stage that trains a model, or a model's folder.
    model: Option<String>,
    /// A model from scratch instead.
    init: Option<NewModel>,
    lora: Option<crate::model::LoraConfig>,
    /// Whether `adapter/` is left beside `model/`; by default where `lora` trains one for a `model`.
    save_adapter: Option<bool>,
    /// What `model/` is written as; training and its checkpoints are in float32 whatever it is.
    #[serde(default)]
    dtype: crate::model::Dtype,
    /// A file of Jinja, or a built-in template's name, instead of the model's own chat template.
    chat_template: Option<String>,
    /// What log-ratios are measured against; the model as it was at the start if absent.
    reference: Option<String>,
    #[serde(default = "default_preferences")]
    preferences: String,
    /// Pairs to measure loss and accuracy on, group by group, at the end.
    held_out: Option<String>,
    #[serde(default)]
    training: PreferenceTrainerConfig,
    #[serde(default)]
    checkpoints: CheckpointConfig,
}

fn default_preferences() -> String {
    "preferences".to_owned()
}

const PREFERENCES: &str = "preferences";
const HELD_OUT: &str = "held_out";
const REFERENCE: &str = "reference";

/// The stage.
pub struct AlignStage {
    table: AlignTable,
    policy: PolicyConfig,
}

impl AlignStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// No model or two, an unknown key, a setting out of range, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let read: AlignTable = table.config.read()?;
        let policy = PolicyConfig {
            model: read.model.clone(),
            init: read.init.clone(),
            lora: read.lora,
            save_adapter: read.save_adapter,
            dtype: read.dtype,
            chat_template: read.chat_template.clone(),
            limits: Limits::default(),
        };
        policy.validate(&table.name).map_err(|e| table.origin.locate(e))?;
        super::in_training(table, read.training.validate())?;
        Ok(AlignStage { table: read, policy })
    }

    fn reference<B: Backend>(&self, cx: &StageContext<'_>, backend: B) -> Result<Model<B>> {
        match &self.table.reference {
            Some(_) => Model::load_on(backend, cx.input_folder(REFERENCE)?),
            None => self.policy.reference(cx, backend),
        }
    }
}

impl Stage for AlignStage {
    fn inputs(&self) -> Vec<Input> {
        let table = &self.table;
        let mut inputs: Vec<Input> = self.policy.inputs().collect();
        inputs.push(Input::new(PREFERENCES, &table.preferences, DatasetKind::Preferences));
        inputs.extend(table.reference.iter().map(|of| Input::model(REFERENCE, of)));
        inputs.extend(table.held_out.iter().map(|of| Input::new(HELD_OUT, of, DatasetKind::Preferences)));
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        None
    }

    fn writes_model(&self) -> bool {
        true
    }

    /// 2: one key of `schedule` leaves the others; what was cut has no end of turn. 3: pairs that are too long make no batch
    /// smaller and count in no group; turns end as the chat template ends them, and the model stops there. 4: as of `sft`.
    fn version(&self) -> u32 {
        4
    }

    fn goes_on_after(&self, steps: u64) -> bool {
        self.table.training.goes_on_after(steps)
    }

    /// A finished model is not given up for one that cannot begin.
    fn begins_late(&self) -> bool {
        true
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        super::training_materials(cx, &self.policy, None)
    }

    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        super::TRAINING_KEYS.to_vec()
    }

    fn model_config(&self, models: &Models<'_>) -> Result<Option<Config>> {
        self.policy.config(models).map(Some)
    }

    fn has_chat_template(&self, models: &Models<'_>) -> Result<bool> {
        self.policy.has_chat_template(models)
    }

    fn memory(&self, models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        self.policy.check_reference(self.table.reference.as_deref(), models)?;
        let (config, training) = (self.policy.config(models)?, &self.table.training);
        self.policy.check_chat_template(models)?;
        let load = Load {
            rows: training.tokens_per_microbatch,
            longest_possible: 2 * longest_row(&config, training.max_tokens),
            recompute: training.recompute,
            reference: true,
            ..self.policy.load(&training.optimizer)
        };
        Ok(vec![(config, load)])
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        match cx.device.open()? {
            Opened::Cpu(backend) => self.train(cx, backend),
            Opened::Cuda(backend) => self.train(cx, backend),
        }
    }
}

impl AlignStage {
    fn pairs<B: Backend>(&self, cx: &StageContext<'_>, policy: &Policy<B>, input: &str) -> Result<Pairs> {
        Pairs::read(cx, policy, input, self.table.training.max_tokens)
    }

    fn train<B: Backend>(&self, cx: &StageContext<'_>, backend: B) -> Result<StageOutcome> {
        let policy: Policy<B> = self.policy.open(cx, backend.clone(), Tokenizer::end_of_turn)?;
        let Pairs { pairs, groups, closed, replies, mut drops } = self.pairs(cx, &policy, PREFERENCES)?;
        let mut held_out = self.table.held_out.as_ref().map(|_| self.pairs(cx, &policy, HELD_OUT)).transpose()?;
        held_out.iter_mut().for_each(|held_out| drops.absorb(std::mem::take(&mut held_out.drops)));
        let mut config = self.table.training.clone();
        config.seed = super::training_seed(config.seed, cx);
        let objective = Preference::new(config.objective.clone())?;
        let count = pairs.len() as u64;
        let reference = self.reference(cx, backend.clone())?;
        let mut trainer = PreferenceTrainer::new(policy.model.clone(), reference, pairs, groups, config)?;
        cx.begin()?;
        drops.tell(cx)?;
        tell_closed(closed, replies, "replies of the pairs").iter().for_each(|line| cx.progress.say(line));
        let mut outcome = Session::new(cx, &policy, self.table.checkpoints, None).train(&mut trainer)?.outcome;
        outcome.drops = drops.counts;
        outcome.count("pairs", count);
        if closed > 0 {
            outcome.count("without_reasoning", closed);
        }
        if let Some(held_out) = held_out {
            let measured = measure(cx, &policy, &self.reference(cx, backend)?, &objective, held_out)?;
            report(cx, &measured, &mut outcome)?;
        }
        Ok(outcome)
    }
}

/// Tokenised pairs that a model can be trained on, and the groups they fall into, by name.
struct Pairs {
    pairs: Vec<Pair>,
    groups: Vec<Group>,
    /// Replies without reasoning where the chat template opens it, of so many.
    closed: u64,
    replies: u64,
    drops: Drops,
}

impl Pairs {
    /// Reads all pairs of an input into memory, 4 bytes a token, whose sides have at most `most` tokens. What is left out of
    /// the held-out pairs has its own reasons.
    fn read<B: Backend>(cx: &StageContext<'_>, policy: &Policy<B>, input: &str, most: Option<usize>) -> Result<Self> {
        let (dataset, tokenizer) = (cx.input(input)?, &*policy.tokenizer);
        let context = policy.model.read().config().context;
        let (prefix, what) = if input == HELD_OUT { ("held_out_", "held-out pairs") } else { ("", "pairs") };
        let mut named: Vec<(String, Pair)> = Vec::new();
        let (mut drops, mut rows, mut tokens, mut left_out) = (Drops::default(), 0, 0, 0);
        let mut closed = 0;
        for (index, row) in dataset.rows_of::<PreferenceRow>().enumerate() {
            let row = row?;
            let at = |e: Error| e.at_row(index as u64).in_file(dataset.location());
            let shown = tokenizer.render(&row.messages, true).map_err(at)?;
            let prompt = tokenizer.encode(&shown).map_err(at)?;
            let mut side = |reply: &str, finish_reason: Option<FinishReason>| -> Result<Vec<u32>> {
                let ends = finish_reason != Some(FinishReason::Length);
                let Reply { tokens, closes_reasoning } = reply_tokens(tokenizer, &shown, reply, ends).map_err(at)?;
                closed += u64::from(closes_reasoning);
                Ok(tokens)
            };
            let chosen = side(&row.chosen, row.chosen_finish_reason)?;
            let rejected = side(&row.rejected, row.rejected_finish_reason)?;
            let pair = Pair { prompt_id: row.prompt_id, prompt, chosen, rejected, group: 0 };
            let length = pair.sides().iter().map(|side| side.tokens.len() as u64).sum::<u64>();
            (rows, tokens) = (rows + 1, tokens + length);
            match pair.fault_within(context, most) {
                None => named.push((row.group, pair)),
                Some((reason, detail)) => {
                    let place = [("input", input.into()), ("row", index.into()), ("prompt_id", pair.prompt_id.into())];
                    drops.add(place, &format!("{prefix}{reason}"), &detail);
                    left_out += length;
                }
            }
        }
        drops.sum_up(what, rows, left_out, tokens).map_err(|e| e.in_file(dataset.location()))?;
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        for (group, _) in &named {
            *sizes.entry(group.clone()).or_default() += 1;
        }
        let groups: Vec<Group> = sizes.into_iter().map(|(name, pairs)| Group { name, pairs }).collect();
        let index = |name: &str| groups.binary_search_by(|g| g.name.as_str().cmp(name));
        let pairs = named.into_iter().map(|(group, pair)| {
            let group = index(&group).expect("every group was counted");
            Pair { group, ..pair }
        });
        Ok(Pairs { pairs: pairs.collect(), groups, closed, replies: 2 * rows as u64, drops })
    }
}

/// One group of held-out pairs.
struct HeldOutGroup {
    group: String,
    pairs: u64,
    /// Mean loss of a pair.
    loss: f64,
    /// Share of pairs ranked rightly relative to the reference.
    accuracy: f64,
}

/// Pairs scored together: bounds memory, changes nothing.
const PAIRS_AT_ONCE: usize = 256;
const TOKENS_AT_ONCE: usize = 16_384;

fn measure<B: Backend>(
    cx: &StageContext<'_>,
    policy: &Policy<B>,
    reference: &Model<B>,
    objective: &Preference,
    Pairs { pairs, groups, .. }: Pairs,
) -> Result<Vec<HeldOutGroup>> {
    let model = policy.model.read();
    let mut work = model.workspace();
    let mut sums = vec![(0u64, 0.0, 0.0); groups.len()];
    for chunk in pairs.chunks(PAIRS_AT_ONCE) {
        cx.check_stop()?;
        let sides: Vec<Sequence> = chunk.iter().flat_map(Pair::sides).collect();
        let sequences: Vec<&Sequence> = sides.iter().collect();
        for micro in pack(&sequences, 2, TOKENS_AT_ONCE) {
            let ours = model.forward(&mut work, &micro.batch)?.logprobs;
            let theirs = reference.forward(&mut work, &micro.batch)?.logprobs;
            let weights = vec![1.0; micro.sequences.len()];
            let losses = objective.pairs(&LossInputs {
                offsets: &micro.offsets,
                weights: &weights,
                logprobs: &ours,
                reference_logprobs: Some(&theirs),
                ..LossInputs::default()
            })?;
            for (loss, sequence) in losses.iter().zip(micro.sequences.iter().step_by(2)) {
                let sum = &mut sums[chunk[sequence / 2].group];
                sum.0 += 1;
                sum.1 += loss.loss;
                sum.2 += f64::from(u8::from(loss.margin > 0.0));
            }
        }
    }
    let measured = groups.into_iter().zip(sums).filter(|(_, (pairs, ..))| *pairs > 0);
    Ok(measured
        .map(|(group, (pairs, loss, right))| HeldOutGroup {
            group: group.name,
            pairs,
            loss: loss / pairs as f64,
            accuracy: right / pairs as f64,
        })
        .collect())
}

fn report(cx: &StageContext<'_>, measured: &[HeldOutGroup], outcome: &mut StageOutcome) -> Result<()> {
    let numbers =
        |of: fn(&HeldOutGroup) -> f64| Arc::new(Float64Array::from_iter_values(measured.iter().map(of))) as ArrayRef;
    let columns: Vec<(String, ArrayRef)> = vec![
        ("group".to_owned(), Arc::new(StringArray::from_iter_values(measured.iter().map(|m| &m.group)))),
        ("pairs".to_owned(), Arc::new(UInt64Array::from_iter_values(measured.iter().map(|m| m.pairs)))),
        ("loss".to_owned(), numbers(|m| m.loss)),
        ("accuracy".to_owned(), numbers(|m| m.accuracy)),
    ];
    const GROUPS: &str = "groups.parquet";
    let folder = cx.local_folder()?;
    write_table(&folder.join(GROUPS), columns)?;
    outcome.files.push(FileInfo::of(folder, GROUPS)?);
    let Some(serde_json::Value::Object(figures)) = outcome.facts.get_mut(FIGURES) else { return Ok(()) };
    let mut put = |name: String, value: f64| {
        figures.insert(name, value.into());
    };
    for m in measured {
        cx.progress.say(&format!("held out, {}: loss {:.3}, ranked rightly {:.3}", m.group, m.loss, m.accuracy));
        put(format!("{}.loss", m.group), m.loss);
        put(format!("{}.accuracy", m.group), m.accuracy);
    }
    if !measured.is_empty() {
        let n = measured.len() as f64;
        put("mean_group_loss".to_owned(), measured.iter().map(|m| m.loss).sum::<f64>() / n);
        put("worst_group_loss".to_owned(), measured.iter().map(|m| m.loss).fold(f64::MIN, f64::max));
        put("worst_group_accuracy".to_owned(), measured.iter().map(|m| m.accuracy).fold(f64::MAX, f64::min));
    }
    Ok(())
}
