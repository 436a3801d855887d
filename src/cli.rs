//! The command: arguments to one library call to printing. stdout is data, stderr is people.

/// As `println!`, colours only where they belong; ends the command when nobody reads on (`| head`).
macro_rules! outln {
    ($($argument:tt)*) => { $crate::cli::print_line(format_args!($($argument)*)) };
}

/// As `eprintln!`, colours only where they belong; work does not end because nobody listens to it.
macro_rules! errln {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(anstream::stderr().lock(), $($argument)*);
    }};
}

mod chat;
mod doctor;
mod inspect;
mod progress;
mod report;
mod rows;
mod rules;
mod run;
mod score;
mod serve_rewards;
mod stage;
mod told;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};

use crate::error::{ErrorKind, Result};

/// DeepSeek-R1's recipe as one program: prompts, generation, rule verifiers, GRPO and SFT corpora.
#[derive(Debug, Parser)]
#[command(name = "gristmill", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a recipe (the embedded one if none is given), picking up what an earlier run finished
    Run(run::Args),
    /// Show any dataset: schema, counts, statistics, a few rows
    Inspect(inspect::Args),
    /// Write a run's report: claims, learning curves, funnel and a whole group, in one HTML file
    Report(report::Args),
    /// Talk to a model: its reasoning and its answer, apart
    Chat(chat::Args),
    /// Say what this machine has: driver, GPUs, memory, CUDA libraries, kernels
    Doctor(doctor::Args),
    /// Check, test, try, list, compare and audit rule files
    Rules(rules::RulesArgs),
    /// Grade rows of JSONL or Parquet: the same rows plus reward and verdicts
    Score(score::ScoreArgs),
    /// Serve rewards over HTTP, for trainers that call a reward function
    ServeRewards(serve_rewards::ServeRewardsArgs),
    /// Run one stage alone, on files that anything wrote
    #[command(flatten)]
    Stage(stage::Command),
}

/// Runs the command with the process's arguments.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
pub fn main() -> ExitCode {
    outlive_file_limit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match cli.command.unwrap_or_else(|| Command::Run(run::Args::default())) {
        Command::Run(args) => run::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Report(args) => report::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Score(args) => score::run(args),
        Command::ServeRewards(args) => serve_rewards::run(args),
        Command::Stage(command) => stage::run(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if error.kind() == ErrorKind::Interrupted {
                errln!("interrupted: what was finished is committed; the same command continues from here");
            } else {
                errln!("{}", error.render(std::io::stderr().is_terminal()));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Makes a write beyond `ulimit -f` an error, which is told, where the signal for it would end the process without a word.
#[cfg(unix)]
fn outlive_file_limit() {
    extern "C" fn ignore(_: libc::c_int) {}
    // A handler and not `SIG_IGN`, which programs that are started would inherit: a sandbox has limits of its own.
    let handler = ignore as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing, and nobody else in this process handles this signal.
    unsafe { libc::signal(libc::SIGXFSZ, handler as libc::sighandler_t) };
}

#[cfg(not(unix))]
fn outlive_file_limit() {}

/// Prints a line of data; see `outln!`.
fn print_line(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let mut out = anstream::stdout().lock();
    if let Err(error) = writeln!(out, "{line}") {
        output_failed(&error);
    }
}

/// Ends the process: nothing more can be printed. Whoever closed the pipe has had enough; a full disk is a failure.
fn output_failed(error: &std::io::Error) -> ! {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    errln!("error: stdout cannot be written: {error}");
    std::process::exit(1);
}

/// Set by the first Ctrl-C (or SIGTERM): finish what is in hand. The second one ends the process.
static STOP: AtomicBool = AtomicBool::new(false);

/// Starts listening for Ctrl-C and answers with the flag that it sets.
fn stop_on_signal() -> Result<&'static AtomicBool> {
    let failed = |e| crate::Error::new("signals cannot be listened to").caused_by(e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    wait_for_signal().await;
                    if STOP.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                    errln!("stopping: finishing what is in hand (once more ends at once; nothing committed is lost)");
                }
            });
        })
        .map_err(failed)?;
    Ok(&STOP)
}

#[cfg(unix)]
async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn wait_for_signal() {
    let _ = tokio::signal::ctrl_c().await;
}
