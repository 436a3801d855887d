//! Text before the lexer: full-width and CJK forms, Unicode digits, signs, fractions and
//! superscripts become the plain characters they stand for. Borrowed where nothing changes.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::lex::is_command;

/// Mends what transport does to LaTeX: backslashes that were escaped once too often, and blanks inside
/// the braces around a separator. Borrowed where there is nothing to mend.
pub fn repair(text: &str) -> Cow<'_, str> {
    let unescaped = escaped_twice(text).then(|| text.replace(r"\\", r"\"));
    let text = unescaped.map_or(Cow::Borrowed(text), Cow::Owned);
    if text.contains("{, }") || text.contains("{ ,") || text.contains(" {,}") {
        return Cow::Owned(
            text.replace("{, }", "{,}").replace("{ , }", "{,}").replace("{ ,}", "{,}").replace(" {,}", "{,}"),
        );
    }
    text
}

/// Every run of backslashes is even, and a command follows one: in LaTeX as meant, a command has one.
fn escaped_twice(text: &str) -> bool {
    if !text.contains(r"\\") {
        return false;
    }
    let mut command = false;
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let after = rest[at..].trim_start_matches('\\');
        if (rest.len() - at - after.len()) % 2 == 1 {
            return false;
        }
        let name = &after[..after.bytes().take_while(u8::is_ascii_alphabetic).count()];
        command |= name.len() > 1 && is_command(name);
        rest = after;
    }
    command
}

/// The same text in the characters that the lexer knows.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return based(text).map_or(Cow::Borrowed(text), Cow::Owned);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut script = Script::None;
    for c in text.chars() {
        if let Some((to, kind)) = raised_or_lowered(c) {
            if script != kind {
                script.close(&mut out);
                out.push_str(if kind == Script::Super { "^{" } else { "_{" });
                script = kind;
            }
            out.push(to);
            continue;
        }
        script.close(&mut out);
        script = Script::None;
        map(c, &mut out);
    }
    script.close(&mut out);
    Cow::Owned(out)
}

/// `2516 \text{ (base 8)}`, `2516 \text{ in base 8}` and `2516_{\text{base }8}` as `2516_{8}`.
fn based(text: &str) -> Option<String> {
    let (before, behind) = text.split_once("base ")?;
    // What stands between the numeral and the word, from the end on.
    let marks = ["(", " ", "{", r"\text", r"\mathrm", r"\,", "in", "_", "~"];
    let mut head = before;
    while let Some(rest) = marks.iter().find_map(|mark| head.strip_suffix(mark)) {
        head = rest;
    }
    let base = behind.trim_start_matches(['}', ' ', '$']);
    let digits = base.bytes().take_while(u8::is_ascii_digit).count();
    let end = base[digits..].trim_start_matches(['}', ')', ' ']);
    let whole = (1..3).contains(&digits) && (end.is_empty() || end.starts_with(['$', '.', '=']));
    let balanced = |open: char, close: char| {
        let between = &text[head.len()..text.len() - end.len()];
        between.matches(open).count() == between.matches(close).count()
    };
    let numeral = head.ends_with(|c: char| c.is_ascii_alphanumeric());
    (whole && numeral && balanced('{', '}') && balanced('(', ')'))
        .then(|| format!("{head}_{{{}}}{end}", &base[..digits]))
}

#[derive(Clone, Copy, PartialEq)]
enum Script {
    None,
    Super,
    Sub,
}

impl Script {
    fn close(self, out: &mut String) {
        if self != Script::None {
            out.push('}');
        }
    }
}

fn raised_or_lowered(c: char) -> Option<(char, Script)> {
    const SUPER: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ";
    const SUB: &str = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎";
    const SUPER_TO: &[u8] = b"0123456789+-()ni";
    const SUB_TO: &[u8] = b"0123456789+-()";
    if let Some(i) = SUPER.chars().position(|s| s == c) {
        return Some((SUPER_TO[i] as char, Script::Super));
    }
    SUB.chars().position(|s| s == c).map(|i| (SUB_TO[i] as char, Script::Sub))
}

