"""What fails: errbacks of the old and the new style, and how failures go through chains and chords."""

from celery import chain, chord, group

from cases.app import tasks
from cases.case import alone, cases, down, got, root, until, up

case = cases("failures")
identity, add, total, tell, alarm, fails, raises, exhausts, again = tasks(
    "identity add total tell alarm fails raises exhausts again"
)

# The two styles of errbacks: the id of what has failed, or its request, the exception and the traceback.
STYLES = ("id", tell), ("all", alarm)


@case
def a_task_with_an_errback(here):
    result = fails.s().apply_async(link_error=tell.s(key=here.key()))
    return [got(result), result.id, here.notes(1)]


@case
def a_task_with_an_errback_of_the_new_style(here):
    result = fails.s().apply_async(link_error=alarm.s(key=here.key()))
    return [got(result), result.id, here.notes(1)]


@case
def an_errback_that_is_immutable(here):
    result = fails.s().on_error(tell.si("fixed", key=here.key())).apply_async()
    return [got(result), here.notes(1)]


@case
def several_errbacks(here):
    errbacks = [tell.si("a", key=here.key()), tell.si("b", key=here.key()), tell.s(key=here.key("id"))]
    result = fails.s().apply_async(link_error=errbacks)
    return [got(result), result.id, sorted(here.notes(2)), here.notes(1, "id")]


@case
def an_errback_that_retries(here):
    result = fails.s().apply_async(link_error=chain(again.si(times=1), tell.si("after", key=here.key())))
    return [got(result), here.notes(1)]


@case
def an_errback_that_is_a_chord(here):
    canvas = chord([add.si(1, 1), add.si(2, 2)], chain(total.s(), tell.s(key=here.key())))
    result = fails.s().apply_async(link_error=canvas)
    return [got(result), here.notes(1)]


@case
def an_errback_that_fails_itself(here):
    result = fails.s().apply_async(link_error=exhausts.si(7).on_error(tell.si("last", key=here.key())))
    return [got(result), here.notes(1)]


@case
def no_errback_where_nothing_fails(here):
    result = add.s(1, 1).apply_async(link_error=tell.s(key=here.key()), link=tell.s(key=here.key("link")))
    return [got(result), here.notes(1, "link"), here.notes(0)]


@case
def no_callback_where_it_fails(here):
    result = fails.s().apply_async(link=tell.s(key=here.key()), link_error=tell.si("error", key=here.key("error")))
    return [got(result), here.notes(1, "error"), here.notes(0)]


@case
def exceptions_of_every_kind(here):
    kinds = ("KeyError", "missing"), ("ValueError", "wrong"), ("RuntimeError", "")
    found = [got(raises.send(kind, message)) for kind, message in kinds]
    return [*found, got(fails.send(message="ünïcode 'quoted' \"twice\"\nand more"))]


@case
def the_errback_of_a_chain(here):
    canvas = chain(add.s(1, 1), fails.s(), add.s(1))
    canvas.link_error(tell.s(key=here.key()))
    result = canvas.apply_async()
    return [got(result), up(result), here.notes(1)]


@case
def the_errback_of_each_step(here):
    step = fails.si()
    step.link_error(tell.si("step", key=here.key()))
    result = chain(step for _ in range(6))()
    return [got(result), up(result), here.notes(1)]


@case(hangs=True, expected=["celery.exceptions.Expected"] * 2)
def a_chain_that_fails_before_a_group(here):
    result = (add.s(1, 1) | fails.s() | group(add.s(1), add.s(1))).delay()
    return [alone(one)["raises"] for one in result.results]


@case
def a_group_that_fails_after_a_chain(here):
    result = (add.s(1, 1) | add.s(1) | group(add.s(1), fails.s())).delay()
    return [got(result), up(result)]


def chord_fails(here, name, canvas, errback, count=1):
    """What comes of a chord with an errback, and what that was told."""
    canvas.link_error(errback)
    id = canvas.body.freeze().id
    result = canvas.delay()
    return [got(result), alone(result), id, sorted(here.notes(count, name))]


def both_styles(here, make, count=1):
    found = []
    for name, errback in STYLES:
        found.append(chord_fails(here, name, make(), errback.s(key=here.key(name)), count))
    return found


def body_fails(here, make, count=1):
    found = []
    for name, errback in STYLES:
        canvas = make()
        canvas.link_error(errback.s(key=here.key(name)))
        result = canvas.delay()
        found.append([got(result), sorted(here.notes(count, name))])
    return found


@case
def a_header_of_one_that_fails(here):
    return both_styles(here, lambda: chord((fails.s(),), identity.s()))


@case
def a_header_with_a_chain_that_fails(here):
    return both_styles(here, lambda: chord((chain(identity.si(1), fails.s(), identity.si(2)),), identity.s()))


@case
def a_header_with_a_chain_that_fails_at_its_end(here):
    return both_styles(here, lambda: chord((chain(identity.si(1), fails.s()),), identity.s()))


@case
def a_header_with_a_group_that_fails(here):
    return both_styles(here, lambda: chord((group(identity.si(1), fails.s()),), identity.s()))


@case
def a_header_of_which_many_fail(here):
    canvas = chord((group(*(identity.si(1) for _ in range(4)), *(fails.s() for _ in range(6))),), identity.s())
    canvas.link_error(tell.si("body", key=here.key()))
    return [got(canvas.delay())["raises"], here.notes(1)]


@case
def a_body_that_fails(here):
    return body_fails(here, lambda: chord((identity.si(1),), fails.s()))


@case
def a_body_that_is_a_chain_and_fails(here):
    return body_fails(here, lambda: chord((identity.si(1),), chain(identity.si(1), fails.s(), identity.si(2))))


