//! Plans: what to ask, made once.

use std::sync::Arc;

use ipss_dlms::axdr::BufferShape;
use ipss_dlms::cosem::descriptor::CaptureObject;
use ipss_dlms::cosem::{AttributeDescriptor, EntrySelection, LogicalName, MethodDescriptor};
use ipss_dlms::head_end::{Access, AccessList, Attributes, Buffer, Item, Plan, Wanted};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type Descriptor = (u16, Vec<u8>, i8);
type Capture = (u16, Vec<u8>, i8, u16);

/// See `_core.pyi`.
#[pyclass(name = "Item", module = "ipss_headend._core", frozen)]
pub struct PyItem(Item);

#[pymethods]
impl PyItem {
    #[staticmethod]
    #[pyo3(signature = (layout, attributes, *, capture_time=None))]
    fn attributes(layout: u32, attributes: Vec<Descriptor>, capture_time: Option<u16>) -> PyResult<Self> {
        if attributes.is_empty() || capture_time.is_some_and(|place| usize::from(place) >= attributes.len()) {
            return Err(PyValueError::new_err("attributes: none, or capture_time is not the place of one of them"));
        }
        let attributes = attributes.into_iter().map(attribute).collect::<PyResult<_>>()?;
        Ok(Self(Item::Attributes(Attributes { layout, attributes, capture_time })))
    }

    #[staticmethod]
    #[pyo3(signature = (layout, logical_name, columns, *, clock_column=Some(0), status_column=None, capture_period_s=0,
        select="range", entries=(1, 0, 1, 0), restricting=None, selected=Vec::new()))]
    #[allow(clippy::too_many_arguments)]
    fn buffer(
        layout: u32,
        logical_name: Vec<u8>,
        columns: u16,
        clock_column: Option<u16>,
        status_column: Option<u16>,
        capture_period_s: u32,
        select: &str,
        entries: (u32, u32, u16, u16),
        restricting: Option<Capture>,
        selected: Vec<Capture>,
    ) -> PyResult<Self> {
        if clock_column.is_some_and(|column| column >= columns) {
            return Err(PyValueError::new_err(format!("clock_column: there are {columns} columns, counted from 0")));
        }
        let wanted = match select {
            "all" => Wanted::All,
            "entries" => Wanted::Entries(EntrySelection {
                from_entry: entries.0,
                to_entry: entries.1,
                from_column: entries.2,
                to_column: entries.3,
            }),
            "range" => Wanted::Range {
                restricting_object: match restricting {
                    Some(object) => capture(object)?,
                    None => CaptureObject {
                        descriptor: AttributeDescriptor { class_id: 8, logical_name: LogicalName::CLOCK, attribute: 2 },
                        data_index: 0,
                    },
                },
                columns: selected.into_iter().map(capture).collect::<PyResult<_>>()?,
            },
            other => {
                return Err(PyValueError::new_err(format!("select: '{other}' is not one of range, all, entries")));
            }
        };
        let shape = BufferShape { columns, clock_column, status_column, capture_period_s };
        Ok(Self(Item::Buffer(Buffer { layout, logical_name: name(&logical_name)?, shape, wanted })))
    }

    #[staticmethod]
    fn set(descriptor: Descriptor, value: Vec<u8>) -> PyResult<Self> {
        Ok(Self(Item::Set([(attribute(descriptor)?, value.into())].into())))
    }

    #[staticmethod]
    fn set_list(values: Vec<(Descriptor, Vec<u8>)>) -> PyResult<Self> {
        if values.is_empty() {
            return Err(PyValueError::new_err("values: none to write"));
        }
        let values = values.into_iter().map(|(descriptor, value)| Ok((attribute(descriptor)?, value.into())));
        Ok(Self(Item::Set(values.collect::<PyResult<_>>()?)))
    }

    #[staticmethod]
    #[pyo3(signature = (descriptor, parameters=None))]
    fn action(descriptor: Descriptor, parameters: Option<Vec<u8>>) -> PyResult<Self> {
        Ok(Self(Item::Action(method(descriptor)?, parameters.map(Into::into))))
    }

    #[staticmethod]
    fn actions(methods: Vec<(Descriptor, Option<Vec<u8>>)>) -> PyResult<Self> {
        if methods.is_empty() {
            return Err(PyValueError::new_err("methods: no method to invoke"));
        }
        let list =
            methods.into_iter().map(|(descriptor, parameters)| Ok((method(descriptor)?, parameters.map(Into::into))));
        Ok(Self(Item::Actions(list.collect::<PyResult<_>>()?)))
    }

    #[staticmethod]
    #[pyo3(signature = (parts, *, break_on_error=false, self_descriptive=false))]
    fn access(
        parts: Vec<(String, Descriptor, Option<Vec<u8>>)>,
        break_on_error: bool,
        self_descriptive: bool,
    ) -> PyResult<Self> {
        if parts.is_empty() {
            return Err(PyValueError::new_err("parts: nothing to read, write or invoke"));
        }
        let items = parts.into_iter().map(|(kind, descriptor, value)| match (kind.as_str(), value) {
            ("get", None) => Ok(Access::Get(attribute(descriptor)?, None)),
            ("set", Some(value)) => Ok(Access::Set(attribute(descriptor)?, value.into())),
            ("action", value) => Ok(Access::Action(method(descriptor)?, value.map(Into::into))),
            ("get", Some(_)) => Err(PyValueError::new_err("parts: what is read has no value")),
            ("set", None) => Err(PyValueError::new_err("parts: what is written needs a value")),
            (other, _) => Err(PyValueError::new_err(format!("parts: '{other}' is not one of get, set, action"))),
        });
        let items = items.collect::<PyResult<_>>()?;
        Ok(Self(Item::Access(Box::new(AccessList { items, break_on_error, self_descriptive }))))
    }

    #[staticmethod]
    fn unconfirmed(item: &Self) -> PyResult<Self> {
        match &item.0 {
            item @ (Item::Set(_) | Item::Action(..)) => Ok(Self(Item::Unconfirmed(Box::new(item.clone())))),
            _ => Err(PyValueError::new_err("item: only what set, set_list or action made can do without an answer")),
        }
    }
}

