//! Explain bytes: what `ipss-headend decode` answers for the layers `modbus-tcp`, `modbus-rtu` and `modbus-ascii`, as
//! JSON that goes out while it is made.
//!
//! One request is walked once for each list of the answer. What is held is the octets of frames that are not whole and,
//! for each request that has no response yet, how many bits it asked for: time and memory are linear in the request.

mod pdu;

use std::collections::VecDeque;

use ipss_session::explain::{self, Outcome, Sender, Transmission};
use ipss_session::json::Json;
use ipss_session::{Fault, ProtocolError};

use crate::adu::{Direction, ascii, rtu, tcp};
use crate::pdu::{Extent, MAX_PDU, RequestPdu, ResponsePdu};
use crate::quirks::Quirks;

/// What is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct TranslateRequest<'a> {
    /// The asker's own mark, as JSON text; it comes back as it is.
    pub id: Option<&'a str>,
    /// `modbus-tcp`, `modbus-rtu`, `modbus-ascii`, or `auto` where [`recognises`] said so.
    pub layer: &'a str,
    /// What was sent, in order. Who sent what names no sender is guessed, with a warning where it might be either.
    pub transmissions: &'a [Transmission<'a>],
}

/// Whether octets whose layer is not named are these layers' own: an ASCII frame's colon, or whole MBAP frames and
/// nothing else.
pub fn recognises(transmissions: &[Transmission<'_>]) -> bool {
    let octets = transmissions.iter().map(|sent| sent.octets).find(|octets| !octets.is_empty());
    let Some(mut octets) = octets else { return false };
    if octets[0] == b':' {
        return true;
    }
    while let Ok(Some(adu)) = tcp::next(octets, Direction::Request, &Quirks::default()) {
        octets = &octets[adu.length..];
        if octets.is_empty() {
            return true;
        }
    }
    false
}

/// Write the answer as one JSON object, piece by piece, and return its outcome.
pub fn translate(request: &TranslateRequest<'_>, write: &mut dyn FnMut(&str)) -> Outcome {
    let (outcome, error) = Pass::default().run(request);
    let mut out = Json::new(write);
    out.begin('{');
    if let Some(id) = request.id {
        out.key("id");
        out.plain(id);
    }
    out.member_string("outcome", outcome.name());
    let lists: [(&str, Option<Select>); 4] = [
        ("frames", Some(|pass| &mut pass.frames)),
        ("apdus", Some(|pass| &mut pass.apdus)),
        ("readings", None),
        ("warnings", Some(|pass| &mut pass.warnings)),
    ];
    for (key, select) in lists {
        out.key(key);
        out.begin('[');
        if let Some(select) = select {
            let mut pass = Pass::default();
            *select(&mut pass) = out.inside();
            pass.run(request);
        }
        out.end();
    }
    if let Some(error) = error {
        explain::error(&mut out, &error);
    }
    out.end();
    outcome
}

/// Requests remembered until their responses come.
const MAX_OPEN: usize = 256;

type Select = for<'p, 'w> fn(&'p mut Pass<'w>) -> &'p mut Json<'w>;

/// One walk over the request, which writes one of the answer's lists, or none.
struct Pass<'w> {
    frames: Json<'w>,
    apdus: Json<'w>,
    warnings: Json<'w>,
    /// Requests without a response yet: transaction (0 where there is none), unit, function, bits asked for.
    open: VecDeque<(u16, u8, u8, Option<u16>)>,
    /// For each sender, octets that are no whole frame yet, and how many of its octets were done with.
    streams: [(Vec<u8>, usize); 3],
}

impl Default for Pass<'_> {
    fn default() -> Self {
        Self {
            frames: Json::inactive(),
            apdus: Json::inactive(),
            warnings: Json::inactive(),
            open: VecDeque::new(),
            streams: Default::default(),
        }
    }
}

/// What stands at the front of octets that are not none.
type Find = fn(&[u8], Option<Direction>) -> Result<Front, ProtocolError>;

/// A frame at the front of some octets, or not.
enum Front {
    /// So many octets long.
    Frame { length: usize, transaction: Option<u16>, unit: u8, pdu: Vec<u8>, direction: Option<Direction> },
    /// Octets before the next frame that belong to none.
    Stray(usize),
    /// More octets are wanted.
    Incomplete,
}

