//! Prompts of the mini world that are to be answered in the language they are asked in.
//!
//! ```text
//! repeat : the red cat sees the dog .      the red cat sees the dog        le chat rouge voit le chien
//! répète : le chat rouge voit le chien .   le chat rouge voit le chien     the red cat sees the dog
//! ```
//!
//! The better reply of one language is the worse one of the other: pairs that are nearly all English teach to answer in
//! English, and so what French ones must not be answered in. That conflict is what an objective that is robust over
//! groups is for.

use super::tasks::side;
use super::words::{ADJECTIVES, NOUNS, VERBS, noun_phrase};
use crate::procedural::{Language, PreferenceKind, Problem};
use crate::seed::Rng;

/// Generator `mini_language`.
pub(in crate::procedural) fn draw(rng: &mut Rng, _level: u32, language: Language) -> Problem {
    let [subject, object] = [(); 2].map(|()| (*rng.pick(&NOUNS), (rng.below(2) == 0).then(|| *rng.pick(&ADJECTIVES))));
    let verb = rng.pick(&VERBS);
    let say = |language| {
        let phrase = |(noun, adjective)| noun_phrase(noun, adjective, language);
        format!("{} {} {}", phrase(subject), verb[side(language)], phrase(object))
    };
    let (repeat, other) = match language {
        Language::Fr => ("répète", Language::En),
        _ => ("repeat", Language::Fr),
    };
    let key = format!("mini:language:{}", say(Language::En));
    Problem::exact(key, format!("{repeat} : {} .", say(language)), say(language))
        .worse(PreferenceKind::Helpful, say(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procedural::mini::language_consistency;

    #[test]
    fn the_better_reply_is_the_sentence_and_the_worse_one_says_it_in_the_other_language() {
        let mut rng = Rng::new(3);
        for language in [Language::En, Language::Fr].into_iter().cycle().take(200) {
            let problem = draw(&mut rng, 1, language);
            let (_, worse) = problem.rejected.unwrap();
            assert!(problem.question.ends_with(&format!(": {} .", problem.answer)));
            assert_eq!(language_consistency(&problem.answer, language), Some(1.0));
            assert_eq!(language_consistency(&worse, language), Some(0.0));
        }
    }
}
