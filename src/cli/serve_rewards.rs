//! `gristmill serve-rewards`: the rules over HTTP, for trainers that call a reward function.
//!
//! `README.md` has the functions that TRL and verl call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::rows::{Fields, Row, Unfit};
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
    /// Places in the queue.
    places: Arc<Semaphore>,
    told: Mutex<Told>,
}

/// Rows after which a rule that could tell on none is told of.
const TOLD_AFTER: u64 = 16;

impl Server {
    fn new(rules: RuleSet, queue: usize) -> Self {
        Server { rules, places: Arc::new(Semaphore::new(queue)), told: Mutex::default() }
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
async fn score(State(server): State<Arc<Server>>, body: std::result::Result<Json<Value>, JsonRejection>) -> Response {
    let Ok(place) = server.places.clone().try_acquire_owned() else {
        let reply = refused(StatusCode::SERVICE_UNAVAILABLE, "the queue is full, try again");
        return ([(RETRY_AFTER, "1")], reply).into_response();
    };
    let Json(mut body) = match body {
        Ok(body) => body,
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let rows: Vec<Value> = match body.get_mut("rows").map(Value::take).map(serde_json::from_value) {
        Some(Ok(rows)) => rows,
        _ => return refused(StatusCode::BAD_REQUEST, "the body is {\"rows\": [{\"completion\": …, \"gold\": …}, …]}"),
    };
    // A row that cannot be judged is no reason to leave its batch without rewards.
    let (mut fields, mut results) = (Vec::new(), Vec::with_capacity(rows.len()));
    for (index, row) in rows.iter().enumerate() {
        let not_json = || Unfit { reason: "not_json", column: "", message: "a row is no JSON object".to_owned() };
        match row.as_object().ok_or_else(not_json).and_then(Fields::of) {
            Ok(row) => {
                fields.push(row);
                results.push(Value::Null);
            }
            Err(unfit) => results.push(bad_row(index, &unfit)),
        }
    }
    let judged = tokio::task::spawn_blocking(move || {
        let judged = super::score::judge(&server.rules, &fields);
        server.tell(&judged);
        drop(place);
        judged
    });
    let Ok(judged) = judged.await else {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, "the rules failed on these rows");
    };
    for (result, judgement) in results.iter_mut().filter(|result| result.is_null()).zip(judged) {
        *result = judged_row(judgement);
    }
    let rewards: Vec<&Value> = results.iter().map(|result| &result["reward"]).collect();
    Json(json!({"rewards": rewards, "results": results})).into_response()
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

    fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses a large body may close before reading all of it.
        let _ = stream.write_all(body.as_bytes());
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let json =
            text.split_once("\r\n\r\n").map_or(Value::Null, |(_, body)| serde_json::from_str(body).unwrap_or_default());
        (status, json)
    }

    #[test]
    fn trainers_get_rewards_in_order_and_bad_requests_get_reasons() {
        let rules = RuleSet::parse("[rules.a]\nkind = \"exact\"\n", "r").unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router(rules, 4, 4096)).await });
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

    #[tokio::test]
    async fn a_full_queue_says_when_to_ask_again() {
        let rules = RuleSet::parse("[rules.a]\nkind = \"exact\"\n", "r").unwrap();
        let server = Arc::new(Server::new(rules, 0));
        let reply = score(State(server), Ok(Json(json!({"rows": []})))).await;
        assert_eq!((reply.status().as_u16(), reply.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    }
}
