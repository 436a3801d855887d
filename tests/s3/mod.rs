//! A dataset, its manifest and a journal through `s3://`, against a real S3-compatible server on loopback.
//!
//! Uses `moto_server` from the path; with GRISTMILL_SLOW_TESTS=1 one is installed into a
//! cache folder if there is none. Skips with a printed line where neither can be had.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gristmill::prompts::{Importer, SourceConfig};
use gristmill::schema::{Message, Prompt, Role};
use gristmill::store::{Dataset, FileWriter, Journal, Location, Manifest, ShardWriter, SyncPolicy, WriterOptions};

/// Set in the child that runs the test proper: credentials travel by environment, and a
/// process must not change its own while other tests run.
const CHILD: &str = "GRISTMILL_S3_TEST_CHILD";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn find_server() -> Option<PathBuf> {
    let in_path = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("moto_server"))
        .find(|file| file.is_file());
    if in_path.is_some() {
        return in_path;
    }
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
    let server = venv.join("bin/moto_server");
    if !server.is_file() && std::env::var_os("GRISTMILL_SLOW_TESTS").is_some_and(|value| value == "1") {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status().is_ok_and(|s| s.success());
        let pip = venv.join("bin/pip");
        let installed =
            made && Command::new(pip).args(["install", "--quiet", "moto[server]"]).status().is_ok_and(|s| s.success());
        if !installed {
            return None;
        }
    }
    server.is_file().then_some(server)
}

/// Sends one request without a body; the server answers before it closes.
fn create_bucket(port: u16, bucket: &str) {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        stream,
        "PUT /{bucket} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "the server did not make a bucket: {answer}");
}

#[test]
fn a_dataset_a_manifest_and_a_journal_go_through_s3() {
    if std::env::var_os(CHILD).is_some() {
        return round_trip();
    }
    let Some(program) = find_server() else {
        eprintln!("skipped: no moto_server in the path (GRISTMILL_SLOW_TESTS=1 installs one)");
        return;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new(program)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(child);
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "the S3 server did not start");
        std::thread::sleep(Duration::from_millis(100));
    }
    create_bucket(port, "gristmill");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_dataset_a_manifest_and_a_journal_go_through_s3", "--nocapture"])
        .env(CHILD, "1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .env("AWS_ALLOW_HTTP", "true")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "the child ran another set of tests: {text}");
}

fn prompt(i: u64) -> Prompt {
    // Text that does not compress, so that the shard is longer than one upload part.
    let mut rng = gristmill::seed::Rng::new(i);
    Prompt {
        prompt_id: format!("{i:032x}"),
        messages: vec![Message { role: Role::User, content: format!("question {i}") }],
        gold: Some(i.to_string()),
        solution: Some((0..300).map(|_| format!("{:016x}", rng.next_u64())).collect()),
        verification: None,
        domain: "math".into(),
        language: "en".into(),
        difficulty: None,
        source: "tests".into(),
        license: None,
        extra: None,
    }
}

