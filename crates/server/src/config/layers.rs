//! Reads file, environment and `--set` into one configuration, and says what is wrong with them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use headwater_bridge::{Diagnostic, FlowConfig, Flows, check};
use headwater_docstore::Namespace;
use toml::de::DeTable;
use toml::{Table, Value};

use super::Config;

/// Environment names of ours that are no settings.
const NOT_SETTINGS: [&str; 4] = [
    "HEADWATER_DATA_DIR",
    "HEADWATER_LOG",
    "HEADWATER_MQTT_PASSWORD",
    "HEADWATER_FAULT",
];
const PREFIX: &str = "HEADWATER_";

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) file: Option<PathBuf>,
    /// `KEY=VALUE`, dotted keys.
    pub(crate) set: Vec<String>,
    /// The environment's names and values.
    pub(crate) environment: Vec<(String, String)>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}", shown(.0))]
    Invalid(Vec<Diagnostic>),
}

fn shown(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A configuration that can be started.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) flows: Flows,
    /// What is odd and was passed over.
    pub(crate) warnings: Vec<String>,
}

impl Sources {
    /// What a command line names, with the environment of this process.
    pub(crate) fn of_process(file: Option<&Path>, set: &[String]) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            file: file.map(Path::to_owned),
            set: set.to_vec(),
            environment,
        }
    }
}

impl Sources {
    /// Whether a layer above the file names `key`.
    fn override_key(&self, key: &str) -> bool {
        let named = format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase());
        let set = |one: &String| one.split_once('=').is_some_and(|(name, _)| name == key);
        self.set.iter().any(set) || self.environment.iter().any(|(name, _)| *name == named)
    }
}

/// Reads all layers. One error refuses the whole.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut found = Vec::new();
    let mut table = Table::new();
    if let Some(path) = &sources.file {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let name = path.display().to_string();
        found.extend(file_errors(&text).into_iter().map(|one| one.in_file(&name)));
        if found.is_empty() {
            table = text.parse().unwrap_or_default();
        }
    }
    if !found.is_empty() {
        return Err(ConfigError::Invalid(found));
    }
    let mut warnings = Vec::new();
    for (name, value) in &sources.environment {
        apply_environment(&mut table, name, value, &mut warnings, &mut found);
    }
    for setting in &sources.set {
        match setting.split_once('=') {
            Some((key, value)) => {
                let path: Vec<&str> = key.split('.').collect();
                apply(&mut table, &path, value, "--set", &mut found);
            }
            None => found.push(Diagnostic::unplaced(setting, "--set wants KEY=VALUE")),
        }
    }
    if !found.is_empty() {
        return Err(ConfigError::Invalid(found));
    }
    finish(table, warnings).map_err(|error| sources.placed(error))
}

impl Sources {
    fn placed(&self, error: ConfigError) -> ConfigError {
        match (&self.file, error) {
            (Some(path), ConfigError::Invalid(found)) => {
                ConfigError::Invalid(located(path, self, found))
            }
            (_, error) => error,
        }
    }
}

/// The files that a configuration names must be good too: one error refuses the whole.
pub(crate) fn check_files(config: &Config, sources: &Sources) -> Result<(), ConfigError> {
    let problems = crate::tls::problems(config);
    if problems.is_empty() {
        return Ok(());
    }
    let found = problems
        .into_iter()
        .map(|(key, sentence)| Diagnostic::unplaced(&key, sentence));
    Err(sources.placed(ConfigError::Invalid(found.collect())))
}

/// Gives problems of single keys their place in the file, but for what the environment or `--set`
/// said instead.
fn located(path: &Path, sources: &Sources, found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return found;
    };
    let Ok(table) = DeTable::parse(&text) else {
        return found;
    };
    let place = |one: Diagnostic| match span_of(table.get_ref(), &one.key) {
        Some(span) if !sources.override_key(&one.key) => {
            Diagnostic::at(&text, span, &one.key, one.message.clone())
                .in_file(&path.display().to_string())
        }
        _ => one,
    };
    found.into_iter().map(place).collect()
}

/// Where `a.b` or `a[1].b` stands in the file.
fn span_of(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let Some((first, rest)) = key.split_once('.') else {
        return Some(table.get(key)?.span());
    };
    let inner = match first.strip_suffix(']').and_then(|one| one.split_once('[')) {
        None => table.get(first)?,
        Some((name, index)) => {
            let array = table.get(name)?.get_ref().as_array()?;
            array.get(index.parse::<usize>().ok()?)?
        }
    };
    span_of(inner.get_ref().as_table()?, rest)
}

fn file_errors(text: &str) -> Vec<Diagnostic> {
    let mut found = check(text);
    if let Err(error) = toml::from_str::<Config>(text) {
        let one = Diagnostic::from_toml(text, &error);
        if !found.iter().any(|other| other.line == one.line) {
            found.push(one);
        }
    }
    found
}

fn finish(table: Table, warnings: Vec<String>) -> Result<Loaded, ConfigError> {
    let config: Config = table
        .try_into()
        .map_err(|error: toml::de::Error| invalid("", error.message()))?;
    let problems = config.problems();
    if !problems.is_empty() {
        let found = problems
            .into_iter()
            .map(|(key, sentence)| Diagnostic::unplaced(&key, sentence));
        return Err(ConfigError::Invalid(found.collect()));
    }
    let flows = Flows::compile(&config.flows()).map_err(|errors| {
        let found = errors
            .iter()
            .map(|error| Diagnostic::unplaced("", error.to_string()));
        ConfigError::Invalid(found.collect())
    })?;
    for sink in flows.sinks() {
        // The store's own rules are narrower than those of a flow.
        Namespace::parse(sink.into_namespace()).map_err(|error| {
            let sentence = format!("`into` of [[sink]] from {:?}: {error}", sink.from());
            invalid("sink", &sentence)
        })?;
    }
    Ok(Loaded {
        config,
        flows,
        warnings,
    })
}

