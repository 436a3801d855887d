//! Calendar arithmetic in the Gregorian calendar.
//!
//! Level 1 the weekday some days later, 2 days between two dates of a year, 3 the
//! date some days later, 4 a weekday from another date's weekday, years apart.

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const WEEKDAYS: [[&str; 3]; 7] = [
    ["Monday", "lundi", "星期一"],
    ["Tuesday", "mardi", "星期二"],
    ["Wednesday", "mercredi", "星期三"],
    ["Thursday", "jeudi", "星期四"],
    ["Friday", "vendredi", "星期五"],
    ["Saturday", "samedi", "星期六"],
    ["Sunday", "dimanche", "星期日"],
];
const MONTHS: [[&str; 2]; 12] = [
    ["January", "janvier"],
    ["February", "février"],
    ["March", "mars"],
    ["April", "avril"],
    ["May", "mai"],
    ["June", "juin"],
    ["July", "juillet"],
    ["August", "août"],
    ["September", "septembre"],
    ["October", "octobre"],
    ["November", "novembre"],
    ["December", "décembre"],
];

const WEEKDAY_LATER: Phrases = Phrases::three(
    &[
        "Today is {w}. What day of the week will it be in {n} days?",
        "If today is {w}, which weekday comes {n} days later?",
    ],
    &[
        "Aujourd'hui, c'est {w}. Quel jour de la semaine serons-nous dans {n} jours ?",
        "Si nous sommes {w}, quel jour de la semaine viendra {n} jours plus tard ?",
    ],
    &["今天是{w}，{n}天后是星期几？", "如果今天是{w}，那么再过{n}天是星期几？"],
);
const DAYS_BETWEEN: Phrases = Phrases::three(
    &["How many days are there from {a} to {b}?", "How many days after {a} is {b}?"],
    &["Combien de jours y a-t-il du {a} au {b} ?", "Combien de jours séparent le {a} du {b} ?"],
    &["从{a}到{b}一共相隔多少天？", "{b}是{a}之后的第几天？"],
);
const DATE_LATER: Phrases = Phrases::three(
    &[
        "What is the date {n} days after {a}? Answer as YYYY-MM-DD.",
        "Which date comes {n} days after {a}? Write it as YYYY-MM-DD.",
    ],
    &[
        "Quelle est la date {n} jours après le {a} ? Réponds sous la forme AAAA-MM-JJ.",
        "Quelle date vient {n} jours après le {a} ? Écris-la sous la forme AAAA-MM-JJ.",
    ],
    &[
        "{a}之后{n}天是哪一天？请用“年-月-日”的格式回答，例如2024-01-31。",
        "从{a}起再过{n}天是几月几日？按2024-01-31这样的格式作答。",
    ],
);
const WEEKDAY_OF: Phrases = Phrases::three(
    &["{a} was a {w}. Which day of the week is {b}?", "Given that {a} falls on a {w}, what day of the week is {b}?"],
    &[
        "Le {a} était un {w}. Quel jour de la semaine est le {b} ?",
        "Sachant que le {a} tombe un {w}, quel jour de la semaine est le {b} ?",
    ],
    &["{a}是{w}，那么{b}是星期几？", "已知{a}是{w}，求{b}是星期几。"],
);

/// A date of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: i64,
    /// 1 to 12.
    month: i64,
    day: i64,
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Date {
    fn random(rng: &mut Rng, year: i64) -> Date {
        let month = rng.between(1, 12);
        Date { year, month, day: rng.between(1, month_length(year, month)) }
    }

    fn day_of_year(self) -> i64 {
        (1..self.month).map(|month| month_length(self.year, month)).sum::<i64>() + self.day
    }

    fn iso(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    fn text(self, language: Language) -> String {
        let Date { year, month, day } = self;
        let names = MONTHS[month as usize - 1];
        match language {
            Language::Zh => format!("{year}年{month}月{day}日"),
            Language::Fr if day == 1 => format!("1er {} {year}", names[1]),
            Language::Fr => format!("{day} {} {year}", names[1]),
            _ => format!("{} {day}, {year}", names[0]),
        }
    }

    /// The months' lengths before this date and its day, as a sum: its day of the year.
    fn day_sum(self) -> String {
        let mut terms: Vec<String> = (1..self.month).map(|month| month_length(self.year, month).to_string()).collect();
        terms.push(self.day.to_string());
        if terms.len() == 1 { terms.remove(0) } else { format!("{} = {}", terms.join(" + "), self.day_of_year()) }
    }
}

fn weekday(index: i64, language: Language) -> &'static str {
    let [en, fr, zh] = WEEKDAYS[index.rem_euclid(7) as usize];
    language.of3(en, fr, zh)
}

