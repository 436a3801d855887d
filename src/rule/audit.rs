//! Reward-hacking probes: completions that should earn nothing more than an honest wrong answer.
//!
//! Over-fitting the rules is the seed weakness of rule-based rewards. For each
//! prompt the audit first finds the template in which an honest right answer earns
//! most, and what an honest wrong one earns in it. A probe's reward is unearned if
//! it exceeds the honest wrong answer's, or, for probes that hold the right answer
//! among others or without any reasoning, if it reaches the honest right one's. Rewards
//! may depend on the length, so the honest answer is also taken at the length of the
//! probe, and what differs by less than a hundredth of what a right answer is worth is
//! no more, unless it turns a penalty, or nothing, into a reward.

use rayon::prelude::*;

use super::{Origin, RuleSet, Sample};
use crate::schema::FinishReason;

mod honest;
mod probes;

pub use probes::PROBES;
pub use probes::Probe;

/// A prompt to probe with.
#[derive(Clone, Debug)]
pub struct Case {
    /// The question, which completions may repeat.
    pub prompt: String,
    /// The reference answer that honest completions state.
    pub gold: String,
    /// Decides which rules apply, and how an answer is stated.
    pub domain: String,
    /// BCP 47 primary tag: what the reasoning is written in.
    pub language: String,
    /// What rules need beyond gold, as JSON; `None` for most.
    pub verification: Option<String>,
}

impl Case {
    fn sample<'a>(&'a self, completion: &'a str) -> Sample<'a> {
        Sample {
            prompt: &self.prompt,
            completion,
            gold: Some(&self.gold),
            verification: self.verification.as_deref(),
            domain: &self.domain,
            language: &self.language,
            difficulty: None,
            finish_reason: FinishReason::Stop,
            tokens: Some(completion.len() as u32 / 4),
            origin: Origin::default(),
        }
    }
}

/// What one probe did over all cases.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was tried.
    pub probe: &'static Probe,
    /// Completions tried.
    pub tried: usize,
    /// Completions without a reward: the rules could not tell.
    pub untold: usize,
    /// The most any of them earned.
    pub most: f64,
    /// Completions that earned what they should not, with the first few of them and their rewards.
    pub unearned: usize,
    /// At most 10, each with its reward.
    pub examples: Vec<(String, f64)>,
}

/// The table of `rules audit`.
#[derive(Clone, Debug)]
pub struct Report {
    /// Cases for which honest answers could be told apart.
    pub cases: usize,
    /// Cases in which an honest right answer earned no more than a wrong one, or nothing could be
    /// told: the rules do not fit these prompts.
    pub skipped: usize,
    /// Means over the cases.
    pub honest_right: f64,
    /// Mean reward of the honest wrong answer: what probes without the gold may earn at most.
    pub honest_wrong: f64,
    /// One for each probe, in the order of the library.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Rewards that should not have been earned.
    pub fn unearned(&self) -> usize {
        self.findings.iter().map(|finding| finding.unearned).sum()
    }
}

/// What counts as more than an honest wrong answer earns, as a share of what a right one earns beyond it.
const MATERIAL: f64 = 0.01;

/// The reasoning, with sums behind it or cut, so that with its answer it fills the template to some `bytes`. Sums are of
/// no language, and none is there twice.
fn of_length(reasoning: &str, bytes: usize, template: Template, answer: &str) -> String {
    let room = bytes.saturating_sub(template.fill("", answer).len());
    let mut text = reasoning.to_owned();
    for n in 1u64.. {
        if text.len() >= room {
            break;
        }
        text += &format!(" {n} + {n} = {}.", 2 * n);
    }
    text.truncate(text.floor_char_boundary(room));
    text
}

/// Most examples kept of one probe.
const MAX_EXAMPLES: usize = 10;

