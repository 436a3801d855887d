//! The one error type of the crate: what failed, where, and what to do.
//!
//! An [`Error`] is opaque. Messages live beside the code that fails; this file
//! only knows how to carry and print them. `Err` is for a stage that cannot go
//! on: a row that fails is data and never becomes an `Error`.

mod mask;
mod nearest;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

pub(crate) use mask::names_a_secret;
pub(crate) use nearest::nearest;

/// The result of anything that can fail for good.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, where, and a hint at what to do about it.
pub struct Error(Box<Inner>);

struct Inner {
    message: String,
    /// Outermost first: "while doing x", "while doing y".
    contexts: Vec<String>,
    place: Place,
    hints: Vec<String>,
    kind: ErrorKind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a caller may want to branch on; everything else is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The work failed: exit code 1.
    Failed,
    /// The command or recipe was written wrongly: exit code 2.
    Usage,
    /// The user asked to stop (Ctrl-C); what was done is committed. Exit code 130.
    Interrupted,
    /// Nobody is there to do the work now, such as a server: exit code 1.
    Unavailable,
    /// Nothing failed, but what is left is another machine's (`--shard`). Exit code 0.
    Waiting,
}

/// Where an error is: any part may be missing.
#[derive(Clone, Debug, Default)]
struct Place {
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    row: Option<u64>,
    field: Option<String>,
    span: Option<(Arc<str>, Range<usize>)>,
}

