use super::*;
use crate::schema::{Message, Prompt, Role};
use crate::store::{ShardWriter, WriterOptions};

fn prompt(i: usize) -> Prompt {
    Prompt {
        prompt_id: format!("{i:032x}"),
        messages: vec![Message { role: Role::User, content: "line\nline ".repeat(40) }],
        gold: i.is_multiple_of(2).then(|| i.to_string()),
        solution: None,
        verification: None,
        domain: if i.is_multiple_of(3) { "code" } else { "math" }.into(),
        language: "en".into(),
        difficulty: Some(i as f64 / 4000.0),
        source: "tests".into(),
        license: None,
        extra: None,
    }
}

#[test]
fn a_stage_and_its_run_are_described() {
    let run = tempfile::tempdir().unwrap();
    let stage = Location::from(run.path().join("1_prompts"));
    let mut writer = ShardWriter::create(&stage, 0, DatasetKind::Prompts, WriterOptions::default()).unwrap();
    writer.push_rows(&(0..4000).map(prompt).collect::<Vec<_>>()).unwrap();
    let mut manifest =
        Manifest::new("prompts", "prompts", Some(DatasetKind::Prompts), "f", vec![writer.finish().unwrap()]);
    manifest.drops.insert("duplicate".into(), 1234);
    manifest.commit(&stage).unwrap();
    std::fs::create_dir(run.path().join("2_generate")).unwrap();

    let Inspection::Dataset(report) = inspect(&stage).unwrap() else { panic!("a stage is a dataset") };
    let column = |name: &str| report.columns.iter().find(|column| column.name == name).unwrap();
    assert_eq!((report.rows, column("gold").nulls, column("domain").distinct), (4000, 2000, Some(2)));
    let ids = column("prompt_id").distinct.unwrap();
    assert!((3600..4400).contains(&ids), "4,000 distinct ids were estimated as {ids}");
    let difficulty = column("difficulty").range.unwrap();
    assert!((difficulty.mean - 3999.0 / 8000.0).abs() < 1e-9 && difficulty.min == 0.0, "{difficulty:?}");
    let text = Inspection::Dataset(report).to_string();
    assert!(text.contains("dropped        1,234  duplicate"), "{text}");
    assert!(text.contains("line⏎line") && text.contains("… (+"), "{text}");

    let inspection = inspect(&run.path().into()).unwrap();
    let text = inspection.to_string();
    assert!(text.contains("1_prompts") && text.contains("2_generate           not finished"), "{text}");
    assert_eq!(serde_json::to_value(&inspection).unwrap()["stages"][0]["rows"], 4000);
}

#[test]
fn a_place_with_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(inspect(&folder.path().into()).unwrap_err().to_string().contains("no Parquet file"));
    assert!(inspect(&folder.path().join("x").into()).unwrap_err().to_string().contains("no such file"));
}
