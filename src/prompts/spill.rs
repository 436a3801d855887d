//! The spill file: imported prompts written once and read back once, so that a global decision
//! (a quota) needs only keys in memory. Lives in an unnamed temporary file; no format anyone else reads.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use super::import::Imported;
use super::read::Place;
use crate::Result;
use crate::error::Context;
use crate::schema::{Message, Prompt, Role};

/// Writes prompts to a temporary file.
pub struct Spill {
    writer: BufWriter<File>,
    rows: u64,
}

impl Spill {
    /// # Errors
    /// The temporary folder cannot be written.
    pub fn new() -> Result<Spill> {
        let file = tempfile::tempfile().or_fail(|| "cannot make a temporary file".to_owned());
        Ok(Spill { writer: BufWriter::with_capacity(1 << 18, file.map_err(|e| e.hint(HINT))?), rows: 0 })
    }

    pub fn push(&mut self, row: &Imported) -> Result<()> {
        self.rows += 1;
        write(&mut self.writer, row)
            .or_fail(|| "cannot write to the temporary file".to_owned())
            .map_err(|e| e.hint(HINT))
    }

    /// Ends writing and reads the rows back in order.
    pub fn into_rows(self) -> Result<impl Iterator<Item = Result<Imported>>> {
        let broken = || "cannot read the temporary file back".to_owned();
        let mut file =
            self.writer.into_inner().map_err(|e| e.into_error()).or_fail(broken).map_err(|e| e.hint(HINT))?;
        file.seek(SeekFrom::Start(0)).or_fail(broken)?;
        let mut reader = BufReader::with_capacity(1 << 18, file);
        Ok((0..self.rows).map(move |_| read(&mut reader).or_fail(broken)))
    }
}

const HINT: &str = "is the disk full? TMPDIR names the folder for temporary files";

fn write(to: &mut impl Write, row: &Imported) -> std::io::Result<()> {
    let prompt = &row.prompt;
    put(to, &row.file)?;
    to.write_all(&row.place.row.to_le_bytes())?;
    to.write_all(&(row.place.line.map_or(0, |line| line as u64)).to_le_bytes())?;
    for text in [&prompt.prompt_id, &prompt.domain, &prompt.language, &prompt.source] {
        put(to, text)?;
    }
    for optional in [&prompt.gold, &prompt.solution, &prompt.verification, &prompt.license, &prompt.extra] {
        to.write_all(&[u8::from(optional.is_some())])?;
        put(to, optional.as_deref().unwrap_or(""))?;
    }
    to.write_all(&[u8::from(prompt.difficulty.is_some())])?;
    to.write_all(&prompt.difficulty.unwrap_or(0.0).to_le_bytes())?;
    to.write_all(&(prompt.messages.len() as u64).to_le_bytes())?;
    for message in &prompt.messages {
        to.write_all(&[message.role as u8])?;
        put(to, &message.content)?;
    }
    Ok(())
}

fn read(from: &mut impl Read) -> std::io::Result<Imported> {
    let file: Arc<str> = get(from)?.into();
    let place = Place { row: number(from)?, line: Some(number(from)? as usize).filter(|line| *line > 0) };
    let (prompt_id, domain, language, source) = (get(from)?, get(from)?, get(from)?, get(from)?);
    let mut optional = || -> std::io::Result<Option<String>> {
        let some = byte(from)? != 0;
        let text = get(from)?;
        Ok(some.then_some(text))
    };
    let (gold, solution, verification, license, extra) =
        (optional()?, optional()?, optional()?, optional()?, optional()?);
    let measured = byte(from)? != 0;
    let difficulty = Some(f64::from_bits(number(from)?)).filter(|_| measured);
    let mut messages = Vec::new();
    for _ in 0..number(from)? {
        let role = match byte(from)? {
            code if code == Role::System as u8 => Role::System,
            code if code == Role::Assistant as u8 => Role::Assistant,
            code if code == Role::Tool as u8 => Role::Tool,
            _ => Role::User,
        };
        messages.push(Message { role, content: get(from)? });
    }
    let prompt = Prompt {
        prompt_id,
        messages,
        gold,
        solution,
        verification,
        domain,
        language,
        difficulty,
        source,
        license,
        extra,
    };
    Ok(Imported { prompt, file, place })
}

fn put(to: &mut impl Write, text: &str) -> std::io::Result<()> {
    to.write_all(&(text.len() as u64).to_le_bytes())?;
    to.write_all(text.as_bytes())
}

fn get(from: &mut impl Read) -> std::io::Result<String> {
    let mut bytes = vec![0; number(from)? as usize];
    from.read_exact(&mut bytes)?;
    String::from_utf8(bytes).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

fn number(from: &mut impl Read) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn byte(from: &mut impl Read) -> std::io::Result<u8> {
    let mut bytes = [0];
    from.read_exact(&mut bytes)?;
    Ok(bytes[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_spilled_comes_back(
            texts in prop::collection::vec(any::<String>(), 6), optional in prop::collection::vec(any::<Option<String>>(), 5),
            difficulty in prop::option::of(0.0f64..=1.0), turns in prop::collection::vec((0u8..4, any::<String>()), 0..4),
            row: u64, line in prop::option::of(1usize..1000),
        ) {
            let role = |code| [Role::System, Role::User, Role::Assistant, Role::Tool][usize::from(code)];
            let imported = Imported {
                file: texts[0].as_str().into(),
                place: Place { row, line },
                prompt: Prompt {
                    prompt_id: texts[1].clone(), domain: texts[2].clone(), language: texts[3].clone(), source: texts[4].clone(),
                    gold: optional[0].clone(), solution: optional[1].clone(), verification: optional[2].clone(),
                    license: optional[3].clone(), extra: optional[4].clone(), difficulty,
                    messages: turns.iter().map(|(code, text)| Message { role: role(*code), content: text.clone() }).collect(),
                },
            };
            let mut spill = Spill::new().unwrap();
            spill.push(&imported).unwrap();
            spill.push(&imported).unwrap();
            let back: Vec<Imported> = spill.into_rows().unwrap().map(Result::unwrap).collect();
            prop_assert_eq!(back, vec![imported.clone(), imported]);
        }
    }
}
