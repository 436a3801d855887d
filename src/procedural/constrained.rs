//! Writing under constraints that a program can check, in the IFEval layout:
//! `{"instruction_id_list": [...], "kwargs": [{...}, ...]}` (Zhou et al. 2023),
//! one object of arguments per instruction.
//!
//! A prompt at level n has n constraints. The reply is built to satisfy them all;
//! the worse reply breaks at least the first.

use serde_json::{Value, json};

use super::language::Phrases;
use super::{Language, PreferenceKind, Problem};
use crate::seed::Rng;

/// A topic: its name and things to say of it, none with a comma.
struct Topic {
    name: [&'static str; 3],
    points: [[&'static str; 3]; 6],
}

const TOPICS: [Topic; 5] = [
    Topic {
        name: ["the sea", "la mer", "大海"],
        points: [
            ["the waves never rest", "les vagues ne se reposent jamais", "海浪从不停歇"],
            ["fishing boats leave at dawn", "les bateaux de pêche partent à l'aube", "渔船在黎明出发"],
            ["the wind smells of salt", "le vent sent le sel", "海风带着盐味"],
            ["children build castles of sand", "les enfants construisent des châteaux de sable", "孩子们在堆沙堡"],
            ["gulls follow the boats", "les mouettes suivent les bateaux", "海鸥跟着船飞"],
            ["the tide covers the rocks", "la marée recouvre les rochers", "潮水盖过礁石"],
        ],
    },
    Topic {
        name: ["the forest", "la forêt", "森林"],
        points: [
            ["old trees give shade", "les vieux arbres donnent de l'ombre", "老树带来树荫"],
            ["birds sing in the morning", "les oiseaux chantent le matin", "鸟儿在清晨歌唱"],
            ["moss grows on the stones", "la mousse pousse sur les pierres", "石头上长着青苔"],
            ["a stream crosses the path", "un ruisseau traverse le chemin", "小溪穿过小路"],
            ["mushrooms come after the rain", "les champignons sortent après la pluie", "雨后会长出蘑菇"],
            ["a fox hides its young", "un renard cache ses petits", "狐狸藏着幼崽"],
        ],
    },
    Topic {
        name: ["the market", "le marché", "集市"],
        points: [
            ["farmers bring fresh fruit", "les fermiers apportent des fruits frais", "农民带来新鲜水果"],
            ["the baker sells warm bread", "le boulanger vend du pain chaud", "面包师卖热面包"],
            ["people talk about the weather", "les gens parlent du temps", "人们谈论天气"],
            ["a musician plays at the corner", "un musicien joue au coin de la rue", "乐手在街角演奏"],
            ["the stalls open early", "les étals ouvrent tôt", "摊位很早就开门"],
            ["baskets fill with vegetables", "les paniers se remplissent de légumes", "篮子里装满蔬菜"],
        ],
    },
    Topic {
        name: ["winter", "l'hiver", "冬天"],
        points: [
            ["snow covers the roofs", "la neige couvre les toits", "白雪盖住屋顶"],
            ["the nights are long", "les nuits sont longues", "夜晚很长"],
            ["people light a fire", "les gens allument un feu", "人们生起炉火"],
            ["the lake freezes over", "le lac gèle", "湖面结冰"],
            ["hot soup warms the hands", "la soupe chaude réchauffe les mains", "热汤让双手暖和"],
            ["tracks cross the white field", "des traces traversent le champ blanc", "足迹穿过雪白的田野"],
        ],
    },
    Topic {
        name: ["the library", "la bibliothèque", "图书馆"],
        points: [
            ["readers turn pages in silence", "les lecteurs tournent les pages en silence", "读者安静地翻书"],
            ["the shelves reach the ceiling", "les rayons montent jusqu'au plafond", "书架高到天花板"],
            ["students prepare for exams", "des élèves préparent leurs examens", "学生在准备考试"],
            ["maps hang on the wall", "des cartes sont accrochées au mur", "墙上挂着地图"],
            ["an old clock strikes the hour", "une vieille horloge sonne l'heure", "老钟在报时"],
            ["the lamps give a soft light", "les lampes donnent une lumière douce", "台灯发出柔和的光"],
        ],
    },
];

const ASK: Phrases = Phrases::three(
    &["Write a short text about {t}. {c}", "Describe {t} in a few words. {c}", "Tell me about {t}. {c}"],
    &[
        "Écris un court texte sur ce thème : {t}. {c}",
        "Décris en quelques mots : {t}. {c}",
        "Parle-moi de ce sujet : {t}. {c}",
    ],
    &["写一段关于{t}的短文。{c}", "用几句话描述{t}。{c}", "请谈谈{t}。{c}"],
);

/// Kinds of constraint, each at most once in a prompt.
const KINDS: u64 = 6;

/// What a prompt asks of the form of its answer.
#[derive(Default)]
struct Constraints {
    /// IFEval's names.
    ids: Vec<&'static str>,
    kwargs: Vec<Value>,
    /// In words, as the prompt has them.
    told: Vec<String>,
    /// Points to write, as bullets or sentences.
    count: usize,
    bullets: bool,
    keyword: Option<&'static str>,
    forbidden: Option<&'static str>,
    ending: Option<&'static str>,
    quoted: bool,
}

/// Generator `constrained`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let say = |texts: [&'static str; 3]| language.of3(texts[0], texts[1], texts[2]);
    let chinese = language == Language::Zh;
    let index = rng.below(TOPICS.len() as u64) as usize;
    let topic = &TOPICS[index];
    let mut points: Vec<&str> = topic.points.iter().map(|point| say(*point)).collect();
    rng.shuffle(&mut points);
    let mut kinds: Vec<u64> = (0..KINDS).collect();
    rng.shuffle(&mut kinds);
    kinds.truncate(level as usize);

    let mut asked = Constraints { count: rng.between(2, 4) as usize, ..Constraints::default() };
    for kind in &kinds {
        asked.add(*kind, rng, language, topic, &mut points);
    }
    if !asked.can_hold() {
        return draw(rng, level, language);
    }
    let Constraints { ids, kwargs, told, count, bullets, keyword, forbidden, ending, quoted } = asked;
    let reply = write(&points[..count.min(points.len())], bullets, ending, quoted, chinese);
    // Break the first constraint, whatever it is.
    let worse = match kinds[0] {
        0 => write(&points[..1], true, ending, quoted, chinese),
        1 => say(["I have nothing to say.", "Je n'ai rien à dire.", "我没什么可说的。"]).to_owned(),
        2 => format!("{reply} {}", forbidden.unwrap_or_default()),
        3 => format!("{}{}{reply}", say(["Well", "Bon", "嗯"]), if chinese { "，" } else { ", " }),
        4 => write(&points[..count.min(points.len())], bullets, None, quoted, chinese),
        _ => write(&points[..count.min(points.len())], bullets, ending, false, chinese),
    };
    let gap = if chinese { "" } else { " " };
    let question = ASK.say(rng, language, &[("t", &say(topic.name)), ("c", &told.join(gap))]);
    let key = format!("constrained:{index}:{}", ids.join(","));
    let key = format!("{key}:{count}:{}:{}", keyword.unwrap_or_default(), forbidden.unwrap_or_default());
    Problem::open(key, question, reply)
        .with_verification(&json!({ "instruction_id_list": ids, "kwargs": kwargs }))
        .worse(PreferenceKind::Helpful, worse)
}

impl Constraints {
    /// Adds one of the [`KINDS`].
    fn add(&mut self, kind: u64, rng: &mut Rng, language: Language, topic: &Topic, points: &mut [&str]) {
        let say = |texts: [&'static str; 3]| language.of3(texts[0], texts[1], texts[2]);
        let (id, kwargs, told) = match kind {
            0 => {
                let count = rng.between(2, 5) as usize;
                (self.count, self.bullets) = (count, true);
                let told = language.of3(
                    format!("Use exactly {count} bullet points that start with \"* \"."),
                    format!("Utilise exactement {count} puces qui commencent par « * »."),
                    format!("正好使用{count}个以“* ”开头的要点。"),
                );
                ("detectable_format:number_bullet_lists", json!({ "num_bullets": count }), told)
            }
            1 => {
                let word = rng.pick(&topic.points);
                let keyword = language.of3(
                    word[0].split(' ').next_back().unwrap_or_default(),
                    word[1].split(' ').next_back().unwrap_or_default(),
                    word[2],
                );
                let keyword = keyword.rsplit('\'').next().unwrap_or(keyword);
                // The point that holds the keyword comes first, so that it is always written.
                let place = points.iter().position(|point| *point == say(*word)).unwrap_or(0);
                points.swap(0, place);
                self.keyword = Some(keyword);
                let told = language.of3(
                    format!("Use the word \"{keyword}\"."),
                    format!("Emploie le mot « {keyword} »."),
                    format!("文中要出现“{keyword}”。"),
                );
                ("keywords:existence", json!({ "keywords": [keyword] }), told)
            }
            2 => {
                let word = say(*rng.pick(&[
                    ["beautiful", "beau", "美丽"],
                    ["very", "très", "非常"],
                    ["always", "toujours", "总是"],
                ]));
                self.forbidden = Some(word);
                let told = language.of3(
                    format!("Do not use the word \"{word}\"."),
                    format!("N'emploie pas le mot « {word} »."),
                    format!("不要使用“{word}”这个词。"),
                );
                ("keywords:forbidden_words", json!({ "forbidden_words": [word] }), told)
            }
            3 => {
                let told = say(["Do not use any commas.", "N'utilise aucune virgule.", "全文不要使用逗号。"]);
                (NO_COMMA, json!({}), told.to_owned())
            }
            4 => {
                let phrase = say(*rng.pick(&[
                    ["That is all for today.", "C'est tout pour aujourd'hui.", "今天就说到这里。"],
                    ["Come and see it.", "Viens voir par toi-même.", "欢迎你来看看。"],
                    ["What do you think?", "Et toi, qu'en penses-tu ?", "你觉得怎么样？"],
                ]));
                self.ending = Some(phrase);
                let told = language.of3(
                    format!("End with exactly this sentence: {phrase}"),
                    format!("Termine exactement par cette phrase : {phrase}"),
                    format!("最后以这句话结尾：{phrase}"),
                );
                ("startend:end_checker", json!({ "end_phrase": phrase }), told)
            }
            _ => {
                self.quoted = true;
                let told = say([
                    "Put your whole answer in straight double quotation marks.",
                    "Mets toute ta réponse entre guillemets droits doubles.",
                    "把整个回答放在英文双引号里。",
                ]);
                ("startend:quotation", json!({}), told.to_owned())
            }
        };
        self.ids.push(id);
        self.kwargs.push(kwargs);
        self.told.push(told);
    }

    /// Whether one answer can follow all of them: an ending may have a comma, and a quotation ends in its mark.
    fn can_hold(&self) -> bool {
        self.ending.is_none_or(|phrase| {
            let forbidden_comma = phrase.contains(',') && self.ids.contains(&NO_COMMA);
            !forbidden_comma && !self.quoted
        })
    }
}

const NO_COMMA: &str = "punctuation:no_comma";

/// The points as sentences or bullets, with their ending, in quotation marks or not.
fn write(points: &[&str], bullets: bool, ending: Option<&str>, quoted: bool, chinese: bool) -> String {
    let (stop, gap) = if chinese { ("。", "") } else { (".", " ") };
    let sentences: Vec<String> = points
        .iter()
        .map(|point| {
            let mut letters = point.chars();
            let first = letters.next().map(|c| c.to_uppercase().collect::<String>()).unwrap_or_default();
            let mark = if bullets { "* " } else { "" };
            format!("{mark}{first}{}{stop}", letters.as_str())
        })
        .collect();
    let mut text = sentences.join(if bullets { "\n" } else { gap });
    if let Some(ending) = ending {
        text += if bullets { "\n\n" } else { gap };
        text += ending;
    }
    if quoted { format!("\"{text}\"") } else { text }
}
