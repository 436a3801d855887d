//! Sorting and counting: count by a condition, sort, find the k-th, sum a selection.

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const COUNT: Phrases = Phrases::three(
    &["How many of the numbers {l} are greater than {k}?", "Count the numbers greater than {k} in this list: {l}."],
    &[
        "Combien de nombres sont plus grands que {k} dans la liste {l} ?",
        "Compte les nombres supérieurs à {k} dans cette liste : {l}.",
    ],
    &["在{l}这些数中，有多少个大于{k}？", "数一数，下列数中大于{k}的有几个：{l}。"],
);
const SORT: Phrases = Phrases::three(
    &["Sort these numbers from smallest to largest: {l}.", "Put the numbers {l} in increasing order."],
    &["Trie ces nombres du plus petit au plus grand : {l}.", "Range les nombres {l} dans l'ordre croissant."],
    &["把这些数从小到大排列：{l}。", "请将{l}按升序排列。"],
);
const SORT_DOWN: Phrases = Phrases::three(
    &["Sort these numbers from largest to smallest: {l}.", "Put the numbers {l} in decreasing order."],
    &["Trie ces nombres du plus grand au plus petit : {l}.", "Range les nombres {l} dans l'ordre décroissant."],
    &["把这些数从大到小排列：{l}。", "请将{l}按降序排列。"],
);
const MEDIAN: Phrases = Phrases::three(
    &["What is the median of {l}?", "Find the middle value of these numbers once sorted: {l}."],
    &["Quelle est la médiane de {l} ?", "Trouve la valeur du milieu de ces nombres une fois triés : {l}."],
    &["{l}的中位数是多少？", "把下列数排序后，中间的数是多少：{l}？"],
);
const SUM: Phrases = Phrases::three(
    &[
        "What is the sum of the even numbers greater than {k} among {l}?",
        "Add up all even numbers above {k} in this list: {l}.",
    ],
    &[
        "Quelle est la somme des nombres pairs supérieurs à {k} parmi {l} ?",
        "Additionne tous les nombres pairs plus grands que {k} de cette liste : {l}.",
    ],
    &["在{l}中，大于{k}的偶数之和是多少？", "求下列数中所有大于{k}的偶数的和：{l}。"],
);

/// Generator `counting`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let length = [0, 6, 7, 9, 12][level as usize] + rng.below(2) as usize * 2;
    let most = [0, 50, 100, 300, 200][level as usize];
    let mut numbers = Vec::with_capacity(length);
    while numbers.len() < length {
        let number = rng.between(1, most);
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let threshold = rng.between(most / 4, most * 3 / 4);
    let list = language.list(&numbers);
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    let keep = language.of3("the numbers that count are", "les nombres retenus sont", "符合条件的数是");
    let none = language.of3("none", "aucun", "没有");
    let labelled = |label: &str, text: &str| match language {
        Language::Zh => format!("{label}{text}"),
        _ => format!("{label} {text}"),
    };
    let values: [(&str, &dyn std::fmt::Display); 2] = [("l", &list), ("k", &threshold)];
    let (kind, question, gold, steps) = match level {
        1 => {
            let kept: Vec<i64> = numbers.iter().copied().filter(|n| *n > threshold).collect();
            let shown = if kept.is_empty() { none.to_owned() } else { language.list(&kept) };
            let question = COUNT.say(rng, language, &values);
            (format!("count>{threshold}"), question, kept.len().to_string(), vec![labelled(keep, &shown)])
        }
        2 => {
            let down = rng.below(2) == 0;
            if down {
                sorted.reverse();
            }
            let question = if down { &SORT_DOWN } else { &SORT }.say(rng, language, &values);
            let gold = sorted.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
            (format!("sort:{down}"), question, gold, selection_steps(&sorted, language))
        }
        // Nine or eleven numbers: one is in the middle.
        3 => return median(rng, &numbers, language),
        _ => {
            let kept: Vec<i64> = numbers.iter().copied().filter(|n| *n > threshold && n % 2 == 0).collect();
            let total: i64 = kept.iter().sum();
            let shown = if kept.is_empty() { none.to_owned() } else { language.list(&kept) };
            let mut steps = vec![labelled(keep, &shown)];
            if kept.len() > 1 {
                let terms = kept.iter().map(i64::to_string).collect::<Vec<_>>().join(" + ");
                steps.push(format!("{terms} = {total}"));
            }
            (format!("sum even>{threshold}"), SUM.say(rng, language, &values), total.to_string(), steps)
        }
    };
    Problem::exact(format!("counting:{kind}:{numbers:?}"), question, gold.as_str())
        .with_chain(language.chain(&steps, &gold))
}

/// The order, built one number at a time.
fn selection_steps(sorted: &[i64], language: Language) -> Vec<String> {
    let next = language.of3("next comes", "vient ensuite", "接下来是");
    let start = language.of3("start with", "on commence par", "先取");
    let gap = if language == Language::Zh { "" } else { " " };
    sorted.iter().enumerate().map(|(i, n)| format!("{}{gap}{n}", if i == 0 { start } else { next })).collect()
}

fn median(rng: &mut Rng, numbers: &[i64], language: Language) -> Problem {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let position = sorted.len() / 2;
    let gold = sorted[position].to_string();
    let question = MEDIAN.say(rng, language, &[("l", &language.list(numbers))]);
    let (length, place) = (sorted.len(), position + 1);
    let steps = [
        language.of3(
            format!("in order: {}", language.list(&sorted)),
            format!("dans l'ordre : {}", language.list(&sorted)),
            format!("排好序：{}", language.list(&sorted)),
        ),
        language.of3(
            format!("there are {length} numbers, so the middle one is number {place}"),
            format!("il y a {length} nombres, celui du milieu est donc le numéro {place}"),
            format!("一共有{length}个数，中间的是第{place}个"),
        ),
    ];
    Problem::exact(format!("counting:median:{numbers:?}"), question, gold.as_str())
        .with_chain(language.chain(&steps, &gold))
}
