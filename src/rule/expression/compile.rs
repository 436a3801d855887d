//! From the text of an expression to its program.

use std::ops::Range;

use meval::tokenizer::{Operation, Token};

use super::{CONSTANTS, Expression, ExpressionError, FUNCTIONS, Function, MAX_NESTING, MAX_STACK, MAX_TEXT, Op};
use crate::error::nearest;

impl Expression {
    /// Parses and checks `text` against the names it may use; a name's position is its slot.
    ///
    /// # Errors
    /// Empty, too long or too deep text, syntax errors, unknown names and functions, wrong
    /// numbers of arguments, and constant expressions that are not finite.
    pub fn compile(text: &str, names: &[&str]) -> Result<Self, ExpressionError> {
        check_characters(text)?;
        check_nesting(text)?;
        let (ops, uses) = lower(text, &parse(text)?, names)?;
        let needs = needed_slots(&ops);
        let expression = Expression { ops, uses, needs, text: text.to_owned() };
        // "1/0 * accuracy": no score makes it a number.
        if [0.0, 1.0, 0.5].iter().all(|&score| !expression.eval(&vec![score; names.len()]).is_finite()) {
            return Err(fail("the expression is never a finite number", 0..text.len()));
        }
        Ok(expression)
    }
}

fn fail(message: impl Into<String>, span: Range<usize>) -> ExpressionError {
    ExpressionError { message: message.into(), span, hint: None }
}

fn check_characters(text: &str) -> Result<(), ExpressionError> {
    let whole = 0..text.len();
    if text.trim().is_empty() {
        return Err(fail("the expression is empty", whole));
    }
    if text.len() > MAX_TEXT {
        return Err(fail(format!("the expression is {} bytes long; the limit is {MAX_TEXT}", text.len()), whole));
    }
    match text.char_indices().find(|&(_, c)| !c.is_ascii() || c.is_ascii_control() && c != '\n') {
        Some((at, c)) => {
            let message = format!("`{}` has no meaning in an expression", c.escape_default());
            Err(fail(message, at..at + c.len_utf8()))
        }
        None => Ok(()),
    }
}

fn check_nesting(text: &str) -> Result<(), ExpressionError> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(fail(format!("brackets are nested deeper than {MAX_NESTING}"), at..at + 1));
        }
    }
    Ok(())
}

/// meval's postfix tokens.
fn parse(text: &str) -> Result<meval::Expr, ExpressionError> {
    // meval trims nothing and panics on what it did not foresee.
    let trimmed = text.trim();
    let offset = text.len() - text.trim_start().len();
    std::panic::catch_unwind(|| trimmed.parse::<meval::Expr>())
        .map_err(|_| fail("the expression cannot be read", 0..text.len()))?
        .map_err(|error| syntax_error(text, offset, &error))
}

/// The program of postfix tokens, and the slots that it reads, ascending.
fn lower(text: &str, tokens: &[Token], names: &[&str]) -> Result<(Vec<Op>, Vec<usize>), ExpressionError> {
    let whole = 0..text.len();
    let mut ops = Vec::with_capacity(tokens.len());
    let (mut uses, mut depth) = (Vec::new(), 0usize);
    for token in tokens {
        let (op, takes) = match token {
            Token::Number(value) if !value.is_finite() => {
                return Err(fail("a number in the expression is out of range", whole));
            }
            Token::Number(value) => (Op::Number(*value), 0),
            Token::Var(name) => {
                let op = value_of(text, name, names)?;
                uses.extend(if let Op::Slot(slot) = op { Some(slot) } else { None });
                (op, 0)
            }
            Token::Binary(operation) => (Op::Binary(*operation), 2),
            Token::Unary(Operation::Minus) => (Op::Negate, 1),
            Token::Unary(_) => continue,
            Token::Func(name, arguments) => {
                let count = arguments.unwrap_or(0);
                (Op::Call(function(text, name, count, &ops, names)?, count), count)
            }
            Token::LParen | Token::RParen | Token::Comma => {
                return Err(fail("a bracket or comma is out of place", whole));
            }
        };
        if depth < takes {
            return Err(fail("an operand is missing", whole));
        }
        depth = depth - takes + 1;
        if depth > MAX_STACK {
            return Err(fail(format!("more than {MAX_STACK} values are open at once"), whole));
        }
        ops.push(op);
    }
    if depth != 1 {
        return Err(fail("the expression does not come to one value", whole));
    }
    uses.sort_unstable();
    uses.dedup();
    Ok((ops, uses))
}

