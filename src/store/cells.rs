//! A cell of any Arrow type as text.

use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// The cell as a person would write it; `None` where Arrow has no text for it, such as a date out of its range.
///
/// An instant is shown in UTC, whatever zone its column names: the rules of zones are no part of a file.
pub(crate) fn cell_text(array: &dyn Array, row: usize) -> Option<String> {
    let cell = cast(&array.slice(row, 1), &in_utc(array.data_type())).ok()?;
    let options = FormatOptions::default().with_null("null").with_display_error(false);
    let formatter = ArrayFormatter::try_new(cell.as_ref(), &options).ok()?;
    formatter.value(0).try_to_string().ok()
}

/// The type with its instants in UTC, by an offset: names need a table of zones.
fn in_utc(data_type: &DataType) -> DataType {
    let field = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(in_utc(field.data_type())));
    match data_type {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some("+00:00".into())),
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StructArray, TimestampMicrosecondArray, TimestampSecondArray};

    #[test]
    fn an_instant_is_shown_in_utc_whatever_its_zone_and_however_deep() {
        let zoned = |zone: &str| TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]).with_timezone(zone);
        for zone in ["UTC", "Europe/Berlin", "+02:00", "no such zone"] {
            assert_eq!(cell_text(&zoned(zone), 0).as_deref(), Some("2023-11-14T22:13:20Z"), "{zone}");
        }
        let inner = Arc::new(zoned("UTC")) as ArrayRef;
        let nested = StructArray::from(vec![(Arc::new(Field::new("at", inner.data_type().clone(), true)), inner)]);
        assert_eq!(cell_text(&nested, 0).as_deref(), Some("{at: 2023-11-14T22:13:20Z}"));
        assert_eq!(cell_text(&TimestampSecondArray::from(vec![0]), 0).as_deref(), Some("1970-01-01T00:00:00"));
    }

    #[test]
    fn what_has_no_text_is_none_and_no_error_in_its_place() {
        assert_eq!(cell_text(&TimestampSecondArray::from(vec![i64::MAX]), 0), None);
    }
}
