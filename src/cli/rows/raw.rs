//! The text of a JSON row, so that what is carried over is carried over as it was written.
//!
//! A number that passes through a float comes out as another one: `1.10`, `1e2` and integers beyond 64 bits.
//! What is read here is text that serde_json has taken, or will.

use std::borrow::Cow;

/// Keys and values of an object's text, as they are written; `None` if it is no object.
pub fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let (mut all, mut key, mut start, mut depth) = (Vec::new(), None, 0, 0usize);
    let bytes = inside.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b':' if depth == 0 && key.is_none() => {
                key = Some(inside[start..at].trim());
                start = at + 1;
            }
            b',' if depth == 0 => {
                all.push((key.take()?, inside[start..at].trim()));
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    match key {
        Some(key) => all.push((key, inside[start..].trim())),
        None if all.is_empty() && inside.trim().is_empty() => {}
        None => return None,
    }
    Some(all)
}

/// A key without its quotes.
pub fn name(key: &str) -> Cow<'_, str> {
    match key.strip_prefix('"').and_then(|key| key.strip_suffix('"')) {
        Some(bare) if !bare.contains('\\') => Cow::Borrowed(bare),
        _ => serde_json::from_str::<String>(key).map_or(Cow::Borrowed(key), Cow::Owned),
    }
}

/// The text with what JSON has no number for (`NaN`, `Infinity`, `1e999`) as null: Python writes such rows.
pub fn without_oddities(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let (mut at, mut from) = (0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at) + 1,
            b'N' | b'I' | b'-' | b'0'..=b'9' => {
                let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-');
                let end = at + bytes[at..].iter().take_while(|b| word(b)).count();
                let token = &text[at..end];
                let odd = matches!(token, "NaN" | "-NaN" | "Infinity" | "-Infinity")
                    || token.parse::<f64>().is_ok_and(f64::is_infinite);
                if odd {
                    out.push_str(&text[from..at]);
                    out.push_str("null");
                    from = end;
                }
                at = end.max(at + 1);
            }
            _ => at += 1,
        }
    }
    out.push_str(&text[from..]);
    out
}

/// The place of the quote that closes the string opened at `at`, or of the last byte.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end.min(bytes.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_the_text_that_was_written() {
        let text = r#" {"a": 1.10, "b\"}": {"c": [1e2, "x,y"]} , "d":"}" } "#;
        let found = members(text).unwrap();
        assert_eq!(found, [("\"a\"", "1.10"), (r#""b\"}""#, r#"{"c": [1e2, "x,y"]}"#), ("\"d\"", "\"}\"")]);
        assert_eq!((name(found[0].0), name(found[1].0)), ("a".into(), "b\"}".into()));
        assert_eq!(members("{}"), Some(vec![]));
        for bad in ["[1]", "", "{", "{1}", "{\"a\":1,}", "{]}", "{\"a"] {
            assert_eq!(members(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_json_number_becomes_null_outside_strings() {
        let text = r#"{"a": NaN, "b": [-Infinity, 1e999, 1e9, -0.5], "c": "NaN \" 1e999", "NaN": true}"#;
        let clean = r#"{"a": null, "b": [null, null, 1e9, -0.5], "c": "NaN \" 1e999", "NaN": true}"#;
        assert_eq!(without_oddities(text), clean);
        for cut in (0..text.len()).filter(|&at| text.is_char_boundary(at)) {
            without_oddities(&text[..cut]);
            members(&text[..cut]);
        }
    }
}
