//! Words around the questions of a source.

use super::*;
use crate::prompts::Ask;

#[test]
fn an_ask_stands_around_the_question_and_the_bare_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let lines = b"{\"problem\": \"Find $x$ in the equation.\", \"answer\": \"4\", \"hint\": \"add\"}\n{\"problem\": \"And $y$?\", \"answer\": \"5\", \"hint\": null}\n";
    let path = write(&dir, "set.jsonl", lines);
    let asking = |ask: &str| SourceConfig { ask: Some(Ask::parse(ask).unwrap()), ..SourceConfig::new(&path) };
    let (bare, _) = import(&SourceConfig::new(&path));
    let (asked, _) = import(&asking("{prompt}\n\nPut it in \\boxed{}. {hint}"));
    let turns: Vec<&str> = asked.iter().map(Prompt::question).collect();
    assert_eq!(turns, ["Find $x$ in the equation.\n\nPut it in \\boxed{}. add", "And $y$?\n\nPut it in \\boxed{}."]);
    let extra = r#"{"bare_question":"Find $x$ in the equation.","hint":"add"}"#;
    assert_eq!(asked[0].extra.as_deref(), Some(extra));
    for (asked, bare) in asked.iter().zip(&bare) {
        assert_eq!(asked.bare_question().as_deref(), Some(bare.question()));
        assert_eq!(asked.bare_messages(), bare.messages);
        assert_eq!((&asked.language, &asked.domain, &asked.gold), (&bare.language, &bare.domain, &bare.gold));
        assert_ne!(asked.prompt_id, bare.prompt_id, "another turn is another prompt");
    }
    assert_eq!(import(&asking("{prompt}")).0, bare, "nothing around it is nothing to keep");
    let slip = Importer::open(&asking("{prompt} {hnit}"), Path::new(".")).and_then(Iterator::collect::<Result<Vec<_>>>);
    let told = slip.unwrap_err().render(false);
    assert!(told.contains("no row of this file has the column `hnit` that `ask` names"), "{told}");
}