fn invalid(key: &str, message: &str) -> ConfigError {
    ConfigError::Invalid(vec![Diagnostic::unplaced(key, message)])
}

/// `HEADWATER_LISTENERS__TCP__BIND` is `listeners.tcp.bind`.
fn apply_environment(
    table: &mut Table,
    name: &str,
    value: &str,
    warnings: &mut Vec<String>,
    found: &mut Vec<Diagnostic>,
) {
    let Some(key) = name.strip_prefix(PREFIX) else {
        return;
    };
    if NOT_SETTINGS.contains(&name) {
        return;
    }
    let key = key.to_ascii_lowercase();
    let path: Vec<&str> = key.split("__").collect();
    let mut alone = Vec::new();
    apply(&mut table.clone(), &path, value, name, &mut alone);
    match alone.into_iter().next() {
        Some(error) if error.message.contains("unknown field") => {
            warnings.push(format!("{name} is set and names no setting"));
        }
        Some(error) => found.push(error),
        None => apply(table, &path, value, name, found),
    }
}

/// Sets one key. The value is TOML where that fits, else text.
fn apply(table: &mut Table, path: &[&str], value: &str, origin: &str, found: &mut Vec<Diagnostic>) {
    let text = Value::String(value.to_owned());
    let parsed = format!("v = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut one| one.remove("v"));
    let mut error = None;
    for candidate in parsed.into_iter().chain([text]) {
        let mut tried = table.clone();
        if !set(&mut tried, path, candidate) {
            error = Some("this key leads through something that is no table".to_owned());
            continue;
        }
        match tried.clone().try_into::<Config>() {
            Ok(_) => {
                *table = tried;
                return;
            }
            Err(refused) => {
                error.get_or_insert_with(|| refused.message().to_owned());
            }
        }
    }
    let message = error.unwrap_or_else(|| "not understood".to_owned());
    found.push(Diagnostic::unplaced(
        &path.join("."),
        format!("{origin}: {message}"),
    ));
}

fn set(table: &mut Table, path: &[&str], value: Value) -> bool {
    match path {
        [] => false,
        [last] => {
            table.insert((*last).to_owned(), value);
            true
        }
        [first, rest @ ..] => {
            let next = table
                .entry(*first)
                .or_insert_with(|| Value::Table(Table::new()));
            next.as_table_mut()
                .is_some_and(|inner| set(inner, rest, value))
        }
    }
}

impl Config {
    /// The flow tables, as `bridge` compiles them.
    pub(crate) fn flows(&self) -> FlowConfig {
        FlowConfig {
            default_flows: self.default_flows,
            route: self.route.clone(),
            deliver: self.deliver.clone(),
            sink: self.sink.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(
        file: Option<&str>,
        set: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let sources = Sources {
            file: file.map(|_| path),
            set: set.iter().map(|&one| one.to_owned()).collect(),
            environment: environment.iter().map(own).collect(),
        };
        load(&sources).map_err(|error| error.to_string())
    }

    #[test]
    fn later_layers_win() {
        let file = "durability = \"os\"\n[listeners.tcp]\nbind = \"127.0.0.1:1\"\n";
        let environment = [
            ("HEADWATER_LISTENERS__TCP__BIND", "127.0.0.1:2"),
            ("HOME", "/"),
        ];
        let loaded = with(
            Some(file),
            &["listeners.tcp.bind=127.0.0.1:3"],
            &environment,
        )
        .unwrap();
        assert_eq!(loaded.config.listeners.tcp.bind.unwrap().port(), 3);
        let loaded = with(Some(file), &[], &environment).unwrap();
        assert_eq!(loaded.config.listeners.tcp.bind.unwrap().port(), 2);
        let loaded = with(None, &["log.retention_ms=7d", "log.partitions=2"], &[]).unwrap();
        assert_eq!(loaded.config.log.partitions, 2);
    }

    #[test]
    fn bad_key_is_told_with_file_line_and_nearest_key() {
        let error = with(
            Some("default_flows = true\n[log]\nretention_sm = 1\n"),
            &[],
            &[],
        )
        .unwrap_err();
        assert!(error.contains("h.toml:3:"), "{error}");
        assert!(error.contains("retention_ms"), "{error}");
    }

    #[test]
    fn bad_flow_is_told_with_its_line() {
        let text = "[[route]]\nfrom = \"a/{x}\"\nto = \"t.{y}\"\n";
        let error = with(Some(text), &[], &[]).unwrap_err();
        assert!(error.contains("h.toml:3:"), "{error}");
    }

    #[test]
    fn bad_setting_names_its_origin() {
        let error = with(None, &["log.partitions=many"], &[]).unwrap_err();
        assert!(
            error.contains("log.partitions") && error.contains("--set"),
            "{error}"
        );
        let error = with(None, &["log"], &[]).unwrap_err();
        assert!(error.contains("KEY=VALUE"), "{error}");
    }

    #[test]
    fn unknown_environment_name_is_a_warning() {
        let loaded = with(
            None,
            &[],
            &[
                ("HEADWATER_LISTENER__TCP", "1"),
                ("HEADWATER_DATA_DIR", "/"),
                ("HEADWATER_LOG", "debug"),
            ],
        );
        assert_eq!(loaded.unwrap().warnings.len(), 1);
    }
}
