use super::*;

/// What a program of a few lines needs.
const LIMITS: Limits = Limits {
    wall: Duration::from_secs(5),
    memory: 256 << 20,
    processes: 16,
    file: 1 << 20,
    output: 4096,
    stack: None,
    address_space: true,
};

fn job<'a>(command: &'a [String], folder: &'a Path, limits: Limits) -> Job<'a> {
    Job { command, folder, out: None, toolchain: &[], stdin: b"", limits, own_user: false }
}

/// Ways out, each with the line it prints when it got out.
const ESCAPES: &[(&str, &str)] = &[
    (
        "read a home",
        "import os\nfor p in ('/root', '/home'):\n    try:\n        os.listdir(p); print('OUT', p)\n    except OSError: pass",
    ),
    ("read passwords", "try:\n    print('OUT', open('/etc/shadow').read(20))\nexcept OSError: pass"),
    (
        "write to the system",
        "for p in ('/usr/x', '/box/x', '/x', '/bin/x'):\n    try:\n        open(p, 'w').write('x'); print('OUT', p)\n    except OSError: pass",
    ),
    (
        "reach the network",
        "import socket\ntry:\n    socket.create_connection(('127.0.0.1', PORT), 2); print('OUT')\nexcept OSError: pass",
    ),
    (
        "see other processes",
        "import os\nn = [p for p in os.listdir('/proc') if p.isdigit()]\nif len(n) > 4: print('OUT', n)",
    ),
    (
        "kill other processes",
        "import os, signal\ntry:\n    os.kill(PARENT, signal.SIGKILL); print('OUT')\nexcept OSError: pass",
    ),
    (
        "outlive the sandbox",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        open('/proc/self/comm', 'w').write('NAME')\n        time.sleep(60)\n",
    ),
    (
        "fork without end",
        "import os\ntry:\n    for i in range(500):\n        if os.fork() == 0:\n            import time; time.sleep(20)\n    print('OUT')\nexcept OSError: pass",
    ),
    (
        "fill the disk",
        "try:\n    for i in range(64):\n        with open('/tmp/f%d' % i, 'wb') as f: f.write(b'x' * (8 << 20))\n    print('OUT')\nexcept OSError: pass",
    ),
    (
        "read the environment of whoever started it",
        "import os\nfor p in os.listdir('/proc'):\n    try:\n        if p.isdigit() and 'CARGO' in open('/proc/%s/environ' % p).read(): print('OUT', p)\n    except OSError: pass",
    ),
    (
        "use a file that was left open",
        "import os\nfor p in ('1', 'self'):\n    for n in os.listdir('/proc/%s/fd' % p):\n        try: to = os.readlink('/proc/%s/fd/%s' % (p, n))\n        except OSError: continue\n        if to.startswith('/') and not to.startswith(('/dev/', '/proc/', '/box')): print('OUT', p, n, to)",
    ),
    (
        "fill shared memory",
        "for d in ('/dev/shm', '/dev', '/run', '/var/tmp'):\n    try:\n        for i in range(16):\n            with open('%s/f%d' % (d, i), 'wb') as f: f.write(b'x' * (4 << 20))\n        print('OUT', d)\n    except OSError: pass",
    ),
    (
        "hold memory that is no process's",
        "import os\ntry:\n    os.memfd_create('x'); print('OUT')\nexcept OSError: pass",
    ),
    (
        "open namespaces of its own",
        "import ctypes\nlibc = ctypes.CDLL(None)\nif libc.unshare(0x10000000) == 0: print('OUT')",
    ),
    (
        "gain privileges",
        "import ctypes, os\nlibc = ctypes.CDLL(None)\nif os.getuid() == 0 and libc.mount(b'none', b'/usr', b'tmpfs', 0, None) == 0: print('OUT mount')\nif libc.chroot(b'/proc/1/root') == 0: print('OUT chroot')\nif os.environ.get('CARGO') or os.environ.get('USER'): print('OUT environment')",
    ),
];

