//! The domain of a sample that nobody named one for.

use super::{choice, code};

/// The domain that says how a sample is checked, told from what it is checked by: `code` where its verification (or gold
/// answer) holds tests, `stem` where it lists options, `math` where there is a gold answer, else `general`.
pub fn domain_of(gold: Option<&str>, verification: Option<&str>) -> &'static str {
    if code::has_tests(gold, verification) {
        "code"
    } else if choice::has_options(verification) {
        "stem"
    } else if gold.is_some() {
        "math"
    } else {
        "general"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sample_is_checked_by_says_its_domain() {
        let tests = r#"{"inputs": ["1"], "outputs": ["2"]}"#;
        assert_eq!(domain_of(None, Some(tests)), "code");
        assert_eq!(domain_of(Some(tests), None), "code");
        assert_eq!(domain_of(Some("C"), Some(r#"{"choices": ["4", "6", "7"]}"#)), "stem");
        assert_eq!(domain_of(Some("42"), None), "math");
        assert_eq!(domain_of(Some("42"), Some(r#"{"unit": "cm"}"#)), "math");
        assert_eq!(domain_of(None, Some(r#"{"constraints": [{"id": "x"}]}"#)), "general");
        assert_eq!(domain_of(None, None), "general");
    }
}
