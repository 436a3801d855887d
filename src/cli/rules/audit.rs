//! `rules audit`: the table of reward-hacking probes.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use super::AuditArgs;
use crate::cli::rows::{self, Fields};
use crate::error::{Error, Result, nearest};
use crate::rule::RuleSet;
use crate::rule::audit::{Case, Finding, PROBES, Report, audit, builtin_cases};

pub(super) fn run(args: &AuditArgs) -> Result<()> {
    let rules = RuleSet::load(&args.rules)?;
    let names = || PROBES.iter().map(|probe| probe.name);
    if let Some(unknown) = args.allow.iter().find(|allowed| !names().any(|name| name == **allowed)) {
        let error = Error::usage(format!("there is no probe `{unknown}`"));
        return Err(match nearest(unknown, names()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("probes: {}", names().collect::<Vec<_>>().join(", "))),
        });
    }
    let allowed = |finding: &Finding| args.allow.iter().any(|name| name == finding.probe.name);
    let cases = match &args.on {
        None => builtin_cases(),
        Some(path) => read(path, args.limit)?,
    };
    let report = audit(&rules, &cases);
    if args.json {
        outln!("{}", as_json(&report, allowed));
    } else {
        print(&report, allowed);
    }
    if report.cases == 0 {
        return Err(Error::new("no prompt could be probed: honest right answers earn no more than wrong ones")
            .hint("--on takes rows with `prompt`, `gold` and `domain` that fit the rules"));
    }
    let paid: Vec<&Finding> = report.findings.iter().filter(|f| f.unearned > 0 && !allowed(f)).collect();
    if paid.is_empty() {
        return Ok(());
    }
    let count: usize = paid.iter().map(|finding| finding.unearned).sum();
    let allow: Vec<String> = paid.iter().map(|finding| format!("--allow {}", finding.probe.name)).collect();
    Err(Error::new(format!("{count} probes earned reward that they should not"))
        .hint(format!("where that is meant: {}", allow.join(" "))))
}

fn read(path: &str, limit: usize) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    rows::read(path, 256, &[], |chunk| {
        for mut row in chunk {
            // Prompts have no completion; the probes are the completions.
            row.insert("completion".into(), "".into());
            let fields = Fields::of(&row).map_err(|unfit| unfit.error().in_file(path))?;
            if let Some(gold) = fields.gold.filter(|gold| !gold.trim().is_empty())
                && cases.len() < limit
            {
                let (prompt, domain, verification) = (fields.prompt, fields.domain, fields.verification);
                let language = match fields.language.as_str() {
                    "und" => crate::language::count(&prompt).main().unwrap_or("en").to_owned(),
                    tag => tag.to_owned(),
                };
                cases.push(Case { prompt, gold, domain, language, verification });
            }
        }
        Ok(())
    })?;
    Ok(cases)
}

fn print(report: &Report, allowed: impl Fn(&Finding) -> bool) {
    if report.skipped > 0 {
        errln!("{} prompts do not fit these rules and were not probed", report.skipped);
    }
    if report.cases == 0 {
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["probe", "what", "tried", "no reward", "most", "unearned"]);
    for finding in &report.findings {
        table.add_row([
            finding.probe.name.to_owned(),
            finding.probe.what.to_owned(),
            finding.tried.to_string(),
            finding.untold.to_string(),
            if finding.most.is_finite() { format!("{:.3}", finding.most) } else { "–".into() },
            format!("{}{}", finding.unearned, if allowed(finding) { " (allowed)" } else { "" }),
        ]);
    }
    outln!("{table}");
    for finding in &report.findings {
        if let Some((completion, reward)) = finding.examples.first() {
            let text: String = completion.chars().take(240).collect();
            outln!("{} earned {reward:.3}: {text:?}", finding.probe.name);
        }
    }
    outln!(
        "{} prompts: an honest right answer earns {:.3}, a wrong one {:.3}; unearned rewards: {}",
        report.cases,
        report.honest_right,
        report.honest_wrong,
        report.unearned()
    );
}

fn as_json(report: &Report, allowed: impl Fn(&Finding) -> bool) -> serde_json::Value {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|f| {
            json!({"probe": f.probe.name, "tried": f.tried, "no_reward": f.untold,
                "most": f.most.is_finite().then_some(f.most), "unearned": f.unearned, "allowed": allowed(f),
                 "examples": f.examples.iter().map(|(completion, reward)| json!({"completion": completion, "reward": reward})).collect::<Vec<_>>()})
        })
        .collect();
    json!({"prompts": report.cases, "skipped": report.skipped, "honest_right": report.honest_right,
        "honest_wrong": report.honest_wrong, "unearned": report.unearned(), "probes": findings})
}