#[test]
fn escapes_fail() {
    if let Err(error) = ready() {
        eprintln!("skipped: {error}");
        return;
    }
    if !Path::new("/usr/bin/python3").exists() {
        eprintln!("skipped: no /usr/bin/python3");
        return;
    }
    assert!(ESCAPES.len() >= 10);
    // As a careless caller's: not closed by exec.
    let left_open = std::fs::File::open("/etc/hostname").or_else(|_| std::fs::File::open("/etc/passwd")).unwrap();
    // SAFETY: the descriptor is open, and F_SETFD takes a number.
    unsafe { libc::fcntl(left_open.as_raw_fd(), libc::F_SETFD, 0) };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let outlives = process_name("outlive");
    for (name, code) in ESCAPES {
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path()).unwrap();
        let code = code
            .replace("PORT", &port.to_string())
            .replace("PARENT", &std::process::id().to_string())
            .replace("NAME", &outlives);
        std::fs::write(folder.path().join("main.py"), code).unwrap();
        let command = ["/usr/bin/python3", "-I", "/box/main.py"].map(str::to_owned);
        let limits = Limits { wall: Duration::from_secs(10), processes: 24, file: 32 << 20, output: 1 << 16, ..LIMITS };
        let started = Instant::now();
        let job = job(&command, folder.path(), limits);
        let ran = run(&job).unwrap();
        let printed = String::from_utf8_lossy(&ran.stdout);
        assert!(!printed.contains("OUT"), "{name}: {printed}");
        assert!(started.elapsed() < Duration::from_secs(15), "{name} took {:?}", started.elapsed());
        assert!(
            matches!(ran.ended, Ended::Exit(0)),
            "{name}: {:?} {}",
            ran.ended,
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    assert!(is_gone(&outlives), "a process outlived the sandbox");
}

/// A name that processes of this test give themselves, and no others.
fn process_name(what: &str) -> String {
    // The kernel keeps fifteen bytes.
    format!("{what}{}", std::process::id()).chars().take(15).collect()
}

/// Whether no process of that name runs, once what is being ended has had a second for it.
fn is_gone(name: &str) -> bool {
    let alive = || {
        let comm = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm"));
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| comm(entry).is_ok_and(|comm| comm.trim() == name))
    };
    let asked = Instant::now();
    while alive() {
        if asked.elapsed() > Duration::from_secs(1) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn the_whole_tree_dies_at_the_wall() {
    if ready().is_err() || !Path::new("/usr/bin/python3").exists() {
        eprintln!("skipped: no sandbox or no python");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path()).unwrap();
    let name = process_name("sleeper");
    let code = format!(
        "import os, time\nfor i in range(5): os.fork()\nopen('/proc/self/comm', 'w').write('{name}')\nwhile True: time.sleep(1)\n"
    );
    std::fs::write(folder.path().join("main.py"), code).unwrap();
    let command = ["/usr/bin/python3", "-I", "/box/main.py"].map(str::to_owned);
    let limits = Limits { wall: Duration::from_secs(2), memory: 1 << 30, processes: 64, ..LIMITS };
    let job = job(&command, folder.path(), limits);
    assert_eq!(run(&job).unwrap().ended, Ended::WallLimit);
    assert!(is_gone(&name), "a process outlived the wall");
}

#[test]
fn no_more_programs_run_at_once_than_there_are_cores() {
    if ready().is_err() {
        eprintln!("skipped: no sandbox");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path()).unwrap();
    let command = ["/bin/sh", "-c", "date +%s%N; sleep 0.2; date +%s%N"].map(str::to_owned);
    let limits = LIMITS;
    let job = job(&command, folder.path(), limits);
    let spans: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let run = || {
            let text = String::from_utf8(run(&job).unwrap().stdout).unwrap();
            let mut times = text.lines().map(|line| line.parse().unwrap());
            (times.next().unwrap(), times.next().unwrap())
        };
        let threads: Vec<_> = (0..3 * slots::cores()).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (begun, _) in &spans {
        let at_once = spans.iter().filter(|(from, to)| from <= begun && begun < to).count();
        assert!(at_once <= slots::cores(), "{at_once} at once");
    }
}

#[test]
fn no_dead_process_is_left_behind() {
    if ready().is_err() {
        eprintln!("skipped: no sandbox");
        return;
    }
    assert!(child::adopt(), "orphans come to us, so that what is left can be seen");
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path()).unwrap();
    let limits = Limits { wall: Duration::from_millis(300), ..LIMITS };
    for (program, ends) in [("true", Ended::Exit(0)), ("sleep 60", Ended::WallLimit)] {
        let command = ["/bin/sh", "-c", program].map(str::to_owned);
        let job = job(&command, folder.path(), limits);
        assert_eq!(run(&job).unwrap().ended, ends);
    }
    // Other tests' sandboxes end meanwhile, and each is dead for a moment.
    let dead = || -> std::collections::BTreeSet<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let all: Vec<String> =
            children.flat_map(|list| list.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
        let is_dead =
            |pid: &String| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
        all.into_iter().filter(is_dead).collect()
    };
    let mut left = dead();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        left = left.intersection(&dead()).cloned().collect();
    }
    assert!(left.is_empty(), "dead and not waited for: {left:?}");
}
