//! Numbers as Python writes them: integers of any length that Python reads, floats by `repr`.

use super::super::value::DIGITS_MAX;

/// Limbs of an integer have nine digits each.
const LIMB: u64 = 1_000_000_000;

/// An integer that grows by digits of any radix.
#[derive(Default)]
pub(super) struct Decimal {
    /// The lowest first.
    limbs: Vec<u32>,
}

impl Decimal {
    /// Times `factor`, plus `digit`; `None` when it has more digits than Python reads.
    pub(super) fn push(&mut self, factor: u32, digit: u32) -> Option<()> {
        let mut carry = u64::from(digit);
        for limb in &mut self.limbs {
            let wide = u64::from(*limb) * u64::from(factor) + carry;
            *limb = (wide % LIMB) as u32;
            carry = wide / LIMB;
        }
        while carry > 0 {
            self.limbs.push((carry % LIMB) as u32);
            carry /= LIMB;
        }
        (self.limbs.len() <= DIGITS_MAX / 9 + 1).then_some(())
    }

    /// Its digits, with the sign if it is negative and not zero.
    pub(super) fn text(&self, is_negative: bool) -> Option<String> {
        let Some((top, rest)) = self.limbs.split_last() else { return Some("0".into()) };
        let mut text = top.to_string();
        rest.iter().rev().for_each(|limb| text.push_str(&format!("{limb:09}")));
        let sign = if is_negative { "-" } else { "" };
        (text.len() <= DIGITS_MAX).then(|| format!("{sign}{text}"))
    }
}

/// The digits of an integer of the radix 2 to 36, `_` left out; `None` if it has other digits, or
/// too many.
pub(super) fn of_radix(digits: &str, radix: u32, is_negative: bool) -> Option<String> {
    let mut number = Decimal::default();
    let mut any = false;
    for c in digits.chars().filter(|c| *c != '_') {
        number.push(radix, c.to_digit(radix)?)?;
        any = true;
    }
    if any { number.text(is_negative) } else { None }
}

/// The digits of an integer in two's complement, the lowest byte first, as pickles have it.
pub(in crate::wire) fn of_bytes(bytes: &[u8]) -> Option<String> {
    let is_negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
    let mut number = Decimal::default();
    let mut magnitude = bytes.to_vec();
    if is_negative {
        let mut carry = true;
        for byte in &mut magnitude {
            let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, over);
        }
    }
    for byte in magnitude.iter().rev() {
        number.push(256, u32::from(*byte))?;
    }
    number.text(is_negative)
}

/// A decimal integer as JSON has it: no `+`, no zeros before others.
pub(super) fn of_text(text: &str) -> Option<String> {
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let sign = if is_negative { "-" } else { "" };
    match digits.len() {
        0 => Some("0".into()),
        n if n <= DIGITS_MAX => Some(format!("{sign}{digits}")),
        _ => None,
    }
}

/// Is it a decimal number as Python's `str` gives it of a `Decimal`?
pub(in crate::wire) fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.strip_prefix("sNaN").or(unsigned.strip_prefix("NaN")) {
        Some(payload) => payload.bytes().all(|byte| byte.is_ascii_digit()),
        None => unsigned == "Infinity" || is_number(unsigned),
    }
}

/// Digits with a point and an exponent.
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && digits(part)
        && !(whole.is_empty() && part.is_empty())
        && of_text(exponent).is_some()
}

/// A finite float as Python's `repr` writes it: the fewest digits that give it back.
pub(in crate::wire) fn repr(value: f64) -> String {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        // Rust writes no exponent here.
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_those_of_repr() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (123456789012345680.0, "1.2345678901234568e+17"),
        ];
        for (value, expected) in cases {
            assert_eq!(repr(value), expected);
        }
    }

    #[test]
    fn integers_of_bytes() {
        let cases: &[(&[u8], &str)] = &[
            (&[], "0"),
            (&[0], "0"),
            (&[255], "-1"),
            (&[255, 0], "255"),
            (&[0, 128], "-32768"),
            (&[0, 255], "-256"),
            (&[0, 0, 0, 0, 0, 0, 0, 0, 1], "18446744073709551616"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(of_bytes(bytes).as_deref(), Some(*expected), "{bytes:?}");
        }
        assert_eq!(of_bytes(&[127; 1780]).map(|text| text.len()), Some(4287));
        assert_eq!(of_bytes(&[127; 2000]), None);
        assert_eq!(of_bytes(&vec![127; 10_000_000]), None);
    }

    #[test]
    fn integers_of_digits() {
        assert_eq!(of_radix("ff_ff", 16, true).as_deref(), Some("-65535"));
        assert_eq!(of_radix("777", 8, false).as_deref(), Some("511"));
        assert_eq!((of_radix("_", 2, false), of_radix("12", 2, false)), (None, None));
        for (text, expected) in
            [("007", Some("7")), ("-0", Some("0")), ("+12", Some("12")), ("", None), ("-", None)]
        {
            assert_eq!(of_text(text).as_deref(), expected, "{text}");
        }
        assert_eq!(of_text("1 "), None);
        assert_eq!(of_text(&"1".repeat(4300)).map(|text| text.len()), Some(4300));
        assert_eq!(of_text(&"1".repeat(4301)), None);
    }
}
