//! Flows between MQTT, the log and the documents: routes, delivers, sinks.
