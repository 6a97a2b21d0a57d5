"""What clients do with results."""

import asyncio  # noqa: F401
import json

from celery import chain, chord, group
from celery.exceptions import TimeoutError
from celery.result import allow_join_result, result_from_tuple

from cases.app import app, tasks
from cases.case import cases, down, ended, got, result_of, root, until, up

case = cases("results")
identity, add, total, tell, fails, gated, calls, again = tasks("identity add total tell fails gated calls again")


@case
def a_result_before_and_after(here):
    result = gated.send(here.gate("go"), 5)
    before = [result.ready(), result.successful(), result.failed(), result.state in ("PENDING", "STARTED")]
    try:
        late = result.get(timeout=0.1, interval=0.02)
    except TimeoutError as error:
        late = str(error)
    here.open("go")
    return [before, late, got(result), result.ready(), result.successful(), result.get(), result.maybe_throw()]


@case
def what_a_failure_throws(here):
    result = fails.send()
    ended(result)
    quiet = result.get(propagate=False)
    try:
        result.maybe_throw()
    except Exception as error:
        thrown = type(error).__name__
    return [type(quiet).__name__, str(quiet), thrown, str(result.result), result.traceback is None]


@case
def extended_fields(here):
    result = add.s(1, y=2).apply_async()
    got(result)
    fields = [result.name, result.args, result.kwargs, result.worker, result.retries, result.date_done is not None]
    return fields + [again_retries()]


def again_retries():
    result = again.s(times=2).apply_async()
    got(result)
    return result.retries


@case(redis=True)
def the_document_of_a_result(here):
    result = chain(add.s(1, 1), add.s(2)).apply_async()
    got(result)
    names = "status result traceback children group_id parent_id task_id name args kwargs worker retries".split()
    found = []
    for one in result.parent, result:
        document = app.backend.get_task_meta(one.id)
        found.append({name: document.get(name) for name in names if name != "children"})
    return json.loads(json.dumps(found, default=repr))


@case
def a_result_is_forgotten(here):
    result = add.send(1, 1)
    value = got(result)
    result.forget()
    return [value, app.AsyncResult(result.id).state]


@case
def a_chain_is_forgotten(here):
    result = chain(add.s(1, 1), add.s(2)).apply_async()
    value = got(result)
    result.forget()
    return [value, app.AsyncResult(result.id).state, app.AsyncResult(result.parent.id).state]


@case
def results_are_collected(here):
    result = calls.s([dict(add.s(1, 1)), dict(chain(add.s(2, 2), add.s(3)))]).apply_async()
    got(result)
    for child in result.children:
        ended(child)
    with allow_join_result():
        found = [[one.id, value] for one, value in result.collect(timeout=30, interval=0.02)]
    return [found[0][1], sorted(value for _, value in found[1:] if isinstance(value, int)), len(found)]


@case
def the_leaf_of_a_canvas(here):
    result = chain(add.s(1, 1), add.s(2), group(add.s(3), add.s(4))).apply_async()
    value = got(result)
    ended(result.parent, root(result))
    return [value, root(result).get_leaf(), len(list(root(result).iterdeps(intermediate=True)))]


@case
def a_graph_of_results(here):
    result = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
    ended(result, result.parent, root(result))
    graph = root(result).graph
    return [len(list(graph)), len(list(graph.edges())), sorted(len(graph[one]) for one in graph)]


@case
def a_result_as_a_tuple(here):
    result = chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(1)).apply_async()
    again_ = result_from_tuple(json.loads(json.dumps(result.as_tuple())), app)
    return [got(again_), up(again_), again_.as_tuple() == result.as_tuple()]


@case
def results_then_call(here):
    seen = []
    result = add.send(1, 1)
    got(result)
    result.then(lambda one: seen.append(one.result))
    return seen if seen else [result.result]


@case
def parents_are_raised_first(here):
    result = chain(add.s(1, 1), fails.s(message="first"), add.s(1)).apply_async()
    own = result.get(propagate=False, timeout=30, interval=0.02)
    return [got(result), str(own), got(result.parent), got(result.parent.parent)]


@case
def a_group_in_the_middle_is_the_parent(here):
    result = chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s()).apply_async()
    value, middle = got(result), result.parent
    return [value, got(middle), middle.completed_count(), got(middle.parent), down(root(result))]


@case(redis=True)
def the_group_of_a_member(here):
    result = group(add.s(1, 1), add.s(2, 2)).apply_async()
    got(result)
    return [[app.backend.get_task_meta(one.id).get("group_id") for one in result.results], result.id]


@case
def chords_and_their_parents(here):
    result = chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()
    return [got(result), got(result.parent), [one.parent for one in result.parent.results], up(result), result.parent.parent]


@case
def results_by_id_alone(here):
    result = chain(add.s(1, 1), add.s(2)).apply_async()
    value = got(result)
    other = result_of(result.id)
    return [value, got(other), other.parent, other == result, result_of(root(result).id).children[0].id == result.id]


@case
def states_of_a_missing_task(here):
    missing = result_of("00000000-0000-4000-8000-000000000000")
    return [missing.state, missing.info, missing.ready(), missing.traceback, missing.children]


@case
def exceptions_come_back_as_what_they_were(here):
    from cases.errors import Expected

    result = fails.send(message="own")
    try:
        result.get(timeout=30, interval=0.02)
    except Expected as error:
        return ["Expected", list(error.args), isinstance(result.result, Expected), until(lambda: result.state, "a state")]
    except Exception as error:
        return [type(error).__name__, list(error.args)]


@case(redis=True)
def a_result_with_a_callback_for_every_message(here):
    states = []
    result = gated.send(here.gate("go"), 1)
    here.open("go")
    value = result.get(timeout=30, interval=0.02, on_message=lambda body: states.append(body["status"]))
    return [value, states[-1:] in ([], ["SUCCESS"])]


@case
def results_of_noted_tasks(here):
    result = group(tell.s(f"line {n}", key=here.key()) for n in range(3)).apply_async()
    return [got(result), sorted(here.notes(3)), identity.name]
