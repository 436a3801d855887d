//! The program of a completion: what of it is the answer, and which of its fenced blocks is meant.
//!
//! Fences as Markdown has them: they open and close at the start of a line (or of a list item), close with at
//! least as many marks as they opened with, and one that is never closed lasts to the end. So marks inside a
//! line are no fence, and neither are those inside a triple-quoted string of Python. Models also open one behind
//! text, with the language's word, and close one behind the last line.

use std::ops::Range;

use super::Language;
use crate::rule::think::{self, Tags};

/// What of a completion is its answer, as [`think::split`] has it; but tags inside a program are the program's text.
pub(super) fn answer(completion: &str) -> &str {
    let Tags { think_open, think_close, answer_open, answer_close, .. } = Tags::R1;
    let mut tags = Vec::new();
    for body in programs(completion) {
        let (from, text) = (body.start, &completion[body]);
        // One that begins a line is hardly a program's: the block was left open.
        let inside = |at: usize| text[..at].rfind('\n').map_or(&text[..at], |line| &text[line + 1..at]).trim() != "";
        for tag in [think_open, think_close, answer_open, answer_close] {
            let found = text.match_indices(tag).filter(|(at, _)| inside(*at));
            tags.extend(found.map(|(at, _)| from + at..from + at + tag.len()));
        }
    }
    let mut masked = completion.as_bytes().to_vec();
    tags.into_iter().for_each(|tag| masked[tag].fill(b'.'));
    let masked = String::from_utf8(masked).expect("tags are ASCII, and so is what stands for them");
    let answer = think::split(&masked).answer;
    if answer.is_empty() {
        // Perhaps the block was left open all the same.
        return think::split(completion).answer;
    }
    let from = answer.as_ptr() as usize - masked.as_ptr() as usize;
    &completion[from..from + answer.len()]
}

/// Where the bodies of closed blocks are that may be programs. One inside which another opens was never closed.
fn programs(text: &str) -> Vec<Range<usize>> {
    let lines = lines(text);
    let at = |line: &str| line.as_ptr() as usize - text.as_ptr() as usize;
    let is_program = |found: &&Fenced<'_>| {
        let word = found.fence.word;
        let opens = |line: &&str| opening(line).is_some_and(|fence| !fence.word.is_empty());
        found.closed
            && (word.is_empty() || Language::from_word(word).is_some())
            && !lines[found.body.clone()].iter().any(opens)
    };
    let bodies = fenced(&lines).into_iter().filter(|found| !found.body.is_empty() && is_program(&found));
    bodies.map(|found| at(lines[found.body.start])..at(lines[found.body.end])).collect()
}

/// A fenced block that may be a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub code: String,
    /// What the fence's word names; `None` without a word.
    pub language: Option<Language>,
}

/// The last block in the wanted language, else the last that may be in it: without a word, or of another language.
/// Where no language is wanted, one whose word names a language goes before one without a word. Blocks of
/// anything else (`text`, `output`, `console`) are no program.
pub(super) fn program(answer: &str, wanted: Option<Language>) -> Option<Block> {
    let mut blocks = blocks(answer);
    let named = |block: &Block| match wanted {
        Some(_) => block.language == wanted,
        None => block.language.is_some(),
    };
    let at = blocks.iter().rposition(named).or_else(|| blocks.len().checked_sub(1))?;
    Some(blocks.swap_remove(at))
}

/// How a block was opened.
struct Fence<'a> {
    mark: char,
    length: usize,
    /// Bytes before the marks: as much is taken off each line.
    indent: usize,
    word: &'a str,
}

/// A block, its body in lines.
struct Fenced<'a> {
    fence: Fence<'a>,
    body: Range<usize>,
    closed: bool,
}

fn lines(text: &str) -> Vec<&str> {
    text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect()
}

