//! Binds the arguments of a message to the parameters of a task, by Python's rules and
//! with Python's words: a Celery client sees the `TypeError` that it would see from a
//! function of Python.

use super::Param;
use crate::wire::Exception;
use serde_json::value::RawValue;

/// Parameters with their values, defaults filled in, in the order of `params`; nothing
/// for a task without `params`, which takes any. `task` is the name to complain with;
/// as a function's, it is the part behind the last dot.
pub fn bind(
    task: &str,
    params: Option<&[Param]>,
    args: &[Box<RawValue>],
    kwargs: &[(String, Box<RawValue>)],
) -> Result<Vec<(String, Box<RawValue>)>, Exception> {
    let Some(params) = params else { return Ok(Vec::new()) };
    let function = task.rsplit('.').next().unwrap_or(task);
    let refuse =
        |why: String| Err(Exception::new("builtins", "TypeError", format!("{function}() {why}")));

    let mut values: Vec<Option<&Box<RawValue>>> =
        args.iter().map(Some).take(params.len()).collect();
    values.resize(params.len(), None);
    // Python's order: keywords first, then too many, then too few.
    for (name, value) in kwargs {
        match params.iter().position(|param| param.name == *name) {
            None => return refuse(format!("got an unexpected keyword argument '{name}'")),
            Some(at) if at < args.len() => {
                return refuse(format!("got multiple values for argument '{name}'"));
            }
            // A name that stands twice in a JSON object: the last counts, as in Python.
            Some(at) => values[at] = Some(value),
        }
    }
    if args.len() > params.len() {
        return refuse(too_many(params, args.len()));
    }
    let mut bound = Vec::with_capacity(params.len());
    let mut missing = Vec::new();
    for (param, value) in params.iter().zip(values) {
        match value.or(param.default.as_ref()) {
            Some(value) => bound.push((param.name.clone(), value.clone())),
            None => missing.push(format!("'{}'", param.name)),
        }
    }
    if missing.is_empty() { Ok(bound) } else { refuse(too_few(&missing)) }
}

fn too_many(params: &[Param], given: usize) -> String {
    let most = params.len();
    let required = params.iter().filter(|param| param.default.is_none()).count();
    let takes = match required == most {
        true if most == 1 => "1 positional argument".to_string(),
        true => format!("{most} positional arguments"),
        false => format!("from {required} to {most} positional arguments"),
    };
    format!("takes {takes} but {given} {} given", if given == 1 { "was" } else { "were" })
}

fn too_few(missing: &[String]) -> String {
    let names = match missing {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [many @ .., last] => format!("{}, and {last}", many.join(", ")),
    };
    let plural = if missing.len() == 1 { "" } else { "s" };
    format!("missing {} required positional argument{plural}: {names}", missing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    fn run(params: &str, args: &[&str], kwargs: &[(&str, &str)]) -> Result<String, String> {
        let param = |text: &str| match text.split_once('=') {
            Some((name, default)) => Param { name: name.into(), default: Some(raw(default)) },
            None => Param { name: text.into(), default: None },
        };
        let params: Vec<Param> = params.split_whitespace().map(param).collect();
        let args: Vec<_> = args.iter().map(|text| raw(text)).collect();
        let kwargs: Vec<_> =
            kwargs.iter().map(|(name, text)| (name.to_string(), raw(text))).collect();
        match bind("shop.add", Some(&params), &args, &kwargs) {
            Ok(bound) => Ok(bound
                .iter()
                .map(|(name, value)| format!("{name}={}", value.get()))
                .collect::<Vec<_>>()
                .join(" ")),
            Err(e) => {
                assert_eq!((e.exc_module.as_str(), e.exc_type.as_str()), ("builtins", "TypeError"));
                Err(e.exc_message[0].as_str().unwrap().to_string())
            }
        }
    }

    /// Outcome of calls with these parameters, arguments and keywords; the words were
    /// taken from Python 3.11.
    #[test]
    fn pythons_rules_in_pythons_words() {
        type Case = (
            &'static str,
            &'static [&'static str],
            &'static [(&'static str, &'static str)],
            Result<&'static str, &'static str>,
        );
        let cases: &[Case] = &[
            ("x y", &["1", "2"], &[], Ok("x=1 y=2")),
            ("x y", &["1"], &[("y", "2")], Ok("x=1 y=2")),
            ("x y", &[], &[("y", "2"), ("x", "1")], Ok("x=1 y=2")),
            ("x y=5", &["1"], &[], Ok("x=1 y=5")),
            ("x=1 y=2", &[], &[("y", "[3, 4]")], Ok("x=1 y=[3, 4]")),
            ("", &[], &[], Ok("")),
            ("x", &["null"], &[], Ok("x=null")),
            ("x", &[], &[("x", "1"), ("x", "2")], Ok("x=2")),
            ("x y", &["1"], &[], Err("add() missing 1 required positional argument: 'y'")),
            ("x y", &[], &[], Err("add() missing 2 required positional arguments: 'x' and 'y'")),
            (
                "x y z",
                &[],
                &[],
                Err("add() missing 3 required positional arguments: 'x', 'y', and 'z'"),
            ),
            (
                "x y z",
                &[],
                &[("y", "1")],
                Err("add() missing 2 required positional arguments: 'x' and 'z'"),
            ),
            (
                "x y",
                &["1", "2", "3"],
                &[],
                Err("add() takes 2 positional arguments but 3 were given"),
            ),
            ("x", &["1", "2"], &[], Err("add() takes 1 positional argument but 2 were given")),
            ("", &["1"], &[], Err("add() takes 0 positional arguments but 1 was given")),
            (
                "x y=1",
                &["1", "2", "3"],
                &[],
                Err("add() takes from 1 to 2 positional arguments but 3 were given"),
            ),
            (
                "x=1",
                &["1", "2"],
                &[],
                Err("add() takes from 0 to 1 positional arguments but 2 were given"),
            ),
            ("x y", &["1"], &[("z", "1")], Err("add() got an unexpected keyword argument 'z'")),
            ("x y", &["1"], &[("x", "1")], Err("add() got multiple values for argument 'x'")),
            (
                "x y",
                &["1", "2", "3"],
                &[("x", "1")],
                Err("add() got multiple values for argument 'x'"),
            ),
            ("x", &["1", "2"], &[("z", "1")], Err("add() got an unexpected keyword argument 'z'")),
        ];
        for (params, args, kwargs, outcome) in cases {
            let outcome = outcome.map(String::from).map_err(String::from);
            assert_eq!(
                run(params, args, kwargs),
                outcome,
                "add({params}) with {args:?} {kwargs:?}"
            );
        }
    }

    #[test]
    fn without_params_anything_goes() {
        assert!(bind("x", None, &[raw("1")], &[("y".into(), raw("2"))]).unwrap().is_empty());
    }
}
