//! `gristmill chat`: a model's reasoning and its answer, apart.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::Style;

use crate::engine::local::LocalEngine;
use crate::engine::{Generated, Sampling};
use crate::error::{Context, Error, Result};
use crate::model::memory::Limits;
use crate::model::{Config, Model, SharedModel, Tokenizer};
use crate::pipeline::find_model;
use crate::rule::think::{self, Part, Stream, Tags};
use crate::schema::{FinishReason, Message, Role};
use crate::seed;
use crate::stage::model_name;

/// The prompt of a model without a chat template: the text itself.
const RAW: &str = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model's folder in Hugging Face layout (config.json, safetensors, tokenizer.json), or that of a stage that trained
    /// one, or of a run with one model
    model: String,
    /// Ask this and end; without it, every line of stdin is a turn of one conversation
    #[arg(long)]
    prompt: Option<String>,
    /// A system turn before the conversation
    #[arg(long)]
    system: Option<String>,
    /// 0 is greedy [default: the model's generation_config.json, or 0.6]
    #[arg(long, value_parser = parse_temperature)]
    temperature: Option<f32>,
    /// Nucleus mass in (0, 1] [default: the model's, or 0.95]
    #[arg(long, value_parser = parse_top_p)]
    top_p: Option<f32>,
    /// Only the K most likely tokens; 0 is off [default: the model's, or 0]
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Floor relative to the most likely token's probability; 0 is off [default: the model's, or 0]
    #[arg(long, value_parser = parse_min_p)]
    min_p: Option<f32>,
    /// Most tokens of an answer, its reasoning included
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// The same seed and conversation give the same answers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Continue plain text, each line for itself, even if the model has a chat template
    #[arg(long)]
    raw: bool,
    /// Print {"reasoning": …, "answer": …}, one line an answer
    #[arg(long)]
    json: bool,
}

fn parse_number(text: &str, wanted: &str, fits: impl Fn(f32) -> bool) -> Result<f32, String> {
    text.parse::<f32>().ok().filter(|x| fits(*x)).ok_or_else(|| format!("write a number {wanted}"))
}

fn parse_temperature(text: &str) -> Result<f32, String> {
    parse_number(text, "from 0", |x| x >= 0.0 && x.is_finite())
}

fn parse_top_p(text: &str) -> Result<f32, String> {
    parse_number(text, "above 0, up to 1", |x| x > 0.0 && x <= 1.0)
}