/// All blocks, in order.
fn fenced<'a>(lines: &[&'a str]) -> Vec<Fenced<'a>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < lines.len() {
        let Some(fence) = opening(lines[at]).or_else(|| behind_text(lines[at])) else {
            at += 1;
            continue;
        };
        let inside = &lines[at + 1..];
        let quotes = Language::from_word(fence.word) == Some(Language::Python);
        let quoted = if quotes { closing(inside, &fence, true) } else { None };
        let closed = quoted.or_else(|| closing(inside, &fence, false));
        let body = at + 1..at + 1 + closed.unwrap_or(inside.len());
        at = body.end + 1;
        found.push(Fenced { fence, body, closed: closed.is_some() });
    }
    found
}

/// Blocks with text whose word is missing or names a language, in order.
fn blocks(answer: &str) -> Vec<Block> {
    let lines = lines(answer);
    let mut found = Vec::new();
    for Fenced { fence, body, closed } in fenced(&lines) {
        let language = Language::from_word(fence.word);
        let mut code: String = lines[body].iter().flat_map(|line| [unindented(line, fence.indent), "\n"]).collect();
        if !closed && let Some(end) = code.find(&String::from(fence.mark).repeat(fence.length)) {
            code.truncate(end);
        }
        if !code.trim().is_empty() && (language.is_some() || fence.word.is_empty()) {
            found.push(Block { code, language });
        }
    }
    found
}

fn opening(line: &str) -> Option<Fence<'_>> {
    let text = line.trim_start();
    let body = list_item(text).unwrap_or(text);
    let mark = body.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
    let info = body.trim_start_matches(mark);
    let length = body.len() - info.len();
    if length < 3 || mark == '`' && info.contains('`') {
        return None;
    }
    let word = info.split(|c: char| c.is_whitespace() || matches!(c, '{' | ',' | ':')).find(|word| !word.is_empty());
    Some(Fence { mark, length, indent: line.len() - body.len(), word: word.unwrap_or("") })
}

/// A fence that a line of text ends with, where its word names a language.
fn behind_text(line: &str) -> Option<Fence<'_>> {
    let at = line.rfind("```")?;
    let word = line[at + 3..].trim();
    Language::from_word(word).map(|_| Fence { mark: '`', length: 3, indent: 0, word })
}

/// What follows the mark of a list item.
fn list_item(text: &str) -> Option<&str> {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let marks: &[char] = if digits.len() < text.len() { &['.', ')'] } else { &['-', '*', '+'] };
    let rest = digits.strip_prefix(marks)?;
    rest.starts_with([' ', '\t']).then(|| rest.trim_start())
}

/// How many lines there are before the one that closes the block; with `quoted`, not counting those inside a
/// triple-quoted string.
fn closing(lines: &[&str], fence: &Fence<'_>, quoted: bool) -> Option<usize> {
    let mut string = None;
    lines.iter().position(|line| {
        let text = line.trim();
        let closes = text.len() >= fence.length
            && text.chars().all(|c| c == fence.mark)
            && line.len() - line.trim_start().len() <= fence.indent + 3;
        if closes && string.is_none() {
            return true;
        }
        if quoted {
            string = string_after(line, string);
        }
        false
    })
}