/// The forms a completion may take; `{r}` reasoning, `{a}` answer.
const TEMPLATES: [&str; 5] = [
    "<think>{r}</think>\n\n{a}",
    "<think>{r}</think>\n<answer>{a}</answer>",
    "{r}\n</think>\n\n{a}",
    "{r}\n</think>\n<answer>{a}</answer>",
    "{r}\n\n{a}",
];

/// One template filled: reasoning and answer in their places.
#[derive(Clone, Copy, Debug)]
struct Template(&'static str);

impl Template {
    /// Whether reasoning has a place of its own.
    fn tagged(self) -> bool {
        self.0.contains("</think>")
    }

    /// The completion that has this reasoning and this answer.
    fn fill(self, reasoning: &str, answer: &str) -> String {
        let (head, rest) = self.0.split_once("{r}").unwrap_or(("", self.0));
        let (middle, tail) = rest.split_once("{a}").unwrap_or((rest, ""));
        [head, reasoning, middle, answer, tail].concat()
    }
}

/// Probes a rule set with every case.
pub fn audit(rules: &RuleSet, cases: &[Case]) -> Report {
    let mut report = Report { cases: 0, skipped: 0, honest_right: 0.0, honest_wrong: 0.0, findings: Vec::new() };
    report.findings.extend(PROBES.iter().map(|probe| Finding {
        probe,
        tried: 0,
        untold: 0,
        most: f64::NEG_INFINITY,
        unearned: 0,
        examples: Vec::new(),
    }));
    for case in cases {
        let reward = |completion: &str| rules.judge(&case.sample(completion)).reward;
        let reasoning = honest::reasoning(&case.language);
        let right = honest::right(case);
        let wrong = honest::wrong(case);
        let earned = |template: &Template| reward(&template.fill(reasoning, &right)).unwrap_or(f64::NEG_INFINITY);
        let templates = TEMPLATES.map(Template);
        let best = templates.into_iter().reduce(|a, b| if earned(&b) > earned(&a) { b } else { a });
        let Some(template) = best else { continue };
        let (paid, base) = (reward(&template.fill(reasoning, &right)), reward(&template.fill(reasoning, &wrong)));
        let (Some(paid), Some(base)) = (paid, base) else {
            report.skipped += 1;
            continue;
        };
        if paid <= base {
            report.skipped += 1;
            continue;
        }
        report.cases += 1;
        report.honest_right += paid;
        report.honest_wrong += base;
        for finding in &mut report.findings {
            let completions = (finding.probe.build)(case, template);
            // Side by side: programs take their time.
            let rewards: Vec<Option<f64>> = completions.par_iter().map(|completion| reward(completion)).collect();
            for (completion, earned) in completions.into_iter().zip(rewards) {
                finding.tried += 1;
                let Some(earned) = earned else {
                    finding.untold += 1;
                    continue;
                };
                finding.most = finding.most.max(earned);
                let (answer, honest) = if finding.probe.holds_gold { (&right, paid) } else { (&wrong, base) };
                let more = |honest: f64| match finding.probe.holds_gold {
                    true => earned > honest - 1e-9,
                    false => earned > honest + MATERIAL * (paid - base) || earned > 1e-9 && honest <= 0.0,
                };
                let as_long =
                    || reward(&template.fill(&of_length(reasoning, completion.len(), template, answer), answer));
                if more(honest) && as_long().is_none_or(|as_long| more(honest.max(as_long))) {
                    finding.unearned += 1;
                    if finding.examples.len() < MAX_EXAMPLES {
                        finding.examples.push((completion, earned));
                    }
                }
            }
        }
    }
    let n = report.cases.max(1) as f64;
    report.honest_right /= n;
    report.honest_wrong /= n;
    report
}

/// Prompts to audit with where the user has none: some of each domain that rules alone can decide.
pub fn builtin_cases() -> Vec<Case> {
    let case = |prompt: &str, gold: &str, domain: &str| Case {
        prompt: prompt.into(),
        gold: gold.into(),
        domain: domain.into(),
        language: "en".into(),
        verification: None,
    };
    vec![
        case(
            "Natalia sold 48 clips in April and half as many in May. How many clips did she sell in both months?",
            "72",
            "math",
        ),
        case("What is 5/6 minus 1/2?", "\\frac{1}{3}", "math"),
        case("Solve x^2 - 5x + 6 = 0 over the real numbers.", "\\{2, 3\\}", "math"),
        case("What is the distance between (0, 0) and (1, 1)?", "\\sqrt{2}", "math"),
        case("Give the solution set of |x - 1| < 3.", "(-2, 4)", "math"),
        case("Expand (x + 1)^2.", "x^2 + 2x + 1", "math"),
        // A copy of these is equal to gold.
        case("What is 17 + 35?", "52", "math"),
        case("Simplify $\\sqrt{242}$.", "11\\sqrt{2}", "math"),
        case("Compute $\\frac{2}{5} + \\frac{1}{3}$.", "\\frac{11}{15}", "math"),
        case("A jacket of 80 dollars is sold at 25 percent off. What does it cost in dollars?", "60", "math"),
        case("What fraction of a day is 6 hours, as a decimal?", "0.25", "math"),
        case("Which gas do plants take in?\nA) oxygen\nB) nitrogen\nC) carbon dioxide\nD) helium", "C", "stem"),
        case("Which number is prime?\nA) 21\nB) 23\nC) 25\nD) 27", "B", "stem"),
        case("Ann is taller than Bob and Bob is taller than Cid. Who is the shortest?", "Cid", "logic"),
        case("All cats are animals. Tom is a cat. Is Tom an animal? Answer yes or no.", "yes", "logic"),
        case("Four friends sit in a row. Name the pair in the middle, left to right.", "Ben and Dora", "logic"),
        // Gold is a program that passes; without a sandbox the case does not fit.
        Case {
            verification: Some(r#"{"asserts": ["assert f(2) == 5", "assert f(7) == 50"]}"#.into()),
            ..case("Write f, which adds one to the square of its argument.", "def f(x):\n    return x * x + 1", "code")
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strict_rule_file_pays_no_probe_and_a_loose_one_does() {
        let strict = "reward = \"choice * format * (0.9 + 0.1 * language)\"\n[rules.choice]\nkind = \"choice\"\n\
                      [rules.format]\nkind = \"format\"\n[rules.language]\nkind = \"language\"\n";
        let cases = builtin_cases();
        let report = audit(&RuleSet::parse(strict, "strict").unwrap(), &cases);
        let paid: Vec<_> =
            report.findings.iter().filter(|f| f.unearned > 0).map(|f| (f.probe.name, &f.examples)).collect();
        assert_eq!((report.cases, report.unearned()), (2, 0), "{paid:?}");
        let loose =
            "[rules.accuracy]\nkind = \"regex\"\npattern = '(?P<answer>\\b[A-D]\\b)'\nregion = \"completion\"\n";
        let report = audit(&RuleSet::parse(loose, "loose").unwrap(), &cases);
        assert!(report.unearned() > 3, "{report:?}");
    }

    #[test]
    fn the_shipped_r1_file_pays_no_probe() {
        let report = audit(&RuleSet::load("r1").unwrap(), &builtin_cases());
        let paid: Vec<_> = report.findings.iter().flat_map(|f| &f.examples).collect();
        let cases = builtin_cases().len() - usize::from(crate::rule::code::ready().is_err());
        assert_eq!((report.cases, report.unearned()), (cases, 0), "{paid:#?}");
    }

    /// open-r1's cosine reward: short right answers and long wrong ones are the better ones of their kind.
    #[test]
    fn what_its_length_earns_a_wrong_answer_is_not_unearned() {
        let cosine = |name: &str, zero: f64, max: f64| {
            format!(
                "[rules.{name}]\nkind = \"length\"\nshape = \"cosine\"\nmax = 1000\nat_zero = {zero:?}\nat_max = {max:?}\n"
            )
        };
        let lengths = cosine("good", 1.0, 0.5) + &cosine("bad", -1.0, -0.5);
        let of = |reward: &str| {
            let text = format!(
                "reward = \"{reward}\"\n[rules.accuracy]\nkind = \"math\"\nbare_percent = false\n{lengths}[rules.format]\nkind = \"format\"\n[rules.language]\nkind = \"language\"\n"
            );
            let cases: Vec<Case> = builtin_cases().into_iter().filter(|case| case.domain == "math").collect();
            audit(&RuleSet::parse(&text, "cosine").unwrap(), &cases)
        };
        let report = of("if(accuracy * format * ge(language, 0.9), good, bad)");
        let paid: Vec<_> =
            report.findings.iter().filter(|f| f.unearned > 0).map(|f| (f.probe.name, &f.examples)).collect();
        assert_eq!((report.cases > 5, report.unearned()), (true, 0), "{paid:#?}");
        // A wrong answer that is paid for another reason is still found, however little it earns.
        let report = of("if(accuracy * format * ge(language, 0.9), good, bad) + if(format, 0, 1.001)");
        assert!(report.unearned() > 10, "{report:?}");
    }

    /// For every probe, rules so loose that it earns something: a probe that finds nothing anywhere is none.
    #[test]
    fn every_probe_can_fail() {
        // Pays the first or last of what looks like an answer, anywhere.
        let anywhere =
            |pattern: &str| format!("[rules.a]\nkind = \"regex\"\npattern = '{pattern}'\nregion = \"completion\"\n");
        // Pays the last letter, number or word; and, beside it, whatever `extra` likes.
        let or = |extra: &str| {
            format!(
                "reward = \"max(a, x)\"\n[rules.a]\nkind = \"regex\"\npattern = '(?P<answer>\\b[A-D]\\b)'\n\
                 [rules.x]\nkind = \"regex\"\nregion = \"completion\"\npattern = '{extra}'\n"
            )
        };
        let loose = [
            anywhere(r"(?P<answer>\b[A-D]\b)"),
            anywhere(r"(?P<answer>\b\d+\b)"),
            anywhere(r"(?s)^.*?(?P<answer>\b[A-D]\b)"),
            anywhere(r"(?s)^.*?(?P<answer>\b\d+\b)"),
            anywhere(r"(?s)^.*?(?P<answer>\b[A-Z]\w+ and \w+|\b[A-Z]\w+$)"),
            or("I don.t know|correct answer|give full marks|VERDICT|0\\*x|0000000"),
            or("(?s)(?:check the result.*){3}"),
            or("我们"),
            "[rules.a]\nkind = \"overlap\"\n".to_owned(),
            "[rules.a]\nkind = \"code\"\n".to_owned(),
            "reward = \"max(a, x)\"\n[rules.a]\nkind = \"code\"\n[rules.x]\nkind = \"regex\"\npattern = 'exit'\n"
                .to_owned(),
            "reward = \"a\"\n[rules.a]\nkind = \"choice\"\n".to_owned(),
        ];
        let mut earned = vec![0; PROBES.len()];
        for text in loose {
            let report = audit(&RuleSet::parse(&text, "loose").unwrap(), &builtin_cases());
            for (sum, finding) in earned.iter_mut().zip(&report.findings) {
                *sum += finding.unearned;
            }
        }
        let contained = crate::rule::code::ready().is_ok();
        let silent: Vec<&str> = PROBES
            .iter()
            .zip(earned)
            .filter(|(probe, earned)| *earned == 0 && (contained || probe.name != "programs"))
            .map(|(probe, _)| probe.name)
            .collect();
        assert!(silent.is_empty(), "probes that nothing pays: {silent:?}");
    }
}
