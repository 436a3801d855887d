//! Loads a recipe: includes, overrides, variables, the table of stages.

use std::path::{Path, PathBuf};

use super::base::Base;
use super::de::suggest;
use super::node::{Key, Node, Origin, Value};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::store::Location;

/// A recipe with includes merged, overrides applied and variables substituted.
#[derive(Debug)]
pub struct Recipe {
    /// Names the run; the default output folder is `runs/NAME`.
    pub name: String,
    /// Every random choice of the run derives from it.
    pub seed: u64,
    /// Where models train and generate: `cpu` if the recipe does not say.
    pub device: Device,
    /// Rows of a shard that a stage writes, where it has the choice.
    pub shard_rows: usize,
    /// Stages in the order of the text.
    pub stages: Vec<StageTable>,
    /// Relative paths in the recipe start here: the folder of the recipe's file.
    pub base: Base,
    /// Whether it is a stage run alone, whose inputs can be no other stages.
    pub is_one_stage: bool,
}

/// One `[stages.NAME]` table, not yet read by its stage.
#[derive(Clone, Debug)]
pub struct StageTable {
    /// The key NAME, which names the folder.
    pub name: String,
    /// What it does; NAME if the table has no `kind`.
    pub kind: String,
    /// The table without `kind`.
    pub config: Node,
    /// Where the stage's name is written.
    pub origin: Origin,
}

const TOP_KEYS: &[&str] = &["name", "seed", "device", "shard_rows", "include", "vars", "stages"];
const MAX_INCLUDES: usize = 64;

impl Recipe {
    /// Loads a recipe from a file, or from a URL.
    ///
    /// `overrides` are `key=value` pairs. A key is a dotted path from the top
    /// (`stages.generate.samples`), a variable (`vars.data`), or, for short, a path
    /// below a stage (`generate.samples`).
    ///
    /// # Errors
    /// Anything wrong with the text, with its line and column.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Recipe> {
        let text = read(path).map_err(|why| {
            let error = Error::usage(format!("the recipe cannot be read: {why}")).in_file(path.display());
            error.hint("`gristmill run` takes the path of a TOML recipe")
        })?;
        let base = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Recipe::parse(&path.display().to_string(), &text, base, overrides)
    }

    /// Loads a recipe from text; relative paths in it start at `base`.
    ///
    /// # Errors
    /// Syntax, an unknown top key, a missing include or variable, a stage that is no table; with its place.
    pub fn parse(name: &str, text: &str, base: &Path, overrides: &[String]) -> Result<Recipe> {
        let mut root = Node::parse(name, text)?;
        resolve_includes(&mut root, base, &mut Vec::new(), &mut 0)?;
        for argument in overrides {
            apply_override(&mut root, argument)?;
        }
        let stem = Path::new(name).file_stem().map_or("run".into(), |s| s.to_string_lossy().into_owned());
        Recipe::from_tree(root, &stem, base)
    }

    fn from_tree(mut root: Node, stem: &str, base: &Path) -> Result<Recipe> {
        substitute_variables(&mut root)?;
        check_top_keys(&root)?;
        let run_name = root.get("name").map_or(Ok(stem.to_owned()), run_name)?;
        let seed = root.get("seed").map_or(Ok(0), Node::read::<u64>)?;
        let device = root.get("device").map_or(Ok(Device::Cpu), Node::read::<Device>)?;
        let shard_rows = root.get("shard_rows").map_or(Ok(16_384), Node::read::<usize>)?;
        if shard_rows == 0 {
            let place = root.get("shard_rows").expect("the default is not zero");
            return Err(place.origin.locate(Error::usage("`shard_rows` must be at least 1")));
        }
        let stages = stage_tables(&root)?;
        Ok(Recipe { name: run_name, seed, device, shard_rows, stages, base: Base::new(base), is_one_stage: false })
    }

    /// A recipe of one stage, whose table is the whole of a file if there is one.
    ///
    /// # Errors
    /// As [`Recipe::parse`].
    pub fn of_stage(kind: &str, file: Option<&Path>, overrides: &[String]) -> Result<Recipe> {
        let (name, text, base) = match file {
            Some(path) => {
                let failed = |why| Error::usage(format!("the stage's file cannot be read: {why}"));
                let text = read(path).map_err(|why| failed(why).in_file(path.display()))?;
                (path.display().to_string(), text, path.parent().unwrap_or(Path::new(".")))
            }
            None => (format!("gristmill {kind}"), String::new(), Path::new(".")),
        };
        let table = Node::parse(&name, &text)?;
        let origin = table.origin.clone();
        let key = |name: &str| Key { name: name.to_owned(), origin: origin.clone() };
        let wrap = |key: Key, node: Node| Node { value: Value::Table(vec![(key, node)]), origin: origin.clone() };
        let mut root = wrap(key("stages"), wrap(key(kind), table));
        for argument in overrides {
            apply_override(&mut root, argument)?;
        }
        Ok(Recipe { is_one_stage: true, ..Recipe::from_tree(root, kind, base)? })
    }

    /// A path written in the recipe, made absolute or relative to the recipe's folder. URLs stay.
    pub fn resolve(&self, path: &str) -> String {
        self.base.resolve(path)
    }
}

