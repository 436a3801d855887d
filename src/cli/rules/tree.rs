//! The verdict tree of `rules try`.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use crate::rule::{Judgement, RuleSet, Sample, think};
use crate::schema::Outcome;

fn colour(outcome: Outcome) -> Style {
    let colour = match outcome {
        Outcome::Correct => AnsiColor::Green,
        Outcome::Wrong => AnsiColor::Red,
        Outcome::CannotTell => AnsiColor::Yellow,
    };
    Style::new().fg_color(Some(colour.into())).bold()
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Correct => "correct",
        Outcome::Wrong => "wrong",
        Outcome::CannotTell => "cannot tell",
    }
}

/// The tree with ANSI colours; print it through `anstream`, which drops them where they do not belong.
pub(super) fn render(rules: &RuleSet, sample: &Sample<'_>, judgement: &Judgement) -> String {
    let dim = Style::new().dimmed();
    let mut out = String::new();
    let parts = think::split(sample.completion);
    let reward = judgement.reward.map_or("none".to_owned(), |reward| format!("{reward}"));
    let style = colour(judgement.outcome);
    let expression =
        rules.rewards().find(|(domain, _)| *domain == Some(sample.domain)).or_else(|| rules.rewards().next());
    let _ = writeln!(
        out,
        "reward {style}{reward}{style:#}  {style}{}{style:#} ({})",
        word(judgement.outcome),
        judgement.reason
    );
    if let Some((_, text)) = expression {
        let _ = writeln!(out, "{dim}= {text}{dim:#}");
    }
    let shown = |text: &str| -> String {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() > 100 { format!("{}…", line.chars().take(100).collect::<String>()) } else { line }
    };
    if let Some(reasoning) = parts.reasoning {
        let _ =
            writeln!(out, "├─ reasoning {dim}{} characters: {}{dim:#}", reasoning.chars().count(), shown(reasoning));
    }
    let _ =
        writeln!(out, "├─ answer    {dim}{} characters: {}{dim:#}", parts.answer.chars().count(), shown(parts.answer));
    let count = judgement.scores.len();
    for (index, score) in judgement.scores.iter().enumerate() {
        let last = index + 1 == count;
        let style = colour(score.outcome);
        let value = score.score.map_or("–".to_owned(), |score| format!("{score}"));
        let kind = rules.rules().find(|(name, _)| *name == score.rule).map_or("", |(_, kind)| kind);
        let branch = if last { "└─" } else { "├─" };
        let _ = writeln!(
            out,
            "{branch} {} {dim}[{kind}]{dim:#} {style}{value} {}{style:#} ({})",
            score.rule,
            word(score.outcome),
            score.reason
        );
        let evidence: Option<serde_json::Map<String, serde_json::Value>> =
            score.evidence.as_deref().and_then(|text| serde_json::from_str(text).ok());
        for (key, value) in evidence.into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = writeln!(out, "{}    {dim}{key}:{dim:#} {}", if last { " " } else { "│" }, shown(&text));
        }
    }
    for (name, kind) in rules.rules().filter(|(name, _)| judgement.scores.iter().all(|score| score.rule != *name)) {
        let _ = writeln!(out, "{dim}   {name} [{kind}] does not take this sample{dim:#}");
    }
    out.truncate(out.trim_end().len());
    out
}
