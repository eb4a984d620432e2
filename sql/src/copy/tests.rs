//! What records are cut into, wherever the stream is cut.

use super::decode::Record;
use super::line::{Cut, Lines};
use super::*;
use crate::parser::{CopyOption, OptionValue};

fn options(from: bool, given: &[(&str, &str)]) -> crate::Result<CopyOptions> {
    let option = |(name, value): &(&str, &str)| CopyOption {
        name: (*name).to_owned(),
        value: OptionValue::Text((*value).to_owned()),
        position: None,
    };
    CopyOptions::read(from, &given.iter().map(option).collect::<Vec<_>>())
}

/// The lines of `data`, which comes in pieces of `piece` bytes, and their numbers.
fn lines(options: &CopyOptions, data: &[u8], piece: usize) -> crate::Result<Vec<(u64, String)>> {
    let mut lines = Lines::new(options);
    let mut cut = Vec::new();
    let mut pieces = data.chunks(piece);
    loop {
        match pieces.next() {
            Some(bytes) => lines.feed(bytes)?,
            None => lines.end(),
        }
        loop {
            match lines.cut()? {
                Cut::Line(from, to) => {
                    cut.push((lines.number, String::from_utf8(lines.bytes()[from..to].to_vec()).unwrap()));
                }
                Cut::More => break,
                Cut::End => return Ok(cut),
            }
        }
    }
}

#[test]
fn lines_are_the_same_wherever_the_stream_is_cut() {
    let text = options(true, &[]).unwrap();
    let csv = options(true, &[("format", "csv"), ("escape", "\\")]).unwrap();
    for (options, data, expected) in [
        (&text, &b"a\tb\nc\\\nd\n\ne"[..], vec![(1, "a\tb"), (3, "c\\\nd"), (4, ""), (5, "e")]),
        (&text, b"a\r\nb\\.c\r\n\\.\r\nnever", vec![(1, "a"), (2, "b\\.c")]),
        (&text, b"a\rb\r\\.\r", vec![(1, "a"), (2, "b")]),
        (&text, b"a\\\\\nb\n", vec![(1, "a\\\\"), (2, "b")]),
        (&csv, b"h\n\"a\nb\",\"\\\"\n\"\n\\.\nx", vec![(1, "h"), (4, "\"a\nb\",\"\\\"\n\"")]),
        (&csv, b"", vec![]),
    ] {
        for piece in 1..=data.len().max(1) {
            let cut = lines(options, data, piece).unwrap();
            let cut: Vec<(u64, &str)> = cut.iter().map(|(n, line)| (*n, line.as_str())).collect();
            assert_eq!(cut, expected, "pieces of {piece} of {:?}", String::from_utf8_lossy(data));
        }
    }
}

#[test]
fn line_ends_may_not_be_mixed() {
    let text = options(true, &[]).unwrap();
    for piece in 1..6 {
        for data in [&b"a\nb\rc\n"[..], b"a\r\nb\n", b"a\r\nb\rc"] {
            assert_eq!(lines(&text, data, piece).expect_err("refused").sqlstate, "22P04");
        }
    }
}

#[test]
fn a_value_comes_back_as_it_was() {
    let mut state = 7_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let alphabet: Vec<char> = "a,;\t\n\r\"'\\.Nx0 é\u{b}".chars().collect();
    let text = options(true, &[]).unwrap();
    let csv = options(true, &[("format", "csv")]).unwrap();
    let odd =
        options(true, &[("format", "csv"), ("quote", "'"), ("escape", "\\"), ("delimiter", ";")]).unwrap();
    for round in 0..20_000 {
        let values: Vec<Option<String>> = (0..1 + random() % 3)
            .map(|_| {
                let value = (0..random() % 5).map(|_| alphabet[random() % alphabet.len()]).collect();
                (random() % 5 > 0).then_some(value)
            })
            .collect();
        for options in [&text, &csv, &odd] {
            let mut written = Vec::new();
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    written.push(options.delimiter);
                }
                match value {
                    None => written.extend_from_slice(options.null.as_bytes()),
                    Some(v) if options.is_csv() => {
                        super::csv::write(v.as_bytes(), options, false, values.len() == 1, &mut written);
                    }
                    Some(v) => super::text::write(v.as_bytes(), options.delimiter, &mut written),
                }
            }
            let mut stream = written.clone();
            stream.push(b'\n');
            let mut cut = Lines::new(options);
            cut.feed(&stream).unwrap();
            cut.end();
            let Cut::Line(from, to) = cut.cut().unwrap() else {
                panic!("round {round}: no line in {written:?}")
            };
            let mut record = Record::default();
            let line = cut.bytes()[from..to].to_vec();
            if options.is_csv() {
                super::csv::split(&line, options, &mut record).unwrap();
            } else {
                super::text::split(&line, options, &mut record);
            }
            assert_eq!(record.texts(), values, "round {round}: {:?}", String::from_utf8_lossy(&written));
        }
    }
}

#[test]
fn binary_records_are_the_same_wherever_the_stream_is_cut() {
    let mut data = super::binary::SIGNATURE.to_vec();
    data.extend(b"\0\0\0\0\0\0\0\x02xx\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\x02\0\0\0\0\0\0\0\x02bc\xff\xff");
    for piece in 1..=data.len() {
        let mut records = super::binary::Records::new();
        let (mut places, mut seen) = (Vec::new(), Vec::new());
        let mut pieces = data.chunks(piece);
        'stream: loop {
            match pieces.next() {
                Some(bytes) => records.feed(bytes).unwrap(),
                None => records.end(),
            }
            loop {
                match records.cut(2, &mut places).unwrap() {
                    super::binary::Cut::Record => {
                        let value =
                            |p: &Option<(usize, usize)>| p.map(|(a, b)| records.bytes()[a..b].to_vec());
                        seen.push(places.iter().map(value).collect::<Vec<_>>());
                    }
                    super::binary::Cut::More => break,
                    super::binary::Cut::End => break 'stream,
                }
            }
        }
        let expected = vec![vec![Some(b"a".to_vec()), None], vec![Some(vec![]), Some(b"bc".to_vec())]];
        assert_eq!(seen, expected, "pieces of {piece}");
    }
    for bad in [&b"PGCOPX"[..], b"PGCOPY\n\xff\r\n\0\0\x01\0\0", b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03"]
    {
        let mut records = super::binary::Records::new();
        records.feed(bad).unwrap();
        assert!(records.cut(2, &mut Vec::new()).is_err(), "{bad:?}");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (from, given, sqlstate) in [
        (true, &[("format", "binary"), ("delimiter", "|")][..], "42601"),
        (true, &[("format", "csv"), ("format", "csv")], "42601"),
        (true, &[("delimiter", "ab")], "0A000"),
        (true, &[("delimiter", "\n")], "22023"),
        (true, &[("quote", "'")], "0A000"),
        (true, &[("format", "csv"), ("quote", ",")], "22023"),
        (true, &[("null", "a\tb")], "0A000"),
        (false, &[("header", "match")], "0A000"),
        (true, &[("encoding", "latin1")], "0A000"),
        (true, &[("nonsense", "1")], "42601"),
    ] {
        assert_eq!(options(from, given).expect_err("refused").sqlstate, sqlstate, "{given:?}");
    }
}
