"""`relay700 filings`, and `bind` with an unfiled number."""

from __future__ import annotations

from tests.cli.conftest import EXTENSIONS, Command

AB = ("--a", "13800000001", "--b", "13900000002", "--expires-in", "2h")


def configured(relay700: Command, filing: str) -> None:
    with (relay700.folder / "relay.toml").open("a") as config:
        config.write(f'filing = "{filing}"\n')  # [numbers] is the last table


def test_numbers_are_filed_listed_and_withdrawn(relay700: Command) -> None:
    (made,) = relay700.objects("filings", "add", "138-0000-0001", "--reference", "CT-17", reason=None)
    assert (made["number"], made["reference"], made["business"]) == ("138****0001", "CT-17", "default")
    assert "138****0001" in relay700.done("filings", "add", "13800000001", "--reference", "CT-18")
    listed = relay700.done("filings", "list", "--business", "default")
    assert "138****0001" in listed and "CT-18" in listed and "8613800000001" not in listed
    assert relay700.objects("audit", "list", "--action", "read") == []
    assert "8613800000001" in relay700.done("filings", "list", "--reveal", "--reason", "case 7")
    (entry,) = relay700.objects("audit", "list", "--action", "read")
    assert (entry["object"], entry["reason"]) == ("filings", "case 7")
    relay700.done("filings", "remove", "13800000001")
    assert relay700.objects("filings", "list") == []
    assert relay700.objects("filings", "list", "--all")[0]["withdrawn_by"].startswith("cli:")
    assert relay700.refused("filings", "remove", "13800000001") == "number: not filed by this business user"
    actions = [entry["action"] for entry in relay700.objects("audit", "list")]
    assert (actions.count("filing.add"), actions.count("filing.remove")) == (2, 1)


def test_the_audit_line_of_a_reading_says_whose_filing_was_read(relay700: Command) -> None:
    relay700.objects("filings", "add", "13800000001", "--reference", "CT-17")
    relay700.objects("filings", "show", "13800000001", "--business", "default")
    relay700.objects("filings", "list", "--expiring")
    lines = relay700.objects("audit", "list", "--action", "read", reason=None)
    number = {"number": "138****0001"}
    assert [line["details"] for line in lines] == [{"expiring": True}, number | {"business": "default"}, number]
    assert relay700.objects("audit", "list", "--action", "read", "--reveal")[-1]["details"] == {
        "number": "8613800000001"
    }


def test_a_number_that_may_not_be_bound_is_not_filed(relay700: Command) -> None:
    """A typing error is found now rather than by the first call."""
    for number in ("1380000", "110", "010-88886666", "+442071838750"):
        refused = relay700.refused("filings", "add", number, "--reference", "r")
        assert "a:" + refused.removeprefix("number:") == relay700.refused("bind", "AXN", "--a", number)
    result = relay700.run("filings", "import", "-", input="1380000,CT-1\n8001,CT-2\n")
    assert (result.exit_code, result.stdout) == (1, "1 filed, 1 refused\n")


def test_a_number_of_a_kind_no_longer_allowed_can_be_withdrawn(relay700: Command) -> None:
    relay700.done("filings", "add", "8001", "--reference", "CT-1")
    config = relay700.folder / "relay.toml"
    config.write_text(config.read_text().replace(EXTENSIONS, ""))
    relay700.done("filings", "remove", "8001")
    assert relay700.objects("filings", "list") == []


def test_json_of_a_filing_is_masked_without_a_reason(relay700: Command) -> None:
    asked = ("filings", "add", "13800000001", "--reference", "CT-1")
    (masked,), (clear,) = relay700.objects(*asked, reason=None), relay700.objects(*asked, reason="case 7")
    assert (masked["number"], clear["number"]) == ("138****0001", "8613800000001")
    (entry,) = relay700.objects("audit", "list", "--action", "read")
    assert (entry["object"], entry["reason"]) == ("filings", "case 7")


def test_lines_of_a_file_are_filed(relay700: Command) -> None:
    result = relay700.run("filings", "import", "-", input="number,reference\n13800000001,CT-1\n13700000003,\n")
    assert (result.exit_code, result.stdout) == (1, "1 filed, 1 refused\n")
    assert "line 3: reference: required" in result.stderr


def test_a_filing_waits_for_its_answer(relay700: Command) -> None:
    holder = ("--holder", "张三", "--document", "11010519491231002X")
    (made,) = relay700.objects("filings", "add", "13800000001", *holder, "--submitted", reason=None)
    assert (made["state"], made["holder"], made["document"]) == ("submitted", "张**", "1****X")
    result = relay700.run(
        "filings", "answers", "-", input="number,state,expires_at\n13800000001,approved,2099-01-31\n1,x,\n"
    )
    assert (result.exit_code, result.stdout) == (1, "1 entered, 1 refused\n")
    assert "line 3: state: must be one of" in result.stderr
    (listed,) = relay700.objects("filings", "list", "--state", "approved")
    assert (listed["number"], listed["expires_at"]) == ("8613800000001", "2099-01-31T16:00:00.000Z")
    relay700.done("filings", "forget", "13800000001", "--reason", "the holder asked")
    shown = relay700.objects("filings", "show", "138 0000 0001", "--business", "default", reason=None)
    assert [(each["state"], each["holder"], each["until"] is None) for each in shown] == [
        ("withdrawn", None, True), ("approved", None, False), ("submitted", None, False),
    ]  # fmt: skip
    (gone,) = relay700.objects("filings", "list", "--all")
    assert (gone["state"], gone["holder"]) == ("withdrawn", None)


def test_require_refuses_to_bind_an_unfiled_number(relay700: Command) -> None:
    configured(relay700, "require")
    assert relay700.refused("bind", "AXB", *AB).startswith(
        "a: this A number is not filed: file first (`relay700 filings add`"
    )
    relay700.done("filings", "add", "13800000001", "--reference", "CT-17")
    relay700.done("bind", "AXB", *AB)


def test_warn_binds_an_unfiled_number_with_a_warning(relay700: Command) -> None:
    configured(relay700, "warn")
    result = relay700.run("bind", "AXB", *AB, "--json")
    assert (result.exit_code, result.stderr) == (0, "warning: a: this A number is not filed\n")
    relay700.done("filings", "add", "13800000001", "--reference", "CT-17")
    assert relay700.run("bind", "AXN", "--a", "13800000001", "--expires-in", "2h").stderr == ""
