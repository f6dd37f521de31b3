//! The opening of mode E, both roles.

use ipss_session::{Instant, ProtocolError, SerialSettings};

use super::{ModeE, RATES};

/// What a meter says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identification<'a> {
    /// Three letters of the manufacturer.
    pub manufacturer: &'a str,
    /// The character of the rate that it offers.
    pub rate: u8,
    /// Whether it speaks HDLC after an acknowledgement for mode E.
    pub hdlc: bool,
    /// Its own words, without escape sequences.
    pub name: &'a str,
}

impl<'a> Identification<'a> {
    /// The line between `/` and the end of line, neither included; parity bits are cleared already.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        if !text.is_ascii() || text.len() < 4 || text.starts_with('?') {
            return None;
        }
        let (manufacturer, rest) = text.split_at(3);
        if !manufacturer.bytes().all(|octet| octet.is_ascii_alphabetic()) {
            return None;
        }
        let rate = rest.as_bytes()[0];
        let (mut name, mut hdlc) = (&rest[1..], false);
        // Escape sequences: a backslash and one character; W = 2 is binary mode with HDLC.
        while let Some(escaped) = name.strip_prefix('\\').filter(|escaped| !escaped.is_empty()) {
            hdlc |= escaped.starts_with('2');
            name = &escaped[1..];
        }
        Some(Self { manufacturer, rate, hdlc, name })
    }

    /// The rate in bits a second, if the character names one.
    pub fn baud(&self) -> Option<u32> {
        RATES.get(usize::from(self.rate.checked_sub(b'0')?)).copied()
    }
}

/// One end of the opening.
#[derive(Debug)]
pub struct Opening {
    config: ModeE,
    state: State,
    line: Vec<u8>,
    tries: u8,
    timer: Option<Instant>,
    serial: Option<SerialSettings>,
    baud: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Head-end: the line is being set to the first rate.
    Setting,
    /// Head-end: the identification is awaited.
    SignedOn,
    /// Meter: a sign-on, or its acknowledgement, is awaited.
    Listening,
    /// The acknowledgement leaves the line.
    Leaving,
    /// The line is being set to the new rate.
    Resting,
    /// HDLC may be spoken.
    Done,
}

/// What an opening says of octets or of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It goes on.
    Wait,
    /// It is over: HDLC from here.
    Done,
}

impl Opening {
    /// A head-end that signs on, or a meter that waits for it.
    pub fn new(config: &ModeE, head_end: bool, now: Instant) -> Self {
        Self {
            config: config.clone(),
            state: if head_end { State::Setting } else { State::Listening },
            line: Vec::new(),
            tries: 0,
            timer: head_end.then_some(now),
            serial: Some(SerialSettings::seven_even(config.first_baud)),
            baud: config.first_baud,
        }
    }

    /// How the line is to be driven from now on, asked once.
    pub fn take_serial(&mut self) -> Option<SerialSettings> {
        self.serial.take()
    }

    /// When to [`Opening::wake`] it.
    pub fn deadline(&self) -> Option<Instant> {
        self.timer
    }

