//! Decontamination: prompts that share an n-gram with a question of a named evaluation set.
//!
//! n is 8 words by default, as open-r1 and s1 have it (GPT-3 used 13, R1 10);
//! in scripts written without spaces it counts characters. Texts are compared
//! in normal form, operators aside. A hash hit is verified on the words
//! themselves. A question with fewer words than n is searched for as a whole,
//! operators included ([`runs`]). An n-gram that many questions of a set share,
//! such as an instruction they all end with, tells nothing and is left out
//! ([`DecontamConfig::common`]).

mod bloom;
mod grams;
mod runs;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use self::grams::{Grams, Place};
use self::runs::{HEAD, Runs};
use super::hash::rolling;
use super::normal::{Normal, Token, TokenKind};
use crate::{Error, Result};

/// How an overlap is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecontamConfig {
    /// Words that must agree in a row.
    pub ngram: usize,
    /// Characters that must agree in a row, in scripts written without spaces.
    pub ngram_chars: usize,
    /// An n-gram that more than this share of a set's rows have, and more than four, is left out; from 0 to 1, where 1
    /// leaves nothing out.
    pub common: f64,
    /// Evaluation rows reported for one prompt at most; the rest is counted in the last report.
    pub max_hits: usize,
}

impl Default for DecontamConfig {
    fn default() -> Self {
        DecontamConfig { ngram: 8, ngram_chars: 13, common: 0.05, max_hits: 16 }
    }
}

impl DecontamConfig {
    /// # Errors
    /// A parameter is out of range.
    pub fn check(&self) -> Result<()> {
        if self.ngram == 0 || self.ngram_chars == 0 || self.max_hits == 0 {
            return Err(Error::usage("decontaminate: `ngram`, `ngram_chars` and `max_hits` must be at least 1"));
        }
        if !(0.0..=1.0).contains(&self.common) {
            return Err(Error::usage("decontaminate: `common` is a share, from 0 to 1"));
        }
        Ok(())
    }
}

/// Evaluation questions under a name such as `math500`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvalSet {
    /// What hits and reports call it.
    pub name: String,
    /// At least one, or [`Decontaminator::new`] refuses the set.
    pub rows: Vec<EvalRow>,
}

/// One evaluation question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvalRow {
    /// 0-based row in the set's file.
    pub row: u64,
    /// Its last user turn.
    pub question: String,
}

/// One prompt found to overlap with one evaluation row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// The prompt's id.
    pub prompt_id: String,
    /// Name of the set.
    pub eval_set: String,
    /// 0-based row in the set's file.
    pub eval_row: u64,
    /// The first shared n-gram, or the whole question, in normal form.
    pub ngram: String,
    /// How many n-grams of the prompt are in the evaluation row; 0 for a question found as a whole.
    pub overlap: u32,
    /// Rows beyond `max_hits` that this prompt also overlaps with; only in a prompt's last hit.
    pub more: u32,
}

/// How one evaluation set is searched for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SetReport {
    /// Name of the set.
    pub set: String,
    /// Its questions.
    pub rows: u64,
    /// Rows searched for as a whole: they have fewer words than an n-gram, or only common n-grams.
    pub whole: u64,
    /// Different n-grams left out because too many rows have them.
    pub common_ngrams: u64,
    /// The one that most rows have.
    pub most_common: Option<String>,
}

/// The n-grams of the evaluation sets. Read-only once built: scan from many threads.
pub struct Decontaminator {
    config: DecontamConfig,
    rows: Vec<Indexed>,
    words: Grams,
    characters: Grams,
    runs: Runs,
    /// Key of the normal form to the first row with it, for questions of a word or two.
    whole: HashMap<u128, u32>,
    reports: Vec<SetReport>,
}

struct Indexed {
    set: u32,
    row: u64,
    normal: Normal,
    /// What n-grams are cut from: the tokens without operators.
    plain: Vec<Token>,
}

impl Indexed {
    /// Whether most of it is in a script written without spaces.
    fn is_spaceless(&self) -> bool {
        2 * self.plain.iter().filter(|t| t.kind == TokenKind::Character).count() >= self.plain.len()
    }
}

