//! Chat templates: the Jinja that turns a conversation into the model's prompt.
//!
//! Renders as `transformers` does: blocks trimmed, `raise_exception`,
//! `strftime_now`, a `tojson` that escapes no HTML, Python's string methods, and
//! `tools` and `documents` present but none.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};

use crate::error::{Error, Result};
use crate::schema::Message;

/// A parsed template and the special tokens it may name.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// # Errors
    /// A template that does not parse, with its line.
    pub fn new(source: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the default delimiters do not clash"));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| jiff::Zoned::now().strftime(&format).to_string());
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|e| failed("the chat template does not parse", e, source))?;
        Ok(ChatTemplate { environment, source: source.to_owned() })
    }

    /// The Jinja it was made of.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// # Errors
    /// What the template raises, such as roles in an order it does not take.
    pub fn render(&self, messages: &[Message], special: &[(String, String)], generate: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).expect("added when it was made");
        let special: Value = special.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))).collect();
        let context = context! {
            messages => Value::from_serialize(messages),
            tools => (),
            documents => (),
            add_generation_prompt => generate,
            ..special
        };
        template.render(context).map_err(|e| failed("the chat template refuses the conversation", e, &self.source))
    }
}

fn failed(what: &str, error: minijinja::Error, source: &str) -> Error {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let failed = Error::new(format!("{what}: {detail}")).in_file(NAME);
    match (error.range(), error.line()) {
        (Some(range), _) if range.end <= source.len() => failed.at_span(source, range),
        (_, Some(line)) => failed.at_line(line, None),
        _ => failed,
    }
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted for Python's sake; text is never escaped to ASCII, as transformers has it.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let invalid = |e: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut out = Vec::new();
    match indent {
        None => {
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
            serde::Serialize::serialize(value, &mut serializer).map_err(invalid)?;
        }
        Some(width) => {
            let indent = " ".repeat(width);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
            serde::Serialize::serialize(value, &mut serializer).map_err(invalid)?;
        }
    }
    Ok(Value::from_safe_string(String::from_utf8(out).expect("JSON is UTF-8")))
}

/// Python's separators: `, ` and `: `.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Role;

    fn user(content: &str) -> Message {
        Message { role: Role::User, content: content.into() }
    }

    #[test]
    fn json_is_pythons() {
        let template = ChatTemplate::new("{{ {'a': [1, 'é<'], 'b': none} | tojson }}").unwrap();
        assert_eq!(template.render(&[], &[], false).unwrap(), r#"{"a": [1, "é<"], "b": null}"#);
    }

    #[test]
    fn special_tokens_and_python_methods_are_there() {
        let source = "{{ bos_token }}{% for m in messages %}\n    {{ m['content'].strip().upper() }}{% endfor %}\n";
        let special = [("bos_token".to_owned(), "<s>".to_owned())];
        assert_eq!(ChatTemplate::new(source).unwrap().render(&[user(" hi ")], &special, true).unwrap(), "<s>    HI");
    }

    #[test]
    fn what_a_template_raises_is_an_error_with_its_words() {
        let template = ChatTemplate::new("{{ raise_exception('roles must alternate') }}").unwrap();
        let message = template.render(&[user("x")], &[], true).unwrap_err().to_string();
        assert!(message.contains("roles must alternate"), "{message}");
        let message = ChatTemplate::new("line\n{% if %}").unwrap_err().to_string();
        assert!(message.contains("does not parse") && message.contains(":2"), "{message}");
    }
}