/// A text file's content, or why there is none, in a few words.
fn read(path: &Path) -> Result<String, String> {
    let name = path.to_string_lossy();
    let bytes = match name.contains("://") {
        true => Location::parse(&name).and_then(|location| location.read()).map_err(|e| e.message().to_owned())?.into(),
        false if path.is_dir() => return Err("it is a folder".to_owned()),
        false => std::fs::read(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => e.to_string(),
        })?,
    };
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        format!("line {line} holds bytes that are not UTF-8")
    })
}

/// A run is called as its folder is, and lies nowhere else.
fn run_name(node: &Node) -> Result<String> {
    let name: String = node.read()?;
    if name.is_empty() || name.starts_with('.') || name.contains(|c: char| c == '/' || c == '\\' || c.is_control()) {
        let error = Error::usage(format!("`{name}` cannot name a run"));
        return Err(node
            .origin
            .locate(error)
            .hint("a run's name is a folder's name, without `/` and no `.` before it"));
    }
    Ok(name)
}

/// Later files win over the files they include; an include path is relative to its file. `above` are
/// the files whose includes are being read, `count` is how many were.
fn resolve_includes(root: &mut Node, base: &Path, above: &mut Vec<PathBuf>, count: &mut usize) -> Result<()> {
    let Some(includes) = root.remove("include") else { return Ok(()) };
    let mut merged = Node { value: Value::Table(Vec::new()), origin: root.origin.clone() };
    let paths: Vec<String> = includes.read()?;
    for path in paths {
        let file = base.join(&path);
        let identity = file.canonicalize().unwrap_or_else(|_| file.clone());
        *count += 1;
        if above.contains(&identity) {
            return Err(includes.origin.locate(Error::usage(format!("`{path}` includes itself"))));
        }
        if *count > MAX_INCLUDES {
            return Err(includes.origin.locate(Error::usage(format!("more than {MAX_INCLUDES} files are included"))));
        }
        let text = read(&file).map_err(|why| {
            let error = Error::usage(format!("the included file `{}` cannot be read: {why}", file.display()));
            includes.origin.locate(error)
        })?;
        let mut node = Node::parse(&file.display().to_string(), &text)?;
        above.push(identity);
        resolve_includes(&mut node, file.parent().unwrap_or(base), above, count)?;
        above.pop();
        merged.merge(node);
    }
    let own = std::mem::replace(root, merged);
    root.merge(own);
    Ok(())
}

fn apply_override(root: &mut Node, argument: &str) -> Result<()> {
    let Some((path, value)) = argument.split_once('=') else {
        return Err(
            Error::usage(format!("`--set {argument}` has no `=`")).hint("write `--set stages.generate.samples=8`")
        );
    };
    let mut parts: Vec<&str> = path.trim().split('.').collect();
    if !TOP_KEYS.contains(&parts[0]) {
        if root.get("stages").and_then(|stages| stages.get(parts[0])).is_none() {
            let mut known: Vec<&str> = TOP_KEYS.to_vec();
            let stages = root.get("stages").and_then(Node::table).unwrap_or_default();
            known.extend(stages.iter().map(|(key, _)| key.name.as_str()));
            return Err(Error::usage(format!(
                "`--set {argument}`: `{}` is neither a stage nor a key of the recipe",
                parts[0]
            ))
            .hint(suggest(parts[0], &known)));
        }
        parts.insert(0, "stages");
    }
    root.set(&parts, Node::parse_value(argument, value))
}