fn plain(normal: &Normal) -> Vec<Token> {
    normal.tokens.iter().filter(|token| token.kind != TokenKind::Operator).copied().collect()
}

impl Decontaminator {
    /// Indexes the evaluation sets.
    ///
    /// # Errors
    /// A parameter is out of range, or a set is empty: a check that checks nothing.
    pub fn new(config: DecontamConfig, sets: &[EvalSet]) -> Result<Self> {
        config.check()?;
        let mut rows = Vec::new();
        let mut reports = Vec::with_capacity(sets.len());
        for (set, eval) in sets.iter().enumerate() {
            if eval.rows.is_empty() {
                return Err(Error::new(format!("the evaluation set `{}` has no questions", eval.name))
                    .hint("decontamination against nothing would pass everything"));
            }
            reports.push(SetReport { set: eval.name.clone(), rows: eval.rows.len() as u64, ..SetReport::default() });
            for row in &eval.rows {
                let normal = Normal::of(&row.question);
                rows.push(Indexed { set: set as u32, row: row.row, plain: plain(&normal), normal });
            }
        }
        let pick = |wanted: &dyn Fn(&Indexed) -> bool| -> Vec<u32> {
            (0..rows.len() as u32).filter(|&row| wanted(&rows[row as usize])).collect()
        };
        let by_words = pick(&|row| !row.is_spaceless());
        let by_characters = pick(&|row| row.is_spaceless());
        let words = Grams::new(config.ngram, config.common, &rows, &by_words, &mut reports);
        let characters = Grams::new(config.ngram_chars, config.common, &rows, &by_characters, &mut reports);
        let with_grams: HashSet<u32> = words.rows().chain(characters.rows()).collect();
        let (mut runs, mut whole) = (Vec::new(), HashMap::new());
        for (index, row) in
            (0u32..).zip(&rows).filter(|(index, row)| !with_grams.contains(index) && !row.normal.text.is_empty())
        {
            reports[row.set as usize].whole += 1;
            if row.normal.tokens.len() < HEAD {
                whole.entry(row.normal.key()).or_insert(index);
            } else {
                runs.push(index);
            }
        }
        let runs = Runs::new(&rows, &runs);
        Ok(Decontaminator { config, rows, words, characters, runs, whole, reports })
    }

    /// How each set is searched for.
    pub fn reports(&self) -> &[SetReport] {
        &self.reports
    }

    /// All evaluation rows this prompt overlaps with, in the order they are met; empty for a clean one.
    pub fn scan(&self, prompt_id: &str, normal: &Normal) -> Vec<Hit> {
        let mut found = Found { index: self, prompt_id, hits: Vec::new(), beyond: HashSet::new() };
        if normal.tokens.len() < HEAD
            && let Some(&row) = self.whole.get(&normal.key())
        {
            found.add(row, 0, || normal.text.clone());
        }
        self.runs.each(&self.rows, normal, |row, tokens| {
            found.add(row, 0, || normal.slice(&tokens[0], &tokens[tokens.len() - 1]).to_owned());
        });
        let tokens = plain(normal);
        let hashes: Vec<u64> = tokens.iter().map(|token| token.hash).collect();
        let mut visit = |grams: &Grams, at: usize, hash: u64| {
            grams.each(hash, |Place { row, at: there, .. }| {
                let theirs = &self.rows[row as usize];
                let ours = &tokens[at..at + grams.n];
                let same = |(a, b): (&Token, &Token)| normal.slice(a, a) == theirs.normal.slice(b, b);
                if ours.iter().zip(&theirs.plain[there as usize..]).all(same) {
                    found.add(row, 1, || normal.slice(&ours[0], &ours[grams.n - 1]).to_owned());
                }
            });
        };
        rolling(&hashes, self.words.n, |at, hash| visit(&self.words, at, hash));
        if tokens.iter().any(|token| token.kind == TokenKind::Character) {
            rolling(&hashes, self.characters.n, |at, hash| visit(&self.characters, at, hash));
        }
        found.finish()
    }
}

