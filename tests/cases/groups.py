"""Groups, and sets of results."""

from celery import chain, chord, group
from celery.result import GroupResult, ResultSet

from cases.app import app, tasks
from cases.case import alone, cases, down, ended, got, lines_of, until, up

case = cases("groups")
identity, add, total, tell, alarm, fails, ids, replaced, add_to_all, gated = tasks(
    "identity add total tell alarm fails ids replaced add_to_all gated"
)


@case(expected=[42, 42])
def two_members(here):
    return got(group(identity.s(42), identity.s(42)).delay())


@case(expected=[42, 42])
def a_group_in_a_group(here):
    return got(group(group(identity.s(42), identity.s(42))).delay())


@case(expected=[11, 101, 1001, 2001])
def groups_in_groups(here):
    inner = group(add.si(1, 100), group(add.si(1, 1000), add.si(1, 2000)))
    return got(group(add.si(1, 10), inner)())


@case(expected=list(range(60)))
def many_members(here):
    return got(group(identity.s(n) for n in range(60)).delay())


@case
def a_group_that_ends_a_chain_in_a_group(here):
    canvas = group(add.s(1, 2) | group(add.s(1), add.s(2)))
    return outcome_of(canvas.apply_async())


def outcome_of(result):
    return [got(result), up(result), down(result)]


@case
def an_empty_group(here):
    result = group([]).apply_async()
    result.save()
    kept = GroupResult.restore(result.id, app=app)
    return [got(result), kept and kept.results, result.ready(), result.successful(), result.completed_count()]


@case
def parents_and_roots_of_members(here):
    result = (ids.si(1) | ids.si(2) | group(ids.si(n) for n in range(3, 9)))()
    return [got(result), up(result), got(result.parent)]


@case
def ready_though_a_member_failed(here):
    result = group(add.s(1, 2), fails.s()).apply_async()
    ended(result)
    return [result.ready(), result.successful(), result.failed(), result.waiting(), result.completed_count(), up(result)]


@case(expected=[[42]])
def a_chord_in_a_group(here):
    return got(group((chord((identity.si(42),), identity.s()),)).delay())


@case(expected=[[7]])
def a_chord_of_a_chain_in_a_group(here):
    return got(group((chord((chain((identity.si(7),) * 6),), identity.s()),)).delay())


@case(expected=[[7] * 6])
def a_chord_of_a_group_in_a_group(here):
    return got(group((chord((group((identity.si(7),) * 6),), identity.s()),)).delay())


@case(expected=[[8]])
def a_chord_of_a_chord_in_a_group(here):
    return got(group((chord((chord((identity.si(7),) * 6, identity.si(8)),), identity.s()),)).delay())


@case(expected=[[1, 1, 1, 1, 1, 1, 1, 9]])
def a_chord_of_everything_in_a_group(here):
    one = identity.si(1)
    header = one, chain((one,) * 3), group((one,) * 5), chord((one,) * 3, identity.si(9))
    return got(group((chord(header, identity.s()),)).delay())


@case(expected=[[42]])
def a_chord_whose_body_is_a_chain_of_one_in_a_group(here):
    result = group((chord(identity.si(42), chain((identity.s(),))),)).delay()
    return [got(one) for one in result.children]


@case
def a_callback_of_a_group(here):
    canvas = group(identity.si(42), identity.si(7))
    canvas.link(tell.si("called", key=here.key()))
    return [got(canvas.delay()), here.notes(1)]


@case
def an_errback_of_a_group_whose_first_or_last_member_fails(here):
    found = []
    for name, members in ("first", (fails.s(), identity.si(1))), ("last", (identity.si(1), fails.s())):
        canvas = group(members)
        canvas.link_error(tell.si("failed", key=here.key(name)))
        found.append([got(canvas.delay()), here.notes(1, name)])
    return found


@case
def an_errback_that_takes_the_id(here):
    failing = fails.s()
    id = failing.freeze().id
    canvas = group(failing, identity.si(1))
    canvas.link_error(tell.s(key=here.key()))
    return [got(canvas.delay()), id, here.notes(1)]


@case
def an_errback_that_takes_all(here):
    failing = fails.s()
    id = failing.freeze().id
    canvas = group(failing, identity.si(1))
    canvas.link_error(alarm.s(key=here.key()))
    return [got(canvas.delay()), id, here.notes(1)]


