//! Long completions: memory is bounded by bytes, whatever a row holds.

use std::process::Stdio;

use crate::support::{command, slow_tests};

/// Peak resident memory of a run of the command, in MiB.
#[allow(clippy::zombie_processes, reason = "wait4 waits for it, and tells the peak")]
fn peak(folder: &std::path::Path, args: &[&str]) -> i64 {
    let child = command(folder).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let id = libc::pid_t::try_from(child.id()).unwrap();
    // SAFETY: the child is ours and not waited for; both pointers are to values that outlive the call.
    let (status, usage) = unsafe {
        let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
        assert_eq!(libc::wait4(id, &mut status, 0, &mut usage), id);
        (status, usage)
    };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{args:?} failed");
    usage.ru_maxrss / 1024
}

#[test]
fn no_stage_holds_a_shard_of_long_completions() {
    if !slow_tests() {
        eprintln!("skipped: a gigabyte of completions takes a minute (GRISTMILL_SLOW_TESTS=1)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut rng = gristmill::seed::Rng::new(3);
    let (mut asked, mut answered) = (String::new(), String::new());
    for i in 0..5000 {
        let question = format!("What is {i} + {i}, please?");
        // As well compressible as running text.
        let word = |rng: &mut gristmill::seed::Rng| format!("w{}", rng.next_u64() % 4096);
        let completions = [0, 1].map(|k| {
            let words: Vec<String> = (0..8000).map(|_| word(&mut rng)).collect();
            format!("{}\n#### {}", words.join(" "), 2 * i + k)
        });
        asked += &format!("{}\n", serde_json::json!({ "question": question, "answer": (2 * i).to_string() }));
        answered += &format!("{}\n", serde_json::json!({ "question": question, "completions": completions }));
    }
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("q.jsonl", &asked);
    write("c.jsonl", &answered);
    let recipe = "[stages.prompts]\nsources = [{ path = \"q.jsonl\", domain = \"math\", language = \"en\" }]\ndedup = { near = false }\n\
        [stages.generate]\nsamples = 2\nengine = { kind = \"replay\", files = [\"c.jsonl\"], completions = [\"completions\"] }\n\
        [stages.verify]\nrules = \"rules.toml\"\n[stages.group]\n[stages.select]\noutcome = \"any\"\n\
        [stages.corpus]\ntracks = [{ name = \"all\", groups = \"select\", prompts = \"prompts\" }]\n\
        [stages.export]\ninput = \"corpus\"\nformat = \"messages\"\n";
    write("recipe.toml", recipe);
    write("rules.toml", "reward = \"answer\"\n\n[rules.answer]\nkind = \"exact\"\n");
    drop((asked, answered));
    for stage in ["prompts", "generate", "verify", "group", "select", "corpus", "export"] {
        let peak = peak(folder.path(), &["run", "recipe.toml", "--out", "out", "--only", stage, "--threads", "2"]);
        eprintln!("{stage}: {peak} MiB");
        assert!(peak < 800, "{stage} held {peak} MiB of 500 MB of completions");
    }
}
