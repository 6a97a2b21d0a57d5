"""Stamps: of every task of a canvas, of callbacks, of retries and of replacements."""

from celery import chain, chord, group
from celery.canvas import StampingVisitor

from cases.app import tasks
from cases.case import alone, cases, got

case = cases("stamps")
identity, add, tell, fails, request, again, replaced = tasks("identity add tell fails request again replaced")


class Stamps(StampingVisitor):
    def __init__(self, **stamps):
        self.stamps = stamps

    def on_signature(self, signature, **headers):
        return dict(self.stamps)


def stamped(canvas, **stamps):
    canvas.stamp(visitor=Stamps(**stamps))
    return canvas


@case
def a_task_of_one_stamp(here):
    return got(stamped(request.si(), stamp=42).apply_async())["stamps"]


@case
def a_stamp_that_is_a_list(here):
    return got(stamped(request.si(), stamp=[4, 2], other="text").apply_async())["stamps"]


@case
def stamps_are_no_properties(here):
    seen = got(stamped(request.si(), app_id="stamp", x=1).apply_async())
    return [seen["stamps"], seen["app_id"], seen["custom"]]


@case
def every_task_of_a_canvas(here):
    canvases = [
        group(request.si(), request.si()), chain(identity.si(1), request.si()),
        chord([request.si(), request.si()], identity.s()), chord([identity.si(1)], request.si()),
        chain(group(identity.si(1), identity.si(2)), request.si()), chain(chain(identity.si(1), add.s(1)), request.si()),
        chord(group(chain(identity.si(1), request.si()), chord([identity.si(1)], request.si())), identity.s()),
    ]
    values = [got(stamped(canvas, stamp=42).apply_async()) for canvas in canvases]
    return [[one["stamps"] for one in (value if isinstance(value, list) else [value])] for value in values]


@case
def callbacks_and_errbacks_are_stamped(here):
    good, bad = identity.si(1), fails.si()
    good.link(request.si().set(task_id=(linked := here_id(here, 1))))
    bad.link_error(request.si().set(task_id=(errback := here_id(here, 2))))
    results = [stamped(good, stamp="link").apply_async(), stamped(bad, stamp="error").apply_async()]
    from cases.case import result_of

    values = [got(one) for one in results]
    return [values, got(result_of(linked))["stamps"], got(result_of(errback))["stamps"]]


def here_id(here, number):
    import uuid

    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{here.name}-{number}"))


@case
def a_callback_linked_after_stamping(here):
    good = stamped(identity.si(1), first="1")
    good.link(request.si().set(task_id=(linked := here_id(here, 1))))
    got(stamped(good, second="2").apply_async())
    from cases.case import result_of

    return got(result_of(linked))["stamps"]


@case
def stamps_stay_with_a_retry(here):
    return got(stamped(again.si(times=1), stamp=42).apply_async())["stamps"]


@case
def stamps_of_what_replaces(here):
    own = stamped(request.si(), inner="new")
    plain = got(stamped(replaced.si(by=dict(request.si())), outer="old").apply_async())["stamps"]
    return [plain, got(stamped(replaced.si(by=dict(own)), outer="old").apply_async())["stamps"]]


@case
def stamps_of_a_canvas_with_links_as_dictionaries(here):
    good, bad = identity.si(1), fails.si()
    good.options["link"] = dict(tell.si("link", key=here.key()))
    bad.options["link_error"] = dict(tell.si("error", key=here.key("error")))
    values = [alone(stamped(one, stamp=1).apply_async()) for one in (good, bad)]
    return [values, here.notes(1), here.notes(1, "error")]
