//! An inspection for people.

use std::fmt::{self, Write};

use super::{ColumnReport, DatasetReport, Inspection, OtherReport, RunReport, StageReport};
use crate::bytes::size;

/// Characters of a value that are shown.
const SHOWN: usize = 160;

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inspection::Dataset(report) => report.fmt(f),
            Inspection::Stage(report) => report.fmt(f),
            Inspection::Run(report) => report.fmt(f),
        }
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "run {}", self.location)?;
        for stage in &self.stages {
            write!(f, "  {:<20} {:<10} ", stage.folder, stage.kind)?;
            // A stage that trains or evaluates has no shards.
            match stage.shards {
                0 => writeln!(f, "{}", counted(stage))?,
                shards => writeln!(f, "{:>12} rows {shards:>4} shards {:>10}", grouped(stage.rows), size(stage.bytes))?,
            }
            drops(f, stage)?;
        }
        for folder in &self.unfinished {
            writeln!(f, "  {folder:<20} not finished")?;
        }
        for folder in &self.left_over {
            writeln!(f, "  {folder:<20} left over: the recipe no longer has this stage")?;
        }
        Ok(())
    }
}

impl fmt::Display for OtherReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OtherReport { location, stage, contents } = self;
        writeln!(f, "{} {location}", stage.kind)?;
        writeln!(f, "  stage {} ({}), fingerprint {}", stage.stage, stage.kind, stage.fingerprint)?;
        if !stage.counts.is_empty() {
            writeln!(f, "  {}", counted(stage))?;
        }
        drops(f, stage)?;
        facts(f, stage)?;
        writeln!(f, "\ncontents")?;
        contents.iter().try_for_each(|name| writeln!(f, "  {name}"))
    }
}

impl fmt::Display for DatasetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.map_or("parquet", |kind| kind.as_str());
        write!(f, "{kind}")?;
        if let Some(version) = &self.version {
            write!(f, " v{version}")?;
        }
        writeln!(f, " {}", self.location)?;
        writeln!(
            f,
            "  {} rows, {} files, {} row groups, {}",
            grouped(self.rows),
            self.files.len(),
            self.row_groups,
            size(self.bytes)
        )?;
        if let Some(stage) = &self.stage {
            writeln!(f, "  stage {} ({}), fingerprint {}", stage.stage, stage.kind, stage.fingerprint)?;
            drops(f, stage)?;
            facts(f, stage)?;
        }
        writeln!(f, "\ncolumns")?;
        for column in &self.columns {
            column.fmt(f)?;
        }
        for (index, row) in self.sample.iter().enumerate() {
            writeln!(f, "\nrow {index}")?;
            for (name, value) in row {
                writeln!(f, "  {name}: {}", value.as_str().map_or_else(|| value.to_string(), cut))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ColumnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} {}", self.name, cut(&self.data_type))?;
        if self.nulls > 0 {
            write!(f, ", {} nulls", grouped(self.nulls))?;
        }
        if let Some(distinct) = self.distinct {
            let about = if distinct >= 1024 { "about " } else { "" };
            write!(f, ", {about}{} distinct", grouped(distinct))?;
        }
        if let Some(range) = &self.range {
            let of = if range.of == "length" { "length " } else { "" };
            write!(f, ", {of}{} to {}, mean {}", number(range.min), number(range.max), number(range.mean))?;
        }
        writeln!(f)?;
        match &self.doc {
            Some(doc) => writeln!(f, "      {doc}"),
            None => Ok(()),
        }
    }
}

/// `19 steps, 11,057 tokens`.
fn counted(stage: &StageReport) -> String {
    stage.counts.iter().map(|(what, count)| format!("{} {what}", grouped(*count))).collect::<Vec<_>>().join(", ")
}

/// What the manifest says beside counts; a table of figures one a line.
fn facts(f: &mut fmt::Formatter<'_>, stage: &StageReport) -> fmt::Result {
    stage.facts.iter().try_for_each(|(name, value)| match value.as_object() {
        Some(figures) => {
            writeln!(f, "  {name}:")?;
            figures.iter().try_for_each(|(name, value)| writeln!(f, "    {name}: {value}"))
        }
        None => writeln!(f, "  {name}: {value}"),
    })
}

fn drops(f: &mut fmt::Formatter<'_>, stage: &StageReport) -> fmt::Result {
    stage.drops.iter().try_for_each(|(reason, count)| writeln!(f, "    dropped {:>12}  {reason}", grouped(*count)))
}

/// One line: control characters shown, the end of long text cut.
fn cut(text: &str) -> String {
    let mut line = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN {
            let rest = text.chars().count() - SHOWN;
            // Writing to a String cannot fail.
            let _ = write!(line, "… (+{rest})");
            break;
        }
        match character {
            '\n' => line.push('⏎'),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    line
}

/// Digits in groups of three.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { format!("{value}") } else { format!("{value:.4}") }
}