impl Error {
    /// An error with this message and nothing else yet.
    pub fn new(message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            message: message.into(),
            contexts: Vec::new(),
            place: Place::default(),
            hints: Vec::new(),
            kind: ErrorKind::Failed,
            source: None,
        }))
    }

    /// A mistake in how the command or the recipe was written (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        let mut error = Error::new(message);
        error.0.kind = ErrorKind::Usage;
        error
    }

    /// Nobody is there to do the work now; later there may be.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Error::new(message);
        error.0.kind = ErrorKind::Unavailable;
        error
    }

    /// The user stopped the run; what was done is committed.
    pub fn interrupted() -> Self {
        let mut error = Error::new("interrupted");
        error.0.kind = ErrorKind::Interrupted;
        error
    }

    /// This machine's part is done; the message says what is left to others.
    pub fn waiting(message: impl Into<String>) -> Self {
        let mut error = Error::new(message);
        error.0.kind = ErrorKind::Waiting;
        error
    }

    /// Keeps the lower-level error that caused this one; it is printed last.
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// The file (or URL) the error is in. The innermost name wins.
    pub fn in_file(mut self, file: impl fmt::Display) -> Self {
        self.0.place.file.get_or_insert_with(|| file.to_string());
        self
    }

    /// One-based line and column in the file.
    pub fn at_line(mut self, line: usize, column: Option<usize>) -> Self {
        self.0.place.line.get_or_insert(line);
        self.0.place.column = self.0.place.column.or(column);
        self
    }

    /// Zero-based row of the dataset or file.
    pub fn at_row(mut self, row: u64) -> Self {
        self.0.place.row.get_or_insert(row);
        self
    }

    /// The column or key the error is about.
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.0.place.field.get_or_insert_with(|| field.into());
        self
    }

    /// The faulty bytes of a text file: printed as a snippet with a caret.
    /// Sets line and column too.
    pub fn at_span(mut self, text: impl Into<Arc<str>>, span: Range<usize>) -> Self {
        let text: Arc<str> = text.into();
        let start = span.start.min(text.len());
        let end = span.end.clamp(start, text.len());
        let before = &text.as_bytes()[..start];
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        self.0.place.line = Some(line);
        self.0.place.column = Some(column);
        self.0.place.span = Some((text, start..end));
        self
    }

    /// What the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// What was being done when this happened, outermost last to be added.
    pub fn context(mut self, what: impl Into<String>) -> Self {
        self.0.contexts.insert(0, what.into());
        self
    }

    /// What a caller may branch on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without its place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The process exit code for this error: 1 failed, 2 usage, 130 interrupted, 0 waiting.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            ErrorKind::Failed | ErrorKind::Unavailable => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Interrupted => 130,
            ErrorKind::Waiting => 0,
        }
    }

    /// As `Display`, and what caused it.
    pub fn with_cause(&self) -> String {
        let cause = self.0.source.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{self}{cause}")
    }

    /// The report for people: message, place, snippet, causes, hints.
    pub fn render(&self, colour: bool) -> String {
        let inner = &*self.0;
        let mut title: Cow<'_, str> = Cow::Borrowed(&inner.message);
        if !inner.contexts.is_empty() {
            title = format!("{}: {title}", inner.contexts.join(": ")).into();
        }
        let mut group = Level::ERROR
            .primary_title(title.as_ref())
            .elements([] as [Snippet<'_, annotate_snippets::Annotation<'_>>; 0]);
        let file = inner.place.file.as_deref().unwrap_or("<input>");
        let mut notes = Vec::new();
        // Of an empty text (a stage's table by options alone) there is nothing to show.
        if let Some((text, span)) = inner.place.span.as_ref().filter(|(text, _)| !text.trim().is_empty()) {
            group = group.element(
                Snippet::source(mask::masked(text)).path(file).annotation(AnnotationKind::Primary.span(span.clone())),
            );
        } else if let Some(place) = inner.place.describe() {
            notes.push(("at", place));
        }
        let mut cause = inner.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !inner.message.contains(&text) {
                notes.push(("cause", text));
            }
            cause = error.source();
        }
        notes.extend(inner.hints.iter().map(|hint| ("hint", hint.clone())));
        for (name, text) in &notes {
            group = group.element(Level::NOTE.with_name(*name).message(text.as_str()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }
}

impl Place {
    fn describe(&self) -> Option<String> {
        let mut text = self.file.clone().unwrap_or_default();
        if let Some(line) = self.line {
            text += &format!(":{line}");
            if let Some(column) = self.column {
                text += &format!(":{column}");
            }
        }
        let mut more = Vec::new();
        if let Some(row) = self.row {
            more.push(format!("row {row}"));
        }
        if let Some(field) = &self.field {
            more.push(format!("column `{field}`"));
        }
        if !more.is_empty() {
            let more = more.join(", ");
            text = if text.is_empty() { more } else { format!("{text}, {more}") };
        }
        (!text.is_empty()).then_some(text)
    }
}

/// `Display` is one line: contexts, message, place. [`Error::render`] is the whole report.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for context in &self.0.contexts {
            write!(f, "{context}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(place) = self.0.place.describe() {
            write!(f, " ({place})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// Turns a lower-level error into an [`Error`] that says what was being done.
pub trait Context<T> {
    /// Wraps the error with a message; the original is kept as its cause.
    ///
    /// # Errors
    /// The error that was there, now as the cause.
    fn or_fail(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> Context<T> for std::result::Result<T, E> {
    fn or_fail(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(message()).caused_by(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_shown_with_its_line_and_hint() {
        let error = Error::usage("unknown key `temprature`")
            .in_file("recipe.toml")
            .at_span("seed = 1\ntemprature = 0.6\n", 9..19)
            .hint("did you mean `temperature`?");
        let text = error.render(false);
        assert!(text.contains("recipe.toml:2:1"), "{text}");
        assert!(text.contains("hint: did you mean `temperature`?"), "{text}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_place_without_text_names_file_row_and_column() {
        let error = Error::new("null where a value is required").in_file("a.parquet").at_row(7).in_field("gold");
        assert_eq!(error.to_string(), "null where a value is required (a.parquet, row 7, column `gold`)");
    }

    #[test]
    fn a_span_past_the_end_does_not_panic() {
        let text = Error::new("cut short").at_span("x =", 90..100).render(false);
        assert!(text.contains("cut short"));
    }
}
