//! Whether the stages of a plan fit into memory, before any of them starts.

use std::path::Path;

use super::plan::{Plan, Planned};
use super::stage_folder::part_wanted;
use crate::backend::{Backend, Cpu, Cuda, Device};
use crate::bytes::size;
use crate::error::{Error, Result};
use crate::model::memory::{self, Estimate, Limits, Load};
use crate::model::{Config, Tokenizer};
use crate::recipe::Recipe;
use crate::stage::{Models, Wants};
use crate::store::{Location, local_file};

/// Where models of a run live, and how much of it is free.
pub(super) enum Place {
    /// The system lends RAM as it is written, so nothing is refused.
    Cpu,
    Cuda {
        /// Of the fullest of them.
        free: u64,
        devices: usize,
    },
    /// A GPU was asked for and cannot be used: only a dry run goes on.
    NoGpu(Error),
}

impl Place {
    /// Opens the device to ask it.
    pub fn of(device: Device) -> Place {
        let free = |ordinals: &[usize]| -> Result<Place> {
            let of = |&ordinal: &usize| Ok(Cuda::open(ordinal)?.memory()?.0 as u64);
            let free = ordinals.iter().map(of).collect::<Result<Vec<u64>>>()?.into_iter().min().unwrap_or(0);
            Ok(Place::Cuda { free, devices: ordinals.len() })
        };
        match device {
            Device::Cpu => Place::Cpu,
            Device::Cuda(gpus) => gpus.here().and_then(|all| free(&all)).unwrap_or_else(Place::NoGpu),
            Device::Auto => free(&[0]).unwrap_or(Place::Cpu),
        }
    }

    fn estimate(&self, config: &Config, load: &Load) -> Estimate {
        match self {
            // There the trainer's micro-batches are no longer than the caches like.
            Place::Cpu => {
                let rows = load.rows.min(memory::cached_rows::<Cpu>(config));
                memory::estimate::<Cpu>(config, &Load { rows, ..*load })
            }
            Place::Cuda { free, devices } => {
                memory::estimate_within::<Cuda>(config, &Load { devices: *devices, ..*load }, Some(*free))
            }
            Place::NoGpu(_) => memory::estimate::<Cuda>(config, load),
        }
    }

    /// What it takes where a row of data is longer than a micro-batch, which nobody knows before it is read.
    fn beyond(&self, config: &Config, load: &Load) -> String {
        match load.longest_possible {
            rows if rows <= load.most_rows() => String::new(),
            rows => {
                let whole = self.estimate(config, &Load { longest: rows, ..*load });
                format!("; with a row of {rows} tokens, {}", size(whole.total()))
            }
        }
    }

    /// Where the cache's size is the device's to say: whoever reads the sum is to know.
    fn cache(&self, load: &Load) -> &'static str {
        match (self, load.decoding) {
            (Place::Cuda { .. }, Some(Limits { cache_bytes: None, .. })) => {
                "; the KV cache gets what the rest leaves, less a tenth"
            }
            (Place::NoGpu(_), Some(Limits { cache_bytes: None, .. })) => {
                "; on a GPU the KV cache gets what the rest leaves, less a tenth"
            }
            _ => "",
        }
    }

    fn check(&self, config: &Config, load: &Load) -> Result<()> {
        match self {
            Place::Cpu => Cpu::covers(config.heads, config.vocab_size),
            Place::NoGpu(_) => Cuda::covers(config.heads, config.vocab_size),
            Place::Cuda { free, devices } => {
                Cuda::covers(config.heads, config.vocab_size)?;
                memory::check::<Cuda>(config, &Load { devices: *devices, ..*load }, *free).map(drop)
            }
        }
    }
}

/// The stages of a plan that hold models.
pub(super) struct Needs<'a> {
    plan: &'a Plan,
    recipe: &'a Recipe,
    place: Option<Place>,
}

impl<'a> Needs<'a> {
    pub fn new(plan: &'a Plan, recipe: &'a Recipe) -> Self {
        Needs { plan, recipe, place: None }
    }

    /// Looks at the device the first time that a stage needs it.
    fn place(&mut self) -> &Place {
        self.place.get_or_insert_with(|| Place::of(self.recipe.device))
    }

