//! LaTeX commands and environments.

use super::super::ast::{Node, Numbers, Rel};
use super::named::{is_letter, is_operator};
use super::words::{Command, command_token, is_text_command};
use super::{Delim, Env, Gap, Lexer, Tok};

/// What `\not` makes of the relation behind it.
const NEGATED: [(&str, Rel); 15] = [
    ("=", Rel::Ne),
    ("<", Rel::Ge),
    (">", Rel::Le),
    (r"\lt", Rel::Ge),
    (r"\gt", Rel::Le),
    (r"\in", Rel::NotIn),
    (r"\le", Rel::Gt),
    (r"\leq", Rel::Gt),
    (r"\leqslant", Rel::Gt),
    (r"\ge", Rel::Lt),
    (r"\geq", Rel::Lt),
    (r"\geqslant", Rel::Lt),
    (r"\subset", Rel::NotSubset),
    (r"\subseteq", Rel::NotSubset),
    (r"\equiv", Rel::NotCongruent),
];

impl<'a> Lexer<'a, '_> {
    pub(super) fn command(&mut self) {
        self.at += 1;
        let rest = self.rest();
        let len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if len == 0 {
            return self.escaped(rest.chars().next().unwrap_or(' '));
        }
        let name = &rest[..len];
        self.at += len;
        if name == "mathrm" && self.upright_constant() {
            return;
        }
        if is_text_command(name) {
            return self.text_command();
        }
        match name {
            "left" | "right" | "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr" | "Bigl" | "Bigr" | "middle"
            | "biggl" | "biggr" | "Biggl" | "Biggr" => self.sized(name),
            "begin" | "end" => self.environment(name),
            "mathbb" => self.number_set(),
            "not" => self.negated(),
            "frac" | "dfrac" | "tfrac" if self.derivative() => {}
            "angle" | "measuredangle" if self.figure("angle") => {}
            "triangle" if self.figure("triangle") => {}
            _ if self.accent(name) => {}
            "circ" if self.composed() => {}
            "mu" if self.micro() => {}
            // "max. (1, 2)" is where it is largest.
            "max" | "min"
                if self.rest().trim_start().starts_with(". ") || self.rest().trim_start().starts_with(".\\") =>
            {
                self.at += self.rest().find('.').map_or(0, |dot| dot + 1);
                self.space = true;
            }
            "times" if self.joins_vectors() => self.push(Tok::Cross),
            // "12 \Omega": ohms.
            "Omega" if self.measures() => self.push(Tok::Word("Ω")),
            // The transpose.
            "top" | "intercal" => self.named("T"),
            "pounds" => self.unit("£"),
            "euro" | "texteuro" => self.unit("€"),
            "textdollar" => self.unit("$"),
            "pmod" | "bmod" | "mod" => {
                self.push(Tok::Mod);
            }
            "hspace" | "vspace" | "phantom" | "hphantom" | "vphantom" | "label" | "tag" | "color" | "textcolor"
            | "colorbox" | "enclose" | "cssId" | "style" | "class" => {
                let (_, taken) = argument(self.rest());
                self.at += taken;
                self.space = true;
            }
            _ => self.listed(name),
        }
    }

    /// A backslash before what is no letter.
    fn escaped(&mut self, c: char) {
        self.at += c.len_utf8();
        match c {
            '{' => {
                self.nesting += 1;
                self.push(Tok::Open(Delim::Set));
            }
            '}' => {
                self.nesting = self.nesting.saturating_sub(1);
                self.push(Tok::Close(Delim::Set));
            }
            '%' => self.push(Tok::Percent),
            '$' => self.unit("$"),
            '\\' => {
                // An optional `[2pt]` belongs to the line break.
                if self.peek() == b'['
                    && let Some(end) = self.rest().bytes().take(16).position(|b| b == b']')
                    && self.rest()[1..end].ends_with("pt")
                {
                    self.at += end + 1;
                }
                self.push(Tok::Row);
            }
            '|' => self.push(Tok::Bar),
            '&' => self.push(Tok::And),
            // Spaces, accents and what delimits a formula.
            c if c.is_whitespace() || r#",;:!>()[]'"`."#.contains(c) => self.space = true,
            // `2\*3`, `x\_1`: escaped for Markdown.
            _ => self.at -= c.len_utf8(),
        }
    }

    /// `\mathrm{e}`, `\mathrm{i}`.
    fn upright_constant(&mut self) -> bool {
        for (mark, node) in [("{e}", Node::Euler), ("{i}", Node::Imaginary)] {
            if self.rest().starts_with(mark) && self.text_depth.is_empty() {
                self.at += mark.len();
                self.push(Tok::Atom(node));
                return true;
            }
        }
        false
    }

    /// `\text` and its like: what is in its braces is words.
    fn text_command(&mut self) {
        // `\mathrm{C}_5^2`: an upright letter is the letter.
        for (mark, letter) in [("{C}", "C"), ("{A}", "A"), ("{P}", "P")] {
            if self.rest().starts_with(mark) && self.text_depth.is_empty() {
                self.at += mark.len();
                if self.combination(letter) {
                    return;
                }
                self.at -= mark.len();
            }
        }
        while self.peek() == b' ' {
            self.at += 1;
        }
        if self.peek() == b'{' {
            self.at += 1;
            self.text_depth.push(0);
            self.space = true;
        }
    }

    /// The letter of a `\mathbb`.
    fn number_set(&mut self) {
        let (inner, taken) = argument(self.rest());
        self.at += taken;
        let set = match inner.trim() {
            "R" => Some(Numbers::Reals),
            "Z" => Some(Numbers::Integers),
            "N" => Some(Numbers::Naturals),
            "Q" => Some(Numbers::Rationals),
            "C" => Some(Numbers::Complex),
            _ => None,
        };
        match set {
            Some(set) if self.signed_numbers(set) => {}
            Some(set) => self.push(Tok::Atom(Node::Numbers(set))),
            None => {
                let sym = self.arena.symbol(inner.trim());
                self.push(Tok::Sym(sym));
            }
        }
    }

    /// `\not` with the relation behind it.
    fn negated(&mut self) {
        let next = self.rest().trim_start();
        let skip = self.rest().len() - next.len();
        for (mark, rel) in NEGATED {
            let after = next.strip_prefix(mark);
            let whole = |after: &str| !mark.starts_with('\\') || !after.starts_with(|c: char| c.is_ascii_alphabetic());
            if after.is_some_and(whole) {
                self.at += skip + mark.len();
                return self.push(Tok::Rel(rel));
            }
        }
        self.named(r"\not");
    }

    /// A command of the table, or a name.
    fn listed(&mut self, name: &'a str) {
        match command_token(name) {
            Command::Token(tok) => {
                match tok {
                    Tok::Open(_) => self.nesting += 1,
                    Tok::Close(_) => self.nesting = self.nesting.saturating_sub(1),
                    _ => {}
                }
                self.push(tok);
            }
            Command::Space => {
                if name.ends_with("quad") {
                    self.gap = Gap::Quad;
                }
                self.space = true;
            }
            // `\quadx`: the blank behind the command was lost.
            Command::Name if name.trim_start_matches('q').starts_with("uad") => {
                self.at -= name.len() - name.find("uad").map_or(0, |at| at + 3);
                self.space = true;
            }
            Command::Name => {
                if self.rest().starts_with(r"\limits") {
                    self.at += r"\limits".len();
                }
                match is_letter(name) || is_operator(name) {
                    true => self.named(name),
                    false => self.named(&format!(r"\{name}")),
                }
            }
        }
    }

    fn sized(&mut self, name: &str) {
        while self.peek() == b' ' {
            self.at += 1;
        }
        let opens = !(name == "right" || name.ends_with('r'));
        if self.peek() == b'.' {
            self.at += 1;
            if name == "left" && self.is_evaluated() {
                self.push(Tok::Open(Delim::Evaluated));
            }
        } else if self.peek() == b'|' || self.rest().starts_with(r"\|") {
            self.at += if self.peek() == b'|' { 1 } else { 2 };
            self.push(match name {
                "middle" => Tok::SuchThat,
                "left" => Tok::Open(Delim::Bar),
                "right" => Tok::Close(Delim::Bar),
                _ if opens => Tok::Bar,
                _ => Tok::Bar,
            });
        }
    }

    /// The `\right` of the `\left` just read is a bar with a script at its foot.
    fn is_evaluated(&self) -> bool {
        let near = &self.rest()[..self.rest().floor_char_boundary(MAX_EVALUATED)];
        let mut depth = 0u32;
        for (at, _) in near.match_indices('\\') {
            let command = &near[at..];
            if command.starts_with(r"\left") && !command.starts_with(r"\leftarrow") {
                depth += 1;
            } else if let Some(behind) = command.strip_prefix(r"\right").filter(|b| !b.starts_with("arrow")) {
                if depth == 0 {
                    return behind.trim_start().strip_prefix('|').is_some_and(|b| b.trim_start().starts_with('_'));
                }
                depth -= 1;
            }
        }
        false
    }

    fn environment(&mut self, which: &str) {
        let (name, taken) = argument(self.rest());
        self.at += taken;
        let env = match name.trim_end_matches('*') {
            "pmatrix" | "bmatrix" | "Bmatrix" | "matrix" | "smallmatrix" | "array" => Env::Matrix,
            "vmatrix" | "Vmatrix" => Env::Determinant,
            "cases" | "dcases" | "rcases" => Env::Cases,
            _ => Env::Rows,
        };
        if which == "end" {
            self.nesting = self.nesting.saturating_sub(1);
            return self.push(Tok::End);
        }
        self.nesting += 1;
        if name == "array" && self.rest().trim_start().starts_with('{') {
            let (_, taken) = argument(self.rest());
            self.at += taken;
        }
        self.push(Tok::Begin(env));
    }
}

/// Length of the balanced braces that `text` starts with.
pub fn balanced(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

/// Longest formula that is evaluated at a bar, in bytes.
const MAX_EVALUATED: usize = 400;

/// Longest argument of a command that names something: an environment, a colour, a label.
const MAX_NAME: usize = 200;

/// The braced argument at the start of `text`, and how many bytes it takes.
fn argument(text: &str) -> (&str, usize) {
    let trimmed = text.trim_start();
    let skipped = text.len() - trimmed.len();
    // What never closes would be looked through to the end by each command that opens one.
    let near = &trimmed[..trimmed.floor_char_boundary(MAX_NAME)];
    if trimmed.starts_with('{')
        && let Some(end) = balanced(near)
    {
        return (&trimmed[1..end - 1], skipped + end);
    }
    let len = trimmed.chars().next().map_or(0, char::len_utf8);
    (&trimmed[..len], skipped + len)
}
