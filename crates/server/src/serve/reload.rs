//! SIGHUP: reads the configuration again and swaps the flows, all or nothing.

use bytes::Bytes;
use headwater_commitlog::{Log, TableChange, TableId, Unit};
use tracing::{error, info, warn};

use crate::config::{Config, Sources, load};
use crate::flows::Current;
use crate::mqtt::wall_ms;

/// The row that says at which commit the flows were last swapped.
const ROW: &[u8] = b"\0flows-reloaded";

/// True when the new flows stand. What else changed needs a restart and is named.
pub(crate) fn reload(running: &Config, sources: &Sources, log: &Log, flows: &Current) -> bool {
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
    if same != *running {
        warn!("settings other than the flows have changed; they need a restart");
    }
    // The row is the position: what the log holds before it was shaped by the old flows.
    let row = TableChange {
        table: TableId::CURSORS,
        key: Bytes::from_static(ROW),
        value: Some(Bytes::copy_from_slice(&wall_ms().to_be_bytes())),
    };
    flows.swap(loaded.flows);
    match log.commit(Unit {
        tables: vec![row],
        ..Unit::default()
    }) {
        Ok(receipt) => {
            info!(commit = receipt.sequence, "the flows were swapped");
            true
        }
        Err(refused) => {
            error!(%refused, "the flows were swapped, and the position could not be written down");
            false
        }
    }
}
