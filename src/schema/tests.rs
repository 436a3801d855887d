use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, LargeStringArray, RecordBatch, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z 数\\n\"\\\\]{0,12}", any::<String>()]
}

fn score() -> impl Strategy<Value = Score> {
    (text(), proptest::option::of(-1e9..1e9), 0..3usize, text(), proptest::option::of(text())).prop_map(
        |(rule, score, outcome, reason, evidence)| Score {
            rule,
            score,
            outcome: Outcome::ALL[outcome],
            reason,
            evidence,
        },
    )
}

prop_compose! {
    fn group_row()(
        ids in (text(), any::<u64>(), any::<u32>(), text()),
        words in (text(), text(), text(), text(), text()),
        numbers in proptest::array::uniform6(proptest::option::of(-1e300..1e300)),
        outcome in 0..3usize,
        finish in 0..4usize,
        scores in proptest::collection::vec(score(), 0..4),
        lists in (
            proptest::option::of(proptest::collection::vec(any::<u32>(), 0..5)),
            proptest::option::of(proptest::collection::vec(any::<u32>(), 0..5)),
            proptest::option::of(proptest::collection::vec(-100f32..0.0, 0..5)),
        ),
        rest in (any::<u32>(), proptest::option::of(any::<u32>()), proptest::option::of(text()), text(), text()),
    ) -> GroupRow {
        let [difficulty, reward, advantage, reward_mean, reward_std, pass_rate] = numbers;
        GroupRow {
            prompt_id: ids.0, policy_step: ids.1, sample_index: ids.2, completion_id: ids.3,
            domain: words.0, language: words.1, difficulty, reward, advantage,
            outcome: Outcome::ALL[outcome], reason: words.2, scores, group_size: rest.0,
            reward_mean, reward_std, pass_rate, finish_reason: FinishReason::ALL[finish],
            completion_tokens: rest.1, text: rest.2, prompt_token_ids: lists.0, token_ids: lists.1,
            logprobs: lists.2, model: words.3, model_digest: words.4, rules_digest: rest.3, sampling: rest.4,
        }
    }
}

fn prompt(id: &str) -> Prompt {
    Prompt {
        prompt_id: id.into(),
        messages: vec![Message { role: Role::User, content: "1 + 1?".into() }],
        gold: Some("2".into()),
        solution: None,
        verification: None,
        domain: "math".into(),
        language: "en".into(),
        difficulty: Some(0.5),
        source: "tests".into(),
        license: None,
        extra: None,
    }
}

fn with_column(batch: &RecordBatch, name: &str, array: ArrayRef) -> RecordBatch {
    let index = batch.schema().index_of(name).unwrap();
    let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[index] = Field::new(name, array.data_type().clone(), true);
    let mut columns = batch.columns().to_vec();
    columns[index] = array;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn renamed(batch: &RecordBatch, name: &str, to: &str) -> RecordBatch {
    let fields = batch
        .schema()
        .fields()
        .iter()
        .map(|f| if f.name() == name { f.as_ref().clone().with_name(to) } else { f.as_ref().clone() })
        .collect::<Vec<_>>();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_survive_the_way_to_arrow_and_back(rows in proptest::collection::vec(group_row(), 0..6)) {
        let batch = GroupRow::to_batch(&rows);
        prop_assert_eq!(batch.schema(), DatasetKind::Groups.arrow());
        prop_assert_eq!(GroupRow::from_batch(&batch).unwrap(), rows);
    }
}

#[test]
fn every_column_of_every_dataset_is_documented() {
    for kind in DatasetKind::ALL {
        for column in kind.columns() {
            assert!(column.doc().len() > 10, "{kind}.{}: {:?}", column.name, column.doc());
        }
        assert_eq!(kind.arrow().metadata()[SCHEMA_KEY], kind.as_str());
        assert_eq!(kind.arrow().metadata()[VERSION_KEY], kind.version().to_string());
    }
}

#[test]
fn a_renamed_column_is_named_with_its_likely_new_name() {
    let batch = renamed(&Prompt::to_batch(&[prompt("a")]), "prompt_id", "prompt_ids");
    let error = DatasetKind::Prompts.check(batch.schema_ref(), None).unwrap_err().render(false);
    assert!(error.contains("column `prompt_id` (text) of prompts is missing"), "{error}");
    assert!(error.contains("`prompt_ids`"), "{error}");
}

#[test]
fn a_wrongly_typed_column_is_refused_with_both_types() {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = with_column(&Prompt::to_batch(&[prompt("a")]), "domain", numbers);
    let error = DatasetKind::Prompts.check(batch.schema_ref(), None).unwrap_err().to_string();
    assert!(error.contains("Int64 where text is expected") && error.contains("`domain`"), "{error}");
    // A projection without it does not care.
    DatasetKind::Prompts.check(batch.schema_ref(), Some(&["prompt_id"])).unwrap();
}

#[test]
fn equal_values_in_other_physical_types_are_cast() {
    let rows = vec![prompt("a"), prompt("b")];
    let batch = Prompt::to_batch(&rows);
    let batch = with_column(&batch, "prompt_id", Arc::new(LargeStringArray::from(vec!["a", "b"])));
    let batch = with_column(&batch, "gold", Arc::new(StringViewArray::from(vec!["2", "2"])));
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let domain = cast(batch.column_by_name("domain").unwrap(), &dictionary).unwrap();
    let batch = with_column(&batch, "domain", domain);
    let difficulty = cast(batch.column_by_name("difficulty").unwrap(), &DataType::Float32).unwrap();
    let batch = with_column(&batch, "difficulty", difficulty);
    let messages = batch.column_by_name("messages").unwrap();
    let DataType::List(item) = messages.data_type() else { unreachable!() };
    let messages = cast(messages, &DataType::LargeList(item.clone())).unwrap();
    let batch = with_column(&batch, "messages", messages);
    assert_eq!(Prompt::from_batch(&batch.slice(1, 1)).unwrap(), rows[1..]);
    assert_eq!(Prompt::from_batch(&batch).unwrap(), rows);
}

#[test]
fn a_number_out_of_range_and_a_null_are_named_with_their_row() {
    let rows = [1u32, 2, 3].map(|sample_index| VerdictRow {
        prompt_id: "p".into(),
        sample_index,
        completion_id: "c".into(),
        reward: None,
        outcome: Outcome::Wrong,
        reason: "no_answer".into(),
        scores: vec![],
        rules_digest: "r".into(),
    });
    let batch = VerdictRow::to_batch(&rows);
    let wide = with_column(&batch, "sample_index", Arc::new(Int64Array::from(vec![1, 2, 1 << 40])));
    let error = VerdictRow::from_batch(&wide).unwrap_err().to_string();
    assert!(error.contains("1099511627776 does not fit") && error.contains("row 2"), "{error}");
    let nulls = with_column(&batch, "sample_index", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])));
    let error = VerdictRow::from_batch(&nulls).unwrap_err().to_string();
    assert!(error.contains("null where a value is required") && error.contains("row 1"), "{error}");
    let word = with_column(&batch, "outcome", Arc::new(LargeStringArray::from(vec!["wrong", "right", "wrong"])));
    let error = VerdictRow::from_batch(&word).unwrap_err().to_string();
    assert!(error.contains("`right` is no outcome") && error.contains("row 1"), "{error}");
}

