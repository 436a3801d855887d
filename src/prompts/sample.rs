//! Stratified sampling: so many prompts of each stratum, chosen by hash rank.
//!
//! A prompt's rank is a keyed hash of its id, and the lowest ranks of a stratum
//! stay. The choice depends on the seed and the set of prompts alone: not on
//! their order, the shards or the threads, and a larger target keeps what a
//! smaller one kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::schema::Prompt;
use crate::{Error, Result};

/// What to sample. At least one of `total`, `per_stratum` and `targets` is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// What makes a stratum; empty takes all prompts as one, named `all`.
    pub by: Vec<Key>,
    /// Equal slices of difficulty from 0 to 1, for `by = ["difficulty"]`; 0 means 5.
    pub difficulty_buckets: u32,
    /// Prompts in all, shared out by `allocate`.
    pub total: Option<u64>,
    /// At most so many of each stratum.
    pub per_stratum: Option<u64>,
    /// By stratum, named by its values joined with `/`, such as `math/en`. Wins over `total` and
    /// `per_stratum`; strata not named here then share what is left of `total`, or stay whole.
    pub targets: BTreeMap<String, u64>,
    /// How `total` is shared out; by the strata's sizes if left out.
    pub allocate: Allocate,
}

impl SampleConfig {
    /// # Errors
    /// Nothing is asked for, a named stratum cannot exist, or the targets ask for more than the total.
    pub fn check(&self) -> Result<()> {
        if self.total.is_none() && self.per_stratum.is_none() && self.targets.is_empty() {
            return Err(Error::usage("sample: nothing to aim at").hint("set `total`, `per_stratum` or `targets`"));
        }
        let keys = self.by.len().max(1);
        for name in self.targets.keys() {
            if !self.by.contains(&Key::Source) && name.split('/').count() != keys {
                let error = Error::usage(format!("sample: the target `{name}` does not name a stratum"));
                return Err(error.hint(match self.by.is_empty() {
                    true => "without `by` all prompts are one stratum, `all`".to_owned(),
                    false => format!("a stratum has {keys} part(s) here, joined by `/`, one for each key of `by`"),
                }));
            }
        }
        let targets = self.targets.values().fold(0u64, |sum, target| sum.saturating_add(*target));
        match self.total {
            Some(total) if targets > total => {
                let message = format!("sample: the targets ask for {targets} prompts, `total` is {total}");
                Err(Error::usage(message)
                    .hint("raise `total`, or leave it out: strata without a target then stay whole"))
            }
            _ => Ok(()),
        }
    }
}

/// A property of prompts that strata are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    /// The `domain` column.
    Domain,
    /// The `language` column.
    Language,
    /// The slice of `difficulty`, from `0`; `unknown` where it is null.
    Difficulty,
    /// The `source` column.
    Source,
}

/// How `total` is shared out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allocate {
    /// By the sizes of the strata, largest remainders first.
    #[default]
    Proportional,
    /// The same for each stratum; what a small one cannot fill goes to the others.
    Equal,
}

/// The account of one stratum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StratumReport {
    /// Its values joined with `/`, such as `math/en`; `all` if nothing makes strata.
    pub stratum: String,
    /// Prompts of it that came in.
    pub available: u64,
    /// What the recipe asks for; `None` where the stratum stays whole.
    pub target: Option<u64>,
    /// Prompts of it that stay: the target, or all where there are no more.
    pub kept: u64,
}

/// Collects keys in a first pass (12 bytes a prompt), then says which prompts stay.
pub struct Sampler {
    config: SampleConfig,
    key: [u8; 32],
    names: BTreeMap<String, u32>,
    members: Vec<(u32, u64)>,
}

/// In place of a stratum's number.
const FORGOTTEN: u32 = u32::MAX;

impl Sampler {
    /// # Errors
    /// As [`SampleConfig::check`].
    pub fn new(config: SampleConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut hasher = blake3::Hasher::new_derive_key("gristmill 2026 prompt sample");
        hasher.update(&seed.to_le_bytes());
        Ok(Sampler { config, key: *hasher.finalize().as_bytes(), names: BTreeMap::new(), members: Vec::new() })
    }

    /// Takes note of the next prompt.
    pub fn note(&mut self, prompt: &Prompt) {
        let name = self.stratum(prompt);
        let next = self.names.len() as u32;
        let stratum = *self.names.entry(name).or_insert(next);
        let hash = blake3::keyed_hash(&self.key, prompt.prompt_id.as_bytes());
        let rank = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a digest has 32 bytes"));
        self.members.push((stratum, rank));
    }

