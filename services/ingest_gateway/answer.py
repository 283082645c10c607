"""What a sender is told: the Store Instances Response Module (PS3.18 annex I) and its status."""

from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import Any, Final

from services.ingest_gateway.domain import Coercion, Outcome

PRIVATE_CREATOR: Final = "LIGHTBOX"


def status_of(outcomes: Collection[Outcome]) -> int:
    """The HTTP status of the answer (PS3.18 table 10.5.3-1): 200, 202 with failures or warnings, 409 none stored."""
    stored = sum(outcome.stored for outcome in outcomes)
    if not stored:
        return HTTPStatus.CONFLICT
    flawless = stored == len(outcomes) and not any(outcome.warning for outcome in outcomes)
    return HTTPStatus.OK if flawless else HTTPStatus.ACCEPTED


def store_response(outcomes: Sequence[Outcome], public_url: str) -> dict[str, Any]:
    """The Store Instances Response Module as DICOM JSON (PS3.18 section 10.5.3, annex I).

    What could not be stored is in the Failed SOP Sequence, and what could not even be told by its SOP Instance UID in
    the Other Failures Sequence. Besides the standard's attributes each stored item has the private (0009,1001), the
    SHA-256 of the whole Part 10 file as it is kept; each item with a reason has (0009,1002), the reason in words; and
    each failed item whose bytes are kept in quarantine has (0009,1003), the identifier of the entry.
    """
    studies = {outcome.study_uid for outcome in outcomes if outcome.stored}
    answer: dict[str, Any] = {}
    failed = [_failed_item(outcome) for outcome in outcomes if not outcome.stored and outcome.sop_instance_uid]
    others = [_failed_item(outcome) for outcome in outcomes if not outcome.stored and not outcome.sop_instance_uid]
    stored = [_stored_item(outcome, public_url) for outcome in outcomes if outcome.stored]
    # Type 2: of several studies, or of none, there is no one place to point at.
    place = f"{public_url}/dicom-web/studies/{studies.pop()}" if len(studies) == 1 else ""
    answer["00081190"] = _element("UR", place)
    if failed:
        answer["00081198"] = {"vr": "SQ", "Value": failed}
    if others:
        answer["0008119A"] = {"vr": "SQ", "Value": others}
    if stored:
        answer["00081199"] = {"vr": "SQ", "Value": stored}
    return dict(sorted(answer.items()))


def _element(vr: str, value: str | int) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value != "" else {"vr": vr}


def _failed_item(outcome: Outcome) -> dict[str, Any]:
    item: dict[str, Any] = {}
    if outcome.sop_class_uid:
        item["00081150"] = _element("UI", outcome.sop_class_uid)
    if outcome.sop_instance_uid:
        item["00081155"] = _element("UI", outcome.sop_instance_uid)
    if outcome.failure is not None:
        item["00081197"] = _element("US", outcome.failure.code)
        item["00090010"] = _element("LO", PRIVATE_CREATOR)
        item["00091002"] = _element("LT", outcome.failure.words)
    if outcome.quarantine:
        item["00091003"] = _element("LO", outcome.quarantine)
    return dict(sorted(item.items()))


def _stored_item(outcome: Outcome, public_url: str) -> dict[str, Any]:
    url = (
        f"{public_url}/dicom-web/studies/{outcome.study_uid}/series/{outcome.series_uid}"
        f"/instances/{outcome.sop_instance_uid}"
    )
    item = {
        "00081150": _element("UI", outcome.sop_class_uid),
        "00081155": _element("UI", outcome.sop_instance_uid),
        "00081190": _element("UR", url),
        "00090010": _element("LO", PRIVATE_CREATOR),
        "00091001": _element("LO", outcome.sha256),
    }
    if outcome.warning is not None:
        item["00081196"] = _element("US", outcome.warning.code)
        item["00091002"] = _element("LT", outcome.warning.words)
    if outcome.coercion is not None:
        item["04000561"] = {"vr": "SQ", "Value": [_original_attributes(outcome.coercion)]}
    return dict(sorted(item.items()))


def _original_attributes(coercion: Coercion) -> dict[str, Any]:
    """One item of the Original Attributes Sequence (PS3.3 table C.12-1)."""
    return {
        "04000550": {"vr": "SQ", "Value": [coercion.original]},
        "04000562": _element("DT", coercion.time.strftime("%Y%m%d%H%M%S.%f%z")),
        "04000563": _element("LO", "Lightbox"),
        "04000564": {"vr": "LO"},
        "04000565": _element("CS", "COERCE"),
    }