    /// A line for people: what the stage holds at most, where it holds a model at all.
    ///
    /// # Errors
    /// A model that cannot be read, or that does not fit.
    pub fn describe(&mut self, planned: &Planned) -> Result<Option<String>> {
        let loads = self.loads(planned)?;
        let place = match loads.is_empty() {
            true => return Ok(None),
            false => self.place(),
        };
        fits(place, planned, &loads)?;
        let estimated = loads.iter().map(|(config, load)| (place.estimate(config, load), config, load));
        let largest = estimated.max_by_key(|(estimate, ..)| estimate.total());
        let of = match place {
            Place::Cpu => "memory on the CPU".to_owned(),
            Place::Cuda { free, devices: 1 } => format!("memory on the GPU ({} free)", size(*free)),
            Place::Cuda { free, devices } => format!("memory on each of {devices} GPUs ({} free)", size(*free)),
            Place::NoGpu(error) => format!("memory on a GPU (none here: {})", error.message()),
        };
        Ok(largest.map(|(estimate, config, load)| {
            format!("{of}: up to {estimate}{}{}", place.cache(load), place.beyond(config, load))
        }))
    }

    /// Refuses a stage that cannot run: before it starts, and before what comes before it starts.
    ///
    /// # Errors
    /// A GPU that was asked for and is not there; a model that cannot be read, does not fit, or is of a shape that
    /// the kernels do not cover.
    pub fn check(&mut self, planned: &Planned) -> Result<()> {
        let loads = self.loads(planned)?;
        if loads.is_empty() {
            return Ok(());
        }
        let within = |e: Error| e.context(format!("stage `{}`", planned.name));
        if let Place::NoGpu(_) = self.place() {
            let Some(Place::NoGpu(error)) = self.place.take() else { unreachable!("just looked at") };
            return Err(within(error));
        }
        fits(self.place(), planned, &loads)
    }

    fn loads(&self, planned: &Planned) -> Result<Vec<(Config, Load)>> {
        let loads = self.with_models(|models| planned.stage.memory(models));
        loads.map_err(|e| e.context(format!("stage `{}`", planned.name)))
    }

    /// The shape of the model that a stage will leave, or of one that is there. A plan has no cycles, so this ends.
    fn config(&self, of: &str) -> Result<Config> {
        let Some(stage) = self.plan.find(of) else {
            let folder = part_wanted(Location::parse(&self.recipe.resolve(of))?, Wants::Model)?;
            // Of a model in an object store the shape is asked for now, the weights when its stage's turn comes.
            let file = local_file(&format!("{folder}/config.json"))?;
            return Config::load(Path::new(&file).parent().unwrap_or(Path::new(".")));
        };
        let found = self.with_models(|models| stage.stage.model_config(models))?;
        found.ok_or_else(|| Error::usage(format!("the stage `{of}` leaves no model")))
    }

    /// Whether such a model has a chat template.
    fn has_chat_template(&self, of: &str) -> Result<bool> {
        match self.plan.find(of) {
            Some(stage) => self.with_models(|models| stage.stage.has_chat_template(models)),
            None => Tokenizer::has_chat_template_in(&Location::parse(&self.recipe.resolve(of))?),
        }
    }

