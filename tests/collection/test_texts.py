"""Files as people really have them say what they say, or which line cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collection.account import Account
from collection.errors import InputError
from collection.studies.prompts import load_prompts, read_prompts
from collection.studies.study_config import read_plan
from collection.texts import csv_rows, json_entries, lines_of, read_text, unwritable

MARK = b"\xef\xbb\xbf"
STRANGE = "a red apple\u2028on\u0085a\x0ctable"

PROMPT_FILES: dict[str, tuple[bytes, list[str]]] = {
    "marked.txt": (MARK + b"a red apple\na cat\n", ["a red apple", "a cat"]),
    "strange.txt": (f"{STRANGE}\na cat\n".encode(), [STRANGE, "a cat"]),
    "windows.txt": (b"a red apple\r\na cat\r\n\r\n", ["a red apple", "a cat"]),
    "notepad.txt": ("a red apple\r\na cat\r\n".encode("utf-16"), ["a red apple", "a cat"]),
    "big_endian.txt": ("\ufeffa red apple\na cat".encode("utf-16-be"), ["a red apple", "a cat"]),
    "marked.json": (MARK + b'["a red apple", "a cat"]', ["a red apple", "a cat"]),
    "lines.json": (b'{"prompt": "a red apple"}\n{"prompt": "a cat"}\n', ["a red apple", "a cat"]),
    "list.jsonl": (b'[\n  {"prompt": "a red apple"},\n  {"prompt": "a cat"}\n]\n', ["a red apple", "a cat"]),
    "marked.jsonl": (MARK + b'{"prompt": "a red apple"}\n{"prompt": "a cat"}\n', ["a red apple", "a cat"]),
    "joined.jsonl": (MARK + b'{"prompt": "a red apple"}\n' + MARK + b'{"prompt": "a cat"}\n', ["a red apple", "a cat"]),
    "strange.jsonl": (f'{{"prompt": "{STRANGE[:-6]}"}}'.replace("\x0c", "").encode(), ["a red apple\u2028on\u0085a"]),
    "nan.jsonl": (b'{"prompt": NaN}\n{"prompt": null}\n{"prompt": "a cat"}\n', ["a cat"]),
    "marked.csv": (MARK + b"Prompt,Category\r\na red apple,food\r\n", ["a red apple"]),
    "semicolon.csv": (b"Prompt;Category\na red apple, 3d;food\na cat;animals\n", ["a red apple, 3d", "a cat"]),
    "excel.csv": (MARK + b"sep=;\r\nPrompt;Category\r\na red apple, 3d;food\r\n", ["a red apple, 3d"]),
    "tabs.csv": (b"Prompt\tCategory\na red apple, 3d\tfood\n", ["a red apple, 3d"]),
    "lines.csv": (b'Prompt,Category\n"a red\napple",food\n', ["a red\napple"]),
    "short.csv": (b"Category,Prompt\nfood,a red apple\nfood\n", ["a red apple"]),
    "quotes.tsv": (b'Prompt\tCategory\na 12" pizza\tfood\n"quoted" cat\tanimals\n', ['a 12" pizza', '"quoted" cat']),
    "quoted.tsv": (b'Prompt\tCategory\n"a ""12 inch"" pizza"\tfood\n', ['a "12 inch" pizza']),
    "one_column.tsv": (b"Prompt\na red apple, 3d\n", ["a red apple, 3d"]),
}


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_prompts_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    content, prompts = PROMPT_FILES[name]
    (tmp_path / name).write_bytes(content)
    assert [prompt.text for prompt in load_prompts(str(tmp_path / name))] == prompts


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cp1252.txt", "a cat\ncafé table\n".encode("cp1252"), "Line 2 .* its byte 0xe9 is not UTF-8; save"),
        ("nested.json", b'{"prompts": ["a cat"]}', "holds no list"),
        ("by_id.json", b'{"1": {"prompt": "a cat"}}', "holds no list"),
        ("other.csv", b"id,Prompts\n1,a cat\n", "no column prompt, caption, text"),
        (
            "loose.csv",
            b"Prompt\na red apple, 3d\n",
            "Line 2 .* has 2 cells and the header 1; put a text that has a ','",
        ),
        ("torn.csv", b'Prompt,Category\n"quoted" cat,animals\n', "Line 2 .* cannot be read as a table"),
        ("twice.csv", b"prompt,prompt\na,b\n", "two columns called 'prompt'"),
        (
            "broken.jsonl",
            b'{"prompt": "a"}\n\n{"prompt": "b"\n',
            r"Line 3 .* is no JSON \(expecting ',' delimiter at column",
        ),
        ("broken.json", b'[\n"a",\n"b\n]', "Line 3 .* is no JSON"),
        ("deep.json", b"[" * 100_000, "is no JSON"),
        ("number.jsonl", b'{"prompt": 7}\n', "7 is no prompt"),
        ("nul.jsonl", b'{"prompt": "a\\u0000b"}\n', "The prompt 1 of .* has a NUL character in it"),
        ("half.json", b'["a", "\\ud83d"]', "The prompt 2 of .* half of a surrogate pair"),
        (
            "nothing.jsonl",
            b'{"prompt": null}\n',
            r"are empty \(1 entry: 0 prompts, 1 left out \(no prompt: entry 1\)\)",
        ),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line_and_cause(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load_prompts(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_study_whose_toml_has_a_mark_is_the_same_study(tmp_path: Path) -> None:
    example = Path("collection/study_example.toml").read_bytes()
    plans = []
    for name, content in (("plain", example), ("marked", MARK + example)):
        (tmp_path / f"{name}.toml").write_bytes(content)
        plans.append(read_plan(tmp_path / f"{name}.toml"))
    assert plans[0] == plans[1]
    (tmp_path / "torn.toml").write_text("name = \n")
    with pytest.raises(InputError, match=r"is no TOML \(Invalid value \(at line 1"):
        read_plan(tmp_path / "torn.toml")


def test_a_line_ends_at_a_newline_and_nowhere_else(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x0bd\x0ce\x1cf\x85g\rh\n\ni\r\nj"
    (tmp_path / "file").write_bytes(text.encode())
    assert list(lines_of(tmp_path / "file")) == [(1, text.partition("\n")[0]), (2, ""), (3, "i"), (4, "j")]
    assert read_text(tmp_path / "file") == text


def test_a_folder_and_a_file_that_is_not_there_get_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        for read in (read_text, lambda path: list(lines_of(path)), lambda path: list(json_entries(path))):
            with pytest.raises(InputError, match="cannot be read"):
                read(path)


def test_cells_keep_what_is_between_their_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'caption , x\r\n"a ""b"", c\r\nd",1\r\n,2\r\n')
    assert list(csv_rows(tmp_path / "a.csv")) == [
        (3, {"caption": 'a "b", c\r\nd', "x": "1"}),
        (4, {"caption": "", "x": "2"}),
    ]


def test_an_account_counts_every_entry_once() -> None:
    account = Account()
    assert str(account) == "0 rows: 0 pairs"
    for _ in range(3):
        account.keep()
    account.leave_out("unreadable picture", 3)
    assert str(account) == "4 rows: 3 pairs, 1 left out (unreadable picture: row 3)"
    for place in range(5, 10):
        account.leave_out("tie", place)
    assert str(account) == ("9 rows: 3 pairs, 6 left out (tie: rows 5, 6, 7 and 2 more; unreadable picture: row 3)")


def test_what_a_prompt_file_held_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n{"prompt": NaN}\n{"prompt": "a"}\n')
    _, account = read_prompts(str(tmp_path / "a.jsonl"))
    assert str(account) == ("3 entries: 1 prompt, 2 left out (a prompt that stands above: entry 3; no prompt: entry 2)")


@pytest.mark.parametrize("text", ["تفاحة 🍎", "👩‍👩‍👧‍👦", "a\u2028b\rc\td", "x" * 10_000])
def test_every_other_text_can_be_kept(text: str) -> None:
    assert unwritable(text) is None
    assert re.fullmatch("a NUL character", unwritable(text + "\0") or "")