/// The triple quotes of the string that is open after a line of Python.
fn string_after(line: &str, mut open: Option<&'static str>) -> Option<&'static str> {
    let mut rest = line;
    loop {
        if let Some(quotes) = open {
            let Some(end) = rest.find(quotes) else { return open };
            (rest, open) = (&rest[end + quotes.len()..], None);
            continue;
        }
        let start = rest.find(['#', '"', '\''])?;
        rest = &rest[start..];
        if let Some(quotes) = ["\"\"\"", "'''"].into_iter().find(|quotes| rest.starts_with(quotes)) {
            (rest, open) = (&rest[quotes.len()..], Some(quotes));
            continue;
        }
        let quote = rest.chars().next().filter(|c| *c != '#')?;
        let mut escaped = false;
        let end = rest[1..].find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        rest = &rest[end + 2..];
    }
}

fn unindented(line: &str, indent: usize) -> &str {
    let blank = line.len() - line.trim_start_matches([' ', '\t']).len();
    &line[blank.min(indent)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(answer: &str, wanted: Option<Language>) -> String {
        program(answer, wanted).map_or("none".to_owned(), |block| block.code.trim_end().to_owned())
    }

    #[test]
    fn the_program_is_found_among_other_blocks() {
        for (answer, expected) in [
            ("```python\nprint(4)\n```\nOutput:\n```text\n4\n```\n", "print(4)"),
            ("```python\nprint(4)\n```\nExample run:\n```\n4\n```\n", "print(4)"),
            ("```python\nprint(3)\n```\nBetter:\n```python\nprint(4)\n```", "print(4)"),
            ("```\nprint(4)\n```", "print(4)"),
            ("```output\n4\n```", "none"),
            ("Use ```print``` like\n```python\nprint(4)\n```", "print(4)"),
            ("```print``` is used:\n```python\nprint(4)\n```", "print(4)"),
            ("```python\ns = '```'\nprint(4)\n```", "s = '```'\nprint(4)"),
            ("```python\n'''\n```\nfoo\n```\n'''\nprint(4)\n```", "'''\n```\nfoo\n```\n'''\nprint(4)"),
            ("```python\ns = \"it's\" # '''\nprint(4)\n```\nDone.", "s = \"it's\" # '''\nprint(4)"),
            ("```python\ns = '''a\n```\nDone.", "s = '''a"),
            ("1. do\n   ```python\n   if 1:\n       print(4)\n   ```", "if 1:\n    print(4)"),
            ("- ```python\n  print(4)\n  ```", "print(4)"),
            ("~~~python\nprint(4)\n~~~", "print(4)"),
            ("````python\nprint('''\n```\n''')\n````", "print('''\n```\n''')"),
            ("```python\r\nprint(4)\r\n```\r\n", "print(4)"),
            ("```Python3.11 title=\"a\"\nprint(4)\n```", "print(4)"),
            ("```python\nprint(4)\n", "print(4)"),
            ("```python\nprint(4)\n```\n```\n", "print(4)"),
            ("```python\nprint(3)\n```\nNo, wait. ```python\nprint(4)\n```", "print(4)"),
            ("```python\nprint(4)```", "print(4)"),
            ("no code", "none"),
        ] {
            assert_eq!(code(answer, None), expected, "{answer}");
            assert_eq!(code(answer, Some(Language::Python)), expected, "{answer}");
        }
    }

    #[test]
    fn tags_inside_a_program_are_its_text() {
        let tagged = "```python\nprint('<think>a</think><answer>')\n```";
        for (completion, expected) in [
            (format!("<think>x</think>So:\n{tagged}\nDone."), format!("So:\n{tagged}\nDone.")),
            (tagged.to_owned(), tagged.to_owned()),
            (format!("<think>x</think><answer>\n{tagged}\n</answer>"), tagged.to_owned()),
            // What stands outside of programs counts as before.
            (format!("<think>x</think>{tagged}\n</think>No:\n{tagged}"), format!("No:\n{tagged}")),
            (format!("<think>x</think>\n{tagged}\n<think>Or not"), String::new()),
            (format!("Draft:\n{tagged}\n</think>{tagged}"), tagged.to_owned()),
            ("```python\nx\n</think>\n```\nprint(4)\n```".to_owned(), "```\nprint(4)\n```".to_owned()),
            (
                "<think>```python\nx\n</think>\n```python\nprint(4)\n```".to_owned(),
                "```python\nprint(4)\n```".to_owned(),
            ),
            (
                "<think>not </think> yet\n```python\nx\n</think>é\n```python\nprint(4)\n```".to_owned(),
                "é\n```python\nprint(4)\n```".to_owned(),
            ),
        ] {
            assert_eq!(answer(&completion), expected, "{completion}");
        }
    }

    #[test]
    fn the_tests_language_goes_first() {
        let two = "```cpp\nint main(){}\n```\n```python\nprint(4)\n```\n```js\n4\n```";
        assert_eq!(code(two, Some(Language::Cpp)), "int main(){}");
        assert_eq!(code(two, Some(Language::Python)), "print(4)");
        assert_eq!(code(two, None), "4");
    }
}
