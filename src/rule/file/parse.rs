//! From TOML tables to a [`RuleSet`]: every key known, every name resolved.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::example::{Example, RawExample};
use super::facts::{Slot, facts};
use super::source::{self, Sources};
use super::{Entry, MAX_RULES, Reward, RuleSet, outcome, print};
use crate::error::{Error, Result, nearest};
use crate::rule::expression::{Expression, is_reserved};
use crate::rule::params::in_a_line;
use crate::rule::registry::{self, BuildError, Kind};

type Value<'a> = Spanned<DeValue<'a>>;
type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

const TOP_KEYS: &[&str] =
    &["extends", "reward", "outcome", "clip", "without", "meta", "rule", "rules", "rewards", "examples"];
const META_KEYS: &[&str] = &["name", "description", "version", "authors", "url"];
/// Keys that every rule may have beside its own parameters.
pub(super) const COMMON_KEYS: &[&str] = &["kind", "domains", "languages", "fallback_for"];

/// What a chain of files says together; a later file wins.
#[derive(Default)]
struct Merged<'a> {
    name: Option<String>,
    description: Option<String>,
    reward: Option<(String, Range<usize>)>,
    outcome: Option<(Vec<String>, Range<usize>)>,
    clip: Option<(f64, f64)>,
    rewards: BTreeMap<String, (String, Range<usize>)>,
    rules: Vec<(String, Range<usize>, DeTable<'a>)>,
    examples: Vec<Example>,
}

/// Parses `text`, following `extends` from `folder`.
pub(super) fn rule_set(text: &str, name: &str, folder: Option<&Path>) -> Result<RuleSet> {
    let sources = Sources::collect(text, name, folder)?;
    let reader = Reader { sources: &sources };
    let mut merged = Merged::default();
    let last = sources.0.len() - 1;
    for (index, source) in sources.0.iter().enumerate() {
        let offset = source.padded.len() - source.text.len();
        let table = source::parse(&source.padded, &source.text, offset).map_err(|e| e.in_file(&source.name))?;
        merged.examples.clear();
        reader.file(table, &mut merged, index == last)?;
    }
    reader.build(merged, name)
}

struct Reader<'s> {
    sources: &'s Sources,
}

