//! The server's numbers: `GET /metrics`, one sample at a time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::program::Setup;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(String);

impl Metrics {
    pub fn read(setup: &Setup) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&setup.http, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: proof\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(
            answer.starts_with("HTTP/1.1 200"),
            "GET /metrics: {}",
            answer.lines().next().unwrap_or_default()
        );
        Ok(Self(answer))
    }

    /// A sample by its name, with its labels as they are written.
    pub fn value(&self, name: &str) -> anyhow::Result<u64> {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("there is no {name}"))?;
        Ok(value.trim().parse()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_found_by_its_whole_name() {
        let metrics = Metrics("a_total 1\na{x=\"y\"} 2\na 3\n".to_owned());
        assert_eq!(metrics.value("a").unwrap(), 3);
        assert_eq!(metrics.value("a{x=\"y\"}").unwrap(), 2);
        assert!(metrics.value("b").is_err());
    }
}
