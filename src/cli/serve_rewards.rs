//! `gristmill serve-rewards`: the rules over HTTP, for trainers that call a reward function.
//!
//! `rules/README.md` has the functions that TRL and verl call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, RequestExt, Router};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::rows::{self, Fields, Row, Unfit, raw};
use super::told::Told;
use crate::error::{Context, Error, Result};
use crate::rule::{Judgement, RuleSet};
use crate::schema::Outcome;

/// Serve a rule file to trainers over HTTP.
#[derive(clap::Args, Debug)]
pub struct ServeRewardsArgs {
    /// Rule file, or the name of a built-in one
    #[arg(long, value_name = "RULES")]
    pub rules: String,
    /// Address to listen at; anything but a loopback address is open to the network
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub listen: SocketAddr,
    /// Largest request body, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub max_body: usize,
    /// Requests judged or waiting at once; more are answered 503, to be sent again
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub queue: usize,
}

struct Server {
    rules: RuleSet,
    /// Columns that rules read beside the usual ones.
    columns: Vec<String>,
    /// Places in the queue.
    places: Arc<Semaphore>,
    told: Mutex<Told>,
}

/// A rule is warned about once it has decided none of this many rows.
const TOLD_AFTER: u64 = 16;

impl Server {
    fn new(rules: RuleSet, queue: usize) -> Self {
        let columns = rules.columns();
        Server { rules, columns, places: Arc::new(Semaphore::new(queue)), told: Mutex::default() }
    }

    /// Says once which rules decide nothing on what trainers send.
    fn tell(&self, judged: &[Judgement]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        judged.iter().for_each(|judgement| told.count(judgement));
        for warning in told.warnings(TOLD_AFTER) {
            errln!("warning: {warning}");
        }
    }
}

/// Runs the command until it is interrupted (Ctrl-C or SIGTERM); what is in flight then is still answered.
///
/// # Errors
/// A faulty rule file, an address that is taken.
pub fn run(args: ServeRewardsArgs) -> Result<()> {
    let rules = RuleSet::load(&args.rules)?;
    rules.ensure_ready()?;
    if args.queue == 0 || args.max_body == 0 {
        return Err(Error::usage("--queue and --max-body must be at least 1"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .or_fail(|| "cannot start the server's threads".into())?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(|error| {
            Error::new(format!("cannot listen at {}", args.listen))
                .caused_by(error)
                .hint("--listen 127.0.0.1:0 takes any free port")
        })?;
        let address = listener.local_addr().or_fail(|| "the server has no address".into())?;
        errln!("serving the rules of {} at http://{address}/score", rules.name());
        if !address.ip().is_loopback() {
            errln!("warning: this address is open to the network, and the server asks no one for a password");
        }
        let app = router(rules, args.queue, args.max_body << 20);
        let stop = async {
            super::wait_for_signal().await;
            errln!("stopping: answering what is in flight (once more ends at once)");
            tokio::spawn(async {
                super::wait_for_signal().await;
                std::process::exit(130);
            });
        };
        axum::serve(listener, app).with_graceful_shutdown(stop).await.or_fail(|| "the server failed".into())
    })
}

/// The routes: `POST /score`, `GET /health`, `GET /rules`.
pub fn router(rules: RuleSet, queue: usize, max_body: usize) -> Router {
    let server = Arc::new(Server::new(rules, queue));
    Router::new()
        .route("/score", post(score))
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/rules", get(about))
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(server)
}

async fn about(State(server): State<Arc<Server>>) -> Json<Value> {
    let rules: Vec<Value> = server.rules.rules().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
    Json(json!({"name": server.rules.name(), "digest": server.rules.digest(), "rules": rules}))
}

fn refused(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({"error": message.into()}))).into_response()
}

