"""Exactly one audit record for each operation, whatever becomes of it."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from libs.auth import Principal
from libs.events import AuditTrail
from libs.events.models import Action, AuditRecorded
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import Problem

SERVICE: Final = "dicomweb"
_log = structlog.get_logger(__name__)


class Operation:
    """What one request does, filled in while it is answered.

    Attributes:
        principal: the caller, once known.
        action: a search is a query, everything else a retrieval.
        study_uid: what it is about.
        series_uid: what it is about.
        sop_uid: what it is about.
        patient_id: what it is about.
        instance_count: instances given out, or results found.
    """

    def __init__(self, trail: AuditTrail, request: Request) -> None:
        self._trail = trail
        self._request = request
        self._recorded = False
        self.principal: Principal | None = None
        self.action: Action = "retrieve"
        self.study_uid = ""
        self.series_uid = ""
        self.sop_uid = ""
        self.patient_id = ""
        self.instance_count = 0

    @property
    def tenant(self) -> str:
        """The caller's tenant; that of the operators while the caller isn't known."""
        return self.principal.tenant if self.principal else SYSTEM_TENANT

    async def succeeded(self) -> None:
        """Records what is about to be given out; nothing is, unless this returns."""
        await self._record(self.action, "success", "")

    async def failed(self, detail: str, *, serious: bool = False) -> None:
        """Records that it was not given out, and why."""
        action: Action = self.action if self.principal else "refuse"
        await self._record(action, "serious-failure" if serious else "minor-failure", detail)

    async def refused(self, principal: Principal | None, detail: str) -> None:
        """Records that the caller may not do this."""
        self.principal = principal
        await self._record("refuse", "minor-failure", detail)

    async def broken_off(self, detail: str) -> None:
        """Records that an answer which had begun was broken off, since what was read is damaged."""
        self._recorded = False
        await self._record(self.action, "serious-failure", detail)

    async def _record(self, action: Action, outcome: Any, detail: str) -> None:
        if self._recorded:
            return
        self._recorded = True
        request = self._request
        await self._trail.record(
            self.tenant,
            AuditRecorded(
                action=action,
                outcome=outcome,
                actor=self.principal.subject if self.principal else "anonymous",
                actor_name=self.principal.name if self.principal else "",
                service=SERVICE,
                address=request.client.host if request.client else "",
                study_uid=self.study_uid,
                series_uid=self.series_uid,
                sop_instance_uid=self.sop_uid,
                patient_id=self.patient_id,
                resource=f"{request.method} {request.url.path[:1000]}",
                query=request.url.query[:4000],
                instance_count=self.instance_count,
                detail=detail[:1000],
            ),
        )


def operation_of(request: Request) -> Operation:
    """The operation of a request that an `AuditedRoute` handles."""
    found: Operation = request.state.operation
    return found


async def on_refusal(request: Request, principal: Principal | None, problem: Problem) -> None:
    """Records that a caller was refused; told by ``libs.auth``."""
    await operation_of(request).refused(principal, problem.detail or problem.title)


class AuditedRoute(APIRoute):
    """A route whose every use is recorded: before the answer is sent, or when there is none."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wraps the handler that FastAPI makes."""
        handle = super().get_route_handler()

        async def audited(request: Request) -> Response:
            operation = Operation(request.app.state.resources.audit, request)
            request.state.operation = operation
            try:
                response = await handle(request)
            except Problem as problem:
                await operation.failed(problem.detail or problem.title, serious=problem.status >= 500)
                raise
            except (HTTPException, RequestValidationError):
                await operation.failed("The request can't be understood.")
                raise
            except Exception:
                await operation.failed("An unexpected error.", serious=True)
                raise
            await operation.succeeded()
            return response

        return audited
