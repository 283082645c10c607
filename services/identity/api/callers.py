"""What every route needs: the service's resources and the caller."""

from typing import Annotated

from fastapi import Depends, Request

from libs.auth import Principal
from services.identity.handlers.audit import Caller
from services.identity.resources import Resources
from services.identity.settings import Settings


def resources_of(request: Request) -> Resources:
    """The resources that the lifespan opened."""
    resources: Resources = request.app.state.resources
    return resources


def settings_of(request: Request) -> Settings:
    """The settings that the application was made with."""
    settings: Settings = request.app.state.settings
    return settings


def caller_of(request: Request, principal: Principal | None = None) -> Caller:
    """The caller as the audit trail names it."""
    address = request.client.host if request.client else ""
    return Caller(address, f"{request.method} {request.url.path}"[:256], principal)


WithResources = Annotated[Resources, Depends(resources_of)]
WithSettings = Annotated[Settings, Depends(settings_of)]
