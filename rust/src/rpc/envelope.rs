//! The envelope of a message: `[0, id, method, params]` or `[2, method, params]` (msgpack-RPC specification).

use std::ops::Range;

use super::scan::{Head, Kind, Limits, Violation, Walk, Walked};

/// One message of a client's; [`Scanner::method`] and [`Scanner::params`] lend its octets until the next feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// [`Call::REQUEST`], [`Call::RESPONSE`] or [`Call::NOTIFICATION`].
    pub kind: u8,
    /// The client's number of the request; 0 of a notification.
    pub id: u32,
    method: Range<usize>,
    params: Range<usize>,
}

impl Call {
    /// `[0, id, method, params]`
    pub const REQUEST: u8 = 0;
    /// `[1, id, error, result]`: nobody asked this client anything, so it is counted and dropped.
    pub const RESPONSE: u8 = 1;
    /// `[2, method, params]`
    pub const NOTIFICATION: u8 = 2;
}

/// What ends a connection, and which request it can be said of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The request's number, if it could be read.
    pub id: Option<u32>,
    /// What is wrong.
    pub violation: Violation,
}

/// Finds the messages in what a client sends. After a fault nothing more is found.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    buffer: Vec<u8>,
    /// Where the message that is being walked begins.
    begin: usize,
    walk: Walk,
    fault: Option<Fault>,
}

/// A method's name has no more octets than this.
const LONGEST_METHOD: usize = 128;

impl Scanner {
    /// A scanner of one connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: Vec::new(), begin: 0, walk: Walk::default(), fault: None }
    }

    /// From now on this is allowed: a client that has said who it is may send more.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Take what has arrived. Call [`Scanner::next`] until it gives nothing before the next octets are fed: then the
    /// buffer never holds more than one message that is not whole, and what was fed last.
    pub fn feed(&mut self, octets: &[u8]) {
        if self.begin > 0 {
            self.buffer.drain(..self.begin);
            self.begin = 0;
        }
        if self.fault.is_none() {
            self.buffer.extend_from_slice(octets);
        }
    }

    /// Octets that wait for the rest of their message.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.begin
    }

    /// The next whole message; None until more has arrived.
    ///
    /// # Errors
    /// What the client did wrong; the connection is to be closed.
    #[allow(clippy::should_implement_trait)] // it goes on where an iterator has ended
    pub fn next(&mut self) -> Option<Result<Call, Fault>> {
        if let Some(fault) = self.fault {
            return Some(Err(fault));
        }
        let message = &self.buffer[self.begin..];
        match self.walk.on(message, &self.limits) {
            Ok(Walked::More) => {
                // A first octet that begins no envelope needs no second one.
                let wrong = message.first().is_some_and(|first| !matches!(first, 0x93 | 0x94 | 0xDC | 0xDD));
                wrong.then(|| self.fail(Violation::Envelope("a message is an array of 3 or 4 elements")))
            }
            Ok(Walked::Whole) => {
                let whole = self.begin..self.begin + self.walk.at;
                self.begin = whole.end;
                self.walk.reset();
                let found = envelope(&self.buffer[whole.clone()], whole.start);
                self.fault = found.as_ref().err().copied();
                Some(found)
            }
            Err(violation) => Some(self.fail(violation)),
        }
    }

    fn fail(&mut self, violation: Violation) -> Result<Call, Fault> {
        let fault = Fault { id: id_of(&self.buffer[self.begin..]), violation };
        self.fault = Some(fault);
        Err(fault)
    }

    /// The name of the method, as text or octets; empty of a response.
    pub fn method(&self, call: &Call) -> &[u8] {
        &self.buffer[call.method.clone()]
    }

    /// The params: one array; of a response, empty.
    pub fn params(&self, call: &Call) -> &[u8] {
        &self.buffer[call.params.clone()]
    }
}

/// The number of a request that is not whole or breaks a rule, if it stands there.
fn id_of(message: &[u8]) -> Option<u32> {
    let first = Head::read(message, 0).ok()??;
    let kind = Head::read(message, first.octets).ok()??;
    if first.kind != Kind::Array || !kind.unsigned || kind.length != usize::from(Call::REQUEST) {
        return None;
    }
    let id = Head::read(message, first.octets + kind.octets).ok()??;
    id.unsigned.then(|| u32::try_from(id.length).ok()).flatten()
}

