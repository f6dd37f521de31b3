//! `decode` on the Python side: one JSON request in, the answer out in pieces while it is made.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use ipss_dlms::security::{Key, SystemTitle};
use ipss_dlms::translate::{self, Keys, Sender, TranslateRequest, Transmission};
use ipss_modbus::translate as modbus;
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{decode_sunspec, profiles};

/// Octets of a piece, and how many of them may wait: an answer is never held whole.
const PIECE: usize = 32 * 1024;
const PIECES: usize = 2;

pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decode, module)?)
}

/// See `_core.pyi`.
#[pyfunction]
fn decode(request: String) -> PyResult<Pieces> {
    let (sender, receiver) = sync_channel(PIECES);
    std::thread::Builder::new().name("decode".into()).spawn(move || answer(&request, sender))?;
    Ok(Pieces(Mutex::new(receiver)))
}

/// The answer's pieces, in order.
#[pyclass(module = "ipss_headend._core", frozen)]
struct Pieces(Mutex<Receiver<String>>);

#[pymethods]
impl Pieces {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).recv().ok())
    }
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(default = "auto")]
    layer: String,
    hex: Hex,
    #[serde(default)]
    keys: KeySets,
    profile: Option<String>,
    direction: Option<Direction>,
    /// Where a register image's first register stands.
    #[serde(default = "sunspec_base")]
    base_address: u16,
}

/// Who sent what does not say itself who sent it.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Direction {
    FromMeter,
    ToMeter,
}

/// Where most SunSpec devices begin.
fn sunspec_base() -> u16 {
    40_000
}

fn auto() -> String {
    "auto".into()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Hex {
    One(String),
    Several(Vec<Item>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    From { from: From, hex: String },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum From {
    Meter,
    HeadEnd,
}

/// One meter's keys, or a table of them by system title.
#[derive(Deserialize)]
#[serde(untagged)]
enum KeySets {
    One(KeySet),
    ByTitle(HashMap<String, KeySet>),
}

impl Default for KeySets {
    fn default() -> Self {
        Self::ByTitle(HashMap::new())
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySet {
    encryption_key: Option<String>,
    authentication_key: Option<String>,
    dedicated_key: Option<String>,
    client_system_title: Option<String>,
    server_system_title: Option<String>,
    /// Not needed for what is opened here; accepted, since files of keys have them.
    #[serde(rename = "master_key")]
    _master_key: Option<String>,
    #[serde(rename = "private_key")]
    _private_key: Option<String>,
    #[serde(rename = "peer_public_key")]
    _peer_public_key: Option<String>,
}

fn answer(request: &str, sender: SyncSender<String>) {
    let mut piece = String::with_capacity(PIECE);
    let mut write = |text: &str| {
        piece.push_str(text);
        if piece.len() >= PIECE {
            // Nobody listens any more: what is left costs time linear in the request and no memory.
            let _ = sender.send(std::mem::replace(&mut piece, String::with_capacity(PIECE)));
        }
    };
    match serde_json::from_str::<Asked<'_>>(request) {
        Err(error) => {
            let id = serde_json::from_str::<Id<'_>>(request).ok().and_then(|id| id.id);
            let message = format!("not a request: {error}; expected {{\"layer\": ..., \"hex\": ...}}");
            translate::refuse(id.map(RawValue::get), "bad-request", &message, &mut write);
        }
        Ok(asked) => {
            let id = asked.id.map(RawValue::get);
            let companion = asked.profile.as_deref().map(profiles::named).transpose();
            match (octets(&asked.hex, asked.direction), keys(asked.keys), companion) {
                (Ok(sent), Ok(_), _) if asked.layer == "sunspec" => {
                    let image: Vec<u8> = sent.into_iter().flat_map(|(_, octets)| octets).collect();
                    decode_sunspec::explain(id, &image, asked.base_address, &mut write);
                }
                (Ok(sent), Ok(_), _) if is_modbus(&asked.layer, &sent) => {
                    let transmissions = transmissions(&sent);
                    let request = modbus::TranslateRequest { id, layer: &asked.layer, transmissions: &transmissions };
                    modbus::translate(&request, &mut write);
                }
                (Ok(sent), Ok(keys), Ok(companion)) => {
                    let companion = companion.as_deref();
                    let transmissions = transmissions(&sent);
                    let request = TranslateRequest {
                        id,
                        layer: &asked.layer,
                        transmissions: &transmissions,
                        keys: &keys,
                        companion,
                    };
                    translate::translate(&request, &mut write);
                }
                (Err(message), ..) => translate::refuse(id, "bad-hex", &message, &mut write),
                (_, Err(message), _) => translate::refuse(id, "bad-keys", &message, &mut write),
                (.., Err(message)) => translate::refuse(id, "unknown-profile", &message, &mut write),
            }
        }
    }
    let _ = sender.send(piece);
}

fn transmissions(sent: &Sent) -> Vec<Transmission<'_>> {
    sent.iter().map(|(from, octets)| Transmission { from: *from, octets }).collect()
}

fn is_modbus(layer: &str, sent: &Sent) -> bool {
    layer.starts_with("modbus-") || layer == "auto" && modbus::recognises(&transmissions(sent))
}

#[derive(Deserialize)]
struct Id<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

type Sent = Vec<(Option<Sender>, Vec<u8>)>;

fn octets(hex: &Hex, direction: Option<Direction>) -> Result<Sent, String> {
    let sender = direction.map(|direction| match direction {
        Direction::FromMeter => Sender::Meter,
        Direction::ToMeter => Sender::HeadEnd,
    });
    let parse = |text: &str| translate::parse_hex(text).map_err(|error| error.to_string());
    match hex {
        Hex::One(text) => Ok(vec![(sender, parse(text)?)]),
        Hex::Several(items) => items
            .iter()
            .map(|item| match item {
                Item::Text(text) => Ok((sender, parse(text)?)),
                Item::From { from, hex } => {
                    let sender = match from {
                        From::Meter => Sender::Meter,
                        From::HeadEnd => Sender::HeadEnd,
                    };
                    Ok((Some(sender), parse(hex)?))
                }
            })
            .collect(),
    }
}

fn keys(sets: KeySets) -> Result<Vec<Keys>, String> {
    match sets {
        KeySets::One(set) => Ok(vec![key_set(&set, None)?]),
        KeySets::ByTitle(sets) => sets.iter().map(|(title, set)| key_set(set, Some(title))).collect(),
    }
}

/// The messages name the key and never show it.
fn key_set(set: &KeySet, title: Option<&str>) -> Result<Keys, String> {
    fn octets<T, E: std::fmt::Display>(
        name: &str,
        text: Option<&str>,
        make: impl Fn(&[u8]) -> Result<T, E>,
    ) -> Result<Option<T>, String> {
        let Some(text) = text else { return Ok(None) };
        let octets = translate::parse_hex(text).map_err(|_| format!("{name}: not hexadecimal"))?;
        make(&octets).map(Some).map_err(|error| format!("{name}: {error}"))
    }
    let server = set.server_system_title.as_deref().or(title);
    Ok(Keys {
        encryption_key: octets("encryption_key", set.encryption_key.as_deref(), Key::from_slice)?,
        authentication_key: octets("authentication_key", set.authentication_key.as_deref(), Key::from_slice)?,
        dedicated_key: octets("dedicated_key", set.dedicated_key.as_deref(), Key::from_slice)?,
        client_system_title: octets(
            "client_system_title",
            set.client_system_title.as_deref(),
            SystemTitle::from_slice,
        )?,
        server_system_title: octets("server_system_title", server, SystemTitle::from_slice)?,
    })
}
