//! Names of the Hugging Face Hub where a path is wanted: nothing is fetched from there.

/// Endings that names of files have, and names of repositories do not.
const FILES: [&str; 8] = [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".zst", ".toml"];

/// What to do where a path names a repository of the Hub; `None` if it does not look like one.
pub fn hub_hint(path: &str) -> Option<String> {
    let (told, of_dataset) = match path.strip_prefix("hf://") {
        Some(rest) => match rest.strip_prefix("datasets/") {
            Some(rest) => (rest, true),
            None => (rest, false),
        },
        None => (path, false),
    };
    let is_url = path.starts_with("hf://");
    let mut parts = told.split('/');
    let (owner, name) = (parts.next()?, parts.next()?);
    let is_word = |part: &str| {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(valid)
    };
    // A file that is missing in a folder beside the recipe.
    let is_file = FILES.iter().any(|ending| name.ends_with(ending)) && !is_url;
    if is_file || !is_word(owner) || !is_word(name) || (parts.next().is_some() && !is_url) {
        return None;
    }
    Some(match (is_url, of_dataset) {
        (true, true) => format!(
            "download it first, `hf download {owner}/{name} --repo-type dataset --local-dir DIR`, and give the files in DIR"
        ),
        (true, false) => format!("download it first, `hf download {owner}/{name} --local-dir DIR`, and give DIR"),
        (false, _) => format!(
            "if it is a repository of the Hugging Face Hub, download it first, `hf download {owner}/{name} --local-dir DIR` \
             (a dataset with `--repo-type dataset`), and give DIR"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        let has = |path: &str, text: &str| hub_hint(path).is_some_and(|hint| hint.contains(text));
        assert!(has("Qwen/Qwen2.5-0.5B", "`hf download Qwen/Qwen2.5-0.5B --local-dir DIR`"));
        assert!(has("hf://Qwen/Qwen2.5-0.5B", "`hf download Qwen/Qwen2.5-0.5B --local-dir DIR`"));
        assert!(has("hf://datasets/openai/gsm8k/main/train.parquet", "openai/gsm8k --repo-type dataset"));
        for path in ["model", "./a/b", "/a/b", "../a", "a/b/c", "data/rows.jsonl", "~/a", "", "a/", "s3://a/b"] {
            assert_eq!(hub_hint(path), None, "{path}");
        }
    }
}
