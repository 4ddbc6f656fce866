//! One write-ahead log, topic partitions, tables and their recovery.
