//! Short names: which 16 bits stand for which attribute or method (Blue Book, "Association SN", object list; short
//! names of attributes and methods follow from an object's base name).

use ipss_session::{Limits, ProtocolError};

use super::{AttributeDescriptor, LogicalName, MethodDescriptor};
use crate::axdr::{Data, tag, write_length};

/// An object of a meter with short names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortNamedObject {
    /// The short name of its first attribute, the logical name.
    pub base: u16,
    /// The interface class.
    pub class_id: u16,
    /// The class's version.
    pub version: u8,
    /// Its logical name.
    pub logical_name: LogicalName,
}

/// All objects of a meter with short names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShortNames {
    /// Ordered by class and logical name.
    objects: Box<[ShortNamedObject]>,
}

/// What a short name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// An attribute.
    Attribute(AttributeDescriptor),
    /// A method.
    Method(MethodDescriptor),
}

impl ShortNames {
    /// The base name of every meter's current association (Blue Book, "Reserved base names").
    pub const ASSOCIATION: u16 = 0xFA00;
    /// The association's object list.
    pub const OBJECT_LIST: u16 = Self::ASSOCIATION + 8;
    /// The association's method read_by_logicalname.
    pub const READ_BY_LOGICAL_NAME: u16 = Self::ASSOCIATION + 0x30;
    /// The association's method reply_to_HLS_authentication.
    pub const REPLY_TO_HLS: u16 = Self::ASSOCIATION + 0x58;

    /// The names of these objects.
    pub fn new(mut objects: Vec<ShortNamedObject>) -> Self {
        objects.sort_by_key(|object| (object.class_id, object.logical_name.0));
        Self { objects: objects.into() }
    }

    /// All objects.
    pub fn objects(&self) -> &[ShortNamedObject] {
        &self.objects
    }

    /// From the association's object list, one A-XDR value.
    ///
    /// # Errors
    /// Remote: `bad-object-list`, and what is wrong with the data.
    pub fn from_object_list(octets: &[u8], limits: &Limits) -> Result<Self, ProtocolError> {
        let list = Data::from_octets(octets, limits)?;
        let wrong = |what: &str| ProtocolError::remote("data", 0, "bad-object-list", what);
        let elements = list.elements().ok_or_else(|| wrong("the object list is no array"))?;
        let object = |element: &Data| -> Option<ShortNamedObject> {
            let [base, class_id, version, logical_name, ..] = element.elements()? else { return None };
            Some(ShortNamedObject {
                // A long as the standard has it, or unsigned: only the 16 bits count.
                base: base.as_integer()? as u16,
                class_id: u16::try_from(class_id.as_integer()?).ok()?,
                version: u8::try_from(version.as_integer()?).ok()?,
                logical_name: LogicalName(logical_name.as_octets()?.try_into().ok()?),
            })
        };
        let objects: Option<Vec<_>> = elements.iter().map(object).collect();
        Ok(Self::new(objects.ok_or_else(|| wrong("an element of the object list is none"))?))
    }

    /// Append the object list as one A-XDR value, in the order of base names.
    pub fn encode_object_list(&self, out: &mut Vec<u8>) {
        let mut objects: Vec<&ShortNamedObject> = self.objects.iter().collect();
        objects.sort_by_key(|object| object.base);
        out.push(tag::ARRAY);
        write_length(out, objects.len());
        for object in objects {
            out.extend_from_slice(&[tag::STRUCTURE, 4, tag::LONG]);
            out.extend_from_slice(&object.base.to_be_bytes());
            out.push(tag::LONG_UNSIGNED);
            out.extend_from_slice(&object.class_id.to_be_bytes());
            out.extend_from_slice(&[tag::UNSIGNED, object.version, tag::OCTET_STRING, 6]);
            out.extend_from_slice(&object.logical_name.0);
        }
    }

    fn object(&self, class_id: u16, logical_name: LogicalName) -> Option<&ShortNamedObject> {
        let key = (class_id, logical_name.0);
        let place = self.objects.binary_search_by_key(&key, |object| (object.class_id, object.logical_name.0)).ok()?;
        self.objects.get(place)
    }

