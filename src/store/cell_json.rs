//! A cell of any Arrow type as JSON: what is read of a Parquet file that others wrote, whoever reads it.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use serde_json::{Map, Number, Value};

use super::cell_text;

/// One cell as JSON. Types without a JSON form (dates, decimals) become text; what has none either, such as bytes that are
/// not UTF-8, is null.
pub(crate) fn cell_json(array: &dyn Array, index: usize) -> Value {
    if array.is_null(index) {
        return Value::Null;
    }
    macro_rules! number {
        ($kind:ty) => {
            Value::Number(array.as_primitive::<$kind>().value(index).into())
        };
    }
    let float = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(index)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => float(shortest_f16(array.as_primitive::<Float16Type>().value(index))),
        DataType::Float32 => float(shortest_f32(array.as_primitive::<Float32Type>().value(index))),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(index)),
        DataType::Utf8 => Value::String(array.as_string::<i32>().value(index).to_owned()),
        DataType::LargeUtf8 => Value::String(array.as_string::<i64>().value(index).to_owned()),
        DataType::Utf8View => Value::String(array.as_string_view().value(index).to_owned()),
        DataType::Binary => bytes(array.as_binary::<i32>().value(index)),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(index)),
        DataType::BinaryView => bytes(array.as_binary_view().value(index)),
        DataType::List(_) => list(array.as_list::<i32>().value(index).as_ref()),
        DataType::LargeList(_) => list(array.as_list::<i64>().value(index).as_ref()),
        DataType::FixedSizeList(_, _) => list(array.as_fixed_size_list().value(index).as_ref()),
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let mut object = Map::with_capacity(fields.len());
            for (field, column) in fields.iter().zip(array.columns()) {
                object.insert(field.name().clone(), cell_json(column.as_ref(), index));
            }
            Value::Object(object)
        }
        DataType::Map(_, _) => {
            let entries = array.as_map().value(index);
            let mut object = Map::with_capacity(entries.len());
            for entry in 0..entries.len() {
                let key = match cell_json(entries.column(0).as_ref(), entry) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                object.insert(key, cell_json(entries.column(1).as_ref(), entry));
            }
            Value::Object(object)
        }
        DataType::Dictionary(_, _) => {
            let cell = array.slice(index, 1);
            let cell = cell.as_any_dictionary();
            cell_json(cell.values().as_ref(), cell.normalized_keys()[0])
        }
        _ => cell_text(array, index).map_or(Value::Null, Value::String),
    }
}

/// The number that its shortest decimal form says: 0.1 where it is stored as 0.100000001490116, since a gold
/// answer is what was written and not how it was kept.
fn shortest_f32(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::NAN)
}

/// As [`shortest_f32`]: the fewest digits that lead back to the stored number, all of them of a whole one.
fn shortest_f16(x: half::f16) -> f64 {
    let exact = x.to_f64();
    if exact.fract() == 0.0 {
        return exact;
    }
    let rounded = (0..5).filter_map(|digits| format!("{exact:.digits$e}").parse::<f64>().ok());
    let mut same = rounded.filter(|rounded| half::f16::from_f64(*rounded) == x);
    same.next().unwrap_or(exact)
}

fn list(array: &dyn Array) -> Value {
    (0..array.len()).map(|index| cell_json(array, index)).collect()
}

fn bytes(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or(Value::Null, |text| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, DictionaryArray, Float16Array, Float32Array, ListArray, MapBuilder, NullArray,
        StringArray, StringBuilder, TimestampMicrosecondArray, TimestampSecondArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;
    use serde_json::json;

    use super::*;

    fn cells(column: ArrayRef) -> Vec<Value> {
        (0..column.len()).map(|row| cell_json(column.as_ref(), row)).collect()
    }

    #[test]
    fn a_short_float_is_the_number_that_was_written() {
        let written = [0.1, 72.0, 9.81, -1e-3, 1e30, 16777216.0];
        let column = Float32Array::from_iter_values(written.map(|x| x as f32));
        assert_eq!(cells(Arc::new(column)), written.map(Value::from));
        let written = [0.1, 72.0, 9.81, 0.333, 65504.0];
        let column = Float16Array::from_iter_values(written.map(half::f16::from_f64));
        assert_eq!(cells(Arc::new(column)), written.map(Value::from));
        let nothing = Float32Array::from_iter_values([f32::NAN, f32::INFINITY]);
        assert_eq!(cells(Arc::new(nothing)), [Value::Null, Value::Null]);
    }

    #[test]
    fn instants_are_read_in_utc_and_one_out_of_range_costs_no_row() {
        let zoned = TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_000), None]).with_timezone("UTC");
        assert_eq!(cells(Arc::new(zoned)), [Value::from("2023-11-14T22:13:20Z"), Value::Null]);
        assert_eq!(cells(Arc::new(TimestampSecondArray::from(vec![i64::MAX]))), [Value::Null]);
    }

    #[test]
    fn texts_are_texts_however_they_are_stored_and_however_deep() {
        let bytes = BinaryArray::from_vec(vec![b"7", &[0xff]]);
        assert_eq!(cells(Arc::new(bytes)), [json!("7"), Value::Null]);
        assert_eq!(cells(Arc::new(NullArray::new(2))), [Value::Null, Value::Null]);
        let words: DictionaryArray<Int8Type> = [Some("a"), None, Some("b")].into_iter().collect();
        assert_eq!(cells(Arc::new(words.clone())), [json!("a"), Value::Null, json!("b")]);
        let item = Arc::new(Field::new_list_field(words.data_type().clone(), true));
        let lists = ListArray::new(item, OffsetBuffer::from_lengths([1, 2]), Arc::new(words), None);
        assert_eq!(cells(Arc::new(lists)), [json!(["a"]), json!([null, "b"])]);
        let none = DictionaryArray::<Int8Type>::new(vec![0].into(), Arc::new(StringArray::from(vec![None::<&str>])));
        assert_eq!(cells(Arc::new(none)), [Value::Null]);
        let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        map.keys().append_value("ground_truth");
        map.values().append_value("7");
        map.append(true).unwrap();
        assert_eq!(cells(Arc::new(map.finish())), [json!({"ground_truth": "7"})]);
    }
}
