//! `prompts`: sources and generators become one clean prompt set.

use std::path::Path;

use serde::Deserialize;

use super::{Input, Materials, Outcome, Stage, StageContext};
use crate::error::Result;
use crate::procedural::ProceduralConfig;
use crate::prompts::pipeline::Sink;
use crate::prompts::read::Place;
use crate::prompts::{
    DecontamConfig, DedupConfig, Dropped, EvalRow, EvalSet, FilterConfig, Hit, Imported, Importer, PassRates,
    PassWindow, PipelineConfig, PromptPipeline, SampleConfig, SourceConfig,
};
use crate::schema::{BatchExt, DatasetKind, Prompt};
use crate::store::{Location, ShardInfo, ShardWriter, WriterOptions};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptsConfig {
    /// Files to import, in order.
    #[serde(default)]
    pub sources: Vec<SourceConfig>,
    /// Prompt generators, after the sources.
    #[serde(default)]
    pub procedural: Vec<ProceduralConfig>,
    /// Evaluation sets that no prompt may overlap with.
    #[serde(default)]
    pub evaluation: Vec<SourceConfig>,
    /// Groups of an earlier run: each prompt's difficulty becomes 1 − its pass rate there.
    pub measured_by: Option<String>,
    /// Length and language filters.
    #[serde(default)]
    pub filter: FilterConfig,
    #[serde(default)]
    pub dedup: DedupConfig,
    #[serde(default)]
    pub decontaminate: DecontamConfig,
    /// Pass rates to keep, where `measured_by` tells them.
    pub pass_rate: Option<PassWindow>,
    pub sample: Option<SampleConfig>,
}

/// Every prompt that was dropped, one JSON object a line.
const DROPS: &str = "_drops.jsonl";
/// Every overlap with an evaluation set.
const HITS: &str = "_contamination.jsonl";

impl Stage for PromptsConfig {
    fn inputs(&self) -> Vec<Input> {
        self.measured_by.iter().map(|of| Input::new("measured_by", of, DatasetKind::Groups)).collect()
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Prompts)
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        let base = (cx.resolve)("");
        let mut materials = Vec::new();
        for (kind, sources) in [("sources", &self.sources), ("evaluation", &self.evaluation)] {
            for (i, source) in sources.iter().enumerate() {
                for file in Importer::open(source, Path::new(&base))?.files() {
                    let path = file.display().to_string();
                    // A source without a name is called after its first file.
                    materials.push((format!("{kind}.{i}/{}", super::file_name(&path)), (cx.digest_file)(&path)?));
                }
            }
        }
        Ok(materials)
    }

    fn paths(&self) -> &'static [&'static str] {
        &["sources.*.path", "sources.*.paths", "evaluation.*.path", "evaluation.*.paths"]
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<Outcome> {
        // One shard's worth of journal: deduplication and sampling decide over all prompts.
        cx.each_shard(1, |_| self.make(cx))
    }
}

impl PromptsConfig {
    fn make(&self, cx: &StageContext<'_>) -> Result<Outcome> {
        let base = cx.resolve("");
        let base = Path::new(&base);
        let mut importers = self.sources.iter().map(|s| Importer::open(s, base)).collect::<Result<Vec<_>>>()?;
        let mut generated = Vec::new();
        for config in &self.procedural {
            generated.push(config.prompts(cx.seed)?);
        }
        let evals = self.evaluation.iter().map(|source| eval_set(source, base)).collect::<Result<Vec<_>>>()?;
        let config = PipelineConfig {
            filter: self.filter.clone(),
            dedup: self.dedup.clone(),
            decontaminate: self.decontaminate.clone(),
            pass_rate: self.pass_rate.clone(),
            sample: self.sample.clone(),
        };
        let mut pipeline = PromptPipeline::new(config, cx.seed, &evals)?;
        if self.measured_by.is_some() {
            pipeline = pipeline.with_pass_rates(measured(cx)?);
        }
        cx.progress.start(0, "prompts");
        let imported = importers.iter_mut().flatten();
        let made = generated.into_iter().zip(&self.procedural).flat_map(|(prompts, config)| {
            let file: std::sync::Arc<str> = config.source.as_str().into();
            prompts.enumerate().map(move |(row, prompt)| {
                let place = Place { row: row as u64, line: None };
                prompt.map(|prompt| Imported { prompt, file: file.clone(), place })
            })
        });
        let rows = imported.chain(made).inspect(|_| cx.progress.advance(1));
        let mut sink = Shards::new(cx);
        let summary = pipeline.run(StopOn { rows, cx }, &mut sink)?;
        let mut outcome = sink.finish()?;
        outcome.drops = summary.drops.clone();
        for importer in &importers {
            for (reason, n) in &importer.report().skipped {
                *outcome.drops.entry(format!("import:{reason}")).or_default() += n;
            }
            for (reason, n) in &importer.report().gold_missing {
                outcome.count(&format!("gold_missing:{reason}"), *n);
            }
            outcome.count("duplicate_ids", importer.report().duplicate_ids);
        }
        outcome.count("read", summary.rows);
        outcome.count("kept", summary.kept);
        outcome.count("contamination_hits", summary.hits);
        outcome.count("gold_conflicts", summary.gold_conflicts);
        outcome.counts.retain(|_, n| *n > 0);
        if !summary.strata.is_empty() {
            outcome.facts.insert("strata".to_owned(), serde_json::to_value(&summary.strata).expect("plain data"));
        }
        let reports: Vec<_> = importers.iter().map(|i| serde_json::to_value(i.report()).expect("plain data")).collect();
        if !reports.is_empty() {
            outcome.facts.insert("imports".to_owned(), reports.into());
        }
        Ok(outcome)
    }
}

