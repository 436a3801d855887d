//! What the stories share: the built command, digests of what it leaves, recordings to feed it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use gristmill::seed::Rng;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

#[allow(dead_code, reason = "the engine's own tests use the rest")]
pub mod openai_server;

pub mod kills;

/// Compares a text with the reviewed one in `tests/snapshots`.
macro_rules! assert_told {
    ($text:expr) => {
        insta::with_settings!({ snapshot_path => "../snapshots", omit_expression => true }, {
            insta::assert_snapshot!($text)
        })
    };
}

/// Whether the tests that take long, or install something, are wanted.
pub fn slow_tests() -> bool {
    std::env::var_os("GRISTMILL_SLOW_TESTS").is_some_and(|value| value == "1")
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The blocks of a language in the guide to rules.
pub fn guide_blocks(language: &str) -> Vec<String> {
    let guide = include_str!("../../rules/README.md");
    let fence = format!("```{language}\n");
    guide.split(&fence).skip(1).map(|part| part.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The command, to be run in a folder, so that messages name short relative paths.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command.current_dir(folder);
    command
}

/// How the command ended.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the command prints UTF-8");
        Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Finished {
    /// Everything that was said, for a failed assertion.
    pub fn story(&self) -> String {
        format!("exit {:?}\n{}{}", self.code, self.stdout, self.stderr)
    }

    /// The exit code and the report of the error, without the progress before it.
    pub fn refusal(&self) -> String {
        let start = self.stderr.find("error").unwrap_or(0);
        format!("exit {}\n{}", self.code.map_or("by a signal".to_owned(), |c| c.to_string()), &self.stderr[start..])
    }

    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.story());
        self
    }

    /// The state that was reported for a stage: `[2/7] generate: cached: …`.
    #[track_caller]
    pub fn state_of(&self, stage: &str) -> &str {
        let line = self.stderr.lines().find_map(|line| line.split_once(&format!("] {stage}: ")));
        line.unwrap_or_else(|| panic!("nothing is said of `{stage}`\n{}", self.story())).1
    }
}

/// Runs the command in a folder.
pub fn gristmill<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Finished {
    command(folder).args(args).output().expect("the built command starts").into()
}

/// What two equal runs may differ in: wall-clock times, the run's own bookkeeping.
const UNEQUAL: &[&str] = &["run.jsonl", "_lock", "times.parquet", "_digests.json", "report.html"];

/// BLAKE3 of every file below a folder, by relative path; see [`UNEQUAL`] for what is left out.
pub fn digests(folder: &Path) -> BTreeMap<String, String> {
    let wanted = files(folder).into_iter().filter(|file| {
        let name = file.rsplit('/').next().expect("a path has a last part");
        !UNEQUAL.contains(&name)
    });
    wanted
        .map(|file| {
            let bytes = std::fs::read(folder.join(&file)).expect("a listed file reads");
            (file, blake3::hash(&bytes).to_hex().to_string())
        })
        .collect()
}

/// Every file below a folder, by relative path.
pub fn files(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("the folder lists") {
            let path = entry.expect("the folder lists").path();
            if path.is_dir() {
                walk(root, &path, out);
            } else {
                out.push(path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").to_owned());
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, folder, &mut out);
    out.sort();
    out
}

/// Files that only an unfinished run may have: temporary ones and journals.
pub fn leftovers(folder: &Path) -> Vec<String> {
    let begun = |file: &String| [".tmp-", "_journal", "_requests", "_spill"].iter().any(|mark| file.contains(mark));
    files(folder).into_iter().filter(begun).collect()
}

/// The beginning of a recipe: a model so small that it trains in a second.
pub const TINY_MODEL: &str = r#"name = "tiny"
seed = 4

[stages.base_text]
documents = 300
text = { tasks = [{ family = "mix", level = 1 }] }

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, kv_heads = 1, context = 96 }
corpus = "base_text"
format = "text"
training = { epochs = 1, batch_size = 32, optimizer = { kind = "muon" }, schedule = { learning_rate = 8e-3 } }

"#;

/// A column of numbers in a table such as `metrics.parquet`; `None` where it has no value, or is not there.
pub fn column(table: &Path, name: &str) -> Vec<Option<f64>> {
    let file = std::fs::File::open(table).expect("the table is there");
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).expect("it is Parquet").build().expect("it reads");
    let values = |batch: RecordBatch| match batch.column_by_name(name) {
        Some(column) => column.as_primitive::<Float64Type>().iter().collect(),
        None => vec![None; batch.num_rows()],
    };
    batches.flat_map(|batch| values(batch.expect("it reads"))).collect()
}

