"""Nodes over HTTP."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from libs.auth import Authenticated, Principal
from services.identity.api.administration import After, Input, Limit, administers
from services.identity.api.callers import WithResources, caller_of
from services.identity.certificates import MAX_TEXT
from services.identity.domain_nodes import MAX_CALLING, MAX_CERTIFICATES, MAX_NETWORKS, Node
from services.identity.handlers import nodes

_Title = Annotated[str, Field(max_length=64)]
_Titles = Annotated[list[_Title], Field(max_length=MAX_CALLING)]
_Networks = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=MAX_NETWORKS)]
_Certificates = Annotated[list[Annotated[str, Field(max_length=MAX_TEXT)]], Field(max_length=MAX_CERTIFICATES)]


class NewNode(Input):
    """A node to be registered."""

    name: Annotated[str, Field(max_length=4096)] = Field(description="its name within the clinic")
    called_ae_title: _Title | None = Field(default=None, description="what it calls us; the clinic's own by default")
    calling_ae_titles: _Titles = Field(default=[], description="what it may call itself; anything when empty")
    networks: _Networks = Field(default=[], description="where it may come from, as CIDR; anywhere when empty")
    certificates: _Certificates = Field(description="each in PEM, or the SHA-256 of its DER in hexadecimal")
    enabled: bool = True


class NodeUpdate(Input):
    """What is to change of a node; ``certificates`` replaces all of them."""

    calling_ae_titles: _Titles | None = None
    networks: _Networks | None = None
    certificates: _Certificates | None = None
    enabled: bool | None = None


class CertificateView(BaseModel):
    """A client certificate of a node; subject and validity are known where it was given in PEM."""

    sha256: str
    subject: str
    not_after: datetime | None


class NodeView(BaseModel):
    """A node."""

    name: str
    called_ae_title: str
    calling_ae_titles: list[str]
    networks: list[str]
    enabled: bool
    certificates: list[CertificateView]
    created_at: datetime

    @classmethod
    def of(cls, node: Node) -> "NodeView":
        """The node as the API shows it."""
        return cls(
            name=node.name,
            called_ae_title=node.called_ae_title,
            calling_ae_titles=list(node.calling_ae_titles),
            networks=list(node.networks),
            enabled=node.enabled,
            certificates=[
                CertificateView(sha256=one.fingerprint.hex(), subject=one.subject, not_after=one.not_after)
                for one in node.certificates
            ],
            created_at=node.created_at,
        )


class Nodes(BaseModel):
    """Some nodes; ``next`` is the ``after`` of the following page, if there is one."""

    nodes: list[NodeView]
    next: str | None = None


def make_router(auth: Authenticated) -> APIRouter:
    """The routes; ``auth`` lets in who may come in."""
    router = APIRouter(prefix="/api/identity/tenants/{tenant}/nodes", tags=["nodes"])
    administrator = administers(auth)

    @router.get("", summary="List nodes")
    async def list_nodes(
        resources: WithResources,
        _: Annotated[Principal, administrator],
        tenant: str,
        after: After = "",
        limit: Limit = 200,
    ) -> Nodes:
        found = await nodes.list_nodes(resources, tenant, after, limit)
        return Nodes(nodes=[NodeView.of(n) for n in found], next=found[-1].name if len(found) == limit else None)

    @router.post("", status_code=201, summary="Register a node")
    async def create_node(
        request: Request,
        resources: WithResources,
        principal: Annotated[Principal, administrator],
        tenant: str,
        wanted: NewNode,
    ) -> NodeView:
        made = await nodes.create_node(
            resources,
            tenant,
            wanted.name,
            called_ae_title=wanted.called_ae_title,
            calling_ae_titles=wanted.calling_ae_titles,
            networks=wanted.networks,
            certificates=wanted.certificates,
            enabled=wanted.enabled,
            caller=caller_of(request, principal),
        )
        return NodeView.of(made)

    @router.patch("/{name}", summary="Change a node")
    async def change_node(
        request: Request,
        resources: WithResources,
        principal: Annotated[Principal, administrator],
        *,
        tenant: str,
        name: str,
        update: NodeUpdate,
    ) -> NodeView:
        change = nodes.NodeChange(
            calling_ae_titles=update.calling_ae_titles,
            networks=update.networks,
            certificates=update.certificates,
            enabled=update.enabled,
        )
        return NodeView.of(await nodes.change_node(resources, tenant, name, change, caller_of(request, principal)))

    @router.delete("/{name}", status_code=204, summary="Remove a node")
    async def delete_node(
        request: Request,
        resources: WithResources,
        principal: Annotated[Principal, administrator],
        tenant: str,
        name: str,
    ) -> None:
        await nodes.delete_node(resources, tenant, name, caller_of(request, principal))

    return router