fn group_of(finish_reason: FinishReason, outcomes: [Outcome; 2]) -> GroupRow {
    let score = |outcome| Score { rule: "r".into(), score: None, outcome, reason: "equal".into(), evidence: None };
    GroupRow {
        prompt_id: "p".into(),
        policy_step: 0,
        sample_index: 0,
        completion_id: "c".into(),
        domain: "math".into(),
        language: "en".into(),
        difficulty: None,
        reward: None,
        advantage: None,
        outcome: outcomes[0],
        reason: "equal".into(),
        scores: outcomes.map(score).to_vec(),
        group_size: 1,
        reward_mean: None,
        reward_std: None,
        pass_rate: None,
        finish_reason,
        completion_tokens: None,
        text: None,
        prompt_token_ids: None,
        token_ids: None,
        logprobs: None,
        model: "m".into(),
        model_digest: "d".into(),
        rules_digest: "r".into(),
        sampling: "{}".into(),
    }
}

/// Two groups as a file with these words in place of `stop` and `wrong`, read from its row 7 on.
fn read_groups(finish_reasons: [&str; 2], outcomes: [&str; 2]) -> crate::Result<RecordBatch> {
    use arrow::array::{AsArray, ListArray, StringArray, StructArray};
    let row = group_of(FinishReason::Stop, [Outcome::Wrong; 2]);
    let batch = GroupRow::to_batch(&[row.clone(), row]);
    let batch = with_column(&batch, "finish_reason", Arc::new(StringArray::from(finish_reasons.to_vec())));
    let list = batch.column_by_name("scores").unwrap().as_list::<i32>();
    let scores = list.values().as_struct();
    let mut columns = scores.columns().to_vec();
    columns[2] = Arc::new(StringArray::from(vec!["wrong", outcomes[0], "wrong", outcomes[1]]));
    let scores = StructArray::new(scores.fields().clone(), columns, None);
    let DataType::List(item) = list.data_type() else { unreachable!() };
    let scores = ListArray::new(item.clone(), list.offsets().clone(), Arc::new(scores), None);
    let batch = with_column(&batch, "scores", Arc::new(scores));
    let projection = DatasetKind::Groups.check(batch.schema_ref(), None)?;
    projection.conform(7, &batch)
}

