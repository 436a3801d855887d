//! What a derivation in one formula ends on: behind its last arrow, in its last row, after the sides in words.

use super::super::denial;

/// Arrows from one line of a derivation to the next.
const ARROWS: [&str; 7] =
    [r"\implies", r"\Rightarrow", r"\Longrightarrow", r"\iff", r"\Leftrightarrow", r"\Longleftrightarrow", "=>"];

/// Words that make what follows a condition or another thing than what is asked for: "7 if x = 72" says 7.
const TURNS: [&str; 18] = [
    "if", "when", "whenever", "unless", "because", "since", "where", "while", "for", "at", "as", "than", "with",
    "given", "provided", "but", "or", "so",
];

/// The end of a derivation, where the formula is one. Never one of several answers: what is given up for the end is
/// an equation in the same unknown, or words.
pub fn end(formula: &str) -> Option<String> {
    let formula = formula.trim().trim_matches('$');
    let said = behind_arrow(formula).map(str::to_string).or_else(|| last_row(formula)).or_else(|| {
        let (before, last) = formula.rsplit_once(", ")?;
        derives(before, last).then(|| last.to_string())
    });
    let said = said.unwrap_or_else(|| formula.to_string());
    let value = behind_words(&said).map_or_else(|| said.clone(), str::to_string);
    let value = value.trim().trim_end_matches(['.', ',']).trim().to_string();
    (value != formula.trim() && value.contains(|c: char| c.is_ascii_digit() || c == '\\')).then_some(value)
}

/// Arrows that lead to an equation, or say where a value tends to.
const TENDING: [&str; 2] = [r"\rightarrow", r"\longrightarrow"];

/// What stands behind the last arrow outside of brackets.
fn behind_arrow(formula: &str) -> Option<&str> {
    let tending = TENDING.iter().filter(|arrow| formula.rfind(**arrow).is_some_and(|at| formula[at..].contains('=')));
    let (at, len) = ARROWS
        .iter()
        .chain(tending)
        .filter_map(|arrow| formula.rfind(arrow).map(|at| (at, arrow.len())))
        .filter(|&(at, len)| !formula[at + len..].starts_with(|c: char| c.is_ascii_alphabetic()))
        .max()?;
    let before = formula[..at].trim_end();
    let level = |text: &str| text.matches(['(', '{', '[']).count() == text.matches([')', '}', ']']).count();
    (level(before) && !before.is_empty() && !before.ends_with(r"\not")).then(|| &formula[at + len..])
}

/// The last row of an `align` with those that go on with it, where the rows above lead to it.
fn last_row(formula: &str) -> Option<String> {
    let inside = formula.trim().strip_prefix(r"\begin{")?;
    let (name, inside) = inside.split_once('}')?;
    if !matches!(name.trim_end_matches('*'), "align" | "aligned" | "gather" | "gathered" | "eqnarray" | "split") {
        return None;
    }
    let inside = inside.strip_suffix(&format!(r"\end{{{name}}}"))?;
    let rows: Vec<String> = inside.split(r"\\").map(|row| row.replace('&', "")).collect();
    let rows: Vec<&str> = rows.iter().map(|row| row.trim()).filter(|row| !row.is_empty()).collect();
    let from = rows.iter().rposition(|row| !row.starts_with('='))?;
    let last = rows[from..].join(" ");
    derives(&rows[..from].join(", "), &last).then_some(last)
}

/// The last statement gives a letter its value, and the ones before are equations in that letter that do not.
fn derives(before: &str, last: &str) -> bool {
    let Some((name, value)) = last.split_once('=') else { return false };
    let mut letters = name.trim().chars();
    let (Some(letter), None) = (letters.next().filter(char::is_ascii_alphabetic), letters.next()) else { return false };
    let speaks = |text: &str| {
        text.char_indices().any(|(at, c)| {
            let beside = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic());
            c == letter && !beside(text[..at].chars().next_back()) && !beside(text[at + 1..].chars().next())
        })
    };
    let leads = |statement: &str| {
        let equation = statement.matches('=').count() == 1 && statement.split_once('=').is_some();
        let solved = statement.split('=').any(|side| side.trim().chars().eq([letter]));
        equation && !solved && speaks(statement)
    };
    !value.trim().is_empty() && !speaks(value) && !before.trim().is_empty() && before.split(", ").all(leads)
}

/// The sides behind the last one that holds words: the 100 of `\text{Profit} = \text{Revenue} - \text{Cost} = 100`.
fn behind_words(formula: &str) -> Option<&str> {
    // Other relations say other things of their sides.
    const RELATIONS: [&str; 10] = ["ne", "neq", "le", "leq", "ge", "geq", "lt", "gt", "not", "in"];
    let mut commands = formula.split('\\').skip(1);
    let name = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
    let relates = commands.any(|command| RELATIONS.contains(&&command[..name(command)]));
    if relates || formula.contains(['<', '>', '!']) || formula.contains(r"\begin") {
        return None;
    }
    let mut depth = 0i32;
    let mut starts = vec![0];
    for (at, c) in formula.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            '=' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    let side = |i: usize| &formula[starts[i]..starts.get(i + 1).map_or(formula.len(), |next| next - 1)];
    let worded = |text: &str| [r"\text", r"\mathrm", r"\mbox", r"\triangle"].iter().any(|word| text.contains(word));
    let last = (0..starts.len() - 1).rev().find(|&i| worded(side(i)))?;
    let words = &formula[..starts[last + 1]];
    let turns = words.split(|c: char| !c.is_alphabetic()).any(|word| TURNS.contains(&word));
    let words = words.replace(['{', '}', '\\', '='], " ");
    if turns || denial::negated(&words) || denial::turns(&words) {
        return None;
    }
    Some(&formula[starts[last + 1]..])
}
