//! Which point stands in which register of a block: groups repeat as often as counts and length say.

use super::model::{Count, Group, Model, Point, Scale};
use super::value::Value;
use crate::decimal::Decimal;

/// A group on the way to a point.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The group.
    pub group: &'static Group,
    /// Which of its repetitions, from 1; 0 if it does not repeat.
    pub index: u16,
    /// Its first register, counted from the block's first.
    start: usize,
}

/// A point in its place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The groups around it, the model's own first.
    pub path: &'a [Step],
    /// The point.
    pub point: &'static Point,
    /// Its first register, counted from the block's first.
    pub offset: usize,
    block: &'a [u16],
}

/// How far a reading can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As far as the device can.
    Good,
    /// The device does not have it.
    NotImplemented,
    /// The registers hold the not-implemented value of another type, or text that is none.
    Doubtful,
    /// Its scale factor is missing, not implemented or not in -10 to 10: the value is unscaled.
    ScaleUnknown,
}

impl Status {
    /// For logs and other programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NotImplemented => "not-implemented",
            Self::Doubtful => "doubtful",
            Self::ScaleUnknown => "scale-unknown",
        }
    }
}

impl Place<'_> {
    /// The point's registers.
    pub fn registers(&self) -> &[u16] {
        // A place is only made where all of them are there.
        self.block.get(self.offset..self.offset + usize::from(self.point.size)).unwrap_or_default()
    }

    /// What it says.
    pub fn value(&self) -> Value {
        self.point.decode(self.registers()).unwrap_or(Value::NotImplemented)
    }

    /// The power of ten: `Some(0)` for a point without one, `None` if its scale factor is not usable.
    pub fn scaler(&self) -> Option<i8> {
        match self.point.scale {
            Scale::None => Some(0),
            Scale::Fixed(scaler) => Some(scaler),
            Scale::Point(name) => {
                let factor = find(self.block, self.path, name)?;
                i8::try_from(factor as i16).ok().filter(|scaler| SCALE_FACTORS.contains(scaler))
            }
        }
    }

    /// Where its scale factor stands, counted from the block's first register.
    pub fn scale_offset(&self) -> Option<usize> {
        match self.point.scale {
            Scale::Point(name) => find_offset(self.path, name),
            _ => None,
        }
    }

    /// How far its value can be believed.
    pub fn status(&self, value: &Value) -> Status {
        match value {
            Value::NotImplemented => Status::NotImplemented,
            _ if self.point.is_doubtful(self.registers()) => Status::Doubtful,
            Value::Integer(_) if self.scaler().is_none() => Status::ScaleUnknown,
            _ => Status::Good,
        }
    }

    /// The number that it means: exact for integers, the shortest decimal for floats; `None` for what is no number.
    pub fn number(&self, value: &Value) -> Option<Decimal> {
        match value {
            Value::Integer(integer) => Some(Decimal::new(*integer, self.scaler().unwrap_or(0))),
            Value::Float32(float) => Decimal::from_f32(*float),
            Value::Float64(float) => Decimal::from_f64(*float),
            _ => None,
        }
    }

    /// Its name with the groups around it: `W`, `Crv[1].Pt[3].V`.
    pub fn name(&self) -> String {
        let mut name = String::new();
        for step in self.path.iter().skip(1) {
            name.push_str(step.group.name);
            if step.index > 0 {
                name.push_str(&format!("[{}]", step.index));
            }
            name.push('.');
        }
        name + self.point.name
    }
}

/// What a walk over a block found beside points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Registers that belong to points.
    pub used: usize,
    /// Whether a count asked for more repetitions than there is room for.
    pub cut: bool,
}

/// Show every point that is whole in `block` to `visit`, in the order of registers. `block` begins with the model's
/// number and length; what lies behind it is no part of the model. Time is linear in the block.
pub fn walk(model: &'static Model, block: &[u16], visit: &mut dyn FnMut(Place<'_>)) -> Walked {
    let mut walk = Walk { block, path: Vec::new(), visit, cut: false };
    let used = walk.group(&model.group, 0, 0);
    Walked { used: used.min(block.len()), cut: walk.cut }
}

struct Walk<'a> {
    block: &'a [u16],
    path: Vec<Step>,
    visit: &'a mut dyn FnMut(Place<'_>),
    cut: bool,
}

impl Walk<'_> {
    /// One repetition of a group that begins at `start`; where it ends. Groups nest as deep as the published models do.
    fn group(&mut self, group: &'static Group, index: u16, start: usize) -> usize {
        self.path.push(Step { group, index, start });
        for point in &group.points {
            let offset = start + usize::from(point.offset);
            if offset + usize::from(point.size) <= self.block.len() {
                (self.visit)(Place { path: &self.path, point, offset, block: self.block });
            }
        }
        let mut at = start + usize::from(group.length);
        for inner in &group.groups {
            at = self.repeated(inner, at);
        }
        self.path.pop();
        at
    }

    fn repeated(&mut self, group: &'static Group, start: usize) -> usize {
        let count = match group.count {
            Count::Single => return self.group(group, 0, start),
            Count::Fixed(count) => Some(count),
            Count::Fill => None,
            Count::Point(name) => {
                let count = find(self.block, &self.path, name).filter(|count| *count != NO_COUNT);
                Some(count.unwrap_or(0))
            }
        };
        let mut at = start;
        let mut index = 0;
        while count.is_none_or(|count| index < count) {
            if at + usize::from(group.length) > self.block.len() || group.length == 0 {
                self.cut |= count.is_some();
                break;
            }
            index += 1;
            at = self.group(group, index, at);
        }
        at
    }
}

/// The register of a point of one register in one of the groups on the path, innermost first.
fn find(block: &[u16], path: &[Step], name: &str) -> Option<u16> {
    block.get(find_offset(path, name)?).copied()
}

fn find_offset(path: &[Step], name: &str) -> Option<usize> {
    path.iter().rev().find_map(|step| {
        let point = step.group.points.iter().find(|point| point.name == name)?;
        Some(step.start + usize::from(point.offset))
    })
}

/// Scale factors that the specification allows.
const SCALE_FACTORS: std::ops::RangeInclusive<i8> = -10..=10;
/// A count that the device does not have.
const NO_COUNT: u16 = 0xFFFF;
