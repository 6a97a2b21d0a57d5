"""Tasks that are replaced: alone, in chains, groups, headers and bodies."""

from celery import chain, chord, group

from cases.app import tasks
from cases.case import alone, cases, down, got, outcome, root

case = cases("replaced tasks")
identity, add, total, tell, fails, request, replaced, add_to_all, raises = tasks(
    "identity add total tell fails request replaced add_to_all raises"
)


def by(signature):
    return dict(signature)


def by_chain(here=None, name=""):
    """What a task is replaced by that gives its argument back by way of two, with a callback."""
    canvas = chain(identity.s(), identity.s())
    if here:
        canvas.link(tell.si("inner", key=here.key(name)))
    return by(canvas)


def by_failing_chain(here):
    canvas = chain(identity.s(), fails.s())
    canvas.link_error(tell.si("inner", key=here.key()))
    return by(canvas)


@case
def by_a_task(here):
    return outcome(replaced.s(1, by=by(add.s(2))).apply_async())


@case
def by_a_chain(here):
    return outcome(replaced.s(42, by=by_chain()).apply_async())


@case
def by_a_group(here):
    return outcome(replaced.s(1, by=by(group(add.s(1), add.s(2)))).apply_async())


@case
def by_a_chord(here):
    return outcome(replaced.s(1, by=by(chord([add.s(1), add.s(2)], total.s()))).apply_async())


@case
def by_a_chain_to_a_group(here):
    return outcome(replaced.s(1, by=by(chain(add.s(1), group(add.s(1), add.s(2))))).apply_async())


@case
def by_a_chain_from_a_group(here):
    return outcome(replaced.s(1, by=by(chain(group(add.s(1), add.s(2)), total.s()))).apply_async())


@case
def by_an_empty_chain(here):
    empty = {**dict(chain(add.s(1), add.s(2))), "kwargs": {"tasks": []}}
    return got(chain(identity.s(1), replaced.si(by=empty)).apply_async())


@case(expected=[42, 42, 42])
def by_a_chain_in_a_chain(here):
    first = chain(replaced.si(42, by=by_chain()), identity.s())
    middle = chain(identity.s(42), replaced.s(by=by_chain()), identity.s())
    last = chain(identity.s(42), replaced.s(by=by_chain()))
    return [got(one.delay()) for one in (first, middle, last)]


@case(expected=[[42, 7], [42, 7, 8], [42, 7]])
def by_a_chain_in_a_group(here):
    one = lambda n: replaced.s(n, by=by_chain())  # noqa: E731
    first, middle, last = (
        group(one(42), identity.s(7)), group(identity.s(42), one(7), identity.s(8)), group(identity.s(42), one(7)),
    )
    return [got(canvas.delay()) for canvas in (first, middle, last)]


@case(expected=[[42], [42, 7], [42, 7, 8], [42, 7]])
def by_a_chain_in_a_header(here):
    one = lambda n: replaced.s(n, by=by_chain())  # noqa: E731
    headers = [[one(42)], [one(42), identity.s(7)], [identity.s(42), one(7), identity.s(8)], [identity.s(42), one(7)]]
    return [got(chord(header, identity.s()).delay()) for header in headers]


@case(expected=[[42], [42], [42], [42]])
def by_a_chain_in_a_body(here):
    one = lambda: replaced.s(by=by_chain())  # noqa: E731
    bodies = [one(), chain(one(), identity.s()), chain(identity.s(), one(), identity.s()), chain(identity.s(), one())]
    return [got(chord([identity.s(42)], body).delay()) for body in bodies]


@case
def callbacks_of_what_replaces(here):
    canvas = chain(identity.s("Hello "), replaced.s(by=by_chain(here)), add.s("world"))
    return [got(canvas.delay()), here.notes(1)]


@case
def callbacks_of_both(here):
    canvas = chain(identity.s("Hello "), replaced.s(by=by_chain(here)), add.s("world"))
    canvas.link(tell.s(key=here.key()))
    return [got(canvas.delay()), sorted(here.notes(2))]


@case
def errbacks_of_what_replaces(here):
    canvas = chain(identity.s("a"), replaced.s(by=by_failing_chain(here)), add.s("never"))
    return [got(canvas.delay()), here.notes(1)]


