//! The languages code may be written in, and what runs them here.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

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
    /// Folders outside `/usr` that the compiler needs.
    pub folders: Vec<PathBuf>,
    /// Whether the address space can be limited.
    pub address_space: bool,
}

impl Language {
    /// From a fence's or a dataset's word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "python" | "python3" | "py" | "py3" | "pypy" => Language::Python,
            "cpp" | "c++" | "cc" | "cxx" | "c++17" | "c++20" | "c" => Language::Cpp,
            "rust" | "rs" => Language::Rust,
            "javascript" | "js" | "node" | "nodejs" => Language::JavaScript,
            _ => return None,
        })
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
                let run = words(&[node, "--max-old-space-size=384", "/box/main.js"]);
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
