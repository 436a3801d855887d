//! `rules test`: the examples of rule files.

use anstyle::{AnsiColor, Style};

use crate::error::{Error, Result};
use crate::rule::RuleSet;

pub(super) fn run(files: &[String]) -> Result<()> {
    let (mut passed, mut failed) = (0usize, 0usize);
    let mut faults = Vec::new();
    let bad = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    for file in files {
        let rules = match RuleSet::load(file) {
            Ok(rules) => rules,
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        // Code examples cannot run without a sandbox: say so instead of failing them.
        let contained = rules.rules().all(|(_, kind)| kind != "code") || crate::rule::code::ready().is_ok();
        let (mut here, mut skipped) = (0usize, 0usize);
        for example in rules.examples() {
            let name = example.name.clone().unwrap_or_else(|| format!("line {}", example.line));
            let (judgement, differences) = example.run(&rules);
            if !contained && judgement.scores.iter().any(|score| score.reason == "sandbox_missing") {
                skipped += 1;
                continue;
            }
            if differences.is_empty() {
                here += 1;
                continue;
            }
            failed += 1;
            outln!("{bad}failed{bad:#} {file}:{} {name}", example.line);
            for difference in differences {
                outln!("       {difference}");
            }
        }
        passed += here;
        let more = if skipped > 0 { format!(", {skipped} skipped (no sandbox)") } else { String::new() };
        outln!("{file}: {here} of {} examples passed{more}", rules.examples().len());
        if rules.examples().is_empty() {
            errln!("{file}: warning: no [[examples]]: nothing shows what this file means");
        }
    }
    if failed > 0 {
        return Err(Error::new(format!("{failed} of {} examples failed", passed + failed)));
    }
    super::finish(faults, files.len(), "does not load")
}
