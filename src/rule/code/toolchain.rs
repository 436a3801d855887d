//! The languages code may be written in, and what runs them here.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::sandbox::{self, Ended, Job, Limits};
use super::tail;

/// A programming language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Cpp,
    Rust,
    JavaScript,
}

/// How a language's programs are made and run; paths as seen inside the sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// Compiles `/box/SOURCE` to `/out/main`; empty for interpreters.
    pub compile: Vec<String>,
    /// Runs it.
    pub run: Vec<String>,
    /// Folders outside `/usr` that the compiler or interpreter needs.
    pub folders: Vec<PathBuf>,
    /// Whether the address space can be limited.
    pub address_space: bool,
}

impl Toolchain {
    /// Folders outside `/usr` that a program needs when it runs.
    pub fn run_folders(&self) -> &[PathBuf] {
        if self.compile.is_empty() { &self.folders } else { &[] }
    }

    /// An interpreter that was chosen by its path, if it runs in the sandbox: what does not would make every program
    /// wrong; or why it does not.
    pub fn tried(language: Language, path: &str, limits: Limits) -> Result<Self, String> {
        let toolchain = Self::chosen(language, path).ok_or_else(|| format!("{path} does not run"))?;
        let folder = sandbox::folder().map_err(|error| error.to_string())?;
        let command = [toolchain.run[0].clone(), "--version".to_owned()];
        let job = Job {
            command: &command,
            folder: folder.path(),
            out: None,
            toolchain: toolchain.run_folders(),
            stdin: b"",
            limits,
            own_user: false,
        };
        let ran = sandbox::run(&job).map_err(|error| error.to_string())?;
        if ran.ended == Ended::Exit(0) {
            return Ok(toolchain);
        }
        // SAFETY: geteuid has no preconditions.
        let root = unsafe { libc::geteuid() } == 0;
        Err(match toolchain.folders.iter().find_map(|folder| closed(folder)).filter(|_| root) {
            Some(closed) => format!(
                "{path} does not run in the sandbox: programs run as a user of their own, which may not enter {0}. \
                 Let it (`chmod o+x {0}`), or install the interpreter elsewhere, such as below /opt",
                closed.display()
            ),
            None => format!("{path} does not run in the sandbox: {}", tail(&ran.stderr)),
        })
    }

    /// An interpreter that was chosen by its path; `None` if it does not run.
    fn chosen(language: Language, path: &str) -> Option<Self> {
        let output = |args: &[&str]| {
            let output = Command::new(path).args(args).output().ok().filter(|output| output.status.success())?;
            String::from_utf8(output.stdout).ok()
        };
        let (mut run, mut folders) = match language {
            Language::Python => {
                let asked = output(&["-I", "-c", PREFIXES])?;
                (vec!["-I".to_owned(), "-B".to_owned()], asked.lines().map(PathBuf::from).collect::<Vec<_>>())
            }
            Language::JavaScript => {
                output(&["--version"])?;
                (vec![NODE_MEMORY.to_owned()], vec![std::fs::canonicalize(path).ok()?.parent()?.to_owned()])
            }
            _ => return None,
        };
        // A virtual environment is found by the path of a link, so that is what is run.
        let path = std::path::absolute(path).ok()?;
        folders.push(path.parent()?.to_owned());
        run.insert(0, path.display().to_string());
        run.push(format!("/box/{}", language.file()));
        let mut outside: Vec<PathBuf> = Vec::new();
        for folder in folders {
            let seen = outside.iter().any(|known| folder.starts_with(known));
            if !folder.starts_with("/usr") && folder.parent().is_some() && !seen {
                outside.push(folder);
            }
        }
        let address_space = language.has_address_space();
        Some(Toolchain { compile: Vec::new(), run, folders: outside, address_space })
    }
}

