"""Which presentation contexts are accepted: verification and storage, private SOP classes included. No I/O."""

from dataclasses import dataclass
from typing import Final

from libs.dicom.identifiers import is_uid
from libs.dimse.pdu import AssociateRequest, ContextAnswer, PresentationContext, Role

VERIFICATION: Final = "1.2.840.10008.1.1"
_STANDARD: Final = "1.2.840.10008."
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_ACCEPTED, _REFUSED, _ABSTRACT_SYNTAX, _TRANSFER_SYNTAXES = 0, 1, 3, 4
_VERIFICATION_SYNTAXES: Final = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
# Storage classes outside of the usual arc (PS3.6 table A-1) that belong to patients.
_OTHER_STORAGE: Final = frozenset({"1.2.840.10008.5.1.4.34.7", "1.2.840.10008.5.1.4.34.10"})


@dataclass(frozen=True)
class Negotiated:
    """What was agreed on.

    Attributes:
        answers: one for each proposed context.
        accepted: identifier → the context, with the one transfer syntax that was chosen.
        roles: the answers to the roles that were proposed.
    """

    answers: tuple[ContextAnswer, ...]
    accepted: dict[int, PresentationContext]
    roles: tuple[Role, ...]


def is_storage(sop_class_uid: str, storage_uids: frozenset[str] = frozenset()) -> bool:
    """Whether a SOP class is one of storage: the standard's, future ones of its arc, and every private one.

    Arguments:
        sop_class_uid: the abstract syntax.
        storage_uids: those that the peer says are of the storage service class (PS3.7 annex D.3.3.6).
    """
    if sop_class_uid.startswith(_STANDARD):
        return sop_class_uid.startswith(_STORAGE) or sop_class_uid in _OTHER_STORAGE or sop_class_uid in storage_uids
    return is_uid(sop_class_uid)


def negotiate(request: AssociateRequest) -> Negotiated:
    """Accepts verification and storage in the transfer syntax that the peer names first, whatever it is.

    The data set is kept as it arrives, so the peer's own preference is the one that alters least.
    """
    answers, accepted = [], {}
    roles = {role.sop_class_uid: role for role in request.roles}
    for context in request.contexts:
        answer = _answer(context, request.storage_uids, roles.get(context.abstract_syntax))
        answers.append(answer)
        if answer.result == _ACCEPTED:
            accepted[context.id] = PresentationContext(context.id, context.abstract_syntax, (answer.transfer_syntax,))
    mentioned = {context.abstract_syntax for context in accepted.values()}
    agreed = tuple(Role(uid, role.scu, scp=False) for uid, role in roles.items() if uid in mentioned)
    return Negotiated(tuple(answers), accepted, agreed)


def _answer(context: PresentationContext, storage_uids: frozenset[str], role: Role | None) -> ContextAnswer:
    verification = context.abstract_syntax == VERIFICATION
    if not verification and not is_storage(context.abstract_syntax, storage_uids):
        return ContextAnswer(context.id, _ABSTRACT_SYNTAX)
    if role is not None and not role.scu:
        return ContextAnswer(context.id, _REFUSED)  # the peer wants to be SCP only; so do we
    for syntax in context.transfer_syntaxes:
        if syntax in _VERIFICATION_SYNTAXES or (not verification and is_uid(syntax)):
            return ContextAnswer(context.id, _ACCEPTED, syntax)
    return ContextAnswer(context.id, _TRANSFER_SYNTAXES)
