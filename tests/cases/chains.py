"""Chains, with groups and chords in them."""

from celery import chain, chord, group

from cases.app import tasks
from cases.case import alone, cases, down, got, outcome, root, up

case = cases("chains")
identity, add, mul, total, tell, fails, ids, collect, replaced, add_to_all = tasks(
    "identity add mul total tell fails ids collect replaced add_to_all"
)


@case(expected=32)
def three_steps(here):
    return got((add.s(4, 4) | add.s(8) | add.s(16))())


@case
def a_chain_knows_its_family(here):
    return outcome(chain(add.s(1, 1), add.s(2), add.s(3)).apply_async())


@case(expected=7)
def one_step(here):
    return got(chain(add.s(3, 4))())


@case(expected=42)
def a_chain_in_a_chain_of_one(here):
    return got(chain([chain(identity.s(42))]).apply_async())


@case(expected=[64, 65, 66, 67])
def chains_in_chains_before_a_group(here):
    inner = add.s(4) | replaced.s(by=dict(add.s(8))) | add.s(16) | add.s(32)
    return got((add.s(2, 2) | inner | group(add.s(i) for i in range(4)))())


@case(expected=110)
def an_immutable_step_takes_nothing(here):
    return got(chain(add.s(1, 1), add.si(4, 5), add.s(1), add.si(50, 60)).apply_async())


@case(expected=[3, 3, 13])
def partials_get_what_is_missing(here):
    part = add.s(2)
    return [got(part.clone(args=(1,)).apply_async()), got(part.apply_async((1,))), got((part | add.s(10)).apply_async((1,)))]


@case(expected=12)
def keyword_arguments_of_a_call(here):
    return got(chain(add.s(1, 2), add.s(3), add.s(4)).apply_async(kwargs={"z": 2}))


@case(expected=[14, 14])
def a_chain_in_a_group_gets_the_arguments(here):
    return got((add.s(5, 6) | group(add.s(1) | add.s(2), add.s(3)))())


@case
def groups_around_a_task_run_in_order(here):
    key = here.key()
    before = group(tell.si(f"before {i}", key=key) for i in range(3))
    after = group(tell.si(f"after {i}", key=key) for i in range(2))
    result = (before | tell.si("between", key=key) | after).delay()
    value, lines = got(result), here.notes(6)
    return [value, sorted(lines[:3]), lines[3], sorted(lines[4:])]


@case(expected=[1, 2, [3, 4]])
def a_chain_to_a_group_in_a_group(here):
    inner = chain(identity.si(5), group(identity.si(3), identity.si(4)))
    return got(group(identity.si(1), identity.si(2), inner).delay())


@case
def parents_and_roots_of_a_chain(here):
    result = chain(ids.si(i) for i in range(5))()
    found, node = [got(result)], result.parent
    while node:
        found.append(got(node))
        node = node.parent
    return [found, up(result)]


@case(expected=10)
def a_chord_with_a_time_and_errbacks(here):
    canvas = chain(group(add.s(1, 2), add.s(3, 4)), total.s()).on_error(tell.si("error", key=here.key()))
    return got(canvas.apply_async(countdown=0.3))


@case(expected=8)
def a_task_a_group_and_a_chord(here):
    canvas = add.si(1, 0) | group(add.s(1), add.s(1)) | group(total.s(), total.s()) | total.s()
    return got(canvas())


@case(expected=12)
def chords_one_after_the_other(here):
    canvas = add.si(1, 0) | group(add.s(1), add.s(1)) | total.s() | add.s(1)
    return got((canvas | group(add.s(1), add.s(1)) | total.s())())


@case(expected=12)
def a_chord_that_is_written_after_an_implied_one(here):
    canvas = add.si(1, 0) | group(add.s(1), add.s(1)) | total.s() | add.s(1)
    return got((canvas | chord(group(add.s(1), add.s(1)), total.s()))())


@case(expected=178)
def six_chords_in_two_chains(here):
    def chords(first, second, third):
        return [chord(group(make(n), make(n)), total.s()) for make, n in (first, second, third)]

    fixed = lambda n: add.si(n, 0)  # noqa: E731
    one = chain(*chords((fixed, 1), (add.s, 1), (add.s, 0)))
    two = chain(*chords((add.s, 10), (add.s, 0), (add.s, 1)))
    return got((one | two)())


@case(expected=1089)
def five_chords_of_three(here):
    header = lambda n: group(add.s(n) for _ in range(3))  # noqa: E731
    first = chord(group(add.si(1, 0) for _ in range(3)), total.s())
    return got(chain(first, *(chord(header(n), total.s()) for n in (1, 1, 1, 1, 0)))())


@case
def a_chord_and_a_group(here):
    return outcome((add.si(1, 0) | group(add.s(1), add.s(1)) | total.s() | add.s(1) | group(add.s(1), add.s(1)))())


