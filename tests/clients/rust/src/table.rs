//! The table: each row is a key, and what the store holds under it.

use serde::{Deserialize, Deserializer, de};
use std::{error::Error, fs, path::Path};

#[derive(Deserialize)]
struct Table {
    keys: Vec<Row>,
}

#[derive(Deserialize)]
pub struct Row {
    pub name: String,
    #[serde(deserialize_with = "bytes")]
    pub key: Vec<u8>,
    #[serde(deserialize_with = "hash")]
    pub hash: u64,
    /// None: the key is absent.
    #[serde(deserialize_with = "bytes_or_null")]
    pub value: Option<Vec<u8>>,
}

#[derive(Deserialize)]
struct Written {
    hex: String,
    #[serde(default = "once")]
    times: usize,
}

fn once() -> usize {
    1
}

impl Written {
    fn plain<E: de::Error>(&self) -> Result<Vec<u8>, E> {
        let byte = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).map_err(E::custom)?;
            u8::from_str_radix(digits, 16).map_err(E::custom)
        };
        let bytes = self
            .hex
            .as_bytes()
            .chunks(2)
            .map(byte)
            .collect::<Result<Vec<_>, E>>()?;
        Ok(bytes.repeat(self.times))
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    Written::deserialize(from)?.plain()
}

fn bytes_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    Option::<Written>::deserialize(from)?
        .map(|written| written.plain())
        .transpose()
}

fn hash<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    u64::from_str_radix(&String::deserialize(from)?, 16).map_err(de::Error::custom)
}

pub fn read(path: &Path) -> Result<Vec<Row>, Box<dyn Error>> {
    Ok(serde_json::from_slice::<Table>(&fs::read(path)?)?.keys)
}
