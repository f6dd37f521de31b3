//! Ciphered frames by request, for whoever compares them with another implementation's (`tests/interop/test_oracle.py`).
//!
//! A line in, a line out, hexadecimal fields apart by spaces:
//!
//! ```text
//! seal SUITE PROTECTION KEY AUTHENTICATION_KEY TITLE COUNTER PLAIN   ->  SC || IC || content || tag
//! open SUITE PROTECTION KEY AUTHENTICATION_KEY TITLE OCTETS          ->  the plain octets, or ! and why not
//! ```
//!
//! SUITE is 0 to 2, PROTECTION 16, 32 or 48: authenticated, encrypted, both.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

use ipss_dlms::security::{CounterBlock, HighWater, Key, Protection, Sealer, Suite, SystemTitle, cipher};
use ipss_dlms::translate::parse_hex;

fn answer(line: &str) -> Result<String, Box<dyn Error>> {
    let [what, suite, protection, key, authentication_key, title, rest @ ..] = &line.split(' ').collect::<Vec<_>>()[..]
    else {
        return Err("too few fields".into());
    };
    let suite = Suite::from_number(suite.parse()?).ok_or("no such suite")?;
    let protection = match *protection {
        "16" => Protection::Authenticated,
        "32" => Protection::Encrypted,
        "48" => Protection::Both,
        _ => return Err("no such protection".into()),
    };
    let hex = |text: &str| parse_hex(text);
    let key = Key::from_slice(&hex(key)?)?;
    let authentication_key = Key::from_slice(&hex(authentication_key)?)?;
    let title = SystemTitle::from_slice(&hex(title)?)?;
    match (*what, rest) {
        ("seal", [counter, plain]) => {
            let counter: u32 = counter.parse()?;
            let block = CounterBlock::new(counter, counter.saturating_add(1));
            let mut octets = hex(plain)?;
            Sealer::of_suite(suite, title, key, block)?.seal(protection, &authentication_key, &mut octets, 0)?;
            Ok(text(&octets))
        }
        ("open", [octets]) => {
            let mut octets = hex(octets)?;
            let mut water = HighWater::default();
            let opened = cipher::open(suite, &key, &authentication_key, title, protection, &mut water, &mut octets);
            Ok(match opened {
                Ok(opened) => text(&octets[opened.start..opened.end]),
                Err(error) => format!("!{}", error.code),
            })
        }
        _ => Err("neither seal nor open".into()),
    }
}

fn text(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = stdout().lock();
    for line in stdin().lock().lines() {
        writeln!(out, "{}", answer(&line?)?)?;
    }
    Ok(())
}
