//! Faulty recipes and faulty commands: exit code 2, with line, column and the nearest right word.

use super::{RUN, refused, with_recipe};

const PROMPTS: &str = "[stages.prompts]\nprocedural = [{ count = 5, mix = [{ name = \"arithmetic\" }] }]\n";

#[test]
fn a_cycle_names_its_stages() {
    let folder = with_recipe(
        "[stages.prompts]\nmeasured_by = \"again\"\n\n[stages.again]\nkind = \"select\"\ngroups = \"pick\"\n\n[stages.pick]\nkind = \"select\"\ngroups = \"again\"\n",
    );
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_unknown_kind_of_stage_is_told_with_the_nearest() {
    let folder = with_recipe(&format!("{PROMPTS}\n[stages.second]\nkind = \"promts\"\n"));
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_stage_whose_name_is_no_kind_is_told_the_kinds() {
    let folder = with_recipe(&format!("{PROMPTS}\n[stages.distillation]\n"));
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_unknown_key_is_told_with_line_column_and_the_nearest() {
    let folder = with_recipe("[stages.prompts]\nsources = []\n\n[stages.prompts.dedup]\nexcat = true\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_its_place() {
    let folder = with_recipe("seed = \"seven\"\n\n[stages.prompts]\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_input_that_is_neither_stage_nor_file_is_told() {
    let folder = with_recipe(&format!("{PROMPTS}\n[stages.export]\ninput = \"prompt\"\nformat = \"messages\"\n"));
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_input_of_the_wrong_kind_is_told() {
    let folder = with_recipe(&format!("{PROMPTS}\n[stages.select]\ngroups = \"prompts\"\n"));
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn toml_that_does_not_parse_is_shown_where() {
    let folder = with_recipe("seed = 1\n[stages.prompts\nsources = []\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_recipe_without_stages_is_told() {
    let folder = with_recipe("seed = 1\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn a_recipe_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    assert_told!(refused(folder.path(), &["run", "nowhere.toml"]));
}

#[test]
fn a_variable_that_is_not_set_is_told() {
    let folder = with_recipe("[vars]\ndata = \".\"\n\n[stages.prompts]\nsources = [{ path = \"${dta}/a.jsonl\" }]\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn an_override_needs_an_equals_sign() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--set", "seed"]));
}

#[test]
fn an_override_of_an_unknown_stage_is_told_with_the_nearest() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--set", "promts.sample=1"]));
}

#[test]
fn an_override_of_an_unknown_key_points_at_the_argument() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--set", "prompts.sampel=1"]));
}

#[test]
fn a_stage_that_the_recipe_does_not_have_is_told() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--only", "verify"]));
}

#[test]
fn a_shard_out_of_range_is_told() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--shard", "2/2"]));
}

#[test]
fn no_threads_at_all_is_told() {
    let folder = with_recipe(PROMPTS);
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--threads", "0"]));
}

#[test]
fn a_faulty_rule_file_is_found_before_anything_runs() {
    let folder = with_recipe(&format!(
        "{PROMPTS}\n[stages.generate]\nengine = {{ kind = \"replay\", files = [\"c.jsonl\"], completions = [\"c\"] }}\n\n[stages.verify]\nrules = \"rules.toml\"\n"
    ));
    std::fs::write(folder.path().join("c.jsonl"), "{\"question\": \"x\", \"c\": \"y\"}\n").unwrap();
    std::fs::write(folder.path().join("rules.toml"), "reward = \"acc\"\n[rules.accuracy]\nkind = \"maths\"\n").unwrap();
    assert_told!(refused(folder.path(), &["run", "recipe.toml", "--out", "out", "--dry-run"]));
}