/// The outermost folder on the way to a path that only its owner may enter.
fn closed(path: &Path) -> Option<PathBuf> {
    let entered = |folder: &&Path| std::fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o1 != 0);
    path.ancestors().filter(|folder| !entered(folder)).last().map(Path::to_owned)
}

/// Prints the folders of an interpreter and its packages.
const PREFIXES: &str = "import os, sys\nfor p in (sys.prefix, sys.base_prefix, sys.exec_prefix, \
    os.path.dirname(os.path.realpath(sys.executable))):\n    print(p)";

const NODE_MEMORY: &str = "--max-old-space-size=384";

impl Language {
    /// From a fence's or a dataset's word; versions behind it do not matter.
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word.trim().to_ascii_lowercase();
        Some(match word.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' ')) {
            "python" | "py" | "pypy" => Language::Python,
            "cpp" | "c++" | "cc" | "cxx" | "c" => Language::Cpp,
            "rust" | "rs" => Language::Rust,
            "javascript" | "js" | "node" | "nodejs" => Language::JavaScript,
            _ => return None,
        })
    }

    /// Whether the address space of its programs can be limited: V8 reserves much and uses little.
    pub fn has_address_space(self) -> bool {
        self != Language::JavaScript
    }

    /// Bytes that running a program of the language takes before it does anything, which a problem's limit is not about.
    pub fn runtime_memory(self) -> u64 {
        match self {
            Language::Python => 64 << 20,
            Language::JavaScript => 96 << 20,
            Language::Cpp | Language::Rust => 0,
        }
    }

    /// The source file's name.
    pub fn file(self) -> &'static str {
        match self {
            Language::Python => "main.py",
            Language::Cpp => "main.cpp",
            Language::Rust => "main.rs",
            Language::JavaScript => "main.js",
        }
    }

    /// What runs the language here, `None` if nothing does. Looked for once.
    pub fn toolchain(self) -> Option<&'static Toolchain> {
        static FOUND: [OnceLock<Option<Toolchain>>; 4] = [const { OnceLock::new() }; 4];
        FOUND[self as usize].get_or_init(|| self.find()).as_ref()
    }

    fn find(self) -> Option<Toolchain> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let present = |path: &str| PathBuf::from(path).exists();
        let usable = |path: &str| present(path).then_some(());
        match self {
            Language::Python => {
                usable("/usr/bin/python3")?;
                let run = words(&["/usr/bin/python3", "-I", "-B", "/box/main.py"]);
                Some(Toolchain { compile: Vec::new(), run, folders: Vec::new(), address_space: true })
            }
            Language::JavaScript => {
                let node = ["/usr/bin/node", "/usr/bin/nodejs", "/usr/local/bin/node"]
                    .into_iter()
                    .find(|path| present(path))?;
                let run = words(&[node, NODE_MEMORY, "/box/main.js"]);
                Some(Toolchain { compile: Vec::new(), run, folders: Vec::new(), address_space: false })
            }
            Language::Cpp => {
                usable("/usr/bin/g++")?;
                let compile = words(&["/usr/bin/g++", "-O2", "-std=c++17", "-o", "/out/main", "/box/main.cpp"]);
                Some(Toolchain { compile, run: words(&["/box/main"]), folders: Vec::new(), address_space: true })
            }
            Language::Rust => {
                usable("/usr/bin/cc")?;
                let output =
                    Command::new("rustc").args(["--print", "sysroot"]).output().ok().filter(|o| o.status.success())?;
                let root = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
                let rustc = root.join("bin/rustc");
                rustc.exists().then_some(())?;
                let rustc = rustc.display().to_string();
                let compile =
                    words(&[&rustc, "-O", "--edition", "2021", "-A", "warnings", "-o", "/out/main", "/box/main.rs"]);
                let folders = if root.starts_with("/usr") { Vec::new() } else { vec![root] };
                Some(Toolchain { compile, run: words(&["/box/main"]), folders, address_space: true })
            }
        }
    }
}
