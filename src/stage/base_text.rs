//! `base_text`: the mixed text that a mini base model is pretrained on, as a corpus.
//!
//! Rows have no completion, rule or model behind them: a document is its messages (the question,
//! where it has one, and what follows), and its id is a hash of them.

use serde::Deserialize;

use super::{InputRows, Stage, StageContext, StageOutcome};
use crate::error::{Error, Result};
use crate::procedural::mini::BaseText;
use crate::procedural::mini::base_text::Document;
use crate::recipe::StageTable;
use crate::schema::{CorpusRow, DatasetKind, Message, Role};
use crate::seed::{content_id, stream};
use crate::store::{ShardWriter, WriterOptions};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BaseTextTable {
    /// Documents to write; of equal ones each counts.
    documents: u64,
    /// What to write, in which proportions, with how much care.
    #[serde(default)]
    text: BaseText,
}

/// The stage.
pub struct BaseTextStage(BaseTextTable);

impl BaseTextStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// A rate or weight out of range, no documents, an unknown key, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let read: BaseTextTable = table.config.read()?;
        read.text.validate().map_err(|e| table.origin.locate(e))?;
        if read.documents == 0 {
            return Err(table.origin.locate(Error::usage("`documents` must be at least 1")));
        }
        Ok(BaseTextStage(read))
    }
}

impl Stage for BaseTextStage {
    fn inputs(&self) -> Vec<super::Input> {
        Vec::new()
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Corpus)
    }

    fn expected_rows(&self, _inputs: &InputRows<'_>) -> Option<u64> {
        Some(self.0.documents)
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let per_shard = cx.shard_rows as u64;
        cx.progress.start(self.0.documents, "documents");
        cx.each_shard(self.0.documents.div_ceil(per_shard) as usize, |shard| {
            let first = shard as u64 * per_shard;
            let mut outcome = StageOutcome::default();
            let mut writer = ShardWriter::create(cx.folder, shard, DatasetKind::Corpus, WriterOptions::default())?;
            // A document depends on its index alone, so shards can be made in any order.
            let last = (first + per_shard).min(self.0.documents);
            let documents = (first..last).map(|i| self.0.text.document(&mut stream(cx.seed, "base text", i)));
            let rows: Vec<CorpusRow> = documents.map(row).collect();
            for row in &rows {
                outcome.count(&row.domain, 1);
            }
            writer.push_rows(&rows)?;
            cx.progress.advance(writer.rows());
            outcome.shards.push(writer.finish()?);
            Ok(outcome)
        })
    }
}

fn row(document: Document) -> CorpusRow {
    let kind = format!("{:?}", document.kind).to_lowercase();
    let turn = |role, content: &str| Message { role, content: content.to_owned() };
    let mut messages = Vec::new();
    if !document.prompt.is_empty() {
        messages.push(turn(Role::User, &document.prompt));
    }
    messages.push(turn(Role::Assistant, &document.completion));
    let id = content_id(messages.iter().map(|m| m.content.as_bytes()));
    CorpusRow {
        messages,
        reasoning: None,
        answer: document.completion,
        track: "base".to_owned(),
        domain: kind,
        language: document.language.code().to_owned(),
        difficulty: None,
        source: "base_text/mini".to_owned(),
        license: Some("CC0-1.0".to_owned()),
        completion_tokens: None,
        prompt_id: id.clone(),
        sample_index: 0,
        completion_id: id,
        reward: None,
        model: "procedural".to_owned(),
        model_digest: String::new(),
        rules_digest: String::new(),
        sampling: String::new(),
    }
}
