//! SIGHUP: reads the configuration again and swaps the flows and the permissions, all or nothing.

use bytes::Bytes;
use headwater_commitlog::{Log, TableChange, TableId, Unit};
use tracing::{error, info, warn};

use crate::config::{Config, Sources, load};
use crate::flows::Current;
use crate::flows::delivers::beginnings;
use crate::mqtt::wall_ms;
use crate::permissions::Permissions;

/// The row that says at which commit the flows were last swapped.
const ROW: &[u8] = b"\0flows-reloaded";

/// True when the new flows stand. What else changed needs a restart and is named.
pub(crate) fn reload(
    running: &Config,
    sources: &Sources,
    log: &Log,
    flows: &Current,
    permissions: &Permissions,
) -> bool {
    let loaded = match load(sources) {
        Ok(loaded) => loaded,
        Err(refused) => {
            error!("the configuration is refused, what runs goes on:\n{refused}");
            return false;
        }
    };
    let mut same = loaded.config.clone();
    same.default_flows = running.default_flows;
    (same.route, same.deliver, same.sink) = (
        running.route.clone(),
        running.deliver.clone(),
        running.sink.clone(),
    );
    same.permission = running.permission.clone();
    if same != *running {
        warn!("settings other than flows and permissions have changed; they need a restart");
    }
    // The row is the position: what the new flows shape lies behind it. New delivers begin there.
    let mut tables = beginnings(log, &loaded.flows);
    tables.push(TableChange {
        table: TableId::CURSORS,
        key: Bytes::from_static(ROW),
        value: Some(Bytes::copy_from_slice(&wall_ms().to_be_bytes())),
    });
    match log.commit(Unit {
        tables,
        ..Unit::default()
    }) {
        Ok(receipt) => {
            permissions.swap(loaded.config.permission);
            flows.swap(loaded.flows);
            info!(
                commit = receipt.sequence,
                "the flows and permissions were swapped"
            );
            true
        }
        Err(refused) => {
            error!(%refused, "the position of the swap could not be written down; what runs goes on");
            false
        }
    }
}
