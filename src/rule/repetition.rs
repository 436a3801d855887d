//! The repetition rule: how much of a completion says something twice?

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use super::params::{ParamError, params};
use super::pattern::Region;
use super::{Rule, Sample, Verdict, text};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"The share of n-grams that are not repeated
# What
Counts runs of `n` words; the score is distinct runs over all runs (1: nothing
is repeated, near 0: a loop). Right from `min_unique` upwards; texts shorter
than `n` words are right. Signs that stand alone between blanks, and more than
eight of them in a row, are words too, of eight signs at most.
# Why
Loops are the commonest degenerate output, and length rewards invite them. As a
penalty (open-r1's): `accuracy - (1 - repetition)`.
# Example
    [rules.repetition]
    kind = "repetition"
    n = 6
    min_unique = 0.5"#;

params! {
    /// Parameters of the repetition rule.
    pub struct RepetitionConfig {
        /// Words in a run; each character of scripts without spaces is a word.
        n: usize = 6,
        /// Least share of distinct runs that is right.
        min_unique: f64 = 0.5,
        /// The text that is read.
        region: Region = Region::Completion,
        /// Score 1 or 0 at `min_unique` instead of the share.
        gate: bool = false,
    }
}

/// See [`DOC`].
pub struct RepetitionRule {
    config: RepetitionConfig,
}

impl RepetitionRule {
    /// # Errors
    /// `n` outside 1..=64, `min_unique` outside [0, 1].
    pub fn new(config: RepetitionConfig) -> Result<Self, ParamError> {
        if !(1..=64).contains(&config.n) {
            return Err(ParamError::new("n", "`n` must be between 1 and 64"));
        }
        if !(0.0..=1.0).contains(&config.min_unique) {
            return Err(ParamError::new("min_unique", "`min_unique` must be between 0 and 1"));
        }
        Ok(RepetitionRule { config })
    }
}

/// N-gram hashes are already mixed; hashing them again would only cost time.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Most signs that count as one word; a word's own signs may be as many.
const SIGNS: usize = 8;

fn hash(word: &str) -> u64 {
    word.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Hashes of the words, and of the signs that stand in the place of words: `— ! — !` and `________` loop too.
fn hashes(text: &str) -> Vec<u64> {
    let mut hashes = Vec::new();
    for piece in text.split_whitespace() {
        let before = hashes.len();
        hashes.extend(text::words(piece).map(hash));
        let alone = hashes.len() == before;
        for mut signs in piece.split(char::is_alphanumeric) {
            if !alone && signs.chars().nth(SIGNS).is_none() {
                continue;
            }
            while !signs.is_empty() {
                let end = signs.char_indices().nth(SIGNS).map_or(signs.len(), |(at, _)| at);
                hashes.push(hash(&signs[..end]));
                signs = &signs[end..];
            }
        }
    }
    hashes
}

/// Distinct and all runs of `n` words. 64-bit hashes stand for runs: among a million runs two
/// different ones meet with probability 3e-8.
pub(crate) fn runs(text: &str, n: usize) -> (usize, usize) {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let hashes = hashes(text);
    let mut seen: HashSet<u64, BuildHasherDefault<Ready>> = HashSet::default();
    for run in hashes.windows(n) {
        let mut mixed = 0u64;
        for hash in run {
            mixed = (mixed ^ hash).wrapping_mul(MIX);
            mixed ^= mixed >> 29;
        }
        seen.insert(mixed);
    }
    (seen.len(), hashes.len().saturating_sub(n - 1))
}

impl Rule for RepetitionRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let (distinct, all) = runs(self.config.region.of(sample.completion), self.config.n);
        let share = if all == 0 { 1.0 } else { distinct as f64 / all as f64 };
        let reason = if share >= self.config.min_unique { "varied" } else { "repetitive" };
        let mut verdict = Verdict::graded(share, self.config.min_unique, reason);
        if self.config.gate {
            verdict.score = Some(f64::from(u8::from(share >= self.config.min_unique)));
        }
        verdict.with("unique_share", format!("{share:.3}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::sample;

    #[test]
    fn loops_are_found_in_any_script() {
        let rule = RepetitionRule::new(RepetitionConfig::default()).unwrap();
        assert_eq!(rule.check(&sample(&"so we check it again and then ".repeat(40))).reason, "repetitive");
        assert_eq!(rule.check(&sample(&"让我再想想。".repeat(40))).reason, "repetitive");
        assert_eq!(rule.check(&sample("First add the two numbers, then halve what is left over.")).reason, "varied");
        assert_eq!(rule.check(&sample("")).score, Some(1.0));
    }

    #[test]
    fn loops_of_signs_are_loops() {
        let rule = RepetitionRule::new(RepetitionConfig::default()).unwrap();
        for signs in ["— !\n\n", "🥚🥚\n", "____ ", "_ ", "!", "$\\quad$ ", "====== ======\n"] {
            let text = format!("So nine are left.{}", signs.repeat(3000));
            assert_eq!(rule.check(&sample(&text)).reason, "repetitive", "{signs}");
        }
        let honest = "We have 16 - 7 = 9, so x + 7 = 16 holds.\n\n---\n\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n";
        assert_eq!(rule.check(&sample(honest)).score, Some(1.0));
    }

    #[test]
    fn counts_are_exact_on_a_small_text() {
        assert_eq!(runs("a b a b a b", 2), (2, 5));
        assert_eq!(runs("a b", 3), (0, 0));
    }
}
