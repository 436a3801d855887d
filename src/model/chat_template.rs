//! Chat templates: the Jinja that turns a conversation into the model's prompt.
//!
//! Renders as `transformers` does: blocks trimmed, `raise_exception`,
//! `strftime_now`, a `tojson` that escapes no HTML, Python's string methods, and
//! `tools` and `documents` present but none.
//!
//! The day that `strftime_now` tells is one and the same on every day, so that what is trained and sampled today comes out
//! of the same tokens tomorrow: 26 July 2024, which Llama's own templates name where they are told none. A conversation
//! with a person has the clock ([`ChatTemplate::with_clock`]).

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context, filters};

use crate::error::{Error, Result};
use crate::schema::Message;

/// A parsed template and the special tokens it may name.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
}

const NAME: &str = "chat_template";

/// Templates by name, for models that have none of their own, as base models do.
///
/// A conversation reads as its last reply was asked for and given: what opens the reply, the reply, the end of turn. So
/// what is trained on, what is sampled and what an earlier turn looks like are the same tokens.
pub const CHAT_TEMPLATES: &[(&str, &str)] = &[("plain", PLAIN), ("r1_zero", R1_ZERO)];

/// What is said, and nothing else: turns with a blank line between, the end of turn after a reply.
const PLAIN: &str = "{% for message in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}{{ message.content }}\
{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}\
{% if add_generation_prompt and messages %}{{ '\n\n' }}{% endif %}";

/// DeepSeek-R1-Zero's (arXiv 2501.12948, table 1), which asks a base model for reasoning and answer in their tags.
/// It ends with the colon, as the paper's does: a space before the reply is the model's to write, with its first word.
const R1_ZERO: &str = "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. \
The assistant first thinks about the reasoning process in the mind and then provides the user with the answer. The \
reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., \
<think> reasoning process here </think> <answer> answer here </answer>.\
{% for message in messages %}\
{% if message.role == 'assistant' %} Assistant:{{ message.content }}{{ eos_token }}\
{% elif message.role == 'user' %} User: {{ message.content }}\
{% else %} {{ message.content }}{% endif %}\
{% endfor %}{% if add_generation_prompt %} Assistant:{% endif %}";

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
        environment.add_function("strftime_now", |format: String| {
            let day = jiff::civil::date(2024, 7, 26).to_zoned(jiff::tz::TimeZone::UTC);
            day.map_err(|e| no_date(&e)).and_then(|day| date(&format, &day))
        });
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|e| failed("the chat template does not parse", e, source))?;
        Ok(ChatTemplate { environment, source: source.to_owned() })
    }

    /// The template with today's date.
    pub fn with_clock(mut self) -> Self {
        self.environment.add_function("strftime_now", |format: String| date(&format, &jiff::Zoned::now()));
        self
    }

    /// The Jinja it was made of.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// # Errors
    /// What the template raises, such as roles in an order it does not take.
    pub fn render(&self, messages: &[Message], special: &[(String, String)], generate: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).expect("added when it was made");
        let special = Value::from_pairs(special.iter().map(|(name, token)| (name.as_str(), token.as_str())));
        let context = context! {
            messages => messages.iter().map(value_of).collect::<Value>(),
            tools => (),
            documents => (),
            add_generation_prompt => generate,
            ..special
        };
        template.render(context).map_err(|e| failed("the chat template refuses the conversation", e, &self.source))
    }
}

fn date(format: &str, at: &jiff::Zoned) -> Result<String, minijinja::Error> {
    jiff::fmt::strtime::format(format, at).map_err(|e| no_date(&e))
}

fn no_date(error: &jiff::Error) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}"))
}

fn value_of(message: &Message) -> Value {
    context! { role => message.role.as_str(), content => message.content.as_str() }
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

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: the library's filter
/// has Python's layout, but escapes what HTML would trip over.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted for Python's sake: transformers never escapes to ASCII.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let json = filters::tojson(value, indent.map(Value::from), Kwargs::from_iter([] as [(&str, Value); 0]))?;
    Ok(Value::from_safe_string(without_html_escapes(json.as_str().unwrap_or_default())))
}

