//! Reads a store by the contract and compares it with the table: rdrive-client ADDRESS TABLE

mod table;

use std::{env, error::Error, path::Path, process::ExitCode, time::Duration};
use table::Row;
use tonic::transport::{Channel, Endpoint};
use v1::batch_read_item::Outcome;
use v1::data_store_reader_service_client::DataStoreReaderServiceClient;
use xxhash_rust::xxh3::xxh3_64;

mod v1 {
    tonic::include_proto!("rdrive.v1");
}

type Reader = DataStoreReaderServiceClient<Channel>;
type Value = Option<Vec<u8>>; // None: the key is absent

const DEADLINE: Duration = Duration::from_secs(30); // of each call

/// What one batch stream brought: the values by index.
#[derive(Default)]
struct Stream {
    values: Vec<Value>,
    messages: usize,
    fragments: usize,
}

async fn read(reader: &mut Reader, key: &[u8]) -> Result<Value, Box<dyn Error>> {
    let answer = reader
        .read(v1::ReadRequest { key: key.to_vec() })
        .await?
        .into_inner();
    Ok(answer.entry.map(|entry| entry.payload))
}

async fn read_hashes(reader: &mut Reader, key_hashes: Vec<u64>) -> Result<Stream, Box<dyn Error>> {
    let mut stream = Stream::default();
    let mut parts = Vec::new(); // of the value whose fragments are arriving
    let request = v1::BatchReadHashedKeysRequest {
        key_hashes,
        ..Default::default()
    };
    let mut messages = reader.batch_read_hashed_keys(request).await?.into_inner();
    while let Some(message) = messages.message().await? {
        stream.messages += 1;
        for item in message.items {
            let (index, due) = (item.index as usize, stream.values.len());
            if index != due {
                return Err(format!("index {index} comes where {due} is due").into());
            }
            match item.outcome {
                Some(Outcome::Absent(_)) => stream.values.push(None),
                Some(Outcome::Entry(entry)) => stream.values.push(Some(entry.payload)),
                Some(Outcome::Fragment(fragment)) => {
                    if fragment.payload_offset != parts.len() as u64 {
                        return Err(format!(
                            "a fragment begins at {}, not {}",
                            fragment.payload_offset,
                            parts.len()
                        )
                        .into());
                    }
                    stream.fragments += 1;
                    parts.extend(fragment.data);
                    if parts.len() as u64 == fragment.payload_size {
                        stream.values.push(Some(std::mem::take(&mut parts)));
                    }
                }
                Some(Outcome::Error(error)) => {
                    return Err(format!("item {index}: {}: {}", error.reason, error.message).into());
                }
                None => {
                    return Err(
                        format!("item {index}: an outcome that this client doesn't know").into(),
                    );
                }
            }
        }
    }
    if !parts.is_empty() {
        return Err("the stream ends in the middle of a value".into());
    }
    Ok(stream)
}

fn show(value: &Value) -> String {
    value
        .as_ref()
        .map_or("absent".into(), |bytes| format!("{} bytes", bytes.len()))
}

/// What is wrong, and what was seen.
async fn check(reader: &mut Reader, rows: &[Row]) -> Result<(Vec<String>, String), Box<dyn Error>> {
    let mut wrong = Vec::new();
    for row in rows {
        let made = xxh3_64(&row.key);
        if made != row.hash {
            wrong.push(format!(
                "{}: hashed to {made:016x}, not {:016x}",
                row.name, row.hash
            ));
        }
        let value = read(reader, &row.key).await?;
        if value != row.value {
            wrong.push(format!(
                "{}: Read gives {}, not {}",
                row.name,
                show(&value),
                show(&row.value)
            ));
        }
    }

    let stream = read_hashes(reader, rows.iter().map(|row| xxh3_64(&row.key)).collect()).await?;
    if stream.values.len() != rows.len() {
        wrong.push(format!(
            "BatchReadHashedKeys answers {} keys of {}",
            stream.values.len(),
            rows.len()
        ));
    }
    for (row, value) in rows.iter().zip(&stream.values) {
        if *value != row.value {
            wrong.push(format!(
                "{}: BatchReadHashedKeys gives {}, not {}",
                row.name,
                show(value),
                show(&row.value)
            ));
        }
    }
    let seen = format!(
        "{} keys hashed and read; one stream of {} messages, {} fragments among them",
        rows.len(),
        stream.messages,
        stream.fragments
    );
    Ok((wrong, seen))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, table] = arguments.as_slice() else {
        eprintln!("usage: rdrive-client ADDRESS TABLE");
        return Ok(ExitCode::from(64));
    };
    let channel = Endpoint::from_shared(format!("http://{address}"))?
        .timeout(DEADLINE)
        .connect()
        .await?;
    let (wrong, seen) = check(&mut Reader::new(channel), &table::read(Path::new(table))?).await?;
    for each in &wrong {
        eprintln!("{each}");
    }
    if wrong.is_empty() {
        println!("ok: {seen}");
    }
    Ok(if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
