//! `headwater produce|consume|topic|group`: the log of the running system.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::http::{Remote, segment};
use crate::cli::{Consume, Group, Produce, Target, Topic};

/// Lines of standard input that one call appends.
const PRODUCE_RECORDS_MAX: usize = 500;
/// Records that one call reads.
const CONSUME_RECORDS_MAX: u64 = 500;
/// How often `--follow` asks again when nothing came.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

fn records_path(topic: &str) -> String {
    format!("/log/topics/{}/records", segment(topic))
}

pub(crate) fn produce(target: &Target, verb: &Produce) -> anyhow::Result<()> {
    let remote = Remote::new(target)?;
    let headers = verb
        .headers
        .iter()
        .map(|header| match header.split_once('=') {
            Some((name, value)) => Ok(json!({ "name": name, "value": value })),
            None => bail!("-H {header}: NAME=VALUE is wanted"),
        })
        .collect::<anyhow::Result<Vec<Value>>>()?;
    let record = |key: Option<&str>, value: &str| {
        let mut record = json!({ "key": key, "value": value, "headers": headers });
        if let (Some(partition), Some(fields)) = (verb.partition, record.as_object_mut()) {
            fields.insert("partition".to_owned(), json!(partition));
        }
        record
    };
    let send = |records: &mut Vec<Value>| {
        let records = std::mem::take(records);
        remote
            .post(&records_path(&verb.topic), &json!({ "records": records }))
            .map(drop)
    };
    let mut waiting = Vec::new();
    if let Some(message) = &verb.message {
        waiting.push(record(verb.key.as_deref(), message));
    } else {
        for line in io::stdin().lock().lines() {
            let line = line.context("standard input")?;
            let split = verb
                .key_delimiter
                .as_deref()
                .and_then(|between| line.split_once(between));
            waiting.push(match split {
                Some((key, value)) => record(Some(key), value),
                None => record(verb.key.as_deref(), &line),
            });
            if waiting.len() >= PRODUCE_RECORDS_MAX {
                send(&mut waiting)?;
            }
        }
    }
    if waiting.is_empty() {
        Ok(())
    } else {
        send(&mut waiting)
    }
}

/// Where one partition is read next.
struct Place {
    partition: u64,
    /// The query that finds the first record; then the next offset.
    start: String,
    /// Where reading ends unless `--follow`.
    end: u64,
}

pub(crate) fn consume(target: &Target, verb: &Consume, out: &mut dyn Write) -> anyhow::Result<()> {
    let remote = Remote::new(target)?;
    let topic = remote.get(&format!("/log/topics/{}", segment(&verb.topic)))?;
    let mut places = places(verb, &topic)?;
    let mut left = verb.count.unwrap_or(u64::MAX);
    loop {
        let mut any = false;
        for place in &mut places {
            while left > 0 {
                let read = read(&remote, verb, place, left.min(CONSUME_RECORDS_MAX), out)?;
                any |= read > 0;
                left -= read;
                if read == 0 {
                    break;
                }
            }
        }
        if left == 0 || (!any && !verb.follow) {
            return Ok(());
        }
        out.flush()?;
        if !any {
            std::thread::park_timeout(FOLLOW_EVERY);
        }
    }
}

fn places(verb: &Consume, topic: &Value) -> anyhow::Result<Vec<Place>> {
    let number = |info: &Value, field: &str| info.get(field).and_then(Value::as_u64).unwrap_or(0);
    let partitions = topic
        .get("partitions")
        .and_then(Value::as_array)
        .context("no partitions")?;
    let mut places = Vec::new();
    for info in partitions {
        let partition = number(info, "partition");
        if verb
            .partition
            .is_some_and(|wanted| u64::from(wanted) != partition)
        {
            continue;
        }
        let end = number(info, "high_watermark");
        let start = match verb.offset.as_str() {
            "start" | "beginning" => "offset=earliest".to_owned(),
            "end" => format!("offset={end}"),
            text => match (text.strip_prefix('@'), text.strip_prefix('-')) {
                (Some(ms), _) => format!("from={}", ms.parse::<i64>().context("-o @MILLISECONDS")?),
                (_, Some(last)) => {
                    let last: u64 = last.parse().context("-o -N")?;
                    format!("offset={}", end.saturating_sub(last))
                }
                _ => format!(
                    "offset={}",
                    text.parse::<u64>().context("-o start|end|N|-N|@MS")?
                ),
            },
        };
        places.push(Place {
            partition,
            start,
            end,
        });
    }
    match (places.is_empty(), verb.partition) {
        (true, Some(partition)) => bail!("topic {} has no partition {partition}", verb.topic),
        _ => Ok(places),
    }
}

/// Reads and prints once; how many records there were.
fn read(
    remote: &Remote,
    verb: &Consume,
    place: &mut Place,
    limit: u64,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let path = records_path(&verb.topic);
    let query = format!(
        "{path}?partition={}&{}&limit={limit}",
        place.partition, place.start
    );
    let answer = remote.get(&query)?;
    let records = answer
        .get("data")
        .and_then(Value::as_array)
        .context("no records in the answer")?;
    let next = answer.pointer("/meta/next_offset").and_then(Value::as_u64);
    let mut printed = 0;
    for record in records {
        let offset = record.get("offset").and_then(Value::as_u64).unwrap_or(0);
        if !verb.follow && offset >= place.end {
            break;
        }
        show(verb, place.partition, record, out)?;
        printed += 1;
    }
    if let Some(next) = next {
        place.start = format!("offset={next}");
    }
    Ok(printed)
}

