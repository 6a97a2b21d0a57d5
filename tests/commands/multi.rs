//! The language of `multi`, where it is not Celery's: what gets lost there is understood here,
//! what makes no sense is refused, and a failure is an exit code.

use super::refused;
use crate::harness::{Output, TestDir, host};

fn multi(words: &str) -> Output {
    let words: Vec<&str> = words.split(' ').collect();
    TestDir::new().qworker(&words)
}

/// What the nodes get besides their names and files.
#[track_caller]
fn shown(words: &str) -> Vec<String> {
    let output = multi(&format!("multi show {words}"));
    assert_eq!(output.code, 0, "{output:?}");
    let options = |line: &str| {
        let all = line.split(" worker --detach ").nth(1).unwrap();
        all.split(" --pidfile=").next().unwrap().replace(&format!("@{}", host()), "")
    };
    output.stdout.lines().map(options).collect()
}

#[test]
fn names_and_numbers_name_nodes() {
    for (words, nodes) in [
        ("2", "celery1 celery2"),
        ("1-3", "celery1 celery2 celery3"),
        ("2-3,7 --range-prefix=w", "w2 w3 w7"),
        ("foo 3", "foo 3"),
        ("foo --loglevel INFO bar", "foo bar"),
        ("foo -C bar", "foo bar"),
        ("--pidfile x.pid foo -c3 bar", "foo bar"),
    ] {
        let output = multi(&format!("multi names {words}"));
        let names = output.stdout.replace(&format!("@{}", host()), "");
        assert_eq!(
            (names.replace('\n', " ").trim(), output.code),
            (nodes, 0),
            "{words}: {output:?}"
        );
    }
}

#[test]
fn an_option_reaches_the_nodes_it_names() {
    for (words, options) in [
        // A range among names.
        ("foo bar baz -c 1 -c:2-3 5", &["-c 1 -n foo", "-c 5 -n bar", "-c 5 -n baz"][..]),
        ("my-node b -c 1 -c:my-node 5", &["-c 5 -n my-node", "-c 1 -n b"]),
        // A name among numbers.
        ("2 -c 1 -c:celery2 5", &["-c 1 -n celery1", "-c 5 -n celery2"]),
        // Some of the numbers have the options they had among all.
        ("2-3 -c 1 -c:1-2 5 -Q:1 a", &["-c 5 -n celery2", "-c 1 -n celery3"]),
        // By both names of a node, and by its number though it is named in full.
        ("a@%h -c:a 5 -Q:1 x", &["-c 5 -Q x -n a"]),
        // Nodes that are not named now may have options.
        ("a -c:b 5", &["-n a"]),
        // One option has one name.
        ("a -c3 -c:a 4", &["-c 4 -n a"]),
        ("a -f x.log -D", &["--logfile=x.log -n a"]),
        // A value with a blank is one word.
        ("a -- x", &["-n a"]),
    ] {
        assert_eq!(shown(words), options, "{words}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let nobody = "no node is named";
    for (words, why) in [
        ("names", nobody),
        ("names 0", nobody),
        ("names 0-2", "expected ascending node numbers, from 1"),
        ("names 3-1", "expected ascending node numbers, from 1"),
        ("names 100000", "at most 1000 nodes"),
        ("names foo foo", "is named twice"),
        ("names 2 -c:3 5", "No node at index '3'"),
        ("names foo -c:0 5", "Indexes start at 1"),
        ("names foo -c:3-1 5", "expected ascending node numbers"),
        ("names foo -c", "-c wants a value"),
        ("names foo --pidfile", "--pidfile wants a value"),
        ("names foo -", "- is no option"),
        ("names foo --cmd=x", "--executable"),
        ("names foo --pidfile=%x", "%x"),
        ("names a%x", "%x"),
        ("nonsense 3", "Invalid command: nonsense"),
        ("get", "the name of a node is missing"),
        ("expand", "a template is missing"),
    ] {
        refused(&multi(&format!("multi {words}")), 2, &[why]);
    }
    refused(&multi("multi"), 2, &["no command is named", "usage: qworker multi start"]);
    refused(&multi("multi get x foo bar"), 1, &["x is not one of these nodes"]);
}

#[test]
fn options_of_the_program_go_with_every_node() {
    let app = TestDir::new();
    let node = |words: &[&str]| {
        let line = app.must(words);
        let begin = line.split(" worker --detach").next().unwrap();
        begin.split_once("qworker ").map(|(_, options)| options.to_string()).unwrap_or_default()
    };
    assert_eq!(node(&["-A", "multi", "multi", "show", "a"]), "-A multi");
    assert_eq!(node(&["--app", "shop", "-qC", "multi", "show", "a", "--", "b"]), "-C --app=shop");
    // A folder that was changed to has one name, whoever looks from where.
    let here = app.path().canonicalize().unwrap().join("tasks.d").display().to_string();
    assert_eq!(node(&["--workdir", "tasks.d", "multi", "show", "a"]), format!("--workdir={here}"));
    // What is encoded in an address is no letter of ours.
    let address = "redis+socket:///run/a%20b.sock";
    assert_eq!(node(&["-b", address, "multi", "show", "a"]), format!("-b {address}"));
    // Its secret is not for whoever looks over a shoulder.
    assert_eq!(node(&["-b", "redis://:p%40s@h", "multi", "show", "a"]), "-b redis://:**@h");
}

#[test]
fn to_look_makes_no_folder() {
    let app = TestDir::new();
    let options = ["--pidfile=new/%n.pid", "--logfile=new/%n.log"];
    for command in [&["names"][..], &["show"], &["expand", "%n"]] {
        app.must(&[&["multi"], command, &["3"], &options].concat());
    }
    assert!(!app.file("new").exists());
}

#[test]
fn help_has_examples() {
    let app = TestDir::new();
    let help = app.must(&["multi", "help"]);
    for part in ["multi start 10 -l INFO -Q:1-3 images,video", "--rolling", "stopwait", "%n"] {
        assert!(help.contains(part), "no {part} in {help}");
    }
    assert_eq!(app.must(&["multi", "start", "3", "--help"]), help);
}
