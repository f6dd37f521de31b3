//! `decode --layer sunspec`: what a register image says, point by point. Nothing is gathered: every reading is written
//! as it is found, so that an answer of any size costs no memory.

use std::fmt::Write as _;

use ipss_modbus::sunspec::{Block, Chain, End, Model, Place, PointType, Value, first_header, model, walk};
use serde_json::Value as Json;
use serde_json::json;

/// The answer to a request: `octets` are the registers as they stand on the wire, the first at `base_address`.
pub(super) fn explain(id: Option<&str>, octets: &[u8], base_address: u16, write: &mut dyn FnMut(&str)) {
    let image: Vec<u16> = octets.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let head = id.map_or_else(String::new, |id| format!("\"id\":{id},"));
    let found = first_header(&image, base_address);
    let outcome = match found {
        _ if octets.len() % 2 != 0 => Err((octets.len(), "odd-length", "a register is two octets".to_owned())),
        _ if image.len() > ADDRESSES - usize::from(base_address) => {
            let message = format!("{} registers from {base_address} on go beyond register 65535", image.len());
            Err((octets.len(), "too-long", message))
        }
        None if image.len() < 2 => Ok(false),
        None => {
            Err((0, "no-marker", "no SunS (5375 6E53) at the image's start, nor at register 0, 40000 or 50000".into()))
        }
        Some((first, _)) => Ok(whole(&image, first)),
    };
    let name = match outcome {
        Ok(true) => "decoded",
        Ok(false) => "incomplete",
        Err(_) => "error",
    };
    write(&format!("{{{head}\"outcome\":\"{name}\",\"frames\":["));
    let found = found.filter(|_| outcome.is_ok());
    let blocks = || found.into_iter().flat_map(|(first, _)| Chain::new(&image, first));
    if let Some((first, _)) = found {
        let start = first - ipss_modbus::sunspec::MARKER.len();
        write(&format!("{{\"layer\":\"sunspec\",\"address\":{},\"models\":[", usize::from(base_address) + start));
        for (index, block) in blocks().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let name = model(block.id).map(|model| model.group.name);
            let address = usize::from(base_address) + block.offset;
            write(&format!(
                "{comma}{}",
                json!({"model": block.id, "name": name, "address": address, "length": block.declared})
            ));
        }
        write("]}");
    }
    write("],\"apdus\":[],\"readings\":[");
    let mut first = true;
    for (index, block) in blocks().enumerate() {
        let Some(model) = model(block.id) else { continue };
        walk(model, block.registers(&image), &mut |place| {
            if !first {
                write(",");
            }
            first = false;
            write(&reading(model, &block, index, base_address, &place).to_string());
        });
    }
    write("],\"warnings\":[");
    let mut first = true;
    let mut warn = |text: String| {
        write(if first { "" } else { "," });
        first = false;
        write(&json!(text).to_string());
    };
    if let Some((_, shift @ (1 | -1))) = found {
        warn(format!("the device begins {shift:+} register from where it should"));
    }
    for block in blocks() {
        warnings(&block, &image, &mut warn);
    }
    if let Some((first, _)) = found {
        match end(&image, first) {
            Some(End::Zero) => warn("the chain ends by model 0 instead of 0xFFFF".into()),
            Some(End::Missing) => warn("there is no end model 0xFFFF".into()),
            _ => {}
        }
    }
    write("]");
    if let Err((offset, code, message)) = outcome {
        let fault = if code == "no-marker" { "remote" } else { "local" };
        let error = json!({"fault": fault, "layer": "sunspec", "offset": offset, "code": code, "message": message});
        write(&format!(",\"error\":{error}"));
    }
    write("}");
}

fn end(image: &[u16], first: usize) -> Option<End> {
    let mut chain = Chain::new(image, first);
    chain.by_ref().for_each(drop);
    chain.end()
}

fn whole(image: &[u16], first: usize) -> bool {
    end(image, first) != Some(End::Cut)
}

fn warnings(block: &Block, image: &[u16], warn: &mut dyn FnMut(String)) {
    if let Some(oddity) = block.oddity {
        warn(format!("model {} says length {}, but {oddity}", block.id, block.declared));
    }
    let Some(model) = model(block.id) else {
        warn(format!("model {} is not published; its registers are passed over", block.id));
        return;
    };
    let registers = block.registers(image);
    let mut unscaled = String::new();
    let walked = walk(model, registers, &mut |place| {
        if place.status(&place.value()) == ipss_modbus::sunspec::Status::ScaleUnknown && unscaled.len() < 200 {
            let _ = write!(unscaled, " {}", place.name());
        }
    });
    if !unscaled.is_empty() {
        warn(format!("model {}: without a usable scale factor, values as they are:{unscaled}", block.id));
    }
    if walked.cut {
        warn(format!("model {}: a group is counted more often than its length has room for", block.id));
    }
    if walked.used < registers.len() {
        warn(format!("model {}: {} registers at its end mean nothing", block.id, registers.len() - walked.used));
    }
}

fn reading(model: &Model, block: &Block, index: usize, base_address: u16, place: &Place<'_>) -> Json {
    let value = place.value();
    let point = place.point;
    let raw = match &value {
        Value::NotImplemented => Json::Null,
        Value::Integer(integer) => {
            i64::try_from(*integer).map_or_else(|_| json!(u64::try_from(*integer).ok()), |integer| json!(integer))
        }
        Value::Float32(float) => json!(float),
        Value::Float64(float) => json!(float),
        other => json!(text(other)),
    };
    let shown = match &value {
        Value::NotImplemented => None,
        Value::Integer(integer) => Some(place.number(&value).map_or_else(|| integer.to_string(), |n| n.to_string())),
        other => Some(text(other)),
    };
    let mut reading = json!({
        "model": model.id,
        "block": index,
        "point": place.name(),
        "address": usize::from(base_address) + block.offset + place.offset,
        "type": point.kind.name(),
        "value": shown,
        "raw": raw,
        "scaler": place.scaler(),
        "unit": (!point.unit.is_empty()).then_some(point.unit),
        "status": place.status(&value).name(),
    });
    if let (Value::Integer(integer), false) = (&value, point.symbols.is_empty()) {
        let named = match point.kind {
            PointType::Bitfield16 | PointType::Bitfield32 => {
                let set = point.symbols.iter().filter(|(_, bit)| *bit < 32 && integer >> bit & 1 == 1);
                json!(set.map(|(name, _)| *name).collect::<Vec<_>>())
            }
            _ => json!(u32::try_from(*integer).ok().and_then(|integer| point.symbol(integer))),
        };
        reading["symbols"] = named;
    }
    reading
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Float32(float) => float.to_string(),
        Value::Float64(float) => float.to_string(),
        Value::Ipv4(octets) => std::net::Ipv4Addr::from(*octets).to_string(),
        Value::Ipv6(octets) => std::net::Ipv6Addr::from(*octets).to_string(),
        Value::Eui48(octets) => octets.map(|octet| format!("{octet:02X}")).join(":"),
        Value::Integer(integer) => integer.to_string(),
        Value::NotImplemented => String::new(),
    }
}

/// Registers of a device.
const ADDRESSES: usize = 1 << 16;
