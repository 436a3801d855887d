//! Rewrite a sentence: level 1 negate it, 2 put it in the past, 3 both.

use super::language::Phrases;
use super::{Language, PreferenceKind, Problem};
use crate::seed::Rng;

/// Subjects in the third person: singular, or plural where marked.
const SUBJECTS: [([&str; 3], bool); 14] = [
    (["the teacher", "le professeur", "老师"], false),
    (["my brother", "mon frère", "我哥哥"], false),
    (["the doctor", "le médecin", "医生"], false),
    (["the student", "le lycéen", "学生"], false),
    (["our neighbour", "notre voisin", "我们的邻居"], false),
    (["the baker", "le boulanger", "面包师"], false),
    (["her cousin", "son cousin", "她表哥"], false),
    (["the writer", "le romancier", "作家"], false),
    (["the children", "les enfants", "孩子们"], true),
    (["my parents", "mes parents", "我父母"], true),
    (["the farmers", "les fermiers", "农民们"], true),
    (["our friends", "nos amis", "我们的朋友们"], true),
    (["the workers", "les ouvriers", "工人们"], true),
    (["the musicians", "les musiciens", "音乐家们"], true),
];

/// English: base, third person, past. French: third person singular and plural,
/// past participle (all with *avoir*, no agreement with the subject). Chinese: the verb.
struct Verb {
    en: [&'static str; 3],
    fr: [&'static str; 3],
    zh: &'static str,
    objects: [[&'static str; 3]; 4],
}

const VERBS: [Verb; 6] = [
    Verb {
        en: ["write", "writes", "wrote"],
        fr: ["écrit", "écrivent", "écrit"],
        zh: "写",
        objects: [
            ["the poem", "le poème", "诗"],
            ["the letter", "la lettre", "信"],
            ["this book", "ce livre", "这本书"],
            ["the report", "le rapport", "报告"],
        ],
    },
    Verb {
        en: ["buy", "buys", "bought"],
        fr: ["achète", "achètent", "acheté"],
        zh: "买",
        objects: [
            ["the bread", "le pain", "面包"],
            ["this table", "cette table", "这张桌子"],
            ["the flowers", "les fleurs", "花"],
            ["a bicycle", "un vélo", "自行车"],
        ],
    },
    Verb {
        en: ["see", "sees", "saw"],
        fr: ["voit", "voient", "vu"],
        zh: "看见",
        objects: [
            ["the mountain", "la montagne", "山"],
            ["the train", "le train", "火车"],
            ["the dog", "le chien", "狗"],
            ["the bridge", "le pont", "桥"],
        ],
    },
    Verb {
        en: ["choose", "chooses", "chose"],
        fr: ["choisit", "choisissent", "choisi"],
        zh: "选择",
        objects: [
            ["the colour", "la couleur", "颜色"],
            ["this road", "cette route", "这条路"],
            ["the menu", "le menu", "菜单"],
            ["the film", "le film", "电影"],
        ],
    },
    Verb {
        en: ["sell", "sells", "sold"],
        fr: ["vend", "vendent", "vendu"],
        zh: "卖",
        objects: [
            ["the house", "la maison", "房子"],
            ["the car", "la voiture", "车"],
            ["the vegetables", "les légumes", "蔬菜"],
            ["the machine", "la machine", "机器"],
        ],
    },
    Verb {
        en: ["finish", "finishes", "finished"],
        fr: ["finit", "finissent", "fini"],
        zh: "完成",
        objects: [
            ["the work", "le travail", "工作"],
            ["the project", "le projet", "项目"],
            ["the drawing", "le dessin", "图画"],
            ["the homework", "les devoirs", "作业"],
        ],
    },
];

const NEGATE: Phrases = Phrases::three(
    &["Rewrite this sentence in the negative: \"{s}\"", "Make the following sentence negative: \"{s}\""],
    &["Mets cette phrase à la forme négative : « {s} »", "Réécris la phrase suivante à la forme négative : « {s} »"],
    &["把这个句子改成用“不”的否定句：“{s}”", "请用“不”把下面的句子改为否定句：“{s}”"],
);
const PAST: Phrases = Phrases::three(
    &[
        "Rewrite this sentence in the simple past: \"{s}\"",
        "Put the following sentence into the simple past tense: \"{s}\"",
    ],
    &["Mets cette phrase au passé composé : « {s} »", "Réécris la phrase suivante au passé composé : « {s} »"],
    &["在句首加“昨天”，在动词后加“了”，改写这个句子：“{s}”", "用“昨天……了”的形式改写下面的句子（“了”紧跟动词）：“{s}”"],
);
const BOTH: Phrases = Phrases::three(
    &[
        "Rewrite this sentence in the simple past and in the negative: \"{s}\"",
        "Make the following sentence negative and put it into the simple past: \"{s}\"",
    ],
    &[
        "Mets cette phrase au passé composé et à la forme négative : « {s} »",
        "Réécris la phrase suivante au passé composé, à la forme négative : « {s} »",
    ],
    &["在句首加“昨天”，并用“没有”否定，改写这个句子：“{s}”", "用“昨天……没有……”的形式改写下面的句子：“{s}”"],
);

/// The sentence in one of its forms, with a capital and a full stop.
fn sentence(subject: usize, verb: &Verb, object: usize, past: bool, negative: bool, language: Language) -> String {
    let ([en, fr, zh], plural) = SUBJECTS[subject];
    let [object_en, object_fr, object_zh] = verb.objects[object];
    let text = match language {
        Language::Zh => {
            let verb = verb.zh;
            return match (past, negative) {
                (false, false) => format!("{zh}{verb}{object_zh}。"),
                (false, true) => format!("{zh}不{verb}{object_zh}。"),
                (true, false) => format!("昨天{zh}{verb}了{object_zh}。"),
                (true, true) => format!("昨天{zh}没有{verb}{object_zh}。"),
            };
        }
        Language::Fr => {
            let [one, many, participle] = verb.fr;
            let present = if plural { many } else { one };
            let have = if plural { "ont" } else { "a" };
            // Negation keeps definite articles, but "un" becomes "de" (no object here elides).
            let object = match object_fr.strip_prefix("un ") {
                Some(noun) if negative => format!("de {noun}"),
                _ => object_fr.to_owned(),
            };
            match (past, negative) {
                (false, false) => format!("{fr} {present} {object}"),
                (false, true) if present.starts_with(['a', 'é']) => format!("{fr} n'{present} pas {object}"),
                (false, true) => format!("{fr} ne {present} pas {object}"),
                (true, false) => format!("{fr} {have} {participle} {object}"),
                (true, true) => format!("{fr} n'{have} pas {participle} {object}"),
            }
        }
        _ => {
            let [base, third, simple_past] = verb.en;
            let present = if plural { base } else { third };
            let does = if plural { "do" } else { "does" };
            match (past, negative) {
                (false, false) => format!("{en} {present} {object_en}"),
                (false, true) => format!("{en} {does} not {base} {object_en}"),
                (true, false) => format!("{en} {simple_past} {object_en}"),
                (true, true) => format!("{en} did not {base} {object_en}"),
            }
        }
    };
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// Generator `rewriting`. The worse reply leaves the sentence as it was, or does half the work.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let (subject, verb) = (rng.below(SUBJECTS.len() as u64) as usize, rng.pick(&VERBS));
    let object = rng.below(4) as usize;
    let (past, negative) = (level >= 2, level != 2);
    let given = sentence(subject, verb, object, false, false, language);
    let asked = sentence(subject, verb, object, past, negative, language);
    let questions = [&NEGATE, &PAST, &BOTH][level as usize - 1];
    let worse = if level == 3 { sentence(subject, verb, object, true, false, language) } else { given.clone() };
    let key = format!("rewriting:{level}:{}", sentence(subject, verb, object, false, false, Language::En));
    Problem::exact(key, questions.say(rng, language, &[("s", &given)]), asked).worse(PreferenceKind::Helpful, worse)
}