/// A stage's manifest.
pub fn manifest(stage_folder: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(stage_folder.join("_manifest.json")).expect("the stage is committed");
    serde_json::from_str(&text).expect("a manifest is JSON")
}

/// The recipe that [`write_recordings`] writes.
pub const RECIPE: &str = r#"name = "story"
seed = 3
shard_rows = 512

[stages.prompts]
sources = [{ path = "questions.jsonl", domain = "math", language = "en", license = "CC0-1.0" }]

[stages.generate]
samples = 4
engine = { kind = "replay", files = ["completions.jsonl"], completions = ["completions"], labels = ["correct"], finish_reasons = ["finish_reasons"] }

[stages.verify]
rules = "rules.toml"

[stages.group]

[stages.select]
policy = "shortest"
per_prompt = 2

[stages.corpus]
validation = 0.1
tracks = [{ name = "reasoning", groups = "select", prompts = "prompts" }]

[stages.export]
input = "corpus"
format = "messages"
"#;

/// Stages of [`RECIPE`] in their order, with their folders.
pub const STAGES: &[(&str, &str)] = &[
    ("prompts", "1_prompts"),
    ("generate", "2_generate"),
    ("verify", "3_verify"),
    ("group", "4_group"),
    ("select", "5_select"),
    ("corpus", "6_corpus"),
    ("export", "7_export"),
];

/// Writes `recipe.toml` with its rule file, its questions, and four recorded completions of each:
/// two right ones of different length, a wrong one, and one cut at its limit.
pub fn write_recordings(folder: &Path, questions: usize) {
    const NAMES: [&str; 8] = ["Ada", "Ben", "Chloe", "Dan", "Eve", "Farid", "Grace", "Hugo"];
    const THINGS: [&str; 8] = ["apples", "stamps", "pencils", "marbles", "books", "coins", "shells", "cards"];
    let (mut asked, mut answered) = (String::new(), String::new());
    let mut rng = Rng::new(11);
    for i in 0..questions as u64 {
        let name = NAMES[(rng.next_u64() % 8) as usize];
        let things = THINGS[(rng.next_u64() % 8) as usize];
        let (a, b, c) = (rng.next_u64() % 90 + 10, rng.next_u64() % 9 + 1, rng.next_u64() % 90 + 10);
        let (product, sum) = (b * c, a + b * c);
        let question = format!(
            "On day {i} {name} has {a} {things} and buys {b} boxes with {c} in each. How many {things} does {name} have now?"
        );
        let completions = [
            format!("The boxes hold {b} * {c} = {product}. Together that is {a} + {product} = {sum}.\n#### {sum}"),
            format!("{b} * {c} = {product}, {a} + {product} = {sum}.\n#### {sum}"),
            format!("{name} has {a} + {b} = {} {things}.\n#### {}", a + b, a + b + 1),
            format!("The boxes hold {b} * {c}. The boxes hold {b} * {c}. The boxes hold"),
        ];
        let question_line = serde_json::json!({ "question": question, "answer": sum.to_string() });
        let completion_line = serde_json::json!({
            "question": question,
            "completions": completions,
            "correct": [true, true, false, false],
            "finish_reasons": ["stop", "stop", "stop", "length"],
        });
        asked += &format!("{question_line}\n");
        answered += &format!("{completion_line}\n");
    }
    let write =
        |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("the test's folder is writable");
    write("questions.jsonl", &asked);
    write("completions.jsonl", &answered);
    write("recipe.toml", RECIPE);
    let rules = std::fs::read_to_string(repository("rules/gsm8k.toml")).expect("the repository ships this rule file");
    write("rules.toml", &rules);
}
