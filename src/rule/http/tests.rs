use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::rule::testing::{sample, with_gold};
use crate::rule::{Origin, RuleSet};
use crate::schema::{Message, Role};

/// What a server was sent.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    sizes: Mutex<Vec<usize>>,
    in_flight: AtomicUsize,
    most: AtomicUsize,
}

type Reply = (u16, String);

/// A server that answers the rows of each request, a thread for each connection.
fn server(answer: impl Fn(usize, Vec<Value>) -> Reply + Send + Sync + 'static) -> (String, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/score", listener.local_addr().unwrap());
    let (seen, answer) = (Arc::new(Seen::default()), Arc::new(answer));
    let counted = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen, answer) = (stream.unwrap(), counted.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let mut asked: Value = serde_json::from_slice(&body).unwrap();
                let rows = asked["rows"].as_array_mut().map(std::mem::take).unwrap();
                seen.most.fetch_max(seen.in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                seen.sizes.lock().unwrap().push(rows.len());
                let (status, text) = answer(seen.requests.fetch_add(1, Ordering::SeqCst), rows);
                seen.in_flight.fetch_sub(1, Ordering::SeqCst);
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", text.len());
                let _ = stream.write_all((head + &text).as_bytes());
            });
        }
    });
    (url, seen)
}

fn rewards(values: impl Into<Value>) -> Reply {
    (200, json!({"rewards": values.into()}).to_string())
}

/// The number that a completion ends with, in hundredths.
fn hundredths(rows: &[Value]) -> Vec<f64> {
    let number = |row: &Value| row["completion"].as_str().unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    rows.iter().map(|row| number(row) / 100.0).collect()
}

fn config(endpoint: String) -> HttpConfig {
    HttpConfig { endpoint, retries: 1, timeout_seconds: 20.0, ..HttpConfig::default() }
}

fn rule(endpoint: String) -> HttpRule {
    HttpRule::new(config(endpoint)).unwrap()
}

#[test]
fn scores_arrive_at_their_rows_under_many_threads_and_rows_come_together() {
    let (url, seen) = server(|_, rows| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        rewards(hundredths(&rows))
    });
    let rule = HttpRule::new(HttpConfig { batch: 16, parallel: 2, ..config(url) }).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..32 {
            let rule = &rule;
            scope.spawn(move || {
                let texts: Vec<String> =
                    (0..5).map(|i| format!("thread {thread} says {}", (thread * 5 + i) % 101)).collect();
                let samples: Vec<_> = texts.iter().map(|text| sample(text)).collect();
                for (i, verdict) in rule.check_batch(&samples).into_iter().enumerate() {
                    assert_eq!(verdict.score, Some(((thread * 5 + i) % 101) as f64 / 100.0), "{verdict:?}");
                }
            });
        }
    });
    let sizes = seen.sizes.lock().unwrap();
    assert_eq!(sizes.iter().sum::<usize>(), 160);
    assert!(sizes.iter().all(|&size| size <= 16), "{sizes:?}");
    assert!(sizes.len() < 32, "threads share requests: {sizes:?}");
    assert!(seen.most.load(Ordering::SeqCst) <= 2);
}

#[test]
fn rows_say_what_a_reward_function_wants() {
    let (url, _) = server(|_, rows| rewards(rows));
    let rule = HttpRule::new(HttpConfig { columns: vec!["level".into(), "other".into()], ..config(url) }).unwrap();
    let messages = [
        Message { role: Role::System, content: "Be brief.".into() },
        Message { role: Role::User, content: "What is 2 + 2?".into() },
    ];
    let origin = Origin { prompt_id: Some("p1"), messages: &messages, extra: Some(r#"{"level": 3, "secret": 1}"#) };
    let verification = r#"{"unit": 1.10}"#;
    let asked = Sample { verification: Some(verification), origin, ..with_gold("<think>so</think>It is 4", "4") };
    let text = row::text(&asked, rule.columns());
    assert!(text.contains("\"verification\":{\"unit\": 1.10}"), "as it was written: {text}");
    let row: Value = serde_json::from_str(&text).unwrap();
    let wanted = json!({
        "prompt_id": "p1",
        "prompt": "What is 2 + 2?",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}],
        "completion": "<think>so</think>It is 4",
        "completion_reasoning": "so",
        "completion_answer": "It is 4",
        "gold": "4",
        "verification": {"unit": 1.1},
        "domain": "math",
        "language": "en",
        "difficulty": null,
        "finish_reason": "stop",
        "tokens": null,
        "level": 3,
        "other": null,
    });
    assert_eq!(row, wanted);
    // The server sent the row itself in the place of a number.
    let verdict = rule.check(&asked);
    assert_eq!((verdict.reason, verdict.score), ("server_not_a_number", None), "{verdict:?}");
}

