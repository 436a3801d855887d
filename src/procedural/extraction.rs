//! Copy the asked facts out of a short text.
//!
//! Level 1 asks one fact, 2 two facts, 3 all of them as JSON with given keys.

use serde_json::json;

use super::language::Phrases;
use super::{Language, PreferenceKind, Problem};
use crate::seed::Rng;

/// Names that tell no gender in the texts below.
const NAMES: [[&str; 3]; 8] = [
    ["Camille Martin", "Camille Martin", "王小雨"],
    ["Alex Dupont", "Alex Dupont", "李明"],
    ["Robin Garnier", "Robin Garnier", "张伟"],
    ["Charlie Morgan", "Charlie Morgan", "刘洋"],
    ["Dominique Leroy", "Dominique Leroy", "陈静"],
    ["Sasha Petit", "Sasha Petit", "赵强"],
    ["Lou Bernard", "Lou Bernard", "周芳"],
    ["Morgan Blanc", "Morgan Blanc", "吴磊"],
];
const CITIES: [[&str; 3]; 8] = [
    ["Paris", "Paris", "巴黎"],
    ["Berlin", "Berlin", "柏林"],
    ["Madrid", "Madrid", "马德里"],
    ["Rome", "Rome", "罗马"],
    ["Tokyo", "Tokyo", "东京"],
    ["Beijing", "Pékin", "北京"],
    ["London", "Londres", "伦敦"],
    ["Vienna", "Vienne", "维也纳"],
];
/// Nouns that follow "bought"/"a acheté"/"买了".
const GOODS: [[&str; 3]; 6] = [
    ["a bicycle", "un vélo", "一辆自行车"],
    ["a lamp", "une lampe", "一盏灯"],
    ["a guitar", "une guitare", "一把吉他"],
    ["a table", "une table", "一张桌子"],
    ["a coat", "un manteau", "一件大衣"],
    ["a camera", "un appareil photo", "一台相机"],
];
/// The facts, as asked for and as JSON keys.
const FIELDS: [[&str; 3]; 4] = [
    ["the name of the buyer", "le nom de la personne", "买家的姓名"],
    ["the city", "la ville", "城市"],
    ["the thing that was bought", "l'objet acheté", "所买的物品"],
    ["the price", "le prix", "价格"],
];
const KEYS: [[&str; 3]; 4] =
    [["name", "nom", "姓名"], ["city", "ville", "城市"], ["item", "objet", "物品"], ["price", "prix", "价格"]];

const TEXTS: Phrases = Phrases::three(
    &[
        "Last week, {n} was in {c} and bought {g} there for {p}.",
        "During a trip to {c}, {n} bought {g}. The price was {p}.",
        "{n}, who lives in {c}, bought {g} yesterday and paid {p}.",
    ],
    &[
        "La semaine dernière, {n} était à {c} et y a acheté {g} pour {p}.",
        "Lors d'un voyage à {c}, {n} a acheté {g}. Le prix était de {p}.",
        "{n}, qui habite à {c}, a acheté {g} hier et a payé {p}.",
    ],
    &["上周，{n}在{c}买了{g}，花了{p}。", "{n}去{c}旅行时买了{g}，价格是{p}。", "{n}住在{c}，昨天买了{g}，付了{p}。"],
);
const ASK: Phrases = Phrases::three(
    &["Read the text: \"{t}\" Give {f}, and nothing else.", "Extract {f} from this text, with no other words: \"{t}\""],
    &["Lis le texte : « {t} » Donne {f}, et rien d'autre.", "Extrais {f} de ce texte, sans autre mot : « {t} »"],
    &["阅读文本：“{t}”只写出{f}，不要写别的内容。", "从下面的文本中提取{f}，不要添加其他文字：“{t}”"],
);
const ASK_TWO: Phrases = Phrases::three(
    &[
        "Read the text: \"{t}\" Give {f}, then {h}, separated by a semicolon.",
        "Extract {f} and {h} from this text, in this order, separated by a semicolon: \"{t}\"",
    ],
    &[
        "Lis le texte : « {t} » Donne {f}, puis {h}, séparés par un point-virgule.",
        "Extrais {f} et {h} de ce texte, dans cet ordre, séparés par un point-virgule : « {t} »",
    ],
    &["阅读文本：“{t}”先写{f}，再写{h}，用分号隔开。", "从下面的文本中依次提取{f}和{h}，用分号隔开：“{t}”"],
);
const ASK_JSON: Phrases = Phrases::three(
    &["Turn this text into a JSON object with the keys {k}, all values as strings: \"{t}\""],
    &["Transforme ce texte en un objet JSON avec les clés {k}, toutes les valeurs étant des chaînes : « {t} »"],
    &["把这段文本转换成JSON对象，键为{k}，所有值都用字符串：“{t}”"],
);

/// Generator `extraction`. The worse reply gives another fact of the text.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let pick = |rng: &mut Rng, table: &'static [[&'static str; 3]]| {
        let [en, fr, zh] = *rng.pick(table);
        (en, language.of3(en, fr, zh))
    };
    let (name, city, goods) = (pick(rng, &NAMES), pick(rng, &CITIES), pick(rng, &GOODS));
    let price = rng.between(15, 990);
    let price_text = language.of3(format!("{price} euros"), format!("{price} euros"), format!("{price}欧元"));
    let text = TEXTS.say(rng, language, &[("n", &name.1), ("c", &city.1), ("g", &goods.1), ("p", &price_text)]);
    let facts = [name.1.to_owned(), city.1.to_owned(), goods.1.to_owned(), price_text];
    let label = |table: &[[&'static str; 3]; 4], field: usize| {
        let [en, fr, zh] = table[field];
        language.of3(en, fr, zh)
    };
    let (one, two) = (rng.below(4) as usize, rng.below(3) as usize);
    let two = (one + 1 + two) % 4;
    let key = format!("extraction:{level}:{one}:{two}:{}:{}:{}:{price}", name.0, city.0, goods.0);
    match level {
        1 => Problem::exact(
            key,
            ASK.say(rng, language, &[("t", &text), ("f", &label(&FIELDS, one))]),
            facts[one].as_str(),
        )
        .worse(PreferenceKind::Helpful, facts[two].as_str()),
        2 => {
            let values: [(&str, &dyn std::fmt::Display); 3] =
                [("t", &text), ("f", &label(&FIELDS, one)), ("h", &label(&FIELDS, two))];
            let gold = format!("{}; {}", facts[one], facts[two]);
            Problem::exact(key, ASK_TWO.say(rng, language, &values), gold)
                .worse(PreferenceKind::Helpful, facts[one].as_str())
        }
        _ => {
            let keys: Vec<String> = (0..4).map(|field| format!("\"{}\"", label(&KEYS, field))).collect();
            let question = ASK_JSON.say(rng, language, &[("t", &text), ("k", &language.list(&keys))]);
            let object: serde_json::Map<String, serde_json::Value> =
                (0..4).map(|field| (label(&KEYS, field).to_owned(), json!(facts[field]))).collect();
            let schema = json!({
                "json_schema": {
                    "type": "object",
                    "required": (0..4).map(|field| label(&KEYS, field)).collect::<Vec<_>>(),
                    "additionalProperties": { "type": "string" },
                }
            });
            Problem::exact(key, question, serde_json::Value::Object(object).to_string())
                .with_verification(&schema)
                .worse(PreferenceKind::Helpful, text)
        }
    }
}
