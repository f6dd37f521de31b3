//! Values, names and units for people and scripts: one at a time, never on the hot path.

use std::sync::Arc;

use ipss_dlms::axdr::{BitString, Data, Date, DateTime, Time};
use ipss_dlms::axdr::{BufferShape, decode_buffer, decode_value};
use ipss_dlms::cosem::{catalogue, classes, units};
use ipss_dlms::profile::Profile;
use ipss_dlms::security::{Channel, CounterBlock, HighWater, Key, Sealer, Suite, SystemTitle};
use ipss_session::{Batch, Limits, Line, ProtocolError, WallTime};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::batch::PyBatch;
use super::meter::protection_named;
use super::plan::name;

pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decode_data, module)?)?;
    module.add_function(wrap_pyfunction!(encode_data, module)?)?;
    module.add_function(wrap_pyfunction!(unit_symbol, module)?)?;
    module.add_function(wrap_pyfunction!(catalogue_entry, module)?)?;
    module.add_function(wrap_pyfunction!(attribute_names, module)?)?;
    module.add_function(wrap_pyfunction!(named_value, module)?)?;
    module.add_class::<Decipher>()
}

/// See `_core.pyi`.
#[pyfunction]
fn decode_data<'py>(py: Python<'py>, octets: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let data = Data::from_octets(octets, &Limits::default()).map_err(broken)?;
    to_python(py, &data)
}

/// See `_core.pyi`.
#[pyfunction]
fn encode_data<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let limits = Limits::default();
    Ok(PyBytes::new(py, &from_python(value, limits.depth)?.to_octets()))
}

/// See `_core.pyi`.
#[pyfunction]
fn unit_symbol(unit: u8) -> &'static str {
    units::Unit(unit).symbol().unwrap_or("")
}

/// See `_core.pyi`.
#[pyfunction(name = "catalogue")]
fn catalogue_entry<'py>(py: Python<'py>, logical_name: &[u8]) -> PyResult<Option<Bound<'py, PyDict>>> {
    let logical_name = name(logical_name)?;
    let Some(found) = catalogue::lookup(logical_name) else { return Ok(None) };
    let entry = PyDict::new(py);
    entry.set_item("class_id", found.class_id)?;
    entry.set_item("name", found.name)?;
    entry.set_item("unit", found.unit.and_then(units::Unit::symbol))?;
    entry.set_item("direction", found.direction)?;
    entry.set_item("reading_type", found.reading_type(logical_name, 0))?;
    Ok(Some(entry))
}

/// See `_core.pyi`.
#[pyfunction]
fn named_value(class_id: u16, attribute: i8, octets: &[u8]) -> PyResult<String> {
    let mut text = String::new();
    let mut write = |piece: &str| text.push_str(piece);
    let mut json = ipss_session::json::Json::new(&mut write);
    ipss_dlms::translate::write_named(class_id, attribute, octets, &Limits::default(), &mut json).map_err(broken)?;
    Ok(text)
}

/// See `_core.pyi`.
#[pyfunction]
fn attribute_names(class_id: u16) -> Vec<&'static str> {
    let class = classes::class(class_id);
    class.map(|class| class.attributes.iter().map(|attribute| attribute.name).collect()).unwrap_or_default()
}

/// See `_core.pyi`.
#[pyclass(module = "ipss_headend._core", frozen)]
struct Decipher {
    profile: Arc<Profile>,
    title: SystemTitle,
    encryption_key: Key,
    authentication_key: Key,
}

#[pymethods]
impl Decipher {
    #[new]
    #[pyo3(signature = (system_title, encryption_key, authentication_key, protection="auth+enc"))]
    fn new(system_title: &[u8], encryption_key: &[u8], authentication_key: &[u8], protection: &str) -> PyResult<Self> {
        let encryption_key = Key::from_slice(encryption_key).map_err(broken)?;
        let suite = if matches!(encryption_key, Key::Aes256(_)) { Suite::Two } else { Suite::Zero };
        Ok(Self {
            profile: Arc::new(Profile { suite, protection: protection_named(protection)?, ..Profile::public() }),
            title: SystemTitle::from_slice(system_title).map_err(broken)?,
            encryption_key,
            authentication_key: Key::from_slice(authentication_key).map_err(broken)?,
        })
    }

