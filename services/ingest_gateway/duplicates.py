"""What is done with an instance whose SOP Instance UID was stored before. Pure rules, no I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from libs.packs import Rule
from services.ingest_gateway.domain import Instance, Outcome, Reason

Policy = Literal["keep-first", "keep-latest-as-version", "refuse"]
"""What a tenant wants done with other bytes under a UID that is taken."""

DIFFERING: Final = 0xB000
"""Warning Reason: an instance of this UID with other bytes is kept too. Coercion of data elements (PS3.18 table I.2-1)
is the one code that says that what can be retrieved is not, or not only, what was sent."""
DUPLICATE: Final = 0x0111
"""Failure Reason: duplicate SOP instance (PS3.7 section C.5.7)."""


@dataclass(frozen=True)
class TenantRules:
    """How a tenant's instances are stored.

    Attributes:
        duplicates: what is done with other bytes under a UID that is taken.
        requests_at_once: uploads under way at once; None for what the gateway is set to.
    """

    duplicates: Policy = "keep-first"
    requests_at_once: int | None = None

    @property
    def pack_rule(self) -> Rule:
        """The rule that packs carry, so that a rebuilt catalog shows the same instances."""
        return "keep-latest" if self.duplicates == "keep-latest-as-version" else "keep-first"


@dataclass(frozen=True)
class Earlier:
    """What the catalog has under one SOP Instance UID.

    Attributes:
        shown: SHA-256, in hexadecimal, of the instance that is shown.
        packs: for each SHA-256, shown or kept as a version, the key of the pack that holds it.
    """

    shown: str = ""
    packs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sorted:
    """What is to be done with the instances of a request.

    Attributes:
        new: are to be stored, in the order of arrival.
        refused: (SOP Instance UID, SHA-256) of those that the policy refuses.
    """

    new: tuple[Instance, ...]
    refused: frozenset[tuple[str, str]]


def packs_to_check(instances: Iterable[Instance], earlier: Mapping[str, Earlier]) -> set[str]:
    """Keys of the packs that are said to hold the very bytes that were sent."""
    found = (earlier.get(i.sop_instance_uid, Earlier()).packs.get(i.sha256) for i in instances)
    return {key for key in found if key is not None}


def sort_duplicates(
    instances: Sequence[Instance], earlier: Mapping[str, Earlier], there: frozenset[str], policy: Policy
) -> Sorted:
    """Tells what is new from what is stored already and from what the policy refuses.

    Arguments:
        instances: in the order of arrival.
        earlier: what the catalog has, by SOP Instance UID.
        there: keys of packs that are really there; what lies in another one counts as lost, and is stored again.
        policy: of the tenant.
    """
    contents: dict[str, set[str]] = {}
    new: list[Instance] = []
    refused: set[tuple[str, str]] = set()
    for instance in instances:
        known = earlier.get(instance.sop_instance_uid, Earlier())
        taken = contents.setdefault(instance.sop_instance_uid, set(known.packs))
        if instance.sha256 in taken and known.packs.get(instance.sha256, "") in there:
            continue
        if policy == "refuse" and taken and instance.sha256 not in taken:
            refused.add(instance.content)
            continue
        taken.add(instance.sha256)
        new.append(instance)
    return Sorted(tuple(new), frozenset(refused))


def refusal() -> Reason:
    """The refusal of other bytes under a UID that is taken."""
    return Reason(DUPLICATE, "an instance with this UID and other bytes was stored before, and no other one is taken")


def warn_of_differing(
    outcomes: Sequence[Outcome], earlier: Mapping[str, Earlier], policy: Policy = "keep-first"
) -> list[Outcome]:
    """Adds the warning to each stored instance whose UID was taken by other bytes before.

    Arguments:
        outcomes: in the order of arrival.
        earlier: what the catalog has had before, by SOP Instance UID.
        policy: of the tenant.
    """
    contents: dict[str, dict[str, None]] = {}
    result: list[Outcome] = []
    for outcome in outcomes:
        words = ""
        if outcome.stored:
            known = earlier.get(outcome.sop_instance_uid, Earlier())
            taken = contents.setdefault(outcome.sop_instance_uid, {**({known.shown: None} if known.shown else {})})
            words = _in_words(outcome.sha256, taken, known, policy)
            taken[outcome.sha256] = None
        result.append(replace(outcome, warning=Reason(DIFFERING, words)) if words else outcome)
    return result


def _in_words(sha256: str, taken: Mapping[str, None], known: Earlier, policy: Policy) -> str:
    """What the sender should know; nothing where all bytes under the UID are the same."""
    if not taken or next(iter(taken)) == sha256:
        return ""
    if policy != "keep-latest-as-version":
        return "an instance with this UID and other bytes was stored before; it stays, this one is kept as a version"
    if sha256 in known.packs:
        return "an instance with this UID and other bytes was stored later; it is shown, this one stays as a version"
    return "an instance with this UID and other bytes was stored before; it is kept as a version, this one is shown"