/// What one prompt overlaps with.
struct Found<'a> {
    index: &'a Decontaminator,
    prompt_id: &'a str,
    hits: Vec<(u32, Hit)>,
    beyond: HashSet<u32>,
}

impl Found<'_> {
    fn add(&mut self, row: u32, overlap: u32, ngram: impl FnOnce() -> String) {
        if let Some((_, hit)) = self.hits.iter_mut().find(|(seen, _)| *seen == row) {
            hit.overlap += overlap;
        } else if self.hits.len() < self.index.config.max_hits {
            let of = &self.index.rows[row as usize];
            let hit = Hit {
                prompt_id: self.prompt_id.to_owned(),
                eval_set: self.index.reports[of.set as usize].set.clone(),
                eval_row: of.row,
                ngram: ngram(),
                overlap,
                more: 0,
            };
            self.hits.push((row, hit));
        } else {
            self.beyond.insert(row);
        }
    }

    fn finish(self) -> Vec<Hit> {
        let mut hits: Vec<Hit> = self.hits.into_iter().map(|(_, hit)| hit).collect();
        if let Some(last) = hits.last_mut() {
            last.more = self.beyond.len() as u32;
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(config: DecontamConfig, questions: &[&str]) -> Decontaminator {
        let rows = questions.iter().enumerate().map(|(row, q)| EvalRow { row: row as u64, question: (*q).to_owned() });
        Decontaminator::new(config, &[EvalSet { name: "math500".to_owned(), rows: rows.collect() }]).unwrap()
    }

    fn rows(index: &Decontaminator, prompt: &str) -> Vec<u64> {
        index.scan("p", &Normal::of(prompt)).iter().map(|hit| hit.eval_row).collect()
    }

    #[test]
    fn eight_words_in_a_row_are_a_hit_and_seven_are_not() {
        let index = index(DecontamConfig::default(), &["one two three four five six seven eight nine", "what is up"]);
        let hits = index.scan("p", &Normal::of("Zero, ONE two three; four five six -- seven eight! ten"));
        assert_eq!(hits.len(), 1);
        assert_eq!((hits[0].eval_set.as_str(), hits[0].eval_row, hits[0].overlap), ("math500", 0, 1));
        assert!(hits[0].ngram.starts_with("one two three") && hits[0].ngram.ends_with("eight"), "{}", hits[0].ngram);
        assert!(rows(&index, "one two three four five six seven ate nine").is_empty());
    }

    #[test]
    fn short_questions_are_searched_for_as_a_whole() {
        let index = index(DecontamConfig::default(), &["Compute 3+5.", "", "$\\sin 60^\\circ$", "2+2?", "Hello!"]);
        for (prompt, expected) in [
            ("compute  3+5", [0].as_slice()),
            ("compute 3-5", &[]),
            ("Problem: Compute $3+5$. Please reason step by step.", &[0]),
            ("**Compute 3+5**", &[0]),
            ("compute 3+5x", &[]),
            ("compute 3+5 - x", &[]),
            ("compute 3+5!", &[]),
            ("What is $\\sin 60^{\\circ}$ in radicals?", &[2]),
            ("1 + 2+2", &[]),
            ("2+2 = x", &[]),
            ("So: what is 2+2, then?", &[3]),
            ("hello", &[4]),
            ("hello there", &[]),
            ("", &[]),
        ] {
            assert_eq!(rows(&index, prompt), expected, "{prompt}");
        }
        assert_eq!(index.reports()[0].whole, 4);
    }

    #[test]
    fn a_question_between_two_sizes_of_n_is_found_inside_a_template() {
        let question = "What is the greatest common factor of 32 and 48?";
        for ngram in [8, 13] {
            let index = index(DecontamConfig { ngram, ..DecontamConfig::default() }, &[question]);
            assert_eq!(rows(&index, &format!("Question: {question} Answer with a number.")), [0], "n = {ngram}");
            assert!(rows(&index, "What is the greatest common factor of 32 and 46?").is_empty() || ngram == 8);
        }
    }

    #[test]
    fn what_all_questions_end_with_is_no_overlap() {
        let suffix = "Let us think step by step and put the final answer into a box.";
        let questions: Vec<String> = (0..30)
            .map(|i| {
                format!("The farmer number {i} of village w{i} sold his w{i} horses to whom, when and why? {suffix}")
            })
            .collect();
        let texts: Vec<&str> = questions.iter().map(String::as_str).collect();
        let prompt = format!("What is the capital of France? {suffix}");
        let all = index(DecontamConfig { common: 1.0, ..DecontamConfig::default() }, &texts);
        assert_eq!(rows(&all, &prompt).len(), 16);
        let index = index(DecontamConfig::default(), &texts);
        assert!(rows(&index, &prompt).is_empty());
        assert_eq!(rows(&index, &format!("Hm. {}", questions[7])), [7], "what a row has for itself still tells");
        let report = &index.reports()[0];
        assert_eq!((report.rows, report.whole), (30, 0));
        assert!(report.common_ngrams >= 7, "{report:?}");
        assert!(report.most_common.as_deref().unwrap().ends_with("(30 rows)"), "{report:?}");
    }

    #[test]
    fn questions_of_one_template_are_told_by_their_signs() {
        let question = |sign: char| format!("Please compute, as exactly as you can, the value of 8 {sign} 2.");
        let questions: Vec<String> = "+-*/^".chars().map(question).collect();
        let index = index(DecontamConfig::default(), &questions.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(index.reports()[0].whole, 5, "every n-gram is common");
        assert_eq!(rows(&index, &format!("Hm. {} Thanks.", questions[2])), [2]);
    }

    #[test]
    fn chinese_counts_characters() {
        let question = "小明有三个苹果和五个梨,一共有多少个水果?";
        let index = index(DecontamConfig::default(), &[question]);
        assert_eq!(rows(&index, "问题:小明有三个苹果和五个梨,一共有多少?"), [0]);
        assert!(rows(&index, "小红有三个苹果,一共有多少个?").is_empty());
    }

    #[test]
    fn every_row_with_the_text_is_reported_up_to_the_limit() {
        let same = "let a and b be the roots of the equation";
        let config = DecontamConfig { max_hits: 2, ..DecontamConfig::default() };
        let index = index(config, &[same, "nothing of the kind is asked in this row here", same, same]);
        let hits = index.scan("p", &Normal::of(&format!("{same} below")));
        assert_eq!(hits.iter().map(|hit| hit.eval_row).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(hits[0].overlap, 3, "ten words have three 8-grams");
        assert_eq!(hits[1].more, 1, "rows, not n-grams");
    }

    #[test]
    fn an_empty_set_is_refused() {
        let error = Decontaminator::new(DecontamConfig::default(), &[EvalSet { name: "e".into(), rows: vec![] }]).err();
        assert!(error.unwrap().to_string().contains("`e` has no questions"));
    }

    proptest! {
        /// The index finds exactly what a search of every window finds.
        #[test]
        fn hits_equal_those_of_a_plain_search(
            evals in prop::collection::vec(prop::collection::vec(0u8..6, 0..14), 1..6),
            prompt in prop::collection::vec(0u8..6, 0..20),
        ) {
            let text = |words: &[u8]| words.iter().map(|w| format!("word{w}")).collect::<Vec<_>>().join(" ");
            let evals_text: Vec<String> = evals.iter().map(|words| text(words)).collect();
            let config = DecontamConfig { ngram: 3, ..DecontamConfig::default() };
            let index = index(config, &evals_text.iter().map(String::as_str).collect::<Vec<_>>());
            let mut found = rows(&index, &text(&prompt));
            found.sort_unstable();
            let mut expected: Vec<u64> = Vec::new();
            for (row, eval) in evals.iter().enumerate() {
                let shared = eval.windows(3).any(|gram| prompt.windows(3).any(|window| window == gram));
                let first_twin = evals.iter().position(|other| other == eval) == Some(row);
                // Fewer than three words are a match only as the whole prompt.
                if shared || (!eval.is_empty() && eval.len() < 3 && *eval == prompt && first_twin) {
                    expected.push(row as u64);
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
