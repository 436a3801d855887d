//! Servers of our own: what is asked of them, their last words, and their end.

use std::time::Instant;

use super::*;

/// What stubborn servers get to end by themselves.
const SHORT: Duration = Duration::from_millis(300);

fn shell(dir: &std::path::Path, script: &str) -> ServerConfig {
    use std::os::unix::fs::PermissionsExt;
    let program = dir.join("fake-vllm");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    ServerConfig {
        command: program.display().to_string(),
        model: "tiny".into(),
        log: dir.join("log"),
        args: vec!["--dtype".into(), "float32".into()],
        ..ServerConfig::default()
    }
}

fn until<T>(mut poll: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "waited too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = state.rsplit(')').next().unwrap_or_default().trim().chars().next();
    !matches!(state, None | Some('Z' | 'X'))
}

#[test]
fn a_server_that_dies_says_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut server =
        ManagedServer::start(&shell(dir.path(), "echo \"args: $@\"; echo no such model >&2; exit 3"), None).unwrap();
    let error = until(|| server.check().err());
    assert!(error.message().contains("no such model"), "{error}");
    assert!(error.message().contains("serve tiny --host 127.0.0.1 --port"), "{error}");
    assert!(error.message().contains("--dtype float32"), "{error}");
}

#[test]
fn a_server_that_prints_its_keys_is_not_quoted_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = shell(dir.path(), "echo \"args: $@ $VLLM_API_KEY $HF_TOKEN\"; exit 1");
    config.args =
        ["--api-key", "hunter1", "hunter2", "--hf-token=hunter3", "--dtype", "float32"].map(String::from).into();
    config.env.insert("HF_TOKEN".into(), "hunter4".into());
    let shown = format!("{config:?}");
    let mut server = ManagedServer::start(&config, Some("hunter5")).unwrap();
    let message = until(|| server.check().err()).message().to_owned();
    assert!(message.contains("--dtype float32") && message.contains("***"), "{message}");
    for text in [&message, &shown] {
        assert!(!text.contains("hunter"), "{text}");
    }
}

#[test]
fn a_port_that_is_taken_is_refused_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let stranger = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let config = ServerConfig { port, ..shell(dir.path(), "exec sleep 600") };
    let error = ManagedServer::start(&config, None).err().unwrap().to_string();
    assert!(error.contains(&format!("port {port}")) && error.contains("engine.server.port"), "{error}");
    assert!(!config.log.exists(), "nothing was started");
}

#[test]
fn the_whole_process_group_is_taken_down() {
    let dir = tempfile::tempdir().unwrap();
    // The grandchild writes its pid, the parent waits for it.
    let script = format!("sleep 600 & echo $! > {}/pid; wait", dir.path().display());
    let server = ManagedServer::start(&shell(dir.path(), &script), None).unwrap();
    let pid: u32 = until(|| std::fs::read_to_string(dir.path().join("pid")).ok().and_then(|t| t.trim().parse().ok()));
    drop(server);
    until(|| (!alive(pid)).then_some(()));
}

#[test]
fn a_panic_takes_the_server_down() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("echo $$ > {}/pid; exec sleep 600", dir.path().display());
    let config = shell(dir.path(), &script);
    let pid = std::sync::Mutex::new(0);
    let panicked = std::panic::catch_unwind(|| {
        let _server = ManagedServer::start(&config, None).unwrap();
        let read = || std::fs::read_to_string(dir.path().join("pid")).ok().and_then(|t| t.trim().parse().ok());
        *pid.lock().unwrap() = until(read);
        std::panic::resume_unwind(Box::new("told to"));
    });
    assert!(panicked.is_err());
    let pid = *pid.lock().unwrap();
    assert!(pid > 0);
    until(|| (!alive(pid)).then_some(()));
}

/// A server that does not listen to SIGTERM, nor do its children, one of which has left its group. All have
/// written their numbers once it has begun.
#[cfg(target_os = "linux")]
fn stubborn(dir: &std::path::Path) -> ServerConfig {
    let pids = dir.join("pids");
    let pids = pids.display();
    let script = format!(
        "trap '' TERM\nsleep 600 & echo $! >> {pids}\nsetsid sleep 600 & echo $! >> {pids}\necho $$ >> {pids}\nwait"
    );
    shell(dir, &script)
}

#[cfg(target_os = "linux")]
fn stubborn_ones(dir: &std::path::Path) -> Vec<u32> {
    let pids: Vec<u32> = until(|| {
        let text = std::fs::read_to_string(dir.join("pids")).ok()?;
        let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        // The second has left the group only once it is `sleep`.
        let left = std::fs::read_to_string(format!("/proc/{}/comm", pids.get(1)?)).is_ok_and(|name| name == "sleep\n");
        (pids.len() == 3 && left).then_some(pids)
    });
    assert!(pids.iter().all(|&pid| alive(pid)), "{pids:?}");
    pids
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_that_ignores_sigterm_is_killed_with_all_that_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = ManagedServer::start_with(&stubborn(dir.path()), None, SHORT).unwrap();
    let pids = stubborn_ones(dir.path());
    let since = Instant::now();
    drop(server);
    assert!(since.elapsed() >= SHORT, "it had no time to end by itself");
    assert!(since.elapsed() < GRACE, "{:?}", since.elapsed());
    until(|| (!pids.iter().any(|&pid| alive(pid))).then_some(()));
}

#[test]
fn a_server_is_ended_though_its_watcher_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!("trap '' TERM; echo $$ > {}/pid; sleep 600 & wait", dir.path().display());
    let server = ManagedServer::start_with(&shell(dir.path(), &script), None, SHORT).unwrap();
    let pid: u32 = until(|| std::fs::read_to_string(dir.path().join("pid")).ok().and_then(|t| t.trim().parse().ok()));
    server.watcher.kill();
    drop(server);
    assert!(!alive(pid));
}

/// Not a test of its own: what the next one starts in a process that it can kill.
#[test]
#[ignore = "is started by another test"]
fn owner_that_waits_to_be_killed() {
    let Some(program) = std::env::var_os("GRISTMILL_TEST_SERVER") else { return };
    let program = PathBuf::from(program);
    let config = ServerConfig {
        command: program.display().to_string(),
        model: "tiny".into(),
        log: program.with_file_name("log"),
        ..ServerConfig::default()
    };
    let _server = ManagedServer::start_with(&config, None, SHORT).unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_that_ignores_sigterm_is_killed_though_its_owner_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "engine::vllm::launch::tests::owner_that_waits_to_be_killed"])
        .env("GRISTMILL_TEST_SERVER", stubborn(dir.path()).command)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pids = stubborn_ones(dir.path());
    owner.kill().unwrap();
    owner.wait().unwrap();
    until(|| (!pids.iter().any(|&pid| alive(pid))).then_some(()));
}

#[test]
fn a_missing_program_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = ServerConfig { command: "/nowhere/vllm".into(), ..shell(dir.path(), "") };
    let error = ManagedServer::start(&config, None).err().unwrap();
    assert!(error.to_string().contains("/nowhere/vllm"), "{error}");
}