    /// Takes the note of the prompt `index` back: it does not stay, whatever is decided.
    pub fn forget(&mut self, index: usize) {
        self.members[index].0 = FORGOTTEN;
    }

    /// The stratum's name: values joined with `/`.
    pub fn stratum(&self, prompt: &Prompt) -> String {
        let buckets = if self.config.difficulty_buckets == 0 { 5 } else { self.config.difficulty_buckets };
        let parts: Vec<String> = self
            .config
            .by
            .iter()
            .map(|key| match key {
                Key::Domain => prompt.domain.clone(),
                Key::Language => prompt.language.clone(),
                Key::Source => prompt.source.clone(),
                Key::Difficulty => match prompt.difficulty {
                    Some(x) => ((x.clamp(0.0, 1.0) * f64::from(buckets)) as u32).min(buckets - 1).to_string(),
                    None => "unknown".to_owned(),
                },
            })
            .collect();
        if parts.is_empty() { "all".to_owned() } else { parts.join("/") }
    }

    /// Which of the noted prompts stay, in the order noted, and the account of every stratum by name.
    pub fn decide(self) -> (Vec<bool>, Vec<StratumReport>) {
        let mut ranks: Vec<Vec<(u64, usize)>> = vec![Vec::new(); self.names.len()];
        for (index, (stratum, rank)) in self.members.iter().enumerate().filter(|(_, (of, _))| *of != FORGOTTEN) {
            ranks[*stratum as usize].push((*rank, index));
        }
        let names: Vec<(&String, usize)> = self.names.iter().map(|(name, id)| (name, *id as usize)).collect();
        let sizes: Vec<u64> = names.iter().map(|(_, id)| ranks[*id].len() as u64).collect();
        let quotas = self.quotas(&names, &sizes);
        let mut keep = vec![false; self.members.len()];
        let mut report = Vec::with_capacity(names.len());
        for (((name, id), available), target) in names.into_iter().zip(sizes).zip(quotas) {
            // Equal ranks: equal ids, or a chance of 2^-64; the earlier one stays.
            ranks[id].sort_unstable();
            let kept = target.unwrap_or(available).min(available);
            for (_, index) in &ranks[id][..kept as usize] {
                keep[*index] = true;
            }
            report.push(StratumReport { stratum: name.clone(), available, target, kept });
        }
        for (name, target) in &self.config.targets {
            if !self.names.contains_key(name) {
                report.push(StratumReport { stratum: name.clone(), available: 0, target: Some(*target), kept: 0 });
            }
        }
        report.sort_by(|a, b| a.stratum.cmp(&b.stratum));
        (keep, report)
    }

    fn quotas(&self, names: &[(&String, usize)], sizes: &[u64]) -> Vec<Option<u64>> {
        let config = &self.config;
        let mut quotas: Vec<Option<u64>> = names.iter().map(|(name, _)| config.targets.get(*name).copied()).collect();
        let free: Vec<usize> = (0..quotas.len()).filter(|&i| quotas[i].is_none()).collect();
        let cap = |size: u64| config.per_stratum.map_or(size, |most| size.min(most));
        if let Some(total) = config.total {
            let named: u64 = quotas.iter().zip(sizes).map(|(quota, size)| quota.unwrap_or(0).min(*size)).sum();
            let room: Vec<u64> = free.iter().map(|&i| cap(sizes[i])).collect();
            let shares = share(total.saturating_sub(named), &room, config.allocate);
            for (&i, share) in free.iter().zip(shares) {
                quotas[i] = Some(share);
            }
        } else if let Some(most) = config.per_stratum {
            free.iter().for_each(|&i| quotas[i] = Some(most));
        }
        quotas
    }
}

