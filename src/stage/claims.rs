//! `claims`: what a run was meant to show, checked against the figures of its stages.
//!
//! ```toml
//! [stages.claims]
//! of = ["eval", "align"]
//! claims = [
//!     { text = "R1-Zero rises from the base", left = "eval.r1_zero.pass_at_1", right = "eval.base.pass_at_1", at_least = 0.05 },
//! ]
//! ```
//! A claim holds if `left − right ≥ at_least`. A claim that does not hold is a result, not an
//! error: the stage finishes, and says so.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray};
use serde::Deserialize;

use super::training::write_table;
use super::{FIGURES, Input, Stage, StageContext, StageOutcome, Wants};
use crate::error::{Error, Result};
use crate::recipe::StageTable;
use crate::store::{Location, Manifest};

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimsTable {
    /// The stages whose figures claims may name.
    of: Vec<String>,
    claims: Vec<Claim>,
}

/// One thing to show.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    text: String,
    left: Term,
    right: Term,
    /// What the left must exceed the right by; negative for "at most so much worse".
    #[serde(default)]
    at_least: f64,
}

/// A number, or `STAGE.FIGURE`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Term {
    Number(f64),
    Figure(String),
}

/// The stage.
pub struct ClaimsStage(ClaimsTable);

impl ClaimsStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// A figure of a stage that is not in `of`, an unknown key, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let read: ClaimsTable = table.config.read()?;
        for claim in &read.claims {
            for term in [&claim.left, &claim.right] {
                let Term::Figure(figure) = term else { continue };
                if !read.of.iter().any(|stage| figure.strip_prefix(&format!("{stage}.")).is_some()) {
                    let error = Error::usage(format!("the claim `{}` names `{figure}`", claim.text));
                    let hint = format!("write STAGE.FIGURE with a stage of `of`: {}", read.of.join(", "));
                    return Err(table.origin.locate(error.hint(hint)));
                }
            }
        }
        Ok(ClaimsStage(read))
    }

    fn figure(&self, cx: &StageContext<'_>, name: &str) -> Result<f64> {
        // Of two stages whose names both fit (`eval`, `eval.hard`) the longer one is meant.
        let fits = self.0.of.iter().enumerate().filter(|(_, stage)| name.starts_with(&format!("{stage}.")));
        let (index, stage) = fits.max_by_key(|(_, stage)| stage.len()).expect("checked when the table was read");
        let folder = Location::parse(&cx.input_folder(&key(index))?.display().to_string())?;
        let manifest = Manifest::load(&folder)?;
        let figures = manifest.as_ref().and_then(|m| m.facts.get(FIGURES)).and_then(serde_json::Value::as_object);
        let figure = &name[stage.len() + 1..];
        figures.and_then(|figures| figures.get(figure)?.as_f64()).ok_or_else(|| {
            let known: Vec<&str> = figures.into_iter().flat_map(|f| f.keys().map(String::as_str)).collect();
            Error::usage(format!("the stage `{stage}` has no figure `{figure}`"))
                .hint(format!("its figures: {}", known.join(", ")))
        })
    }
}

fn key(index: usize) -> String {
    format!("of.{index}")
}

impl Stage for ClaimsStage {
    fn inputs(&self) -> Vec<Input> {
        let stages = self.0.of.iter().enumerate();
        stages.map(|(i, of)| Input { key: key(i), of: of.clone(), wants: Wants::Figures }).collect()
    }

    fn output(&self) -> Option<crate::schema::DatasetKind> {
        None
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let value = |term: &Term| match term {
            Term::Number(value) => Ok(*value),
            Term::Figure(name) => self.figure(cx, name),
        };
        let mut outcome = StageOutcome::default();
        let (mut lefts, mut rights, mut holds) = (Vec::new(), Vec::new(), Vec::new());
        cx.progress.start(self.0.claims.len() as u64, "claims");
        for claim in &self.0.claims {
            let (left, right) = (value(&claim.left)?, value(&claim.right)?);
            // Figures are rounded decimals of shares: 0.3 − 0.1 is to count as 0.2.
            let held = left - right >= claim.at_least - 1e-9;
            let word = if held { "holds" } else { "does NOT hold" };
            cx.progress.say(&format!("{word}: {}  ({left:.3} against {right:.3})", claim.text));
            cx.progress.advance(1);
            outcome.count(if held { "hold" } else { "do_not_hold" }, 1);
            lefts.push(left);
            rights.push(right);
            holds.push(held);
        }
        let margin = Float64Array::from_iter_values(lefts.iter().zip(&rights).map(|(l, r)| l - r));
        let wanted = Float64Array::from_iter_values(self.0.claims.iter().map(|c| c.at_least));
        let columns: Vec<(String, ArrayRef)> = vec![
            ("claim".to_owned(), Arc::new(StringArray::from_iter_values(self.0.claims.iter().map(|c| &c.text)))),
            ("left".to_owned(), Arc::new(Float64Array::from(lefts))),
            ("right".to_owned(), Arc::new(Float64Array::from(rights))),
            ("margin".to_owned(), Arc::new(margin)),
            ("at_least".to_owned(), Arc::new(wanted)),
            ("holds".to_owned(), Arc::new(BooleanArray::from(holds))),
        ];
        write_table(&cx.local_folder()?.join("claims.parquet"), columns)?;
        Ok(outcome)
    }
}
