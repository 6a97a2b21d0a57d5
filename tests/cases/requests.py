"""What single tasks do and see: their requests, retries, states and limits."""

import datetime

from celery import chain, group

from cases.app import app, Fleet, tasks
from cases.case import alone, cases, down, got, lines_of, result_of, root, until

case = cases("requests and states")
identity, add, tell, fails, request, again, never, automatic, gated, progress = tasks(
    "identity add tell fails request again never automatic gated progress"
)
rejected, ignored, guarded, slow, calls, ids = tasks("rejected ignored guarded slow calls ids")


@case
def a_call_of_a_task(here):
    result = add.send(20, 22)
    value = got(result)
    return [value, result.state, result.ready(), result.successful(), result.failed(), result.result, result.info]


@case
def a_task_sees_its_request(here):
    return got(request.s(1, "ä", b={"c": [None, 1.5]}).apply_async())


@case
def a_task_sees_what_is_to_follow(here):
    last = request.s(7)
    last.link(identity.si(1))
    last.link(identity.si(2))
    last.link_error(identity.si(3))
    middle = chain(add.s(1, 1), last, add.si(1, 1), add.s(2)).apply_async()
    return [got(middle), got(middle.parent.parent)]


@case
def a_member_sees_its_group(here):
    result = group(request.si(), request.si()).apply_async()
    return [[[one["group"], one["group_index"], one["root_id"] == one["id"]] for one in got(result)], result.id]


@case
def headers_and_properties(here):
    options = {"headers": {"x-test": "value", "x-number": 7}, "app_id": "1234", "shadow": "named"}
    seen = got(request.s().apply_async(**options))
    return {name: seen[name] for name in ("custom", "app_id", "shadow")}


@case
def limits_of_a_call(here):
    seen = [got(request.s().apply_async(time_limit=30, soft_time_limit=20)), got(request.s().apply_async())]
    return [one["timelimit"] for one in seen]


@case
def a_time_and_an_expiry(here):
    now = datetime.datetime.now(datetime.timezone.utc)
    seen = got(request.s().apply_async(eta=now + datetime.timedelta(seconds=0.3), expires=60))
    early = datetime.datetime.now(datetime.timezone.utc) < now + datetime.timedelta(seconds=0.3)
    return [seen["expires"], early]


@case
def expired_before_it_began(here):
    result = add.s(1, 1).apply_async(expires=-1, link=tell.si("link", key=here.key()), link_error=tell.si("error", key=here.key()))
    value = got(result)
    return [value, result.state, result.ready(), result.failed(), result.successful(), here.notes(0)]


@case
def a_retry_sees_its_number(here):
    result = again.s(1, times=2).apply_async(headers={"x-test": "value"}, app_id="1234", priority=3)
    seen = got(result)
    return [seen[name] for name in ("retries", "custom", "app_id", "priority", "args", "kwargs")]


@case
def a_retry_in_a_chain_keeps_what_follows(here):
    result = chain(add.s(1, 1), again.si(times=1), tell.si("after", key=here.key())).apply_async()
    return [got(result), got(result.parent)["follows"], here.notes(1), down(root(result))]


@case
def a_retry_in_a_chord(here):
    from celery import chord

    result = chord([again.si(times=1), add.s(1, 1)], identity.s()).apply_async()
    seen, other = got(result)
    return [seen["retries"], seen["group"], seen["group_index"], seen["follows"], other]


@case
def a_retry_that_waits_is_shown(here):
    result = again.s(times=1, countdown=1.5).apply_async()
    until(lambda: result.state == "RETRY", "RETRY")
    state = [result.state, result.ready(), result.failed()]
    return [state, got(result)["retries"], result.state]


@case
def retries_for_an_error_that_end_with_it(here):
    result = never.s(message="own").apply_async(link_error=tell.si("error", key=here.key()))
    return [got(result), result.state, here.notes(1)]


@case
def automatic_retries(here):
    return got(automatic.send())


@case
def priorities_of_calls(here):
    return [got(request.s().apply_async(priority=p))["priority"] for p in (0, 3, 9)]


@case
def priorities_of_a_chain(here):
    own = chain(add.s(1, 1), request.si(priority=5)).apply_async(priority=3)
    chained = chain(request.si().set(priority=3), request.si().set(priority=5)).apply_async()
    return [got(chained)["priority"], got(chained.parent)["priority"], got(own)["priority"]]


