"""Rendered images and thumbnails (PS3.18 sections 10.4.1.1.3 and 10.4.1.1.4), as JPEG."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from libs.catalog.queries import InstanceRow
from libs.dicom.frames import frame_count
from libs.dicom.rendering import bulk_for_rendering
from libs.web.problems import BadRequest, NotAcceptable
from services.dicomweb import work
from services.dicomweb.audit import Operation
from services.dicomweb.caches import Cache
from services.dicomweb.domain import Content, Target, entity_tag, is_current, not_modified
from services.dicomweb.errors import NoSuchResource
from services.dicomweb.handlers_frames import Instance, open_instance
from services.dicomweb.handlers_retrieve import Retrieving
from services.dicomweb.negotiate import Tiers, choose_rendered

LARGEST_VIEWPORT: Final = 8192
THUMBNAIL: Final = (128, 128)
DEFAULT_QUALITY: Final = 90
_REPRESENTATIVE: Final = "00286010"
_LARGEST_BULK: Final = 1 << 20

RenderedCache = Cache[tuple[str, bytes, int, Any], bytes]


@dataclass(frozen=True)
class Rendering:
    """How an image is rendered.

    Attributes:
        viewport: width and height in pixels that it must fit in; its own size without.
        window: centre and width; the image's own without.
        quality: of the JPEG, 1 to 100.
    """

    viewport: tuple[int, int] | None = None
    window: tuple[float, float] | None = None
    quality: int = DEFAULT_QUALITY


def read_rendering(viewport: str | None, window: str | None, quality: str | None, *, thumbnail: bool) -> Rendering:
    """Reads the query parameters of rendering (PS3.18 section 8.3.5.1).

    Raises:
        BadRequest: one is malformed, or asks for what isn't done: a part of the image, or a window that isn't linear.
    """
    return Rendering(
        viewport=_viewport(viewport) if viewport else THUMBNAIL if thumbnail else None,
        window=_window(window) if window else None,
        quality=_quality(quality) if quality else DEFAULT_QUALITY,
    )


def _viewport(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2:
        raise BadRequest("The viewport is WIDTH,HEIGHT; showing a part of the image is not supported.")
    if not all(re.fullmatch(r"[0-9]{1,5}", part, re.ASCII) for part in parts):
        raise BadRequest("The viewport is WIDTH,HEIGHT in whole pixels.")
    width, height = int(parts[0]), int(parts[1])
    if not (1 <= width <= LARGEST_VIEWPORT and 1 <= height <= LARGEST_VIEWPORT):
        raise BadRequest(f"The viewport has 1 to {LARGEST_VIEWPORT} pixels in each direction.")
    return width, height


def _window(text: str) -> tuple[float, float]:
    parts = text.split(",")
    number = r"[+-]?[0-9]{1,9}(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?"
    if len(parts) not in (2, 3) or not all(re.fullmatch(number, p, re.ASCII) for p in parts[:2]):
        raise BadRequest("The window is CENTER,WIDTH,FUNCTION.")
    if len(parts) == 3 and parts[2].lower() not in ("linear", "linear-exact"):
        raise BadRequest("The function of the window is linear.")
    centre, width = float(parts[0]), float(parts[1])
    if width < 1:
        raise BadRequest("The width of the window is at least 1.")
    return centre, width


def _quality(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) is None or not 1 <= int(text) <= 100:
        raise BadRequest("The quality is a whole number from 1 to 100.")
    return int(text)


async def retrieve_rendered(
    retrieving: Retrieving,
    cache: RenderedCache,
    operation: Operation,
    target: Target,
    *,
    frames: Sequence[int] | None,
    rendering: Rendering,
    tiers: Tiers,
    if_none_match: str,
) -> Content:
    """One frame as JPEG: the one that is named, or one that stands for the instance, the series or the study.

    Raises:
        NoSuchResource: there is no such thing.
        NotAcceptable: it holds no image, or JPEG is not acceptable, or several frames are asked for.
    """
    media_type = choose_rendered(tiers)
    if frames is not None and len(frames) > 1:
        raise NotAcceptable("One frame at a time is rendered.")
    if target.instance is None:
        row = await _representative(retrieving, operation.tenant, target)
        target = Target(row.study_uid, row.series_uid, row.sop_uid)
    instance = await open_instance(retrieving, operation, target)
    if instance.packed.frames is None:
        if frames is not None:
            raise NoSuchResource
        raise NotAcceptable("This holds no image that could be shown.")
    number = frames[0] if frames else _representative_frame(instance)
    if number > frame_count(instance.frames):
        raise NoSuchResource
    operation.instance_count = 1
    etag = entity_tag(instance.row.sha256, number, rendering)
    if is_current(etag, if_none_match):
        return not_modified(etag)
    key = (operation.tenant, instance.row.sha256, number, rendering)
    body = await cache.get(key, lambda: _render(retrieving, instance, number, rendering))
    return Content(media_type, body, etag)


async def _representative(retrieving: Retrieving, tenant: str, target: Target) -> InstanceRow:
    """The middle instance of the first series that has images."""
    for series in await retrieving.store.list_series(tenant, target.study, target.series):
        rows = await retrieving.store.list_instances(tenant, series.study_uid, series.series_uid)
        images = [row for row in rows if row.frame_count]
        if images:
            return images[len(images) // 2]
    raise NotAcceptable("This holds no image that could be shown.")


def _representative_frame(instance: Instance) -> int:
    """The frame that the instance itself names, else the middle one."""
    count = frame_count(instance.frames)
    named = instance.packed.attributes().get(_REPRESENTATIVE, {}).get("Value", [None])[0]
    return named if isinstance(named, int) and 1 <= named <= count else (count + 1) // 2


async def _render(retrieving: Retrieving, instance: Instance, number: int, rendering: Rendering) -> bytes:
    known = instance.packed.bulk
    paths = [p for p in bulk_for_rendering(instance.packed.attributes()) if p in known and known[p][1] <= _LARGEST_BULK]
    tables = await instance.read([known[path] for path in paths]) if paths else []
    frame = (await instance.read_frames([number]))[0]
    return await retrieving.workers.run(
        work.render_frame,
        frame,
        instance.packed.dicom,
        instance.row.transfer_syntax,
        viewport=rendering.viewport,
        window=rendering.window,
        quality=rendering.quality,
        bulk=dict(zip(paths, tables, strict=True)),
    )