/// What a name stands for: a constant or a slot.
fn value_of(text: &str, name: &str, names: &[&str]) -> Result<Op, ExpressionError> {
    if let Some(constant) = CONSTANTS.iter().find(|constant| constant.0 == name) {
        return Ok(Op::Number(constant.1));
    }
    let slot = names.iter().position(|known| *known == name);
    slot.map(Op::Slot).ok_or_else(|| unknown(text, name, names))
}

/// The function of that name, which may be called with `count` arguments: the last that `ops` come to.
fn function(text: &str, name: &str, count: usize, ops: &[Op], names: &[&str]) -> Result<Function, ExpressionError> {
    let Some(&(_, least, most, function, meaning)) = FUNCTIONS.iter().find(|function| function.0 == name) else {
        return Err(unknown(text, name, names));
    };
    let with_hint = |message: String, hint: &str| {
        let span = find_name(text, name);
        Err(ExpressionError { message, span, hint: Some(hint.to_owned()) })
    };
    if count < least || count > most {
        return with_hint(format!("`{name}` takes {least} arguments, {count} given"), meaning);
    }
    let plain = |op: &Op| matches!(op, Op::Slot(_) | Op::Number(_));
    if matches!(function, Function::First) && !ops[ops.len() - count..].iter().all(plain) {
        let message = "`first` takes rule names and numbers, not expressions".to_owned();
        return with_hint(message, "write first(a, b) and do the arithmetic outside");
    }
    Ok(function)
}

/// Walks the program with, for each value, the slots that must be known for it.
fn needed_slots(ops: &[Op]) -> Vec<usize> {
    let mut stack: Vec<Vec<usize>> = Vec::new();
    for op in ops {
        let needs = match op {
            Op::Number(_) => Vec::new(),
            Op::Slot(slot) => vec![*slot],
            Op::Negate => stack.pop().unwrap_or_default(),
            Op::Binary(_) => stack.split_off(stack.len() - 2).concat(),
            Op::Call(function, count) => {
                let arguments = stack.split_off(stack.len() - count);
                match function {
                    Function::First if *count > 1 => Vec::new(),
                    Function::If => arguments.into_iter().next().unwrap_or_default(),
                    _ => arguments.concat(),
                }
            }
        };
        stack.push(needs);
    }
    let mut needs = stack.pop().unwrap_or_default();
    needs.sort_unstable();
    needs.dedup();
    needs
}

fn syntax_error(text: &str, offset: usize, error: &meval::Error) -> ExpressionError {
    use meval::{Error, ParseError};
    let end = text.trim_end().len();
    let (message, span) = match error {
        Error::ParseError(ParseError::UnexpectedToken(at)) => {
            let at = (at + offset).min(text.len());
            let found = text[at..].trim_start().chars().next();
            let at = text.len() - text[at..].trim_start().len();
            match found {
                Some(found) => (format!("unexpected `{found}` in the expression"), at..at + found.len_utf8()),
                None => ("the expression ends too early".into(), end..end),
            }
        }
        Error::ParseError(ParseError::MissingRParen(count)) => (format!("{count} closing bracket missing"), end..end),
        Error::ParseError(ParseError::MissingArgument) => ("the expression ends where a value is due".into(), end..end),
        other => (other.to_string(), 0..text.len()),
    };
    let operators = ["==", "!=", "<", ">", "&", "|"].iter().any(|op| text.contains(op));
    let hint = operators.then(|| "comparisons are functions: ge(tokens, 100), and(a, b), not(a)".to_owned());
    ExpressionError { message, span, hint }
}

fn unknown(text: &str, name: &str, names: &[&str]) -> ExpressionError {
    let span = find_name(text, name);
    let known = names.iter().copied().chain(FUNCTIONS.iter().map(|f| f.0)).chain(CONSTANTS.iter().map(|c| c.0));
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("names here: {}", names.join(", ")),
    };
    ExpressionError { message: format!("unknown name `{name}` in the expression"), span, hint: Some(hint) }
}

/// The bytes of the first whole-word occurrence of `name`.
fn find_name(text: &str, name: &str) -> Range<usize> {
    let word = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = text.as_bytes();
    text.match_indices(name)
        .map(|(at, _)| at..at + name.len())
        .find(|span| !word(span.start.checked_sub(1).and_then(|i| bytes.get(i))) && !word(bytes.get(span.end)))
        .unwrap_or(0..text.len())
}