/// `{"rows": [{"completion": …, "gold": …}]}` to `{"rewards": […], "results": […]}`, in order.
async fn score(State(server): State<Arc<Server>>, request: Request) -> Response {
    // Before the body is read: the queue bounds what is held in memory, too.
    let Ok(place) = server.places.clone().try_acquire_owned() else {
        return turned_away(request).await;
    };
    if !is_json(&request) {
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is to be JSON: `content-type: application/json`");
    }
    let body = match Bytes::from_request(request, &server).await {
        Ok(body) => body,
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let work = tokio::task::spawn_blocking(move || {
        let reply = match judge(&server, &body) {
            Ok(reply) => Json(reply).into_response(),
            Err(message) => refused(StatusCode::BAD_REQUEST, message),
        };
        drop(place);
        reply
    });
    work.await.unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "the rules failed on these rows"))
}

/// The answer to a request for which there is no place. Many clients look for one only when all of the body is sent: it
/// is taken off the line, and not kept.
async fn turned_away(request: Request) -> Response {
    let mut body = request.into_limited_body().into_data_stream();
    while let Some(Ok(_)) = body.next().await {}
    let reply = refused(StatusCode::SERVICE_UNAVAILABLE, "the queue is full, try again");
    ([(RETRY_AFTER, "1")], reply).into_response()
}

/// Pages of other sites cannot send this type unasked.
fn is_json(request: &Request) -> bool {
    let said = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    said == "application/json" || said.starts_with("application/") && said.ends_with("+json")
}

/// What is asked. Rows stay text, since a number that passes through a float comes out as another one.
#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    rows: Vec<&'a RawValue>,
}

/// Judges the rows of a body.
///
/// # Errors
/// What is wrong with the body as a whole. A row that cannot be judged is no reason to leave its batch without rewards.
fn judge(server: &Server, body: &[u8]) -> std::result::Result<Value, String> {
    let body = std::str::from_utf8(body).map_err(|error| format!("the body is not UTF-8: {error}"))?;
    let cleaned;
    let asked: Asked<'_> = match serde_json::from_str(body) {
        Ok(asked) => asked,
        Err(error) if error.is_data() => {
            return Err("the body is {\"rows\": [{\"completion\": …, \"gold\": …}, …]}".to_owned());
        }
        // As `score` reads rows that Python wrote.
        Err(error) => {
            cleaned = raw::without_oddities(body);
            serde_json::from_str(&cleaned).map_err(|_| format!("the body is not JSON: {error}"))?
        }
    };
    let read: Vec<std::result::Result<Fields, Unfit>> =
        asked.rows.iter().map(|row| fields(row.get(), &server.columns)).collect();
    let (mut good, mut results) = (Vec::new(), Vec::with_capacity(read.len()));
    for (index, row) in read.into_iter().enumerate() {
        match row {
            Ok(row) => {
                good.push(row);
                results.push(Value::Null);
            }
            Err(unfit) => results.push(bad_row(index, &unfit)),
        }
    }
    let judged = super::score::judge(&server.rules, &good);
    server.tell(&judged);
    for (result, judgement) in results.iter_mut().filter(|result| result.is_null()).zip(judged) {
        *result = judged_row(judgement);
    }
    let rewards: Vec<&Value> = results.iter().map(|result| &result["reward"]).collect();
    Ok(json!({"rewards": rewards, "results": results}))
}

fn fields(text: &str, columns: &[String]) -> std::result::Result<Fields, Unfit> {
    let row = rows::row(text.as_bytes()).map_err(|error| Unfit {
        reason: "not_json",
        column: "",
        message: format!("a row is no JSON object: {error}"),
    })?;
    Ok(Fields::of(&row)?.with(&row, columns))
}

fn judged_row(judgement: Judgement) -> Value {
    let (outcome, reason) = (judgement.outcome, judgement.reason.clone());
    let mut row = Row::new();
    super::score::add(&mut row, judgement);
    row.insert("outcome".into(), json!(outcome));
    row.insert("reason".into(), reason.into());
    Value::Object(row)
}