@case
def an_errback_for_each_member_that_fails(here):
    canvas = group(*(identity.si(1) for _ in range(4)), *(fails.s() for _ in range(7)))
    canvas.link_error(tell.si("failed", key=here.key()))
    return [got(canvas.delay()), here.notes(7)]


@case
def each_member_has_a_callback(here):
    member = identity.si(7)
    member.link(tell.si("member", key=here.key()))
    return [got(group(member for _ in range(8))()), here.notes(8)]


@case
def each_member_has_an_errback(here):
    member = fails.si()
    member.link_error(tell.si("member", key=here.key()))
    return [got(group(member for _ in range(8))()), here.notes(8)]


@case(expected=[[[3, 2], [5, 4]] * 4])
def the_order_of_members_that_are_replaced_by_groups(here):
    return [got(group([add_to_all.s([2, 1], 1), add_to_all.s([4, 3], 1)] * 4).delay())]


@case(expected=[2, 4])
def a_set_of_results(here):
    return got(ResultSet([add.send(1, 1), add.send(2, 2)], app=app))


@case
def a_set_with_one_that_failed(here):
    results = ResultSet([fails.send(), add.send(1, 1)], app=app)
    values = results.get(timeout=30, propagate=False, interval=0.02)
    return [str(values[0]), values[1], [one.failed() for one in results.results], results.failed(), results.successful()]


@case(expected=[2, 4])
def a_set_that_grows(here):
    results = ResultSet([], app=app)
    results.add(add.send(1, 1))
    results.add(add.send(2, 2))
    return got(results)


@case
def a_group_result_is_saved_and_restored(here):
    result = group(add.s(n, n) for n in range(4)).apply_async()
    result.save()
    kept = GroupResult.restore(result.id, app=app)
    found = [got(kept), kept == result, len(kept), kept[1].get(timeout=30, interval=0.02), kept.children == kept.results]
    kept.delete()
    return [*found, GroupResult.restore(result.id, app=app) is None]


@case
def a_group_result_while_its_members_end(here):
    result = group(gated.s(here.gate(str(n)), n) for n in range(3)).apply_async()
    found = [[result.completed_count(), result.ready(), result.waiting(), result.successful()]]
    for n in range(3):
        here.open(str(n))
        until(lambda: result.completed_count() == n + 1, f"{n + 1} members that have ended")  # noqa: B023
        found.append([result.completed_count(), result.ready(), result.waiting(), result.successful()])
    return [*found, result.join(timeout=30, interval=0.02)]


@case
def a_group_result_is_joined_in_every_way(here):
    result = group(add.s(1, 1), add.s(2, 2), add.s(3, 3)).apply_async()
    joined = result.join(timeout=30, interval=0.02)
    native = result.join_native(timeout=30, interval=0.02) if app.backend.supports_native_join else joined
    seen = []
    result.join(timeout=30, interval=0.02, callback=lambda id, value: seen.append([id == result[len(seen)].id, value]))
    pairs = sorted(value for _, value in result.collect()) if hasattr(result, "collect") else None
    return [joined, native, seen, pairs, [one.get() for one in result.results], result.maybe_throw()]


@case
def a_group_result_is_forgotten(here):
    result = group(add.s(1, 1), add.s(2, 2)).apply_async()
    before = got(result)
    result.forget()
    return [before, [app.AsyncResult(one.id).state for one in result.results]]


@case
def a_group_called_with_arguments(here):
    return [got(group(add.s(1), add.s(2)).apply_async((10,))), got(group(add.s(1, 1), add.s(2, 2)).apply_async(kwargs={"z": 5}))]


@case
def a_group_with_a_time(here):
    return got(group(add.s(1, 1), add.s(2, 2)).apply_async(countdown=0.2))


@case
def unrolled_groups_in_the_headers_of_chains(here):
    canvas = chain(group(add.s(1, 1), group(add.s(2, 2), add.s(3, 3))), total.s())
    return outcome_of(canvas.apply_async())


@case
def errbacks_of_inner_groups(here):
    key = here.key()
    inner = group(fails.s(), identity.si(1))
    inner.link_error(tell.si("inner", key=key))
    canvas = group(inner, fails.s())
    canvas.link_error(tell.si("outer", key=key))
    return [alone(canvas.apply_async().results[0]), sorted(here.notes(3)), len(lines_of(key))]
