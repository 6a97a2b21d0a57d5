"""Maps, star maps and chunks."""

from celery import chain, chord, group
from celery.canvas import chunks, xmap, xstarmap

from cases.app import app, Fleet, tasks
from cases.case import alone, cases, down, got, root

case = cases("maps and chunks")
identity, add, total, tell, fails, ids, raises = tasks("identity add total tell fails ids raises")


def mapped(kind, task, items):
    return kind(task, items, app=app).set(queue=Fleet.queue())


@case(expected=[[6], [], [3, 7], ["a", "b"]])
def maps_of_values(here):
    maps = mapped(xmap, total.s(), [[1, 2, 3]]), mapped(xmap, total.s(), []), mapped(xmap, total.s(), [[1, 2], [3, 4]])
    return [*(got(one.apply_async()) for one in maps), got(mapped(xmap, identity.s(), "ab").apply_async())]


@case(expected=[3, 7])
def star_maps(here):
    return got(mapped(xstarmap, add.s(), [[1, 2], [3, 4]]).apply_async())


@case
def a_map_that_fails(here):
    return [got(mapped(xmap, add.s(), [1]).apply_async()), got(mapped(xmap, fails.s(), [1]).apply_async())]


@case(expected=[[0, 2], [4, 6], [8]])
def chunks_of_a_list(here):
    return got(chunks(add.s(), [(n, n) for n in range(5)], 2, app=app).group().set(queue=Fleet.queue()).apply_async())


@case(expected=[0, 2, 4, 6])
def chunks_called_at_once(here):
    parts = got(chunks(add.s(), [(n, n) for n in range(4)], 3, app=app).apply_async())
    return [value for part in parts for value in part]


@case(expected=[3, 7, 8])
def a_map_in_a_chain(here):
    one = mapped(xmap, total.s(), [[1, 2], [3, 4]]).set(immutable=True)
    return got(chain(add.s(1, 1), one, add.s([8])).apply_async())


@case
def maps_in_chords_and_groups(here):
    header = [mapped(xmap, total.s(), [[1, 2]]), mapped(xstarmap, add.s(), [[1, 2], [3, 4]]), add.s(1, 1)]
    return [got(chord(header, identity.s()).apply_async()), got(group(header).apply_async())]


@case
def callbacks_of_a_map(here):
    one = mapped(xmap, total.s(), [[1, 2], [3, 4]])
    one.link(tell.s(key=here.key()))
    bad = mapped(xmap, fails.s(), [1])
    bad.link_error(tell.si("failed", key=here.key("error")))
    return [got(one.apply_async()), here.notes(1), got(bad.apply_async()), here.notes(1, "error")]


@case
def the_family_of_a_map(here):
    result = chain(add.s(1, 1), mapped(xmap, ids.s(), [1, 2]).set(immutable=True), identity.s()).apply_async()
    return [got(result), down(root(result))]


@case
def a_map_before_a_failing_step(here):
    result = chain(mapped(xmap, total.s(), [[1, 2]]), fails.s(), add.s(1)).apply_async()
    return alone(result)
