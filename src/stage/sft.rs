//! `sft` and `distill`: supervised fine-tuning of a model, or of a smaller student, on a corpus.
//!
//! Distillation as DeepSeek-R1 does it (arXiv 2501.12948, section 2.4) is fine-tuning on the
//! teacher's corpus: the two kinds differ in what their names say, and in nothing else. With
//! `format = "text"` every token is trained on, which is how a base model is pretrained.

use serde::Deserialize;

use super::training::{
    CheckpointConfig, Drops, HeldOut, HeldOutConfig, Policy, PolicyConfig, Reply, Session, TokenStore,
    completion_tokens, in_order, longest_row, tell_closed,
};
use super::{Input, Materials, Models, Stage, StageContext, StageOutcome, messages_at};
use crate::backend::{Backend, Opened};
use crate::error::{Error, Result};
use crate::model::memory::Load;
use crate::model::{Config, Tokenizer};
use crate::recipe::StageTable;
use crate::schema::{DatasetKind, Message};
use crate::store::{Dataset, Shard};
use crate::train::{Sequence, SftConfig, SftTrainer};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SftTable {
    /// A stage that trains a model, or a model's folder.
    model: Option<String>,
    /// A model from scratch instead.
    init: Option<super::training::NewModel>,
    lora: Option<crate::model::LoraConfig>,
    /// Whether `adapter/` is left beside `model/`; by default where `lora` trains one for a `model`.
    save_adapter: Option<bool>,
    /// What `model/` is written as; training and its checkpoints are in float32 whatever it is.
    #[serde(default)]
    dtype: crate::model::Dtype,
    /// A file of Jinja, or a built-in template's name, instead of the model's own chat template.
    chat_template: Option<String>,
    #[serde(default = "default_corpus")]
    corpus: String,
    /// The corpus's split to train on, if it has any.
    #[serde(default = "default_split")]
    split: String,
    #[serde(default)]
    format: Format,
    /// Rows of the corpus whose loss is measured while training.
    validation: Option<ValidationConfig>,
    /// Prompts to measure accuracy on while training.
    held_out: Option<String>,
    #[serde(default)]
    evaluate: HeldOutConfig,
    #[serde(default)]
    training: SftConfig,
    #[serde(default)]
    checkpoints: CheckpointConfig,
}

fn default_corpus() -> String {
    "corpus".to_owned()
}
fn default_split() -> String {
    "train".to_owned()
}

/// `validation = { split = …, rows = … }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ValidationConfig {
    /// The corpus's split; a corpus need not have the default one.
    split: String,
    /// The first so many rows; 0 measures nothing.
    rows: usize,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig { split: "validation".to_owned(), rows: 200 }
    }
}

/// What of a conversation is trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// The last turn, the assistant's; what comes before is shown by the chat template.
    #[default]
    Chat,
    /// All of it: the turns one after the other as plain text.
    Text,
}

/// The stage.
pub struct SftStage {
    table: SftTable,
    policy: PolicyConfig,
}

impl SftStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// No model or two, an unknown key, a setting out of range, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let read: SftTable = table.config.read()?;
        let policy = PolicyConfig {
            model: read.model.clone(),
            init: read.init.clone(),
            lora: read.lora,
            save_adapter: read.save_adapter,
            dtype: read.dtype,
            chat_template: read.chat_template.clone(),
            limits: read.evaluate.limits(),
        };
        policy.validate(&table.name).map_err(|e| table.origin.locate(e))?;
        super::in_training(table, read.training.validate())?;
        Ok(SftStage { table: read, policy })
    }

    /// Of the first `most` rows of a split, those that are not longer than this context or `training.max_tokens`; what is
    /// left out has reasons that begin with `prefix`.
    fn tokenise(
        &self,
        cx: &StageContext<'_>,
        tokenizer: &Tokenizer,
        context: usize,
        (split, most): (&Dataset, usize),
        prefix: &str,
    ) -> Result<Tokenised> {
        let sequences = in_order(split.shards().iter().flat_map(conversations).take(most), |conversation| {
            cx.check_stop()?;
            let (messages, shard, row) = conversation?;
            let tokens = messages.and_then(|messages| self.table.format.tokens(tokenizer, &messages));
            tokens.map_err(|e| e.at_row(row).in_file(shard))
        });
        let (mut rows, mut tokens, mut drops, mut closed) = (0, 0, Drops::default(), 0);
        let usable = sequences.filter_map(|sequence| {
            let (sequence, closes_reasoning): (Sequence, bool) = match sequence {
                Ok(sequence) => sequence,
                Err(error) => return Some(Err(error)),
            };
            rows += 1;
            closed += u64::from(closes_reasoning);
            tokens += sequence.tokens.len() as u64;
            match sequence.fault_within(context, self.table.training.max_tokens) {
                None => Some(Ok(sequence)),
                Some((reason, detail)) => {
                    drops.add([("row", (rows - 1).into())], &format!("{prefix}{reason}"), &detail);
                    None
                }
            }
        });
        let store = TokenStore::build(usable)?;
        Ok(Tokenised { store, rows, tokens, closed, drops })
    }
}

