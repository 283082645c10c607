"""The rules behind the pages: a search that is read wrongly shows the wrong patients; a name that is, names them."""

from datetime import UTC, date, datetime, timedelta

import pytest

from services.portal.domain import (
    PersonName,
    format_age,
    format_name,
    is_volume,
    local_path,
    read_date,
    read_search,
    since,
)


def test_a_search_line_takes_words_and_conditions() -> None:
    found = read_search('doe head modality:ct,mr from:2026-01 to:2026-02 id:47 accession:A1 name:"van der"', {})
    assert found.words == ("doe", "head")
    assert found.modalities == ("CT", "MR")
    assert (found.earliest, found.latest) == (date(2026, 1, 1), date(2026, 2, 28))
    assert (found.patient_id, found.accession, found.name) == ("47*", "A1*", "*van*der*")
    assert found.problems == ()


def test_line_and_fields_both_count() -> None:
    found = read_search("from:2026", {"from": "2026-03-01", "name": "doe", "modality": "CR,DX"})
    assert found.earliest == date(2026, 3, 1)
    assert found.modalities == ("CR", "DX")
    assert found.query_string == "q=from%3A2026&name=doe&from=2026-03-01&modality=CR%2CDX"


def test_a_month_in_the_address_fills_the_date_field() -> None:
    found = read_search("", {"from": "2026-02", "to": "2026-02"})
    assert (found.field("from"), found.field("to")) == ("2026-02-01", "2026-02-28")


def test_what_cannot_be_understood_is_said_and_left_out() -> None:
    found = read_search("head from:yesterday", {})
    assert found.words == ("head",)
    assert found.earliest is None
    assert "“from:” needs a date" in found.problems[0]


def test_an_unfinished_condition_is_not_searched_for_yet() -> None:
    assert read_search("head modality:", {}).words == ("head",)


@pytest.mark.parametrize(
    "line", ['"', '"open quote', "'", "\\", "a:b:c", ":", "%_\\", "#x", "\0\u202ex", "x" * 5000, '""', "*", "(|*)"]
)
def test_no_line_breaks_the_search(line: str) -> None:
    found = read_search(line, {"name": line})
    assert len(found.text) <= 400
    assert "\0" not in found.text


def test_an_apostrophe_belongs_to_a_name() -> None:
    assert read_search("o'neil", {}).words == ("o'neil",)


def test_an_unknown_prefix_is_a_plain_word() -> None:
    assert read_search("ward:7", {}).words == ("ward:7",)


def test_the_number_of_words_is_bounded() -> None:
    found = read_search(" ".join("abcdefghijk"), {})
    assert len(found.words) == 8
    assert found.problems


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2026", (date(2026, 1, 1), date(2026, 12, 31))),
        ("2024-02", (date(2024, 2, 1), date(2024, 2, 29))),
        ("20260131", (date(2026, 1, 31), date(2026, 1, 31))),
        ("2026-13", None),
        ("2026-02-30", None),
        ("0000", None),
        ("31.1.2026", None),
    ],
)
def test_dates(text: str, days: tuple[date, date] | None) -> None:
    assert read_date(text) == days


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("Doe^Jane", PersonName("DOE, Jane")),
        ("Adams^John Robert Quincy^^Rev.^B.A. M.Div.", PersonName("ADAMS, John Robert Quincy, Rev. B.A. M.Div.")),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", PersonName("YAMADA, Tarou", "山田 太郎", "やまだ たろう")),
        ("=王^小東", PersonName("", "王 小東")),
        ("HEAD", PersonName("HEAD")),
        ("^Jane", PersonName("Jane")),
        ("", PersonName("")),
        ("Doe^\u202eenaJ\r\n<b>", PersonName("DOE, enaJ <b>")),
        ("a^b^c^d^e^f^g=h=i=j", PersonName("A, b c, d e", "h", "i")),
    ],
)
def test_names_are_formatted_for_reading(value: str, name: PersonName) -> None:
    assert format_name(value) == name


@pytest.mark.parametrize(
    ("birth", "at", "age"),
    [
        (date(1980, 5, 17), date(2026, 5, 16), "45 y"),
        (date(1980, 5, 17), date(2026, 5, 17), "46 y"),
        (date(2025, 6, 1), date(2026, 1, 31), "7 mo"),
        (date(2026, 1, 20), date(2026, 1, 31), "11 d"),
        (date(2026, 2, 1), date(2026, 1, 31), ""),
        (None, date(2026, 1, 31), ""),
    ],
)
def test_age_at_the_study(birth: date | None, at: date, age: str) -> None:
    assert format_age(birth, at) == age


def test_the_age_that_the_study_states_comes_first() -> None:
    stated = {"00101010": {"vr": "AS", "Value": ["003W"]}}
    assert format_age(date(1980, 1, 1), date(2026, 1, 1), stated) == "3 wk"
    unset = {"00101010": {"vr": "AS", "Value": ["000Y"]}}
    assert format_age(date(1980, 1, 1), date(2026, 1, 1), unset) == "46 y"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "just now"), (59, "just now"), (720, "12 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_how_long_ago(seconds: int, words: str) -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert since(now - timedelta(seconds=seconds), now) == words


def test_long_ago_is_a_date() -> None:
    assert since(datetime(2025, 1, 2, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC)) == "2025-01-02"


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil", "", "/a\r\nb"])
def test_nobody_is_sent_elsewhere_after_log_in(target: str) -> None:
    assert local_path(target) == "/"
    assert local_path("/studies/1.2?x=1") == "/studies/1.2?x=1"


def test_three_planes_are_offered_for_volumes_only() -> None:
    assert is_volume("MR", 189)
    assert not is_volume("MR", 1)
    assert not is_volume("CR", 40)