#[test]
fn a_number_is_a_score_in_its_range_and_null_is_none() {
    let scored = |more: HttpConfig, reply: Value| {
        let (url, _) = server(move |_, _| (200, reply.to_string()));
        let verdict = HttpRule::new(HttpConfig { endpoint: url, ..more }).unwrap().check(&sample("x"));
        (verdict.outcome, verdict.score, verdict.reason)
    };
    let plain = |reward: Value| scored(config(String::new()), json!({"rewards": [reward]}));
    assert_eq!(plain(json!(1)), (Outcome::Correct, Some(1.0), "server_correct"));
    assert_eq!(plain(json!(0.5)), (Outcome::Wrong, Some(0.5), "server_wrong"));
    assert_eq!(plain(json!(true)), (Outcome::Correct, Some(1.0), "server_correct"));
    assert_eq!(plain(json!(false)), (Outcome::Wrong, Some(0.0), "server_wrong"));
    assert_eq!(plain(json!(null)), (Outcome::CannotTell, None, "server_cannot_tell"));
    assert_eq!(plain(json!(1.5)), (Outcome::CannotTell, None, "server_out_of_range"));
    assert_eq!(plain(json!("1")), (Outcome::CannotTell, None, "server_not_a_number"));
    let wide = || HttpConfig { min: -1.0, max: 2.0, pass: Some(0.0), ..config(String::new()) };
    assert_eq!(scored(wide(), json!({"rewards": [1.5]})), (Outcome::Correct, Some(1.5), "server_correct"));
    assert_eq!(scored(wide(), json!({"rewards": [-0.5]})), (Outcome::Wrong, Some(-0.5), "server_wrong"));
    let said = json!({"rewards": [0.2], "correct": [true]});
    assert_eq!(scored(wide(), said), (Outcome::Correct, Some(0.2), "server_correct"));
    let gristmills = json!({"rewards": [0.9], "results": [{"outcome": "wrong", "reason": "not_equal"}]});
    assert_eq!(scored(wide(), gristmills), (Outcome::Wrong, Some(0.9), "server_wrong"));
}

#[test]
fn a_server_that_is_down_or_talks_nonsense_never_scores_and_says_what_to_do() {
    let told = |rule: HttpRule| {
        let verdicts = rule.check_batch(&[sample("a"), sample("b")]);
        assert!(verdicts.iter().all(|verdict| verdict.score.is_none()), "{verdicts:?}");
        (verdicts[0].reason, verdicts[0].evidence[0].1.clone())
    };
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (reason, error) = told(rule(format!("http://{gone}/score")));
    assert_eq!(reason, "server_unavailable");
    assert!(error.contains("refused") && error.ends_with("is the server of `endpoint` running?"), "{error}");
    for (reply, reason, says) in [
        (rewards(json!([1.0])), "server_wrong_count", "`rewards` has 1 entries for 2 rows"),
        (rewards(json!([1, 1, 1])), "server_wrong_count", "give one for each row, in order"),
        ((200, "{\"rewards\": [NaN, 1]}".into()), "server_reply_unread", "NaN is no JSON, send null"),
        ((200, "{\"scores\": [1, 1]}".into()), "server_reply_unread", "{\"rewards\": […]}"),
        ((200, "hello".into()), "server_reply_unread", "number or null for each row"),
        ((404, "no such path".into()), "server_refused", "with its path?"),
    ] {
        let (url, seen) = server(move |_, _| reply.clone());
        let (got, error) = told(rule(url));
        assert_eq!(got, reason);
        assert!(error.contains(says), "{reason}: {error}");
        assert_eq!(seen.requests.load(Ordering::SeqCst), 1, "{reason}: asking again would not help");
    }
    let (url, seen) = server(|call, rows| if call == 0 { (503, "busy".into()) } else { rewards(vec![1; rows.len()]) });
    assert_eq!(rule(url).check(&sample("a")).score, Some(1.0));
    assert_eq!(seen.requests.load(Ordering::SeqCst), 2, "a busy server is asked again");
    let (url, _) = server(|_, _| {
        std::thread::sleep(std::time::Duration::from_secs(3));
        rewards(json!([1]))
    });
    let slow = HttpRule::new(HttpConfig { timeout_seconds: 0.3, retries: 0, ..config(url) }).unwrap();
    assert_eq!(slow.check(&sample("a")).reason, "server_unavailable");
}

#[test]
fn what_was_answered_is_not_asked_again_until_the_version_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (url, seen) = server(|_, rows| {
        rewards(rows.iter().map(|row| json!((row["completion"] != "?").then_some(0.1 + 0.2))).collect::<Vec<_>>())
    });
    let kept = |version: &str| HttpConfig {
        cache: Some(folder.path().display().to_string()),
        version: version.into(),
        ..config(url.clone())
    };
    let rows = || seen.sizes.lock().unwrap().iter().sum::<usize>();
    let samples = [sample("a"), sample("?"), sample("a"), sample("b")];
    let first = HttpRule::new(kept("")).unwrap().check_batch(&samples);
    assert_eq!((first[0].score, first[1].score, first[3].score), (Some(0.1 + 0.2), None, Some(0.1 + 0.2)));
    assert_eq!(rows(), 3, "the same row is asked once");
    let again = HttpRule::new(kept("")).unwrap().check_batch(&samples);
    assert_eq!((again, rows()), (first.clone(), 4), "but for what could not be told, another process asks nothing");
    assert_eq!(HttpRule::new(kept("2")).unwrap().check_batch(&samples), first);
    assert_eq!(rows(), 7);
}

#[test]
fn faulty_parameters_are_errors_at_their_place() {
    let refused = |line: &str| match RuleSet::parse(&format!("[rules.a]\nkind = \"http\"\n{line}\n"), "r") {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{line} is taken"),
    };
    assert!(refused("endpoint = \"127.0.0.1:9000\"").contains("is not an http URL"));
    assert!(refused("min = 1.0").contains("`min` must be below `max`"));
    assert!(refused("pass = 2.0").contains("`pass` must be between"));
    assert!(refused("batch = 0").contains("`batch` must be between 1 and 4096"));
    assert!(refused("parallel = 0").contains("`parallel` must be between 1 and 1024"));
    assert!(refused("columns = [\"gold\"]").contains("every row has `gold`"));
    assert!(refused("timeout_seconds = 0").contains("timeout_seconds"));
}
