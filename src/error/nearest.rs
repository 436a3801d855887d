//! "Did you mean …?": a slip of the pen and the name that was meant.

/// The closest of `known` to what was written, the first of several; `None` if none is close enough to be meant: longer
/// names may differ in more places.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = |text: &str| text.chars().count();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|&(distance, name)| distance <= 1 + length(name).min(length(written)) / 4)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_another_word() {
        let known = ["prompts", "sft", "grpo", "temperature"];
        for (written, meant) in [
            ("promts", Some("prompts")),
            ("temprature", Some("temperature")),
            ("tempretur", Some("temperature")),
            ("stf", Some("sft")),
            ("gprO", Some("grpo")),
            ("rl", None),
            ("temp", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
        assert_eq!(nearest("prompts", []), None);
    }
}
