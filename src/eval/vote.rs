//! Majority vote (cons@k, self-consistency, arXiv 2203.11171).

/// Groups answers into classes and elects the largest: the index of the first sample in it. `None` if no sample has an
/// answer.
///
/// An answer joins the first class whose first member is `equal` to it, so `equal`
/// need not be transitive and is asked at most answers × classes times. Samples
/// without an answer do not vote. Of classes of one size, the one that appeared
/// first wins.
pub fn majority<'a>(
    answers: impl IntoIterator<Item = Option<&'a str>>,
    mut equal: impl FnMut(&str, &str) -> bool,
) -> Option<usize> {
    // (index and answer of the first member, size), in order of appearance.
    let mut classes: Vec<(usize, &str, usize)> = Vec::new();
    for (index, answer) in answers.into_iter().enumerate() {
        let Some(answer) = answer else { continue };
        match classes.iter_mut().find(|(_, first, _)| *first == answer || equal(first, answer)) {
            Some((_, _, size)) => *size += 1,
            None => classes.push((index, answer, 1)),
        }
    }
    // The first of the largest: `max_by_key` would take the last.
    let winner = classes.into_iter().reduce(|best, class| if class.2 > best.2 { class } else { best });
    winner.map(|(first, ..)| first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Option<f64> {
        text.parse().ok()
    }

    fn same(a: &str, b: &str) -> bool {
        a == b || number(a).is_some_and(|x| number(b) == Some(x))
    }

    #[test]
    fn answers_of_one_value_vote_together() {
        let answers = ["3", "2", "2.0", "x", "2.00"].map(Some);
        assert_eq!(majority(answers, same), Some(1));
    }

    #[test]
    fn a_tie_goes_to_the_first_that_appeared() {
        let answers = [None, Some("b"), Some("a"), Some("a"), Some("b")];
        assert_eq!(majority(answers, same), Some(1));
        assert_eq!(majority([None, None], same), None);
    }

    proptest! {
        #[test]
        fn the_winner_is_what_counting_every_answer_finds(answers in proptest::collection::vec(0u8..5, 1..30)) {
            let texts: Vec<String> = answers.iter().map(u8::to_string).collect();
            let winner = majority(texts.iter().map(|t| Some(t.as_str())), same).unwrap();
            let count = |answer: u8| answers.iter().filter(|a| **a == answer).count();
            let most = answers.iter().map(|a| count(*a)).max().unwrap();
            let first = answers.iter().position(|a| count(*a) == most).unwrap();
            prop_assert_eq!(winner, first);
        }
    }
}
