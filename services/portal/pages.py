"""Turning what is known into HTML: templates, assets with content-hashed addresses, the headers of a page."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from libs.auth import Principal
from services.portal import domain

HERE: Final = Path(__file__).parent
THEME_COOKIE: Final = "lightbox_theme"

PAGE_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
"""Nothing inline, nothing from elsewhere."""

DOCS_POLICY: Final = f"{PAGE_POLICY}; img-src 'self' data:"
"""Swagger UI has its icons in its style sheet."""

_TYPES: Final = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Asset:
    """A static file in memory."""

    content: bytes
    compressed: bytes
    media_type: str


class Assets:
    """The static files, each under a name that changes with its content, so that browsers may keep it for good."""

    def __init__(self) -> None:
        self._by_name: dict[str, str] = {}
        self._by_address: dict[str, Asset] = {}
        folder = HERE / "static"
        for path in sorted(folder.rglob("*")):
            if path.suffix in _TYPES:
                self._add(path.relative_to(folder).as_posix(), path.read_bytes())
        swagger = files("fastapi_offline") / "static"
        for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
            self._add(f"vendor/{name}", (swagger / name).read_bytes())

    def _add(self, name: str, content: bytes) -> None:
        stem, _, suffix = name.rpartition(".")
        address = f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{suffix}"
        media_type = _TYPES.get(f".{suffix}") or mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._by_name[name] = address
        self._by_address[address] = Asset(content, gzip.compress(content, 6, mtime=0), media_type)

    def address(self, name: str) -> str:
        """The path of a file, by its name in the folder."""
        return f"/static/{self._by_name[name]}"

    def find(self, address: str) -> Asset | None:
        """The file under an address behind ``/static/``, or ``None``."""
        return self._by_address.get(address)


class Pages:
    """Renders templates. What they insert is escaped."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals.update(asset=assets.address, is_volume=domain.is_volume, first=domain.first_value)
        self._environment.filters.update(
            pn=domain.format_name, age=_age, ago=_ago, iso=_iso, dicom_date=_dicom_date, number=_number
        )

    def page(
        self, request: Request, template: str, principal: Principal | None, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page, or a part of one, for this caller. It is not kept by any cache: it may show patient data."""
        light = request.cookies.get(THEME_COOKIE) == "light"
        html = self._environment.get_template(template).render(
            principal=principal,
            theme="light" if light else "dark",
            path=domain.local_path(request.url.path),
            **values,
        )
        return HTMLResponse(html, status, {"Cache-Control": "no-store", "Vary": "HX-Request"})


def _age(study: Any) -> str:
    return domain.format_age(study.patient_birth_date, study.study_date, study.attributes)


def _ago(moment: datetime) -> str:
    return domain.since(moment, datetime.now(UTC))


def _iso(moment: datetime | date) -> str:
    if isinstance(moment, datetime):
        return moment.astimezone(UTC).isoformat(timespec="seconds")
    return moment.isoformat()


def _dicom_date(day: date) -> str:
    return day.strftime("%Y%m%d")


def _number(value: int) -> str:
    """A count with a narrow space between the thousands."""
    return f"{value:,}".replace(",", "\u202f")
