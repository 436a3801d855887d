//! `prompts`: sources and generators become one clean prompt set.

mod output;

use std::cell::RefCell;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use self::output::{Lines, Shards};
use super::{Input, InputRows, Materials, Stage, StageContext, StageOutcome};
use crate::error::{Error, Result};
use crate::procedural::ProceduralConfig;
use crate::prompts::read::Place;
use crate::prompts::{
    DecontamConfig, DedupConfig, EvalRow, EvalSet, FaultPlace, FilterConfig, ImportReport, Imported, Importer,
    PassRates, PassWindow, Preparation, PrepareConfig, SampleConfig, SourceConfig, Step, Summary,
};
use crate::recipe::{Node, StageTable, Value};
use crate::schema::{self, BatchExt, DatasetKind};
use crate::store::{Location, Manifest};

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
    /// Which duplicates are dropped; exact and near ones if left out.
    #[serde(default)]
    pub dedup: DedupConfig,
    /// How an overlap with `evaluation` is judged.
    #[serde(default)]
    pub decontaminate: DecontamConfig,
    /// Pass rates to keep, where `measured_by` tells them.
    pub pass_rate: Option<PassWindow>,
    /// How many prompts stay of each stratum; all if left out.
    pub sample: Option<SampleConfig>,
}

/// Every prompt that was dropped, one JSON object a line.
const DROPS: &str = "_drops.jsonl";
/// Every overlap with an evaluation set.
const HITS: &str = "_contamination.jsonl";
/// Every pair of equal questions with different golds.
const CONFLICTS: &str = "_gold_conflicts.jsonl";

impl PromptsConfig {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// What is known to be wrong without reading a file, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        for (key, form) in [
            ("sources", "[{ path = \"prompts.jsonl\" }]"),
            ("evaluation", "[{ path = \"test.jsonl\" }]"),
            ("procedural", "[{ count = 1000, mix = [{ name = \"reasoning\" }] }]"),
        ] {
            if let Some(node) = table.config.get(key) {
                check_form(node, key, form)?;
            }
        }
        let config: PromptsConfig = table.config.read()?;
        let at = |path: &[&str], error: Error| node_at(&table.config, path).origin.locate(error);
        for (key, sources) in [("sources", &config.sources), ("evaluation", &config.evaluation)] {
            for (i, source) in sources.iter().enumerate() {
                source.check().map_err(|error| at(&[key, &i.to_string()], error))?;
                if key == "evaluation" && source.ask.is_some() {
                    let error = Error::usage("what is searched for is the bare question of an evaluation set");
                    let error = error.hint("leave `ask` out here: what models are asked comes from `sources`");
                    return Err(at(&[key, &i.to_string(), "ask"], error));
                }
            }
        }
        for (i, procedural) in config.procedural.iter().enumerate() {
            procedural.check().map_err(|(path, error)| {
                let index = i.to_string();
                let path: Vec<&str> =
                    ["procedural", &index].into_iter().chain(path.iter().map(String::as_str)).collect();
                at(&path, error)
            })?;
        }
        config.filter.check().map_err(|error| at(&["filter"], error))?;
        config.dedup.check().map_err(|error| at(&["dedup"], error))?;
        config.decontaminate.check().map_err(|error| at(&["decontaminate"], error))?;
        if let Some(window) = &config.pass_rate {
            window.check().map_err(|error| at(&["pass_rate"], error))?;
        }
        if let Some(sample) = &config.sample {
            sample.check().map_err(|error| at(&["sample"], error))?;
        }
        Ok(config)
    }
}

/// A list of tables that is written as something else.
fn check_form(node: &Node, key: &str, form: &str) -> Result<()> {
    let wrong = match &node.value {
        Value::Array(items) => items.iter().find(|item| item.table().is_none()),
        _ => Some(node),
    };
    wrong.map_or(Ok(()), |wrong| {
        let message = format!("`{key}` is a list of tables, this is {}", wrong.value);
        let form = match wrong.text() {
            Some(path) if key != "procedural" => format!("[{{ path = \"{path}\" }}]"),
            _ => form.to_owned(),
        };
        Err(wrong.origin.locate(Error::usage(message)).hint(format!("write `{key} = {form}`")))
    })
}

/// The node at this path of keys and indices, or the last one on the way to it that is there.
fn node_at<'a>(node: &'a Node, path: &[&str]) -> &'a Node {
    let Some((first, rest)) = path.split_first() else { return node };
    let next = match &node.value {
        Value::Array(items) => first.parse::<usize>().ok().and_then(|index| items.get(index)),
        _ => node.get(first),
    };
    next.map_or(node, |next| node_at(next, rest))
}

impl Stage for PromptsConfig {
    /// 2: rows for which nobody names a domain are of the one that what they are checked by tells, and the copy of a prompt
    /// that can be graded is the one that stays. 3: of sources, columns of a program's tests become the verification, and
    /// chains of thought beside an assistant's `content` are kept. 4: of sources, a column `verification` is one, IFEval's,
    /// GPQA's and LiveCodeBench's columns are read, and a `generation` is an answer.
    fn version(&self) -> u32 {
        if self.sources.is_empty() { 2 } else { 4 }
    }

