//! Kills, by the system and not by a flag: of the client, and of a server.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gristmill::engine::Engine;
use gristmill::engine::vllm::VllmConfig;
use serde_json::json;

use super::{Models, Rows, collect, config, connect, ids, requests, server_config};
use crate::support::{command, digests, gristmill, leftovers};

const PROMPTS: usize = 150;
const SAMPLES: usize = 4;

fn write_recipe(folder: &Path, address: &str) {
    let questions: String = (0..PROMPTS)
        .map(|i| format!("{}\n", json!({"question": format!("What is {i} + {i}?"), "answer": (2 * i).to_string()})))
        .collect();
    std::fs::write(folder.join("questions.jsonl"), questions).unwrap();
    let recipe = format!(
        r#"name = "killed"
seed = 5

[stages.prompts]
sources = [{{ path = "questions.jsonl", domain = "math", language = "en", license = "CC0-1.0" }}]

[stages.generate]
samples = {SAMPLES}
sampling = {{ temperature = 1.0, top_p = 1.0, max_tokens = 48 }}
engine = {{ kind = "vllm", endpoints = ["{address}"], max_concurrency = 16 }}
"#
    );
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
}

/// Requests the server has finished since it started, by its own count.
fn served(address: &str) -> u64 {
    let host = address.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let counts = text.lines().filter(|line| line.starts_with("vllm:request_success_total{"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

pub fn a_killed_client_goes_on_where_it_was(address: &str, _: &Models, _: &Path) {
    const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];
    let whole = tempfile::tempdir().unwrap();
    write_recipe(whole.path(), address);
    gristmill(whole.path(), RUN).succeeded();

    let killed = tempfile::tempdir().unwrap();
    write_recipe(killed.path(), address);
    let before = served(address);
    let mut child = command(killed.path()).args(RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Killed once a third of the requests are answered: by then the journal holds many.
    let since = Instant::now();
    while served(address) - before < (PROMPTS * SAMPLES / 3) as u64 {
        assert!(child.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(300), "it ended too soon");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    gristmill(killed.path(), RUN).succeeded();

    let asked = (served(address) - before) as usize;
    println!("killed and run again, {asked} requests were served for {} rows", PROMPTS * SAMPLES);
    assert!(asked >= PROMPTS * SAMPLES, "every row was asked");
    assert!(asked <= PROMPTS * SAMPLES + 64, "a kill costs what was in flight or not yet on the disk, no more");
    let out = killed.path().join("out");
    assert_eq!(leftovers(&out), [""; 0]);
    assert_eq!(digests(&out), digests(&whole.path().join("out")), "the same bytes as without a kill");
}

/// A server of the test's own, so that the test can kill it.
struct Server(Child);

impl Server {
    fn start(environment: &Path, model: &Path, port: u16) -> Server {
        let config = server_config(environment, model, port);
        let child = Command::new(&config.command)
            .args(["serve", &config.model, "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(&config.args)
            .envs(&config.env)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Server(child.unwrap())
    }

    /// SIGKILL to the server and its workers.
    fn kill(&mut self) {
        let group = self.0.id().to_string();
        let killed = Command::new("kill").args(["-KILL", "--", &format!("-{group}")]).status();
        assert!(killed.unwrap().success());
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}

pub fn a_killed_server_costs_no_row(environment: &Path, address: &str, models: &Models) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut doomed = Server::start(environment, &models.trained, port);
    let other = format!("http://127.0.0.1:{port}");
    let patient = VllmConfig { startup_timeout_s: 900.0, give_up_after_s: 900.0, ..config(&[&other]) };
    drop(connect(patient.clone()));

    // One of two servers, in the middle of a run. Both bear other weights than the files by now, or may:
    // token ids are compared with those of the one that stays.
    let both = connect(VllmConfig { allow_different_roots: true, ..config(&[address, &other]) });
    let mut rows = Rows::new();
    let mut source = requests(100, 1.0, 32);
    both.generate(&mut source, &mut |row| {
        assert!(rows.insert((row.prompt_id.to_string(), row.sample_index), row).is_none(), "a row came twice");
        if rows.len() == 100 {
            doomed.kill();
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(rows.len(), 400);
    assert!(rows.values().all(|row| row.error.is_none()));
    assert_eq!(ids(&rows), ids(&collect(&connect(config(&[address])), requests(100, 1.0, 32))), "no token changed");
    for line in both.snapshot().endpoints {
        println!("  {} {}: {} completions, faults {:?}", line.address, line.state, line.completions, line.faults);
    }
    drop(both);

    // The only server, and it comes back: the run waits for it.
    let mut first = Some(Server::start(environment, &models.trained, port));
    let alone = connect(patient);
    let mut rows = Rows::new();
    let mut second = None;
    alone
        .generate(&mut requests(40, 1.0, 32), &mut |row| {
            rows.insert((row.prompt_id.to_string(), row.sample_index), row);
            if rows.len() == 40 {
                first.take().unwrap().kill();
                second = Some(Server::start(environment, &models.trained, port));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(rows.len(), 160);
    assert_eq!(ids(&rows), ids(&collect(&alone, requests(40, 1.0, 32))), "no token changed");
    println!("  the only server was killed and came back: {:?}", alone.snapshot().retries);
}
