"""What identity records of who did what."""

import time
from dataclasses import dataclass

from libs.auth import Principal
from libs.events import AuditRecorded
from libs.events.models import Action
from libs.tenancy import SYSTEM_TENANT
from services.identity.resources import Resources


@dataclass(frozen=True)
class Caller:
    """Who asks for something, and how.

    Attributes:
        address: network address.
        resource: method and path.
        principal: the verified caller, where there is one.
    """

    address: str
    resource: str
    principal: Principal | None = None

    def subject_in(self, tenant: str) -> str:
        """The caller's subject in a record of the tenant; an operator's names the operators' tenant."""
        if self.principal is None:
            return "anonymous"
        own = self.principal.tenant == tenant
        return self.principal.subject if own else f"{self.principal.tenant}/{self.principal.subject}"


async def record(
    resources: Resources,
    tenant: str,
    action: Action,
    caller: Caller,
    detail: str,
    *,
    actor: str | None = None,
    actor_name: str = "",
    success: bool = True,
) -> None:
    """Records one operation.

    Raises:
        AuditUnavailable: it can't be kept; what it records must not go on.
    """
    await resources.trail.record(
        tenant,
        AuditRecorded(
            action=action,
            outcome="success" if success else "minor-failure",
            actor=actor or caller.subject_in(tenant),
            actor_name=actor_name or (caller.principal.name if caller.principal else ""),
            service="identity",
            address=caller.address,
            resource=caller.resource,
            detail=detail,
        ),
    )


async def record_refusal(
    resources: Resources, tenant: str | None, caller: Caller, detail: str, *, actor: str | None = None
) -> None:
    """Records a refusal. Of those that repeat within a minute only the first is written; the next says how many.

    Raises:
        AuditUnavailable: it can't be kept.
    """
    where = tenant or SYSTEM_TENANT
    key = f"{where} {actor or caller.subject_in(where)} {caller.address} {detail}"
    held_back = resources.noise.admit(key, time.monotonic())
    if held_back is None:
        return
    counted = f"{detail} ({held_back} more of these before)" if held_back else detail
    await record(resources, where, "refuse", caller, counted, actor=actor, success=False)
