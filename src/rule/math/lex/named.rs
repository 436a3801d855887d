//! Commands that make a name of what follows: accents, arrows, angles and triangles, derivatives.

use super::super::ast::{Node, Numbers};
use super::super::number::Q;
use super::super::units;
use super::command::balanced;
use super::{Delim, Lexer, Rel, Tok};

/// Longest argument that is read as a part of a name.
const MAX_ARGUMENT: usize = 48;

/// How the names of derivatives begin.
const DERIVATIVE: &str = "der:";

/// A command that stands for a letter or for a word of logic; any other one that is not known is an operation.
pub fn is_letter(name: &str) -> bool {
    const LETTERS: &str = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma \
        tau upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega varepsilon vartheta \
        varkappa varpi varrho varsigma varphi digamma ell hbar hslash imath jmath wp aleph beth gimel complement \
        forall exists nexists angle measuredangle triangle square";
    LETTERS.split_whitespace().any(|letter| letter == name)
}

/// The name of an operation that nothing is known of, `\star` or `⊕`: it is a factor of nothing.
pub fn is_unknown(name: &str) -> bool {
    name.starts_with(|c: char| !c.is_alphanumeric() && !matches!(c, '∂' | '|' | '_'))
}

/// The name of an operator that is not worked out: `\int`, `\lim`, `\nabla`, `d/dx`.
pub fn is_operator(name: &str) -> bool {
    const OPERATORS: [&str; 10] =
        ["int", "iint", "iiint", "oint", "lim", "limsup", "liminf", "nabla", "sup", "partial"];
    let derivative = |name: &str| {
        let order = name.trim_start_matches(['d', '∂']);
        order.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('/')
    };
    OPERATORS.contains(&name.split('_').next().unwrap_or(name)) || name.strip_prefix(DERIVATIVE).is_some_and(derivative)
}

