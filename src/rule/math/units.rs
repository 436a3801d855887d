//! The table of units: names, size, and dimension in base units.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::ast::Unit;

/// Base quantities, in the order of [`Entry::dims`].
pub const BASES: usize = 12;

/// Exponents of: metre, kilogram, second, ampere, kelvin, mole, dollar, euro, yuan, bit, pound sterling, rupee.
type Dims = [i8; BASES];

const L: Dims = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const L2: Dims = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const L3: Dims = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const M: Dims = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const T: Dims = [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const PER_T: Dims = [0, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SPEED: Dims = [1, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const A: Dims = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
const K: Dims = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
const MOL: Dims = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
const USD: Dims = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
const EUR: Dims = [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
const CNY: Dims = [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
const GBP: Dims = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const INR: Dims = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const BIT: Dims = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
const RAD: Dims = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const FORCE: Dims = [1, 1, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ENERGY: Dims = [2, 1, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const POWER: Dims = [2, 1, -3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const PRESSURE: Dims = [-1, 1, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const VOLT: Dims = [2, 1, -3, -1, 0, 0, 0, 0, 0, 0, 0, 0];
const OHM: Dims = [2, 1, -3, -2, 0, 0, 0, 0, 0, 0, 0, 0];
const COULOMB: Dims = [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
const FARAD: Dims = [-2, -1, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0];
const TESLA: Dims = [0, 1, -2, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// One unit: `scale.0 / scale.1` times the base units raised to `dims`.
pub struct Entry {
    /// Names separated by blanks, singular and plural, in lower case unless case matters.
    pub names: &'static str,
    pub scale: (i64, i64),
    pub dims: Dims,
}

const fn unit(names: &'static str, scale: (i64, i64), dims: Dims) -> Entry {
    Entry { names, scale, dims }
}

/// Every unit the rule converts. Scales are exact by definition.
pub static TABLE: &[Entry] = &[
    // Length
    unit("m meter meters metre metres 米", (1, 1), L),
    unit("km kilometer kilometers kilometre kilometres 千米 公里", (1000, 1), L),
    unit("cm centimeter centimeters centimetre centimetres 厘米", (1, 100), L),
    unit("dm decimeter decimeters decimetre decimetres 分米", (1, 10), L),
    unit("mm millimeter millimeters millimetre millimetres 毫米", (1, 1000), L),
    unit("µm μm um micrometer micrometers micron microns", (1, 1_000_000), L),
    unit("nm nanometer nanometers", (1, 1_000_000_000), L),
    unit("in inch inches", (254, 10_000), L),
    unit("ft foot feet", (3048, 10_000), L),
    unit("yd yds yard yards", (9144, 10_000), L),
    unit("mi mile miles", (1_609_344, 1000), L),
    // Area and volume
    unit("ha hectare hectares", (10_000, 1), L2),
    unit("acre acres", (40_468_564_224, 10_000_000), L2),
    unit("L l liter liters litre litres 升", (1, 1000), L3),
    unit("mL ml milliliter milliliters millilitre millilitres 毫升", (1, 1_000_000), L3),
    unit("gal gallon gallons", (3_785_411_784, 1_000_000_000_000), L3),
    unit("qt quart quarts", (946_352_946, 1_000_000_000_000), L3),
    unit("pint pints", (473_176_473, 1_000_000_000_000), L3),
    // Mass
    unit("kg kilogram kilograms 千克 公斤", (1, 1), M),
    unit("g gram grams 克", (1, 1000), M),
    unit("mg milligram milligrams", (1, 1_000_000), M),
    unit("t ton tons tonne tonnes 吨", (1000, 1), M),
    unit("lb lbs", (45_359_237, 100_000_000), M),
    // Beside a price it is money: an entry of its own.
    unit("pound pounds", (45_359_237, 100_000_000), M),
    unit("oz ounce ounces", (45_359_237, 1_600_000_000), M),
    // Time
    unit("s sec secs second seconds 秒", (1, 1), T),
    unit("ms millisecond milliseconds", (1, 1000), T),
    unit("min mins minute minutes 分钟", (60, 1), T),
    unit("h hr hrs hour hours 小时", (3600, 1), T),
    unit("day days 天", (86_400, 1), T),
    unit("week weeks 周", (604_800, 1), T),
    unit("month months 个月", (2_629_746, 1), T),
    unit("yr yrs year years 年", (31_556_952, 1), T),
    unit("Hz hz hertz", (1, 1), PER_T),
    unit("kHz khz", (1000, 1), PER_T),
    unit("MHz", (1_000_000, 1), PER_T),
    unit("mph", (1_609_344, 3_600_000), SPEED),
    unit("kmh kph", (1000, 3600), SPEED),
    // Mechanics, heat, electricity
    unit("N newton newtons", (1, 1), FORCE),
    unit("kN", (1000, 1), FORCE),
    unit("J joule joules", (1, 1), ENERGY),
    unit("kJ kilojoule kilojoules", (1000, 1), ENERGY),
    unit("cal calorie calories", (4184, 1000), ENERGY),
    unit("kcal", (4184, 1), ENERGY),
    unit("erg ergs", (1, 10_000_000), ENERGY),
    unit("W watt watts", (1, 1), POWER),
    unit("kW kilowatt kilowatts", (1000, 1), POWER),
    unit("Pa pascal pascals", (1, 1), PRESSURE),
    unit("kPa", (1000, 1), PRESSURE),
    unit("atm", (101_325, 1), PRESSURE),
    unit("A ampere amperes amp amps", (1, 1), A),
    unit("V volt volts", (1, 1), VOLT),
    unit("Ω ohm ohms", (1, 1), OHM),
    unit("C coulomb coulombs", (1, 1), COULOMB),
    unit("F farad farads", (1, 1), FARAD),
    unit("T tesla", (1, 1), TESLA),
    unit("K kelvin kelvins", (1, 1), K),
    unit("mol mole moles", (1, 1), MOL),
    unit("bit bits", (1, 1), BIT),
    unit("byte bytes", (8, 1), BIT),
    // Money
    unit("$ dollar dollars usd USD 美元", (1, 1), USD),
    unit("¢ cent cents", (1, 100), USD),
    unit("€ euro euros eur EUR 欧元", (1, 1), EUR),
    unit("£ GBP gbp", (1, 1), GBP),
    unit("pence", (1, 100), GBP),
    unit("₹ INR Rs rupee rupees", (1, 1), INR),
    unit("paise", (1, 100), INR),
    unit("¥ yuan rmb RMB CNY 元 块", (1, 1), CNY),
    unit("角", (1, 10), CNY),
    unit("分", (1, 100), CNY),
    // Angle
    unit("rad rads radian radians", (1, 1), RAD),
];

/// The unit of this name, with or without a prefix of the SI.
pub fn find(name: &str) -> Option<Unit> {
    position(name).map(|i| Unit { index: i as u16, ten: 0 }).or_else(|| prefixed(name))
}

/// Prefixes of symbols and of names, with their power of ten.
const SYMBOLS: [(&str, i8); 13] = [
    ("G", 9),
    ("M", 6),
    ("k", 3),
    ("h", 2),
    ("d", -1),
    ("c", -2),
    ("m", -3),
    ("µ", -6),
    ("μ", -6),
    ("u", -6),
    ("n", -9),
    ("p", -12),
    ("T", 12),
];
const NAMES: [(&str, i8); 11] = [
    ("kilo", 3),
    ("mega", 6),
    ("giga", 9),
    ("tera", 12),
    ("hecto", 2),
    ("deci", -1),
    ("centi", -2),
    ("milli", -3),
    ("micro", -6),
    ("nano", -9),
    ("pico", -12),
];

/// Units whose symbols take prefixes.
const PREFIXABLE: [&str; 17] =
    ["m", "g", "s", "A", "V", "W", "N", "J", "Pa", "Hz", "C", "F", "Ω", "T", "L", "mol", "bit"];

fn prefixed(name: &str) -> Option<Unit> {
    let unit = |base: &str, ten: i8| exact(base).map(|i| Unit { index: i as u16, ten });
    if name.len() <= 6 {
        let symbol = SYMBOLS.iter().find_map(|(prefix, ten)| {
            let base = name.strip_prefix(prefix).filter(|base| PREFIXABLE.contains(base))?;
            unit(base, *ten)
        });
        // "us" is a word.
        return symbol.filter(|_| name != "us");
    }
    if name.len() > 24 || !name.is_ascii() {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    NAMES.iter().find_map(|(prefix, ten)| {
        let base = lower.strip_prefix(prefix).filter(|base| base.len() > 3)?;
        unit(base, *ten)
    })
}

/// How large a unit is, in base units.
pub fn size(unit: Unit) -> f64 {
    let entry = entry(unit);
    entry.scale.0 as f64 / entry.scale.1 as f64 * 10f64.powi(i32::from(unit.ten))
}

/// Every name in the table and where it stands; the first of two equal names counts.
static POSITIONS: LazyLock<HashMap<&'static str, usize>> = LazyLock::new(|| {
    let mut names = HashMap::new();
    for (at, entry) in TABLE.iter().enumerate() {
        for name in entry.names.split(' ') {
            names.entry(name).or_insert(at);
        }
    }
    names
});

fn exact(wanted: &str) -> Option<usize> {
    POSITIONS.get(wanted).copied()
}

fn position(name: &str) -> Option<usize> {
    if name.is_empty() || name.len() > 24 {
        return None;
    }
    exact(name).or_else(|| {
        let lower = name.to_lowercase();
        if lower.len() > 2 && lower != name { exact(&lower) } else { None }
    })
}

/// True if the unit goes by this name.
pub fn is_named(unit: Unit, name: &str) -> bool {
    unit.ten == 0 && entry(unit).names.split(' ').any(|n| n == name)
}

/// Size and dimension of a unit.
pub fn entry(unit: Unit) -> &'static Entry {
    &TABLE[unit.index as usize]
}
