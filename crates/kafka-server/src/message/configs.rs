//! Configuration: DescribeConfigs (32), IncrementalAlterConfigs (44).

use super::message;
use crate::error_code::ErrorCode;
use crate::wire::Text;

message! {
    struct DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource> [0..],
        include_synonyms: bool [1..],
        include_documentation: bool [3..],
    }

    struct DescribeConfigsResource {
        resource_type: i8 [0..],
        name: Text [0..],
        /// `None` asks for all.
        keys: Option<Vec<Text>> [0..],
    }

    struct DescribeConfigsResponse {
        throttle_time_ms: i32 [0..],
        results: Vec<DescribedConfigs> [0..],
    }

    struct DescribedConfigs {
        error: ErrorCode [0..],
        error_message: Option<Text> [0..],
        resource_type: i8 [0..],
        name: Text [0..],
        configs: Vec<DescribedConfig> [0..],
    }

    struct DescribedConfig {
        name: Text [0..],
        value: Option<Text> [0..],
        read_only: bool [0..],
        source: i8 [1..] = -1,
        is_sensitive: bool [0..],
        synonyms: Vec<ConfigSynonym> [1..],
        kind: i8 [3..],
        documentation: Option<Text> [3..],
    }

    struct ConfigSynonym {
        name: Text [1..],
        value: Option<Text> [1..],
        source: i8 [1..],
    }

    struct IncrementalAlterConfigsRequest {
        resources: Vec<AlterConfigsResource> [0..],
        validate_only: bool [0..],
    }

    struct AlterConfigsResource {
        resource_type: i8 [0..],
        name: Text [0..],
        configs: Vec<AlterableConfig> [0..],
    }

    struct AlterableConfig {
        name: Text [0..],
        /// 0 set, 1 delete, 2 append, 3 subtract.
        operation: i8 [0..],
        value: Option<Text> [0..],
    }

    struct IncrementalAlterConfigsResponse {
        throttle_time_ms: i32 [0..],
        responses: Vec<AlteredConfigs> [0..],
    }

    struct AlteredConfigs {
        error: ErrorCode [0..],
        error_message: Option<Text> [0..],
        resource_type: i8 [0..],
        name: Text [0..],
    }
}
