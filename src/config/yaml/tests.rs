//! What YAML is read into, what is handed out of it, and what is refused.

use super::*;
use serde_json::json;

fn tree(text: &str) -> YamlNode {
    let (root, found) = parse("t.yaml", text);
    assert!(found.is_empty(), "{text:?}: {found:?}");
    root.unwrap()
}

fn faults(text: &str) -> Vec<String> {
    parse("t.yaml", text).1.iter().map(Diagnostic::to_string).collect()
}

#[test]
fn values() {
    let cases = [
        ("a: 1", json!({"a": 1})),
        ("a: '1'", json!({"a": "1"})),
        ("[0x1F, 0o17, -3, +4, 1.5, 1e3, .5]", json!([31, 15, -3, 4, 1.5, 1000.0, 0.5])),
        ("[true, False, yes, null, ~, '']", json!([true, false, "yes", null, null, ""])),
        ("a:", json!({"a": null})),
        ("- |\n  two\n  lines\n- >\n  one\n  line\n", json!(["two\nlines\n", "one line\n"])),
        ("size: 200x200", json!({"size": "200x200"})),
        (
            "a: [inf, nan, .inf, 0x, 99999999999999999999]",
            json!({"a": ["inf", "nan", ".inf", "0x", 1e20]}),
        ),
        ("a: !!str 5", json!({"a": "5"})),
        (
            "a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}",
            json!({"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
        ),
        ("a: &x [1]\nb: *x", json!({"a": [1], "b": [1]})),
        ("\u{feff}a: 1", json!({"a": 1})),
        ("", json!(null)),
    ];
    for (text, value) in cases {
        assert_eq!(tree(text).to_json(), value, "{text}");
    }
}

#[test]
fn lines_of_keys_and_values() {
    let root = tree("# first\na: 1\n\nb:\n  c:\n    - x\n    - y\n");
    let Data::Map(map) = &root.data else { panic!() };
    assert_eq!((map[0].0.line, map[0].1.line, map[1].0.line), (2, 2, 4));
    let Data::Map(inner) = &map[1].1.data else { panic!() };
    let Data::List(list) = &inner[0].1.data else { panic!() };
    assert_eq!((inner[0].0.line, list[0].line, list[1].line), (5, 6, 7));
}

#[test]
fn what_is_refused() {
    let deep = format!("{}x", "- ".repeat(100));
    let laughs: String = (1..40).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1)).collect();
    let cases = [
        ("a: 1\na: 2\n", "t.yaml:2: a: is here twice, first on line 1"),
        ("b: {x: 1, x: 2}\n", "t.yaml:1: x: is here twice, first on line 1"),
        ("a: 'x", "t.yaml:1: column 4: "),
        (
            "a: !secret x",
            "t.yaml:1: column 4: found a tag (a ! before a value), expected none; text that begins with ! stands in quotes",
        ),
        ("? [a]\n: b", "t.yaml:1: a key that is no plain text"),
        ("a: &x [*x]", "t.yaml:1: column "),
        ("a: {<<: 5}", "t.yaml:1: found a number behind <<, expected a mapping"),
        (&deep, "t.yaml:1: column 129: more than 64 levels"),
        (&format!("a0: &a0 x\n{laughs}"), "t.yaml:16: column "),
    ];
    for (text, begin) in cases {
        let found = faults(text);
        assert!(found.len() == 1 && found[0].starts_with(begin), "{text:.40}: {found:?}");
    }
}

/// What is handed out, as lines.
fn visited(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let found = visit("t.yaml", text, "entries", &mut |visit, _| {
        lines.push(match visit {
            Visit::Above(key, node) => format!("{} = {}", key.text, node.to_json()),
            Visit::Entry(key, node) => format!("{}: {} {}", key.line, key.text, node.to_json()),
            Visit::Other(node) => format!("other {}", node.to_json()),
        });
    });
    lines.extend(found.iter().map(Diagnostic::to_string));
    lines
}

#[test]
fn entries_are_handed_out_one_by_one() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["other null"]),
        ("[a]", &["other [\"a\"]"]),
        (
            "a: 1\nentries: {x: [1], y: {z: 2}}\nb: 3",
            &["a = 1", "2: x [1]", "2: y {\"z\":2}", "entries = {}", "b = 3"],
        ),
        (
            "entries:\n  a: 1\n  b: 2\n  a: 3\n",
            &["2: a 1", "3: b 2", "entries = {}", "t.yaml:4: a: is here twice, first on line 2"],
        ),
        (
            "entries: {a: 1}\nentries: {b: 1}\n",
            &["1: a 1", "entries = {}", "t.yaml:2: entries: is here twice, first on line 1"],
        ),
        (
            ".t: &t {x: 1}\nentries:\n  a: {<<: *t, y: 2}\n  <<: {a: 3, b: 4}\n",
            &[".t = {\"x\":1}", "3: a {\"y\":2,\"x\":1}", "4: b 4", "entries = {}"],
        ),
        ("entries: &all {a: 1}\nb: *all\n", &["entries = {\"a\":1}", "b = {\"a\":1}"]),
        ("x: {entries: {a: 1}}", &["x = {\"entries\":{\"a\":1}}"]),
        ("entries: [a]", &["entries = [\"a\"]"]),
        (
            "entries:\n  a: 1\n  b: *\n",
            &[
                "2: a 1",
                "t.yaml:3: column 6: while scanning an anchor or alias, did not find expected alphabetic or numeric character; a text that begins with * or & stands in quotes",
            ],
        ),
    ];
    for (text, lines) in cases {
        assert_eq!(visited(text), *lines, "{text:?}");
    }
    let many: String = (0..NODES_MAX).map(|n| format!("  e{n}: 1\n")).collect();
    assert_eq!(visited(&format!("entries:\n{many}")).len(), NODES_MAX + 1);
}

#[test]
fn bombs_do_not_go_off() {
    let laughs: String =
        (1..40).map(|i| format!("  a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1)).collect();
    let last = visited(&format!("entries:\n  a0: &a0 x\n{laughs}")).pop().unwrap();
    assert!(last.ends_with("more than 100000 values"), "{last}");
    let big = format!("x: &x [{}]\n", "1, ".repeat(90_000));
    let uses: String = (0..2000).map(|n| format!("  e{n}: *x\n")).collect();
    let last = visited(&format!("{big}entries:\n{uses}")).pop().unwrap();
    assert!(last.ends_with("aliases bring in more than 10000000 values"), "{last}");
}

/// Whatever bytes a file holds, reading it ends, and without a panic.
#[test]
fn any_text_is_read_or_refused() {
    let pieces = [
        "a", ":", " ", "\n", "- ", "[", "]", "{", "}", "&x ", "*x", "<<", "!", "!!str ", "'", "\"",
        "|", ">", "#", "%", "@", "?", ",", "---", "...", "\t", "\u{0}", "é", "\u{feff}", "0x",
        "\\", "~", "a: 1\n",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let text: String =
            (0..random.usize(..24)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        if let (Some(root), _) = parse("t.yaml", &text) {
            root.to_json();
            root.found();
        }
        visited(&text.replace('a', "entries"));
    }
}