    /// The short name of an attribute.
    pub fn attribute(&self, descriptor: &AttributeDescriptor) -> Option<u16> {
        let object = self.object(descriptor.class_id, descriptor.logical_name)?;
        let place = u16::try_from(descriptor.attribute).ok()?.checked_sub(1)?;
        object.base.checked_add(place * 8)
    }

    /// The short name of a method.
    pub fn method(&self, descriptor: &MethodDescriptor) -> Option<u16> {
        let object = self.object(descriptor.class_id, descriptor.logical_name)?;
        let place = u16::try_from(descriptor.method).ok()?.checked_sub(1)?;
        object.base.checked_add(first_method(object.class_id, object.version)?.checked_add(place * 8)?)
    }

    /// What a short name stands for. Only names of which an object's base is the next below are known.
    pub fn resolve(&self, name: u16) -> Option<Named> {
        let object = self.objects.iter().filter(|object| object.base <= name).max_by_key(|object| object.base)?;
        let offset = name - object.base;
        if offset % 8 != 0 {
            return None;
        }
        let (class_id, logical_name) = (object.class_id, object.logical_name);
        match first_method(class_id, object.version) {
            Some(first) if offset >= first => {
                let method = i8::try_from((offset - first) / 8 + 1).ok()?;
                Some(Named::Method(MethodDescriptor { class_id, logical_name, method }))
            }
            _ => {
                let attribute = i8::try_from(offset / 8 + 1).ok()?;
                Some(Named::Attribute(AttributeDescriptor { class_id, logical_name, attribute }))
            }
        }
    }
}

/// Where a class's methods begin behind its base name (Blue Book, the short names in each class's table); `None` for
/// classes without methods, and for those of which nobody published it.
pub fn first_method(class_id: u16, version: u8) -> Option<u16> {
    Some(match (class_id, version) {
        (3 | 61, _) => 0x28,
        (4 | 40, _) => 0x38,
        (5, _) => 0x48,
        (6 | 64, _) => 0x30,
        (7, _) => 0x58,
        (8 | 15 | 42, _) => 0x60,
        (9 | 10 | 12 | 17 | 70, _) => 0x20,
        (11, _) => 0x10,
        (18, _) => 0x40,
        (20, _) => 0x50,
        (72, 0) => 0x60,
        (72, _) => 0x70,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> ShortNames {
        let object = |base, class_id, version, logical_name| ShortNamedObject {
            base,
            class_id,
            version,
            logical_name: LogicalName(logical_name),
        };
        ShortNames::new(vec![
            object(0xFA00, 12, 1, [0, 0, 40, 0, 0, 255]),
            object(0x2000, 3, 0, [1, 0, 1, 8, 0, 255]),
            object(0x2080, 70, 0, [0, 0, 96, 3, 10, 255]),
        ])
    }

    #[test]
    fn object_list_survives_the_round_trip() {
        let mut out = Vec::new();
        names().encode_object_list(&mut out);

        assert_eq!(ShortNames::from_object_list(&out, &Limits::default()), Ok(names()));
    }

    #[test]
    fn names_and_descriptors_are_each_others_inverse() {
        let names = names();
        for class in [3, 70] {
            for number in 1..4 {
                let object = names.objects().iter().find(|object| object.class_id == class).unwrap();
                let logical_name = object.logical_name;
                let attribute = AttributeDescriptor { class_id: class, logical_name, attribute: number };
                assert_eq!(names.resolve(names.attribute(&attribute).unwrap()), Some(Named::Attribute(attribute)));
            }
        }
        let reset = MethodDescriptor { class_id: 3, logical_name: LogicalName([1, 0, 1, 8, 0, 255]), method: 1 };
        assert_eq!(names.method(&reset), Some(0x2028));
        assert_eq!(names.resolve(0x2028), Some(Named::Method(reset)));
        assert_eq!(names.resolve(0x2001), None);
        assert_eq!(names.resolve(0x1000), None);
    }

    #[test]
    fn a_list_of_something_else_is_refused() {
        for octets in [&[0][..], &[1, 1, 0], &[1, 1, 2, 1, 0], &[1, 1, 2, 4, 16, 0, 0, 18, 0, 1, 17, 0, 9, 1, 0]] {
            assert_eq!(ShortNames::from_object_list(octets, &Limits::default()).unwrap_err().code, "bad-object-list");
        }
    }
}