    /// What a stage may ask of the models of the plan.
    fn with_models<T>(&self, ask: impl FnOnce(&Models<'_>) -> Result<T>) -> Result<T> {
        ask(&Models {
            base: &self.recipe.base,
            config: &|of| self.config(of),
            has_chat_template: &|of| self.has_chat_template(of),
        })
    }
}

fn fits(place: &Place, planned: &Planned, loads: &[(Config, Load)]) -> Result<()> {
    let check = |(config, load): &(Config, Load)| place.check(config, load);
    loads.iter().try_for_each(check).map_err(|e| e.context(format!("stage `{}`", planned.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A base of a large model's width that nothing has made yet, trained on by two more stages, and sampled.
    const RECIPE: &str = r#"
name = "large"
device = "cuda"

[stages.text]
kind = "base_text"
documents = 10
text = { tasks = [{ family = "mix", level = 1 }] }

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 4096, layers = 32, heads = 32, kv_heads = 8, context = 4096 }
corpus = "text"
format = "text"

[stages.prompts]
procedural = [{ count = 64, mix = [{ name = "mini_mix" }], levels = [1] }]

[stages.rl]
kind = "grpo"
model = "base"
prompts = "prompts"
rules = "r1_mini"
lora = { rank = 16, alpha = 32 }
training = { objective = { kl_coefficient = 0.001 }, recompute = true, tokens_per_microbatch = 8192 }

[stages.generate]
prompts = "prompts"
engine = { kind = "local", model = "rl" }
"#;

    fn described(recipe: &str, place: impl Fn() -> Place) -> Vec<String> {
        let recipe = Recipe::parse("recipe.toml", recipe, Path::new("."), &[]).unwrap();
        let plan = Plan::new(&recipe, &Location::parse("runs/none").unwrap()).unwrap();
        let mut needs = Needs { plan: &plan, recipe: &recipe, place: Some(place()) };
        let line = |planned: &Planned| match needs.describe(planned) {
            Ok(said) => format!("{}: {}", planned.name, said.unwrap_or_else(|| "no model".to_owned())),
            Err(error) => format!("{}: {error:?}", planned.name),
        };
        plan.stages.iter().map(line).collect()
    }

    #[test]
    fn what_each_stage_holds_is_known_before_any_of_them_has_run() {
        let lines = described(RECIPE, || Place::Cpu);
        let names: Vec<&str> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(names, ["text", "base", "prompts", "rl", "generate"]);
        assert_eq!((&lines[0][..], &lines[2][..]), ("text: no model", "prompts: no model"));
        let parts = |line: &str| {
            assert!(line.contains(": memory on the CPU: up to "), "{line}");
            let all = ["parameters", "gradients", "optimizer", "activations", "workspace", "KV cache"];
            all.map(|part| line.contains(&format!("{part} ")))
        };
        assert_eq!(parts(&lines[1]), [true, true, true, true, true, false], "{lines:#?}");
        assert_eq!(parts(&lines[3]), [true; 6], "the policy samples itself: {lines:#?}");
        assert_eq!(parts(&lines[4]), [true, false, false, false, true, true], "{lines:#?}");
        // 5.6 billion weights: 4 bytes each of masters and of gradients, 8 of moments.
        assert!(lines[1].contains("gradients 21.0 GiB, optimizer 42.0 GiB"), "{lines:#?}");
    }

    #[test]
    fn rows_that_are_longer_than_a_micro_batch_are_told() {
        let small =
            "training = { objective = { kl_coefficient = 0.001 }, recompute = true, tokens_per_microbatch = 8192 }";
        let base = "format = \"text\"\n";
        let recipe = RECIPE
            .replace(base, "format = \"text\"\ntraining = { tokens_per_microbatch = 256 }\n")
            .replace(small, "sampling = { max_tokens = 3000 }\ntraining = { tokens_per_microbatch = 256 }");
        let lines = described(&recipe, || Place::NoGpu(Error::new("no NVIDIA driver")));
        // Of a corpus nobody knows before it is read; what is sampled may be as long as it is allowed to be.
        assert!(lines[1].contains("; with a row of 4096 tokens, "), "{lines:#?}");
        assert!(lines[3].contains("; with a row of 4096 tokens, "), "{lines:#?}");
        let activations = |line: &str| line.split("activations ").nth(1).unwrap().split(',').next().unwrap().to_owned();
        assert!(activations(&lines[1]).ends_with("MiB") && activations(&lines[3]).ends_with("GiB"), "{lines:#?}");
        assert!(!described(RECIPE, || Place::Cpu)[4].contains("with a row"), "it does not train");
        let bounded =
            recipe.replacen("tokens_per_microbatch = 256", "tokens_per_microbatch = 256, max_tokens = 1025", 1);
        let lines = described(&bounded, || Place::NoGpu(Error::new("no NVIDIA driver")));
        assert!(lines[1].contains("; with a row of 1024 tokens, "), "{lines:#?}");
    }

    #[test]
    fn a_gpu_that_is_too_small_is_told_what_would_fit() {
        let lines = described(RECIPE, || Place::Cuda { free: 79 << 30, devices: 1 });
        for part in [
            "stage `base`: micro-batches of 16384 tokens need",
            "79.0 GiB are free",
            "no micro-batch would fit",
            "optimizer.offload = true with recompute = true would fit up to",
            "lora = { rank = 16 } with recompute = true would fit up to",
        ] {
            assert!(lines[1].contains(part), "{part} is missing: {}", lines[1]);
        }
        for (line, start) in [(3, "rl: memory on the GPU (79.0 GiB free): up to "), (4, "generate: memory on the GPU")]
        {
            assert!(lines[line].starts_with(start), "{}", lines[line]);
        }
    }

    #[test]
    fn the_cache_gets_what_the_trainer_leaves_or_what_it_was_told() {
        let gpu = || Place::Cuda { free: 139 << 30, devices: 1 };
        let cache = |line: &str| {
            let (gib, _) = line.split_once("KV cache ").unwrap().1.split_once(" GiB").unwrap();
            gib.parse::<f64>().unwrap()
        };
        let sum =
            |line: &str| line.split_once("up to ").unwrap().1.split_once(" GiB").unwrap().0.parse::<f64>().unwrap();
        let lines = described(RECIPE, gpu);
        let (trains, samples) = (&lines[3], &lines[4]);
        for line in [trains, samples] {
            assert!(line.ends_with("; the KV cache gets what the rest leaves, less a tenth"), "{line}");
            // A tenth stays free of what is not the model's or the trainer's.
            let (left, free) = (139.0 - sum(line) + cache(line), 139.0 - sum(line));
            assert!(free > left / 10.0 - 0.5 && free < left / 10.0 + 1.5, "{line}");
        }
        assert!(cache(trains) > 20.0 && cache(samples) > cache(trains) + 20.0, "{lines:#?}");
        let told = RECIPE
            .replace(r#"model = "rl" }"#, r#"model = "rl", cache_gib = 2.5, batch = 64, prefill_tokens = 256 }"#)
            .replace(r#"rules = "r1_mini""#, "rules = \"r1_mini\"\nengine = { kind = \"local\", cache_gib = 4 }");
        let lines = described(&told, gpu);
        assert_eq!((cache(&lines[3]), cache(&lines[4])), (4.0, 2.5), "{lines:#?}");
        assert!(!lines[4].contains("less a tenth"), "{lines:#?}");
        // More than there is: refused before anything starts.
        let lines = described(&told.replace("cache_gib = 2.5, batch = 64", "cache_gib = 500, batch = 1024"), gpu);
        assert!(lines[4].contains("decoding needs") && lines[4].contains("139 GiB are free"), "{}", lines[4]);
    }

    #[test]
    fn a_dry_run_without_a_gpu_still_says_what_one_would_hold() {
        let lines = described(RECIPE, || Place::NoGpu(Error::new("no NVIDIA driver")));
        assert!(lines[1].starts_with("base: memory on a GPU (none here: no NVIDIA driver): up to "), "{lines:?}");
        let recipe = Recipe::parse("recipe.toml", RECIPE, Path::new("."), &[]).unwrap();
        let plan = Plan::new(&recipe, &Location::parse("runs/none").unwrap()).unwrap();
        let no_gpu = || Some(Place::NoGpu(Error::new("no NVIDIA driver")));
        let mut needs = Needs { plan: &plan, recipe: &recipe, place: no_gpu() };
        assert!(needs.check(&plan.stages[0]).is_ok(), "a stage without a model needs none");
        let said = needs.check(&plan.stages[1]).unwrap_err().to_string();
        assert_eq!(said, "stage `base`: no NVIDIA driver");
    }

    #[test]
    fn heads_that_the_kernels_do_not_cover_are_refused_before_anything_starts() {
        let odd = RECIPE.replace("heads = 32, kv_heads = 8,", "heads = 8, head_dim = 300,");
        let lines = described(&odd, || Place::Cuda { free: 1 << 50, devices: 1 });
        assert!(lines[1].contains("stage `base`") && lines[1].contains("300"), "{lines:?}");
    }
}
