//! Serves one directory's log to Kafka clients: `kafka_only DIR [ADDRESS]`. Prints the address it
//! listens on; ends with Ctrl-C. For trying clients against this crate alone.

use std::sync::Arc;

use anyhow::Context;
use headwater_commitlog::{Log, fs::RealFs};
use headwater_kafka_server::{Alone, KafkaServer, Options};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .init();
    let mut arguments = std::env::args().skip(1);
    let dir = arguments
        .next()
        .context("usage: kafka_only DIR [ADDRESS]")?;
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:9092".to_owned());

    let log = Log::open(Arc::new(RealFs), headwater_commitlog::Options::new(dir))?;
    let host = Arc::new(Alone(log.clone()));
    let server = KafkaServer::new(log.clone(), Options::default(), host)?;
    log.on_advance(server.advanced_hook());
    log.on_failure(Box::new(|reason| {
        eprintln!("the log failed: {reason}");
        std::process::exit(1);
    }));

    let listener = TcpListener::bind(&address).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server.serve(listener, stopped));
    tokio::signal::ctrl_c().await?;
    stop.send_replace(true);
    serving.await?;
    log.close()?;
    Ok(())
}
