//! Values of a row whatever their types are: anybody can write into a file, and SQLite keeps a
//! text in a column of numbers. A strange value spoils no more than itself.

use rusqlite::Row;
use rusqlite::types::ValueRef;

/// A text; of a number its digits, of a blob what can be read, of NULL nothing.
pub fn text(row: &Row, column: usize) -> String {
    text_or_none(row, column).unwrap_or_default()
}

/// As [`text`]; `None` is NULL.
pub fn text_or_none(row: &Row, column: usize) -> Option<String> {
    match row.get_ref(column) {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        Ok(ValueRef::Integer(number)) => Some(number.to_string()),
        Ok(ValueRef::Real(number)) => Some(number.to_string()),
        Ok(ValueRef::Null) | Err(_) => None,
    }
}

/// A whole number; 0 for what is none.
pub fn number(row: &Row, column: usize) -> i64 {
    number_or_none(row, column).unwrap_or(0)
}

/// A whole number; `None` for what is none.
pub fn number_or_none(row: &Row, column: usize) -> Option<i64> {
    row.get_ref(column).ok()?.as_i64().ok()
}

/// A count: as near to the number there as a count can be.
pub fn count(row: &Row, column: usize) -> u32 {
    number(row, column).clamp(0, u32::MAX.into()) as u32
}

/// Seconds since the epoch that are an instant; `None` for all else.
pub fn instant(row: &Row, column: usize) -> Option<f64> {
    let seconds = match row.get_ref(column).ok()? {
        ValueRef::Integer(number) => number as f64,
        ValueRef::Real(number) => number,
        _ => return None,
    };
    (seconds.abs() <= super::INSTANT_MAX).then_some(seconds)
}
