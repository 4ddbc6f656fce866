//! The HTTP door: health, metrics, documents and the log over JSON.
