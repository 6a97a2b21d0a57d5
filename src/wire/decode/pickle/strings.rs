//! Texts of the protocol 0, which are lines with escapes. UTF-8 comes out, with lone surrogates
//! as Python's `surrogatepass` has them.

/// A text of Python 2 as its `repr` writes it; `None` if it is none, or not ASCII: that is the
/// encoding in which kombu reads them.
pub(super) fn quoted(line: &[u8]) -> Option<Vec<u8>> {
    let quote = *line.first().filter(|quote| b"'\"".contains(quote))?;
    let inner = line.get(1..)?.strip_suffix(&[quote])?;
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let (digits, after) = rest.as_slice().split_at_checked(2)?;
                    rest = after.iter();
                    u8::try_from(hex(digits)?).ok()?
                }
                same @ (b'\\' | b'\'' | b'"') => *same,
                _ => return None,
            },
            byte => *byte,
        };
        out.push(byte);
    }
    out.is_ascii().then_some(out)
}

/// Latin 1 with `\u` before four digits and `\U` before eight, as Python's codec of this name; `None` if an escape is
/// cut short, or of no character.
pub(super) fn raw_unicode_escape(line: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(line.len());
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        let digits = match (byte, line.get(at + 1)) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            (b'\\', Some(next)) => {
                out.push(b'\\');
                push(&mut out, u32::from(*next))?;
                at += 2;
                continue;
            }
            _ => {
                push(&mut out, u32::from(*byte))?;
                at += 1;
                continue;
            }
        };
        push(&mut out, hex(line.get(at + 2..at + 2 + digits)?)?)?;
        at += 2 + digits;
    }
    Some(out)
}

/// The characters of a text as bytes of Latin 1; `None` if it has others.
pub(super) fn latin1(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number: u32, digit| {
        number.checked_mul(16)?.checked_add(char::from(*digit).to_digit(16)?)
    })
}

fn push(out: &mut Vec<u8>, code: u32) -> Option<()> {
    match char::from_u32(code) {
        Some(c) => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        None if code < 0x11_0000 => {
            let low = |shift: u32| 0x80 | (code >> shift & 0x3f) as u8;
            out.extend([0xe0 | (code >> 12) as u8, low(6), low(0)]);
        }
        None => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_python_2() {
        for (line, expected) in [
            (&br"'a\n\'\\\x41'"[..], Some(&b"a\n'\\A"[..])),
            (b"\"it's\"", Some(b"it's")),
            (b"''", Some(b"")),
            (b"'", None),
            (b"'a\"", None),
            (br"'\xff'", None),
            (br"'\x4'", None),
            (br"'\'", None),
            (b"", None),
        ] {
            assert_eq!(quoted(line).as_deref(), expected, "{line:?}");
        }
    }

    #[test]
    fn texts_of_protocol_0() {
        for (line, expected) in [
            (&b"a\xe4"[..], Some("a\u{e4}".as_bytes())),
            (br"\u4e16\U0001f600", Some("\u{4e16}\u{1f600}".as_bytes())),
            (br"\u005cn\n\\u0041", Some(br"\n\n\\u0041")),
            (br"\ud800", Some(b"\xed\xa0\x80")),
            (br"\", Some(br"\")),
            (br"\u41", None),
            (br"\U00110000", None),
            (br"\uzzzz", None),
        ] {
            assert_eq!(raw_unicode_escape(line).as_deref(), expected, "{line:?}");
        }
        assert_eq!(latin1("a\u{ff}".as_bytes()).as_deref(), Some(&b"a\xff"[..]));
        assert_eq!(latin1("\u{100}".as_bytes()), None);
    }
}
