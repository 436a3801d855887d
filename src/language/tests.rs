use super::*;

/// Short questions by language: what people type, not what grammars show.
const SHORT: [(&str, &[&str]); 12] = [
    (
        "en",
        &[
            "Why is the sky blue?",
            "List five rivers of Europe.",
            "Simplify: 3a + 5a - i",
            "Factor the trinomial.",
            "Evaluate at $y = 3$.",
            "Who painted Guernica?",
            "How many e's are in beekeeper?",
            "Translate \"guten Morgen\" into English.",
            "Find $y$: $\\sqrt{19+3y}=7$",
            "He earns 12 per day and works 5 days per week.",
            "Let $P$ be a point inside the circle.",
            "Thanks!",
            "Convert 5 feet to inches.",
            "Reverse the word stressed.",
            "Say something funny about penguins.",
        ],
    ),
    (
        "fr",
        &[
            "Quel âge a Paul ?",
            "Trouve la valeur de $y$.",
            "Cite quatre fleuves.",
            "Pourquoi le ciel est-il bleu ?",
            "Résume ce paragraphe.",
            "Combien de jours dans une année ?",
            "Démontre que $\\sqrt 3$ est irrationnel.",
            "Qui a peint Guernica ?",
            "Merci !",
            "Donne-moi une recette simple.",
            "Il lui reste 5 billes.",
            "L'aire du carré vaut 16.",
        ],
    ),
    (
        "de",
        &[
            "Warum ist der Himmel blau?",
            "Nenne fünf Flüsse.",
            "Wie viele Tage hat ein Jahr?",
            "Löse nach $x$ auf.",
            "Wer malte Guernica?",
            "Danke schön!",
            "Vereinfache den Term.",
            "Übersetze das ins Englische.",
            "Erkläre den Satz des Pythagoras.",
            "Wo wohnt Maria?",
            "Schreib ein kurzes Gedicht.",
        ],
    ),
    (
        "es",
        &[
            "¿Por qué el cielo es azul?",
            "Nombra cinco ríos.",
            "¿Cuántos días tiene un año?",
            "Resuelve la ecuación.",
            "¿Quién pintó el Guernica?",
            "¡Gracias!",
            "Traduce esto al inglés.",
            "Escribe un poema corto.",
            "Halla el área del círculo.",
            "Simplifica la expresión.",
            "Ana tiene 3 manzanas y compra 2 más.",
        ],
    ),
    (
        "it",
        &[
            "Perché il cielo è blu?",
            "Quanti giorni ha un anno?",
            "Risolvi l'equazione.",
            "Chi ha dipinto Guernica?",
            "Scrivi una breve poesia.",
            "Grazie mille!",
            "Trova il valore di $x$.",
            "Spiega la fotosintesi.",
            "Qual è la capitale del Giappone?",
            "Marco ha 3 mele e ne compra 2.",
        ],
    ),
    (
        "pt",
        &[
            "Por que o céu é azul?",
            "Quantos dias tem um ano?",
            "Resolva a equação.",
            "Quem pintou Guernica?",
            "Escreva um poema curto.",
            "Muito obrigado!",
            "Encontre o valor de $x$.",
            "Explique a fotossíntese.",
            "Qual é a capital do Japão?",
            "Ana tem 3 maçãs e compra mais 2.",
        ],
    ),
    (
        "nl",
        &[
            "Waarom is de lucht blauw?",
            "Hoeveel dagen heeft een jaar?",
            "Los de vergelijking op.",
            "Wie schilderde Guernica?",
            "Schrijf een kort gedicht.",
            "Dank je wel!",
            "Wat is de hoofdstad van Japan?",
            "Leg fotosynthese uit.",
            "Jan heeft 3 appels en koopt er 2.",
        ],
    ),
    (
        "pl",
        &[
            "Dlaczego niebo jest niebieskie?",
            "Ile dni ma rok?",
            "Rozwiąż równanie.",
            "Kto namalował Guernicę?",
            "Napisz krótki wiersz.",
            "Jaka jest stolica Japonii?",
        ],
    ),
    (
        "tr",
        &[
            "Gökyüzü neden mavi?",
            "Bir yılda kaç gün var?",
            "Denklemi çöz.",
            "Kısa bir şiir yaz.",
            "Japonya'nın başkenti neresidir?",
        ],
    ),
    ("ru", &["Почему небо голубое?", "Сколько дней в году?", "Реши уравнение $2x = 6$.", "Спасибо!", "Найди $f(3)$."]),
    (
        "zh",
        &[
            "为什么天是蓝的?",
            "求 $\\frac{d}{dx}\\left(\\sin x \\cos x\\right)$ 的值",
            "一年有多少天",
            "解方程 3x+2=11",
            "谢谢",
            "什么是 GDP?",
            "请用 Python 写一个 sort 函数 def sort_list(items): return sorted(items)",
            "設 $f(x)=\\ln x$",
        ],
    ),
    ("ja", &["なぜ空は青いのですか?", "1年は何日ですか", "方程式を解け。", "ありがとう"]),
];