    /// The value of a ciphered get-response, deciphered and decoded.
    fn value<'py>(&self, py: Python<'py>, apdu: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let mut apdu = apdu.to_vec();
        match decode_value(self.open(&mut apdu)?, &Limits::default()).map_err(broken)? {
            ipss_session::Cell::Integer(integer) => integer.into_bound_py_any(py),
            ipss_session::Cell::Null => Ok(py.None().into_bound(py)),
            ipss_session::Cell::Raw(octets) => Ok(PyBytes::new(py, octets).into_any()),
        }
    }

    /// The lines of a profile's buffer in a ciphered get-response, deciphered and decoded.
    #[pyo3(signature = (apdu, columns, clock_column=Some(0), capture_period_s=900))]
    fn buffer(&self, apdu: &[u8], columns: u16, clock_column: Option<u16>, capture_period_s: u32) -> PyResult<PyBatch> {
        let mut apdu = apdu.to_vec();
        let value = self.open(&mut apdu)?;
        let shape = BufferShape { columns, clock_column, status_column: None, capture_period_s };
        let head = Line {
            meter: 0,
            request: 0,
            item: 0,
            layout: 1,
            capture_time: WallTime::UNKNOWN,
            deviation: Line::NO_DEVIATION,
            clock_status: 0xFF,
        };
        let mut batch = Batch::default();
        decode_buffer(value, &shape, head, &Limits::default(), &mut batch).map_err(broken)?;
        Ok(PyBatch(batch))
    }
}

impl Decipher {
    /// Open a get-response in place and find its value.
    fn open<'a>(&self, apdu: &'a mut [u8]) -> PyResult<&'a [u8]> {
        let own = Sealer::new(SystemTitle::default(), self.encryption_key.clone(), CounterBlock::default());
        let mut channel = Channel::new(own, self.authentication_key.clone(), self.title, HighWater::default());
        let plain = channel.unprotect(&self.profile, apdu).map_err(broken)?;
        let limits = Limits::default();
        let response = ipss_dlms::apdu::get::GetResponse::decode(&apdu[plain.start..plain.end], &limits);
        match response.map_err(broken)? {
            ipss_dlms::apdu::get::GetResponse::Normal {
                result: ipss_dlms::apdu::DataOrResult::Data(octets), ..
            } => Ok(octets),
            _ => Err(PyValueError::new_err("no get-response-normal with data")),
        }
    }
}

fn broken(error: ProtocolError) -> PyErr {
    PyValueError::new_err(format!("{}: {error}", error.code))
}

fn to_python<'py>(py: Python<'py>, data: &Data) -> PyResult<Bound<'py, PyAny>> {
    let value = match data {
        Data::Null | Data::DontCare => py.None().into_bound(py),
        Data::Array(elements) | Data::Structure(elements) => list(py, elements)?,
        Data::CompactArray(_) => {
            let elements = data.elements().unwrap_or_default();
            let array = list(py, elements)?;
            return PyList::new(py, ["array".into_bound_py_any(py)?, array])?.into_bound_py_any(py);
        }
        Data::Boolean(value) => value.into_bound_py_any(py)?,
        Data::BitString(bits) => {
            bits.iter().map(|bit| if bit { '1' } else { '0' }).collect::<String>().into_bound_py_any(py)?
        }
        Data::OctetString(octets) => hex(octets).into_bound_py_any(py)?,
        Data::VisibleString(octets) | Data::Utf8String(octets) => {
            String::from_utf8_lossy(octets).into_bound_py_any(py)?
        }
        Data::FloatingPoint(value) | Data::Float32(value) => value.into_bound_py_any(py)?,
        Data::Float64(value) => value.into_bound_py_any(py)?,
        Data::DateTime(value) => date_time(py, *value)?,
        Data::Date(value) => date(py, *value)?.into_any(),
        Data::Time(value) => time(py, *value)?.into_any(),
        // The standard's BCD is one octet, which people read in hexadecimal.
        Data::Bcd(value) => value.into_bound_py_any(py)?,
        other => other.as_integer().into_bound_py_any(py)?,
    };
    PyList::new(py, [data.type_name().into_bound_py_any(py)?, value])?.into_bound_py_any(py)
}

fn list<'py>(py: Python<'py>, elements: &[Data]) -> PyResult<Bound<'py, PyAny>> {
    let elements = elements.iter().map(|element| to_python(py, element)).collect::<PyResult<Vec<_>>>()?;
    PyList::new(py, elements)?.into_bound_py_any(py)
}