impl<'a> Lexer<'a, '_> {
    /// `\bar{x}`, `\dot x`, `\vec{AB}`: another name than the letter without its mark. False where the
    /// mark changes nothing: the bar over a segment, the hat of a unit vector, the arrow over one letter.
    pub(super) fn accent(&mut self, mark: &str) -> bool {
        let mark = match mark {
            "bar" | "overline" => "bar",
            "hat" | "widehat" => "hat",
            "tilde" | "widetilde" => "tilde",
            "vec" | "overrightarrow" => "vec",
            "dot" | "ddot" | "dddot" | "overleftarrow" => mark,
            _ => return false,
        };
        let Some((inside, taken)) = self.near_argument() else { return false };
        let name: String = inside.chars().filter(|c| !c.is_whitespace() && !matches!(c, '{' | '}')).collect();
        let letters = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic());
        let single = name.chars().count() == 1 || (name.starts_with('\\') && name.len() > 1);
        let plain = match mark {
            "vec" => !(letters && name.len() > 1),
            "hat" if letters && name.len() == 3 => {
                // The hat over three points is their angle.
                self.at += taken;
                self.points("angle", &name);
                return true;
            }
            "hat" => matches!(name.as_str(), "i" | "j" | "k"),
            _ => name.is_empty() || name.bytes().all(|b| b.is_ascii_digit() || b == b'.') || (letters && !single),
        };
        if plain {
            return false;
        }
        self.at += taken;
        self.named(&format!("{mark}{{{}}}", name.trim_start_matches('\\')));
        true
    }

    /// `\mathbb{R}^+` is an interval, `\mathbb{Z}^+` and `\mathbb{N}^*` are sets with names of their own.
    pub(super) fn signed_numbers(&mut self, set: Numbers) -> bool {
        let rest = self.rest();
        let Some(rest) = rest.strip_prefix(['^', '_']) else { return false };
        let marks = [("+", '+'), ("{+}", '+'), ("-", '-'), ("{-}", '-'), ("*", '*'), ("{*}", '*'), (r"\ast", '*')];
        let Some((len, sign)) =
            marks.iter().find_map(|(mark, sign)| rest.starts_with(mark).then_some((mark.len(), *sign)))
        else {
            return false;
        };
        self.at += 1 + len;
        let (zero, comma) = (Tok::Atom(Node::Num(Q::ZERO)), Tok::Comma);
        let infinity = Tok::Atom(Node::Infinity);
        let tokens = match (set, sign) {
            (Numbers::Reals, '+') => vec![zero, comma, infinity],
            (Numbers::Reals, '-') => vec![Tok::Minus, infinity, comma, zero],
            // Without zero; the naturals with a plus and a star are the positive integers.
            _ => {
                let name = match (set, sign) {
                    (Numbers::Naturals, _) | (Numbers::Integers, '+') => "positive integers".to_string(),
                    (set, sign) => format!("{set:?}{sign}"),
                };
                let sym = self.arena.symbol(&name);
                self.push(Tok::Sym(sym));
                return true;
            }
        };
        self.push(Tok::Open(Delim::Paren));
        tokens.into_iter().for_each(|tok| self.push(tok));
        self.push(Tok::Close(Delim::Paren));
        true
    }

    /// `f \circ g`: one function, and not g after f.
    pub(super) fn composed(&mut self) -> bool {
        let rest = self.rest().trim_start_matches(' ');
        let mut letters = rest.chars();
        let (Some(inner), after) = (letters.next().filter(char::is_ascii_alphabetic), letters.next()) else {
            return false;
        };
        if after.is_some_and(char::is_alphabetic) {
            return false;
        }
        let Some(Tok::Sym(outer)) = self.out.tokens.last().map(|t| t.tok.clone()) else { return false };
        let name = format!("{}∘{inner}", self.arena.name(outer));
        let sym = self.arena.symbol(&name);
        if let Some(last) = self.out.tokens.last_mut() {
            last.tok = Tok::Sym(sym);
        }
        self.at = self.text.len() - rest.len() + 1;
        true
    }

    /// Vectors stand on both sides of the `\times` just read: letters in bold type or under an arrow.
    pub(super) fn joins_vectors(&self) -> bool {
        let vector = |text: &str| {
            let Some(command) = text.strip_prefix('\\') else { return false };
            let letters = command.bytes().take_while(u8::is_ascii_alphabetic).count();
            let marked = matches!(
                &command[..letters],
                "mathbf" | "boldsymbol" | "bm" | "bold" | "vec" | "overrightarrow" | "hat" | "mathbfit"
            );
            let inside = command[letters..].trim_start_matches(['{', ' ', '\\']);
            marked && inside.starts_with(|c: char| c.is_alphabetic())
        };
        let before = &self.text[..self.at];
        let behind = before[..before.rfind('\\').unwrap_or(0)].rfind('\\');
        behind.is_some_and(|at| vector(&before[at..])) && vector(self.rest().trim_start_matches([' ', '(', '{']))
    }

    /// Behind a number, and nothing follows.
    pub(super) fn measures(&self) -> bool {
        let behind = self.rest().trim_start_matches(['}', ' ', '$', '.']);
        matches!(self.out.tokens.last().map(|t| &t.tok), Some(Tok::Num(_))) && behind.is_empty()
    }

    /// `800{ml}`, `800\,{\rm cm}`: braces behind a number that hold a unit's name alone.
    pub(super) fn braced_unit(&mut self) -> bool {
        if !matches!(self.out.tokens.last().map(|t| &t.tok), Some(Tok::Num(_))) || !self.text_depth.is_empty() {
            return false;
        }
        let rest = self.rest();
        let Some(close) = rest.bytes().take(MAX_ARGUMENT).position(|b| b == b'}') else { return false };
        let inside = rest[1..close].trim_start_matches(r"\rm").trim();
        let letters = inside.len() > 1 && inside.bytes().all(|b| b.is_ascii_alphabetic());
        if !letters || units::find(inside).is_none() {
            return false;
        }
        self.at += close + 1;
        self.push(Tok::Word(inside));
        true
    }

    /// `2 \mu F`, `3\,\mu\mathrm{m}`: behind a number, and before the letter of a unit, a prefix.
    pub(super) fn micro(&mut self) -> bool {
        const UNITS: [(&str, &str); 6] = [("m", "µm"), ("F", "µF"), ("A", "µA"), ("C", "µC"), ("s", "µs"), ("g", "µg")];
        if !matches!(self.out.tokens.last().map(|t| &t.tok), Some(Tok::Num(_))) {
            return false;
        }
        let rest = self.rest().trim_start_matches([' ', '~']);
        let inside = [r"\mathrm{", r"\text{", r"\mathrm{~", r"\textrm{", "{"].iter().find_map(|open| {
            let inside = rest.strip_prefix(open)?.trim_start_matches(' ');
            UNITS
                .iter()
                .find(|(letter, _)| inside.strip_prefix(letter).is_some_and(|after| after.starts_with('}')))
                .map(|(letter, name)| (*name, inside.len() - letter.len() - 1))
        });
        let bare = || {
            let (_, name) = UNITS.iter().find(|(letter, _)| rest.starts_with(letter))?;
            let after = &rest[1..];
            (!after.starts_with(|c: char| c.is_alphanumeric() || c == '_')).then_some((*name, after.len()))
        };
        let Some((name, left)) = inside.or_else(bare) else { return false };
        self.at = self.text.len() - left;
        self.push(Tok::Word(name));
        true
    }

    /// `\angle ABC`, `\triangle ABC`: an angle may be read from either side, a triangle from any corner
    /// unless it is matched with another, corner by corner.
    pub(super) fn figure(&mut self, kind: &str) -> bool {
        let Some((inside, taken)) = self.corners() else { return false };
        let corners = inside.to_string();
        self.at += taken;
        self.points(kind, &corners);
        true
    }

    fn points(&mut self, kind: &str, corners: &str) {
        let matched =
            matches!(self.out.tokens.last().map(|t| &t.tok), Some(Tok::Rel(Rel::CongruentShape | Rel::Similar)))
                || [r"\sim", r"\cong"].iter().any(|mark| self.rest().trim_start().starts_with(mark));
        let mut letters: Vec<char> = corners.chars().collect();
        match kind {
            "triangle" if !matched => letters.sort_unstable(),
            "angle" if letters.first() > letters.last() => letters.reverse(),
            _ => {}
        }
        let name = format!("{kind}{{{}}}", letters.into_iter().collect::<String>());
        let sym = self.arena.symbol(&name);
        self.push(Tok::Sym(sym));
    }

    /// One to four capitals, in braces or not, and how many bytes they take.
    fn corners(&self) -> Option<(&str, usize)> {
        let rest = self.rest();
        let trimmed = rest.trim_start();
        let braced = usize::from(trimmed.starts_with('{'));
        let inside = &trimmed[braced..];
        let len = inside.bytes().take(5).take_while(u8::is_ascii_uppercase).count();
        let after = inside.as_bytes().get(len).copied().unwrap_or(b' ');
        let closed = if braced == 1 { after == b'}' } else { !after.is_ascii_alphanumeric() && after != b'_' };
        let taken = rest.len() - trimmed.len() + len + 2 * braced;
        ((1..5).contains(&len) && closed).then_some((&inside[..len], taken))
    }

    /// A braced argument, a command or one character close by, and how many bytes it takes.
    fn near_argument(&self) -> Option<(String, usize)> {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(' ');
        let skipped = rest.len() - trimmed.len();
        let near = &trimmed[..trimmed.floor_char_boundary(MAX_ARGUMENT)];
        if near.starts_with('{') {
            let end = balanced(near)?;
            return Some((near[1..end - 1].to_string(), skipped + end));
        }
        if let Some(command) = near.strip_prefix('\\') {
            let len = command.bytes().take_while(u8::is_ascii_alphabetic).count();
            return (len > 0).then(|| (near[..=len].to_string(), skipped + len + 1));
        }
        let c = near.chars().next()?;
        Some((c.to_string(), skipped + c.len_utf8()))
    }

    /// `{dy}{dx}` behind `\frac`: no quotient of products that d could cancel from.
    pub(super) fn derivative(&mut self) -> bool {
        let rest = self.rest();
        // Nearly every fraction is seen to be none by its first letter.
        let head = rest.trim_start_matches(['{', ' ']);
        if !["d", r"\partial", r"\mathrm"].iter().any(|begin| head.starts_with(begin)) {
            return false;
        }
        let near = &rest[..rest.floor_char_boundary(2 * MAX_ARGUMENT)];
        let Some(top) = near.starts_with('{').then(|| balanced(near)).flatten() else { return false };
        let below = near[top..].trim_start_matches(' ');
        let Some(bottom) = below.starts_with('{').then(|| balanced(below)).flatten() else { return false };
        let (over, under) = (differential(&near[1..top - 1]), differential(&below[1..bottom - 1]));
        let (Some(over), Some(under)) = (over, under) else { return false };
        if over.chars().next() != under.chars().next() || under.chars().count() < 2 {
            return false;
        }
        self.at += near.len() - below.len() + bottom;
        self.differentials(&over, &under);
        true
    }

    /// `dy/dx` in letters: true if it was read.
    pub(super) fn plain_derivative(&mut self) -> bool {
        let &[b'd', y @ b'a'..=b'z', b'/', b'd', x @ b'a'..=b'z', ref after @ ..] = &self.bytes[self.at..] else {
            return false;
        };
        if after.first().is_some_and(u8::is_ascii_alphanumeric) {
            return false;
        }
        self.at += 5;
        self.differentials(&format!("d{}", char::from(y)), &format!("d{}", char::from(x)));
        true
    }

    fn differentials(&mut self, over: &str, under: &str) {
        let sym = self.arena.symbol(&format!("{DERIVATIVE}{over}/{under}"));
        self.push(Tok::Sym(sym));
    }
}

/// `d^{2} y` as `d2y`; `None` for what does not begin with d or ∂ or holds more than names and powers.
fn differential(text: &str) -> Option<String> {
    let upright = text.replace(r"\mathrm{d}", "d").replace(r"\mathrm d", "d").replace(r"\partial", "∂");
    let name: String = upright.chars().filter(|c| !matches!(c, ' ' | '{' | '}' | '^' | '\\')).collect();
    let plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '∂' | '(' | ')'));
    // "d" with a word behind it is no differential.
    (plain && name.starts_with(['d', '∂']) && name.chars().count() <= 8).then_some(name)
}
