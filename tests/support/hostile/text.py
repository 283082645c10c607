"""Text that is more than text: character sets, paths, markup, formulas, control characters."""

from tests.support.dicom_bytes import SOP_CLASS, element, identity, item
from tests.support.hostile.corpus import MISMATCH, STORED, Identity, comment, instance

UTF8 = element(0x00080005, "CS", b"ISO_IR 192")


def _even(value: bytes) -> bytes:
    return value + b" " * (len(value) % 2)


def _named(identity_: Identity, name: bytes, *, charset: bytes = UTF8) -> bytes:
    """The same text as the patient's name and number, the study's description and a comment."""
    return identity_.file(
        charset,
        element(0x00080050, "SH", _even(name[:16])),
        element(0x00081030, "LO", _even(name[:64])),
        element(0x00100010, "PN", _even(name)),
        element(0x00100020, "LO", _even(name[:64])),
        comment(_even(name)),
    )


def _charset(term: bytes) -> bytes:
    return element(0x00080005, "CS", _even(term))


@instance("character set", STORED)
def unknown_character_set(identity: Identity) -> bytes:
    return _named(identity, b"M\xfcller^J\xf6rg", charset=_charset(b"ISO_IR 666"))


@instance("character set", STORED)
def ten_thousand_character_sets(identity: Identity) -> bytes:
    return _named(identity, b"a\x1b$B;3ED\x1b(B^b", charset=_charset(b"ISO 2022 IR 87\\" * 4000))


@instance("character set", STORED)
def escape_that_does_not_exist(identity: Identity) -> bytes:
    return _named(identity, b"\x1b$Q\xe9\x1b\x1b(\x1b", charset=_charset(b"\\ISO 2022 IR 87"))


@instance("character set", STORED)
def nothing_but_escapes(identity: Identity) -> bytes:
    return identity.file(
        _charset(b"\\ISO 2022 IR 87"), comment(b"\x1b" * 60_000), element(0x00081030, "LO", b"\x1b$B" * 21_000)
    )


@instance("character set", STORED)
def overlong_utf_8(identity: Identity) -> bytes:
    return _named(identity, b"caf\xc0\xaf\xe0\x80\xaf..\xc0\xae^x")


@instance("character set", STORED)
def surrogates_in_utf_8(identity: Identity) -> bytes:
    return _named(identity, b"\xed\xa0\x80\xed\xbf\xbf^\xf4\x90\x80\x80")


@instance("character set", STORED)
def u_0000(identity: Identity) -> bytes:
    """PostgreSQL refuses it, so that one name could stop the catalog."""
    return _named(identity, b"Do\0e^Ja\0ne\0\0")


@instance("character set", STORED)
def bidirectional_controls(identity: Identity) -> bytes:
    return _named(identity, "\u202eevil\u202c^\u2066gpj.exe\u2069\u200f".encode())


@instance("character set", STORED)
def noncharacters_and_private_use(identity: Identity) -> bytes:
    return _named(identity, "\ufffe\uffff\U0010ffff^\ue000\U000f0000".encode())


@instance("injection", STORED)
def markup_in_the_name(identity: Identity) -> bytes:
    return _named(identity, b"<img src=x onerror=alert(1)>^</script><script>alert(2)</script>")


@instance("injection", STORED)
def formula_in_the_name(identity: Identity) -> bytes:
    return _named(identity, b"=cmd|' /C calc'!A0^+1+1^-1^@SUM(1)")


@instance("injection", STORED)
def line_breaks_in_the_name(identity: Identity) -> bytes:
    return _named(identity, b"Doe\r\nSet-Cookie: a=b\r\n\r\n^x\x1b]0;title\x07\x1b[2J")


@instance("injection", STORED)
def hl7_in_the_name(identity: Identity) -> bytes:
    return _named(identity, b"Doe^Jane|PID|1||666\rOBX|1|~\\&")


@instance("injection", STORED)
def sql_and_templates_in_the_name(identity: Identity) -> bytes:
    return _named(identity, b"'; DROP TABLE studies; --^{{7*7}}${7*7}%s%n%x")


@instance("injection", STORED)
def json_in_the_name(identity: Identity) -> bytes:
    return _named(identity, b'","Value":[{"Alphabetic":"x"}],"a":"^\xe2\x80\xa8\xe2\x80\xa9')


def _with_uid(identity_: Identity, uid: bytes, *, which: str = "instance") -> bytes:
    names = {"instance": identity_.instance, "study": identity_.study, "series": identity_.series}
    names[which] = uid.decode("latin-1")
    return identity_.head() + b"".join(identity(**names, sop_class=SOP_CLASS))


@instance("path", MISMATCH)
def instance_uid_that_climbs(identity: Identity) -> bytes:
    return _with_uid(identity, b"../../../../tmp/lightbox-was-here")


@instance("path", MISMATCH)
def study_uid_that_climbs(identity: Identity) -> bytes:
    return _with_uid(identity, b"..", which="study")


@instance("path", MISMATCH)
def series_uid_that_is_absolute(identity: Identity) -> bytes:
    return _with_uid(identity, b"/etc/cron.d/lightbox", which="series")


@instance("path", MISMATCH)
def study_uid_with_nul(identity: Identity) -> bytes:
    return _with_uid(identity, b"1.2.3\0.4", which="study")


@instance("path", MISMATCH)
def instance_uid_that_is_a_command(identity: Identity) -> bytes:
    return _with_uid(identity, b"1.2;$(touch /tmp/lightbox-was-here)")


@instance("path", MISMATCH)
def study_uid_of_65_digits(identity: Identity) -> bytes:
    return _with_uid(identity, b"1" * 65, which="study")


@instance("path", MISMATCH)
def study_uid_with_a_line_break(identity: Identity) -> bytes:
    return _with_uid(identity, b"1.2.3\r\n4", which="study")


@instance("path", STORED)
def referenced_file_that_climbs(identity: Identity) -> bytes:
    return identity.file(element(0x00041500, "CS", b"..\\..\\..\\ETC\\PASSWD "))


@instance("path", STORED)
def ae_titles_that_climb(identity: Identity) -> bytes:
    climb = _even(b"../../../etc")
    return identity.file(element(0x00080054, "AE", climb), element(0x00400241, "AE", b"$(reboot)\\;id "))


@instance("injection", STORED)
def a_report_full_of_markup(identity: Identity) -> bytes:
    content = item(element(0x0040A160, "UT", b"<svg/onload=alert(1)>" * 1000))
    return identity.file(element(0x0040A730, "SQ", content * 50))