/// As `score --bad-rows mark` writes such a row.
fn bad_row(index: usize, unfit: &Unfit) -> Value {
    let verdicts = super::score::bad_verdicts(unfit.reason, &format!("{} (row {index})", unfit.message));
    json!({"reward": null, "verdicts": verdicts, "outcome": Outcome::CannotTell, "reason": unfit.reason})
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Begins a request whose body has this length.
    fn begin(address: SocketAddr, method: &str, path: &str, length: usize) -> std::net::TcpStream {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// Status, head and body of the answer.
    fn reply(mut stream: std::net::TcpStream) -> (u16, String, Value) {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        (status, head.to_owned(), serde_json::from_str(body).unwrap_or_default())
    }

    fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = begin(address, method, path, body.len());
        // A server that refuses a large body may close before reading all of it.
        let _ = stream.write_all(body.as_bytes());
        let (status, _, json) = reply(stream);
        (status, json)
    }

    /// A server that lives as long as the runtime, and its address.
    fn serve(queue: usize, max_body: usize) -> (tokio::runtime::Runtime, SocketAddr) {
        let rules = RuleSet::parse("[rules.a]\nkind = \"exact\"\n", "r").unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router(rules, queue, max_body)).await });
        (runtime, address)
    }

    #[test]
    fn trainers_get_rewards_in_order_and_bad_requests_get_reasons() {
        let (_runtime, address) = serve(4, 4096);
        let rows = r#"{"rows": [{"completion": "4", "gold": "4"}, {"completion": [{"role": "assistant", "content": "5"}], "gold": "4"}, {"completion": "4"}, {"completion": null, "gold": "4"}, 7, {"completion": "4", "gold": "4"}]}"#;
        let (status, reply) = call(address, "POST", "/score", rows);
        assert_eq!((status, &reply["rewards"]), (200, &json!([1.0, 0.0, null, null, null, 1.0])));
        let results = &reply["results"];
        assert_eq!(results[2]["reason"], "gold_missing");
        assert_eq!((&results[3]["reason"], &results[4]["reason"]), (&json!("no_completion"), &json!("not_json")));
        assert_eq!(results[3]["verdicts"]["row"]["evidence"]["error"], "a row has no completion (row 3)");
        assert_eq!(call(address, "GET", "/health", "").0, 200);
        assert_eq!(call(address, "GET", "/rules", "").1["rules"][0]["kind"], "exact");
        for (body, wanted) in [("{", 400), ("{}", 400), ("{\"rows\": 7}", 400), (&"x".repeat(9000), 413)] {
            let (status, reply) = call(address, "POST", "/score", body);
            assert_eq!(status, wanted, "{reply}");
        }
    }

    #[test]
    fn numbers_are_graded_as_they_were_written_and_one_that_is_none_costs_no_batch() {
        let (_runtime, address) = serve(4, 4096);
        let big = "123456789012345678901234567890";
        let rows = format!(
            r#"{{"rows": [{{"completion": "{big}", "gold": {big}}}, {{"completion": "1.10", "gold": 1.10}},
                {{"completion": "4", "gold": "4", "difficulty": NaN}}]}}"#
        );
        let (status, reply) = call(address, "POST", "/score", &rows);
        assert_eq!((status, &reply["rewards"]), (200, &json!([1.0, 1.0, 1.0])), "{reply}");
    }

    #[test]
    fn a_request_has_its_place_before_its_body_is_read() {
        let (_runtime, address) = serve(1, 4096);
        let body = r#"{"rows": [{"completion": "4", "gold": "4"}]}"#;
        let asked = std::time::Instant::now();
        // Which of the two the server sees first is its own affair: asked again until it is the first.
        let (mut first, head, told) = loop {
            let first = begin(address, "POST", "/score", body.len());
            let mut second = begin(address, "POST", "/score", body.len());
            second.write_all(body.as_bytes()).unwrap();
            let (status, head, told) = reply(second);
            if status == 503 {
                break (first, head, told);
            }
            assert!(asked.elapsed().as_secs() < 20, "{status}: a body that has not come holds no place");
        };
        assert!(head.to_ascii_lowercase().contains("retry-after: 1"), "{head}");
        assert_eq!(told["error"], "the queue is full, try again");
        first.write_all(body.as_bytes()).unwrap();
        assert_eq!(reply(first).2["rewards"], json!([1.0]));
    }
}