impl Pass<'_> {
    fn run(&mut self, request: &TranslateRequest<'_>) -> (Outcome, Option<ProtocolError>) {
        for sent in request.transmissions {
            let (place, direction) = match sent.from {
                Some(Sender::Meter) => (1, Some(Direction::Response)),
                Some(Sender::HeadEnd) => (2, Some(Direction::Request)),
                None => (0, None),
            };
            let (mut octets, done) = std::mem::take(&mut self.streams[place]);
            octets.extend_from_slice(sent.octets);
            let mut at = 0;
            let result = self.stream(request.layer, &octets, &mut at, direction);
            octets.drain(..at);
            self.streams[place] = (octets, done + at);
            if let Err(error) = result {
                // The offset counts the sender's octets from its first on.
                let offset = if error.layer == "modbus" { error.offset } else { error.offset + done };
                return (Outcome::Error, Some(ProtocolError { offset, ..error }));
            }
        }
        let whole = self.streams.iter().all(|(octets, _)| octets.is_empty());
        (if whole { Outcome::Decoded } else { Outcome::Incomplete }, None)
    }

    /// Explain the frames in `octets` from `at` on; what is left there is not whole.
    fn stream(
        &mut self,
        layer: &str,
        octets: &[u8],
        at: &mut usize,
        direction: Option<Direction>,
    ) -> Result<(), ProtocolError> {
        let layer = match layer {
            "auto" if octets.first() == Some(&b':') => "modbus-ascii",
            "auto" => "modbus-tcp",
            layer => layer,
        };
        let (name, front): (&'static str, Find) = match layer {
            "modbus-tcp" => ("modbus-tcp", tcp_front),
            "modbus-rtu" => ("modbus-rtu", rtu_front),
            "modbus-ascii" => ("modbus-ascii", ascii_front),
            other => {
                let message = format!("'{other}' is none of modbus-tcp, modbus-rtu, modbus-ascii");
                return Err(ProtocolError::local("request", "layer-not-supported", message));
            }
        };
        while *at < octets.len() {
            let found = front(&octets[*at..], direction);
            match found.map_err(|error| ProtocolError { layer: name, offset: error.offset + *at, ..error })? {
                Front::Incomplete => return Ok(()),
                Front::Stray(count) => {
                    self.warn(&format!("{count} stray octets at octet {at}", at = *at));
                    *at += count;
                }
                Front::Frame { length, transaction, unit, pdu, direction: told } => {
                    *at += length;
                    self.frame(name, length, transaction, unit);
                    self.pdu(transaction, unit, &pdu, direction.or(told))?;
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, layer: &str, length: usize, transaction: Option<u16>, unit: u8) {
        let out = &mut self.frames;
        out.begin('{');
        out.member_string("layer", layer);
        out.member_integer("length", length as u64);
        if let Some(transaction) = transaction {
            out.member_integer("transaction_id", transaction);
        }
        out.member_integer("unit_id", unit);
        match layer {
            "modbus-rtu" => out.member_boolean("crc_ok", true),
            "modbus-ascii" => out.member_boolean("lrc_ok", true),
            _ => {}
        }
        out.end();
    }

    fn pdu(
        &mut self,
        transaction: Option<u16>,
        unit: u8,
        pdu: &[u8],
        direction: Option<Direction>,
    ) -> Result<(), ProtocolError> {
        let key = transaction.unwrap_or_default();
        let function = pdu.first().copied().unwrap_or_default() & !crate::function::EXCEPTION;
        let answers = |open: &(u16, u8, u8, Option<u16>)| (open.0, open.1, open.2) == (key, unit, function);
        let asked = self.open.iter().position(answers);
        let (request, response) = (RequestPdu::decode(pdu), ResponsePdu::decode(pdu));
        let direction = direction.unwrap_or_else(|| match (&request, &response) {
            (Ok(_), Err(_)) => Direction::Request,
            (Err(_), Ok(_)) => Direction::Response,
            _ if asked.is_some() => Direction::Response,
            (Ok(_), Ok(_)) => {
                self.warn("the octets do not tell who sent this; it is taken for a request");
                Direction::Request
            }
            (Err(_), Err(_)) => Direction::Response,
        });
        let out = &mut self.apdus;
        let mark = out.depth();
        out.begin('{');
        out.member_string("pdu", if direction == Direction::Request { "request" } else { "response" });
        if let Some(transaction) = transaction {
            out.member_integer("transaction_id", transaction);
        }
        out.member_integer("unit_id", unit);
        out.member_integer("function_code", function);
        out.key("function");
        match crate::function::name(function) {
            Some(name) => out.string(name),
            None => out.null(),
        }
        let broken = match direction {
            Direction::Request => request.as_ref().err().cloned(),
            Direction::Response => response.as_ref().err().cloned(),
        };
        match direction {
            Direction::Request => {
                if let Ok(request) = request {
                    pdu::request(&request, out);
                    let bits = match request {
                        RequestPdu::Read { table, quantity, .. } if table.is_bits() => Some(quantity),
                        _ => None,
                    };
                    if self.open.len() >= MAX_OPEN {
                        self.open.pop_front();
                    }
                    self.open.push_back((key, unit, function, bits));
                }
            }
            Direction::Response => {
                let bits = asked.and_then(|place| self.open.remove(place)).and_then(|asked| asked.3);
                if let Ok(response) = response {
                    pdu::response(&response, bits, out);
                }
            }
        }
        if broken.is_some() {
            out.member_hex("octets", pdu);
        }
        out.end_to(mark);
        match broken {
            Some(error) => Err(ProtocolError { fault: Fault::Remote, ..error }),
            None => Ok(()),
        }
    }

    fn warn(&mut self, text: &str) {
        self.warnings.string(text);
    }
}

fn tcp_front(octets: &[u8], direction: Option<Direction>) -> Result<Front, ProtocolError> {
    let found = tcp::next(octets, direction.unwrap_or(Direction::Response), &Quirks::default())?;
    Ok(found.map_or(Front::Incomplete, |adu| Front::Frame {
        length: adu.length,
        transaction: Some(adu.transaction),
        unit: adu.unit,
        pdu: adu.pdu.to_vec(),
        direction: None,
    }))
}

fn rtu_front(octets: &[u8], direction: Option<Direction>) -> Result<Front, ProtocolError> {
    let front = rtu_frame(octets, direction);
    if matches!(front, Ok(Front::Frame { .. })) {
        return front;
    }
    // A 00 from turning the line around, or a check that was sent twice, costs no frame.
    let behind = |count: &usize| {
        octets.len() > *count && matches!(rtu_frame(&octets[*count..], direction), Ok(Front::Frame { .. }))
    };
    match [1, 2].into_iter().find(behind) {
        Some(count) => Ok(Front::Stray(count)),
        None => front,
    }
}

fn rtu_frame(octets: &[u8], direction: Option<Direction>) -> Result<Front, ProtocolError> {
    let mut wanting = false;
    let mut open = false;
    let both = [Direction::Request, Direction::Response];
    let directions = both.into_iter().filter(|one| direction.is_none_or(|known| known == *one));
    for one in directions {
        match one.extent(&octets[1..], false) {
            Extent::Known(length) if length > MAX_PDU => {}
            Extent::Known(length) => match octets.get(..length + 3).and_then(rtu::open) {
                Some((unit, pdu)) => {
                    let (length, pdu) = (length + 3, pdu.to_vec());
                    return Ok(Front::Frame {
                        length,
                        transaction: None,
                        unit,
                        pdu,
                        direction: direction.or(guess(octets)),
                    });
                }
                None => wanting |= octets.len() < length + 3,
            },
            Extent::More => wanting = true,
            Extent::Open => open = true,
        }
    }
    if open {
        if let Some((unit, pdu)) = rtu::open(octets) {
            let (length, pdu) = (octets.len(), pdu.to_vec());
            return Ok(Front::Frame { length, transaction: None, unit, pdu, direction: None });
        }
        wanting |= octets.len() < 4;
    }
    if wanting {
        return Ok(Front::Incomplete);
    }
    let found = octets.len().min(rtu::MAX_ADU);
    Err(crate::pdu::malformed(found.saturating_sub(2), "bad-crc", "the CRC fits no frame that could begin here"))
}

/// Which direction a frame of known length is of, if only one of them could be so long.
fn guess(octets: &[u8]) -> Option<Direction> {
    let fits = |direction: Direction| match direction.extent(&octets[1..], false) {
        Extent::Known(length) => octets.get(..length + 3).and_then(rtu::open).is_some(),
        _ => false,
    };
    match (fits(Direction::Request), fits(Direction::Response)) {
        (true, false) => Some(Direction::Request),
        (false, true) => Some(Direction::Response),
        _ => None,
    }
}

fn ascii_front(octets: &[u8], _: Option<Direction>) -> Result<Front, ProtocolError> {
    if octets[0] != b':' {
        let end = octets.iter().position(|octet| *octet == b':').unwrap_or(octets.len());
        let blank = octets[..end].iter().all(u8::is_ascii_whitespace);
        return if blank || end < octets.len() {
            Ok(Front::Stray(end))
        } else {
            Err(crate::pdu::malformed(0, "no-colon", "an ASCII frame begins with a colon"))
        };
    }
    let Some(end) = octets.iter().take(ascii::MAX_FRAME).position(|octet| *octet == b'\n') else {
        if octets.len() >= ascii::MAX_FRAME {
            let message = format!("no end within {} characters", ascii::MAX_FRAME);
            return Err(crate::pdu::malformed(ascii::MAX_FRAME, "too-long", message));
        }
        return Ok(Front::Incomplete);
    };
    let characters = octets[1..end].strip_suffix(b"\r").unwrap_or(&octets[1..end]);
    let mut decoded = Vec::new();
    match ascii::open(characters, &mut decoded) {
        Ok((unit, pdu)) => {
            let pdu = pdu.to_vec();
            Ok(Front::Frame { length: end + 1, transaction: None, unit, pdu, direction: None })
        }
        Err(ascii::Broken::Check) => {
            Err(crate::pdu::malformed(end.saturating_sub(3), "bad-lrc", "the LRC does not fit the frame"))
        }
        Err(ascii::Broken::Characters) => {
            Err(crate::pdu::malformed(1, "bad-characters", "no even number of hexadecimal digits of a frame"))
        }
    }
}
