//! The page: templates that escape whatever they are given.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Value};
use serde::Serialize;

use super::chart::short;
use crate::error::{Error, Result};

const TEMPLATES: &[(&str, &str)] = &[
    ("page.html", include_str!("templates/page.html")),
    ("style.css", include_str!("templates/style.css")),
    ("stages.html", include_str!("templates/stages.html")),
    ("claims.html", include_str!("templates/claims.html")),
    ("curves.html", include_str!("templates/curves.html")),
    ("chart.html", include_str!("templates/chart.html")),
    ("funnel.html", include_str!("templates/funnel.html")),
    ("verdicts.html", include_str!("templates/verdicts.html")),
    ("lengths.html", include_str!("templates/lengths.html")),
    ("groups.html", include_str!("templates/groups.html")),
];

/// The whole page.
///
/// # Errors
/// A template does not fit its data: a fault of ours, and not of the run.
pub fn render(page: &impl Serialize) -> Result<String> {
    render_template("page.html", page)
}

/// One template, which sees the fields of `data`.
pub(super) fn render_template(name: &str, data: &impl Serialize) -> Result<String> {
    let failed = |e: minijinja::Error| {
        let place = e.line().map_or_else(String::new, |line| format!(":{line}"));
        Error::new(format!("the report's template {name}{place} does not fit its data: {e}"))
    };
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters do not clash"));
    environment.set_auto_escape_callback(|name| match name.ends_with(".css") {
        true => AutoEscape::None,
        false => AutoEscape::Html,
    });
    for (name, source) in TEMPLATES {
        environment.add_template(name, source).map_err(failed)?;
    }
    environment.add_filter("number", number);
    environment.add_filter("tenths", |value: Value| known(&value, |x| format!("{x:.1}")));
    environment.add_filter("percent", percent);
    environment.add_filter("count", count);
    environment.add_filter("seconds", seconds);
    environment.add_filter("words", |text: String| text.replace('_', " "));
    let data = serde_json::to_value(data).map_err(|e| Error::new("the report's data is not plain").caused_by(e))?;
    environment.get_template(name).map_err(failed)?.render(of_json(data)).map_err(failed)
}

/// minijinja is built without serde.
fn of_json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(flag),
        Json::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => items.into_iter().map(of_json).collect(),
        Json::Object(fields) => Value::from_pairs(fields.into_iter().map(|(key, value)| (key, of_json(value)))),
    }
}

const UNKNOWN: &str = "–";

fn known(value: &Value, tell: impl Fn(f64) -> String) -> String {
    match f64::try_from(value.clone()) {
        Ok(x) if x.is_finite() => tell(x),
        _ => UNKNOWN.to_owned(),
    }
}

/// Four digits after the point at most.
fn number(value: Value) -> String {
    known(&value, |x| short(x).replace('-', "−"))
}

/// A share as percent.
fn percent(value: Value) -> String {
    known(&value, |x| format!("{:.1}%", 100.0 * x).replace('-', "−"))
}

/// Thousands apart.
fn count(value: Value) -> String {
    known(&value, |x| {
        let digits = format!("{x:.0}");
        let mut out = String::with_capacity(digits.len() + digits.len() / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i) % 3 == 0 {
                out.push(',');
            }
            out.push(digit);
        }
        out
    })
}

/// A duration.
fn seconds(value: Value) -> String {
    known(&value, |x| match x {
        x if x < 0.1 => format!("{:.0} ms", 1000.0 * x),
        x if x < 100.0 => format!("{x:.1} s"),
        x if x < 6000.0 => format!("{:.0} min {:02.0} s", (x / 60.0).floor(), (x % 60.0).floor()),
        x => format!("{:.0} h {:02.0} min", (x / 3600.0).floor(), (x % 3600.0 / 60.0).floor()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_for_people() {
        let told: Vec<String> = [0.0, 999.0, 1000.0, 1234567.0].map(|x| count(Value::from(x))).into();
        assert_eq!(told, ["0", "999", "1,000", "1,234,567"]);
        let told: Vec<String> = [0.012, 4.26, 99.0, 754.0, 7384.0].map(|x| seconds(Value::from(x))).into();
        assert_eq!(told, ["12 ms", "4.3 s", "99.0 s", "12 min 34 s", "2 h 03 min"]);
        assert_eq!((percent(Value::from(0.9166)), number(Value::from(-1.0 / 3.0))), ("91.7%".into(), "−0.3333".into()));
        assert_eq!((number(Value::from(())), percent(Value::from(f64::NAN))), ("–".into(), "–".into()));
    }
}
