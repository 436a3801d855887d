//! Words of the languages that share the Latin script, and what tells the languages from each other.
//!
//! The lists hold function words and the vocabulary of questions, written for this purpose. A word that
//! several languages have stands in each list: it then says little for any of them.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::script::is_latin;

/// Languages of the Latin script that words tell, by bit. The first four are the likelier by far.
pub(super) const LATIN: [&str; 18] =
    ["en", "fr", "de", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs", "ro", "hu", "tr", "id", "vi"];
const LIKELY: u32 = 4;

const LISTS: [&str; LATIN.len()] = [
    include_str!("words/en.txt"),
    include_str!("words/fr.txt"),
    include_str!("words/de.txt"),
    include_str!("words/es.txt"),
    include_str!("words/it.txt"),
    include_str!("words/pt.txt"),
    include_str!("words/nl.txt"),
    include_str!("words/sv.txt"),
    include_str!("words/da.txt"),
    include_str!("words/nb.txt"),
    include_str!("words/fi.txt"),
    include_str!("words/pl.txt"),
    include_str!("words/cs.txt"),
    include_str!("words/ro.txt"),
    include_str!("words/hu.txt"),
    include_str!("words/tr.txt"),
    include_str!("words/id.txt"),
    include_str!("words/vi.txt"),
];

/// Units, functions and keywords that every language writes alike.
const NEUTRAL: &str = "
sin cos tan cot sec csc log ln lim max min mod gcd lcm det dim exp cm mm km kg mg ml kw mph ft lb lbs oz hz pi phi theta
alpha beta gamma delta lambda sqrt frac boxed qed ok vs etc usd eur dx dy dt def elif int str var const null
";

/// A word of prose.
pub(super) struct Word {
    pub lower: String,
    /// Bit `i` is language `i` of [`LATIN`]; 0 for a word that no list has.
    pub languages: u32,
    capital: bool,
}

impl Word {
    /// Whether it is as likely a name or an acronym as a word.
    pub fn is_name(&self) -> bool {
        self.languages == 0 && self.capital && self.lower.is_ascii()
    }
}

/// The Latin words of a text that say something of its language: no variables, units or identifiers.
pub(super) fn of(prose: &str) -> impl Iterator<Item = Word> {
    let mut rest = prose;
    let mut before = ' ';
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(is_latin)?;
            before = rest[..start].chars().next_back().unwrap_or(before);
            let end = word_end(&rest[start..]) + start;
            let (text, after) = (&rest[start..end], rest[end..].chars().next().unwrap_or(' '));
            rest = &rest[end..];
            let symbol =
                |c: char| c.is_ascii_digit() || matches!(c, '=' | '^' | '\\' | '<' | '>' | '{' | '}' | '|' | '_');
            let formula =
                symbol(before) || symbol(after) || after == '(' || text.contains(|c: char| c.is_ascii_digit());
            before = text.chars().next_back().unwrap_or(' ');
            if !formula && let Some(word) = word(text) {
                return Some(word);
            }
        }
    })
}

/// Letters with the apostrophes, digits and underscores between them; a hyphen ends a word.
fn word_end(text: &str) -> usize {
    let mut end = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let inner = matches!(c, '\'' | '’') && chars.peek().is_some_and(|(_, next)| is_latin(*next));
        if !(is_latin(c) || inner || c.is_ascii_digit() || c == '_') {
            break;
        }
        end = at + c.len_utf8();
    }
    end
}

fn word(text: &str) -> Option<Word> {
    let lower = text.to_lowercase().replace('’', "'");
    let (languages, neutral) = known(&lower);
    // A letter of ASCII is a variable; `à`, `è` and `é` are words.
    if neutral || lower.is_ascii() && lower.bytes().filter(u8::is_ascii_alphabetic).nth(1).is_none() {
        return None;
    }
    let languages = match (languages, lower.split_once('\'')) {
        (0, Some((head, tail))) => elided(head, tail),
        _ => languages,
    };
    Some(Word { languages, capital: text.starts_with(char::is_uppercase), lower })
}

/// Bits of the languages that have the word, and whether it is no language's own.
fn known(lower: &str) -> (u32, bool) {
    static KNOWN: LazyLock<HashMap<&str, (u32, bool)>> = LazyLock::new(|| {
        let mut known: HashMap<&str, (u32, bool)> = HashMap::new();
        for (bit, list) in LISTS.iter().enumerate() {
            for word in list.split_whitespace() {
                known.entry(word).or_default().0 |= 1 << bit;
            }
        }
        for word in NEUTRAL.split_whitespace() {
            known.entry(word).or_default().1 = true;
        }
        known
    });
    KNOWN.get(lower).copied().unwrap_or_default()
}

/// `l'aire`, `d'un`, `qu'elle`, `dell'area`, `teacher's`: what the elided word says, and the whole one where both
/// French and Italian elide.
fn elided(head: &str, tail: &str) -> u32 {
    let (en, fr, it) = (1, 1 << 1, 1 << 4);
    match head {
        "l" | "d" | "c" | "m" | "t" | "s" | "n" => match known(tail).0 & (fr | it) {
            0 => fr | it,
            told => told,
        },
        "qu" | "j" | "lorsqu" | "puisqu" | "jusqu" => fr,
        "dell" | "all" | "nell" | "sull" | "un" | "quell" | "dov" | "com" => it,
        _ if matches!(tail, "s" | "t" | "re" | "ve" | "ll" | "d" | "m") => en,
        _ => 0,
    }
}

/// What a word that these languages have says for each of them.
pub(super) fn weights(languages: u32) -> [f64; LATIN.len()] {
    let all = languages.count_ones();
    let likely = (languages & ((1 << LIKELY) - 1)).count_ones();
    std::array::from_fn(|bit| {
        // That a rarer language shares a word takes little from a likely one.
        let sharing = if (bit as u32) < LIKELY { likely + u32::from(all > likely && likely > 1) } else { all };
        match sharing {
            _ if languages & (1 << bit) == 0 => 0.0,
            1 if all > 1 => 0.7,
            1 => 1.0,
            2 => 0.35,
            3 => 0.15,
            _ => 0.05,
        }
    })
}
