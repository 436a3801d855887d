//! Where scored rows go.

use std::fs::{self, File};
use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::store::PendingFile;

/// Standard output, or a file that appears whole or not at all: so a kill leaves no half that looks
/// like the whole, and the rows may replace the file that they are read from.
pub(super) struct Output {
    to: BufWriter<To>,
    name: String,
}

enum To {
    Stdout(Stdout),
    /// A pipe or a device: there is nothing to rename.
    Stream(File),
    File(PendingFile),
}

impl Output {
    /// `-` is standard output.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn open(path: &str) -> Result<Output> {
        let to = if path == "-" {
            To::Stdout(io::stdout())
        } else {
            // What a link points at is replaced, not the link.
            let target = fs::canonicalize(path).unwrap_or_else(|_| Path::new(path).to_owned());
            match fs::metadata(&target) {
                Ok(there) if there.is_dir() => {
                    return Err(Error::usage("the output is a folder").in_file(path).hint("name a file"));
                }
                Ok(there) if !there.is_file() => {
                    To::Stream(File::create(&target).or_fail(|| format!("cannot write {path}"))?)
                }
                _ => To::File(PendingFile::create(&target)?),
            }
        };
        Ok(Output { to: BufWriter::with_capacity(1 << 20, to), name: path.to_owned() })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// What was written does not reach the disk.
    pub fn finish(self) -> Result<()> {
        let to = self.to.into_inner().map_err(io::IntoInnerError::into_error);
        match to.or_else(|e| failed(e).map_err(|e| e.in_file(&self.name)))? {
            To::Stdout(_) | To::Stream(_) => Ok(()),
            To::File(pending) => pending.publish(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            To::Stdout(out) => out.write(bytes),
            To::Stream(file) => file.write(bytes),
            To::File(pending) => pending.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            To::Stdout(out) => out.flush(),
            To::Stream(_) | To::File(_) => Ok(()),
        }
    }
}

/// A write that failed; where nobody reads on (`| head`), the command ends.
pub(super) fn failed<T>(error: io::Error) -> Result<T> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => std::process::exit(0),
        _ => Err(Error::new("cannot write the scored rows").caused_by(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::score::{BadRows, ScoreArgs, run};

    const ROW: &str = "{\"gold\":\"1\",\"completion\":\"1\"}\n";

    fn rules(folder: &Path) -> String {
        let file = folder.join("rules.toml");
        fs::write(&file, "reward = \"a\"\n[rules.a]\nkind = \"exact\"\n").unwrap();
        file.display().to_string()
    }

    #[test]
    fn rows_may_replace_the_file_they_are_read_from() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rows.jsonl");
        fs::write(&file, ROW.repeat(3000)).unwrap();
        let path = file.display().to_string();
        let bad_rows = BadRows::Fail;
        run(ScoreArgs { rules: rules(folder.path()), input: path.clone(), output: path, bad_rows }).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("\"reward\":1.0")).count(), 3000);
    }

    #[test]
    fn a_faulty_row_leaves_what_was_there_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
        fs::write(&input, format!("{}{{}}\n", ROW.repeat(3000))).unwrap();
        fs::write(&output, "earlier").unwrap();
        let rules = rules(folder.path());
        let (input, path) = (input.display().to_string(), output.display().to_string());
        let error = run(ScoreArgs { rules, input, output: path, bad_rows: BadRows::Fail }).unwrap_err();
        assert!(error.to_string().contains(":3001"), "{error}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "earlier");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_folder_is_no_output() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Output::open(folder.path().to_str().unwrap()).err().map(|e| e.exit_code()), Some(2));
    }
}