/// Text, or what stands in base64.
fn shown<'v>(record: &'v Value, field: &str) -> &'v str {
    let encoded = || {
        record
            .get(format!("{field}_base64"))
            .and_then(Value::as_str)
    };
    record
        .get(field)
        .and_then(Value::as_str)
        .or_else(encoded)
        .unwrap_or("")
}

fn show(verb: &Consume, partition: u64, record: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    if verb.json {
        let mut all = record.clone();
        if let Some(fields) = all.as_object_mut() {
            fields.insert("topic".to_owned(), json!(verb.topic));
            fields.insert("partition".to_owned(), json!(partition));
        }
        return Ok(writeln!(out, "{all}")?);
    }
    let Some(format) = &verb.format else {
        return Ok(writeln!(out, "{}", shown(record, "value"))?);
    };
    let number = |field: &str| record.get(field).and_then(Value::as_i64).unwrap_or(0);
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        match character {
            '%' => match rest.next() {
                Some('t') => write!(out, "{}", verb.topic)?,
                Some('p') => write!(out, "{partition}")?,
                Some('o') => write!(out, "{}", number("offset"))?,
                Some('k') => write!(out, "{}", shown(record, "key"))?,
                Some('v' | 's') => write!(out, "{}", shown(record, "value"))?,
                Some('T') => write!(out, "{}", number("timestamp_ms"))?,
                Some('h') => write_headers(record, out)?,
                Some('%') => write!(out, "%")?,
                other => bail!(
                    "-f: %{} is not known",
                    other.map_or(String::new(), String::from)
                ),
            },
            '\\' => match rest.next() {
                Some('n') => writeln!(out)?,
                Some('t') => write!(out, "\t")?,
                Some(other) => write!(out, "{other}")?,
                None => write!(out, "\\")?,
            },
            plain => write!(out, "{plain}")?,
        }
    }
    Ok(())
}

fn write_headers(record: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    let headers = record
        .get("headers")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    for (index, header) in headers.iter().enumerate() {
        let between = if index == 0 { "" } else { "," };
        let name = header.get("name").and_then(Value::as_str).unwrap_or("");
        write!(out, "{between}{name}={}", shown(header, "value"))?;
    }
    Ok(())
}

pub(crate) fn topic(target: &Target, verb: &Topic, out: &mut dyn Write) -> anyhow::Result<()> {
    let remote = Remote::new(target)?;
    match verb {
        Topic::List => {
            for topic in list(&remote, "/log/topics")? {
                let partitions = topic.get("partitions").and_then(Value::as_array);
                let sum = |field: &str| -> u64 {
                    let each = |info: &Value| info.get(field).and_then(Value::as_u64);
                    partitions.into_iter().flatten().filter_map(each).sum()
                };
                let records = sum("high_watermark") - sum("log_start_offset");
                let count = partitions.map_or(0, Vec::len);
                let bytes = sum("size_bytes");
                writeln!(
                    out,
                    "{}\t{count} partitions\t{records} records\t{bytes} bytes",
                    shown(&topic, "name")
                )?;
            }
        }
        Topic::Describe { topic } => {
            let topic = remote.get(&format!("/log/topics/{}", segment(topic)))?;
            writeln!(out, "{}", serde_json::to_string_pretty(&topic)?)?;
        }
        Topic::Create {
            topic,
            partitions,
            config,
        } => {
            let mut settings = BTreeMap::new();
            for setting in config {
                let (key, value) = setting
                    .split_once('=')
                    .context("--config wants KEY=VALUE")?;
                settings.insert(key, value);
            }
            let mut wish = json!({ "name": topic, "config": settings });
            if let (Some(partitions), Some(fields)) = (partitions, wish.as_object_mut()) {
                fields.insert("partitions".to_owned(), json!(partitions));
            }
            remote.post("/log/topics", &wish)?;
        }
        Topic::Delete { topic } => remote.delete(&format!("/log/topics/{}", segment(topic)))?,
    }
    Ok(())
}

pub(crate) fn group(target: &Target, verb: &Group, out: &mut dyn Write) -> anyhow::Result<()> {
    let remote = Remote::new(target)?;
    match verb {
        Group::List => {
            for group in list(&remote, "/log/groups")? {
                let members = group.get("members").and_then(Value::as_u64).unwrap_or(0);
                let (name, state) = (shown(&group, "group"), shown(&group, "state"));
                writeln!(out, "{name}\t{state}\t{members} members")?;
            }
        }
        Group::Describe { group } => {
            let group = remote.get(&format!("/log/groups/{}", segment(group)))?;
            writeln!(out, "{}", serde_json::to_string_pretty(&group)?)?;
        }
        Group::Delete { group } => remote.delete(&format!("/log/groups/{}", segment(group)))?,
    }
    Ok(())
}

/// All entries of a paged list.
fn list(remote: &Remote, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for page in 1_u64.. {
        let answer = remote.get(&format!("{path}?page={page}"))?;
        if let Some(data) = answer.get("data").and_then(Value::as_array) {
            all.extend(data.iter().cloned());
        }
        if answer.pointer("/meta/hasnext").and_then(Value::as_bool) != Some(true) {
            break;
        }
    }
    Ok(all)
}
