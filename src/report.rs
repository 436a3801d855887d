//! The report: one HTML file that shows what a run did.
//!
//! It asks the run's folder, not its recipe: manifests, the log, and whatever Parquet lies in the
//! stage folders, told apart by columns. So it works on a run of data-plane stages, on one that
//! trains, and on one that is still running. What a run does not have is left out; what cannot
//! be read is said at the end and does not keep the rest from being shown.
//!
//! Datasets are queried with polars, lazily: only the columns a figure needs are read. Pages come
//! from the templates beside this file, which escape every value; the one thing that is marked
//! safe is the SVG that [`chart`] draws out of numbers.

mod catalog;
mod chart;
mod claims;
mod curves;
mod funnel;
mod group;
mod lengths;
mod page;
mod run;
mod verdicts;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::store::Location;
use catalog::Catalog;
use run::Run;

/// Name of the report in a run's folder.
pub const REPORT_FILE: &str = "report.html";

/// What the report shows beside the run itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where to write; [`REPORT_FILE`] in the run's folder if none.
    pub out: Option<PathBuf>,
    /// Folders of other runs, such as the same recipe under other seeds, whose learning curves
    /// are drawn into the same plots.
    pub compare: Vec<PathBuf>,
}

/// Everything on the page, in the order of the page.
#[derive(Debug, Serialize)]
struct Page {
    run: run::Overview,
    claims: Option<claims::Claims>,
    curves: Option<curves::Curves>,
    funnel: Option<funnel::Funnel>,
    verdicts: Vec<verdicts::Verdicts>,
    lengths: Vec<lengths::Lengths>,
    groups: Vec<group::Group>,
    notes: Vec<String>,
}

/// Writes the report of a run and says where. Of a run that is not finished it shows what is there.
///
/// Two reports of equal runs differ in the times they show, and in nothing else.
///
/// # Errors
/// The folder (or one to compare with) is no run's, its manifests or its log cannot be read, or
/// the report cannot be written. A dataset that cannot be read is a note in the report.
pub fn write(run: &Path, options: &Options) -> Result<PathBuf> {
    let html = render(run, &options.compare)?;
    let out = options.out.clone().unwrap_or_else(|| run.join(REPORT_FILE));
    Location::from(out.as_path()).write(html)?;
    Ok(out)
}

/// The report as HTML.
fn render(folder: &Path, compare: &[PathBuf]) -> Result<String> {
    let run = Run::load(folder)?;
    let mut notes = Vec::new();
    if !run.left_over.is_empty() {
        notes.push(format!("stages that are no longer in the recipe: {}", run.left_over.join(", ")));
    }
    let catalog = Catalog::of(&run, &mut notes)?;
    let mut curves = curves::Collector::default();
    let is_alone = compare.is_empty();
    curves.add(&catalog, (!is_alone).then(|| run.label()).as_deref(), &mut notes);
    for folder in compare {
        let other = Run::load(folder)?;
        curves.add(&Catalog::of(&other, &mut notes)?, Some(&other.label()), &mut notes);
    }
    let page = Page {
        claims: claims::collect(&catalog, &mut notes),
        curves: curves.finish()?,
        funnel: funnel::collect(&run, &catalog, &mut notes),
        verdicts: verdicts::collect(&catalog, &mut notes),
        lengths: lengths::collect(&catalog, &mut notes)?,
        groups: group::collect(&catalog, &mut notes),
        run: run.overview(),
        notes,
    };
    page::render(&page)
}

/// What a query gave; its failure becomes a note.
fn noted<T>(result: Result<T>, notes: &mut Vec<String>) -> Option<T> {
    result.map_err(|error: Error| notes.push(error.to_string())).ok()
}
