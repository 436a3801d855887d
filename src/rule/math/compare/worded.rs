//! What an answer says of options and names, as it is written.

/// An option with a value beside it: `(C), 12`. `(C), since …` and `(C) 12` say one thing.
pub fn lists_option(source: &str) -> bool {
    let mut rest = source.trim_start_matches(['$', '*', ' ', '{']);
    for dressing in [r"\text", r"\textbf", r"\mathrm", r"\mathbf", r"\mbox"] {
        rest = rest.strip_prefix(dressing).map_or(rest, |inside| inside.trim_start_matches(['{', ' ']));
    }
    let inside = rest.trim_start_matches('(');
    let Some(behind) = inside.strip_prefix(|c: char| c.is_ascii_uppercase()) else { return false };
    let behind = behind.trim_start_matches([')', '}', ' ', '$', '*']);
    let other = |rest: &str| {
        rest.trim_start_matches([' ', '$', '{', '(', '-']).starts_with(|c: char| c.is_ascii_digit() || c == '\\')
            && !rest.trim_start().starts_with(r"\text")
    };
    behind.strip_prefix([',', ';', '，']).is_some_and(other)
}

/// What a name may be put equal to: `Winner = Evelyn`, where `Debra = Evelyn` says of two persons that they are one.
const ROLES: [&str; 24] = [
    "answer",
    "result",
    "solution",
    "winner",
    "loser",
    "name",
    "person",
    "day",
    "month",
    "season",
    "color",
    "colour",
    "shape",
    "type",
    "kind",
    "choice",
    "option",
    "city",
    "country",
    "animal",
    "fruit",
    "thief",
    "liar",
    "conclusion",
];

/// An equation between two names: `\text{Debra} = \text{Evelyn}`.
pub fn equates_names(source: &str) -> bool {
    let bare = |side: &str| {
        let words = side.split(|c: char| !c.is_alphabetic() && c != '\\');
        words.filter(|word| !word.is_empty() && !word.starts_with('\\')).map(str::to_string).collect::<Vec<_>>()
    };
    let is_name = |words: &[String]| {
        let [word] = words else { return false };
        let mut letters = word.chars();
        letters.next().is_some_and(char::is_uppercase) && letters.next().is_some_and(char::is_lowercase)
    };
    let mut sides: Vec<Vec<String>> = source.split('=').map(bare).collect();
    let Some(last) = sides.pop() else { return false };
    let role = |words: &[String]| {
        let word = words[0].to_lowercase();
        ROLES.contains(&word.as_str()) || word.ends_with("est")
    };
    is_name(&last) && sides.iter().any(|side| is_name(side) && *side != last && !role(side))
}
