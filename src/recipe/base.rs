//! The folder that a recipe lies in.

use std::path::{Path, PathBuf};

/// What relative paths of a recipe are relative to.
#[derive(Clone, Debug)]
pub struct Base(PathBuf);

impl Base {
    /// That folder.
    pub fn new(folder: impl Into<PathBuf>) -> Base {
        Base(folder.into())
    }

    /// A path written in the recipe, made absolute or relative to the recipe's folder. URLs stay.
    pub fn resolve(&self, path: &str) -> String {
        if path.contains("://") || Path::new(path).is_absolute() {
            path.to_owned()
        } else {
            self.0.join(path).display().to_string()
        }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_recipe_and_others_stay() {
        let base = Base::new("recipes");
        assert_eq!(base.resolve("data/questions.jsonl"), "recipes/data/questions.jsonl");
        for elsewhere in ["/data/questions.jsonl", "s3://bucket/questions.jsonl"] {
            assert_eq!(base.resolve(elsewhere), elsewhere);
        }
    }
}