fn map(c: char, out: &mut String) {
    let to = match c {
        c if c.is_ascii() => {
            out.push(c);
            return;
        }
        '−' | '–' | '—' | '﹣' | '－' | '‐' | '‑' | '‒' | '―' => "-",
        '×' | '·' | '⋅' | '∙' | '•' | '✕' | '⨯' | '＊' | '∗' => "*",
        '÷' | '∕' | '⁄' | '／' => "/",
        '±' => r"\pm ",
        '∓' => r"\mp ",
        '≤' | '⩽' | '≦' => r"\le ",
        '≥' | '⩾' | '≧' => r"\ge ",
        '≠' => r"\ne ",
        '≈' | '≒' | '≃' => r"\approx ",
        '≡' => r"\equiv ",
        '∈' => r"\in ",
        '∉' => r"\notin ",
        '⊂' | '⊆' => r"\subset ",
        '∪' => r"\cup ",
        '∩' => r"\cap ",
        '∖' => r"\setminus ",
        '∞' => r"\infty ",
        '∅' | '⌀' => r"\emptyset ",
        'π' | 'Π' => r"\pi ",
        '√' => r"\sqrt ",
        '∛' => r"\sqrt[3] ",
        '∜' => r"\sqrt[4] ",
        '∑' => r"\sum ",
        '∏' => r"\prod ",
        '°' | '˚' | 'º' => r"^\circ ",
        '′' | '’' => "'",
        '″' => "''",
        '⌊' => r"\lfloor ",
        '⌋' => r"\rfloor ",
        '⌈' => r"\lceil ",
        '⌉' => r"\rceil ",
        '⟨' | '〈' => r"\langle ",
        '⟩' | '〉' => r"\rangle ",
        '→' | '⟶' => r"\to ",
        '⇒' | '⟹' => r"\implies ",
        '∀' => r"\forall ",
        '∃' => r"\exists ",
        '∄' => r"\nexists ",
        '¬' => r"\neg ",
        '∫' => r"\int ",
        '∮' => r"\oint ",
        '∂' => r"\partial ",
        '∇' => r"\nabla ",
        '∠' => r"\angle ",
        '△' | '∆' => r"\triangle ",
        '∽' | '∼' => r"\sim ",
        '≅' => r"\cong ",
        '⊥' => r"\perp ",
        '∥' => r"\parallel ",
        '⊃' | '⊇' => r"\supset ",
        '⊊' => r"\subsetneq ",
        '∝' => r"\propto ",
        '∣' => r"\mid ",
        '⇔' | '↔' => r"\iff ",
        '∘' => r"\circ ",
        '⊕' => r"\oplus ",
        '⊖' => r"\ominus ",
        '⊗' => r"\otimes ",
        '⊙' => r"\odot ",
        '⋆' | '★' | '☆' => r"\star ",
        '⋄' | '◇' => r"\diamond ",
        '†' => r"\dagger ",
        '‡' => r"\ddagger ",
        '∨' => r"\lor ",
        '∧' => r"\land ",
        '…' | '⋯' => r"\dots ",
        '，' | '、' | '﹐' => ", ",
        '。' | '．' | '｡' => ".",
        '،' => ", ",
        '٫' => ".",
        '٬' => ",",
        '٪' => "%",
        '；' | '؛' => ";",
        '：' | '∶' => ":",
        '（' => "(",
        '）' => ")",
        '【' | '［' => "[",
        '】' | '］' => "]",
        '“' | '”' | '‘' | '「' | '」' | '『' | '』' | '《' | '》' | '«' | '»' => "\"",
        '℃' => r"^\circ C",
        '℉' => r"^\circ F",
        '\u{200b}' | '\u{200c}' | '\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{200e}' | '\u{200f}' => "",
        '\u{a0}' | '\u{202f}' | '\u{2009}' | '\u{2007}' | '\u{3000}' => " ",
        'ℝ' => r"\mathbb{R}",
        'ℤ' => r"\mathbb{Z}",
        'ℕ' => r"\mathbb{N}",
        'ℚ' => r"\mathbb{Q}",
        'ℂ' => r"\mathbb{C}",
        'α' => r"\alpha ",
        'β' => r"\beta ",
        'γ' => r"\gamma ",
        'δ' => r"\delta ",
        'ε' | 'ϵ' => r"\epsilon ",
        'θ' | 'ϑ' => r"\theta ",
        'λ' => r"\lambda ",
        'ρ' => r"\rho ",
        'σ' => r"\sigma ",
        'τ' => r"\tau ",
        'φ' | 'ϕ' => r"\phi ",
        'ω' => r"\omega ",
        '½' | '⅓' | '⅔' | '¼' | '¾' | '⅕' | '⅖' | '⅗' | '⅘' | '⅙' | '⅚' | '⅛' | '⅜' | '⅝' | '⅞' | '⅐' | '⅑' | '⅒' =>
        {
            // 1½ and 1 ½ are one and a half.
            if out.trim_end_matches(' ').ends_with(|p: char| p.is_ascii_digit()) {
                out.push(' ');
            } else {
                out.push('{');
                fraction(c, out);
                out.push('}');
                return;
            }
            return fraction(c, out);
        }
        '€' | '£' | '¥' | '￥' | '¢' | '₹' | 'µ' | 'μ' | 'Ω' => {
            out.push(if c == '￥' { '¥' } else { c });
            return;
        }
        other => {
            if let Some(digit) = digit(other) {
                return out.push(digit);
            }
            // Full-width letters and digits, styled letters, ligatures.
            out.extend(std::iter::once(other).nfkc());
            return;
        }
    };
    out.push_str(to);
}

/// The decimal digit that a digit of another script is: Arabic, Persian, Devanagari, Bengali, Tamil, Thai and their like.
fn digit(c: char) -> Option<char> {
    const ZEROS: [u32; 14] = [
        0x0660, 0x06f0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0e50, 0x0ed0, 0x0f20,
    ];
    let value = ZEROS.iter().find_map(|zero| u32::from(c).checked_sub(*zero).filter(|value| *value < 10))?;
    char::from_digit(value, 10)
}

fn fraction(c: char, out: &mut String) {
    for part in std::iter::once(c).nfkc() {
        out.push(if part == '⁄' { '/' } else { part });
    }
}
