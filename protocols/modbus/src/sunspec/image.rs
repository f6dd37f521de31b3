//! Register images: blocks that are built, changed and asked by the names of their points.

use super::chain::{HEADER, MARKER};
use super::layout::{Place, walk};
use super::model::{Count, Group, Model, Point, model};
use super::value::{Value, ValueError};
use crate::decimal::Decimal;

/// The registers of one model, number and length in front.
#[derive(Clone, Debug)]
pub struct BlockImage {
    model: &'static Model,
    registers: Vec<u16>,
}

/// A value's place and its registers: what a write request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its first register, counted from the block's first.
    pub offset: usize,
    /// What to put there.
    pub registers: Vec<u16>,
}

impl BlockImage {
    /// A block in which nothing is implemented yet. `counts` names the points that say how often groups repeat, and
    /// for groups that fill the model (`repeating`, `module`) the group itself; what is not named stands once.
    ///
    /// # Errors
    /// There is no such model, or it would be longer than a length can say.
    pub fn new(id: u16, counts: &[(&str, u16)]) -> Result<Self, ValueError> {
        let model = model(id).ok_or_else(|| ValueError::new(&id.to_string(), "is no published model"))?;
        let mut registers = Vec::new();
        append(&model.group, counts, &mut registers);
        let length = u16::try_from(registers.len() - HEADER)
            .map_err(|_| ValueError::new(&id.to_string(), format!("{} registers are too many", registers.len())))?;
        registers[..HEADER].copy_from_slice(&[id, length]);
        Ok(Self { model, registers })
    }

    /// A block as a device sent it. The model is that of its first register.
    pub fn from_registers(registers: &[u16]) -> Option<Self> {
        Some(Self { model: model(*registers.first()?)?, registers: registers.to_vec() })
    }

    /// Its model.
    pub fn model(&self) -> &'static Model {
        self.model
    }

    /// Its registers.
    pub fn registers(&self) -> &[u16] {
        &self.registers
    }

    /// Put registers where a write request says; false if they do not fit.
    pub fn write(&mut self, offset: usize, registers: &[u16]) -> bool {
        let end = offset.saturating_add(registers.len());
        match self.registers.get_mut(offset..end) {
            Some(place) => {
                place.copy_from_slice(registers);
                true
            }
            None => false,
        }
    }

    /// Ask the point of this name, `W` or `Crv[1].Pt[3].V`.
    ///
    /// # Errors
    /// There is no such point in this block.
    pub fn with<T>(&self, name: &str, ask: impl FnOnce(&Place<'_>) -> T) -> Result<T, ValueError> {
        let (mut ask, mut answer) = (Some(ask), None);
        let last = name.rsplit('.').next().unwrap_or(name);
        walk(self.model, &self.registers, &mut |place| {
            if place.point.name == last && place.name() == name {
                if let Some(ask) = ask.take() {
                    answer = Some(ask(&place));
                }
            }
        });
        answer.ok_or_else(|| {
            ValueError::new(name, format!("is no point of model {} as long as it is here", self.model.id))
        })
    }

    /// What a point says.
    ///
    /// # Errors
    /// There is no such point in this block.
    pub fn get(&self, name: &str) -> Result<Value, ValueError> {
        self.with(name, |place| place.value())
    }

    /// What a point means, scaled; `None` if it is not implemented or no number.
    ///
    /// # Errors
    /// There is no such point in this block.
    pub fn number(&self, name: &str) -> Result<Option<Decimal>, ValueError> {
        self.with(name, |place| place.number(&place.value()))
    }

    /// Put a value, unscaled.
    ///
    /// # Errors
    /// There is no such point, or the value does not go into it.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), ValueError> {
        let (offset, point) = self.with(name, |place| (place.offset, place.point))?;
        self.put(offset, point, value)
    }

    /// Put a number, scaled as the point's scale factor says now, rounded to what it can say.
    ///
    /// # Errors
    /// There is no such point, its scale factor is not usable, or the number does not go into it.
    pub fn set_number(&mut self, name: &str, number: Decimal) -> Result<(), ValueError> {
        let (offset, point, scaler) = self.with(name, |place| (place.offset, place.point, place.scaler()))?;
        let value = scaled(point, name, number, scaler, Decimal::rounded_at)?;
        self.put(offset, point, &value)
    }

    /// What to write to set a point to a number: exact, or refused, because a set point that is rounded is another
    /// set point.
    ///
    /// # Errors
    /// There is no such point, it may not be written, its scale factor is not usable, or the number cannot be said.
    pub fn write_of(&self, name: &str, number: Decimal) -> Result<Write, ValueError> {
        let (offset, point, scaler) = self.with(name, |place| (place.offset, place.point, place.scaler()))?;
        if !point.writable {
            return Err(ValueError::new(name, "may only be read"));
        }
        let value = scaled(point, name, number, scaler, Decimal::at)?;
        let mut registers = Vec::new();
        point.encode(&value, &mut registers)?;
        Ok(Write { offset, registers })
    }

    fn put(&mut self, offset: usize, point: &Point, value: &Value) -> Result<(), ValueError> {
        let mut registers = Vec::new();
        point.encode(value, &mut registers)?;
        self.write(offset, &registers);
        Ok(())
    }
}

/// A whole device: `SunS`, its blocks, and the end model.
pub fn device(blocks: &[BlockImage]) -> Vec<u16> {
    let mut image = MARKER.to_vec();
    for block in blocks {
        image.extend_from_slice(&block.registers);
    }
    image.extend([0xFFFF, 0]);
    image
}

fn scaled(
    point: &Point,
    name: &str,
    number: Decimal,
    scaler: Option<i8>,
    at: impl Fn(Decimal, i8) -> Option<i128>,
) -> Result<Value, ValueError> {
    use super::model::PointType;
    let float = || number.to_string().parse::<f64>().unwrap_or(f64::NAN);
    match point.kind {
        PointType::Float32 => Ok(Value::Float32(float() as f32)),
        PointType::Float64 => Ok(Value::Float64(float())),
        kind if kind.is_integer() => {
            let scaler = scaler.ok_or_else(|| ValueError::new(name, "its scale factor is not known"))?;
            at(number, scaler).map(Value::Integer).ok_or_else(|| {
                ValueError::new(name, format!("{number} cannot be said in steps of {}", Decimal::new(1, scaler)))
            })
        }
        kind => Err(ValueError::new(name, format!("takes no number but {}", kind.name()))),
    }
}

fn append(group: &Group, counts: &[(&str, u16)], registers: &mut Vec<u16>) {
    let named = |name: &str| counts.iter().find(|count| count.0 == name).map(|count| count.1);
    for point in &group.points {
        // A value that is not implemented always encodes; counts are numbers of one register.
        let counted = named(point.name).map_or(Value::NotImplemented, |count| Value::Integer(count.into()));
        if point.encode(&counted, registers).is_err() {
            let _ = point.encode(&Value::NotImplemented, registers);
        }
    }
    for inner in &group.groups {
        let count = match inner.count {
            Count::Single => 1,
            Count::Fixed(count) => count,
            Count::Fill => named(inner.name).unwrap_or(1),
            Count::Point(name) => named(name).unwrap_or(0),
        };
        for _ in 0..count {
            append(inner, counts, registers);
        }
    }
}