/// Generator `calendar`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let weeks = |days: i64| format!("{days} = {} × 7 + {}", days / 7, days % 7);
    let forward = |from: i64, rest: i64| {
        let (from, to) = (weekday(from, language), weekday(from + rest, language));
        language.of3(
            format!("{rest} days after {from} comes {to}"),
            format!("{rest} jours après {from} vient {to}"),
            format!("{from}之后{rest}天是{to}"),
        )
    };
    let (key, question, gold, steps) = match level {
        1 => {
            let (from, days) = (rng.between(0, 6), rng.between(8, 999));
            let question = WEEKDAY_LATER.say(rng, language, &[("w", &weekday(from, language)), ("n", &days)]);
            let gold = weekday(from + days, language).to_owned();
            (format!("weekday {from} + {days}"), question, gold, vec![weeks(days), forward(from, days % 7)])
        }
        2 => {
            let year = rng.between(1900, 2100);
            let (a, b) = loop {
                let (a, b) = (Date::random(rng, year), Date::random(rng, year));
                if a.day_of_year() < b.day_of_year() {
                    break (a, b);
                }
            };
            let days = b.day_of_year() - a.day_of_year();
            let question = DAYS_BETWEEN.say(rng, language, &[("a", &a.text(language)), ("b", &b.text(language))]);
            let steps = vec![
                leap_note(year, language),
                a.day_sum(),
                b.day_sum(),
                format!("{} - {} = {days}", b.day_of_year(), a.day_of_year()),
            ];
            (format!("{} to {}", a.iso(), b.iso()), question, days.to_string(), steps)
        }
        3 => {
            let year = rng.between(1900, 2100);
            let (start, days) = (Date::random(rng, year), rng.between(10, 200));
            let question = DATE_LATER.say(rng, language, &[("a", &start.text(language)), ("n", &days)]);
            let (steps, end) = walk(start, days, language);
            (format!("{} + {days}", start.iso()), question, end.iso(), steps)
        }
        _ => {
            let year = rng.between(1950, 2060);
            let (a, b) = (Date::random(rng, year), Date { year: year + rng.between(1, 5), ..Date::random(rng, 2001) });
            let years: i64 = (a.year..b.year).map(|year| 365 + i64::from(is_leap(year))).sum();
            let days = years - a.day_of_year() + b.day_of_year();
            let from = first_weekday(a.year) + a.day_of_year() - 1;
            let values: [(&str, &dyn std::fmt::Display); 3] =
                [("a", &a.text(language)), ("b", &b.text(language)), ("w", &weekday(from, language))];
            let question = WEEKDAY_OF.say(rng, language, &values);
            let mut steps: Vec<String> = (a.year..=b.year).map(|year| leap_note(year, language)).collect();
            steps.extend([
                a.day_sum(),
                b.day_sum(),
                format!("{years} - {} + {} = {days}", a.day_of_year(), b.day_of_year()),
                weeks(days),
                forward(from, days % 7),
            ]);
            (format!("{} to {}", a.iso(), b.iso()), question, weekday(from + days, language).to_owned(), steps)
        }
    };
    Problem::exact(format!("calendar:{key}"), question, gold.as_str()).with_chain(language.chain(&steps, &gold))
}

/// The weekday of January 1st (0 is Monday); January 1st of the year 1 is a Monday.
fn first_weekday(year: i64) -> i64 {
    let before = year - 1;
    (before * 365 + before / 4 - before / 100 + before / 400).rem_euclid(7)
}

fn leap_note(year: i64, language: Language) -> String {
    let days = 365 + i64::from(is_leap(year));
    match (language, is_leap(year)) {
        (Language::Fr, true) => format!("{year} est bissextile et compte {days} jours"),
        (Language::Fr, false) => format!("{year} n'est pas bissextile et compte {days} jours"),
        (Language::Zh, true) => format!("{year}年是闰年，有{days}天"),
        (Language::Zh, false) => format!("{year}年不是闰年，有{days}天"),
        (_, true) => format!("{year} is a leap year and has {days} days"),
        (_, false) => format!("{year} is not a leap year and has {days} days"),
    }
}

/// Month by month, to the end of each, then into the last.
fn walk(start: Date, days: i64, language: Language) -> (Vec<String>, Date) {
    let (mut date, mut left, mut steps) = (start, days, Vec::new());
    loop {
        let length = month_length(date.year, date.month);
        let room = length - date.day;
        let [en, fr] = MONTHS[date.month as usize - 1];
        let month = language.of3(
            format!("{en} has {length} days"),
            format!("{fr} compte {length} jours"),
            format!("{}月有{length}天", date.month),
        );
        let comma = if language == Language::Zh { "，" } else { ", " };
        if left <= room {
            let day = date.day + left;
            if left > 0 && date.day > 0 {
                steps.push(format!("{month}{comma}{} + {left} = {day}", date.day));
            } else {
                steps.push(month);
            }
            return (steps, Date { day, ..date });
        }
        let after = left - room;
        let used = if date.day > 0 { format!("{length} - {} = {room}{comma}", date.day) } else { String::new() };
        steps.push(format!("{month}{comma}{used}{left} - {room} = {after}"));
        left = after;
        date = if date.month == 12 {
            Date { year: date.year + 1, month: 1, day: 0 }
        } else {
            Date { month: date.month + 1, day: 0, ..date }
        };
    }
}