    fn inputs(&self) -> Vec<Input> {
        self.measured_by.iter().map(|of| Input::new("measured_by", of, DatasetKind::Groups)).collect()
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Prompts)
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        if self.sources.is_empty() && self.procedural.is_empty() {
            return Err(Error::usage("there is nothing to take prompts from")
                .hint("give it `sources = [{ path = \"…\" }]` or `procedural = [{ count = …, mix = […] }]`"));
        }
        let mut materials = Vec::new();
        for (kind, sources) in [("sources", &self.sources), ("evaluation", &self.evaluation)] {
            for (i, source) in sources.iter().enumerate() {
                for file in Importer::open_until(source, cx.base.folder(), cx.check_stop)?.files() {
                    let path = file.to_string();
                    // A source without a name is called after its first file.
                    materials.push((format!("{kind}.{i}/{}", super::file_name(&path)), (cx.digest_file)(&path)?));
                }
            }
        }
        Ok(materials)
    }

    fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        vec!["sources.*.path", "sources.*.paths", "evaluation.*.path", "evaluation.*.paths"]
    }

    fn expected_rows(&self, _inputs: &InputRows<'_>) -> Option<u64> {
        // What files hold is known once they are read.
        let generated = self.sources.is_empty().then(|| self.procedural.iter().map(|config| config.count).sum());
        let wanted = self.sample.as_ref().and_then(|sample| sample.total);
        match (generated, wanted) {
            (Some(rows), Some(wanted)) => Some(u64::min(rows, wanted)),
            (rows, wanted) => rows.or(wanted),
        }
    }

    fn has_its_lists(&self, made: &Manifest, folder: &Location) -> Result<bool> {
        let counted = |what: &str| made.counts.get(what).copied().unwrap_or(0);
        let listed = [
            (DROPS, made.drops.values().sum()),
            (HITS, counted("contamination_hits")),
            (CONFLICTS, counted("gold_conflicts")),
        ];
        let files = folder.list()?;
        Ok(listed.iter().all(|(list, rows)| *rows == 0 || files.iter().any(|file| file.name == *list)))
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        // One shard's worth of journal: deduplication and sampling decide over all prompts.
        cx.each_shard(1, |_| self.make(cx))
    }
}

impl PromptsConfig {
    fn make(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let base = cx.base.folder();
        let mut importers = self
            .sources
            .iter()
            .map(|s| Importer::open_until(s, base, &|| cx.check_stop()))
            .collect::<Result<Vec<_>>>()?;
        let generated = self.procedural.iter().map(|config| config.prompts(cx.seed)).collect::<Result<Vec<_>>>()?;
        let (evals, evals_read) = self.evaluation_sets(cx, base)?;
        let preparation = self.preparation(cx, &evals)?;
        cx.progress.start(0, "prompts");
        let drops = RefCell::new(Lines::new(cx.folder.join(DROPS)));
        let imported = importers.iter_mut().flat_map(|importer| imported(importer, &drops));
        let made = generated.into_iter().zip(&self.procedural).flat_map(|(prompts, config)| {
            let file: std::sync::Arc<str> = config.source.as_str().into();
            prompts.enumerate().map(move |(row, prompt)| {
                let place = Place { row: row as u64, line: None };
                prompt.map(|prompt| Imported { prompt, file: file.clone(), place })
            })
        });
        let rows = imported.chain(made).inspect(|_| cx.progress.advance(1));
        let mut sink = Shards::new(cx, &drops);
        let summary = preparation.run(StopOn { rows, cx }, &mut sink)?;
        let mut outcome = sink.finish()?;
        drops.into_inner().finish()?;
        let imports: Vec<&ImportReport> = importers.iter().map(Importer::report).collect();
        tell(&summary, &imports, &evals_read, &mut outcome);
        Ok(outcome)
    }

    /// The evaluation sets, each with what its import came to. The user is told of rows that are not searched for.
    fn evaluation_sets(&self, cx: &StageContext<'_>, base: &Path) -> Result<(Vec<EvalSet>, Vec<ImportReport>)> {
        let sets = self.evaluation.iter().map(|source| eval_set(cx, source, base)).collect::<Result<Vec<_>>>()?;
        for (set, report) in sets.iter().filter(|(_, report)| !report.skipped.is_empty()) {
            cx.progress.say(&not_searched_for(cx.name, set, report));
        }
        Ok(sets.into_iter().unzip())
    }

    /// What is done to the prompts.
    fn preparation(&self, cx: &StageContext<'_>, evals: &[EvalSet]) -> Result<Preparation> {
        let config = PrepareConfig {
            filter: self.filter.clone(),
            dedup: self.dedup.clone(),
            decontaminate: self.decontaminate.clone(),
            pass_rate: self.pass_rate.clone(),
            sample: self.sample.clone(),
        };
        let preparation = Preparation::new(config, cx.seed, evals)?;
        Ok(match self.measured_by {
            Some(_) => preparation.with_pass_rates(measured(cx)?),
            None => preparation,
        })
    }
}