#[test]
fn another_programs_word_reads_as_ours_and_one_that_nobody_knows_is_told_with_its_row() {
    let batch = read_groups(["max_tokens", "end_turn"], ["correct", "cannot_tell"]).unwrap();
    let ends = [FinishReason::Length, FinishReason::Stop];
    assert_eq!(batch.cells::<FinishReason>("finish_reason").unwrap(), ends);
    assert_eq!(batch.text("finish_reason").unwrap().iter().flatten().collect::<Vec<_>>(), ["length", "stop"]);
    let rows = [Outcome::Correct, Outcome::CannotTell].map(|second| [Outcome::Wrong, second]);
    assert_eq!(batch.item_cells::<Outcome>("scores", "outcome").unwrap(), rows.concat());
    let wanted = [0, 1].map(|i| GroupRow { outcome: Outcome::Wrong, ..group_of(ends[i], rows[i]) });
    assert_eq!(GroupRow::from_batch(&batch).unwrap(), wanted);

    let error = read_groups(["stop", "Stop!"], ["wrong"; 2]).unwrap_err().render(false);
    for told in ["`Stop!` is no finish reason", "row 8, column `finish_reason`", "one of stop, length"] {
        assert!(error.contains(told), "{told}: {error}");
    }
    let error = read_groups(["stop"; 2], ["wrong", "Correct"]).unwrap_err().render(false);
    for told in ["score 1: `Correct` is no outcome", "row 8, column `scores`", "one of correct, wrong, cannot_tell"] {
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn the_words_of_a_part_of_a_batch_are_read_alone() {
    use arrow::array::{AsArray, ListArray, StringArray, StructArray};
    let batch = Prompt::to_batch(&[prompt("a"), prompt("b"), prompt("c")]);
    let list = batch.column_by_name("messages").unwrap().as_list::<i32>();
    let contents = Arc::clone(list.values().as_struct().column(1));
    let roles: ArrayRef = Arc::new(StringArray::from(vec!["wizard", "developer", "wizard"]));
    let turns = StructArray::new(list.values().as_struct().fields().clone(), vec![roles, contents], None);
    let DataType::List(item) = list.data_type() else { unreachable!() };
    let messages = ListArray::new(item.clone(), list.offsets().clone(), Arc::new(turns), None);
    let batch = with_column(&batch, "messages", Arc::new(messages));
    let read = |batch: &RecordBatch| DatasetKind::Prompts.conform(batch);
    let part = read(&batch.slice(1, 1)).unwrap();
    assert_eq!(part.item_cells::<Role>("messages", "role").unwrap(), [Role::System]);
    assert_eq!(Prompt::from_batch(&part).unwrap()[0].messages[0].content, "1 + 1?");
    let error = read(&batch.slice(1, 2)).unwrap_err().to_string();
    assert!(error.contains("`wizard` is no role") && error.contains("row 1"), "{error}");
}

#[test]
fn another_kind_of_dataset_is_refused() {
    let error = DatasetKind::Prompts.check(&DatasetKind::Verdicts.arrow(), None).unwrap_err();
    assert!(error.to_string().contains("this is a verdicts dataset where prompts is expected"));
}

#[test]
fn a_chain_of_thought_beside_the_content_is_not_lost_without_a_word() {
    use arrow::array::{AsArray, ListArray, StringArray, StructArray};
    let batch = Prompt::to_batch(&[prompt("a"), prompt("b")]);
    let list = batch.column_by_name("messages").unwrap().as_list::<i32>().clone();
    let with = |thoughts: [Option<&str>; 2]| {
        let turns = list.values().as_struct();
        let mut fields: Vec<_> = turns.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("reasoning_content", DataType::Utf8, true)));
        let mut columns = turns.columns().to_vec();
        columns.push(Arc::new(StringArray::from(thoughts.to_vec())));
        let turns = StructArray::new(fields.into(), columns, None);
        let item = Arc::new(Field::new("item", turns.data_type().clone(), true));
        let messages: ArrayRef = Arc::new(ListArray::new(item, list.offsets().clone(), Arc::new(turns), None));
        let schema = batch.schema();
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        let mut columns = batch.columns().to_vec();
        let at = schema.index_of("messages").unwrap();
        fields[at] = Arc::new(Field::new("messages", messages.data_type().clone(), false));
        columns[at] = messages;
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    for nothing in [[None, None], [None, Some(" \n")]] {
        assert_eq!(DatasetKind::Prompts.conform(&with(nothing)).unwrap().columns(), batch.columns());
    }
    let error = DatasetKind::Prompts.conform(&with([None, Some("1 + 1 = 2")])).unwrap_err().render(false);
    for told in ["beside its `content`, in `reasoning_content`", "row 1, column `messages`", "<think> tags"] {
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn who_knows_the_file_names_it() {
    let batch = Prompt::to_batch(&[prompt("a")]);
    let projection = DatasetKind::Prompts.check(batch.schema_ref(), None).unwrap();
    let error = projection.conform(0, &renamed(&batch, "domain", "topic")).unwrap_err().in_file("a.parquet");
    assert!(error.render(false).contains("a.parquet, column `domain`"), "{}", error.render(false));
    let error = Prompt::from_batch(&renamed(&batch, "domain", "topic")).unwrap_err().in_file("a.parquet");
    assert!(error.render(false).contains("a.parquet, column `domain`"), "{}", error.render(false));
}
