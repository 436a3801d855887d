//! Rewards over HTTP, as a trainer sees them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use crate::support::command;
use crate::support::openai_server::{Behaviour, OpenAiServer};

/// A started `serve-rewards`, what it says, and its address.
fn serve(folder: &std::path::Path, rules: &str) -> (Child, BufReader<ChildStderr>, String) {
    std::fs::write(folder.join("rules.toml"), rules).unwrap();
    let mut child = command(folder)
        .args(["serve-rewards", "--rules", "rules.toml", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut said, mut line) = (BufReader::new(child.stderr.take().unwrap()), String::new());
    said.read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    (child, said, address.unwrap_or_else(|| panic!("no address: {line}")).to_owned())
}

fn post(address: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    stream
}

#[test]
fn what_is_in_flight_is_answered_when_the_server_is_told_to_stop() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let judge = OpenAiServer::start(Behaviour { latency: Duration::from_secs(1), ..Behaviour::default() });
        let rules = format!("[rules.judge]\nkind = \"judge\"\nendpoint = \"{}/v1\"\nmodel = \"tiny\"\n", judge.url());
        let (mut child, _said, address) = serve(folder.path(), &rules);
        let mut reply = post(&address, r#"{"rows": [{"completion": "4", "gold": "4", "prompt": "2 + 2?"}]}"#);
        let asked = Instant::now();
        while judge.seen.completions.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            assert!(asked.elapsed() < Duration::from_secs(20), "the judge was never asked");
            std::thread::sleep(Duration::from_millis(10));
        }
        // SAFETY: the child has not been waited for, so the number is its own.
        unsafe { libc::kill(child.id() as i32, signal) };
        let mut text = String::new();
        reply.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"rewards\""), "signal {signal}: {text}");
        assert_eq!(child.wait().unwrap().code(), Some(0), "signal {signal}");
    }
}
