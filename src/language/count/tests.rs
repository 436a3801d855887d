use super::*;

fn share(text: &str, language: &str) -> f64 {
    count(text).share(language).unwrap_or(f64::NAN)
}

#[test]
fn the_latin_languages_are_the_first_of_the_lexicon() {
    assert_eq!(LANGUAGES[..LATIN], crate::language::lexicon::LATIN[..LATIN]);
}

/// Short, math-heavy lines as chains of thought have them.
const LINES: &[(&str, &[&str])] = &[
    (
        "en",
        &[
            "So x = 4.",
            "Thus $a^2 + b^2 = c^2$, which gives c = 5.",
            "Wait, let me check that again.",
            "First, 16 - 3 - 4 = 9 eggs remain.",
            "She sells 9 eggs at $2 each, so she makes $18.",
            "Let n be the number of apples Tom has.",
            "Therefore the area is 12 cm^2.",
            "Hmm, that doesn't look right.",
            "We need to find the greatest common divisor of 48 and 18.",
            "Plugging in gives 2(3) + 1 = 7.",
            "Alternatively, consider the complement.",
            "If k is even then k/2 is an integer.",
        ],
    ),
    (
        "fr",
        &[
            "Donc x = 4.",
            "Ainsi $a^2 + b^2 = c^2$, ce qui donne c = 5.",
            "Attendez, vérifions encore une fois.",
            "D'abord, il reste 16 - 3 - 4 = 9 œufs.",
            "Elle vend 9 œufs à 2 € chacun, donc elle gagne 18 €.",
            "Soit n le nombre de pommes de Tom.",
            "L'aire est donc de 12 cm^2.",
            "Hmm, ce n'est pas correct.",
            "Il faut trouver le plus grand diviseur commun de 48 et 18.",
            "En remplaçant, on obtient 2(3) + 1 = 7.",
            "Si k est pair, alors k/2 est un entier.",
            "Calculons la somme des termes.",
        ],
    ),
    (
        "de",
        &[
            "Also ist x = 4.",
            "Daraus folgt $a^2 + b^2 = c^2$ und somit c = 5.",
            "Moment, ich prüfe das noch einmal.",
            "Zuerst bleiben 16 - 3 - 4 = 9 Eier übrig.",
            "Sie verkauft 9 Eier für je 2 €, also verdient sie 18 €.",
            "Sei n die Anzahl der Äpfel von Tom.",
            "Die Fläche beträgt 12 cm^2.",
            "Hm, das stimmt nicht.",
            "Wir suchen den größten gemeinsamen Teiler von 48 und 18.",
            "Einsetzen ergibt 2(3) + 1 = 7.",
            "Wenn k gerade ist, dann ist k/2 eine ganze Zahl.",
            "Wir addieren beide Gleichungen.",
        ],
    ),
    (
        "es",
        &[
            "Entonces x = 4.",
            "Por lo tanto $a^2 + b^2 = c^2$, así que c = 5.",
            "Espera, voy a comprobarlo otra vez.",
            "Primero, quedan 16 - 3 - 4 = 9 huevos.",
            "Vende 9 huevos a 2 € cada uno, así que gana 18 €.",
            "Sea n el número de manzanas de Tom.",
            "El área es de 12 cm^2.",
            "Hmm, eso no parece correcto.",
            "Necesitamos el máximo común divisor de 48 y 18.",
            "Sustituyendo obtenemos 2(3) + 1 = 7.",
            "Si k es par, entonces k/2 es un entero.",
            "Sumamos las dos ecuaciones.",
            "Luego y = 2x + 1.",
            "La suma es $3 + 4 = 7$.",
            "Dividimos entre 2: x = 5.",
            "Resolvemos $2x = 8$ y queda x = 4.",
            "Por tanto, hay 6 formas.",
            "Como $f(2) = 5$, el valor buscado es 5.",
            "Comprobamos: 3 + 4 = 7.",
        ],
    ),
    (
        "pt",
        &[
            "Portanto, x = 4.",
            "Logo $a^2 + b^2 = c^2$, o que dá c = 5.",
            "Espere, vou verificar isso de novo.",
            "Primeiro, sobram 16 - 3 - 4 = 9 ovos.",
            "Ela vende 9 ovos a 2 € cada, então ganha 18 €.",
            "Seja n o número de maçãs do Tom.",
            "A área é de 12 cm^2.",
            "Hmm, isso não parece certo.",
            "Precisamos do máximo divisor comum de 48 e 18.",
            "Substituindo, obtemos 2(3) + 1 = 7.",
            "Se k é par, então k/2 é um inteiro.",
            "Somamos as duas equações.",
            "Assim temos $2x = 8$.",
        ],
    ),
    (
        "it",
        &[
            "Quindi x = 4.",
            "Allora $a^2 + b^2 = c^2$, da cui c = 5.",
            "Aspetta, controlliamo di nuovo.",
            "All'inizio restano 16 - 3 - 4 = 9 uova.",
            "Sia n il numero di mele di Tom.",
            "L'area è di 12 cm^2.",
            "Dobbiamo trovare il massimo comune divisore di 48 e 18.",
            "Sostituendo si ottiene 2(3) + 1 = 7.",
            "Se k è pari, allora k/2 è un intero.",
            "Sommiamo le due equazioni.",
        ],
    ),
    (
        "nl",
        &[
            "Dus x = 4.",
            "Hieruit volgt $a^2 + b^2 = c^2$ en dus c = 5.",
            "Wacht, laten we dit nog eens controleren.",
            "Eerst blijven er 16 - 3 - 4 = 9 eieren over.",
            "Laat n het aantal appels van Tom zijn.",
            "De oppervlakte is 12 cm^2.",
            "We zoeken de grootste gemene deler van 48 en 18.",
            "Invullen geeft 2(3) + 1 = 7.",
            "Als k even is, dan is k/2 een geheel getal.",
        ],
    ),
    (
        "ru",
        &[
            "Значит, x = 4.",
            "Пусть n — число яблок.",
            "Проверим ещё раз: 16 - 3 - 4 = 9.",
            "Следовательно, площадь равна 12.",
        ],
    ),
    (
        "zh",
        &[
            "所以 x = 4。",
            "设小明有 n 个苹果，则 n = 5。",
            "等等，让我再检查一遍。",
            "因此面积是 12 平方厘米。",
            "由勾股定理得 c = 5",
        ],
    ),
    (
        "ja",
        &[
            "よって x = 4。",
            "りんごの個数を n とする。",
            "もう一度確認しよう。",
            "したがって面積は 12 平方センチメートルである。",
        ],
    ),
    (
        "ko",
        &[
            "따라서 x = 4이다.",
            "사과의 개수를 n이라 하자.",
            "다시 확인해 보자.",
            "넓이는 12이다.",
            "$2x = 8$ 이므로 x = 4",
            "즉, $f(2) = 5$.",
            "합은 $3 + 4 = 7$",
            "x를 구하면 5",
        ],
    ),
    ("ar", &["إذن x = 4.", "ليكن n عدد التفاحات.", "دعنا نتحقق مرة أخرى.", "المساحة تساوي 12."]),
    ("hi", &["इसलिए x = 4 है।", "मान लीजिए n सेबों की संख्या है।", "चलो फिर से जाँच करें।", "क्षेत्रफल 12 है।"]),
];