/// Replaces `${name}` by `vars.name`, then by the environment variable of that name.
fn substitute_variables(root: &mut Node) -> Result<()> {
    let vars = root.remove("vars");
    let lookup = |name: &str| -> Option<String> {
        let value = vars.as_ref().and_then(|vars| vars.get(name));
        let text = value.and_then(|node| node.text().or_else(|| node.written()));
        text.map(str::to_owned).or_else(|| std::env::var(name).ok())
    };
    let known: Vec<String> =
        vars.as_ref().and_then(Node::table).unwrap_or_default().iter().map(|(k, _)| k.name.clone()).collect();
    root.texts_mut(&mut |text, origin| {
        // One pass, left to right: a variable's value is not searched again.
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            let Some(end) = rest[start..].find('}').map(|i| start + i) else { break };
            let name = &rest[start + 2..end];
            let value = lookup(name).ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(String::as_str).collect();
                origin.locate(Error::usage(format!("the variable `{name}` is not set"))).hint(format!(
                    "set it in [vars], with `--set vars.{name}=…`, or in the environment; {}",
                    suggest(name, &names)
                ))
            })?;
            out += &rest[..start];
            out += &value;
            rest = &rest[end + 1..];
        }
        out += rest;
        *text = out;
        Ok(())
    })
}

fn check_top_keys(root: &Node) -> Result<()> {
    for (key, node) in root.table().unwrap_or_default() {
        if !TOP_KEYS.contains(&key.name.as_str()) {
            let error = Error::usage(format!("unknown key `{}`", key.name)).hint(suggest(&key.name, TOP_KEYS));
            return Err(key.origin.locate(match node.table() {
                Some(_) => error.hint(format!("if it is a stage, its table is [stages.{}]", key.name)),
                None => error,
            }));
        }
    }
    Ok(())
}

fn stage_tables(root: &Node) -> Result<Vec<StageTable>> {
    let Some(stages) = root.get("stages") else {
        return Err(root
            .origin
            .locate(Error::usage("the recipe has no stages").hint("add a table such as [stages.prompts]")));
    };
    let Some(entries) = stages.table() else {
        return Err(stages.origin.locate(Error::usage("`stages` must be a table")));
    };
    entries.iter().map(|(key, node)| stage_table(key, node)).collect()
}

