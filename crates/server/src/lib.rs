//! Headwater: configuration, listeners, wiring and the command line.
