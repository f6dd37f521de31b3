//! The published models, from `data/sunspec/models.tsv`: groups of points, read when a model is first met.

use std::sync::OnceLock;

/// One published model.
#[derive(Debug)]
pub struct Model {
    /// Its number, the first register of its block.
    pub id: u16,
    /// Its points and what repeats in it. The first two points are `ID` and `L`.
    pub group: Group,
}

/// Points that stand together, and groups behind them.
#[derive(Debug)]
pub struct Group {
    /// Its name, unique among its neighbours.
    pub name: &'static str,
    /// Whether its points must be read and written in one request (type `sync`).
    pub synchronised: bool,
    /// How often it stands there.
    pub count: Count,
    /// What it is called.
    pub label: &'static str,
    /// Its points, in the order of their registers.
    pub points: Vec<Point>,
    /// Registers of `points` together.
    pub length: u16,
    /// The groups behind its points.
    pub groups: Vec<Group>,
}

/// How often a group stands in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Once, not as a list.
    Single,
    /// So often.
    Fixed(u16),
    /// As often as the model's length leaves room for.
    Fill,
    /// As often as this point of an enclosing group says.
    Point(&'static str),
}

/// One point.
#[derive(Debug)]
pub struct Point {
    /// Its name, unique in its group.
    pub name: &'static str,
    /// What its registers hold.
    pub kind: PointType,
    /// Its registers.
    pub size: u16,
    /// Its place behind its group's first register.
    pub offset: u16,
    /// What its value is scaled by.
    pub scale: Scale,
    /// Its unit as published, or nothing.
    pub unit: &'static str,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether every device has it.
    pub mandatory: bool,
    /// Whether it never changes.
    pub fixed: bool,
    /// What it is called.
    pub label: &'static str,
    /// Names of an enumeration's values or of a bit field's bits.
    pub symbols: Vec<(&'static str, u32)>,
}

impl Point {
    /// The name of a value, or of bit `value` of a bit field.
    pub fn symbol(&self, value: u32) -> Option<&'static str> {
        self.symbols.iter().find(|symbol| symbol.1 == value).map(|symbol| symbol.0)
    }
}

/// What a point's value is scaled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Nothing.
    None,
    /// This power of ten.
    Fixed(i8),
    /// The power of ten in this point, of the same group or of one around it.
    Point(&'static str),
}

