//! Which rows go into the corpus, and where: quotas, shuffle and split by rank.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::{CorpusConfig, TrackConfig};
use crate::stage::StageOutcome;

/// Keys of the rows that may be chosen, in reading order: 40 bytes each.
pub struct Candidates {
    seed: u64,
    /// Share of the questions that are for validation.
    validation: f64,
    rows: Vec<Candidate>,
    /// Domains seen, numbered as they came.
    domains: BTreeMap<Box<str>, u32>,
}

struct Candidate {
    rank: u64,
    id: u64,
    /// What its prompt asks.
    question: u64,
    /// Its whole conversation; its id where nothing else could say the same.
    said: u64,
    domain: u32,
    track: u16,
    is_validation: bool,
    usable: bool,
}

impl Candidates {
    pub fn new(seed: u64, validation: f64) -> Self {
        Candidates { seed, validation, rows: Vec::new(), domains: BTreeMap::new() }
    }

    /// The next row. Its rank derives from the run's seed and its id alone, its split from the seed and
    /// what its prompt asks. Rows of one conversation have one `said`; without it a row is equal to no other.
    pub fn push(&mut self, track: usize, domain: &str, question: u64, id: &str, said: Option<u64>, usable: bool) {
        let hash = |name: &str, bytes: &[u8]| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.seed.to_le_bytes()).update(name.as_bytes()).update(bytes);
            u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
        };
        let share = hash("split", &question.to_le_bytes()) as f64 / u64::MAX as f64;
        let (rank, id) = (hash("rank", id.as_bytes()), hash("id", id.as_bytes()));
        let domain = match self.domains.get(domain) {
            Some(&domain) => domain,
            None => {
                let next = self.domains.len() as u32;
                self.domains.insert(domain.into(), next);
                next
            }
        };
        let is_validation = share < self.validation;
        let said = said.unwrap_or(id);
        self.rows.push(Candidate { rank, id, question, said, domain, track: track as u16, is_validation, usable });
    }
}

/// Where every row goes.
pub struct Choice {
    /// Place of each row in reading order; [`Choice::OUT`] if it is not chosen.
    pub places: Vec<u32>,
    pub train: u32,
    pub validation: u32,
    /// (track, domain, wanted, got): wanted is `None` where there was no quota.
    pub quotas: Vec<Quota>,
}

/// What was wanted and what there was.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Quota {
    pub track: String,
    pub domain: Option<String>,
    pub wanted: Option<u64>,
    pub got: u64,
}

impl Choice {
    pub const OUT: u32 = u32::MAX;

    pub fn chosen(&self) -> usize {
        (self.train + self.validation) as usize
    }

    /// Of the next `rows` rows from `start`, those that are chosen.
    pub fn kept(&self, start: usize, rows: usize) -> Vec<u32> {
        (0..rows as u32).filter(|&row| self.places[start + row as usize] != Self::OUT).collect()
    }
}

/// Removes rows that are twice in a track and questions that an earlier track has, applies quotas, and lays out the splits.
pub fn choose(config: &CorpusConfig, candidates: Candidates, outcome: &mut StageOutcome) -> Choice {
    let Candidates { rows: candidates, domains, .. } = candidates;
    // What the tracks before ask; within a track a question may have several answers.
    let mut asked: HashSet<u64> = HashSet::new();
    let mut chosen: Vec<u32> = Vec::new();
    let mut quotas = Vec::new();
    for (t, track) in config.tracks.iter().enumerate() {
        let rows = distinct(&candidates, t, &asked, outcome);
        let before = chosen.len();
        if track.domains.is_empty() {
            let take = track.rows.map_or(rows.len(), |n| rows.len().min(n as usize));
            quotas.push(Quota { track: track.name.clone(), domain: None, wanted: track.rows, got: take as u64 });
            *outcome.drops.entry("over_quota".to_owned()).or_default() += (rows.len() - take) as u64;
            chosen.extend(&rows[..take]);
        } else {
            quotas.extend(by_domain(track, &rows, &candidates, &domains, &mut chosen, outcome));
        }
        asked.extend(chosen[before..].iter().map(|row| candidates[*row as usize].question));
    }
    outcome.drops.retain(|_, n| *n > 0);
    quotas.sort_by(|a, b| (&a.track, &a.domain).cmp(&(&b.track, &b.domain)));

    let is_validation = |row: u32| candidates[row as usize].is_validation;
    chosen.sort_unstable_by_key(|row| (is_validation(*row), candidates[*row as usize].rank, *row));
    let validation = chosen.iter().filter(|row| is_validation(**row)).count() as u32;
    let mut places = vec![Choice::OUT; candidates.len()];
    for (place, row) in chosen.iter().enumerate() {
        places[*row as usize] = place as u32;
    }
    Choice { places, train: chosen.len() as u32 - validation, validation, quotas }
}

