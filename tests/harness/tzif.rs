//! Files of time zones, made by hand (RFC 9636).

/// A zone whose clocks are `offsets.0` seconds from UTC, `offsets.1` from `change` on, and
/// then what `footer` says, whose first name of three letters both have. With `leaps` it counts a leap second.
pub fn tzif(change: i64, offsets: (i32, i32), footer: &str, leaps: bool) -> Vec<u8> {
    let header = |counts: [u32; 6]| {
        let mut bytes = [b"TZif2".as_slice(), &[0; 15]].concat();
        counts.iter().for_each(|count| bytes.extend(count.to_be_bytes()));
        bytes
    };
    // What readers of 64 bits pass over, and what they read.
    let mut bytes = header([0, 0, 0, 0, 1, 4]);
    bytes.extend([0, 0, 0, 0, 0, 0, b'O', b'L', b'D', 0]);
    bytes.extend(header([0, 0, u32::from(leaps), 1, 2, 4]));
    bytes.extend(change.to_be_bytes());
    bytes.push(1);
    for offset in [offsets.0, offsets.1] {
        bytes.extend(offset.to_be_bytes());
        bytes.extend([0, 0]);
    }
    bytes.extend(footer.trim_start_matches('<').bytes().take(3).chain([0]));
    if leaps {
        bytes.extend(78_796_800_i64.to_be_bytes());
        bytes.extend(1_i32.to_be_bytes());
    }
    bytes.extend(format!("\n{footer}\n").bytes());
    bytes
}