#[test]
fn short_questions_of_many_languages_get_their_tags() {
    let (mut all, mut unknown, mut wrong) = (0, Vec::new(), Vec::new());
    for (tag, texts) in SHORT {
        for text in texts {
            all += 1;
            match detect(text) {
                found if found == tag => {}
                "und" => unknown.push((tag, text)),
                found => wrong.push((tag, found, text)),
            }
        }
    }
    assert_eq!(wrong, [], "of {all}");
    assert!(unknown.len() * 20 <= all, "{} of {all} unknown: {unknown:?}", unknown.len());
}

#[test]
fn longer_questions_and_other_scripts_get_their_tags() {
    for (text, tag) in [
        ("What is the sum of all integers $x$ such that $\\frac{x}{2} \\le 5$?", "en"),
        ("Combien de pommes reste-t-il dans le panier si Marie en mange trois ?", "fr"),
        ("Wie viele Äpfel sind in dem Korb, wenn Anna drei davon isst?", "de"),
        ("小明有3个苹果,又买了5个,一共有多少个?", "zh"),
        ("已知函数 $f(x)=\\sin x+\\cos x$,求其最大值。", "zh"),
        ("りんごが3個あります。全部で何個ですか?", "ja"),
        ("사과가 세 개 있습니다. 모두 몇 개입니까?", "ko"),
        ("Сколько яблок осталось в корзине, если Маша съела три?", "ru"),
        ("Скільки яблук залишилося в кошику, якщо Марія з'їла три?", "uk"),
        ("كم عدد التفاحات المتبقية في السلة؟", "ar"),
        ("چند سیب در سبد باقی مانده است؟", "fa"),
        ("टोकरी में कितने सेब बचे हैं?", "hi"),
        ("Πόσα μήλα έμειναν στο καλάθι;", "el"),
        ("ในตะกร้าเหลือแอปเปิลกี่ผล", "th"),
        ("Trong giỏ còn lại bao nhiêu quả táo?", "vi"),
        ("Hur många äpplen finns kvar i korgen?", "sv"),
        ("Kuinka monta omenaa korissa on jäljellä?", "fi"),
        ("Kolik jablek zbylo v košíku?", "cs"),
        ("Hány alma maradt a kosárban?", "hu"),
        ("Câte mere au rămas în coș?", "ro"),
        ("Berapa banyak apel yang tersisa di keranjang?", "id"),
    ] {
        assert_eq!(detect(text), tag, "{text}");
    }
}

#[test]
fn what_is_quoted_or_coded_is_not_the_language_of_the_question() {
    for (text, tag) in [
        ("What does 'c'est la vie' mean?", "en"),
        ("Traduis « the weather is nice today » en français.", "fr"),
        ("Was bedeutet „the cat sat on the mat“?", "de"),
        ("Translate 你好世界 into English.", "en"),
        ("Fix this code: print('the number of the day'", "en"),
        ("\"Le chat est sur la table.\"", "fr"),
        ("```\nif the value is of the list then return\n```\nQue fait ce programme ?", "fr"),
    ] {
        assert_eq!(detect(text), tag, "{text}");
    }
}

#[test]
fn formulas_and_names_alone_have_no_language() {
    for text in [
        "",
        "3 + 5 = ?",
        "$x^2 + 2x + 1 = 0$",
        "\\int_0^1 \\frac{dx}{x}",
        "y = 3x + i, e = o",
        "f(x) = sin(x)",
        "α + β = γ",
        "Barack Obama",
        "qwrtz plmk vbnx",
    ] {
        assert_eq!(detect(text), "und", "{text}");
    }
}

/// Questions of one language from the field's files, where they are at hand: nearly none without a tag, hardly a wrong one.
#[test]
fn the_shared_questions_have_their_language() {
    let root = std::env::var_os("GRISTMILL_SHARED_DATA").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        std::path::PathBuf::from,
    );
    let (mut rows, mut unknown, mut wrong) = (0u64, 0u64, Vec::new());
    for (name, column, tag) in [
        ("gsm8k_test", "question", "en"),
        ("gsm8k_train", "question", "en"),
        ("math_test_5000", "problem", "en"),
        ("college_math", "question", "en"),
        ("olympiadbench", "question", "en"),
        ("mmlu_stem", "question", "en"),
        ("cmath_zh", "question", "zh"),
        ("mgsm_zh", "question", "zh"),
    ] {
        let Ok(text) = std::fs::read_to_string(root.join(format!("{name}.jsonl"))) else { continue };
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(question) = row[column].as_str() else { continue };
            rows += 1;
            match detect(question) {
                found if found == tag => {}
                "und" => unknown += 1,
                found => wrong.push((name, found, question.to_owned())),
            }
        }
    }
    if rows == 0 {
        println!("skipped: no shared data at {}", root.display());
        return;
    }
    println!("{rows} questions, {unknown} unknown, {} wrong: {wrong:#?}", wrong.len());
    assert!(unknown * 100 <= rows, "{unknown} of {rows} unknown");
    assert!(wrong.len() as u64 * 2_000 <= rows, "{wrong:#?}");
}