/// Shares `total` out over strata with so much room; all of it, as far as there is room.
fn share(total: u64, room: &[u64], allocate: Allocate) -> Vec<u64> {
    let all: u64 = room.iter().sum();
    let total = total.min(all);
    if allocate == Allocate::Equal {
        let mut shares = vec![0; room.len()];
        let mut order: Vec<usize> = (0..room.len()).collect();
        order.sort_by_key(|&i| (room[i], i));
        let mut left = total;
        for (done, &i) in order.iter().enumerate() {
            // The smallest first: what they cannot take is left for the larger ones.
            shares[i] = room[i].min(left / (room.len() - done) as u64);
            left -= shares[i];
        }
        return shares;
    }
    let exact = |size: u64| u128::from(total) * u128::from(size);
    let mut shares: Vec<u64> = room.iter().map(|&size| (exact(size) / u128::from(all.max(1))) as u64).collect();
    let mut order: Vec<usize> = (0..room.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(exact(room[i]) % u128::from(all.max(1))), i));
    let missing = total - shares.iter().sum::<u64>();
    for &i in order.iter().take(missing as usize) {
        shares[i] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prompts(counts: &[(&str, &str, usize)]) -> Vec<Prompt> {
        let mut all = Vec::new();
        for (domain, language, count) in counts {
            for i in 0..*count {
                let mut prompt = super::super::filter::tests::prompt(&format!("{domain} {language} {i}"));
                prompt.domain = (*domain).to_owned();
                prompt.language = (*language).to_owned();
                all.push(prompt);
            }
        }
        all
    }

    fn sample(config: SampleConfig, prompts: &[Prompt]) -> (Vec<String>, Vec<StratumReport>) {
        let mut sampler = Sampler::new(config, 7).unwrap();
        prompts.iter().for_each(|prompt| sampler.note(prompt));
        let (keep, report) = sampler.decide();
        let mut ids: Vec<String> =
            prompts.iter().zip(keep).filter(|(_, keep)| *keep).map(|(prompt, _)| prompt.prompt_id.clone()).collect();
        ids.sort();
        (ids, report)
    }

    #[test]
    fn targets_are_met_exactly_and_shortfalls_told() {
        let prompts = prompts(&[("math", "en", 50), ("math", "zh", 20), ("logic", "en", 5)]);
        let targets = [("math/en".to_owned(), 10), ("logic/en".to_owned(), 8), ("code/en".to_owned(), 3)].into();
        let config = SampleConfig { by: vec![Key::Domain, Key::Language], targets, ..SampleConfig::default() };
        let (ids, report) = sample(config, &prompts);
        assert_eq!(ids.len(), 10 + 20 + 5);
        let told: Vec<String> =
            report.iter().map(|r| format!("{} {} of {} for {:?}", r.stratum, r.kept, r.available, r.target)).collect();
        assert_eq!(
            told,
            [
                "code/en 0 of 0 for Some(3)",
                "logic/en 5 of 5 for Some(8)",
                "math/en 10 of 50 for Some(10)",
                "math/zh 20 of 20 for None"
            ]
        );
    }

    #[test]
    fn order_does_not_matter_and_a_larger_sample_contains_a_smaller() {
        let mut prompts = prompts(&[("math", "en", 100), ("logic", "en", 40)]);
        let config = |total| SampleConfig { by: vec![Key::Domain], total: Some(total), ..SampleConfig::default() };
        let (small, _) = sample(config(35), &prompts);
        let (large, _) = sample(config(70), &prompts);
        assert!(small.iter().all(|id| large.contains(id)));
        prompts.reverse();
        assert_eq!(sample(config(35), &prompts).0, small);
    }

    #[test]
    fn difficulty_falls_into_buckets() {
        let config = SampleConfig {
            by: vec![Key::Difficulty],
            difficulty_buckets: 4,
            total: Some(1),
            ..SampleConfig::default()
        };
        let sampler = Sampler::new(config, 0).unwrap();
        let mut prompt = super::super::filter::tests::prompt("q");
        let mut bucket = |difficulty| {
            prompt.difficulty = difficulty;
            sampler.stratum(&prompt)
        };
        assert_eq!(
            [bucket(Some(0.0)), bucket(Some(0.25)), bucket(Some(1.0)), bucket(None)],
            ["0", "1", "3", "unknown"]
        );
    }

    #[test]
    fn nothing_to_aim_at_and_impossible_strata_are_usage_errors() {
        assert!(Sampler::new(SampleConfig::default(), 0).is_err());
        let targets = [("math/en".to_owned(), 1)].into();
        let config = SampleConfig { by: vec![Key::Domain], targets, ..SampleConfig::default() };
        assert!(Sampler::new(config, 0).err().unwrap().to_string().contains("`math/en` does not name a stratum"));
        let targets = [("math".to_owned(), 2)].into();
        let config = SampleConfig { by: vec![Key::Domain], total: Some(1), targets, ..SampleConfig::default() };
        assert!(Sampler::new(config, 0).err().unwrap().to_string().contains("ask for 2 prompts, `total` is 1"));
    }

    proptest! {
        #[test]
        fn shares_sum_to_the_total_and_fit_their_rooms(room in prop::collection::vec(0u64..1000, 0..12), total in 0u64..8000, equal: bool) {
            let allocate = if equal { Allocate::Equal } else { Allocate::Proportional };
            let shares = share(total, &room, allocate);
            prop_assert_eq!(shares.iter().sum::<u64>(), total.min(room.iter().sum()));
            prop_assert!(shares.iter().zip(&room).all(|(share, room)| share <= room));
        }
    }
}