/// Ends the stream with an error once the user has asked to stop.
struct StopOn<'a, I> {
    rows: I,
    cx: &'a StageContext<'a>,
}

impl<I: Iterator<Item = Result<Imported>>> Iterator for StopOn<'_, I> {
    type Item = Result<Imported>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(stop) = self.cx.check_stop() {
            return Some(Err(stop));
        }
        self.rows.next()
    }
}

fn eval_set(source: &SourceConfig, base: &Path) -> Result<EvalSet> {
    let importer = Importer::open(source, base)?;
    let name = importer.name().to_owned();
    let rows = importer.map(|row| row.map(|r| EvalRow { row: r.place.row, question: r.prompt.question().to_owned() }));
    Ok(EvalSet { name, rows: rows.collect::<Result<_>>()? })
}

/// Correct and decided completions of each prompt.
fn measured(cx: &StageContext<'_>) -> Result<PassRates> {
    let mut rates = PassRates::default();
    for batch in cx.input("measured_by")?.batches(Some(DatasetKind::Groups), Some(&["prompt_id", "outcome"])) {
        let batch = batch?;
        let (ids, outcomes) = (batch.text("prompt_id")?, batch.text("outcome")?);
        rates.extend((0..batch.num_rows()).map(|row| {
            let outcome = outcomes.value(row);
            let decided = outcome == "correct" || outcome == "wrong";
            (ids.value(row).to_owned(), u64::from(outcome == "correct"), u64::from(decided))
        }));
    }
    Ok(rates)
}

/// Writes what stays as shards, what goes as lists.
struct Shards<'a> {
    cx: &'a StageContext<'a>,
    pending: Vec<Prompt>,
    shards: Vec<ShardInfo>,
    drops: Lines,
    hits: Lines,
}

impl<'a> Shards<'a> {
    fn new(cx: &'a StageContext<'a>) -> Self {
        Shards { cx, pending: Vec::new(), shards: Vec::new(), drops: Lines::default(), hits: Lines::default() }
    }

    fn flush(&mut self) -> Result<()> {
        let mut writer =
            ShardWriter::create(self.cx.folder, self.shards.len(), DatasetKind::Prompts, WriterOptions::default())?;
        writer.push_rows(&self.pending)?;
        self.shards.push(writer.finish()?);
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome> {
        if !self.pending.is_empty() || self.shards.is_empty() {
            self.flush()?;
        }
        self.drops.write(&self.cx.folder.join(DROPS))?;
        self.hits.write(&self.cx.folder.join(HITS))?;
        Ok(Outcome { shards: self.shards, ..Outcome::default() })
    }
}

impl Sink for Shards<'_> {
    fn keep(&mut self, prompt: Prompt) -> Result<()> {
        self.pending.push(prompt);
        if self.pending.len() == self.cx.shard_rows { self.flush() } else { Ok(()) }
    }

    fn drop(&mut self, drop: Dropped) -> Result<()> {
        self.drops.push(&drop);
        Ok(())
    }

    fn hit(&mut self, hit: Hit) -> Result<()> {
        self.hits.push(&hit);
        Ok(())
    }
}

/// JSON lines, written at the end in one atomic write.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, row: &impl serde::Serialize) {
        serde_json::to_writer(&mut self.0, row).expect("plain data into memory");
        self.0.push(b'\n');
    }

    fn write(self, file: &Location) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { file.write(self.0) }
    }
}
