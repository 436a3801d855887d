//! Small talk: greetings, thanks, news, good wishes. No chain of thought: R1's
//! recipe gives simple turns none.

use super::{Language, PreferenceKind, Problem};
use crate::seed::Rng;

/// People who introduce themselves.
const NAMES: [[&str; 3]; 12] = [
    ["Anna", "Anna", "小红"],
    ["Paul", "Paul", "小明"],
    ["Nora", "Nora", "小丽"],
    ["Hugo", "Hugo", "小刚"],
    ["Alice", "Alice", "小芳"],
    ["Martin", "Martin", "小强"],
    ["Clara", "Clara", "小燕"],
    ["Victor", "Victor", "小军"],
    ["Emma", "Emma", "小雪"],
    ["Oscar", "Oscar", "小华"],
    ["Lea", "Léa", "小云"],
    ["Simon", "Simon", "小伟"],
];

/// News, and the answer to it.
const NEWS: [([&str; 3], [&str; 3]); 10] = [
    (
        ["I passed my exam today.", "J'ai réussi mon examen aujourd'hui.", "我今天通过了考试。"],
        [
            "Congratulations! Your work has paid off.",
            "Félicitations ! Ton travail a payé.",
            "恭喜你！你的努力有了回报。",
        ],
    ),
    (
        ["I feel a little tired.", "J'éprouve un peu de fatigue.", "我有点累。"],
        ["I hope that you can rest soon.", "J'espère que tu pourras bientôt te reposer.", "希望你能早点休息。"],
    ),
    (
        ["It is raining again.", "Il pleut encore.", "又下雨了。"],
        [
            "A good day for a book and a hot drink, then.",
            "C'est donc un bon jour pour un livre et une boisson chaude.",
            "那正适合看看书，喝点热饮。",
        ],
    ),
    (
        ["I have just moved to a new town.", "Je viens d'arriver dans une nouvelle ville.", "我刚搬到一个新的城市。"],
        [
            "How exciting! What do you like there so far?",
            "Quelle aventure ! Qu'est-ce qui te plaît là-bas ?",
            "真不错！你喜欢那里的什么？",
        ],
    ),
    (
        ["Today is my birthday.", "C'est mon anniversaire aujourd'hui.", "今天是我的生日。"],
        [
            "Happy birthday! I wish you a lovely day.",
            "Joyeux anniversaire ! Je te souhaite une belle journée.",
            "生日快乐！祝你今天过得开心。",
        ],
    ),
    (
        ["My train is late.", "Mon train a du retard.", "我的火车晚点了。"],
        [
            "That is annoying. I hope that it comes soon.",
            "C'est agaçant. J'espère qu'il arrivera bientôt.",
            "真让人着急，希望它快点来。",
        ],
    ),
    (
        ["I am learning to cook.", "J'apprends à cuisiner.", "我正在学做饭。"],
        [
            "Nice! Which dish would you like to try first?",
            "Super ! Quel plat veux-tu essayer en premier ?",
            "太好了！你想先试哪道菜？",
        ],
    ),
    (
        ["I lost a game of chess.", "J'ai perdu une partie d'échecs.", "我下棋输了一局。"],
        [
            "It happens to everyone; the next game may be yours.",
            "Cela arrive à tout le monde ; la prochaine partie sera peut-être la tienne.",
            "胜败很正常，下一局也许就赢了。",
        ],
    ),
    (
        ["Thank you for your help yesterday.", "Merci pour ton aide d'hier.", "谢谢你昨天的帮助。"],
        [
            "You are welcome! I am glad that it was useful.",
            "Avec plaisir ! C'est une joie de savoir que cela a servi.",
            "不客气！能帮到你我很高兴。",
        ],
    ),
    (
        ["I am going on holiday tomorrow.", "Je pars en vacances demain.", "我明天要去度假。"],
        ["Have a wonderful trip!", "Je te souhaite un très beau voyage !", "祝你旅途愉快！"],
    ),
];

/// Greetings by time of day, as said and as answered.
const GREETINGS: [[&str; 3]; 3] =
    [["Hello", "Bonjour", "你好"], ["Good evening", "Bonsoir", "晚上好"], ["Hi", "Salut", "嗨"]];

/// Generator `talk`. The worse reply is curt.
pub(super) fn draw(rng: &mut Rng, _level: u32, language: Language) -> Problem {
    let (who, news, hello) = (
        rng.below(NAMES.len() as u64) as usize,
        rng.below(NEWS.len() as u64) as usize,
        rng.below(GREETINGS.len() as u64) as usize,
    );
    let say = |texts: [&'static str; 3]| language.of3(texts[0], texts[1], texts[2]);
    let (name, greeting, (told, reply)) = (say(NAMES[who]), say(GREETINGS[hello]), NEWS[news]);
    let (told, reply) = (say(told), say(reply));
    let question = language.of3(
        format!("{greeting}, I am {name}. {told}"),
        format!("{greeting}, je m'appelle {name}. {told}"),
        format!("{greeting}，我叫{name}。{told}"),
    );
    let answer = language.of3(
        format!("{greeting}, {name}! {reply}"),
        format!("{greeting} {name} ! {reply}"),
        format!("{greeting}，{name}！{reply}"),
    );
    let worse = language.of3("So what?", "Et alors ?", "那又怎样？");
    Problem::open(format!("talk:{who}:{news}:{hello}"), question, answer).worse(PreferenceKind::Helpful, worse)
}
