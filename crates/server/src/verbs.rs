//! The verbs of the command line besides `serve`.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod doc;
mod http;
pub(crate) mod log;
mod mqtt_client;
pub(crate) mod publish;
pub(crate) mod subscribe;
