"""Chords, whatever their headers and bodies are."""

from celery import chain, chord, group

from cases.app import OURS, tasks
from cases.case import alone, cases, down, ended, got, outcome, root, up

case = cases("chords")
identity, add, mul, total, deep_total, tell, alarm, fails, ids, collect, add_to_all, joins, guarded = tasks(
    "identity add mul total deep_total tell alarm fails ids collect add_to_all joins guarded"
)


@case(expected=list(range(10)))
def the_order_of_a_header(here):
    return got(chord((identity.si(n) for n in range(10)), identity.s())())


@case
def a_chord_knows_its_family(here):
    return outcome(chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async())


@case
def a_chord_in_a_chain_knows_its_family(here):
    return outcome(chain(add.s(1, 1), chord([add.s(1), add.s(2)], total.s()), add.s(5)).apply_async())


@case(expected=[12, 13, 14, 15])
def a_group_in_a_chain(here):
    return got((add.s(2, 2) | group(add.s(n) for n in range(4)) | add_to_all.s(8))())


@case(expected=[13, 14, 15, 16])
def keyword_arguments_of_the_call(here):
    return got((add.s(2, 2) | group(add.s(n) for n in range(4)) | add_to_all.s(8)).apply_async(kwargs={"z": 1}))


@case(expected=[13, 14, 15, 16])
def arguments_of_the_call(here):
    found = got((group(add.s(n) for n in range(4)) | add_to_all.s(8)).apply_async(args=(4,), kwargs={"z": 1}))
    return sorted(found)


@case(expected=11)
def groups_at_the_ends_of_chains_in_a_group(here):
    inner = chain(add.si(1, 200), group(add.si(1, 1000), add.si(1, 2000)))
    return got(chain(add.si(1, 0), group(add.si(1, 100), inner), add.si(1, 10))())


@case(expected=[[16], [16]])
def a_header_of_one(here):
    return [got(chord([add.s(2, 5)], body=add_to_all.s(9))()), got((group([add.s(2, 5)]) | add_to_all.s(9))())]


@case(expected=[[], []])
def an_empty_header(here):
    return [got(chord([], body=identity.s())()), got((group([]) | identity.s())())]


@case(expected=[[3, 7, 5, 1], [13, 10, 1]])
def chords_in_a_chord(here):
    members = [chord([add.s(1, 2), add.s(3, 4)], add.s([5])), chord([add.s(6, 7)], add.s([10]))]
    return got(chord(members, add_to_all.s([1]))())


@case(expected=[[[[3, 3], 4], 5], 6])
def groups_of_one_in_groups_of_one(here):
    canvas = add.s(1, 2)
    for n in 3, 4, 5, 6:
        canvas = group([canvas]) | add.s([n])
    return got(canvas())


@case(redis=True)
def parents_and_roots_of_a_chord(here):
    header = group(ids.si(n) for n in range(3, 8))
    canvas = chain(ids.si(1), ids.si(2), chord(header, chain(collect.s(50), ids.si(51))))
    return family(canvas())


@case(redis=True)
def parents_and_roots_of_an_implied_chord(here):
    canvas = ids.si(1) | ids.si(2) | group(ids.si(n) for n in range(3, 8)) | collect.s(50) | ids.si(51)
    return family(canvas())


def family(result):
    """Which member calls the body is chance: whether it is one is not."""
    last, body, header = got(result), got(result.parent), result.parent.parent
    members = {one.id for one in header.results}
    before, (body_root, body_parent, number) = body
    own = {one[1] == header.parent.id for one in before}, {one[0] == root(result).id for one in before}
    found = [last[0] == body_root == root(result).id, last[1] == result.parent.id, body_parent in members, number]
    return [found, [sorted(one) for one in own], [one[2] for one in before], up(result), got(header.parent)]


@case(expected=[10, 10])
def two_chords_in_a_group(here):
    chords = [chord(group(add.s(1, 2), add.s(3, 4)), total.s()) for _ in range(2)]
    return got(group(chords).delay())


@case(expected=4)
def chains_to_chords_in_a_chord(here):
    inner = lambda: chain(add.si(1, 2), chord(group([add.si(1, 2), add.si(1, 2)]), add.si(1, 2)))  # noqa: E731
    return got(chord(group([inner(), inner()]), add.si(2, 2)).delay())


@case(expected=7)
def a_chain_a_chord_a_chain_a_chord(here):
    inner = chain(identity.si(3), chord([identity.si(4), identity.si(5)], identity.si(6)))
    return got(chain(identity.si(1), chord([identity.si(2), inner], identity.si(7))).delay())


@case(hangs=True, expected=[1, 1])
def arguments_for_a_chord_that_begins_a_chain(here):
    canvas = chain(chord([identity.s(), identity.s()], identity.s()), identity.s())
    from cases.app import tasks

    calls, = tasks("calls")
    # Called by a task, for a client of Python's has the same fault.
    (id,) = got(calls.send([{**dict(chain(identity.si(1), canvas))}]))
    from cases.case import result_of

    return got(result_of(id))