/// A conversation, or what is wrong with it, with its file and row there.
type Conversation<'a> = Result<(Result<Vec<Message>>, &'a Shard, u64)>;

/// The conversations of a file. Nothing else is looked at, so files of other programs need have nothing else.
fn conversations(shard: &Shard) -> Box<dyn Iterator<Item = Conversation<'_>> + '_> {
    let batches = match shard.batches(Some(DatasetKind::Corpus), Some(&["messages"])) {
        Ok(batches) => batches,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let mut first = 0;
    Box::new(batches.flat_map(move |batch| {
        let (rows, fault) = match batch {
            Ok(batch) => {
                let row = |row: usize| Ok((messages_at(&batch, "messages", row), shard, first + row as u64));
                let rows: Vec<Conversation<'_>> = (0..batch.num_rows()).map(row).collect();
                first += rows.len() as u64;
                (rows, None)
            }
            Err(error) => (Vec::new(), Some(Err(error))),
        };
        rows.into_iter().chain(fault)
    }))
}

/// A split as tokens.
struct Tokenised {
    store: TokenStore,
    /// Of the whole split, what is left out included.
    rows: usize,
    tokens: u64,
    /// Rows whose reply has no reasoning where the chat template opens it.
    closed: u64,
    drops: Drops,
}

impl Format {
    /// The token that ends a row.
    fn end(self, tokenizer: &Tokenizer) -> Option<u32> {
        match self {
            Format::Chat => tokenizer.end_of_turn(),
            Format::Text => tokenizer.end_of_text(),
        }
    }

    /// A row's tokens, and whether reasoning that the chat template opens was closed before its reply.
    fn tokens(self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<(Sequence, bool)> {
        match self {
            Format::Chat => {
                let (prompt, Reply { tokens, closes_reasoning }) = completion_tokens(tokenizer, messages)?;
                Ok((Sequence::completion(&prompt, &tokens), closes_reasoning))
            }
            Format::Text => {
                let text: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
                let mut tokens = tokenizer.encode_document(&text.join(" "))?;
                let end = self.end(tokenizer).filter(|end| tokens.last() != Some(end));
                tokens.extend(end);
                Ok((Sequence::completion(&[], &tokens), false))
            }
        }
    }
}

impl Stage for SftStage {
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::new("corpus", &self.table.corpus, DatasetKind::Corpus)];
        inputs.extend(self.policy.inputs());
        inputs.extend(self.table.held_out.iter().map(|of| Input::new("held_out", of, DatasetKind::Prompts)));
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        None
    }

    fn writes_model(&self) -> bool {
        true
    }

    /// 2: documents begin as the tokenizer begins them. 3: rows that are too long make no batch smaller; turns end as the
    /// chat template ends them, and the model stops there. 4: reasoning that the chat template opens is closed before a reply
    /// that has none; built-in chat templates begin as documents do.
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
        super::training_materials(
            cx,
            &self.policy,
            self.table.held_out.as_ref().map(|_| self.table.evaluate.rules(None)),
        )
    }

    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        [super::TRAINING_KEYS, &["validation"]].concat()
    }

    fn model_config(&self, models: &Models<'_>) -> Result<Option<Config>> {
        self.policy.config(models).map(Some)
    }

    fn has_chat_template(&self, models: &Models<'_>) -> Result<bool> {
        self.policy.has_chat_template(models)
    }

    fn memory(&self, models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        let (config, training) = (self.policy.config(models)?, &self.table.training);
        if self.table.format == Format::Chat || self.table.held_out.is_some() {
            self.policy.check_chat_template(models)?;
        }
        let load = Load {
            rows: training.tokens_per_microbatch,
            longest_possible: longest_row(&config, training.max_tokens),
            recompute: training.recompute,
            decoding: self.table.held_out.as_ref().map(|_| self.policy.limits),
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

impl SftStage {
    /// The rows that the loss is measured on, and what of them is left out; `None` where the corpus has no such split.
    fn validation(
        &self,
        cx: &StageContext<'_>,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Result<Option<(TokenStore, Drops)>> {
        let wanted = self.table.validation.clone().unwrap_or_default();
        let corpus = cx.input("corpus")?;
        let split = corpus.split(&wanted.split);
        if split.shards().is_empty() {
            let named = self.table.validation.as_ref().is_some_and(|wanted| wanted.rows > 0);
            return match named {
                true => Err(Error::new(format!("the corpus has no split `{}`", wanted.split))
                    .in_file(corpus.location())
                    .hint(
                        "`validation = 0.01` in the corpus stage splits it; leave `validation` out here to do without",
                    )),
                false => Ok(None),
            };
        }
        let Tokenised { store, rows, tokens, mut drops, .. } =
            self.tokenise(cx, tokenizer, context, (&split, wanted.rows), "validation_")?;
        let left_out = tokens - store.tokens();
        match drops.sum_up("validation rows", rows, left_out, tokens) {
            // Nobody asked for a measurement, so the training goes on without it.
            Err(error) if self.table.validation.is_none() => {
                drops.say(format!("no validation loss is measured: {}", error.message()));
            }
            summed => summed.map_err(|e| e.in_file(corpus.location()))?,
        }
        Ok(Some((store, drops)))
    }

    fn train<B: Backend>(&self, cx: &StageContext<'_>, backend: B) -> Result<StageOutcome> {
        let format = self.table.format;
        let policy: Policy<B> = self.policy.open(cx, backend, |tokenizer| format.end(tokenizer))?;
        let context = policy.model.read().config().context;
        let corpus = cx.input("corpus")?;
        let split = corpus.split(&self.table.split);
        // A corpus that was not split is taken whole.
        let split = if split.shards().is_empty() { corpus } else { &split };
        let tokenised = self.tokenise(cx, &policy.tokenizer, context, (split, usize::MAX), "")?;
        let Tokenised { store, rows, tokens, closed, mut drops } = tokenised;
        let file = corpus.location();
        if rows == 0 {
            return Err(Error::new("the corpus has no rows to train on").in_file(file));
        }
        let left_out = tokens - store.tokens();
        drops.sum_up("rows of the corpus", rows, left_out, tokens).map_err(|e| e.in_file(file))?;
        let validation = self.validation(cx, &policy.tokenizer, context)?;
        let validation = validation.map(|(validation, dropped)| {
            drops.absorb(dropped);
            validation
        });
        let held_out = self.table.held_out.as_ref().map(|_| HeldOut::open(cx, &policy, &self.table.evaluate, None));
        let held_out = held_out.transpose()?;
        let mut config = self.table.training.clone();
        config.seed = super::training_seed(config.seed, cx);
        let model = policy.model.clone();
        let mut trainer = match validation {
            Some(validation) => SftTrainer::with_validation(model, store, validation, config)?,
            None => SftTrainer::new(model, store, config)?,
        };
        cx.begin()?;
        drops.tell(cx)?;
        tell_closed(closed, rows as u64, "rows of the corpus").iter().for_each(|line| cx.progress.say(line));
        let session = Session::new(cx, &policy, self.table.checkpoints, held_out);
        let session = session.measuring(&self.table.evaluate);
        let mut outcome = session.train(&mut trainer)?.outcome;
        outcome.drops = drops.counts;
        outcome.count("corpus_rows", rows as u64);
        outcome.count("corpus_tokens", tokens);
        if closed > 0 {
            outcome.count("without_reasoning", closed);
        }
        Ok(outcome)
    }
}