/// The prompts of a source; rows that cannot be read go to the list of drops.
fn imported<'a>(
    importer: &'a mut Importer,
    drops: &'a RefCell<Lines>,
) -> impl Iterator<Item = Result<Imported>> + use<'a> {
    let source = importer.name().to_owned();
    std::iter::from_fn(move || {
        loop {
            match importer.next_step()? {
                Ok(Step::Prompt(prompt)) => return Some(Ok(*prompt)),
                Ok(Step::Skipped(place)) => {
                    if let Err(error) = drops.borrow_mut().push(&left_out(&source, &place)) {
                        return Some(Err(error));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

/// Adds to the outcome what was read, what was kept and why the rest was not.
fn tell(summary: &Summary, imports: &[&ImportReport], evals_read: &[ImportReport], outcome: &mut StageOutcome) {
    outcome.drops = summary.drops.clone();
    outcome.count("read", summary.rows);
    for report in imports {
        for (reason, n) in &report.skipped {
            *outcome.drops.entry(format!("import:{reason}")).or_default() += n;
            outcome.count("read", *n);
        }
        for (reason, n) in &report.gold_missing {
            outcome.count(&format!("gold_missing:{reason}"), *n);
        }
        outcome.count("duplicate_ids", report.duplicate_ids);
    }
    outcome.count("kept", summary.kept);
    outcome.count("contamination_hits", summary.hits);
    outcome.count("gold_conflicts", summary.gold_conflicts);
    outcome.count("kept_other_gold", summary.kept_other_gold);
    outcome.counts.retain(|_, n| *n > 0);
    if !summary.strata.is_empty() {
        outcome.facts.insert("strata".to_owned(), serde_json::to_value(&summary.strata).expect("plain data"));
    }
    if !summary.evaluation.is_empty() {
        let sets = summary.evaluation.iter().zip(evals_read).map(|(set, read)| {
            let mut set = serde_json::to_value(set).expect("plain data");
            if !read.skipped.is_empty() {
                (set["skipped"], set["places"]) = (json!(read.skipped), json!(read.places));
            }
            set
        });
        outcome.facts.insert("evaluation".to_owned(), sets.collect());
    }
    if !imports.is_empty() {
        let reports = imports.iter().map(|report| serde_json::to_value(report).expect("plain data"));
        outcome.facts.insert("imports".to_owned(), reports.collect());
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

/// A row that was left out, as the list of drops has it.
fn left_out(source: &str, place: &FaultPlace) -> serde_json::Value {
    json!({
        "prompt_id": null,
        "source": source,
        "file": place.file,
        "row": place.row,
        "line": place.line,
        "reason": format!("import:{}", place.reason),
        "detail": place.message,
    })
}

fn eval_set(cx: &StageContext<'_>, source: &SourceConfig, base: &Path) -> Result<(EvalSet, ImportReport)> {
    let mut importer = Importer::open_until(source, base, &|| cx.check_stop())?;
    let row = |row: Imported| {
        let question = row.prompt.bare_question().unwrap_or_else(|| row.prompt.question().to_owned());
        EvalRow { row: row.place.row, question }
    };
    let rows = importer.by_ref().map(|imported| imported.map(row)).collect::<Result<_>>()?;
    Ok((EvalSet { name: importer.name().to_owned(), rows }, importer.report().clone()))
}

/// What prompts are not compared with.
fn not_searched_for(stage: &str, set: &EvalSet, report: &ImportReport) -> String {
    let reasons: Vec<String> = report.skipped.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    let first = report.places.first().map_or_else(String::new, |place| match place.line {
        Some(line) => format!("; the first is {}:{line}", place.file),
        None => format!("; the first is {}, row {}", place.file, place.row),
    });
    format!(
        "{stage}: rows of the evaluation set `{}` that cannot be read are not searched for: {}{first}",
        set.name,
        reasons.join(", ")
    )
}

/// Correct and decided completions of each prompt.
fn measured(cx: &StageContext<'_>) -> Result<PassRates> {
    let mut rates = PassRates::default();
    for batch in cx.input("measured_by")?.batches(Some(DatasetKind::Groups), Some(&["prompt_id", "outcome"])) {
        let batch = batch?;
        let (ids, outcomes) = (batch.text("prompt_id")?, batch.cells::<schema::Outcome>("outcome")?);
        rates.extend(outcomes.into_iter().enumerate().map(|(row, outcome)| {
            let (correct, decided) = match outcome {
                schema::Outcome::Correct => (1, 1),
                schema::Outcome::Wrong => (0, 1),
                schema::Outcome::CannotTell => (0, 0),
            };
            (ids.value(row).to_owned(), correct, decided)
        }));
    }
    Ok(rates)
}