fn date_time(py: Python<'_>, value: DateTime) -> PyResult<Bound<'_, PyAny>> {
    let parts = date(py, value.date())?;
    parts.update(time(py, value.time())?.as_mapping())?;
    parts.set_item("deviation_min", value.deviation())?;
    parts.set_item("status", value.status())?;
    parts.set_item("raw", hex(&value.0))?;
    Ok(parts.into_any())
}

fn date(py: Python<'_>, value: Date) -> PyResult<Bound<'_, PyDict>> {
    let parts = PyDict::new(py);
    parts.set_item("year", value.year())?;
    parts.set_item("month", value.month())?;
    parts.set_item("day", value.day())?;
    parts.set_item("dow", value.day_of_week())?;
    parts.set_item("raw", hex(&value.0))?;
    Ok(parts)
}

fn time(py: Python<'_>, value: Time) -> PyResult<Bound<'_, PyDict>> {
    let parts = PyDict::new(py);
    parts.set_item("hour", value.hour())?;
    parts.set_item("minute", value.minute())?;
    parts.set_item("second", value.second())?;
    parts.set_item("hundredths", value.hundredths())?;
    parts.set_item("raw", hex(&value.0))?;
    Ok(parts)
}

fn from_python(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Data> {
    let wrong = || PyValueError::new_err("a value is [type, value], as [\"long-unsigned\", 230]");
    let [kind, content]: [Bound<'_, PyAny>; 2] = value.extract().map_err(|_| wrong())?;
    let kind: String = kind.extract().map_err(|_| wrong())?;
    let elements = || -> PyResult<Vec<Data>> {
        let depth = depth.checked_sub(1).ok_or_else(|| PyValueError::new_err("nested too deeply"))?;
        content.try_iter()?.map(|element| from_python(&element?, depth)).collect()
    };
    let octets = || -> PyResult<Vec<u8>> { unhex(&content.extract::<String>()?) };
    Ok(match kind.as_str() {
        "null-data" => Data::Null,
        "dont-care" => Data::DontCare,
        "array" => Data::Array(elements()?),
        "structure" => Data::Structure(elements()?),
        "boolean" => Data::Boolean(content.extract()?),
        "bit-string" => {
            let text: String = content.extract()?;
            if text.chars().any(|bit| !matches!(bit, '0' | '1')) {
                return Err(PyValueError::new_err("a bit-string is written in 0 and 1"));
            }
            Data::BitString(BitString::from_bits(&text.chars().map(|bit| bit == '1').collect::<Vec<_>>()))
        }
        "double-long" => Data::DoubleLong(content.extract()?),
        "double-long-unsigned" => Data::DoubleLongUnsigned(content.extract()?),
        "floating-point" => Data::FloatingPoint(content.extract()?),
        "octet-string" => Data::OctetString(octets()?),
        "visible-string" => Data::VisibleString(content.extract::<String>()?.into_bytes()),
        "utf8-string" => Data::Utf8String(content.extract::<String>()?.into_bytes()),
        "bcd" => Data::Bcd(content.extract()?),
        "integer" => Data::Integer(content.extract()?),
        "long" => Data::Long(content.extract()?),
        "unsigned" => Data::Unsigned(content.extract()?),
        "long-unsigned" => Data::LongUnsigned(content.extract()?),
        "long64" => Data::Long64(content.extract()?),
        "long64-unsigned" => Data::Long64Unsigned(content.extract()?),
        "enum" => Data::Enum(content.extract()?),
        "float32" => Data::Float32(content.extract()?),
        "float64" => Data::Float64(content.extract()?),
        "date-time" => Data::DateTime(DateTime(raw(&content)?)),
        "date" => Data::Date(Date(raw(&content)?)),
        "time" => Data::Time(Time(raw(&content)?)),
        other => return Err(PyValueError::new_err(format!("'{other}' is not a type of the Blue Book"))),
    })
}

/// The octets of a date or time: hexadecimal, or an object with them under `raw`.
fn raw<const N: usize>(content: &Bound<'_, PyAny>) -> PyResult<[u8; N]> {
    let text: String = match content.extract::<String>() {
        Ok(text) => text,
        Err(_) => content.get_item("raw")?.extract()?,
    };
    let octets = unhex(&text)?;
    octets.try_into().map_err(|_| PyValueError::new_err(format!("'{text}': {N} octets in hexadecimal wanted")))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn unhex(text: &str) -> PyResult<Vec<u8>> {
    let wrong = || PyValueError::new_err(format!("'{text}' is not hexadecimal"));
    if !text.is_ascii() || text.len() % 2 != 0 {
        return Err(wrong());
    }
    let digit = |digits: &str| u8::from_str_radix(digits, 16).map_err(|_| wrong());
    (0..text.len()).step_by(2).map(|at| digit(&text[at..at + 2])).collect()
}
