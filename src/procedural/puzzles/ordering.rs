//! Finishing orders, 3 to 6 people: clues that leave one order.

use super::{cast, name, names};
use crate::procedural::language::Phrases;
use crate::procedural::{Language, Problem};
use crate::seed::Rng;

/// What is known of a race.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clue {
    Before(usize, usize),
    RightAfter(usize, usize),
    NotAt(usize, usize),
}

impl Clue {
    /// True if the order (person at each place) satisfies the clue.
    fn holds(self, order: &[usize]) -> bool {
        let place = |person: usize| order.iter().position(|p| *p == person);
        match self {
            Clue::Before(a, b) => place(a) < place(b),
            Clue::RightAfter(a, b) => place(a) == place(b).map(|place| place + 1),
            Clue::NotAt(a, at) => place(a) != Some(at),
        }
    }

    fn text(self, cast: &[usize], language: Language) -> String {
        let n = |person: usize| name(cast[person], language);
        match self {
            Clue::Before(a, b) => language.of3(
                format!("{} finished before {}.", n(a), n(b)),
                format!("{} est arrivé avant {}.", n(a), n(b)),
                format!("{}比{}先到。", n(a), n(b)),
            ),
            Clue::RightAfter(a, b) => language.of3(
                format!("{} finished right after {}.", n(a), n(b)),
                format!("{} est arrivé juste après {}.", n(a), n(b)),
                format!("{}紧跟在{}之后到达。", n(a), n(b)),
            ),
            Clue::NotAt(a, at) => {
                let place = at + 1;
                language.of3(
                    format!("{} did not finish in place {place}.", n(a)),
                    format!("{} n'est pas arrivé à la place numéro {place}.", n(a)),
                    format!("{}不是第{place}名。", n(a)),
                )
            }
        }
    }
}

const ORDERS: Phrases = Phrases::three(
    &[
        "{p} ran a race without ties. {c} List them from first to last.",
        "{p} finished a race, no two at the same time. {c} In what order did they finish?",
    ],
    &[
        "{p} ont couru une course sans ex æquo. {c} Donne leur ordre du premier au dernier.",
        "{p} ont terminé une course, jamais deux en même temps. {c} Dans quel ordre sont-ils arrivés ?",
    ],
    &[
        "{p}参加了赛跑，没有并列名次。{c}请按从第一名到最后一名的顺序列出他们。",
        "{p}跑完了比赛，没有人同时到达。{c}他们的名次顺序是什么？",
    ],
);

/// Every order of `0..people`, in lexicographic order.
fn orders(people: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..people {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..people).filter(|p| !order.contains(p)).map(|p| [&order[..], &[p]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    all
}

/// Generator `ordering`.
pub(in crate::procedural) fn draw_ordering(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let people = level as usize + 2;
    let cast = cast(rng, people);
    let mut truth: Vec<usize> = (0..people).collect();
    rng.shuffle(&mut truth);
    // Add true clues that exclude something until one order is left.
    let mut left = orders(people);
    let (mut clues, mut counts) = (Vec::new(), Vec::new());
    while left.len() > 1 {
        let (a, b) = (rng.below(people as u64) as usize, rng.below(people as u64) as usize);
        let clue = match rng.below(5) {
            0 => Clue::RightAfter(a, b),
            1 => Clue::NotAt(a, b),
            _ => Clue::Before(a, b),
        };
        if a != b || matches!(clue, Clue::NotAt(..)) {
            let after = left.iter().filter(|order| clue.holds(order)).count();
            if clue.holds(&truth) && after < left.len() {
                left.retain(|order| clue.holds(order));
                clues.push(clue);
                counts.push(left.len());
            }
        }
    }
    let gap = if language == Language::Zh { "" } else { " " };
    let told = clues.iter().map(|clue| clue.text(&cast, language)).collect::<Vec<_>>();
    let everyone: Vec<usize> = (0..people).collect();
    let question = ORDERS.say(rng, language, &[("p", &names(&everyone, &cast, language)), ("c", &told.join(gap))]);
    let gold = names(&truth, &cast, language);
    let steps: Vec<String> = told
        .iter()
        .zip(&counts)
        .map(|(clue, count)| {
            language.of3(
                format!("{clue} Orders left: {count}."),
                format!("{clue} Ordres restants : {count}."),
                format!("{clue}还剩{count}种顺序。"),
            )
        })
        .collect();
    let key = clues.iter().map(|clue| clue.text(&cast, Language::En)).collect::<Vec<_>>().join(" ");
    let runners = names(&everyone, &cast, Language::En);
    Problem::exact(format!("ordering:{runners}:{key}"), question, gold.as_str())
        .with_chain(language.chain(&steps, &gold))
}