@case
def errbacks_of_both(here):
    canvas = chain(identity.s("a"), replaced.s(by=by_failing_chain(here)), add.s("never"))
    canvas.link_error(tell.si("outer", key=here.key()))
    return [got(canvas.delay()), sorted(here.notes(2))]


@case
def the_callback_of_a_chain_with_a_replaced_step(here):
    canvas = chain(replaced.si(42, by=by(add.s(7))), identity.s())
    canvas.link(tell.s(key=here.key()))
    return [got(canvas.delay()), here.notes(1)]


@case
def the_errback_of_a_chain_with_a_replaced_step(here):
    canvas = chain(replaced.si(42, by=by(add.s(7))), fails.s())
    canvas.link_error(tell.si("error", key=here.key()))
    return [got(canvas.delay()), here.notes(1)]


@case
def the_callback_of_a_replaced_step(here):
    step = replaced.si(42, by=by(add.s(7)))
    step.link(tell.s(key=here.key()))
    return [got(chain(step, identity.s()).delay()), here.notes(1)]


@case
def the_errback_of_a_replaced_step(here):
    step = replaced.si(by=by(fails.si()))
    step.link_error(tell.si("error", key=here.key()))
    return [got(chain(step, identity.si(42)).delay()), here.notes(1)]


@case
def a_group_with_callbacks_and_a_replaced_member(here):
    canvas = group(replaced.si(42, by=by(add.s(7))), identity.si(1))
    canvas.link(tell.si("first", key=here.key()))
    own = replaced.si(42, by=by(add.s(7)))
    own.link(tell.s(key=here.key("own")))
    return [got(canvas.delay()), here.notes(1), got(group(own, identity.si(1)).delay()), here.notes(1, "own")]


@case
def a_group_with_errbacks_and_a_replaced_member(here):
    canvas = group(replaced.si(42, by=by(add.s(7))), fails.s())
    canvas.link_error(tell.si("error", key=here.key()))
    own = replaced.si(by=by(fails.si()))
    own.link_error(tell.si("error", key=here.key("own")))
    return [got(canvas.delay()), here.notes(1), got(group(own, identity.si(1)).delay()), here.notes(1, "own")]


@case(expected=[29, 38])
def replaced_tasks_in_chords_in_a_chord(here):
    plus = lambda a, b: replaced.s(a, by=by(add.s(b)))  # noqa: E731
    members = [
        chord([add.s(1, 2), plus(3, 4)], add_to_all.s(5)) | total.s(),
        chord([plus(6, 7), add.s(0, 0)], add_to_all.s(8)) | total.s(),
    ]
    return got(chord(members, add_to_all.s(9))())


@case
def replaced_by_what_is_replaced(here):
    def nested(key):
        inner = chain(tell.si("in b", key=key), tell.si("c", key=key), tell.si("out b", key=key))
        outer = chain(tell.si("in a", key=key), replaced.si(by=by(inner)), tell.si("out a", key=key))
        return replaced.si(by=by(outer))

    found = [got(nested(here.key()).delay()), here.notes(5)]
    return [*found, got((nested(here.key("chain")) | add.si(4, 2)).delay()), here.notes(5, "chain")]


@case
def how_often_a_task_was_replaced(here):
    nested = replaced.si(by=by(replaced.si(by=by(request.si()))))
    values = [got(one.apply_async())["replaced_task_nesting"] for one in (request.si(), replaced.si(by=by(request.si())), nested)]
    in_chain = chain(replaced.si(by=by(chain(identity.si(1), request.si()))), collects())
    return [*values, got(in_chain.apply_async())]


def collects():
    (again,) = tasks("again")
    return add.si(1, 1)


@case
def what_replaces_sees_the_place_of_the_replaced(here):
    result = chord([replaced.si(by=by(request.si())), add.si(1, 1)], identity.s()).apply_async()
    seen = got(result)[0]
    return [{name: seen[name] for name in ("id", "root_id", "parent_id", "group", "group_index", "follows")}, result.parent.id]


@case
def what_a_replaced_task_leaves_behind(here):
    result = chain(add.s(1, 1), replaced.s(by=by(chain(add.s(1), add.s(2)))), add.s(3)).apply_async()
    return [got(result), down(root(result))]


@case
def replaced_by_what_fails(here):
    result = chain(replaced.si(by=by(raises.si("KeyError", "missing"))), add.si(1, 1)).apply_async()
    return [alone(result), alone(result.parent)]