@case
def a_body_that_is_a_chain_and_fails_at_its_end(here):
    return body_fails(here, lambda: chord((identity.si(1),), chain(identity.si(1), fails.s())))


@case
def a_body_that_is_a_group_and_fails(here):
    return body_fails(here, lambda: chord((identity.si(1),), group(identity.si(1), fails.s())))


@case
def a_body_that_is_a_group_of_which_many_fail(here):
    members = [identity.si(1) for _ in range(3)] + [fails.s() for _ in range(6)]
    canvas = chord((identity.si(1),), group(*members))
    canvas.link_error(tell.si("member", key=here.key()))
    return [got(canvas.delay()), here.notes(6)]


@case
def a_header_that_fails_before_a_body_of_every_kind(here):
    bodies = add.si(9, 7), chain(add.si(9, 7), add.si(5, 7)), group([add.si(9, 7), add.si(5, 7)]), chord(
        group([add.si(1, 1), add.si(2, 2)]), add.si(10, 10)
    )
    return [got(before(body)) for body in bodies]


def before(body):
    """A header that fails, and what is to follow it."""
    return chain(group([add.si(15, 7), fails.si()]), body).apply_async()


@case
def a_body_that_is_a_task_ends_with_its_header(here):
    return alone(before(add.si(9, 7)))


@case
def a_body_that_is_a_chain_ends_with_its_header(here):
    return alone(before(chain(add.si(9, 7), add.si(5, 7))))


@case
def a_body_that_is_a_group_ends_with_its_header(here):
    return [alone(one) for one in before(group([add.si(9, 7), add.si(5, 7)])).results]


@case(hangs=True, expected="celery.exceptions.ChordError")
def a_body_that_is_a_chord_ends_with_its_header(here):
    return alone(before(chord(group([add.si(1, 1), add.si(2, 2)]), add.si(10, 10))))["raises"]


@case
def a_header_that_fails_in_a_chain_of_chains(here):
    result = chain(chain(group(add.si(1, 1), fails.si()), identity.s()), identity.s()).apply_async()
    return [alone(result), alone(result.parent)]


@case
def a_member_that_is_a_chain_with_a_chord_in_it_fails(here):
    inner = chain(fails.si(), group(identity.si(2), identity.si(3)), identity.si(4))
    result = chain(group(identity.si(1), inner), identity.s()).apply_async()
    return alone(result)


@case(hangs=True, expected=["celery.exceptions.ChordError", ["error", "error"], []])
def a_chord_in_a_chord_fails(here):
    inner = chord([identity.si("a"), fails.si()], identity.si("inner"))
    outer = chord(group([identity.si("b"), inner]), tell.si("outer", key=here.key("body")))
    outer.link_error(tell.si("error", key=here.key()))
    result = outer.delay()
    # Celery's client links it to the inner body too: both have failed.
    return [alone(result)["raises"], here.notes(2), here.notes(0, "body")]


@case
def errbacks_of_members_and_of_the_body(here):
    found = []
    for name, pattern in ("one", "f"), ("three", "fff"), ("mixed", "fof"):
        header = [fails.si() if one == "f" else identity.si(1) for one in pattern]
        for member in header:
            member.link_error(tell.si("member", key=here.key(name)))
        canvas = chord(header, tell.si("body", key=here.key("body")))
        canvas.body.link_error(tell.si("body failed", key=here.key(name)))
        result = canvas.delay()
        found.append([got(result), sorted(here.notes(pattern.count("f") + 1, name))])
    return [found, here.notes(0, "body")]


@case
def errbacks_of_a_chord_are_its_bodys(here):
    canvas = chord((fails.si(), identity.si(1), fails.si()), tell.si("body", key=here.key("body")))
    canvas.link_error(tell.si("error", key=here.key()))
    return [got(canvas.delay()), here.notes(1), here.notes(0, "body")]


@case
def errbacks_of_an_implied_chord(here):
    canvas = chain(group(fails.si(), identity.si(1), fails.si()), tell.si("body", key=here.key("body")))
    canvas.link_error(tell.si("error", key=here.key()))
    result = canvas.delay()
    return [alone(result), sorted(here.notes(1)), here.notes(0, "body")]


@case
def errbacks_of_a_chain_with_an_implied_chord(here):
    canvas = chain(identity.si(1), group(fails.si(), fails.si()), tell.si("body", key=here.key("body")))
    result = canvas.on_error(tell.si("error", key=here.key())).apply_async()
    value = alone(result)["raises"]
    return [value, until(lambda: here.notes(1)[:1], "an errback"), here.notes(0, "body")]


@case
def what_comes_after_a_chord_that_fails(here):
    result = chain(chord([add.s(1, 1), fails.s()], total.s()), add.s(1), add.s(2)).apply_async()
    ids = [result, result.parent, result.parent.parent]
    return [[alone(one)["raises"] for one in ids], up(result)]


@case
def the_traceback_of_a_failure(here):
    result = fails.send()
    got(result)
    return [bool(result.traceback), result.failed(), result.successful(), result.info.args, down(root(result))]


@case
def arguments_that_do_not_fit(here):
    return [got(add.send(5)), got(add.send(5, 5, wrong=5)), got(add.send()), got(total.send(1, 2, 3))]


@case
def arguments_in_a_chain_that_do_not_fit(here):
    result = chain(add.s(1, 1), add.s(1, 2, 3), add.s(1)).apply_async()
    return [got(result), up(result)]


@case
def retries_that_are_used_up(here):
    return [got(exhausts.send(7)), got(exhausts.s(8).apply_async(link_error=tell.si("used up", key=here.key()))), here.notes(1)]