/// Take a whole, well-formed message apart, which begins at `start` in the buffer.
fn envelope(message: &[u8], start: usize) -> Result<Call, Fault> {
    let fault = |text| Fault { id: id_of(message), violation: Violation::Envelope(text) };
    let head = |at| Head::read(message, at).ok().flatten().ok_or_else(|| fault("a message ends too early"));
    let array = head(0)?;
    if array.kind != Kind::Array || !(3..=4).contains(&array.length) {
        return Err(fault("a message is an array of 3 or 4 elements"));
    }
    let mut at = array.octets;
    let kind = head(at)?;
    at += kind.octets;
    let kind = match (kind.unsigned, kind.length, array.length) {
        (true, 0, 4) => Call::REQUEST,
        (true, 1, 4) => Call::RESPONSE,
        (true, 2, 3) => Call::NOTIFICATION,
        _ => return Err(fault("a message is [0, id, method, params] or [2, method, params]")),
    };
    if kind == Call::RESPONSE {
        return Ok(Call { kind, id: 0, method: 0..0, params: 0..0 });
    }
    let mut id = 0;
    if kind == Call::REQUEST {
        let number = head(at)?;
        id = number
            .unsigned
            .then(|| u32::try_from(number.length).ok())
            .flatten()
            .ok_or_else(|| fault("a request's number is a whole number of 32 bits"))?;
        at += number.octets;
    }
    let name = head(at)?;
    if !matches!(name.kind, Kind::Text | Kind::Octets) || name.length > LONGEST_METHOD {
        return Err(fault("a method's name is a text of at most 128 octets"));
    }
    at += name.octets;
    let method = start + at..start + at + name.length;
    at += name.length;
    if head(at)?.kind != Kind::Array {
        return Err(fault("params are an array, with one map in it or with values in the order of the schema"));
    }
    Ok(Call { kind, id, method, params: start + at..start + message.len() })
}

#[cfg(test)]
mod tests {
    use super::super::scan::DEEPEST;
    use super::*;

    /// Kind, number, method, params.
    type Found = (u8, u32, Vec<u8>, Vec<u8>);

    /// Everything the scanner finds in `octets`, fed in pieces of `step`, and how it ended.
    fn scan(octets: &[u8], step: usize) -> (Vec<Found>, Option<Fault>) {
        let mut scanner = Scanner::new(Limits { octets: 4096, ..Limits::default() });
        let mut calls = Vec::new();
        for piece in octets.chunks(step) {
            scanner.feed(piece);
            while let Some(found) = scanner.next() {
                match found {
                    Ok(call) => {
                        let (method, params) = (scanner.method(&call).to_vec(), scanner.params(&call).to_vec());
                        calls.push((call.kind, call.id, method, params));
                    }
                    Err(fault) => return (calls, Some(fault)),
                }
            }
        }
        (calls, None)
    }

    const PING: &[u8] = b"\x94\x00\x07\xa8rpc.ping\x91\x80";

    #[test]
    fn calls_are_found_however_they_are_cut() {
        let mut octets = PING.to_vec();
        octets.extend_from_slice(b"\x93\x02\xc4\x01x\x90");
        octets.extend_from_slice(b"\x94\x01\x07\xc0\xc0");
        octets.extend_from_slice(b"\x94\x00\xce\xff\xff\xff\xff\xa1y\xdc\x00\x01\x81\xa1k\xcb\x3f\xf0\0\0\0\0\0\0");
        let wanted = vec![
            (Call::REQUEST, 7, b"rpc.ping".to_vec(), b"\x91\x80".to_vec()),
            (Call::NOTIFICATION, 0, b"x".to_vec(), b"\x90".to_vec()),
            (Call::RESPONSE, 0, Vec::new(), Vec::new()),
            (Call::REQUEST, u32::MAX, b"y".to_vec(), octets[octets.len() - 15..].to_vec()),
        ];
        for step in 1..octets.len() {
            assert_eq!(scan(&octets, step), (wanted.clone(), None), "step {step}");
        }
    }