#[test]
fn short_lines_full_of_mathematics_are_told() {
    let (mut right, mut all, mut missed) = (0, 0, Vec::new());
    for (language, lines) in LINES {
        for line in *lines {
            all += 1;
            if share(line, language) > 0.99 {
                right += 1;
            } else {
                missed.push((*line, count(line)));
            }
        }
    }
    eprintln!("language: {right} of {all} short lines; missed {missed:?}");
    assert!(right * 100 >= all * 97, "{missed:?}");
}

#[test]
fn whole_chains_of_thought_are_pure_and_mixes_are_measured() {
    for (language, lines) in LINES {
        let text = lines.join(" ");
        assert!(share(&text, language) > 0.98, "{language}: {:?}", count(&text));
        for (other, more) in LINES.iter().filter(|(other, _)| other != language) {
            let mixed = format!("{text}\n{}", more.join(" "));
            let share = share(&mixed, language);
            assert!((0.1..0.9).contains(&share), "{language} with {other}: {share}");
        }
    }
}

/// A formula's letters, names and commands are no English, whatever surrounds them.
#[test]
fn what_is_no_language_does_not_count_against_one() {
    for (language, text) in [
        ("ko", "따라서 $\\sin(\\theta) + \\max(a, b)$ 의 값은 `return max(a, b)` 이다. x = 5, f(x) = 2x, km/h"),
        ("es", "Usamos sen(x) y log(n), así que f(x) = \\frac{1}{2} y el resultado es \\boxed{\\text{the set}}."),
        ("zh", "由 sin(x) 和 cos(x) 可得 f(x) = 2，所以 max = 5，min = 3。"),
        ("ru", "Тогда AB = CD, поэтому ABCD это параллелограмм, и sin(x) = 1/2."),
        ("pt", "Temos ABC com AB = 3 cm e BC = 4 cm, portanto AC = 5 cm."),
        ("ja", "よって f(x) = max(a, b) であり、答えは x = 5 です。"),
    ] {
        assert!(share(text, language) > 0.95, "{language}: {text} {:?}", count(text));
    }
}

#[test]
fn switching_inside_a_sentence_shows() {
    let text = "First we add the numbers, puis nous divisons le tout par deux, and so we get the final answer.";
    let english = share(text, "en");
    assert!((0.5..0.8).contains(&english), "{english} {:?}", count(text));
    let text = "So the answer is 因为面积是十二平方厘米 and we are done.";
    assert!((0.4..0.8).contains(&share(text, "en")), "{:?}", count(text));
}