/// See `_core.pyi`.
#[pyclass(name = "Plan", module = "ipss_headend._core", frozen)]
pub struct PyPlan(pub Arc<Plan>);

#[pymethods]
impl PyPlan {
    #[new]
    fn new(items: &Bound<'_, PyAny>) -> PyResult<Self> {
        let items =
            items.try_iter()?.map(|item| Ok(item?.cast::<PyItem>()?.get().0.clone())).collect::<PyResult<Vec<_>>>()?;
        if items.len() > usize::from(u16::MAX) {
            return Err(PyValueError::new_err(format!("a plan of {} items; at most 65,535", items.len())));
        }
        Ok(Self(Arc::new(Plan { items: items.into() })))
    }

    fn __len__(&self) -> usize {
        self.0.items.len()
    }
}

fn attribute((class_id, logical_name, attribute): Descriptor) -> PyResult<AttributeDescriptor> {
    Ok(AttributeDescriptor { class_id, logical_name: name(&logical_name)?, attribute })
}

fn method(descriptor: Descriptor) -> PyResult<MethodDescriptor> {
    let AttributeDescriptor { class_id, logical_name, attribute: method } = attribute(descriptor)?;
    Ok(MethodDescriptor { class_id, logical_name, method })
}

fn capture((class_id, logical_name, attribute_id, data_index): Capture) -> PyResult<CaptureObject> {
    Ok(CaptureObject { descriptor: attribute((class_id, logical_name, attribute_id))?, data_index })
}

/// A logical name from its six octets.
pub fn name(octets: &[u8]) -> PyResult<LogicalName> {
    let octets = octets.try_into();
    octets.map(LogicalName).map_err(|_| PyValueError::new_err("a logical name has six octets"))
}