fn stage_table(key: &Key, node: &Node) -> Result<StageTable> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if key.name.is_empty() || !key.name.chars().all(valid) {
        let error = Error::usage(format!("`{}` cannot name a stage", key.name))
            .hint("a stage's name is a folder's name: letters, digits, `_` and `-`");
        return Err(key.origin.locate(error));
    }
    if node.table().is_none() {
        return Err(node.origin.locate(Error::usage(format!("the stage `{}` must be a table", key.name))));
    }
    let mut config = node.clone();
    let kind = config.remove("kind").map_or(Ok(key.name.clone()), |kind| kind.read::<String>())?;
    Ok(StageTable { name: key.name.clone(), kind, config, origin: key.origin.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Config {
        samples: u32,
        #[serde(default)]
        temperature: f64,
    }

    fn parse(text: &str, overrides: &[&str]) -> Result<Recipe> {
        let overrides: Vec<String> = overrides.iter().map(|&s| s.to_owned()).collect();
        Recipe::parse("recipe.toml", text, Path::new("."), &overrides)
    }

    #[test]
    fn stages_keep_the_order_of_the_text() {
        let recipe = parse("[stages.zeta]\n[stages.alpha]\nkind = 'verify'\n[stages.mid]\n", &[]).unwrap();
        let names: Vec<_> = recipe.stages.iter().map(|s| (s.name.as_str(), s.kind.as_str())).collect();
        assert_eq!(names, [("zeta", "zeta"), ("alpha", "verify"), ("mid", "mid")]);
    }

    #[test]
    fn an_unknown_key_points_at_its_line_and_names_the_nearest() {
        let recipe = parse("[stages.generate]\nsamples = 2\ntemprature = 1\n", &[]).unwrap();
        let error = recipe.stages[0].config.read::<Config>().unwrap_err();
        assert_eq!(error.to_string(), "unknown key `temprature` (recipe.toml:3:1)");
        assert!(error.render(false).contains("did you mean `temperature`?"), "{error:?}");
    }

    #[test]
    fn a_wrong_type_points_at_the_value() {
        let recipe = parse("[stages.generate]\nsamples = 'two'\n", &[]).unwrap();
        let error = recipe.stages[0].config.read::<Config>().unwrap_err();
        assert!(error.to_string().contains("recipe.toml:2:11"), "{error}");
    }

    #[test]
    fn an_override_reaches_below_a_stage_and_reports_itself() {
        let recipe =
            parse("[stages.generate]\nsamples = 2\n", &["generate.samples=8", "stages.generate.temperature=1"])
                .unwrap();
        let config: Config = recipe.stages[0].config.read().unwrap();
        assert_eq!((config.samples, config.temperature), (8, 1.0));
        let recipe = parse("[stages.generate]\nsamples = 2\n", &["generate.samples=many"]).unwrap();
        let error = recipe.stages[0].config.read::<Config>().unwrap_err();
        assert!(error.render(false).contains("--set generate.samples=many"), "{error:?}");
        assert!(
            parse("[stages.generate]\n", &["genrate.samples=8"])
                .unwrap_err()
                .render(false)
                .contains("did you mean `generate`?")
        );
    }

    #[test]
    fn variables_are_substituted_once_and_a_missing_one_is_named() {
        let text = "[vars]\na = '${b}'\nn = 3\n[stages.x]\nkind = 'k${n}'\npath = '${a}/y'\n";
        let recipe = parse(text, &[]).unwrap();
        assert_eq!(recipe.stages[0].config.get("path").and_then(Node::text), Some("${b}/y"));
        assert_eq!(recipe.stages[0].kind, "k3");
        let error = parse("[stages.x]\npath = '${gristmill_nowhere}'\n", &[]).unwrap_err();
        assert!(
            error.to_string().starts_with("the variable `gristmill_nowhere` is not set (recipe.toml:2:8)"),
            "{error}"
        );
    }

    #[test]
    fn includes_are_merged_below_the_including_file_and_cycles_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("common.toml"), "seed = 1\n[stages.a]\nx = 1\ny = 2\n").unwrap();
        std::fs::write(dir.path().join("top.toml"), "include = ['common.toml']\n[stages.a]\nx = 5\n").unwrap();
        let recipe = Recipe::load(&dir.path().join("top.toml"), &[]).unwrap();
        assert_eq!(recipe.seed, 1);
        assert_eq!(recipe.stages[0].config.to_json().to_string(), r#"{"x":5,"y":2}"#);
        std::fs::write(dir.path().join("loop.toml"), "include = ['loop.toml']\n").unwrap();
        assert!(Recipe::load(&dir.path().join("loop.toml"), &[]).unwrap_err().message().contains("includes itself"));
    }

    #[test]
    fn a_file_may_be_included_twice_but_not_in_itself() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("base.toml", "seed = 4\n");
        write("left.toml", "include = ['base.toml']\n[stages.a]\n");
        write("right.toml", "include = ['base.toml']\n[stages.b]\n");
        write("top.toml", "include = ['left.toml', 'right.toml']\n");
        let recipe = Recipe::load(&dir.path().join("top.toml"), &[]).unwrap();
        assert_eq!((recipe.seed, recipe.stages.len()), (4, 2));
        write("base.toml", "include = ['left.toml']\n");
        assert!(Recipe::load(&dir.path().join("top.toml"), &[]).unwrap_err().message().contains("includes itself"));
    }

    #[test]
    fn syntax_errors_and_stray_keys_have_a_place() {
        assert!(parse("[stages.a\n", &[]).unwrap_err().to_string().contains("recipe.toml:1"));
        let error = parse("sed = 1\n[stages.a]\n", &[]).unwrap_err();
        assert!(error.render(false).contains("did you mean `seed`?"), "{error:?}");
    }
}
