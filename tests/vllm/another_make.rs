//! A server of another make (`transformers serve`): no token ids, no list of models, unknown keys refused.

use std::process::{Child, Command, Stdio};

use gristmill::engine::vllm::VllmConfig;

use super::{Models, Rows, collect, config, connect, environment, requests};

/// A child process that ends with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_server_of_another_make_answers() {
    let Some(environment) = environment() else { return };
    let folder = tempfile::tempdir().unwrap();
    let models = Models::make(&environment, folder.path());
    let model = models.trained.display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::create_dir_all(folder.path().join("hf/hub")).unwrap();
    let server = Command::new(environment.join("bin/transformers"))
        .args(["serve", &model, "--device", "cpu", "--port", &port.to_string()])
        .env("HF_HOME", folder.path().join("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
        .spawn();
    let _server = Served(server.expect("the environment has `transformers`"));

    let chat = VllmConfig {
        endpoints: vec![format!("http://127.0.0.1:{port}")],
        model,
        startup_timeout_s: 600.0,
        // It seeds torch as a whole for each request, so its seeds hold for one at a time only.
        max_concurrency: 1,
        ..VllmConfig::default()
    };
    let plain = config(&[]);
    let completions = VllmConfig { api: plain.api, template: plain.template, ..chat.clone() };
    let streamed = VllmConfig { stream: true, ..chat.clone() };
    for config in [chat, completions, streamed] {
        let engine = connect(config);
        let rows = collect(&engine, requests(3, 1.0, 8));
        assert_eq!(rows.len(), 12);
        for row in rows.values() {
            assert!(row.text.is_some() && row.completion_tokens.is_some(), "{:?}", row.error);
        }
        let texts = |rows: &Rows| rows.values().map(|r| r.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&collect(&engine, requests(3, 1.0, 8))), texts(&rows), "seeds reproduce");
    }
}
