//! YAML as PyYAML's safe loader reads it; each expectation is `json.dumps(safe_load(text))` with
//! kombu's types.

use super::*;

fn read(yaml: &str) -> Result<String, Malformed> {
    text(yaml.as_bytes())
}

#[test]
fn plain_scalars_are_those_of_yaml_1_1() {
    let cases = [
        ("[~, null, Null, NULL, ]", "[null, null, null, null]"),
        ("[yes, No, ON, off, true, FALSE]", "[true, false, true, false, true, false]"),
        ("[yEs, y, n, nULL, <, '', a b]", r#"["yEs", "y", "n", "nULL", "<", "", "a b"]"#),
        ("[0, -0, 1_000, +12, -0x_fF, 0b1_0, 017, 0_7]", "[0, 0, 1000, 12, -255, 2, 15, 7]"),
        ("[0o17, 08, 0x, 1_, 0xg, 1e5]", r#"["0o17", "08", "0x", 1, "0xg", "1e5"]"#),
        ("[190:20:30, -1:1, 1:60, 1:5:0.5]", r#"[685230, -61, "1:60", 3900.5]"#),
        (
            "[1.5, 1., .5, 1_0.2_5, 1.0e+300, 1.0e3, -.5]",
            r#"[1.5, 1.0, 0.5, 10.25, 1e+300, "1.0e3", "-.5"]"#,
        ),
        (
            "[.inf, -.INF, +.Inf, .nan, .NAN, -.nan]",
            r#"["Infinity", "-Infinity", "Infinity", "NaN", "NaN", "-.nan"]"#,
        ),
        ("12345678901234567890123456789012345678901", "12345678901234567890123456789012345678901"),
        ("", "null"),
        ("\u{feff}a", "\"a\""),
    ];
    for (yaml, expected) in cases {
        assert_eq!(read(yaml).unwrap(), expected, "{yaml}");
    }
}

#[test]
fn instants_are_those_of_yaml_1_1() {
    let cases = [
        ("2001-12-14t21:59:43.10-05:30", "datetime", "2001-12-14T21:59:43.100000-05:30"),
        ("2001-12-14 21:59:43.1234567 Z", "datetime", "2001-12-14T21:59:43.123456+00:00"),
        ("2001-1-4  1:59:43 +2", "datetime", "2001-01-04T01:59:43+02:00"),
        ("2001-12-14T21:59:43", "datetime", "2001-12-14T21:59:43"),
        ("2001-12-14", "date", "2001-12-14"),
    ];
    for (yaml, kind, expected) in cases {
        let json = format!(r#"{{"__type__": "{kind}", "__value__": "{expected}"}}"#);
        assert_eq!(read(yaml).unwrap(), json, "{yaml}");
    }
    for text in ["2001-1-4", "2001-12-14 1:2", "2001-12-14T21:59:43+", "01-01-01"] {
        assert_eq!(read(text).unwrap(), format!("\"{text}\""));
    }
    for wrong in ["2001-13-14", "2001-02-30", "2001-12-14 25:00:00"] {
        assert!(read(wrong).unwrap_err().0.contains("is none of what"), "{wrong}");
    }
}

#[test]
fn tags_say_what_a_value_is() {
    let cases = [
        ("!!str 12", "\"12\""),
        ("!!int '12'", "12"),
        ("!!float 1", "1.0"),
        ("!!bool 'yes'", "true"),
        ("!!null x", "null"),
        ("! 12", "12"),
        ("!!binary 'aGk='", r#"{"__type__": "bytes", "__value__": "hi"}"#),
        ("!!binary |\n  AP\n  8=\n", r#"{"__type__": "base64", "__value__": "AP8="}"#),
        ("!!set {a, b}", r#"["a", "b"]"#),
        ("!!set {? a, ? 1}", r#"["a", 1]"#),
        ("!!seq [1]", "[1]"),
        ("!!map {a: 1}", r#"{"a": 1}"#),
        ("!<tag:yaml.org,2002:int> '7'", "7"),
    ];
    for (yaml, expected) in cases {
        assert_eq!(read(yaml).unwrap(), expected, "{yaml}");
    }
    for (yaml, expected) in [
        ("!!python/object/apply:os.system ['id']", "!!python/object/apply:os.system is not data"),
        ("!!python/tuple [1]", "!!python/tuple is not data"),
        ("!!python/none x", "!!python/none is not data"),
        ("!own x", "!own is not data"),
        ("!!omap [a: 1]", "!!omap is not data"),
        ("!!int x", "\"x\" is none of what its tag says"),
        ("!!binary '%'", "is none of what its tag says"),
    ] {
        let error = read(yaml).unwrap_err().0;
        assert!(error.starts_with("yaml: line 1: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn keys_and_merges() {
    let cases = [
        (
            "{1: a, 1.5: b, yes: c, ~: d, é: e}",
            r#"{"1": "a", "1.5": "b", "true": "c", "null": "d", "\u00e9": "e"}"#,
        ),
        (
            "a: &x {p: 1, q: 2}\nb: {q: 3, <<: *x, r: 4}",
            r#"{"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3, "r": 4}}"#,
        ),
        (
            "- &x {p: 1}\n- &y {p: 2, q: 3}\n- {<<: [*x, *y]}",
            r#"[{"p": 1}, {"p": 2, "q": 3}, {"p": 1, "q": 3}]"#,
        ),
        ("{'<<': 1}", r#"{"<<": 1}"#),
        ("[&a 1, *a, &b [x], *b, *b]", r#"[1, 1, ["x"], ["x"], ["x"]]"#),
    ];
    for (yaml, expected) in cases {
        assert_eq!(read(yaml).unwrap(), expected, "{yaml}");
    }
    for (yaml, expected) in [
        ("{[1]: 2}", "a key of a mapping that is no text"),
        ("{2001-01-01: 2}", "a key of a mapping that is no text"),
        ("{<<: 1}", "<< with what is no mapping"),
        ("&a [*a]", "an alias to what it is part of"),
        ("*a", "yaml: line 1"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("{a: ", "yaml: line"),
    ] {
        let error = read(yaml).unwrap_err().0;
        assert!(error.contains(expected), "{yaml}: {error}");
    }
    assert!(text(b"\xff").unwrap_err().0.contains("not UTF-8"));
}

#[test]
fn a_document_that_expands_to_gigabytes_is_refused() {
    let mut yaml = String::from("- &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for n in 1..10 {
        let aliases = vec![format!("*a{}", n - 1); 9].join(", ");
        yaml.push_str(&format!("- &a{n} [{aliases}]\n"));
    }
    assert!(read(&yaml).unwrap_err().0.contains("limit of 64 MiB"));
    // Each of them is written once, in what is deep.
    let mut deep = format!("- &a0 {}{}\n", "[".repeat(200), "]".repeat(200));
    for n in 1..1000 {
        deep.push_str(&format!("- &a{n} {}*a{}{}\n", "[".repeat(200), n - 1, "]".repeat(200)));
    }
    assert!(read(&deep).unwrap_err().0.contains("more than 500 levels"));
    let fields: Vec<String> = (0..2000).map(|n| format!("k{n}: 1")).collect();
    let merges = format!("- &a {{{}}}\n", fields.join(", ")) + &"- {<<: *a}\n".repeat(2000);
    assert!(read(&merges).unwrap_err().0.contains("<< brings in more"));
}