    #[test]
    fn every_rule_has_its_own_words() {
        let call = |params: &[u8]| [b"\x94\x00\x07\xa1m\x91", params].concat();
        let deep = |levels: usize| call(&vec![0x91; levels - 2]);
        let cases: Vec<(Vec<u8>, Violation)> = vec![
            (call(b"\xc1"), Violation::Reserved),
            (call(b"\xd6\xff\0\0\0\0"), Violation::Extension),
            (call(b"\xc7\xff\x01"), Violation::Extension),
            (call(b"\x81\x01\x02"), Violation::Key),
            (call(b"\x81\xc4\x01a\x02"), Violation::Key),
            (call(b"\x82\xa1a\x01\xa1a\x02"), Violation::TwoKeys),
            (call(b"\x82\xa1a\x82\xa1b\x01\xa1c\x02\xd9\x01a\x02"), Violation::TwoKeys),
            (call(b"\xa2\xff\xfe"), Violation::Text),
            (call(b"\xca\x7f\xc0\0\0"), Violation::Float),
            (call(b"\xcb\xff\xf0\0\0\0\0\0\0"), Violation::Float),
            (call(b"\xdd\xff\xff\xff\xff"), Violation::TooLong(4096)),
            (call(b"\xdf\xff\xff\xff\xff"), Violation::TooLong(4096)),
            (call(b"\xc6\xff\xff\xff\xff"), Violation::TooLong(4096)),
            (deep(DEEPEST + 1), Violation::TooDeep(DEEPEST)),
        ];
        for (octets, violation) in cases {
            for step in [1, octets.len()] {
                let (calls, fault) = scan(&octets, step);
                assert_eq!((calls.len(), fault), (0, Some(Fault { id: Some(7), violation })), "{octets:02x?}");
            }
        }
        assert_eq!(scan(&deep(DEEPEST), 1), (vec![], None), "the deepest that is allowed waits for its end");
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        for octets in [
            &b"\x00"[..],
            b"\xc0",
            b"GET / HTTP/1.1\r\n",
            b"\x80",
            b"\x92\x00\x01",
            b"\x95\x00\x01\xa1m\x90\x00",
            b"\x94\x02\x07\xa1m\x90",
            b"\x94\x00\xff\xa1m\x90",
            b"\x94\x00\x07\x05\x90",
            b"\x94\x00\x07\xa1m\x80",
            b"\x94\x00\xcf\0\0\0\x01\0\0\0\0\xa1m\x90",
        ] {
            let (calls, fault) = scan(octets, octets.len());
            assert!(calls.is_empty());
            assert!(matches!(fault.unwrap().violation, Violation::Envelope(_)), "{octets:02x?}");
        }
    }

    #[test]
    fn values_are_counted_and_a_fault_stays() {
        let mut scanner = Scanner::new(Limits { values: 8, ..Limits::default() });
        scanner.feed(b"\x94\x00\x07\xa1m\x93\xc0\xc0\xc0\x94\x00\x07\xa1m\x94\xc0\xc0\xc0\xc0");
        assert!(scanner.next().unwrap().is_ok());
        let fault = Fault { id: Some(7), violation: Violation::TooMany(8) };
        assert_eq!(scanner.next(), Some(Err(fault)));
        scanner.feed(PING);
        assert_eq!(scanner.next(), Some(Err(fault)));
        assert!(scanner.waiting() < 32);
    }

    #[test]
    fn slow_octets_cost_no_second_walk() {
        // A message of 4,000 octets, one at a time: a scanner that began again would walk 8 million.
        let text = vec![b'a'; 200];
        let mut octets = b"\x94\x00\x07\xa1m\xdc\x00\x13".to_vec();
        for _ in 0..19 {
            octets.extend_from_slice(&[0xD9, 200]);
            octets.extend_from_slice(&text);
        }
        let (calls, fault) = scan(&octets, 1);
        assert_eq!((calls.len(), fault), (1, None));
    }
}