/// The rows of a track that can be used, each conversation once, by rank; without what `asked` has.
fn distinct(candidates: &[Candidate], track: usize, asked: &HashSet<u64>, outcome: &mut StageOutcome) -> Vec<u32> {
    // Conversations, each with the id of the first row that has it. What an earlier track has of these, its questions
    // tell; what that left may be this one's.
    let mut said: HashMap<u64, u64> = HashMap::new();
    let mut rows: Vec<u32> = Vec::new();
    for (row, candidate) in candidates.iter().enumerate().filter(|(_, c)| usize::from(c.track) == track) {
        if !candidate.usable {
            outcome.drop_row("no_answer");
            continue;
        }
        match said.entry(candidate.said) {
            Entry::Occupied(first) if *first.get() == candidate.id => outcome.drop_row("duplicate"),
            Entry::Occupied(_) => outcome.drop_row("equal_conversation"),
            Entry::Vacant(_) if asked.contains(&candidate.question) => {
                outcome.drop_row("question_of_another_track");
            }
            Entry::Vacant(place) => {
                place.insert(candidate.id);
                rows.push(row as u32);
            }
        }
    }
    rows.sort_unstable_by_key(|row| (candidates[*row as usize].rank, *row));
    rows
}

/// Adds the first rows of each domain to what is chosen, as many as the track wants; how far that went.
fn by_domain(
    track: &TrackConfig,
    rows: &[u32],
    candidates: &[Candidate],
    domains: &BTreeMap<Box<str>, u32>,
    chosen: &mut Vec<u32>,
    outcome: &mut StageOutcome,
) -> Vec<Quota> {
    let mut left: BTreeMap<u32, (u64, &str)> = BTreeMap::new();
    for (domain, &wanted) in &track.domains {
        // A domain no row has still shows up as a shortfall.
        let index = domains.get(domain.as_str()).copied().unwrap_or(u32::MAX - left.len() as u32);
        left.insert(index, (wanted, domain));
    }
    for &row in rows {
        match left.get_mut(&candidates[row as usize].domain) {
            Some((0, _)) => outcome.drop_row("over_quota"),
            Some((n, _)) => {
                *n -= 1;
                chosen.push(row);
            }
            None => outcome.drop_row("domain_not_wanted"),
        }
    }
    let quota = |(rest, domain): (u64, &str)| {
        let wanted = track.domains[domain];
        let (track, domain) = (track.name.clone(), Some(domain.to_owned()));
        Quota { track, domain, wanted: Some(wanted), got: wanted - rest }
    };
    left.into_values().map(quota).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(domains: &[(&str, u64)], rows: Option<u64>, validation: f64) -> CorpusConfig {
        let domains = domains.iter().map(|(d, n)| ((*d).to_owned(), *n)).collect();
        let track = TrackConfig {
            name: "reasoning".into(),
            groups: Some("g".into()),
            prompts: "p".into(),
            template: None,
            system: None,
            rows,
            domains,
        };
        CorpusConfig { tracks: vec![track], validation, title: None, description: None }
    }

    /// `n` rows, two of a question, `times` times over.
    fn candidates(n: usize, times: usize, validation: f64) -> Candidates {
        let mut candidates = Candidates::new(1, validation);
        for i in (0..times).flat_map(|_| 0..n) {
            let domain = if i.is_multiple_of(3) { "math" } else { "code" };
            candidates.push(0, domain, i as u64 / 2, &format!("c{i}"), None, true);
        }
        candidates
    }

    #[test]
    fn quotas_are_met_and_a_shortfall_is_told() {
        let mut outcome = StageOutcome::default();
        let choice = choose(&config(&[("math", 10), ("stem", 5)], None, 0.0), candidates(90, 1, 0.0), &mut outcome);
        assert_eq!((choice.train, choice.validation), (10, 0));
        let got: Vec<_> = choice.quotas.iter().map(|q| (q.domain.as_deref(), q.wanted, q.got)).collect();
        assert_eq!(got, [(Some("math"), Some(10), 10), (Some("stem"), Some(5), 0)]);
        assert_eq!(outcome.drops["over_quota"], 20);
        assert_eq!(outcome.drops["domain_not_wanted"], 60);
    }

    #[test]
    fn no_question_is_in_both_splits_and_every_row_has_its_own_place() {
        let choice = choose(&config(&[], None, 0.3), candidates(400, 1, 0.3), &mut StageOutcome::default());
        assert!(choice.validation > 60 && choice.train > 200);
        for pair in choice.places.chunks(2) {
            assert_eq!(pair[0] < choice.train, pair[1] < choice.train);
        }
        let mut places = choice.places.clone();
        places.sort_unstable();
        assert_eq!(places, (0..400).collect::<Vec<u32>>());
    }

    #[test]
    fn the_same_completion_is_taken_once() {
        let mut outcome = StageOutcome::default();
        let choice = choose(&config(&[], Some(100), 0.0), candidates(10, 2, 0.0), &mut outcome);
        assert_eq!((choice.chosen(), outcome.drops["duplicate"]), (10, 10));
    }

    #[test]
    fn completions_that_say_the_same_to_one_prompt_are_taken_once_and_counted() {
        let mut candidates = Candidates::new(1, 0.0);
        for (id, said) in [("a", Some(1)), ("b", Some(1)), ("c", Some(2)), ("a", Some(1)), ("d", None), ("e", None)] {
            candidates.push(0, "math", 0, id, said, true);
        }
        let mut outcome = StageOutcome::default();
        let choice = choose(&config(&[], None, 0.0), candidates, &mut outcome);
        let taken: Vec<bool> = choice.places.iter().map(|place| *place != Choice::OUT).collect();
        assert_eq!(taken, [true, false, true, false, true, true]);
        assert_eq!((outcome.drops["equal_conversation"], outcome.drops["duplicate"]), (1, 1));
    }

    #[test]
    fn what_one_track_left_of_its_completions_another_may_take() {
        let mut parted = config(&[("math", 10)], None, 0.0);
        parted.tracks.push(TrackConfig {
            name: "other".into(),
            domains: [("code".to_owned(), 10)].into(),
            ..parted.tracks[0].clone()
        });
        let mut candidates = Candidates::new(1, 0.0);
        for track in 0..2 {
            for i in 0..20 {
                let domain = if i % 2 == 0 { "math" } else { "code" };
                candidates.push(track, domain, i, &format!("c{i}"), Some(i), true);
            }
        }
        let mut outcome = StageOutcome::default();
        let choice = choose(&parted, candidates, &mut outcome);
        assert_eq!(choice.quotas.iter().map(|quota| quota.got).collect::<Vec<_>>(), [10, 10]);
        assert_eq!(outcome.drops["question_of_another_track"], 10);
    }

    #[test]
    fn a_question_of_two_tracks_is_the_first_ones_unless_that_did_not_choose_it() {
        let mut two = config(&[], Some(10), 0.0);
        two.tracks.push(TrackConfig { name: "other".into(), rows: None, ..two.tracks[0].clone() });
        let mut candidates = Candidates::new(1, 0.0);
        for track in 0..2 {
            for i in 0..40 {
                candidates.push(track, "math", i / 2, &format!("{track}-{i}"), None, true);
            }
        }
        let questions = |choice: &Choice, track: usize| -> HashSet<usize> {
            (0..40).filter(|i| choice.places[track * 40 + i] != Choice::OUT).map(|i| i / 2).collect()
        };
        let mut outcome = StageOutcome::default();
        let choice = choose(&two, candidates, &mut outcome);
        let (first, second) = (questions(&choice, 0), questions(&choice, 1));
        assert!(first.is_disjoint(&second), "{first:?} {second:?}");
        assert_eq!(first.len() + second.len(), 20, "what the first track left is the second's");
        assert_eq!(outcome.drops["question_of_another_track"], 2 * first.len() as u64);
    }
}
