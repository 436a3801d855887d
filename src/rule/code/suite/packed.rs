//! LiveCodeBench's `private_test_cases`: JSON text, pickled, deflated, in base 64.
//!
//! Nothing is unpickled. A pickle is a program; the one that holds a single string has always the same few
//! instructions, and those are read here. Any other is none of ours.

use std::io::Read;

/// Most bytes that the text may be deflated from.
const MOST_BYTES: u64 = 256 << 20;

/// The text inside; `None` if this is packed in another way, or not at all.
pub(super) fn text(packed: &str) -> Option<String> {
    let mut pickle = Vec::new();
    let deflated = base64(packed.trim())?;
    flate2::read::ZlibDecoder::new(&deflated[..]).take(MOST_BYTES).read_to_end(&mut pickle).ok()?;
    pickled(&pickle).map(str::to_owned)
}

/// The string of a pickle that holds one string and nothing else.
fn pickled(pickle: &[u8]) -> Option<&str> {
    let mut rest = pickle.strip_prefix(b"\x80").and_then(|rest| rest.get(1..))?;
    let frame = |rest: &mut &[u8]| {
        if rest.first() == Some(&0x95) {
            *rest = rest.get(9..).unwrap_or(b"");
        }
    };
    frame(&mut rest);
    let (instruction, after) = rest.split_first()?;
    // BINUNICODE, SHORT_BINUNICODE and BINUNICODE8 differ in the width of the length.
    let width = match instruction {
        b'X' => 4,
        0x8c => 1,
        0x8d => 8,
        _ => return None,
    };
    let (length, after) = after.split_at_checked(width)?;
    let length = length.iter().rev().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
    let (text, mut rest) = after.split_at_checked(usize::try_from(length).ok()?)?;
    frame(&mut rest);
    // MEMOIZE or BINPUT, and STOP.
    let ends = matches!(rest, b"." | b"\x94." | [b'q', _, b'.']);
    ends.then(|| std::str::from_utf8(text).ok()).flatten()
}

/// Bytes of standard base 64; `None` if it is anything else.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_pickle_of_one_string_is_read() {
        // As Python's pickle writes "ab" in the protocols 2 to 5, and 300 letters in the fourth.
        let long =
            [b"\x80\x04\x95\x35\x01\0\0\0\0\0\0X\x2c\x01\0\0".to_vec(), vec![b'x'; 300], b"\x94.".to_vec()].concat();
        for (pickle, expected) in [
            (&b"\x80\x02X\x02\0\0\0abq\0."[..], Some("ab")),
            (b"\x80\x04\x95\x06\0\0\0\0\0\0\0\x8c\x02ab\x94.", Some("ab")),
            (b"\x80\x04\x8d\x02\0\0\0\0\0\0\0ab.", Some("ab")),
            (&long, Some(&*"x".repeat(300))),
            // Two strings of which the first is dropped, a length that is too long, a call, bytes, nothing.
            (b"\x80\x04\x8c\x02ab0\x8c\x02ab.", None),
            (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffab.", None),
            (b"\x80\x04cos\nsystem\n(S'ls'\ntR.", None),
            (b"\x80\x04\x8c\x01\xff\x94.", None),
            (b"", None),
        ] {
            assert_eq!(pickled(pickle), expected, "{pickle:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z0-9+/= ]{0,64}", bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (super::text(&text), pickled(&bytes), pickled(&[&b"\x80\x04"[..], &bytes].concat()));
        }
    }
}