fn parse_min_p(text: &str) -> Result<f32, String> {
    parse_number(text, "from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

pub fn run(args: Args) -> Result<()> {
    if args.prompt.as_ref().is_some_and(|prompt| prompt.trim().is_empty()) {
        return Err(Error::usage("`--prompt` is empty").hint("leave it out to talk line by line"));
    }
    let mut session = Session::open(&args)?;
    let mut out = anstream::stdout();
    match &args.prompt {
        // One answer needs no handler: Ctrl-C ends the command, and no style outlives its piece.
        Some(prompt) => session.ask(prompt, &mut out, &AtomicBool::new(false)),
        None => session.converse(&mut out),
    }
}

/// A conversation with a model.
struct Session {
    engine: LocalEngine,
    sampling: Sampling,
    seed: u64,
    system: Option<Message>,
    /// Finished turns. Of the model's, the answers alone: reasoning models are trained so.
    turns: Vec<Message>,
    /// Questions asked, each of which has a seed of its own.
    asked: u32,
    raw: bool,
    json: bool,
}

impl Session {
    fn open(args: &Args) -> Result<Session> {
        let folder = find_model(&args.model)?.local_folder()?;
        let model = Model::load(&folder)?;
        let tokenizer = Tokenizer::load(&folder)?.with_clock();
        let raw = args.raw || !tokenizer.has_chat_template();
        let tokenizer = if raw { tokenizer.with_chat_template(RAW)? } else { tokenizer };
        if raw && !args.raw {
            errln!("the model has no chat template: it continues plain text, each line for itself");
        }
        let sampling = sampling(args, model.config())?;
        let (model, tokenizer) = (SharedModel::new(model), Arc::new(tokenizer));
        let engine = LocalEngine::new(model, tokenizer, model_name(&folder), Limits::default())?;
        let system = args.system.clone().map(|content| Message { role: Role::System, content });
        Ok(Session { engine, sampling, seed: args.seed, system, turns: Vec::new(), asked: 0, raw, json: args.json })
    }

    /// Answers stdin line by line until it ends or says `/exit`.
    fn converse(&mut self, out: &mut (dyn Write + Send)) -> Result<()> {
        let stop = stop_answers_on_signal()?;
        let is_terminal = std::io::stdin().is_terminal();
        if is_terminal {
            errln!("/reset begins anew, /exit or Ctrl-D ends, Ctrl-C stops an answer");
        }
        let mut lines = std::io::stdin().lock().lines();
        loop {
            if is_terminal {
                eprint!("{PROMPT}");
            }
            let Some(line) = lines.next() else { break };
            let line = line.or_fail(|| "stdin cannot be read".to_owned())?;
            match line.trim() {
                "" => {}
                "/exit" | "/quit" => break,
                "/reset" => self.turns.clear(),
                command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                    errln!("there is no command `{command}`; there are /reset and /exit");
                }
                prompt => {
                    stop.store(false, Ordering::Relaxed);
                    ANSWERING.store(true, Ordering::Relaxed);
                    let answered = self.ask(prompt, out, stop);
                    ANSWERING.store(false, Ordering::Relaxed);
                    // A turn that fails (too long, refused by the template) costs itself alone.
                    if let Err(error) = answered {
                        errln!("{}", error.render(std::io::stderr().is_terminal()));
                    }
                }
            }
        }
        if is_terminal {
            errln!();
        }
        Ok(())
    }

    /// Asks, prints the answer while it comes, and keeps the turn.
    fn ask(&mut self, prompt: &str, out: &mut (dyn Write + Send), stop: &AtomicBool) -> Result<()> {
        let question = Message { role: Role::User, content: prompt.to_owned() };
        let history = if self.raw { &[] } else { self.turns.as_slice() };
        let messages: Vec<Message> = self.system.iter().chain(history).chain([&question]).cloned().collect();
        let opened = self.engine.tokenizer().render(&messages, true)?.trim_end().ends_with(Tags::R1.think_open);
        let tags = Tags { opened, ..Tags::R1 };
        let seed = seed::sample_seed(self.seed, "chat", self.asked, 0);
        self.asked += 1;
        let mut printer = Printer { out, part: None, failed: None };
        let mut stream = Stream::new(tags);
        let mut on_text = |text: &str| {
            if !self.json {
                stream.push(text, &mut |part, text| printer.show(part, text));
                printer.flush();
            }
            printer.failed.is_none() && !stop.load(Ordering::Relaxed)
        };
        let generated = self.engine.chat(&messages, &self.sampling, seed, &mut on_text)?;
        if !self.json {
            stream.finish(&mut |part, text| printer.show(part, text));
        }
        let text = generated.text.as_deref().unwrap_or_default();
        let parts = think::split_at(text, &tags);
        if self.json {
            printer.line(&serde_json::json!({ "reasoning": parts.reasoning, "answer": parts.answer }).to_string());
        } else {
            printer.line("");
        }
        if let Some(error) = printer.failed {
            return match error.kind() {
                // Whoever read has had enough.
                std::io::ErrorKind::BrokenPipe => std::process::exit(0),
                _ => Err(Error::new("the answer cannot be printed").caused_by(error)),
            };
        }
        say_why_it_ended(&generated, stop.load(Ordering::Relaxed));
        if !parts.answer.is_empty() {
            let answer = Message { role: Role::Assistant, content: parts.answer.to_owned() };
            self.turns.extend([question, answer]);
        }
        Ok(())
    }
}

fn say_why_it_ended(generated: &Generated, stopped: bool) {
    if stopped {
        errln!("(stopped)");
    } else if generated.finish_reason == FinishReason::Length {
        let tokens = generated.completion_tokens.unwrap_or(0);
        errln!("(cut after {tokens} tokens: the limit of --max-tokens or of the model's context)");
    }
}

/// The command's options, else what the model's `generation_config.json` says, else the paper's.
fn sampling(args: &Args, config: &Config) -> Result<Sampling> {
    let default = Sampling::default();
    let number = |key: &str| config.generation(key).and_then(serde_json::Value::as_f64).map(|x| x as f32);
    let of_model = |key: &str, fits: fn(f32) -> bool| match number(key) {
        Some(x) if !fits(x) => Err(Error::new(format!("the model's generation_config.json has {key} {x}"))
            .hint(format!("give --{}", key.replace('_', "-")))),
        known => Ok(known),
    };
    let greedy = config.generation("do_sample").and_then(serde_json::Value::as_bool) == Some(false);
    let choose = |option: Option<f32>, key: &str, fits: fn(f32) -> bool, default: f32| match option {
        Some(x) => Ok(x),
        None => of_model(key, fits).map(|known| known.unwrap_or(default)),
    };
    let temperature = match args.temperature {
        None if greedy => 0.0,
        option => choose(option, "temperature", |x| x >= 0.0 && x.is_finite(), default.temperature)?,
    };
    Ok(Sampling {
        temperature,
        top_p: choose(args.top_p, "top_p", |x| x > 0.0 && x <= 1.0, default.top_p)?,
        top_k: match args.top_k {
            Some(k) => k,
            None => of_model("top_k", |k| k >= 0.0)?.map_or(default.top_k, |k| k as u32),
        },
        min_p: choose(args.min_p, "min_p", |x| (0.0..=1.0).contains(&x), default.min_p)?,
        max_tokens: args.max_tokens,
        ..default
    })
}

const PROMPT: &str = "> ";
const REASONING: Style = Style::new().dimmed();
const ANSWER: Style = Style::new().bold();

/// Prints parts under their names. Styles begin and end with each piece, so that whatever ends
/// the command leaves the terminal as it was.
struct Printer<'a> {
    out: &'a mut (dyn Write + Send),
    /// The part that was printed last.
    part: Option<Part>,
    failed: Option<std::io::Error>,
}

