//! The keys of a stage's table, for `--help`: its section of `datasets/README.md`, so that there is one text only.

const GUIDE: &str = include_str!("../../../datasets/README.md");

/// What the guide says of a stage's keys, as plain text; `None` if it says nothing.
pub(super) fn section(kind: &str) -> Option<String> {
    let stages = GUIDE.split("\n## ").find(|part| part.starts_with("Stages\n"))?;
    let is_of = |section: &&str| section.lines().next().is_some_and(|title| title.contains(&format!("`{kind}`")));
    let section = stages.split("\n### ").skip(1).find(is_of)?;
    let mut text = String::from("The stage's keys (⇐ an input: a dataset's path or URL), from datasets/README.md:\n");
    let mut lines = section.lines().skip(1).peekable();
    let (mut in_code, mut in_paragraph) = (false, false);
    // Whether the table that is read says in its second column which stages a key is of.
    let mut has_kinds = false;
    while let Some(line) = lines.next() {
        let is_header = lines.peek().is_some_and(|next| is_rule(next));
        let table_row = line.trim_start();
        let goes_on = std::mem::take(&mut in_paragraph) && !begins_block(table_row);
        if table_row.starts_with("```") {
            in_code = !in_code;
        } else if in_code {
            text += &format!("    {line}\n");
        } else if !table_row.starts_with('|') {
            // Where a line ends in the guide is its own affair: the help is wrapped to the terminal.
            if goes_on {
                text.pop();
                text.push(' ');
            }
            in_paragraph = !table_row.is_empty() && !table_row.starts_with('#');
            let line = if goes_on { table_row } else { line.trim_start_matches(['#', ' ']) };
            text += &format!("{}\n", plain(line));
        } else if is_header {
            has_kinds = cells(table_row).nth(1).as_deref() == Some("of");
        } else if !is_rule(line) {
            text += &row(table_row, has_kinds.then_some(kind));
        }
    }
    Some(text.trim_end().to_owned())
}

/// Whether a line of the guide does not go on with the paragraph before it.
fn begins_block(line: &str) -> bool {
    let is_numbered = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    line.is_empty() || is_numbered || line.starts_with(['#', '|']) || line.starts_with("- ") || line.starts_with("```")
}

/// The line below a table's header: `|---|---|`.
fn is_rule(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('|') && line.chars().all(|c| matches!(c, '|' | '-' | ':' | ' '))
}

/// The cells of a row of a Markdown table.
fn cells(line: &str) -> impl Iterator<Item = String> {
    // A bar within a cell is written `\|`.
    let line = line.trim().trim_matches('|').replace("\\|", "\u{0}");
    let cells: Vec<String> = line.split('|').map(|cell| plain(cell.trim()).replace('\u{0}', "|")).collect();
    cells.into_iter()
}

/// A row of a Markdown table: its first cell, and the others below it. Of a table that says which stages a key is of,
/// nothing where this one is not among them.
fn row(line: &str, kind: Option<&str>) -> String {
    let mut cells = cells(line);
    let key = cells.next().unwrap_or_default();
    if let Some(kind) = kind {
        let of = cells.next().unwrap_or_default();
        if of != "all" && of.split(", ").all(|one| one != kind) {
            return String::new();
        }
    }
    let rest: Vec<String> = cells.filter(|cell| !cell.is_empty()).collect();
    format!("  {key}\n        {}\n", rest.join("; "))
}

/// A line without Markdown's marks for code, stress and links.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, link)) = rest.split_once('[') {
        text += before;
        match link.split_once("](").and_then(|(name, after)| Some((name, after.split_once(')')?.1))) {
            Some((name, after)) if !name.contains(['[', ']']) => {
                text += name;
                rest = after;
            }
            _ => {
                text.push('[');
                rest = link;
            }
        }
    }
    // What stands between backticks is code, and means its stars.
    let without = |(i, part): (usize, &str)| match i % 2 {
        0 => part.replace("**", "").replace("*required*", "required"),
        _ => part.to_owned(),
    };
    (text + rest).split('`').enumerate().map(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{KINDS, StageKind};

    #[test]
    fn every_stage_has_its_keys_in_the_guide() {
        for StageKind { name: kind, .. } in KINDS {
            let text = section(kind).unwrap_or_else(|| panic!("the guide has no section of `{kind}`"));
            assert!(text.lines().count() > 2, "{kind}: {text}");
            assert!(!text.contains("](") && !text.contains("|--"), "{kind}: {text}");
        }
    }

    #[test]
    fn a_paragraph_is_one_line_however_it_is_broken_in_the_guide() {
        let text = section("prompts").unwrap();
        assert!(text.contains("\nDrops, each listed in _drops.jsonl"), "{text}");
        let drops = text.lines().find(|line| line.starts_with("Drops, each listed")).unwrap();
        assert!(drops.contains("too_short, too_long, language") && drops.contains("sampled_out"), "{drops}");
        let text = section("generate").unwrap();
        let item = text.lines().find(|line| line.contains("Adaptive n:")).unwrap();
        assert!(item.contains("each round judged as soon as it is whole"), "{text}");
        assert!(text.lines().any(|line| line.contains("Best of n:")) && !item.contains("Best of n"), "{text}");
    }

    #[test]
    fn a_table_becomes_keys_with_their_meaning_below() {
        let text = section("select").unwrap();
        assert!(text.contains("\n  per_prompt\n        at most so many of a group; over_limit\n"), "{text}");
        assert!(section("generate").unwrap().contains("until = { rules = \"r1\""));
        let grpo = section("grpo").unwrap();
        assert!(grpo.contains("\n  rollouts_ahead\n") && grpo.contains("\n  optimizer.kind\n"), "{grpo}");
        assert!(!grpo.contains("reweighting") && !grpo.contains("corpus ⇐"), "another stage's keys: {grpo}");
        assert!(section("verify").unwrap().contains("_disagreements-*.jsonl"));
        assert_eq!(plain("*required*: a pattern with `*`, `?` and `**`"), "required: a pattern with *, ? and **");
        assert_eq!(plain("[0, 1] of [sources](#sources) **all** `x`"), "[0, 1] of sources all x");
    }
}
