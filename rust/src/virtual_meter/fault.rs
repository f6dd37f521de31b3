//! What is wrong with which meter, on request: a list of shares, drawn by the fleet's seed, or of named meters.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::fleet::SpecError;
use super::random::{below, noise};

/// One way in which a virtual meter misbehaves. A meter has at most one.
///
/// The session of the meter's end acts on them, the model on [`Fault::BadClock`], [`Fault::Lies`], [`Fault::Lags`] and [`Fault::Loses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Fault {
    /// Answers late.
    Slow,
    /// Accepts the connection and never answers.
    Silent,
    /// Closes the connection instead of giving some answers.
    Reset,
    /// Says yes to a switching and does nothing.
    Lies,
    /// Switches supply some seconds after it said yes.
    Lags,
    /// Switches supply, and goes away instead of answering.
    Reboots,
    /// Says yes to some blocks of an image and does not keep them.
    Loses,
    /// Some answers have a wrong authentication tag.
    WrongTag,
    /// Some answers are the one before, with its old invocation counter.
    Replay,
    /// Ends a block transfer before its last block.
    TruncatedBlock,
    /// Answers in the clear on a protected association.
    Plaintext,
    /// Sends octets that are no frame.
    Garbage,
    /// Answers as if another logical device did.
    Impostor,
    /// The clock is hours to weeks off.
    BadClock,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 14] = [
        Self::Slow,
        Self::Silent,
        Self::Reset,
        Self::Lies,
        Self::Lags,
        Self::Reboots,
        Self::Loses,
        Self::WrongTag,
        Self::Replay,
        Self::TruncatedBlock,
        Self::Plaintext,
        Self::Garbage,
        Self::Impostor,
        Self::BadClock,
    ];

    /// Name in a specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Reset => "reset",
            Self::Lies => "lies",
            Self::Lags => "lags",
            Self::Reboots => "reboots",
            Self::Loses => "loses",
            Self::WrongTag => "wrong-tag",
            Self::Replay => "replay",
            Self::TruncatedBlock => "truncated-block",
            Self::Plaintext => "plaintext",
            Self::Garbage => "garbage",
            Self::Impostor => "impostor",
            Self::BadClock => "clock-bad",
        }
    }
}

/// Which meters misbehave.
///
/// Read from text: `slow=5%,silent=1%,reset=0.5%` draws meters by the seed, `wrong-tag=#3+17` names them by their
/// number in the fleet, from 0. Named meters come before drawn ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Shares in thousandths of a per cent, in the order given.
    shares: Vec<(Fault, u32)>,
    named: BTreeMap<u32, Fault>,
}

/// A hundred per cent.
const ALL: u32 = 100_000;

impl Faults {
    /// Nothing is wrong anywhere.
    pub fn none() -> Self {
        Self::default()
    }

    /// What is wrong with meter `index` of the fleet with this seed.
    pub fn of(&self, seed: u64, index: u32) -> Option<Fault> {
        if let Some(fault) = self.named.get(&index) {
            return Some(*fault);
        }
        let mut draw = below(noise(seed, 9_001, i64::from(index)), ALL);
        for (fault, share) in &self.shares {
            if draw < *share {
                return Some(*fault);
            }
            draw -= share;
        }
        None
    }
}

impl FromStr for Faults {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut faults = Self::default();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, amount) = item.split_once('=').unwrap_or((item, ""));
            let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or_else(|| {
                let names = Fault::ALL.map(Fault::name).join(", ");
                SpecError::new(format!("faults: '{name}' is not a fault; use one of {names}"))
            })?;
            if let Some(numbers) = amount.strip_prefix('#') {
                for number in numbers.split('+') {
                    let index = number.parse().map_err(|_| {
                        SpecError::new(format!("faults: {name}: '{number}' is not a meter's number; write #3+17"))
                    })?;
                    faults.named.insert(index, fault);
                }
            } else {
                faults.shares.push((
                    fault,
                    share(amount).ok_or_else(|| {
                        SpecError::new(format!(
                            "faults: {name}: '{amount}' is not a share; write 0.5% or name meters as #3+17"
                        ))
                    })?,
                ));
            }
        }
        let total: u32 = faults.shares.iter().map(|(_, share)| share).sum();
        if total > ALL {
            return Err(SpecError::new("faults: the shares come to more than 100 %; a meter has at most one fault"));
        }
        Ok(faults)
    }
}

/// The text that [`Faults::from_str`] reads.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (fault, share) in &self.shares {
            write!(f, "{comma}{}={}.{:03}%", fault.name(), share / 1_000, share % 1_000)?;
            comma = ",";
        }
        for (index, fault) in &self.named {
            write!(f, "{comma}{}=#{index}", fault.name())?;
            comma = ",";
        }
        Ok(())
    }
}

/// Thousandths of a per cent from `5%` or `0.125%`.
pub(super) fn share(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?.trim();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 3 || fraction.len() > 3 {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse::<u32>().ok()?;
    Some(whole.parse::<u32>().ok()? * 1_000 + thousandths).filter(|share| *share <= ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_met_by_the_fleet() {
        let faults: Faults = "slow=5%, silent=1%,reset=0.5%".parse().unwrap();
        let count = |wanted| (0..100_000).filter(|index| faults.of(11, *index) == wanted).count();

        assert!((4_700..5_300).contains(&count(Some(Fault::Slow))));
        assert!((850..1_150).contains(&count(Some(Fault::Silent))));
        assert!((400..600).contains(&count(Some(Fault::Reset))));
        assert_eq!(count(Some(Fault::Replay)), 0);
    }

    #[test]
    fn named_meters_have_their_fault_and_nobody_else() {
        let faults: Faults = "wrong-tag=#3+17,clock-bad=#4".parse().unwrap();

        let found: Vec<_> = (0..100).filter_map(|index| faults.of(1, index).map(|fault| (index, fault))).collect();

        assert_eq!(found, [(3, Fault::WrongTag), (4, Fault::BadClock), (17, Fault::WrongTag)]);
        assert_eq!(faults.to_string().parse::<Faults>().unwrap(), faults);
    }

    #[test]
    fn bad_specifications_are_refused_with_the_remedy() {
        for (text, message) in [
            ("slw=5%", "faults: 'slw' is not a fault; use one of slow, "),
            ("slow", "faults: slow: '' is not a share"),
            ("slow=5", "faults: slow: '5' is not a share"),
            ("slow=5.%", "faults: slow: '5.%' is not a share"),
            ("slow=101%", "faults: slow: '101%' is not a share"),
            ("slow=60%,reset=60%", "faults: the shares come to more than 100 %"),
            ("slow=#x", "faults: slow: 'x' is not a meter's number"),
        ] {
            let error = text.parse::<Faults>().unwrap_err().to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}
