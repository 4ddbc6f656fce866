//! What the MQTT broker decides, without sockets, clocks or disk.
