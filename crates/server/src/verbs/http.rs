//! How a verb reaches the running system: HTTP on 18083 with the key that lies in DIR.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body, RequestBuilder};

use crate::cli::Target;
use crate::data_dir;

const DEFAULT_URL: &str = "http://127.0.0.1:18083";
/// Longest wait for the first byte of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A running system.
pub(crate) struct Remote {
    agent: Agent,
    base: String,
    authorization: String,
}

impl Remote {
    /// Finds URL and key. Does not connect yet.
    pub(crate) fn new(target: &Target) -> anyhow::Result<Self> {
        let base = target
            .url
            .as_deref()
            .unwrap_or(DEFAULT_URL)
            .trim_end_matches('/');
        if !base.starts_with("http://") {
            bail!("--url {base}: this verb wants http://HOST:PORT, such as {DEFAULT_URL}");
        }
        let dir = data_dir::locate(target.data_dir.as_deref())?;
        let key = data_dir::read_key(&dir)?;
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .build()
            .into();
        Ok(Self {
            agent,
            base: base.to_owned(),
            authorization: format!("Bearer {key}"),
        })
    }

    fn with_key<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        request.header("Authorization", &self.authorization)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v5{path}", self.base)
    }

    fn answered(
        &self,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> anyhow::Result<Response<Body>> {
        let mut response = sent.with_context(|| {
            format!(
                "no system answers at {}; is it running? (headwater serve)",
                self.base
            )
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let sentence = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|error| Some(error.get("message")?.as_str()?.to_owned()))
            .unwrap_or(text);
        bail!("{sentence} (HTTP {})", status.as_u16());
    }

    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        let sent = self.with_key(self.agent.get(self.url(path))).call();
        Ok(self.answered(sent)?.body_mut().read_json()?)
    }

    pub(crate) fn delete(&self, path: &str) -> anyhow::Result<()> {
        let sent = self.with_key(self.agent.delete(self.url(path))).call();
        self.answered(sent).map(drop)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let sent = self
            .with_key(self.agent.post(self.url(path)))
            .send_json(body);
        Ok(self.answered(sent)?.body_mut().read_json()?)
    }

    /// Posts `body` and hands over the answer line by line, however long it is.
    pub(crate) fn post_lines(
        &self,
        path: &str,
        body: &Value,
        mut line: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let request = self.with_key(self.agent.post(self.url(path)));
        let sent = request
            .header("Accept", "application/x-ndjson")
            .send_json(body);
        let reader = BufReader::new(self.answered(sent)?.into_body().into_reader());
        for text in reader.lines() {
            line(&text.context("the answer broke off")?)?;
        }
        Ok(())
    }
}

/// One segment of a path, with everything escaped that is not plain.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_escaped() {
        assert_eq!(segment("a.b-c_D9"), "a.b-c_D9");
        assert_eq!(segment("a/b ?ä"), "a%2Fb%20%3F%C3%A4");
    }
}