@case
def priorities_are_inherited_by_what_follows(here):
    first = add.s(1, 1).set(priority=4)
    first.link(request.si().set(task_id=(linked := str(__import__("uuid").uuid4()))))
    first.apply_async()
    child = got(calls.s([dict(request.si())]).apply_async(priority=6))[0]
    return [got(result_of(linked))["priority"], got(result_of(child))["priority"]]


@case
def children_are_called_by_tasks(here):
    canvas = [dict(add.s(1, 1)), dict(chain(add.s(1, 1), add.s(2))), dict(group(add.s(1, 1), add.s(2, 2)))]
    result = calls.s(canvas).apply_async()
    return [got(result), [got(child) for child in result.children], down(result)]


@case
def the_family_of_children(here):
    result = calls.s([dict(calls.s([dict(ids.s(3))]))]).apply_async()
    (child,) = got(result)
    (grandchild,) = got(result_of(child))
    return [result.id, child, got(result_of(grandchild)), down(result)]


@case
def states_of_its_own(here):
    result = progress.send(here.gate("state"))
    found = []
    for number, state in ("1", "PROGRESS"), ("2", "UPLOADING"):
        until(lambda: result.state == state, state)  # noqa: B023
        found.append([result.state, result.info, result.ready()])
        here.open(f"state-{number}")
    return [found, got(result), result.state, result.info]


@case
def a_task_that_has_started(here):
    result = gated.send(here.gate("go"), 7)
    until(lambda: result.state == "STARTED", "STARTED")
    found = [result.state, sorted(result.info), result.ready(), result.result["hostname"]]
    here.open("go")
    return [found, got(result)]


@case
def a_result_that_is_ignored(here):
    result = tell.s("ran", key=here.key()).apply_async(ignore_result=True)
    return [here.notes(1), result.get() if result.ignored else "waits", result.state, result.result]


@case
def a_result_that_is_ignored_in_a_chain(here):
    result = chain(add.s(1, 1).set(ignore_result=True), add.s(2)).apply_async()
    return [alone(result), result.parent.state]


@case
def a_message_that_is_rejected(here):
    result = rejected.send()
    return [got(result), result.state, result.ready(), result.failed(), result.successful()]


@case
def a_message_that_is_put_back(here):
    result = rejected.send(requeue=True, key=here.key())
    return [got(result), result.state, here.notes(2)]


@case
def a_task_that_is_ignored(here):
    result = ignored.s(key=here.key()).apply_async(link=tell.si("link", key=here.key("link")), link_error=tell.si("error", key=here.key("link")))
    lines = here.notes(1)
    state = ignored.s(state="LEFT").apply_async()
    until(lambda: state.state == "LEFT", "LEFT")
    return [lines, result.ready(), state.info, here.notes(0, "link")]


@case
def a_soft_limit_that_is_handled(here):
    return got(guarded.s().apply_async(soft_time_limit=1))


@case
def a_soft_limit_that_is_not(here):
    result = slow.s().apply_async(soft_time_limit=1, link_error=tell.si("error", key=here.key()))
    return [got(result), result.state, here.notes(1)]


@case
def a_hard_limit(here):
    result = slow.s().apply_async(time_limit=1, link_error=tell.si("error", key=here.key()))
    # Celery's worker calls them once or twice, as the race of its pool with itself goes.
    return [got(result), result.state, here.notes(1, exactly=False)[:1]]


@case
def values_of_every_kind(here):
    values = [None, True, 0, -7, 1.5, "ä\n\t\"", [], {}, [[1], {"a": None}], {"b": {"c": [1, "x"]}}]
    seen = got(request.s(*values).apply_async())
    return [seen["args"] == values, [got(identity.send(one)) for one in values if one is not None]]


@case
def a_root_of_ones_own(here):
    seen = got(request.s().apply_async(root_id="root", parent_id="parent"))
    return [seen["root_id"], seen["parent_id"]]


@case
def an_id_of_ones_own(here):
    id = str(__import__("uuid").uuid4())
    result = add.s(1, 1).apply_async(task_id=id)
    return [got(result), result.id == id, lines_of("none"), app.AsyncResult(id).state, Fleet.name != ""]