@case(expected=1770)
def a_large_header(here):
    return got((group(identity.si(n) for n in range(60)) | total.s()).delay())


@case(expected=60)
def a_chain_to_a_large_header(here):
    return got((identity.si(1) | group(identity.s() for _ in range(60)) | total.s()).delay())


@case(expected=[42, 42])
def a_group_in_a_header(here):
    return got(chord((group(identity.s(42), identity.s(42)),), identity.s()).delay())


@case(expected=[[42, 42]])
def a_group_at_the_end_of_a_chain_in_a_header(here):
    return got(chord(group(chain(identity.s(42), group(identity.s(), identity.s()))), identity.s()).delay())


@case(hangs=True, mixed=True, expected=[[2, 3]])
def a_chord_in_a_group_at_the_end_of_a_chain_in_a_header(here):
    first = identity.si(1).set(queue=OURS)
    inner = chord([add.s(1)], total.s())
    return got(chord([chain(first, group(inner, add.s(2)))], identity.s()).delay())


@case(hangs=True, mixed=True, expected=[[1, 1]])
def a_chord_in_a_group_that_is_a_body_in_a_header(here):
    first = identity.si(1).set(queue=OURS)
    inner = chord([deep_total.s()], total.s())
    return got(chord([chord([first], group(inner, total.s()))], identity.s()).delay())


@case(expected=[[1]])
def a_chord_whose_body_is_a_group_ends_a_header_in_a_chain(here):
    inner = chord([identity.s()], group([deep_total.s()]))
    return got(chain(identity.si(1), chord([inner], identity.s())).delay())


@case(expected=180)
def groups_and_sums(here):
    one = group(identity.s(n) for n in range(1, 4)) | deep_total.s()
    return got(chain(one, chord(group(mul.s(10) for _ in range(3)), deep_total.s()))())


@case
def bodies_of_every_kind(here):
    header = lambda: [add.si(1, 1), add.si(2, 2)]  # noqa: E731
    bodies = [
        total.s(), chain(total.s(), add.s(1)), group(total.s(), identity.s()),
        chord([total.s(), total.s()], total.s()), chain(total.s(), group(add.s(1), add.s(2))),
        chain(group(total.s(), total.s()), total.s()),
    ]
    return [got(chord(header(), body).apply_async()) for body in bodies]


@case
def headers_of_every_kind(here):
    headers = [
        [chain(add.s(1, 1), add.s(2))], [group(add.s(1, 1), add.s(2, 2))],
        [chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(1, 1)],
        [chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s())],
        [chain(group(add.s(1, 1), add.s(2, 2)), total.s()), chain(add.s(1, 1))],
        [chord([add.s(1, 1)], chain(total.s(), add.s(3))), group(add.s(4, 4))],
        [group(chain(add.s(1, 1), add.s(1)), group(add.s(2, 2)))],
    ]
    return [got(chord(header, identity.s()).apply_async()) for header in headers]


@case(redis=True)
def a_member_adds_members(here):
    members = [dict(add.s(n, 4)) for n in (1, 2, 3)]
    result = (group([joins.s(members=members)]) | identity.s())()
    return sorted(got(result))


@case(redis=True)
def a_member_adds_a_chord(here):
    members = [dict(group(add.s(n, 4) for n in (1, 2, 3)) | total.s())]
    return sorted(got((group([joins.s(members=members), add.s(1, 1)]) | identity.s())()))


@case
def a_member_that_ends_well_at_its_soft_limit(here):
    return got(chord([add.s(1, 2), guarded.s().set(soft_time_limit=1)])(total.s()))


@case
def a_chord_with_callbacks(here):
    canvas = chord([add.s(1, 1), add.s(2, 2)], total.s())
    canvas.link(tell.s(key=here.key()))
    return [got(canvas.apply_async()), here.notes(1)]


@case
def a_chord_whose_members_have_callbacks(here):
    header = [add.s(1, 1), add.s(2, 2)]
    for member in header:
        member.link(tell.s(key=here.key()))
    return [got(chord(header, total.s()).apply_async()), sorted(here.notes(2))]


@case
def a_chord_in_a_group_knows_its_family(here):
    result = group(chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)).apply_async()
    ended(result)
    return [got(result), up(result), down(result)]


@case
def a_member_is_ignored_by_its_result(here):
    canvas = chord([add.s(1, 1), add.s(2, 2).set(ignore_result=True)], total.s())
    return alone(canvas.apply_async())


@case
def a_member_with_a_time(here):
    return got(chord([add.s(1, 1), add.s(2, 2).set(countdown=0.3)], total.s()).apply_async())