@case(expected=[[6, 6], [7, 7], [8, 8]])
def a_chord_some_tasks_and_a_group(here):
    found = []
    for count in 1, 2, 3:
        canvas = group(add.s(1, 1), add.s(1, 1)) | total.s()
        for _ in range(count):
            canvas |= add.s(1)
        found.append(got((canvas | group(add.s(1), add.s(1)))()))
    return found


@case(expected=[42, 42])
def a_lone_group_in_a_chain(here):
    return got(chain(group(identity.s(42), identity.s(42))).delay())


@case
def a_group_in_the_middle_of_a_chain(here):
    return outcome(chain(identity.s(42), group(identity.s(), identity.s()), identity.s()).delay())


@case
def a_group_at_the_end_of_a_chain(here):
    return outcome(chain(identity.s(42), group(identity.s(), identity.s())).delay())


@case
def links_of_an_inner_chain_are_kept(here):
    inner = chain(identity.s("a"), add.s("b"))
    inner.link(tell.si("linked", key=here.key()))
    inner.link_error(tell.si("error", key=here.key("error")))
    return [got(chain(inner, add.s("c")).delay()), here.notes(1), here.notes(0, "error")]


@case
def each_step_has_a_callback(here):
    step = identity.si(7)
    step.link(tell.si("step", key=here.key()))
    return [got(chain(step for _ in range(8))()), here.notes(8)]


@case
def groups_after_groups_run_once(here):
    key = here.key()
    say = lambda *names: group(tell.si(name, key=key) for name in names)  # noqa: E731
    canvas = chain(say("1", "2", "3"), say("4", "5", "6"), say("7"), say("8"), tell.si("9", key=key))
    return [got(canvas.delay()), sorted(here.notes(9))]


@case
def groups_after_a_chord_of_groups_run_once(here):
    key = here.key()
    say = lambda *names: group([tell.si(name, key=key) for name in names])  # noqa: E731
    canvas = chain(chord(say("1", "2", "3"), say("4", "5", "6")), say("7"), say("8"), tell.si("9", key=key))
    return [got(canvas.delay()), sorted(here.notes(9))]


@case
def a_task_and_a_group_of_one_after_a_chord_of_groups(here):
    key = here.key()
    say = lambda *names: group([tell.si(name, key=key) for name in names])  # noqa: E731
    first = chord(say("1", "2", "3"), say("4", "5", "6"))
    canvas = chain(first, tell.si("7", key=key), say("8"), tell.si("9", key=key))
    return [got(canvas.delay()), sorted(here.notes(9))]


@case
def three_groups_and_a_task_or_a_group_of_one(here):
    found = []
    for name, last in ("task", lambda one: one), ("group", group):
        key = here.key(name)
        say = lambda *names: group([tell.si(one, key=key) for one in names])  # noqa: E731,B023
        canvas = chain(say("1", "2"), say("3", "4", "5"), say("6", "7"), last(tell.si("8", key=key)))
        found.append([got(canvas.delay()), sorted(here.notes(8, name))])
    return found


@case(expected=60)
def a_group_in_the_middle_of_the_body_of_a_chord(here):
    body = chain(total.s(), group(add.s(8), add.s(16)), total.s() | add.s(32))
    return got(chord([add.s(0, 1)], chord([total.s(), total.s()], body)).apply_async())


@case
def a_chain_after_two_groups(here):
    key = here.key()
    two = group(tell.si("a", key=key), tell.si("a", key=key)) | group(tell.si("a", key=key), tell.si("a", key=key))
    canvas = chain(two, tell.si("a", key=key) | tell.si("b", key=key))
    return [got(canvas.apply_async()), here.notes(6)]


@case
def a_failing_step_fails_the_rest(here):
    result = chain(add.s(1, 2), fails.s(), add.s(3), add.s(4))()
    return [alone(result), up(result), down(root(result))]


@case
def a_chain_inside_the_task_that_called_it(here):
    from celery.result import result_from_tuple

    calls, = tasks("calls")
    canvas = chain(add.s(1, 1), add.s(2), group(add.s(3), add.s(4)), total.s())
    result = calls.send([dict(canvas)])
    (last,) = got(result)
    child = result.children[0]
    return [got(result_from_tuple(child.as_tuple())), child.id == last, down(result)]


@case
def an_empty_chain_is_nothing(here):
    return [chain().apply_async(), chain(chain()).apply_async()]


@case(expected=5)
def empty_groups_in_a_chain_are_left_out(here):
    return got(chain(add.s(1, 1), group(), add.s(3)).apply_async())


@case
def a_callback_of_a_chain_and_its_own_chain(here):
    canvas = chain(add.s(1, 1), add.s(2))
    canvas.link(chain(add.s(10), tell.s(key=here.key())))
    return [got(canvas.apply_async()), here.notes(1)]


@case(expected=[[1, 3], [2, 3]])
def a_step_that_collects(here):
    canvas = group(chain(identity.si(n), add_to_all.si([n, 3], 0)) for n in (1, 2))
    return got(canvas.apply_async())


@case
def a_long_chain(here):
    return got(chain(add.s(0, 1), *(add.s(1) for _ in range(40)))())
