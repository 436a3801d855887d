//! `gristmill serve-rewards`: the rules over HTTP, for trainers that call a reward function.
//!
//! TRL's `GRPOTrainer` takes functions; this one asks the server:
//!
//! ```python
//! import requests
//! def gristmill(prompts, completions, gold, **_):
//!     text = lambda x: x if isinstance(x, str) else x[-1]["content"]
//!     rows = [{"prompt": text(p), "completion": text(c), "gold": g}
//!             for p, c, g in zip(prompts, completions, gold)]
//!     reply = requests.post("http://127.0.0.1:8090/score", json={"rows": rows}, timeout=600)
//!     reply.raise_for_status()
//!     return reply.json()["rewards"]        # None where the rules cannot tell
//! GRPOTrainer(..., reward_funcs=[gristmill])
//! ```
//!
//! verl calls a `compute_score` of a file named by `custom_reward_function.path`:
//!
//! ```python
//! import requests
//! def compute_score(data_source, solution_str, ground_truth, extra_info=None):
//!     row = {"completion": solution_str, "gold": ground_truth, **(extra_info or {})}
//!     reply = requests.post("http://127.0.0.1:8090/score", json={"rows": [row]}, timeout=600)
//!     reply.raise_for_status()
//!     return reply.json()["rewards"][0] or 0.0
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::rows::{Fields, Row};
use crate::error::{Context, Error, Result};
use crate::rule::RuleSet;

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
    /// Requests judged or waiting at once; more are answered 503
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub queue: usize,
}

struct Server {
    rules: RuleSet,
    /// Places in the queue.
    places: Arc<Semaphore>,
}

/// Runs the command until it is interrupted.
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
            // Without a signal handler the server would run on: then stop at once.
            let _ = tokio::signal::ctrl_c().await;
        };
        axum::serve(listener, app).with_graceful_shutdown(stop).await.or_fail(|| "the server failed".into())
    })
}

/// The routes: `POST /score`, `GET /health`, `GET /rules`.
pub fn router(rules: RuleSet, queue: usize, max_body: usize) -> Router {
    let server = Arc::new(Server { rules, places: Arc::new(Semaphore::new(queue)) });
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
        return refused(StatusCode::SERVICE_UNAVAILABLE, "the queue is full, try again");
    };
    let Json(mut body) = match body {
        Ok(body) => body,
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let rows: Vec<Row> = match body.get_mut("rows").map(Value::take).map(serde_json::from_value) {
        Some(Ok(rows)) => rows,
        _ => return refused(StatusCode::BAD_REQUEST, "the body is {\"rows\": [{\"completion\": …, \"gold\": …}, …]}"),
    };
    let mut fields = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        match Fields::of(row) {
            Ok(row) => fields.push(row),
            Err(unfit) => return refused(StatusCode::BAD_REQUEST, format!("row {index}: {}", unfit.message)),
        }
    }
    let judged = tokio::task::spawn_blocking(move || {
        let samples: Vec<_> = fields.iter().map(Fields::sample).collect();
        let judged = server.rules.judge_batch(&samples);
        drop(place);
        judged
    });
    let Ok(judged) = judged.await else {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, "the rules failed on these rows");
    };
    let rewards: Vec<Option<f64>> = judged.iter().map(|judgement| judgement.reward).collect();
    let results: Vec<Value> = judged
        .into_iter()
        .map(|judgement| {
            let (outcome, reason) = (judgement.outcome, judgement.reason.clone());
            let mut row = Row::new();
            super::score::add(&mut row, judgement);
            row.insert("outcome".into(), json!(outcome));
            row.insert("reason".into(), reason.into());
            Value::Object(row)
        })
        .collect();
    Json(json!({"rewards": rewards, "results": results})).into_response()
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
        let rows = r#"{"rows": [{"completion": "4", "gold": "4"}, {"completion": [{"role": "assistant", "content": "5"}], "gold": "4"}, {"completion": "4"}]}"#;
        let (status, reply) = call(address, "POST", "/score", rows);
        assert_eq!((status, &reply["rewards"]), (200, &json!([1.0, 0.0, null])));
        assert_eq!(reply["results"][2]["reason"], "gold_missing");
        assert_eq!(call(address, "GET", "/health", "").0, 200);
        assert_eq!(call(address, "GET", "/rules", "").1["rules"][0]["kind"], "exact");
        for (body, wanted) in [("{", 400), ("{}", 400), ("{\"rows\": [{}]}", 400), (&"x".repeat(9000), 413)] {
            let (status, reply) = call(address, "POST", "/score", body);
            assert_eq!(status, wanted, "{reply}");
        }
    }
}