impl Reader<'_> {
    fn fail(&self, message: impl Into<String>, span: Range<usize>) -> Error {
        self.sources.place(Error::usage(message), span)
    }

    fn unknown_key(&self, key: &Key<'_>, known: &[&str], what: &str) -> Error {
        let error = self.fail(format!("unknown key `{}` in {what}", key.get_ref()), key.span());
        match nearest(key.get_ref(), known.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("known here: {}", known.join(", "))),
        }
    }

    fn string(&self, value: &Value<'_>, key: &str) -> Result<String> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            other => Err(self.fail(format!("`{key}` takes a string, not a {}", other.type_str()), value.span())),
        }
    }

    fn strings(&self, value: &Value<'_>, key: &str) -> Result<Vec<String>> {
        match value.get_ref() {
            DeValue::String(text) => Ok(vec![text.to_string()]),
            DeValue::Array(items) => items.iter().map(|item| self.string(item, key)).collect(),
            other => Err(self
                .fail(format!("`{key}` takes a string or a list of them, not a {}", other.type_str()), value.span())),
        }
    }

    fn number(&self, value: &Value<'_>, key: &str) -> Result<f64> {
        let text = match value.get_ref() {
            DeValue::Integer(integer) => integer.as_str(),
            DeValue::Float(float) => float.as_str(),
            _ => "",
        };
        text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| {
            self.fail(format!("`{key}` takes a finite number, not a {}", value.get_ref().type_str()), value.span())
        })
    }

    fn file<'a>(&self, table: DeTable<'a>, merged: &mut Merged<'a>, last: bool) -> Result<()> {
        // Tables come sorted by name; what the author wrote first matters, so go by place.
        let mut entries: Vec<(Key<'a>, Value<'a>)> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        // `without` speaks of the base's rules, wherever it stands.
        entries.sort_by_key(|(key, _)| key.get_ref() != "without");
        for (key, value) in entries {
            let span = value.span();
            match key.get_ref().as_ref() {
                "extends" => {}
                "without" => {
                    for name in self.strings(&value, "without")? {
                        let before = merged.rules.len();
                        merged.rules.retain(|(rule, ..)| *rule != name);
                        if merged.rules.len() == before {
                            return Err(self.fail(format!("the extended file has no rule `{name}`"), span));
                        }
                    }
                }
                "reward" => merged.reward = Some((self.string(&value, "reward")?, span)),
                "outcome" => merged.outcome = Some((self.strings(&value, "outcome")?, span)),
                "clip" => merged.clip = Some(self.clip(&value)?),
                "meta" => self.meta(value, merged, last)?,
                "rewards" => {
                    for (domain, value) in self.table(value, "rewards")? {
                        let text = self.string(&value, domain.get_ref())?;
                        merged.rewards.insert(domain.into_inner().into_owned(), (text, value.span()));
                    }
                }
                "rules" => {
                    let mut rules: Vec<_> = self.table(value, "rules")?.into_iter().collect();
                    rules.sort_by_key(|(name, _)| name.span().start);
                    for (name, value) in rules {
                        let body = self.table(value, name.get_ref())?;
                        self.rule(name.get_ref().to_string(), name.span(), body, merged)?;
                    }
                }
                "rule" => {
                    for item in self.array(value, "rule")? {
                        let span = item.span();
                        let mut body = self.table(item, "rule")?;
                        let Some(name) = body.remove("name") else {
                            return Err(self.fail("a `[[rule]]` needs a `name`", span));
                        };
                        self.rule(self.string(&name, "name")?, name.span(), body, merged)?;
                    }
                }
                "examples" if last => {
                    for item in self.array(value, "examples")? {
                        merged.examples.push(self.example(item)?);
                    }
                }
                "examples" => {}
                _ => return Err(self.unknown_key(&key, TOP_KEYS, "the rule file")),
            }
        }
        Ok(())
    }

    fn table<'a>(&self, value: Value<'a>, key: &str) -> Result<DeTable<'a>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Ok(table),
            other => Err(self.fail(format!("`{key}` is a table, not a {}", other.type_str()), span)),
        }
    }

    fn array<'a>(&self, value: Value<'a>, key: &str) -> Result<Vec<Value<'a>>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(items) => Ok(items.into_iter().collect()),
            other => Err(self
                .fail(format!("`{key}` is a list of tables, not a {}", other.type_str()), span)
                .hint(format!("write [[{key}]]"))),
        }
    }

    fn clip(&self, value: &Value<'_>) -> Result<(f64, f64)> {
        let bounds = match value.get_ref() {
            DeValue::Array(items) if items.len() == 2 => {
                (self.number(&items[0], "clip")?, self.number(&items[1], "clip")?)
            }
            _ => return Err(self.fail("`clip` takes two numbers", value.span()).hint("clip = [0, 1]")),
        };
        if bounds.0 > bounds.1 {
            return Err(self.fail("`clip` has its bounds the wrong way round", value.span()));
        }
        Ok(bounds)
    }

    fn meta<'a>(&self, value: Value<'a>, merged: &mut Merged<'a>, last: bool) -> Result<()> {
        for (key, value) in self.table(value, "meta")? {
            match key.get_ref().as_ref() {
                "name" if last => merged.name = Some(self.string(&value, "name")?),
                "description" if last => merged.description = Some(self.string(&value, "description")?),
                known if META_KEYS.contains(&known) => {}
                above if TOP_KEYS.contains(&above) => {
                    return Err(self
                        .fail(format!("`{above}` belongs to the whole file, not to [meta]"), key.span())
                        .hint("write it above the first [table]"));
                }
                _ => return Err(self.unknown_key(&key, META_KEYS, "[meta]")),
            }
        }
        Ok(())
    }

    /// Adds a rule, or changes the one of that name that the base declared.
    fn rule<'a>(&self, name: String, span: Range<usize>, body: DeTable<'a>, merged: &mut Merged<'a>) -> Result<()> {
        let word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !word || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err(self
                .fail(format!("`{name}` cannot be a rule's name"), span)
                .hint("letters, digits and `_`, as it is used in the reward expression"));
        }
        if is_reserved(&name) || facts().any(|fact| fact.0 == name) {
            return Err(self.fail(format!("the name `{name}` already means something in expressions"), span));
        }
        let own_file = |other: &Range<usize>| {
            let file = |at: usize| self.sources.0.iter().position(|source| at <= source.padded.len());
            file(other.start) == file(span.start)
        };
        let full = merged.rules.len() == MAX_RULES;
        match merged.rules.iter_mut().find(|(rule, ..)| *rule == name) {
            Some((_, other, _)) if own_file(other) => Err(self.fail(format!("rule `{name}` is declared twice"), span)),
            Some((_, place, base)) => {
                *place = span;
                if body.contains_key("kind") {
                    *base = body;
                } else {
                    for (key, value) in body {
                        base.remove(key.get_ref().as_ref());
                        base.insert(key, value);
                    }
                }
                Ok(())
            }
            None if full => Err(self.fail(format!("a rule file has at most {MAX_RULES} rules"), span)),
            None => {
                merged.rules.push((name, span, body));
                Ok(())
            }
        }
    }

    fn example(&self, value: Value<'_>) -> Result<Example> {
        let span = value.span();
        let raw: RawExample = serde::Deserialize::deserialize(ValueDeserializer::from(value))
            .map_err(|error| self.form_error(error, span.clone(), RawExample::KEYS))?;
        raw.check(self.line(span.start), span.clone()).map_err(|(message, hint)| self.fail(message, span).hint(hint))
    }

    fn line(&self, at: usize) -> usize {
        let Some(source) = self.sources.0.iter().find(|source| at <= source.padded.len()) else { return 0 };
        source.padded.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1
    }

    /// A serde error, with the suggestion it lacks.
    fn form_error(&self, error: toml::de::Error, table: Range<usize>, known: &[&str]) -> Error {
        let span = error.span().filter(|span| !span.is_empty()).unwrap_or(table);
        let message = error.message().lines().next().unwrap_or("this does not have the right form").to_owned();
        let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        match unknown {
            None => self.fail(message.clone(), span),
            Some(key) => {
                let found = self.fail(format!("unknown key `{key}`"), span);
                // serde names the keys it knows, each in backquotes, after the unknown one.
                let mut known: Vec<&str> = known.to_vec();
                known.extend(
                    message.split('`').skip(3).step_by(2).filter(|name| !known.contains(name)).collect::<Vec<_>>(),
                );
                match nearest(key, known.iter().copied()) {
                    Some(near) => found.hint(format!("did you mean `{near}`?")),
                    None => found.hint(format!("known here: {}", known.join(", "))),
                }
            }
        }
    }

    fn build(&self, merged: Merged<'_>, file: &str) -> Result<RuleSet> {
        if merged.rules.is_empty() {
            let end = self.sources.0.last().map_or(0, |source| source.padded.len());
            return Err(self.fail("the rule file has no rules", end..end).hint("[rules.accuracy]\nkind = \"math\""));
        }
        let resolved = print::resolved(&print::Parts {
            reward: merged.reward.as_ref().map(|r| r.0.as_str()),
            outcome: merged.outcome.as_ref().map(|o| o.0.as_slice()),
            clip: merged.clip,
            rewards: &merged.rewards,
            rules: &merged.rules,
        });
        let mut rules: Vec<Entry> = Vec::new();
        for (name, span, body) in merged.rules {
            let entry = self.entry(name, span, body, &rules)?;
            rules.push(entry);
        }
        let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).chain(facts().map(|fact| fact.0)).collect();
        let named = merged.outcome.map(|(listed, span)| {
            outcome::named(&rules, &listed)
                .map_err(|(message, hint)| hint.into_iter().fold(self.fail(message, span), Error::hint))
        });
        let named = named.transpose()?;
        let reward_of = |text: &str, span: Range<usize>, domain: Option<&str>| {
            let expression = self.expression(text, span.clone(), &names)?;
            self.check_takes(&expression, &rules, domain, span)?;
            let outcome = named.clone().unwrap_or_else(|| outcome::by_default(&rules, &expression, domain));
            Ok::<_, Error>(Reward { expression, outcome })
        };
        let mut rewards = Vec::new();
        for (domain, (text, span)) in merged.rewards {
            rewards.push((domain.clone(), reward_of(&text, span, Some(&domain))?));
        }
        let reward = match merged.reward {
            Some((text, span)) => Some(reward_of(&text, span, None)?),
            None if rules.len() == 1 => Some(reward_of(&rules[0].name, 0..0, None)?),
            None if rewards.is_empty() => {
                let first = merged_first_span(&rules);
                return Err(self.fail("the rule file says no `reward`", first).hint("reward = \"accuracy * format\""));
            }
            None => None,
        };
        self.check_examples(&merged.examples, &rules)?;
        let digest = print::digest(&resolved);
        Ok(RuleSet {
            name: merged.name.unwrap_or_else(|| file.to_owned()),
            description: merged.description.unwrap_or_default(),
            file: file.to_owned(),
            rules,
            reward,
            rewards,
            clip: merged.clip,
            examples: merged.examples,
            resolved,
            digest,
        })
    }

    /// A reward's expression; `names` are the rules' and the facts'.
    fn expression(&self, text: &str, span: Range<usize>, names: &[&str]) -> Result<Expression> {
        Expression::compile(text, names).map_err(|error| {
            let span = self.inside(span, text, error.span);
            let placed = self.fail(error.message, span);
            error.hint.into_iter().fold(placed, Error::hint)
        })
    }

    /// Checks that samples of the domain, if one is given, are taken by all rules that a reward needs, and that some
    /// sample is.
    fn check_takes(
        &self,
        expression: &Expression,
        rules: &[Entry],
        domain: Option<&str>,
        span: Range<usize>,
    ) -> Result<()> {
        let needed: Vec<&Entry> = Slot::rules(expression.needs(), rules.len()).map(|index| &rules[index]).collect();
        if let Some(domain) = domain
            && let Some(rule) = needed.iter().find(|rule| !rule.takes_domain(domain))
        {
            let message =
                format!("the reward of `{domain}` needs rule `{}`, which does not take that domain", rule.name);
            return Err(self.fail(message, span).hint(format!("add \"{domain}\" to its `domains`")));
        }
        // Rules that never take the same sample are never known together.
        let apart =
            |a: &[String], b: &[String]| !a.is_empty() && !b.is_empty() && !a.iter().any(|name| b.contains(name));
        for (index, one) in needed.iter().enumerate() {
            let other = needed[index + 1..]
                .iter()
                .find(|other| apart(&one.domains, &other.domains) || apart(&one.languages, &other.languages));
            if let Some(other) = other {
                let message = format!(
                    "the reward needs `{}` and `{}` together, and no sample is taken by both",
                    one.name, other.name
                );
                return Err(self.fail(message, span).hint(format!(
                    "first({}, {}) takes the one that there is; [rewards] has a reward for each domain",
                    one.name, other.name
                )));
            }
        }
        Ok(())
    }

    /// Checks that examples expect scores of rules that there are.
    fn check_examples(&self, examples: &[Example], rules: &[Entry]) -> Result<()> {
        for example in examples {
            if let Some(unknown) = example.scored().find(|name| !rules.iter().any(|rule| rule.name == *name)) {
                let error =
                    self.fail(format!("the example expects a score of `{unknown}`, which is no rule"), example.span());
                return Err(match nearest(unknown, rules.iter().map(|rule| rule.name.as_str())) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error,
                });
            }
        }
        Ok(())
    }

    /// Where `inner` bytes of a string value are in the file, if it is written without escapes.
    fn inside(&self, value: Range<usize>, text: &str, inner: Range<usize>) -> Range<usize> {
        match self.sources.text(value.clone()).find(text) {
            Some(at) => value.start + at + inner.start..value.start + at + inner.end,
            None => value,
        }
    }

    fn entry(&self, name: String, span: Range<usize>, mut body: DeTable<'_>, before: &[Entry]) -> Result<Entry> {
        let Some(kind_value) = body.remove("kind") else {
            return Err(self.fail(format!("rule `{name}` has no `kind`"), span).hint("kind = \"math\""));
        };
        let kind_name = self.string(&kind_value, "kind")?;
        let Some(kind) = registry::kind(&kind_name) else {
            let names = || registry::kinds().iter().map(|kind| kind.name);
            let error = self.fail(format!("there is no kind of rule `{kind_name}`"), kind_value.span());
            return Err(match nearest(&kind_name, names()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("kinds: {}", names().collect::<Vec<_>>().join(", "))),
            });
        };
        let mut list = |key: &str| body.remove(key).map_or(Ok(Vec::new()), |value| self.strings(&value, key));
        let domains = list("domains")?;
        let languages = list("languages")?;
        let fallback_for = match body.remove("fallback_for") {
            None => Vec::new(),
            Some(value) => {
                let find = |wanted: String| {
                    before.iter().position(|rule| rule.name == wanted).ok_or_else(|| {
                        self.fail(format!("`fallback_for` names no rule above this one: `{wanted}`"), value.span())
                    })
                };
                self.strings(&value, "fallback_for")?.into_iter().map(find).collect::<Result<Vec<_>>>()?
            }
        };
        let rule = self.make(kind, body, span.clone())?;
        Ok(Entry { name, span, kind, domains, languages, fallback_for, rule })
    }

    fn make(&self, kind: &'static Kind, body: DeTable<'_>, span: Range<usize>) -> Result<Box<dyn crate::rule::Rule>> {
        let places: Vec<(String, Range<usize>)> =
            body.iter().map(|(key, value)| (key.get_ref().to_string(), value.span())).collect();
        let fields = (kind.fields)();
        let known: Vec<&str> = fields.iter().map(|field| field.name).chain(COMMON_KEYS.iter().copied()).collect();
        kind.build(Spanned::new(span.clone(), DeValue::Table(body))).map_err(|error| match error {
            BuildError::Form(error) => {
                let at = error.span().unwrap_or(0..0);
                let inside = |place: &Range<usize>| place.start <= at.start && at.end <= place.end;
                let key = places.iter().find(|(_, place)| inside(place)).map(|(key, _)| key.as_str());
                let field = fields.iter().find(|field| Some(field.name) == key);
                let hint =
                    field.map(|field| format!("`{}` takes {}: {}", field.name, field.form(), in_a_line(field.doc)));
                hint.into_iter().fold(self.form_error(error, span, &known), Error::hint)
            }
            BuildError::Value(error) => {
                let at = places.iter().find(|(key, _)| key == error.field).map_or(span, |(_, place)| place.clone());
                error.hint.into_iter().fold(self.fail(error.message, at), Error::hint)
            }
        })
    }
}

fn merged_first_span(rules: &[Entry]) -> Range<usize> {
    rules.first().map_or(0..0, |rule| rule.span.clone())
}