#[test]
fn code_latex_numbers_and_names_are_no_words() {
    let text = "Laura und Anna: ```python\nfor x in range(10): print(x)\n``` $\\area{the} = x$ `while true` 42";
    assert_eq!(count(text).total(), count("Laura und Anna").total());
    assert_eq!(count("x + y = 2, \\frac{1}{2}, 3.5 km").total(), 0.0);
}

/// Each says that there were sixteen eggs, of which seven were eaten.
#[test]
fn no_script_and_no_disguise_passes_for_the_language_asked_for() {
    let chinese = "一共有十六个鸡蛋，吃了七个，所以还剩九个。";
    for text in [
        "היו שש עשרה ביצים ושבע נאכלו ולכן נשארו תשע",
        "იყო თექვსმეტი კვერცხი და შვიდი შეჭამეს",
        "Կար տասնվեց ձու և յոթը կերան",
        "பதினாறு முட்டைகள் இருந்தன ஏழு சாப்பிடப்பட்டன",
        "ষোলটি ডিম ছিল এবং সাতটি খাওয়া হয়েছে",
        "አስራ ስድስት እንቁላሎች ነበሩ ሰባት ተበሉ",
        "មានពងមាន់ដប់ប្រាំមួយ",
        "ကြက်ဥဆယ့်ခြောက်လုံးရှိသည်",
        "સોળ ઇંડા હતા અને સાત ખાધા",
        &format!("`{chinese}`"),
        &format!("```\n{chinese}\n```"),
        &format!("$\\text{{{chinese}}}$"),
        &format!("http://a.b/{}", chinese.replace('，', "")),
        "$\\text{Il y avait seize œufs et on en a mangé sept, donc il en reste neuf.}$",
    ] {
        assert_eq!(share(text, "en"), 0.0, "{text} {:?}", count(text));
        // One word of English is no English reasoning.
        assert!(share(&format!("So we count.\n{text}\n"), "en") < 0.6, "{text}");
        let mixed = format!("There were sixteen eggs and seven of them were eaten.\n{text}");
        assert!((0.2..0.95).contains(&share(&mixed, "en")), "{text} {:?}", count(&mixed));
    }
    assert_eq!(count(&format!("`{chinese}`")).main(), Some("zh"));
    let french = "`Il y avait seize œufs et on en a mangé sept, donc il en reste neuf.`";
    assert_eq!(count(french).main(), Some("fr"));
}

#[test]
fn code_and_signs_alone_are_still_no_words() {
    for text in [
        "```python\ndef f(x):\n    return x * x\n```",
        "$\\frac{1}{2} + \\sin x = y$",
        "`foo_bar.baz(qux)`",
        "ℝ ⊂ ℂ, 𝑥 ∈ ℕ, ⟨𝐯, 𝐰⟩",
        "ᵃ ʰ Ａ Ｂ Ⓐ ∀ ∃ א",
    ] {
        assert_eq!(count(text).total(), 0.0, "{text}: {:?}", count(text));
    }
}

#[test]
fn questions_of_public_sets_are_told() {
    let folder = std::env::var("GRISTMILL_SHARED_DATA")
        .map(std::path::PathBuf::from)
        .unwrap_or_else(|_| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    for (file, key, language) in [
        ("gsm8k_test.jsonl", "question", "en"),
        ("gsm8k_test.jsonl", "answer", "en"),
        ("math_test_5000.jsonl", "problem", "en"),
        ("math_test_5000.jsonl", "solution", "en"),
        ("mgsm_zh.jsonl", "messages", "zh"),
        ("cmath_zh.jsonl", "question", "zh"),
    ] {
        let Ok(text) = std::fs::read_to_string(folder.join(file)) else {
            eprintln!("skipped: no {file} in {}", folder.display());
            continue;
        };
        let (mut right, mut all, mut shares) = (0usize, 0usize, 0.0);
        let mut missed = Vec::new();
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let value = if key == "messages" { &row[key][0]["content"] } else { &row[key] };
            let text = value.as_str().unwrap();
            let counts = count(text);
            if counts.total() == 0.0 {
                continue;
            }
            all += 1;
            shares += counts.share(language).unwrap_or(0.0);
            if counts.main() == Some(language) {
                right += 1;
            } else {
                missed.push((text.to_owned(), counts));
            }
        }
        eprintln!("language: {file} {key}: {right} of {all} told, mean share {:.4}", shares / all as f64);
        for (text, counts) in missed.iter().take(3) {
            eprintln!("  missed {:?} {:?}", text.chars().take(120).collect::<String>(), counts.others("-"));
        }
        assert!(right as f64 >= 0.99 * all as f64, "{file} {key}: {right} of {all}");
    }
}
