//! Letters of a made-up word: reverse it, count a letter, shift it, or two of these.

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const REVERSE: Phrases = Phrases::three(
    &["Reverse the string \"{w}\".", "Write \"{w}\" backwards."],
    &["Inverse la chaîne « {w} ».", "Écris « {w} » à l'envers."],
    &["把字符串“{w}”倒过来写。", "请将“{w}”反转。"],
);
const COUNT: Phrases = Phrases::three(
    &["How many times does the letter \"{c}\" occur in \"{w}\"?", "Count the letter \"{c}\" in the string \"{w}\"."],
    &[
        "Combien de fois la lettre « {c} » apparaît-elle dans « {w} » ?",
        "Compte les lettres « {c} » dans la chaîne « {w} ».",
    ],
    &["字母“{c}”在“{w}”中出现了几次？", "数一数字符串“{w}”里有多少个字母“{c}”。"],
);
const SHIFT: Phrases = Phrases::three(
    &[
        "Shift each letter of \"{w}\" forward by {k} in the alphabet (after z comes a).",
        "Apply a Caesar cipher with shift {k} to \"{w}\".",
    ],
    &[
        "Décale chaque lettre de « {w} » de {k} rangs vers l'avant dans l'alphabet (après z vient a).",
        "Applique un chiffre de César de décalage {k} à « {w} ».",
    ],
    &["把“{w}”中的每个字母在字母表中向后移动{k}位（z之后是a）。", "用位移为{k}的凯撒密码加密“{w}”。"],
);
const BOTH: Phrases = Phrases::three(
    &[
        "Reverse \"{w}\", then shift each letter forward by {k} in the alphabet (after z comes a).",
        "Write \"{w}\" backwards and apply a Caesar cipher with shift {k} to the result.",
    ],
    &[
        "Inverse « {w} », puis décale chaque lettre de {k} rangs vers l'avant dans l'alphabet (après z vient a).",
        "Écris « {w} » à l'envers et applique au résultat un chiffre de César de décalage {k}.",
    ],
    &[
        "先把“{w}”倒过来，再把每个字母在字母表中向后移动{k}位（z之后是a）。",
        "将“{w}”反转，然后用位移为{k}的凯撒密码加密。",
    ],
);

fn shift(letter: char, by: u8) -> char {
    char::from(b'a' + (letter as u8 - b'a' + by) % 26)
}

/// Generator `strings`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let length = [0, 5, 8, 6, 8][level as usize] + rng.below(4) as usize;
    // Few letters where they are counted, so that counts are not all zero or one.
    let alphabet = if level == 2 { 4 } else { 26 };
    let first = rng.below(26 - alphabet + 1) as u8;
    let letters: Vec<char> = (0..length).map(|_| char::from(b'a' + first + rng.below(alphabet) as u8)).collect();
    let word: String = letters.iter().collect();
    let spell = |letters: &[char]| letters.iter().map(char::to_string).collect::<Vec<_>>().join(" ");
    let by = rng.between(1, 13) as u8;
    let shifts = |letters: &[char]| letters.iter().map(|c| format!("{c} → {}", shift(*c, by))).collect::<Vec<_>>();
    let letters_are = language.of3("the letters are", "les lettres sont", "字母依次是");
    let backwards = language.of3("backwards:", "à l'envers :", "倒过来：");
    let reversed: Vec<char> = letters.iter().rev().copied().collect();
    let (kind, question, gold, steps) = match level {
        1 => (
            "reverse".to_owned(),
            REVERSE.say(rng, language, &[("w", &word)]),
            reversed.iter().collect::<String>(),
            vec![format!("{letters_are} {}", spell(&letters)), format!("{backwards} {}", spell(&reversed))],
        ),
        2 => {
            let letter = *rng.pick(&letters);
            let places: Vec<usize> =
                letters.iter().enumerate().filter(|(_, c)| **c == letter).map(|(i, _)| i + 1).collect();
            let found = language.of3("positions:", "positions :", "出现的位置：");
            let question = COUNT.say(rng, language, &[("c", &letter), ("w", &word)]);
            let steps =
                vec![format!("{letters_are} {}", spell(&letters)), format!("{found} {}", language.list(&places))];
            (format!("count {letter}"), question, places.len().to_string(), steps)
        }
        3 => (
            format!("shift {by}"),
            SHIFT.say(rng, language, &[("w", &word), ("k", &by)]),
            letters.iter().map(|c| shift(*c, by)).collect(),
            vec![language.list(&shifts(&letters))],
        ),
        _ => (
            format!("reverse shift {by}"),
            BOTH.say(rng, language, &[("w", &word), ("k", &by)]),
            reversed.iter().map(|c| shift(*c, by)).collect(),
            vec![format!("{backwards} {}", spell(&reversed)), language.list(&shifts(&reversed))],
        ),
    };
    Problem::exact(format!("strings:{kind}:{word}"), question, gold.as_str()).with_chain(language.chain(&steps, &gold))
}