    /// Take octets of a line; how many, and whether HDLC follows.
    ///
    /// # Errors
    /// Remote: `no-hdlc` if the meter speaks no mode E.
    pub fn feed(&mut self, octets: &[u8], now: Instant, out: &mut Vec<u8>) -> Result<(usize, Turn), ProtocolError> {
        for (index, octet) in octets.iter().enumerate() {
            // A meter that is spoken to in HDLC at once needs no opening.
            if self.state == State::Listening && self.line.is_empty() && *octet == super::super::hdlc::FLAG {
                self.state = State::Done;
                return Ok((index, Turn::Done));
            }
            // A driver without parity hands the parity bit up.
            let octet = octet & 0x7F;
            match octet {
                b'/' | ACK => self.line = vec![octet],
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(line.trim_ascii_end(), now, out)?;
                    if self.state == State::Done {
                        return Ok((index + 1, Turn::Done));
                    }
                }
                _ if self.line.is_empty() => {}
                _ if self.line.len() < LONGEST_LINE => self.line.push(octet),
                _ => self.line = Vec::new(),
            }
        }
        Ok((octets.len(), Turn::Wait))
    }

    fn take_line(&mut self, line: &[u8], now: Instant, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match (self.state, line) {
            (State::SignedOn, [b'/', rest @ ..]) => {
                // What does not parse is the echo of the sign-on, or noise.
                let Some(found) = Identification::parse(rest) else { return Ok(()) };
                if self.config.readout && found.baud().is_none() {
                    // Mode A: the data block follows at once.
                    self.state = State::Done;
                    self.timer = None;
                    return Ok(());
                }
                if !found.hdlc && !self.config.readout {
                    let message = format!("the meter {}{} offers no HDLC (mode E)", found.manufacturer, found.name);
                    return Err(ProtocolError::remote("optical", 0, "no-hdlc", message));
                }
                let offered = found.baud().unwrap_or(self.config.first_baud).min(self.config.most_baud);
                let rate = RATES.iter().rposition(|rate| *rate <= offered).unwrap_or_default();
                self.baud = RATES[rate];
                let before = out.len();
                let mode = if self.config.readout { b'0' } else { b'2' };
                out.extend_from_slice(&[ACK, mode, b'0' + rate as u8, mode, b'\r', b'\n']);
                self.state = State::Leaving;
                let time = SerialSettings::seven_even(self.config.first_baud).time(out.len() - before);
                self.timer = Some(now + time);
            }
            (State::Listening, [b'/', b'?', rest @ ..]) if rest.ends_with(b"!") => {
                let wanted = rest.trim_ascii_end().strip_suffix(b"!").unwrap_or_default();
                if wanted.is_empty() || wanted == self.config.device.as_bytes() {
                    let rate = RATES.iter().rposition(|rate| *rate <= self.config.most_baud).unwrap_or_default();
                    out.extend_from_slice(&[b"/IPS", &[b'0' + rate as u8][..], b"\\2VIRTUAL\r\n"].concat());
                }
            }
            (State::Listening, [ACK, b'2', rate @ b'0'..=b'9', b'2']) => {
                self.baud = RATES[usize::from(*rate - b'0')];
                self.state = State::Leaving;
                self.timer = Some(now);
            }
            _ => {}
        }
        Ok(())
    }

    /// Its deadline may have passed.
    ///
    /// # Errors
    /// Remote: `no-answer` when all sign-ons were in vain.
    pub fn wake(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<Turn, ProtocolError> {
        if self.timer.is_none_or(|at| at > now) {
            return Ok(Turn::Wait);
        }
        self.timer = None;
        match self.state {
            State::Setting | State::SignedOn => {
                if self.tries > self.config.retries {
                    let message = format!("no identification after {} sign-ons", self.tries);
                    return Err(ProtocolError::remote("optical", 0, "no-answer", message));
                }
                self.tries += 1;
                self.state = State::SignedOn;
                self.line = Vec::new();
                out.extend_from_slice(&[b"/?", self.config.device.as_bytes(), b"!\r\n"].concat());
                self.timer = Some(now + self.config.answer);
            }
            State::Leaving => {
                self.state = State::Resting;
                let settings = if self.config.readout { SerialSettings::seven_even } else { SerialSettings::new };
                self.serial = Some(settings(self.baud));
                self.timer = Some(now + self.config.pause);
            }
            State::Resting => {
                self.state = State::Done;
                return Ok(Turn::Done);
            }
            State::Listening | State::Done => {}
        }
        Ok(Turn::Wait)
    }

    /// Whether HDLC may be spoken.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the identification was acknowledged, or needs no acknowledgement: what arrives from now on is data.
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.state, State::Leaving | State::Resting | State::Done)
    }

    /// Whether octets that arrive are HDLC's, if any: the rate is the new one already.
    pub fn is_switched(&self) -> bool {
        matches!(self.state, State::Resting | State::Done)
    }
}