macro_rules! point_types {
    ($($(#[$doc:meta])* $name:ident $text:literal $size:literal,)*) => {
        /// What a point's registers hold (SunSpec Device Information Model Specification, "Point types").
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum PointType { $($(#[$doc])* $name,)* }

        impl PointType {
            /// The type of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }

            /// The published name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Its registers; 0 for text, whose points say.
            pub fn size(self) -> u16 {
                match self { $(Self::$name => $size,)* }
            }
        }
    };
}

point_types! {
    /// Signed.
    Int16 "int16" 1,
    /// Signed.
    Int32 "int32" 2,
    /// Signed.
    Int64 "int64" 4,
    /// Unsigned.
    Uint16 "uint16" 1,
    /// Unsigned.
    Uint32 "uint32" 2,
    /// Unsigned.
    Uint64 "uint64" 4,
    /// Accumulated; rolls over, and 0 says that it is not implemented.
    Acc16 "acc16" 1,
    /// Accumulated; rolls over, and 0 says that it is not implemented.
    Acc32 "acc32" 2,
    /// Accumulated; rolls over, and 0 says that it is not implemented.
    Acc64 "acc64" 4,
    /// One of the symbols.
    Enum16 "enum16" 1,
    /// One of the symbols.
    Enum32 "enum32" 2,
    /// A bit a symbol.
    Bitfield16 "bitfield16" 1,
    /// A bit a symbol.
    Bitfield32 "bitfield32" 2,
    /// How often a group stands there.
    CountOf "count" 1,
    /// A power of ten.
    ScaleFactor "sunssf" 1,
    /// Nothing.
    Pad "pad" 1,
    /// IEEE 754.
    Float32 "float32" 2,
    /// IEEE 754.
    Float64 "float64" 4,
    /// UTF-8, filled up with zeros.
    Text "string" 0,
    /// An IPv4 address.
    Ipv4 "ipaddr" 2,
    /// An IPv6 address.
    Ipv6 "ipv6addr" 8,
    /// A MAC address, two octets of zeros in front.
    Eui48 "eui48" 4,
}

/// The published model of this number.
pub fn model(id: u16) -> Option<&'static Model> {
    let index = index();
    let entry = &index[index.binary_search_by_key(&id, |entry| entry.id).ok()?];
    Some(entry.model.get_or_init(|| parse(id, entry.lines)))
}

/// The numbers of all published models, ascending.
pub fn model_ids() -> impl Iterator<Item = u16> {
    index().iter().map(|entry| entry.id)
}

struct Entry {
    id: u16,
    lines: &'static str,
    model: OnceLock<Model>,
}

fn index() -> &'static [Entry] {
    static INDEX: OnceLock<Vec<Entry>> = OnceLock::new();
    INDEX.get_or_init(|| {
        // The first piece is the comment at the head of the table.
        let mut entries: Vec<Entry> = TABLE
            .split("\nM\t")
            .skip(1)
            .filter_map(|part| {
                let (id, lines) = part.split_once('\n')?;
                Some(Entry { id: id.parse().ok()?, lines, model: OnceLock::new() })
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.id);
        entries
    })
}

/// The lines of one model. The table is ours and a test reads all of it, so what it cannot contain is left out silently.
fn parse(id: u16, lines: &'static str) -> Model {
    // Groups that are not complete yet, outermost first.
    let mut open: Vec<Group> = Vec::new();
    for line in lines.lines() {
        let mut fields = line.split('\t');
        let kind = fields.next().unwrap_or_default();
        let mut next = || fields.next().filter(|field| *field != "-").unwrap_or_default();
        match kind {
            "G" => {
                let depth: usize = next().parse().unwrap_or_default();
                close(&mut open, depth);
                open.push(Group {
                    name: next(),
                    synchronised: next() == "sync",
                    count: match next() {
                        "" => Count::Single,
                        "0" => Count::Fill,
                        count => count.parse().map_or(Count::Point(count), Count::Fixed),
                    },
                    label: next(),
                    points: Vec::new(),
                    length: 0,
                    groups: Vec::new(),
                });
            }
            "P" => {
                let Some(group) = open.last_mut() else { continue };
                let name = next();
                let Some(kind) = PointType::from_name(next()) else { continue };
                let size = next().parse().unwrap_or(kind.size());
                let scale = match next() {
                    "" => Scale::None,
                    scale => scale.parse().map_or(Scale::Point(scale), Scale::Fixed),
                };
                let (unit, flags, label) = (next(), next(), next());
                group.points.push(Point {
                    name,
                    kind,
                    size,
                    offset: group.length,
                    scale,
                    unit,
                    writable: flags.contains('w'),
                    mandatory: flags.contains('m'),
                    fixed: flags.contains('s'),
                    label,
                    symbols: Vec::new(),
                });
                group.length += size;
            }
            _ => {
                let symbol = (next(), next().parse().unwrap_or_default());
                if let Some(point) = open.last_mut().and_then(|group| group.points.last_mut()) {
                    point.symbols.push(symbol);
                }
            }
        }
    }
    close(&mut open, 1);
    let empty = || Group {
        name: "",
        synchronised: false,
        count: Count::Single,
        label: "",
        points: Vec::new(),
        length: 0,
        groups: Vec::new(),
    };
    Model { id, group: open.pop().unwrap_or_else(empty) }
}

/// Put finished groups into those around them until `depth` are open.
fn close(open: &mut Vec<Group>, depth: usize) {
    while open.len() > depth.max(1) {
        if let (Some(done), Some(around)) = (open.pop(), open.last_mut()) {
            around.groups.push(done);
        }
    }
}

static TABLE: &str = include_str!("../../data/sunspec/models.tsv");

#[cfg(test)]
mod tests {
    use super::*;

    fn points(group: &Group) -> usize {
        group.points.len() + group.groups.iter().map(points).sum::<usize>()
    }

    fn check(group: &'static Group, around: &[&'static Group]) {
        let mut scopes = around.to_vec();
        scopes.push(group);
        let known = |name: &str, kind| {
            scopes.iter().flat_map(|group| &group.points).any(|point| point.name == name && point.kind == kind)
        };
        for point in &group.points {
            assert!(point.size > 0 && (point.kind.size() == 0 || point.kind.size() == point.size), "{}", point.name);
            if let Scale::Point(name) = point.scale {
                assert!(known(name, PointType::ScaleFactor), "{}: scale factor {name}", point.name);
            }
        }
        if let Count::Point(name) = group.count {
            assert!(known(name, PointType::CountOf) || known(name, PointType::Uint16), "{}: count {name}", group.name);
        }
        group.groups.iter().for_each(|inner| check(inner, &scopes));
    }

    #[test]
    fn every_line_of_the_table_is_a_model_group_point_or_symbol() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        let mut expected = [0; 4];
        for line in lines {
            expected["MGPS".find(&line[..1]).expect("a known line")] += 1;
        }

        fn groups(group: &Group) -> usize {
            1 + group.groups.iter().map(groups).sum::<usize>()
        }
        fn symbols(group: &Group) -> usize {
            group.points.iter().map(|point| point.symbols.len()).sum::<usize>()
                + group.groups.iter().map(symbols).sum::<usize>()
        }
        let all = || model_ids().filter_map(model).map(|model| &model.group);

        assert_eq!(
            [all().count(), all().map(groups).sum(), all().map(points).sum(), all().map(symbols).sum::<usize>()],
            expected
        );
        assert_eq!(expected[0], 112);
    }

    #[test]
    fn every_scale_factor_and_count_is_a_point_around_it() {
        for model in model_ids().filter_map(model) {
            check(&model.group, &[]);
            assert_eq!([model.group.points[0].name, model.group.points[1].name], ["ID", "L"], "{}", model.id);
        }
    }

    #[test]
    fn groups_nest_as_published() {
        let volt_var = &model(705).expect("published").group;

        assert_eq!(volt_var.groups[0].count, Count::Point("NCrv"));
        assert_eq!(volt_var.groups[0].groups[0].count, Count::Point("NPt"));
        assert_eq!(volt_var.groups[0].groups[0].points[0].scale, Scale::Point("V_SF"));
        assert!(model(704).expect("published").group.groups[0].synchronised);
        assert_eq!(model(7).expect("published").group.groups[0].count, Count::Fill);
    }
}
