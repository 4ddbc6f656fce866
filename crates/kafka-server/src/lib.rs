//! Kafka's protocol over the commit log.
