"""How files of environment variables are read."""

import os
from pathlib import Path

import pytest

from mirrord_trace.config.env_file import FILE_BYTES, VALUE_BYTES, read_env_file
from mirrord_trace.errors import UsageFailure

LOCAL = {"HERE": "here", "EMPTY_HERE": ""}


def read(path: Path, text: str | bytes) -> dict[str, str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {os.fsdecode(name): os.fsdecode(value) for name, value in read_env_file(str(path), LOCAL).items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "variables.env"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("  export \t A=1", "1"),
        ("A = 1 ", "1"),
        ("A=", ""),
        ("A=   # comment", ""),
        ("A=#fff", "#fff"),
        ("A=b#c", "b#c"),
        ("A=b # c", "b"),
        ("A=b c  d\t", "b c  d"),
        ("A='b c' # d", "b c"),
        ("A='$B \\n \"'", '$B \\n "'),
        ('A="b c"', "b c"),
        ('A="b\\n\\t\\\\ \\" \\$C"', 'b\n\t\\ " $C'),
        ("A=b\\ c\\$", "b c$"),
        ("A='b'\\''c'", "b'c"),
        ('A="b"c', "bc"),
        ("A='b\n# c\nd'", "b\n# c\nd"),
        ('A="b\nc"', "b\nc"),
        ("A=a=b", "a=b"),
        ("A=ü", "ü"),
        ("A=$HERE/x", "here/x"),
        ("A=${HERE}x", "herex"),
        ('A="${HERE}"', "here"),
        ("A=>$NOWHERE<", "><"),
        ("A=${NOWHERE:-a b}", "a b"),
        ("A=${EMPTY_HERE:-c}", "c"),
        ("A=${HERE:-c}", "here"),
        ("B_1=b\nA=$B_1$B_1", "bb"),
        ("HERE=there\nA=$HERE", "here"),
        ("A=$ $1 a$", "$ $1 a$"),
        ("A=1\nA=2", "2"),
        ("\ufeffA=1\r\n\r\nB=2\r\n", "1"),
        ("# A=1\n\nA=2", "2"),
    ],
)
def test_value(file: Path, line: str, value: str) -> None:
    assert read(file, line)["A"] == value


def test_nothing_is_said_by_comments_and_empty_lines(file: Path) -> None:
    assert read(file, "") == {}
    assert read(file, "\n \t\n  # A=1\n#") == {}


def test_all_lines_are_read(file: Path) -> None:
    assert read(file, "A=1 # a\nB='2'\n\nexport C.d=3") == {"A": "1", "B": "2", "C.d": "3"}


def test_bytes_need_not_be_text(file: Path) -> None:
    file.write_bytes(b"A=\xff\x80")
    assert read_env_file(str(file), {}) == {b"A": b"\xff\x80"}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("A=1\nnonsense\n", 2, "expected NAME=VALUE"),
        ("=1", 1, "expected NAME=VALUE"),
        ("1A=1", 1, "expected NAME=VALUE"),
        ("very bacon=1", 1, "expected NAME=VALUE"),
        ("export A", 1, "expected NAME=VALUE"),
        ("A=1\nB='b\nC=2\n", 2, "a single quote is not closed"),
        ('A=1\nB="b\nC=2\n', 2, "a double quote is not closed"),
        ('A="b" c', 1, "expected nothing but a comment after the closing quote"),
        ("A='a\nb'\nB=\\d", 3, "a backslash before 'd' means nothing"),
        ("A=b\\", 1, "a backslash before '' means nothing"),
        ("A=${B", 1, "expected ${NAME} or ${NAME:-DEFAULT}"),
        ("A=${}", 1, "expected ${NAME} or ${NAME:-DEFAULT}"),
        ("A=b\0c", 1, "has a zero byte in it"),
        ("A='b\0c'", 1, "has a zero byte in it"),
        ("A=" + "x" * (VALUE_BYTES + 1), 1, "longer than what a process can be given"),
        (f"A={'x' * 1000}\nB={'$A' * 132}", 2, "longer than what a process can be given"),
        (f"A={'x' * 131_000}\n" + "B=$A\n" * 50, 49, "more than what a process can be given"),
    ],
)
def test_a_bad_line_is_named(file: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(UsageFailure) as raised:
        read(file, text)
    assert raised.value.message.startswith(f"{file}: line {line}: ")
    assert said in raised.value.message


def test_file_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(UsageFailure, match=r"variables\.env: No such file"):
        read_env_file(str(file), {})
    with pytest.raises(UsageFailure, match="Is a directory"):
        read_env_file(str(file.parent), {})
    with pytest.raises(UsageFailure, match="too much for a file of variables"):
        read(file, "#" * (FILE_BYTES + 1))


def test_a_tilde_is_the_home_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    file.write_text("A=1")
    assert read_env_file("~/variables.env", {}) == {b"A": b"1"}