fn round_trip() {
    let folder = Location::parse("s3://gristmill/run/1_prompts").unwrap();
    assert!(!folder.exists().unwrap());
    assert!(Dataset::open(&folder).is_err());
    assert!(Manifest::load(&folder).unwrap().is_none());

    let rows: Vec<Prompt> = (0..5000).map(prompt).collect();
    let options = WriterOptions { group_rows: 1024, ..WriterOptions::default() };
    let mut writer = ShardWriter::create(&folder, 0, gristmill::schema::DatasetKind::Prompts, options).unwrap();
    writer.push_rows(&rows).unwrap();
    let info = writer.finish().unwrap();
    assert!(info.bytes > 8 << 20, "{} bytes go up in one part", info.bytes);
    let manifest = Manifest::new("prompts", "prompts", Some(gristmill::schema::DatasetKind::Prompts), "f", vec![info]);
    manifest.commit(&folder).unwrap();
    assert_eq!(Manifest::load(&folder).unwrap().unwrap(), manifest);
    let names: Vec<String> = folder.list().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["_manifest.json", "part-00000.parquet"]);

    let dataset = Dataset::open(&folder).unwrap();
    let read: Vec<Prompt> = dataset.rows_of().collect::<gristmill::Result<_>>().unwrap();
    assert_eq!(read, rows);
    assert!(manifest.altered(&folder).unwrap().is_empty());

    // From a thread of another runtime, and from inside its async code.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async { assert!(Manifest::load(&folder).unwrap().is_some()) });

    sources_are_read(&folder);

    let journal_at = folder.join("_journal");
    let policy = SyncPolicy { records: 2, interval: Duration::from_secs(60) };
    let mut journal = Journal::open(&journal_at, policy, |_, _| Ok(())).unwrap();
    let places: Vec<_> = (0..5u8).map(|i| journal.append(&[i; 3]).unwrap()).collect();
    assert_eq!(journal.read(places[3]).unwrap(), [3; 3]);
    drop(journal);
    assert_eq!(Journal::first(&journal_at).unwrap().unwrap(), [0; 3]);
    let mut records = Vec::new();
    let journal = Journal::open(&journal_at, policy, |place, record| {
        assert_eq!(place.bytes(), 3);
        records.push(record[0]);
        Ok(())
    });
    assert_eq!(records, [0, 1, 2, 3, 4]);
    journal.unwrap().remove().unwrap();
    assert!(journal_at.list().unwrap().is_empty());
    let claim = folder.join("_claim-x");
    assert!(claim.write_new("one").unwrap() && !claim.write_new("two").unwrap());
    assert_eq!(claim.read().unwrap(), "one");
    claim.delete().unwrap();

    let rules = folder.parent().join("rules.toml");
    rules.write("first").unwrap();
    let cache = tempfile::tempdir().unwrap();
    let fetch = || std::fs::read_to_string(rules.fetch(cache.path()).unwrap()).unwrap();
    assert_eq!(
        (fetch(), rules.fetch(cache.path()).unwrap().file_name().unwrap().to_str()),
        ("first".into(), Some("rules.toml"))
    );
    rules.write("later").unwrap();
    assert_eq!(fetch(), "later", "as long, but another version");
    let told = folder.join("nothing").fetch(cache.path()).unwrap_err().render(false);
    assert!(told.contains("there is no such object"), "{told}");

    folder.join("part-00000.parquet").delete().unwrap();
    assert!(Dataset::open(&folder).unwrap_err().to_string().contains("missing"));
}

/// Files written as streams, and read as sources of prompts: by name, folder and pattern.
fn sources_are_read(shards: &Location) {
    let folder = Location::parse("s3://gristmill/data").unwrap();
    for name in ["a.jsonl", "deep/b.jsonl", "deep/notes.txt"] {
        let mut writer = FileWriter::create(&folder.join(name)).unwrap();
        writer.write(format!("{{\"question\": \"{name}?\"}}\n").as_bytes()).unwrap();
        writer.finish().unwrap();
    }
    let questions = |path: &str| -> Vec<String> {
        let importer = Importer::open(&SourceConfig::new(path), Path::new("/nowhere")).unwrap();
        importer.map(|row| row.unwrap().prompt.question().to_owned()).collect()
    };
    assert_eq!(questions("s3://gristmill/data"), ["a.jsonl?"]);
    assert_eq!(questions("s3://gristmill/data/deep/b.jsonl"), ["deep/b.jsonl?"]);
    assert_eq!(questions("s3://gristmill/data/**/*.jsonl"), ["a.jsonl?", "deep/b.jsonl?"]);
    // Parquet wants to seek.
    assert_eq!(questions(&format!("{shards}/part-*.parquet")).len(), 5000);
    let gone = Importer::open(&SourceConfig::new("s3://gristmill/data/gone.jsonl"), Path::new(".")).unwrap();
    let error = gone.last().unwrap().unwrap_err().to_string();
    assert!(error.contains("no such object") && error.contains("gone.jsonl"), "{error}");
}
