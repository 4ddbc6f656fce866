//! What `serve` says once it is ready: one block, on standard error.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::{Config, Durability};

/// The doors that this version can open.
pub(crate) const BUILT: [&str; 7] = ["tcp", "tls", "ws", "wss", "quic", "kafka", "http"];

/// The whole block, with a last line break. `ca` is the file with the development CA, where one is used.
pub(crate) fn text(
    config: &Config,
    dir: &Path,
    doors: &[(&'static str, SocketAddr)],
    ca: Option<&Path>,
) -> String {
    let mut block = format!("headwater {}\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, value: &str| {
        writeln!(block, "  {name:<14}{value}").ok();
    };
    for (door, address) in doors {
        let shown = match *door {
            "tcp" => format!("mqtt://{address}"),
            "tls" => format!("mqtts://{address}"),
            "ws" => format!("ws://{address}{}", config.listeners.ws.path()),
            "wss" => format!("wss://{address}{}", config.listeners.wss.path()),
            "quic" => format!("mqtt over QUIC, udp {address}"),
            "http" => format!("http://{address}"),
            _ => address.to_string(),
        };
        line(door, &shown);
    }
    if let Some(ca) = ca {
        let shown = ca.display();
        line(
            "certificate",
            &format!("self-made, for this computer only; clients trust {shown}"),
        );
    }
    line("data", &dir.display().to_string());
    let bytes = config
        .log
        .retention_bytes
        .map_or("no limit of size".to_owned(), |size| {
            format!("{size} a partition")
        });
    let kept = format!(
        "records {} and {bytes}; documents {}",
        config.log.retention_ms, config.store.retention
    );
    line("keeps", &kept);
    match config.durability {
        Durability::Sync => line(
            "durability",
            "sync: what is acknowledged is on this disk, one copy",
        ),
        other => line(
            "durability",
            &format!("{}: A POWER CUT LOSES ACKNOWLEDGED MESSAGES", other.name()),
        ),
    }
    let unbuilt: Vec<&str> = (config.listeners.all().into_iter())
        .filter(|(name, _, listener)| listener.enabled && !BUILT.contains(name))
        .map(|(name, _, _)| name)
        .collect();
    if !unbuilt.is_empty() {
        line("not built yet", &unbuilt.join(", "));
    }
    let open: Vec<String> = (doors.iter())
        .filter(|(_, address)| !address.ip().is_loopback())
        .map(|(name, address)| format!("{name} on {address}"))
        .collect();
    if open.is_empty() {
        line(
            "not protected",
            "every user of this computer may read and write over MQTT and Kafka",
        );
    } else {
        let sentence = format!("ANYONE WHO REACHES {} MAY READ AND WRITE", open.join(", "));
        line("not protected", &sentence);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_names_doors_data_limits_and_what_is_open() {
        let doors = [("tcp", "127.0.0.1:1883".parse().unwrap())];
        let shown = text(
            &Config::default(),
            Path::new("/d"),
            &doors,
            Some(Path::new("/d/tls/ca.pem")),
        );
        for part in [
            "mqtt://127.0.0.1:1883",
            "/d",
            "7 days",
            "30 days",
            "/d/tls/ca.pem",
            "not built yet https",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(shown.contains("every user of this computer"));
        let doors = [("tcp", "0.0.0.0:1883".parse().unwrap())];
        let config = Config {
            durability: Durability::Os,
            ..Config::default()
        };
        let shown = text(&config, Path::new("/d"), &doors, None);
        assert!(
            shown.contains("ANYONE WHO REACHES tcp on 0.0.0.0:1883"),
            "{shown}"
        );
        assert!(shown.contains("A POWER CUT LOSES"), "{shown}");
    }
}