fn without_html_escapes(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let plain = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')];
        match plain.into_iter().find(|(escape, _)| rest.starts_with(escape)) {
            Some((escape, plain)) => {
                out.push(plain);
                rest = &rest[escape.len()..];
            }
            // Any other escape, an escaped backslash among them, is two characters to keep.
            None => {
                out.push_str(&rest[..2]);
                rest = &rest[2..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Role;

    fn user(content: &str) -> Message {
        Message { role: Role::User, content: content.into() }
    }

    #[test]
    fn named_templates_show_a_conversation_and_open_the_reply() {
        let turn = |role, content: &str| Message { role, content: content.into() };
        let turns = [user("1 + 1?"), turn(Role::Assistant, "2"), user("And 2 + 2?")];
        let shown = |name: &str| {
            let (_, source) = CHAT_TEMPLATES.iter().find(|(known, _)| *known == name).unwrap();
            let special = [("eos_token".to_owned(), "<eos>".to_owned())];
            ChatTemplate::new(source).unwrap().render(&turns, &special, true).unwrap()
        };
        assert_eq!(shown("plain"), "1 + 1?\n\n2<eos>\n\nAnd 2 + 2?\n\n");
        let zero = shown("r1_zero");
        assert!(zero.starts_with("A conversation between User and Assistant. The user asks"), "{zero}");
        assert!(zero.ends_with("</answer>. User: 1 + 1? Assistant:2<eos> User: And 2 + 2? Assistant:"), "{zero}");
    }

    #[test]
    fn a_conversation_reads_as_its_replies_were_asked_for_and_given() {
        let turn = |role, content: &str| Message { role, content: content.into() };
        let asked = |i: usize| user(&format!("question {i}"));
        let replied = |i: usize| turn(Role::Assistant, &format!(" <think>\n{i}\n</think> {i}"));
        let system = turn(Role::System, "Be brief.");
        let conversations = [
            vec![asked(1), replied(1)],
            vec![system.clone(), asked(1), replied(1)],
            vec![asked(1), replied(1), asked(2), replied(2)],
            vec![system, asked(1), replied(1), asked(2), turn(Role::Tool, "4"), replied(2)],
        ];
        let special = [("eos_token".to_owned(), "<eos>".to_owned())];
        for (name, source) in CHAT_TEMPLATES {
            let template = ChatTemplate::new(source).unwrap();
            let shown = |turns: &[Message], generate| template.render(turns, &special, generate).unwrap();
            for turns in &conversations {
                let (last, before) = turns.split_last().unwrap();
                let trained = shown(before, true) + &last.content + "<eos>";
                assert_eq!(shown(turns, false), trained, "{name}");
            }
        }
    }

    #[test]
    fn json_is_pythons() {
        let template = ChatTemplate::new("{{ {'a': [1, 'é<\\\\u003c'], 'b': none} | tojson }}").unwrap();
        assert_eq!(template.render(&[], &[], false).unwrap(), r#"{"a": [1, "é<\\u003c"], "b": null}"#);
    }

    #[test]
    fn a_date_is_the_same_every_day_unless_somebody_is_spoken_to() {
        let template = || ChatTemplate::new("{{ strftime_now('%d %b %Y') }}").unwrap();
        assert_eq!(template().render(&[], &[], false).unwrap(), "26 Jul 2024");
        let year: i16 = ChatTemplate::new("{{ strftime_now('%Y') }}")
            .unwrap()
            .with_clock()
            .render(&[], &[], false)
            .unwrap()
            .parse()
            .unwrap();
        assert!(year > 2024, "{year}");
        let message = ChatTemplate::new("{{ strftime_now('%') }}").unwrap().render(&[], &[], false).unwrap_err();
        assert!(message.to_string().contains("strftime_now"), "{message}");
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