const ACK: u8 = 0x06;
/// An identification has at most 16 characters of name, and escape sequences.
const LONGEST_LINE: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifications_of_real_meters_are_read() {
        // Landis+Gyr E650 and a Kaifa, as published by their readers.
        let found = Identification::parse(b"LGZ4\\2ZMD3104407.B32").unwrap();
        assert_eq!((found.manufacturer, found.baud(), found.hdlc), ("LGZ", Some(4800), true));
        assert_eq!(found.name, "ZMD3104407.B32");
        let found = Identification::parse(b"ESY5Q3DA1004 V3.04").unwrap();
        assert_eq!((found.baud(), found.hdlc, found.name), (Some(9600), false, "Q3DA1004 V3.04"));
        for bad in [&b"?!"[..], b"", b"LG", b"123 4", b"LGZ\xFF4"] {
            assert_eq!(Identification::parse(bad), None);
        }
    }

    #[test]
    fn both_roles_open_the_line_and_change_its_rate() {
        let config = ModeE { most_baud: 9600, ..ModeE::default() };
        let mut now = Instant(1_000_000_000);
        let mut near = Opening::new(&config, true, now);
        let mut far = Opening::new(&config, false, now);
        assert_eq!(near.take_serial(), Some(SerialSettings::seven_even(300)));
        assert_eq!(far.take_serial(), Some(SerialSettings::seven_even(300)));
        let (mut to_far, mut to_near) = (Vec::new(), Vec::new());
        near.wake(now, &mut to_far).unwrap();
        assert_eq!(to_far, b"/?!\r\n");
        far.feed(&std::mem::take(&mut to_far), now, &mut to_near).unwrap();
        assert_eq!(to_near, b"/IPS5\\2VIRTUAL\r\n");
        // With the echo of a serial adapter and even parity in bit 7.
        let parity = |octets: &[u8]| -> Vec<u8> {
            octets.iter().map(|octet| octet | if octet.count_ones() % 2 == 1 { 0x80 } else { 0 }).collect()
        };
        near.feed(&parity(&[b"/?!\r\n", &to_near[..]].concat()), now, &mut to_far).unwrap();
        assert_eq!(to_far, [6, b'2', b'5', b'2', b'\r', b'\n']);
        far.feed(&to_far, now, &mut to_near).unwrap();
        far.wake(now, &mut to_near).unwrap();
        assert_eq!(far.take_serial(), Some(SerialSettings::new(9600)));
        assert_eq!(near.take_serial(), None, "six characters take 200 ms at 300 baud");
        now = now + std::time::Duration::from_millis(200);
        near.wake(now, &mut to_far).unwrap();
        assert_eq!(near.take_serial(), Some(SerialSettings::new(9600)));
        now = now + config.pause;
        assert_eq!(near.wake(now, &mut to_far), Ok(Turn::Done));
        assert_eq!(far.wake(now, &mut to_near), Ok(Turn::Done));
    }

    #[test]
    fn a_meter_without_hdlc_and_one_that_is_not_there_are_told_apart() {
        let mut now = Instant(1);
        let mut near = Opening::new(&ModeE::default(), true, now);
        let mut out = Vec::new();
        near.wake(now, &mut out).unwrap();
        assert_eq!(near.feed(b"/ESY5Q3DA1004\r\n", now, &mut out).unwrap_err().code, "no-hdlc");

        let mut near = Opening::new(&ModeE::default(), true, now);
        for _ in 0..4 {
            assert_eq!(near.wake(now, &mut out), Ok(Turn::Wait));
            now = now + ModeE::default().answer;
        }
        assert_eq!(near.wake(now, &mut out).unwrap_err().code, "no-answer");
    }
}