impl Printer<'_> {
    fn show(&mut self, part: Part, text: &str) {
        let (style, name) = match part {
            Part::Reasoning => (REASONING, "reasoning"),
            Part::Answer => (ANSWER, "answer"),
        };
        let written = match self.part {
            Some(last) if last == part => Ok(()),
            // An answer that no reasoning precedes needs no name.
            None if part == Part::Answer => Ok(()),
            None => writeln!(self.out, "{style}[{name}]{style:#}"),
            Some(_) => writeln!(self.out, "\n\n{style}[{name}]{style:#}"),
        };
        self.part = Some(part);
        self.note(written);
        let written = write!(self.out, "{style}{text}{style:#}");
        self.note(written);
    }

    fn line(&mut self, text: &str) {
        let written = writeln!(self.out, "{text}");
        self.note(written);
        self.flush();
    }

    fn flush(&mut self) {
        let written = self.out.flush();
        self.note(written);
    }

    /// Keeps the first fault: what comes after it is its consequence.
    fn note(&mut self, written: std::io::Result<()>) {
        if let (Err(error), None) = (written, &self.failed) {
            self.failed = Some(error);
        }
    }
}

/// Set by Ctrl-C while an answer is being written.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether Ctrl-C has an answer to stop.
static ANSWERING: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C stops an answer, and not the command.
fn stop_answers_on_signal() -> Result<&'static AtomicBool> {
    let failed = |e| Error::new("signals cannot be listened to").caused_by(e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let mut interrupts = {
        let _inside = runtime.enter();
        Interrupts::new().map_err(failed)?
    };
    let listen = async move {
        while interrupts.next().await {
            if ANSWERING.load(Ordering::Relaxed) {
                STOP.store(true, Ordering::Relaxed);
            } else {
                eprint!("\n/exit or Ctrl-D ends\n{PROMPT}");
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen)).map_err(failed)?;
    Ok(&STOP)
}

/// Every Ctrl-C from the moment this is made, so that none ends the command unheard.
#[cfg(unix)]
struct Interrupts(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Interrupts {
    fn new() -> std::io::Result<Self> {
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).map(Interrupts)
    }

    /// Waits for the next; false if none can come.
    async fn next(&mut self) -> bool {
        self.0.recv().await.is_some()
    }
}

#[cfg(not(unix))]
struct Interrupts;

#[cfg(not(unix))]
impl Interrupts {
    fn new() -> std::io::Result<Self> {
        Ok(Interrupts)
    }

    async fn next(&mut self) -> bool {
        tokio::signal::ctrl_c().await.is_ok()
    }
}
